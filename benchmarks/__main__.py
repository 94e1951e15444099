"""The command: python -m benchmarks NAME; `python -m benchmarks --help` lists them."""

from __future__ import annotations

import click

from benchmarks.cartpole import cartpole
from benchmarks.corruption import corruption
from benchmarks.datasets import datasets
from benchmarks.demo import demo, full
from benchmarks.growth import growth
from benchmarks.identity import identity
from benchmarks.inference import inference
from benchmarks.memory import memory
from benchmarks.profile import profile
from benchmarks.quick import quick
from benchmarks.readme import readme
from benchmarks.speed import collection, environment, evaluation
from benchmarks.train import train


@click.group(help="Makes the figures under benchmarks/results/.")
def main() -> None:
    """Groups the benchmarks."""


for command in (
    demo,
    full,
    cartpole,
    environment,
    evaluation,
    collection,
    train,
    growth,
    profile,
    inference,
    quick,
    datasets,
    identity,
    memory,
    corruption,
    readme,
):
    main.add_command(command)

if __name__ == "__main__":
    main()

"""The command: python -m benchmarks NAME; `python -m benchmarks --help` lists them."""

from __future__ import annotations

import click

from benchmarks.cartpole import cartpole
from benchmarks.demo import demo, full
from benchmarks.identity import identity
from benchmarks.readme import readme
from benchmarks.speed import collection, environment, evaluation
from benchmarks.threshold import threshold


@click.group(help="Makes the figures under benchmarks/results/.")
def main() -> None:
    """Groups the benchmarks."""


for command in (demo, full, threshold, cartpole, environment, evaluation, collection, identity, readme):
    main.add_command(command)

if __name__ == "__main__":
    main()

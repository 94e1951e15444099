"""The command: python -m benchmarks NAME; `python -m benchmarks --help` lists them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import click

from benchmarks.bound import bound
from benchmarks.cartpole import cartpole
from benchmarks.corruption import corruption
from benchmarks.damages import damages
from benchmarks.data import data
from benchmarks.datasets import datasets
from benchmarks.demo import demo, full
from benchmarks.demo_runs import demo_runs
from benchmarks.faults import faults_command
from benchmarks.first_update import first_update
from benchmarks.fuzz import fuzz
from benchmarks.growth import growth
from benchmarks.identity import identity
from benchmarks.inference import inference
from benchmarks.leaderboard import leaderboard
from benchmarks.memory import memory
from benchmarks.neighbour import neighbour
from benchmarks.obp import obp
from benchmarks.ope import ope
from benchmarks.precision import precision
from benchmarks.precision_runs import precision_runs
from benchmarks.profile import profile
from benchmarks.quick import quick
from benchmarks.ranks import ranks
from benchmarks.readme import readme
from benchmarks.recipes import recipes
from benchmarks.same import same
from benchmarks.scores import scores
from benchmarks.select import select
from benchmarks.ship import animation, ship
from benchmarks.soak import soak
from benchmarks.speed import collection, environment, evaluation
from benchmarks.streaming import streaming
from benchmarks.time_to_score import time_to_score
from benchmarks.train import train
from offrl.system.signals import Interrupted, raising_on_signals


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Makes the figures under benchmarks/results/; without a command all of them, which takes many hours."""
    context.with_resource(raising_on_signals())  # who started processes asks them to end, too, whatever signal comes
    if context.invoked_subcommand is None:
        for words in figures():
            print(f"\n== {' '.join(words)}", flush=True)
            _run([sys.executable, "-m", "benchmarks", *words])


def figures() -> list[list[str]]:
    """The commands that make the site's figures, with their options; the last one tells the README."""
    shown = [name for name in main.commands if name not in _NOT_FIGURES]
    return [[name, *options] for name in shown for options in _OPTIONS.get(name, [[]])]


def _run(command: Sequence[str]) -> None:
    """Waits for a command. A signal is passed on to it, once, and it is given the time to save."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            exit_code = process.wait()
        except KeyboardInterrupt as error:
            process.send_signal(error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT)
            process.wait()
            raise
    if exit_code != 0:
        sys.exit(exit_code)


_OPTIONS: dict[str, list[list[str]]] = {
    "demo-runs": [[], ["--full"]],
    "recipes": [
        [],
        ["--otherwise", "0.99"],
        ["--otherwise", "critic-weighted"],
        ["--otherwise", "critic-weighted, beta 0.3"],
    ],
    "train": [["--peers"]],
    "profile": [["--before", "a919203~1", "--rounds", "3"]],
    "quick": [["--record"]],
    "scores": [
        ["--environment", "CartPole-v1", "--environment", "LunarLander-v3", "--check-with-rliable"],
        ["--environment", "CartPole-v1", "--environment", "LunarLander-v3", "--peers-defaults"],
        ["--environment", "Acrobot-v1"],
        ["--environment", "MinAtar/Breakout-v1", "--transitions", "200000", "--runs", "3"],
    ],
    "data": [["--peers"]],
}
_NOT_FIGURES = {
    "same",
    "fuzz",
    "ship",
    "animation",
}  # to compare with a revision, to search as long as one likes, to ship


for command in (
    demo,
    full,
    demo_runs,
    recipes,
    leaderboard,
    bound,
    ship,
    animation,
    cartpole,
    environment,
    evaluation,
    collection,
    train,
    time_to_score,
    first_update,
    growth,
    profile,
    precision,
    precision_runs,
    inference,
    quick,
    data,
    neighbour,
    scores,
    ranks,
    datasets,
    identity,
    obp,
    ope,
    select,
    memory,
    streaming,
    corruption,
    damages,
    faults_command,
    fuzz,
    soak,
    same,
    readme,
):
    main.add_command(command)

if __name__ == "__main__":
    main()

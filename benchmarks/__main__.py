"""The command: python -m benchmarks demo|full|threshold|cartpole|readme."""

from __future__ import annotations

import click

from benchmarks.cartpole import cartpole
from benchmarks.demo import demo, full
from benchmarks.readme import readme
from benchmarks.threshold import threshold


@click.group(help="Makes the figures under benchmarks/results/.")
def main() -> None:
    """Groups the benchmarks."""


for command in (demo, full, threshold, cartpole, readme):
    main.add_command(command)

if __name__ == "__main__":
    main()

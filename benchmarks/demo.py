"""The CarRacing example from an empty folder, timed, its results kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from offrl.system.json_files import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def run_example(name: str, arguments: list[str]) -> None:
    """Runs the example in a folder of its own; its output, evaluation and plots go to benchmarks/results/name."""
    command = ["examples/carracing_bcq.py", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / command[0]), *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
        if process.wait() != 0:
            sys.exit(process.returncode)
        minutes = (time.perf_counter() - start) / 60
        (run,) = (Path(folder) / "runs").iterdir()
        target = RESULTS / name
        shutil.rmtree(target / "plots", ignore_errors=True)  # the rest of the folder is of other commands
        shutil.copytree(run / "plots", target / "plots")
        (target / "output.txt").write_text("".join(lines), encoding="utf-8")
        evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        write_json(
            target / "evaluation.json",
            {"command": f"python {' '.join(command)}", "minutes_from_an_empty_folder": minutes, **evaluation},
        )
    print(f"{minutes:.1f} minutes; results in {target.relative_to(ROOT)}")


@click.command()
def demo() -> None:
    """The demo: 60,000 transitions, 20 episodes (8 to 40 minutes on 2 cores)."""
    run_example("demo", [])


@click.command()
def full() -> None:
    """The full size: 300,000 transitions, 100 episodes (an hour or more on 2 cores)."""
    run_example("full", ["--full"])

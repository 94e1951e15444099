"""Our CarRacing beside Gymnasium's own, byte for byte, on every verified version in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import click

from offrl.envs.car_racing import VERIFIED_VERSIONS
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

ROOT = Path(__file__).parent.parent


@click.command()
@click.option("--tracks", default=20, show_default=True)
@click.option("--steps", default=300, show_default=True)
def identity(tracks: int, steps: int) -> None:
    """Installs each verified Gymnasium apart, plays tracks in both, and compares frames, rewards, flags and info."""
    results = []
    for version in VERIFIED_VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"Gymnasium {version}")
            venv.create(folder, with_pip=True)
            python = str(Path(folder) / "bin" / "python")
            install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*install, f"gymnasium=={version}", "box2d", "pygame-ce"], check=True)
            found = subprocess.run(
                [python, "-m", "benchmarks.frames", str(tracks), str(steps)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if not found.stdout:
                sys.exit(found.returncode)
            results.append(json.loads(found.stdout.splitlines()[-1]))
    write_json(
        ROOT / "benchmarks" / "results" / "identity.json",
        {
            "command": f"python -m benchmarks identity --tracks {tracks} --steps {steps}",
            "versions": results,
            "machine": describe_machine(),
        },
    )
    different = [r["gymnasium"] for r in results if any(way["different"] for way in r["ways"].values())]
    print(f"different on Gymnasium {', '.join(different)}" if different else "every byte is the same")
    sys.exit(bool(different))

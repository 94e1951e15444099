"""What asks a command to end: exit codes, and that the same command goes on to the same bytes."""

import functools
import os
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from offrl import envs
from offrl.cli.console import Group
from offrl.collection import collect
from offrl.envs import CartPoleMixture
from offrl.shards import Manifest


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_the_exit_code_says_which_signal_it_was(number, code):
    tidied = []

    @click.group(cls=Group)
    @click.option("--debug", is_flag=True)
    def main(debug):
        """For the test."""

    @main.command()
    def wait():
        try:
            os.kill(os.getpid(), number)
        finally:
            tidied.append(number)

    previous = signal.getsignal(number)
    result = CliRunner().invoke(main, ["wait"])
    assert (result.exit_code, result.stderr, tidied) == (code, "interrupted\n", [number])
    assert signal.getsignal(number) is previous


def test_sigterm_to_all_processes_of_a_collection_keeps_what_is_finished_and_it_goes_on(tmp_path):
    """As Slurm sends it: to the workers, too, which finish their episodes all the same."""
    command = ["collect", "CartPole-v1", str(tmp_path / "parts"), "--transitions", "3000", "--seed", "5", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "offrl", *command, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "parts" / "shard-00000.npz").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "Traceback" not in stderr
    parts = Manifest.load(tmp_path / "parts")
    assert not parts.complete
    assert not [path.name for path in (tmp_path / "parts").iterdir() if path.suffix == ".partial"]
    settings = {"transitions": 3000, "seed": 5, "workers": 1, "progress": False}
    make_env = functools.partial(envs.make, "CartPole-v1")
    again = collect(make_env, CartPoleMixture(), tmp_path / "parts", environment=parts.environment, **settings)
    whole = collect(make_env, CartPoleMixture(), tmp_path / "whole", environment=parts.environment, **settings)
    assert again == whole

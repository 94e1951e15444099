"""Hostile files at every door: each is refused in one line, and nothing is written outside of its directory."""

import json
import shutil
from dataclasses import replace

import pytest
from archives import written
from click.testing import CliRunner
from run_offrl import offrl

from offrl.cli import main
from offrl.shards import Manifest
from tests.hostile import cases


def beside(outer):
    return {name: content for name, content in written(outer).items() if not name.startswith(f"{cases.INSIDE}/")}


@pytest.mark.parametrize("case", cases.CASES)
def test_a_hostile_file_is_refused_in_one_line_and_nothing_is_written_outside(tmp_path, case):
    with cases.CASES[case](tmp_path) as arguments:
        before = beside(tmp_path)
        result = CliRunner().invoke(main, arguments)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()
    assert len(lines[0]) < 3_000
    assert cases.SECRET.decode() not in result.output
    assert beside(tmp_path) == before
    assert not (tmp_path / cases.INSIDE / "out").exists()


def test_there_are_many_at_every_door():
    doors = {name.partition(":")[0] for name in cases.CASES}
    assert doors >= {"npz", "tar", "zip", "HTTP", "manifest", "config", "safetensors", "ONNX", "CSV", "no file"}
    assert len(cases.CASES) >= 100


# ---- checkpoints that a run does without


STATES = {
    "no number": json.dumps({"step": "two"}).encode(),
    "deep": b"[" * 100_000,
    "a list": b"[1]",
    "infinite": b'{"step": 1e999}',
}


@pytest.mark.filterwarnings("ignore:.*the run goes on from update 0:UserWarning")
@pytest.mark.parametrize("case", STATES)
def test_a_run_without_a_whole_checkpoint_begins_again_or_is_refused(tmp_path, case):
    cases.copied("data", tmp_path)
    cases.checkpoint("state.json", STATES[case], tmp_path)
    result = CliRunner().invoke(main, ["train", "--resume", str(tmp_path / "run"), "--updates", "2", "--quiet"])
    assert result.exit_code in (0, 2), repr(result.exception)
    assert "Traceback" not in result.output


# ---- what a terminal would obey, and datasets that a run names


def test_escapes_in_names_are_shown_and_not_obeyed(tmp_path):
    data = cases.copied("data", tmp_path)
    manifest = Manifest.load(data)
    replace(manifest, spec=replace(manifest.spec, action_names=("\x1b[2Jleft", "ri\u202eght"))).save(data)
    shown = offrl("inspect", data).stdout
    assert all(line.isprintable() for line in shown.splitlines())
    assert r"\x1b[2Jleft" in shown
    assert r"ri\u202eght" in shown


def test_a_dataset_that_only_a_run_names_is_not_written_to(tmp_path):
    good = cases.good()
    shutil.rmtree(good / "data" / ".store", ignore_errors=True)  # of a run that was resumed
    before = written(good / "data")
    result = offrl("export", good / "run", tmp_path / "out")
    assert written(good / "data") == before
    assert "warning: verified on random observations only" in result.stderr
    assert "0 of them real" in result.stdout
    data = cases.copied("data", tmp_path)
    named = offrl("export", good / "run", tmp_path / "named", "--data", data)
    assert named.stderr == ""
    assert " 0 of them real" not in named.stdout

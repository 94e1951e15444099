"""Ways of training in processes that take turns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_writes_what_the_page_shows(store, hooks, tmp_path, monkeypatch):
    from benchmarks import train

    monkeypatch.setattr(train, "RESULTS", tmp_path / "train")
    monkeypatch.setattr(train, "LONGEST_PRODUCT_SECONDS", 0.0)  # the smallest matrices
    monkeypatch.setattr(train, "OURS", {"offrl": "offrl", "plain PyTorch": "plain"})
    monkeypatch.setattr(train, "car_racing_store", lambda directory, transitions: store)
    arguments = [
        "--updates",
        "2",
        "--rounds",
        "2",
        "--batch-size",
        "4",
        "--run-length",
        "500",
        "--directory",
        str(tmp_path),
    ]
    assert CliRunner().invoke(train.train, arguments, catch_exceptions=False).exit_code == 0
    [path] = (tmp_path / "train").glob("*.json")
    found = json.loads(path.read_text())
    assert found["command"] == "python -m benchmarks train --updates 2 --rounds 2 --batch-size 4 --run-length 500"
    ours, plain = found["ways"]["offrl"], found["ways"]["plain PyTorch"]
    assert ours["parameters"] == plain["parameters"] == 4_298_962  # 25 actions
    assert ours["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert len(plain["rates"]) == 2
    pairs = zip(ours["rates"], plain["rates"], strict=True)
    assert plain["ratio"]["high"] == pytest.approx(max(mine / its for mine, its in pairs))
    assert 0 <= ours["data_wait"] <= 1
    assert ours["precision"] in ("fp32", "bf16")
    assert ours["compile"] == "off"
    convolutions = [23 * 23 * 32 * 4 * 8 * 8, 10 * 10 * 64 * 32 * 4 * 4, 8 * 8 * 64 * 64 * 3 * 3]
    head = 4096 * 512 + 512 * 25
    forward = 3 * sum(convolutions) + 5 * head  # s and s' with both heads, the target at s' with one
    backward = 2 * (sum(convolutions) + 2 * head) - convolutions[0]  # pixels need no gradient
    assert ours["gflop"] == pytest.approx(2 * 4 * (forward + backward) / 1e9)
    assert found["matrix_teraflops"]["fp32"] > 0
    assert found["matrix_sizes"] == {"fp32": 256, "bf16": 256}
    drawn = hooks.train()
    assert f"; {ours['precision']}, " in drawn
    assert "| plain PyTorch |" in drawn
    assert "| 4.30 M |" in drawn
    assert f"![Updates per second](benchmarks/train/{path.stem}.png)" in drawn
    assert path.with_suffix(".png").is_file()


def test_matrices_grow_until_a_product_would_take_too_long(monkeypatch):
    from benchmarks import train

    def seconds_of(ways, device):  # of 10^9 operations a second in float32, of 10^8 in bf16
        [(name, run)] = ways.items()
        return {name: 2 * len(run.args[0]) ** 3 / {"fp32": 1e9, "bf16": 1e8}[name]}

    monkeypatch.setattr(train, "shortest_seconds", seconds_of)
    roofline = train.matrix_roofline("cpu", largest=1024)
    # Products of 512 take 0.27 and 2.7 seconds, of 1024 2.1 seconds in float32.
    assert roofline.sizes == {"fp32": 512, "bf16": 256}
    assert roofline.teraflops == pytest.approx({"fp32": 0.001, "bf16": 0.0001})
    assert train.matrix_roofline("cpu", largest=256).sizes == {"fp32": 256, "bf16": 256}


@pytest.mark.slow  # compresses 300 MB of float32 stacks
def test_the_notebook_loop_answers_like_the_others(store, tmp_path):
    from benchmarks.alternate import Way

    script = str(ROOT / "benchmarks" / "peers" / "notebook_bcq.py")
    way = Way([sys.executable, script, str(store), "--batch-size", "4"], tmp_path / "log")
    try:
        assert way.about["parameters"] == 4_298_962
        assert way.run(2)["seconds"] > 0
    finally:
        way.close()


def test_a_way_stands_still_between_its_slices(tmp_path):
    from benchmarks.alternate import Way

    counting = (
        "import itertools, sys; print('{}', flush=True); sys.stdin.readline(); print('{\"seconds\": 1}', flush=True);"
        "[None for _ in itertools.count()]"
    )
    way = Way([sys.executable, "-c", counting], tmp_path / "log")
    try:
        assert way.run(1) == {"seconds": 1}
        state = Path(f"/proc/{way._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"
    finally:
        way.close()


def test_a_way_that_dies_is_named_by_its_last_words(tmp_path):
    from benchmarks.alternate import Way, WayError

    with pytest.raises(WayError, match="no such data"):
        Way([sys.executable, "-c", "raise SystemExit('no such data')"], tmp_path / "log")


def test_a_peer_that_cannot_start_is_left_out(store, tmp_path, capsys):
    from benchmarks.train import measure

    peer = [sys.executable, "-c", "raise ImportError('no peer')"]
    plain = [
        sys.executable,
        "-c",
        "import sys\nprint('{}', flush=True)\nfor _ in sys.stdin: print('{\"seconds\": 0.5}', flush=True)",
    ]
    found = measure({"a way": plain, "d3rlpy": peer}, updates=3, rounds=1, logs=tmp_path)
    assert {name: way["rates"] for name, way in found.items()} == {"a way": [6.0]}
    assert "d3rlpy: left out: ImportError: no peer" in capsys.readouterr().out


def test_an_environment_that_cannot_be_installed_says_why(tmp_path, monkeypatch):
    from benchmarks.peers import environments

    failed = subprocess.CompletedProcess([], 1, stderr="ERROR: a\nERROR: No matching distribution\n")
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(environments.PeerError, match="d3rlpy==2.8.1 cannot be installed: No matching distribution"):
        environments.python_of("d3rlpy", tmp_path)
    assert environments.python_of("notebook loop", tmp_path) == Path(sys.executable)

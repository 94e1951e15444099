"""Inference of one policy in four ways."""

import json

import pytest
from click.testing import CliRunner


@pytest.mark.filterwarnings("ignore:all transitions to train on are of one episode")  # few are enough here
def test_the_command_writes_what_the_page_shows(store, hooks, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra serve")
    from benchmarks import inference

    monkeypatch.setattr(inference, "RESULTS", tmp_path / "inference")
    monkeypatch.setattr(inference, "NUM_CALIBRATED", 32)
    monkeypatch.setattr(inference, "car_racing_store", lambda directory, transitions: store)
    arguments = ["--updates", "1", "--calls", "1", "--rounds", "1", "--directory", str(tmp_path)]
    assert CliRunner().invoke(inference.inference, arguments, catch_exceptions=False).exit_code == 0
    found = json.loads((tmp_path / "inference" / "results.json").read_text())
    ways = found["ways"]
    assert ways["torch"]["equal_actions"] == 1
    assert ways["ONNX, float"]["equal_actions"] > 0.99
    assert ways["ONNX, uint8"]["equal_actions"] > 0.99
    assert ways["ONNX, int8"]["megabytes"] < 0.3 * ways["ONNX, float"]["megabytes"]
    drawn = hooks.inference()
    assert "| ONNX, int8 |" in drawn
    assert "(benchmarks/inference/inference.png)" in drawn

"""Runs to report on."""

import json

import pytest
from made_runs import ROWS, write_run


@pytest.fixture
def run(tmp_path):
    """One run, evaluated."""
    directory = tmp_path / "run"
    write_run(directory, notes={"environment": "CartPole-v1"})
    (directory / "evaluation.json").write_text(json.dumps({"per_episode": ROWS}))
    return directory


@pytest.fixture
def example(tmp_path):
    """Two runs side by side, evaluated together."""
    directory = tmp_path / "example"
    write_run(directory / "bc", "bc", algorithm_config={})
    write_run(directory / "bcq")
    better = [{**row, "score": row["score"] + 50 * index, "finished": index == 1} for index, row in enumerate(ROWS)]
    evaluation = {
        "dataset": {"mean": 120.0, "interval_95": [110.0, 130.0], "finished": 0},
        "policies": {"BC": {"per_episode": ROWS}, "BCQ": {"per_episode": better}},
    }
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    for folder in ("plots", "videos"):
        (directory / folder).mkdir()
    (directory / "plots" / "dataset_returns.png").write_bytes(b"a picture")
    (directory / "plots" / "scores.png").write_bytes(b"decoy")
    (directory / "videos" / "bcq-best.mp4").write_bytes(b"a video")
    return directory

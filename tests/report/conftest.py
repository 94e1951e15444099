"""Runs to report on."""

import json
import os

import pytest
from made_runs import ROWS, write_run

from offrl.report import plots, progress


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, newest last."""
    pytest.importorskip("matplotlib")
    figures = []
    for module in (plots, progress):
        save = module._save
        monkeypatch.setattr(
            module, "_save", lambda figure, path, save=save: figures.append(figure) or save(figure, path)
        )
    return figures


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


@pytest.fixture
def write_scores(tmp_path):
    """Writes a run below the directory `several`, with its evaluation where a mean score is given."""

    def write(name, algorithm, seed, score=None):
        directory = tmp_path / "several" / name
        write_run(directory, algorithm, replay={"seed": seed})
        for path in directory.iterdir():
            os.utime(path, (1e9, 1e9))
        rows = [{"seed": 7, "score": score, "length": 10}, {"seed": 8, "score": score, "length": 30}]
        if score is not None:
            (directory / "evaluation.json").write_text(json.dumps({"per_episode": rows}))
        return directory

    return write


@pytest.fixture
def several(tmp_path, write_scores):
    """Three algorithms with three, two and one training seeds, each run evaluated."""
    for name, algorithm, seed, score in (
        ("bc-0", "bc", 0, 90.0),
        ("bc-1", "bc", 1, 125.0),
        ("bcq-0", "bcq", 0, 100.0),
        ("bcq-1", "bcq", 1, 110.0),
        ("bcq-2", "bcq", 2, 120.0),
        ("dqn-0", "dqn", 0, 5.0),
    ):
        write_scores(name, algorithm, seed, score)
    return tmp_path / "several"

"""The comparison with obp, without obp: our side of it, and what the page shows."""

import numpy as np
import pytest


def log():
    """Three rounds, two items."""
    return {
        "context": np.array([[True, False], [False, True], [True, True]]),
        "action": np.array([0, 1, 1]),
        "reward": np.array([1, 0, 1]),
        "behaviour": np.array([0.5, 0.25, 0.5]),
        "policy": np.array([[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]]),
        "values": np.array([[0.5, 0.25], [0.125, 0.5], [0.75, 0.5]]),
    }


def test_a_log_is_read_as_a_dataset_and_estimated_by_hand(tmp_path):
    from benchmarks.obp import estimates

    weights = [0.25 / 0.5, 0.5 / 0.25, 1.0 / 0.5]
    values = [0.25 * 0.5 + 0.75 * 0.25, 0.5 * 0.125 + 0.5 * 0.5, 0.5]
    assert estimates(log(), tmp_path) == {
        "IPS": pytest.approx((weights[0] + weights[2]) / 3),
        "SNIPS": pytest.approx((weights[0] + weights[2]) / sum(weights)),
        "DM": pytest.approx(sum(values) / 3),
        "DR": pytest.approx((sum(values) + weights[0] * 0.5 - weights[1] * 0.5 + weights[2] * 0.5) / 3),
    }


def test_the_page_shows_every_estimate(hooks, tmp_path):
    assert "python -m benchmarks obp" in hooks.obp()
    row = {"campaign": "men", "logger": "bts", "rounds": 10_000, "estimator": "IPS"}
    result = {
        "command": "python -m benchmarks obp",
        "versions": {"obp": "0.5.7"},
        "tolerance": 1e-6,
        "largest_difference": 2.9e-11,
        "estimates": [{**row, "offrl": 0.003, "obp": 0.0030000001, "difference": 2.9e-11}],
        "machine": {"python": "3.11", "gpu": None, "cores": 2, "processor": "Z", "versions": {"torch": "2.13.0"}},
    }
    from offrl.system.json_files import write_json

    write_json(tmp_path / "obp.json", result)
    assert "| men | Thompson sampling | 10,000 | IPS | 0.003000 | 0.003000 | 3e-11 |" in hooks.obp()
    assert "Largest difference 2.9e-11; 1e-06 is allowed." in hooks.obp()


def test_packages_without_checks_are_installed_apart(tmp_path, monkeypatch):
    import subprocess

    from benchmarks.peers import environments

    asked = []

    def run(command, **_):
        asked.append(command[1:])
        (tmp_path / "x-venv").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(environments.subprocess, "run", run)
    for _ in range(2):  # the second time it is there
        python = environments.environment_of("X", ["a==1"], tmp_path, unchecked=["b==2"])
    assert python == tmp_path / "x-venv" / "bin" / "python"
    assert [command[-1] for command in asked] == [str(tmp_path / "x-venv"), "a==1", "b==2"]
    assert asked[2][-3:] == ["--no-deps", "--ignore-requires-python", "b==2"]

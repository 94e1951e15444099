"""The parts of one update."""

import json
from contextlib import contextmanager

import pytest
import torch


def test_every_part_is_found_and_nothing_stays_patched(store, monkeypatch):
    from benchmarks.profile import PARTS, seconds_of_parts

    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    backward, lerp = torch.Tensor.backward, torch._foreach_lerp_
    found = seconds_of_parts("CompactEncoder, float32", store, 4, 6, "cpu")
    assert list(found) == list(PARTS)
    assert min(found.values()) > 0
    assert (torch.Tensor.backward, torch._foreach_lerp_) == (backward, lerp)


def test_a_clock_adds_up_what_it_surrounds(monkeypatch):
    from benchmarks.profile import Clock

    clock = Clock(torch.device("cpu"))
    times = iter([1.0, 3.0, 10.0, 15.0])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    double = clock.around("forward", lambda value: 2 * value)
    assert (double(4), double(5)) == (8, 10)
    assert clock.seconds == {"forward": 7.0}


def test_the_page_shows_every_part(hooks, tmp_path):
    rows = {"NatureEncoder, bf16": {"gather": 1.5, "forward": 20.0}}
    machine = {"python": "3.11", "gpu": None, "cores": 2, "processor": "Z", "versions": {"torch": "2.13.0"}}
    found = {"command": "c", "batch_size": 128, "threads": 2, "device": "cpu", "rows": rows, "machine": machine}
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "results.json").write_text(json.dumps(found))
    assert "| NatureEncoder, bf16 | 1.5 | 20.0 | 21.5 |" in hooks.profile()
    found["before"] = {"revision": "abc~1", "rows": {"NatureEncoder, bf16": {"gather": 2.5, "forward": 40.0}}}
    (tmp_path / "profile" / "results.json").write_text(json.dumps(found))
    now, _, before = hooks.profile().partition("At revision abc~1:")
    assert "| NatureEncoder, bf16 | 1.5 | 20.0 | 21.5 |" in now
    assert "| NatureEncoder, bf16 | 2.5 | 40.0 | 42.5 |" in before


def test_the_fastest_round_of_each_row_counts():
    from benchmarks.profile import fastest

    first = {"a": {"gather": 1.0, "forward": 5.0}, "b": {"gather": 2.0, "forward": 2.0}}
    second = {"a": {"gather": 2.0, "forward": 3.0}, "b": {"gather": 1.0, "forward": 9.0}}
    assert fastest([first, second]) == {"a": second["a"], "b": first["b"]}


def test_another_revision_is_measured_by_its_own_command(tmp_path, monkeypatch):
    from benchmarks import profile

    @contextmanager
    def checkout(revision, folder):
        assert revision == "abc~1"
        yield tmp_path

    def run(command, *, cwd, env, check):
        assert command[1:] == ["-m", "benchmarks", "profile", "--updates", "9"]
        assert (cwd, env["PYTHONPATH"], check) == (tmp_path, str(tmp_path), True)
        path = tmp_path / "benchmarks" / "results" / "profile" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"rows": {"a": {"gather": 1.0}}}))

    monkeypatch.setattr(profile, "checkout", checkout)
    monkeypatch.setattr(profile.subprocess, "run", run)
    assert profile.rows_of("abc~1", ["--updates", "9"]) == {"a": {"gather": 1.0}}


@pytest.mark.parametrize("name", ["train", "growth", "inference", "profile", "quick"])
def test_what_was_not_measured_says_how(hooks, name):
    assert f"This checkout has no result. Produce it with `python -m benchmarks {name}" in getattr(hooks, name)()

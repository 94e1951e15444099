"""What the page shows of several ranks; the ranks themselves are tested in tests/training/test_distributed.py."""

import json


def test_samples_come_in_one_order_on_any_number_of_ranks(hooks):
    from benchmarks.ranks import is_order_equal

    assert is_order_equal(updates=5, batch_size=16)


def test_a_differing_loss_shows(hooks, tmp_path):
    from benchmarks.ranks import largest_difference, updates_per_second

    for name, loss, rate in (("a", "0.5", "100.0"), ("b", "0.4", "3.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(f"step,loss\n30,1.0\n60,{loss}\n")
        (tmp_path / name / "timings.csv").write_text(f"step,updates_per_second\n30,1.0\n60,{rate}\n90,{rate}\n")
    assert round(largest_difference(tmp_path / "a", tmp_path / "b"), 6) == 0.25
    assert updates_per_second(tmp_path / "a") == 100


def test_the_page_shows_what_was_measured(hooks, tmp_path, monkeypatch):
    row = {"processes": 2, "threads": 1, "updates_per_second": 12.34}
    found = {
        "command": "python x",
        "tasks": {
            "v": {"environment": "E", "ways": {"one run on 2 ranks": row}, "largest_loss_difference": {"2": 1e-7}}
        },
        "signals": {"sent": 50, "saved": 50, "longest_seconds": 3.21},
        "machine": {"python": "3.11", "gpu": None, "cores": 2, "processor": "Z", "versions": {"torch": "2.13.0"}},
    }
    (tmp_path / "ranks.json").write_text(json.dumps(found))
    monkeypatch.setattr(hooks.results, "RESULTS", tmp_path)
    drawn = hooks.ranks()
    assert "| E | one run on 2 ranks | 1 | 12.3 | 1.0e-07 |" in drawn
    assert "Of 50 runs on two ranks that torchrun was told to end with SIGTERM, 50 ended with a checkpoint" in drawn

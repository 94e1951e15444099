"""The figures of the README and of the example are those that the benchmarks wrote."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def readme(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)
    from benchmarks import readme

    return readme


@pytest.fixture
def updated(readme):
    return readme.updated


def test_the_readme_shows_todays_results(updated):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- results -->" in text
    assert updated(text, ROOT / "benchmarks" / "results") == text, "run: python -m benchmarks readme"


def test_the_example_names_todays_scores_over_runs(readme):
    source = (ROOT / "examples" / "carracing_bcq.py").read_text(encoding="utf-8")
    assert readme.example_updated(source, ROOT / "benchmarks" / "results") == source, "run: python -m benchmarks readme"


def test_another_result_would_show(updated, tmp_path):
    (tmp_path / "cartpole").mkdir()
    (tmp_path / "cartpole" / "evaluation.json").write_text(
        '{"command": "c", "seconds": 61.4, "dataset_mean": {"mean": 150.2}, "BCQ": {"mean": 499.6, "episodes": 20}}'
    )
    text = updated("a\n<!-- results -->\nold\n<!-- end of results -->\nb\n", tmp_path)
    assert "dataset 150, BCQ 500 of 500 over 20 episodes of one training run, 61 seconds in all (`c`)." in text
    assert "old" not in text
    assert text.startswith("a\n<!-- results -->\n")
    assert text.endswith("<!-- end of results -->\nb\n")

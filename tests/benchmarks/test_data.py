"""Batches and training from stores of different sizes, as small as it gets."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner


@pytest.mark.parametrize("way", ["stack", "index"])
def test_every_way_gathers_the_same_batch(store, way):
    from benchmarks.batches import WAYS
    from offrl.replay import FrameStore

    frames = FrameStore.open(store, "mmap")
    ours, other = WAYS["ours"](frames)(3, 16), WAYS[way](frames)(3, 16)
    for name in ("observation", "action", "reward", "discount", "next_observation"):
        assert torch.equal(getattr(ours, name), getattr(other, name)), name


def test_a_store_that_was_forgotten_is_read_again(store):
    from benchmarks.batches import forget_pages

    before = np.load(store / "frames.npy")
    forget_pages(store)
    assert np.array_equal(np.load(store / "frames.npy"), before)


@pytest.mark.slow  # many processes, each of which loads torch
def test_the_command_writes_what_the_page_shows(hooks, tmp_path, monkeypatch):
    from benchmarks import data

    monkeypatch.setattr(data, "RESULTS", tmp_path / "data.json")
    sizes = ["--transitions", "2000", "--small", "1000", "--batches", "2", "--rounds", "1", "--updates", "2"]
    result = CliRunner().invoke(data.data, [*sizes, "--directory", str(tmp_path / "data")], catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads((tmp_path / "data.json").read_text())
    labels = ["1,000 transitions in RAM", "1,000 transitions, memory map", "2,000 transitions, memory map"]
    assert list(found["gathering"]) == list(found["training"]) == labels
    for row in found["training"].values():
        assert 0 <= row["data_wait"] <= 1
        assert row["anonymous_mib"] > 50
    drawn = hooks.data()
    assert "| 2,000 transitions, memory map | stack of fancy indices |" in drawn

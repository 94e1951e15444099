import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_replay import datasets, make_episode, make_spec, rows_of, save_frames
from run_offrl import offrl, offrl_json

from offrl import TaskSpec
from offrl.datasets import (
    Measures,
    References,
    count_pairs,
    inspect_dataset,
    measure,
    state_action_coverage,
    trajectory_quality,
)
from offrl.datasets import _pairs as pairs
from offrl.errors import ConfigError, DatasetError
from offrl.replay import ingest
from offrl.shards import Episode, Manifest


def test_trajectory_quality_by_hand():
    # The mean is 30: a quarter of the way from 10 to 90.
    assert trajectory_quality([20, 30, 40], random_return=10, best_return=90) == 0.25
    assert trajectory_quality([10], random_return=10, best_return=90) == 0
    assert trajectory_quality([-300, -100], random_return=-200, best_return=-100) == 0
    assert trajectory_quality([0], random_return=10, best_return=90) == -0.125


@pytest.mark.parametrize(("low", "high"), [(10, 10), (10, 9), (float("nan"), 10)])
def test_a_best_return_that_is_not_over_randoms_is_refused(low, high):
    with pytest.raises(ConfigError, match="trajectory_quality: best_return .*; expected a best return over"):
        trajectory_quality([1], low, high)


def test_no_returns_are_refused():
    with pytest.raises(ConfigError, match="trajectory_quality: no returns"):
        trajectory_quality([], 0, 1)


def test_state_action_coverage_by_hand():
    assert state_action_coverage(3, 12) == 0.25
    assert state_action_coverage(12, 3) == 4
    with pytest.raises(ConfigError, match="state_action_coverage: 3 pairs of 0"):
        state_action_coverage(3, 0)


def bin_of(value, low, high):
    """Which of 100 equal bins, the highest value in the last one; -1 under the range and 100 over it."""
    if value < low:
        return -1
    if value > high:
        return 100
    if low == high:
        return 0
    return min(99, int(np.floor((np.float64(value) - low) / (high - low) * 100)))


def naive_pairs(rows, ranges=None):
    found = set()
    for row in rows:
        state = row.observation
        if state.ndim == 1:
            ends = ranges or [(float(c.min()), float(c.max())) for c in np.stack([r.observation for r in rows]).T]
            state = np.array([bin_of(value, *end) for value, end in zip(state, ends, strict=True)])
        found.add((state.tobytes(), row.action))
    return len(found)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datasets(), st.integers(1, 7), st.integers(1, 7))
def test_pairs_are_counted_as_a_set_of_them_has_them(tmp_path_factory, monkeypatch, dataset, frames, rows):
    pixels, stack, shards = dataset
    directory = tmp_path_factory.mktemp("pairs")
    save_frames(directory, shards, make_spec(stack, pixels=pixels))
    monkeypatch.setattr(pairs, "_CHUNK_FRAMES", frames)
    monkeypatch.setattr(pairs, "_CHUNK_ROWS", rows)
    episodes = [episode for shard in shards for episode in shard]
    assert count_pairs(ingest(directory)) == naive_pairs(rows_of(episodes, stack))


def vectors(directory, observations, actions):
    """One episode; the last observation is what the last action led to."""
    steps = len(actions)
    episode = Episode(np.array(observations, np.float32), np.array(actions), np.ones(steps, np.float32), True, False)
    save_frames(directory, [[episode]], TaskSpec.vector(len(observations[0]), ("a", "b")))
    return ingest(directory)


def test_the_same_state_with_another_action_is_another_pair(tmp_path):
    store = vectors(tmp_path, [[0], [0], [0], [1], [7]], [0, 1, 0, 0])
    assert count_pairs(store) == 3  # (0, a), (0, b), (1, a); nobody acted in 7


def test_features_are_told_apart_in_bins_of_the_reference(tmp_path):
    store = vectors(tmp_path, [[0.0], [-0.0], [0.4], [1.0], [99.5], [100.0], [101.0], [200.0], [-1.0], [0]], [0] * 9)
    references = References(feature_low=(0.0,), feature_high=(100.0,))
    # 0, -0 and 0.4 are in the first bin, 1 in the second, 99.5 and 100 in the last; over it, and under it.
    assert count_pairs(store, references) == 5
    # Of its own range, -1 to 200, a bin has 2.01: -1, 0, 0.4 and 1 are in the first one.
    assert count_pairs(store) == 3  # 99.5, 100 and 101 are in bin 50, and 200 in the last one


def test_a_feature_that_never_changes_is_one_bin(tmp_path):
    assert count_pairs(vectors(tmp_path, [[3, 1], [3, 2], [3, 1], [0, 0]], [0, 0, 0])) == 2


def test_the_range_of_the_features_is_of_the_states_that_were_acted_in(tmp_path):
    store = vectors(tmp_path, [[3, 1], [5, -2], [9, 9]], [0, 1])
    assert References.of_store(store) == References(None, None, 2, (3.0, -2.0), (5.0, 1.0))


def test_stacks_are_told_apart_as_wholes(tmp_path):
    frames = np.zeros((5, 2, 3), np.uint8)
    frames[1] = 1  # a blink: the states are (0, 0), (0, 1), (1, 0), (0, 0)
    episode = Episode(frames, np.zeros(4, np.int64), np.ones(4, np.float32), True, False)
    save_frames(tmp_path, [[episode]], make_spec(stack=2))
    assert count_pairs(ingest(tmp_path)) == 3


@pytest.fixture
def store(tmp_path):
    """Three pairs; the return is 3."""
    return vectors(tmp_path / "data", [[0], [1], [1], [5]], [0, 1, 0])


@pytest.mark.parametrize(
    ("references", "tq", "saco"),
    [
        (References(), None, None),
        (References(1, 9), 0.25, None),
        (References(9, 1), None, None),
        (References(num_pairs=12), None, 0.25),
        (References(1, 9, 12, (0.0,), (1.0,)), 0.25, 0.25),
    ],
)
def test_measures_are_those_whose_references_are_known(store, references, tq, saco):
    assert measure(store, references) == Measures(3, references, tq, saco)


def test_measures_in_words(store):
    def lines(*known):
        return inspect_dataset(store, references=References(*known)).to_text().splitlines()[5:8]

    assert lines(1, 9, 12) == [
        "TQ           0.25: the mean return, where 0 is random (1.0) and 1 the best online policy (9.0)",
        "SACo         0.25: 3 unique state-action pairs, of the replay dataset's 12",
        "             in arXiv:2111.04714, BC needs a high TQ, DQN a high SACo; BCQ does well with either, or "
        "both moderate",
    ]
    alone, blank = lines()[:2]
    assert alone == (
        "unique       3 state-action pairs; --reference REPLAY, a dataset that offrl collect --kind replay makes, "
        "gives TQ and SACo"
    )
    assert blank == ""
    assert lines(9, 1, 12)[0] == (
        "TQ           not defined: the best online policy (1.0) is not better than random actions (9.0)"
    )


def test_measures_are_left_out_where_nobody_asks(store):
    summary = inspect_dataset(store)
    assert summary.measures is None
    assert "unique" not in summary.to_text()
    assert summary.to_dict()["measures"] is None


def test_measures_are_ready_for_json(store):
    found = inspect_dataset(store, references=References(1, 9, 12, (0.0,), (1.0,))).to_dict()
    assert json.loads(json.dumps(found))["measures"] == {
        "tq": 0.25,
        "saco": 0.25,
        "num_pairs": 3,
        "references": {"random_return": 1, "best_return": 9, "num_pairs": 12},
    }


def test_references_for_another_length_of_vectors_are_refused(store):
    with pytest.raises(DatasetError, match="references for vectors of 2 features; expected 1, as the data has"):
        count_pairs(store, References(feature_low=(0.0, 0.0), feature_high=(1.0, 1.0)))


def manifest_with(**protocol):
    return Manifest(make_spec(), (), {}, {}, protocol=protocol)


def test_a_manifest_gives_back_its_references():
    references = References(1.5, 9.0, 12, (0.0,), (1.0,))
    assert References.of_manifest(manifest_with(kind="mixed", **references.to_dict())) == references
    assert References.of_manifest(Manifest(make_spec(), (), {}, {})) == References()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("random_return", "1"),
        ("random_return", [1.0]),
        ("best_return", True),
        ("num_pairs", 1.5),
        ("num_pairs", [3]),
        ("feature_low", [0.0, None]),
        ("feature_low", 5),
        ("feature_high", [0.0]),
    ],
)
def test_a_manifest_with_something_else_is_refused(name, value):
    with pytest.raises(DatasetError, match=rf"manifest.json: protocol.{name} is .*; expected (a number|numbers|0)"):
        References.of_manifest(manifest_with(**{name: value}))


def test_inspect_takes_another_dataset_as_the_reference(store, tmp_path):
    vectors(tmp_path / "replay", [[0], [1], [1], [5], [5], [7]], [0, 0, 1, 1, 0])
    common = ("inspect", tmp_path / "data", "--quiet")
    alone = offrl_json(*common)["measures"]
    assert (alone["num_pairs"], alone["tq"], alone["saco"]) == (3, None, None)
    found = offrl_json(*common, "--reference", tmp_path / "replay")["measures"]
    # Of the reference's bins, from 0 to 5: 5 pairs there, and the dataset's 0, 1 and 1 are 3.
    assert (found["num_pairs"], found["references"]["num_pairs"], found["saco"]) == (3, 5, 0.6)


def test_a_reference_of_another_task_is_refused(store, tmp_path):
    save_frames(tmp_path / "pixels", [[make_episode(0)]], make_spec())
    refused = offrl("inspect", tmp_path / "data", "--quiet", "--reference", tmp_path / "pixels", code=2).stderr
    assert "name a dataset of the same task" in refused


def test_a_reference_with_returns_gives_tq(store, tmp_path):
    protocol = {"kind": "replay", **References(1.0, 9.0, 12, (0.0,), (1.0,)).to_dict()}
    manifest = Manifest.load(tmp_path / "data")
    vectors(tmp_path / "replay", [[0], [1], [1]], [0, 1])
    Manifest(manifest.spec, Manifest.load(tmp_path / "replay").shards, {}, {}, protocol=protocol).save(
        tmp_path / "replay"
    )
    found = offrl("inspect", tmp_path / "data", "--quiet", "--reference", tmp_path / "replay").stdout
    assert "TQ           0.25" in found
    assert "SACo         0.25" in found

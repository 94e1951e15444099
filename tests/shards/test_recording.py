import dataclasses

import numpy as np
import pytest
from naive_replay import make_episode, make_spec

from offrl import TaskSpec
from offrl.errors import DatasetError
from offrl.shards import Manifest
from offrl.shards._recording import EpisodeLog, Recording
from offrl.shards.episode import shard_path

PIXELS = TaskSpec.pixels((3, 1, 2), ("left", "right"))
VECTORS = TaskSpec.vector(2, ("left", "right"))


def stack(*grays):
    """A stack of frames, each of one gray."""
    return np.array([[[gray, gray]] for gray in grays], np.uint8)


def frames(episode):
    return episode.observations[:, 0, 0].tolist()


def test_frames_that_stacks_share_are_kept_once():
    log = EpisodeLog(stack(1, 1, 1), PIXELS)
    log.append(0, 0.25, 1.5, stack(1, 1, 2))
    log.append(1, float("nan"), -1.0, stack(1, 2, 3))
    episode = log.episode(terminated=True, truncated=False)
    assert len(log) == len(episode) == 2
    assert frames(episode) == [1, 2, 3]
    assert episode.actions.tolist() == [0, 1]
    assert episode.rewards.tolist() == [1.5, -1.0]
    assert episode.behaviour_probability.tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    assert (episode.terminated, episode.truncated, episode.leading) == (True, False, 0)


def test_a_first_stack_of_different_frames_is_kept_whole():
    log = EpisodeLog(stack(7, 8, 9), PIXELS)
    log.append(0, 1.0, 0.0, stack(8, 9, 10))
    episode = log.episode(terminated=False, truncated=True)
    assert (frames(episode), episode.leading) == ([7, 8, 9, 10], 2)


def test_after_a_cut_the_next_segment_begins_with_what_its_first_stack_shows():
    log = EpisodeLog(stack(1, 1, 1), PIXELS)
    log.append(0, 1.0, 0.5, stack(1, 1, 2))
    first = log.cut()
    assert (frames(first), first.leading, first.truncated, first.terminated) == ([1, 2], 0, True, False)
    assert len(log) == 0
    for newest in (3, 4, 5):
        log.append(1, 1.0, 0.5, stack(max(newest - 2, 1), newest - 1, newest))
    second = log.cut()
    # The stack that the segment begins with is 1, 1, 2: of frames before the first, the first is repeated.
    assert (frames(second), second.leading) == ([1, 2, 3, 4, 5], 1)
    log.append(0, 1.0, 0.5, stack(4, 5, 6))
    assert (frames(log.cut()), second.actions.tolist()) == ([3, 4, 5, 6], [1, 1, 1])


def test_a_cut_of_vectors_has_no_leading_rows():
    log = EpisodeLog(np.zeros(2), VECTORS)
    log.append(0, 1.0, 0.0, np.ones(2))
    log.cut()
    log.append(0, 1.0, 0.0, np.full(2, 2.0))
    episode = log.cut()
    assert (episode.observations.tolist(), episode.leading) == ([[1, 1], [2, 2]], 0)


def test_an_array_that_the_environment_uses_again_is_copied():
    observation = np.zeros(2, np.float32)
    log = EpisodeLog(observation, VECTORS)
    observation += 1
    log.append(0, 1.0, 0.0, observation)
    observation += 1
    assert log.episode(terminated=True, truncated=False).observations.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("spec", "reward", "following", "message"),
    [
        (PIXELS, 0.0, stack(2, 1, 1), "do not share their frames; expected stacks of frames, oldest first"),
        (PIXELS, 0.0, stack(1, 1), r"an observation is uint8 \[2, 1, 2\]; expected uint8 \[3, 1, 2\]"),
        (PIXELS, 0.0, stack(1, 1, 2).astype(np.float32), r"an observation is float32 \[3, 1, 2\]"),
        (PIXELS, float("nan"), stack(1, 1, 2), "the reward of step 0 is nan"),
        (VECTORS, float("-inf"), np.zeros(2), "the reward of step 0 is -inf"),
        (VECTORS, 0.0, np.zeros(3), r"an observation is float32 \[3\]; expected float32 \[2\]"),
        (VECTORS, 0.0, np.array([0, np.nan]), "an observation holds NaN or infinite values"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_the_episode_as_it_was(spec, reward, following, message):
    log = EpisodeLog(stack(1, 1, 1) if spec.is_pixels else np.zeros(2), spec)
    log.append(0, 1.0, 0.0, stack(1, 1, 1) if spec.is_pixels else np.zeros(2))
    before = log.episode(terminated=False, truncated=True)
    log = EpisodeLog(stack(1, 1, 1) if spec.is_pixels else np.zeros(2), spec)
    with pytest.raises(DatasetError, match=message):
        log.append(1, 1.0, reward, following)
    log.append(0, 1.0, 0.0, stack(1, 1, 1) if spec.is_pixels else np.zeros(2))
    after = log.episode(terminated=False, truncated=True)
    assert after.actions.tolist() == before.actions.tolist() == [0]
    np.testing.assert_array_equal(after.observations, before.observations)


PLAN = Manifest(make_spec(), (), {"id": "A", "versions": {"numpy": "1"}}, {"name": "test", "seed": 0}, complete=False)


def written(directory, num_shards):
    recording = Recording.extend(directory, PLAN)
    recording.begin()
    for seed in range(num_shards):
        recording.write([make_episode(seed)])
    return recording


def test_a_shard_counts_once_the_manifest_names_it(tmp_path):
    recording = Recording.resume(tmp_path, PLAN)
    assert recording.manifest is PLAN
    recording.begin()
    assert Manifest.load(tmp_path) == PLAN
    record = recording.write([make_episode(0), make_episode(1)])
    assert record.name == shard_path(tmp_path, 0).name == "shard-00000.npz"
    assert Manifest.load(tmp_path) == recording.manifest
    assert recording.manifest.shards == (record,)
    assert not recording.manifest.complete
    assert recording.complete() == Manifest.load(tmp_path)
    assert recording.manifest.complete


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_who_can_make_shards_again_gets_those_before_the_damaged_one(tmp_path, damage):
    shards = written(tmp_path, 3).manifest.shards
    path = tmp_path / shards[1].name
    path.unlink() if damage == "missing" else path.write_bytes(b"other")
    assert Recording.resume(tmp_path, PLAN).manifest.shards == shards[:1]
    with pytest.raises(DatasetError, match=r"shard-00001.npz: is missing or damaged; .*; restore it"):
        Recording.extend(tmp_path, PLAN)


def test_who_adds_gets_all_shards_and_names_the_next_one(tmp_path):
    shards = written(tmp_path, 2).manifest.shards
    recording = Recording.extend(tmp_path, PLAN)
    assert recording.manifest.shards == shards
    assert recording.write([make_episode(5)]).name == "shard-00002.npz"


def test_other_versions_matter_only_to_one_who_makes_the_same_bytes(tmp_path):
    written(tmp_path, 1)
    newer = dataclasses.replace(PLAN, environment={"id": "A", "versions": {"numpy": "2"}})
    with pytest.raises(DatasetError, match="environment.versions"):
        Recording.resume(tmp_path, newer)
    assert len(Recording.extend(tmp_path, newer).manifest.shards) == 1
    Recording.extend(tmp_path, PLAN).complete()
    assert Recording.resume(tmp_path, newer).manifest.complete


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": make_spec(4)}, r"spec.observation_shape is \(2, 2, 3\); expected \(4, 2, 3\); use another directory"),
        ({"environment": {"id": "B", "versions": {"numpy": "1"}}}, "environment.id is 'A'; expected 'B'"),
        ({"generator": {"name": "test", "seed": 1}}, "generator.seed is 0; expected 1"),
        ({"generator": {"name": "test", "seed": 0, "more": 1}}, "generator.more is None; expected 1"),
    ],
)
def test_another_dataset_is_left_alone(tmp_path, changes, message):
    written(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for way in (Recording.resume, Recording.extend):
        with pytest.raises(DatasetError, match=message):
            way(tmp_path, dataclasses.replace(PLAN, **changes))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_without_a_manifest_are_left_alone(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"precious")
    for way in (Recording.resume, Recording.extend):
        with pytest.raises(DatasetError, match="holds .npz files without a manifest"):
            way(tmp_path, PLAN)


def test_shards_that_were_made_ahead_are_removed(tmp_path):
    recording = written(tmp_path, 1)
    shard_path(tmp_path, 1).write_bytes(b"ahead")
    (tmp_path / "notes.txt").touch()
    recording.remove_strays()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "notes.txt", "shard-00000.npz"]

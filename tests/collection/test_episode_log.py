import numpy as np
import pytest

from offrl import TaskSpec
from offrl.collection._episode_log import EpisodeLog
from offrl.errors import DatasetError

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
        (VECTORS, 1e39, np.zeros(2), r"the reward of step 0 is 1e\+39; expected a finite number that float32 holds"),
        (PIXELS, 0.0, stack(1, 2, 3), "do not share their frames; .*; put ActionRepeat, .* inside the stack"),
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

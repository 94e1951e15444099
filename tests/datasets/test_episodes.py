from dataclasses import replace
from types import GeneratorType

import numpy as np
import pytest
from episode_checks import assert_same_episodes
from hypothesis import HealthCheck, given, settings
from naive_replay import datasets, make_episode, make_spec, rows_of, save_frames, save_stacked, stacked_members

from offrl.datasets._episodes import episodes, num_repeated
from offrl.errors import DatasetError
from offrl.replay import ingest


def save_rows(directory, rows):
    """Rows in the stacked layout, one shard."""
    directory.mkdir(exist_ok=True)
    np.savez(directory / "log.npz", **stacked_members(rows))
    return directory


def test_episodes_of_the_frames_layout_come_back_as_they_were_written(tmp_path):
    legal = np.ones((2, 3), np.bool_)
    written = [
        make_episode(0, 1),
        make_episode(1, 3, terminated=False),
        make_episode(2, 2, leading=1, behaviour_probability=np.array([0.5, np.nan], np.float32), action_mask=legal),
    ]
    save_frames(tmp_path, [written[:2], written[2:]], make_spec())
    found = episodes(ingest(tmp_path))
    assert isinstance(found, GeneratorType)
    for index, steps in enumerate((1, 3)):  # unknown and all legal, where another shard knows them
        unknown = {
            "behaviour_probability": np.full(steps, np.nan, np.float32),
            "action_mask": np.ones((steps, 3), bool),
        }
        written[index] = replace(written[index], **unknown)
    assert_same_episodes(found, written)


def test_vectors_come_back_as_they_were_written(tmp_path):
    written = [make_episode(seed, steps, pixels=False, terminated=steps > 1) for seed, steps in enumerate((4, 1, 2))]
    save_frames(tmp_path, [written], make_spec(pixels=False))
    assert_same_episodes(episodes(ingest(tmp_path)), written)


def test_stacked_rows_become_the_frames_they_were_made_of(tmp_path):
    """Frames that repeat the first one go, those of a log that begins in mid-episode stay."""
    written = [make_episode(0, 3), make_episode(1, 2, leading=3, terminated=False), make_episode(2, 1)]
    save_stacked(tmp_path, [written], stack=4)
    assert_same_episodes(episodes(ingest(tmp_path)), written)


@pytest.mark.filterwarnings("ignore:.*dones is true")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datasets())
def test_the_stacks_of_the_episodes_are_those_of_the_stacked_log(tmp_path_factory, dataset):
    pixels, stack, shards = dataset
    directory = tmp_path_factory.mktemp("log")
    save_stacked(directory, shards, stack)
    expected = [row for shard in shards for row in rows_of(shard, stack)]
    found = rows_of(episodes(ingest(directory, spec=make_spec(stack, pixels=pixels))), stack)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.observation, theirs.observation)
        np.testing.assert_array_equal(mine.next_observation, theirs.next_observation)
        assert (mine.action, mine.reward, mine.terminated) == (theirs.action, theirs.reward, theirs.terminated)


def test_a_terminated_step_that_leads_elsewhere_keeps_the_newest_frame(tmp_path):
    """Some loggers note the first stack of the next episode, or zeros."""
    written = make_episode(0, 3)
    rows = rows_of([written], stack=2)
    rows[-1].next_observation = np.full_like(rows[-1].observation, 7)
    (found,) = episodes(ingest(save_rows(tmp_path, rows)))
    np.testing.assert_array_equal(found.observations[:3], written.observations[:3])
    np.testing.assert_array_equal(found.observations[3], np.full((2, 3), 7))


def test_other_steps_that_lead_elsewhere_are_refused(tmp_path):
    rows = rows_of([make_episode(0, 3, terminated=False)], stack=2)
    rows[1].next_observation = np.full_like(rows[1].observation, 7)
    with pytest.raises(DatasetError, match=r"1 transition\(s\) that did not terminate lead to .* the first in row 1"):
        next(episodes(ingest(save_rows(tmp_path, rows))))


@pytest.mark.parametrize(
    ("grays", "repeated"), [([5, 5, 5, 9], 2), ([4, 5, 5, 9], 0), ([5, 5, 4, 4], 1), ([5, 5, 5, 5], 3), ([9], 0)]
)
def test_repeated_leading_frames_are_counted_from_the_oldest(grays, repeated):
    """Up to the first one that differs from the next: what is left is repeated when a stack is read."""
    frames = np.array(grays, np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    assert num_repeated(frames, leading=len(grays) - 1) == repeated

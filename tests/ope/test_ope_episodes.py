"""Episodes of a replay against the episodes that were written."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_replay import datasets, make_episode, make_spec, save_frames
from toy_replay import ToyReplay

from offrl.errors import ConfigError
from offrl.ope import Episodes
from offrl.replay import open_replay


@pytest.fixture(autouse=True, scope="module")
def nothing_waits_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield


def opened(folder, episodes, spec=None, **settings):
    spec = make_spec(pixels=0) if spec is None else spec
    save_frames(Path(folder), [episodes], spec)
    return open_replay(folder, progress=False, **settings)


@settings(max_examples=15, deadline=None)
@given(datasets(), st.integers(0, 99))
def test_episodes_are_those_of_the_log_in_either_part(dataset, split_seed):
    pixels, stack, shards = dataset
    written = [episode for shard in shards for episode in shard]
    with tempfile.TemporaryDirectory() as folder:
        save_frames(Path(folder), shards, make_spec(stack, pixels=pixels))
        replay = open_replay(folder, held_out=0.0 if len(written) < 2 else 0.4, split_seed=split_seed, progress=False)
        num_seen = 0
        for part in filter(None, (replay, replay.held_out())):
            found = Episodes.of(part)
            num_seen += len(found)
            episode_of_rows = part.store.episode_of_rows()[part.rows]
            names = list(dict.fromkeys(episode_of_rows.tolist()))  # which of the episodes written each is
            assert found.length.tolist() == [len(written[name].actions) for name in names]
            assert found.rows.shape[1] == found.length.max()
            for i, name in enumerate(names):
                length, episode = found.length[i], written[name]
                rows = found.rows[i, :length]
                np.testing.assert_array_equal(part.gather(rows).action.numpy(), episode.actions)
                np.testing.assert_array_equal(found.reward[i, :length], episode.rewards)
                assert (found.reward[i, length:] == 0).all()
                assert (found.rows[i, length:] == -1).all()
                assert np.isnan(found.behaviour[i, :length]).all()
                assert (found.behaviour[i, length:] == 1).all()
                assert found.terminated[i] == episode.terminated
            assert sorted(found.rows[found.rows >= 0]) == list(range(len(part)))
        assert num_seen == len(written)


def test_rewards_are_as_logged_whatever_training_makes_of_them(tmp_path):
    episodes = [make_episode(0, steps=2, pixels=0), make_episode(1, steps=3, pixels=0)]
    found = Episodes.of(
        opened(tmp_path, episodes, reward_clip=0.1, reward_scale=5.0, n_step=3, sampling="top-returns:0.5")
    )
    assert len(found) == 2
    np.testing.assert_allclose(found.returns(1.0), [episode.rewards.astype(float).sum() for episode in episodes])
    first = episodes[0].rewards.astype(float)
    assert found.returns(0.5)[0] == pytest.approx(first[0] + 0.5 * first[1])
    assert found.returns(0.0)[0] == first[0]


def test_logged_probabilities_stand_where_they_belong(tmp_path):
    episodes = [
        make_episode(0, steps=2, pixels=0, behaviour_probability=np.array([0.25, 0.5], np.float32)),
        make_episode(1, steps=1, pixels=0, behaviour_probability=np.array([0.75], np.float32)),
    ]
    assert Episodes.of(opened(tmp_path, episodes)).behaviour.tolist() == [[0.25, 0.5], [0.75, 1.0]]


def test_values_of_transitions_are_padded(tmp_path):
    episodes = Episodes.of(opened(tmp_path, [make_episode(0, steps=1, pixels=0), make_episode(1, steps=2, pixels=0)]))
    assert episodes.pad(np.array([7.0, 8.0, 9.0])).tolist() == [[7, 0], [8, 9]]
    assert episodes.pad(np.array([[1, 2], [3, 4], [5, 6]]), fill=-1).tolist() == [[[1, 2], [-1, -1]], [[3, 4], [5, 6]]]


def test_bandit_data_are_episodes_of_one_step(tmp_path):
    episodes = Episodes.of(opened(tmp_path, [make_episode(seed, steps=1, pixels=0) for seed in range(4)]))
    assert episodes.rows.tolist() == [[0], [1], [2], [3]]
    assert episodes.terminated.all()


def test_replays_without_whole_episodes_are_refused(tmp_path):
    replay = opened(tmp_path, [make_episode(0, steps=9, pixels=0)], actions=[0, 1])
    with pytest.raises(ConfigError, match=r"Episodes.of: a replay from which actions=\(0, 1\) leaves out transitions"):
        Episodes.of(replay)
    masked = make_episode(0, steps=9, pixels=0)
    only = np.eye(3, dtype=np.bool_)[masked.actions]
    replay = opened(tmp_path / "masked", [replace(masked, action_mask=only)], legal_actions=[0, 1])
    with pytest.raises(ConfigError, match=r"legal_actions=\(0, 1\) leaves out .*open the data without legal_actions"):
        Episodes.of(replay)
    assert len(Episodes.of(open_replay(tmp_path, legal_actions=[0, 1], progress=False))) == 1  # leaves nothing out
    with pytest.raises(ConfigError, match="Episodes.of: a ToyReplay; expected a Replay over a store"):
        Episodes.of(ToyReplay(make_spec(pixels=0)))

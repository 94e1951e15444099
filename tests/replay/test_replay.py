import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_replay import (
    NAMES,
    datasets,
    make_episode,
    make_spec,
    n_step_of,
    rows_of,
    save_frames,
    save_stacked,
    stacked_members,
)

from offrl import TaskSpec
from offrl.errors import ConfigError, SpecMismatchError
from offrl.replay import Replay, ReplaySource, open_replay
from offrl.shards import Episode

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*dones is true:UserWarning",
    "ignore:.*look newest first:UserWarning",
    "ignore:.*gray levels off:UserWarning",
)


@pytest.fixture(autouse=True, scope="module")
def nothing_waits_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield


NUM_CASES = int(os.environ.get("OFFRL_PROPERTY_CASES", "1000"))  # of all properties here together


def share(part):
    """Settings for a property that gets this part of the cases."""
    return settings(max_examples=max(1, round(part * NUM_CASES)), deadline=None)


def assert_equals_naive(replay, rows):
    """Compares all of a dataset's transitions, in one batch."""
    assert len(replay) == len(rows)
    batch = replay.gather(np.arange(len(rows)))
    returns = [n_step_of(rows, index, replay.config.n_step, replay.config.discount) for index in range(len(rows))]
    rewards, discounts, next_observations = zip(*returns, strict=True)
    np.testing.assert_array_equal(batch.observation.numpy(), np.stack([row.observation for row in rows]), strict=True)
    np.testing.assert_array_equal(batch.next_observation.numpy(), np.stack(next_observations), strict=True)
    assert batch.action.tolist() == [row.action for row in rows]
    np.testing.assert_allclose(batch.reward, np.array(rewards) * replay.config.reward_scale, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.discount, discounts, rtol=1e-6)


def assert_same_bytes(one, other):
    for name, tensor in vars(one).items():
        if tensor is None:
            assert getattr(other, name) is None
        else:
            assert tensor.dtype == getattr(other, name).dtype
            assert torch.equal(tensor, getattr(other, name))


@share(0.35)
@given(datasets(), st.integers(1, 5), st.sampled_from([0.0, 0.5, 0.97, 1.0]))
def test_frames_layout_gives_the_episodes_transitions_in_every_tier(dataset, n_step, discount):
    pixels, stack, shards = dataset
    rows = [row for episodes in shards for row in rows_of(episodes, stack)]
    with tempfile.TemporaryDirectory() as folder:
        save_frames(Path(folder), shards, make_spec(stack, pixels=pixels))
        replays = [
            open_replay(folder, n_step=n_step, discount=discount, reward_scale=0.1, tier=tier)
            for tier in ("mmap", "ram")
        ]
        assert [replay.store.tier for replay in replays] == ["mmap", "ram"]
        assert_equals_naive(replays[0], rows)
        indices = replays[0].indices(7, 16)
        assert_same_bytes(replays[0].gather(indices), replays[1].gather(indices))


def link_as_documented(rows):
    """Sets `follows` by the stacked layout's rule, row by row."""
    for index, row in enumerate(rows):
        before = rows[index - 1] if index else None
        row.follows = (
            before is not None
            and not before.terminated
            and row.observation.tolist() == before.next_observation.tolist()
            and (
                row.observation.ndim == 1
                or before.next_observation[: -row.channels].tolist() == before.observation[row.channels :].tolist()
            )
        )
    return rows


@share(0.35)
@given(datasets(), st.integers(1, 5), st.sampled_from([0.0, 0.5, 0.97, 1.0]))
def test_stacked_layout_gives_its_rows_in_every_tier(dataset, n_step, discount):
    pixels, stack, shards = dataset
    rows = [row for episodes in shards for row in link_as_documented(rows_of(episodes, stack))]
    with tempfile.TemporaryDirectory() as folder:
        save_stacked(Path(folder), shards, stack)
        spec = make_spec(stack, pixels=pixels)
        replays = [
            open_replay(folder, spec=spec, n_step=n_step, discount=discount, tier=tier) for tier in ("mmap", "ram")
        ]
        assert_equals_naive(replays[0], rows)
        indices = replays[0].indices(7, 16)
        assert_same_bytes(replays[0].gather(indices), replays[1].gather(indices))


@share(0.15)
@given(datasets(), st.randoms(use_true_random=False))
def test_shuffled_stacked_rows_are_kept_exactly(dataset, random):
    pixels, stack, shards = dataset
    rows = rows_of([episode for episodes in shards for episode in episodes], stack)
    random.shuffle(rows)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "log.npz", **stacked_members(rows))
        replay = open_replay(folder, spec=make_spec(stack, pixels=pixels), n_step=3)
        assert_equals_naive(replay, link_as_documented(rows))


@st.composite
def stacks(draw):
    """Members of a stacked shard whose rows follow each other, or not, by chance."""
    num_rows, stack = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # With one level of gray every row follows the one before it, with 256 none does.
    frames = rng.integers(draw(st.sampled_from([1, 2, 256])), size=(2, num_rows, stack, 2, 1), dtype=np.uint8)
    zeros = np.zeros(num_rows, np.int64)
    return {
        "states": frames[0],
        "next_states": frames[1],
        "actions": zeros,
        "rewards": zeros,
        "dones": rng.random(num_rows) < 0.2,
    }


def round_trip(members):
    """The float64 observations and next observations of all rows, in gray levels, and the rounding error reported."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "log.npz", **members)
        replay = open_replay(folder)
        batch = replay.gather(np.arange(len(replay)))
    assert batch.observation.dtype == batch.next_observation.dtype == torch.uint8
    return batch.observation.double(), batch.next_observation.double(), replay.store.report.largest_rounding_error


@share(0.05)
@given(stacks())
def test_stacks_of_uint8_come_back_exactly(members):
    observation, next_observation, error = round_trip(members)
    assert observation.tolist() == members["states"].tolist()
    assert next_observation.tolist() == members["next_states"].tolist()
    assert error == 0


@share(0.1)
@given(stacks(), st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32, np.float64]))
def test_stacks_of_floats_come_back_within_half_a_gray_level(members, seed, dtype):
    rng = np.random.default_rng(seed)
    for name in ("states", "next_states"):
        gray = np.clip(members[name] + rng.uniform(-0.5, 0.5, size=members[name].shape), 0, 255)
        members[name] = (gray / 128 - 1).astype(dtype)
    observation, next_observation, error = round_trip(members)
    differences = [
        np.abs((members["states"].astype(np.float64) + 1) * 128 - observation.numpy()).max(),
        np.abs((members["next_states"].astype(np.float64) + 1) * 128 - next_observation.numpy()).max(),
    ]
    assert max(differences) <= 0.5 + 1e-4  # the last bit of a float32
    assert error == pytest.approx(max(differences), abs=1e-4)


def test_both_layouts_of_one_log_give_the_same_batches(tmp_path):
    shards = [[make_episode(0, 5, leading=1), make_episode(1, 1)], [make_episode(2, 4, terminated=False)]]
    save_frames(tmp_path / "frames", shards, make_spec())
    save_stacked(tmp_path / "stacked", shards, stack=2)
    ours, theirs = (open_replay(tmp_path / name, spec=make_spec(), n_step=3, seed=5) for name in ("frames", "stacked"))
    indices = ours.indices(0, 32)
    assert_same_bytes(ours.gather(indices), theirs.gather(indices))


def test_n_step_batch_by_hand(tmp_path):
    # Frames 0..3 of a truncated episode of three steps; gray level = number of the frame.
    frames = np.arange(4, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(3, 2)
    episode = Episode(frames, np.array([2, 0, 1]), np.array([1, 10, 100], np.float32), False, True)
    save_frames(tmp_path, [[episode]], make_spec(stack=2))
    batch = open_replay(tmp_path, n_step=2, discount=0.5, reward_scale=2.0).gather([0, 1, 2])
    assert batch.observation[:, :, 0, 0].tolist() == [[0, 0], [0, 1], [1, 2]]
    assert batch.action.tolist() == [2, 0, 1]
    assert batch.reward.tolist() == [2 * (1 + 0.5 * 10), 2 * (10 + 0.5 * 100), 2 * 100]
    assert batch.discount.tolist() == [0.25, 0.25, 0.5]  # the last step has one step left, and is not terminal
    assert batch.next_observation[:, :, 0, 0].tolist() == [[1, 2], [2, 3], [2, 3]]


def test_types_are_those_of_the_batch(tmp_path):
    save_frames(tmp_path, [[make_episode(0)]], make_spec())
    batch = open_replay(tmp_path).gather([0])
    assert batch.observation.dtype == batch.next_observation.dtype == torch.uint8
    assert batch.action.dtype == torch.int64
    assert batch.reward.dtype == batch.discount.dtype == torch.float32
    assert batch.action_mask is None


def test_action_masks_come_with_the_step_they_are_of(tmp_path):
    legal = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], np.bool_)
    episode = Episode(
        np.zeros((4, 2, 3), np.uint8), np.array([0, 1, 2]), np.ones(3, np.float32), False, True, action_mask=legal
    )
    save_frames(tmp_path, [[episode], [make_episode(1, 1)]], make_spec())
    batch = open_replay(tmp_path, n_step=2).gather([0, 1, 2, 3])
    assert batch.action_mask.tolist() == [*legal.tolist(), [True] * 3]
    # Two steps on from row 0 is row 2; the others reach an end, whose legal actions no log holds.
    assert batch.next_action_mask.tolist() == [legal[2].tolist(), [True] * 3, [True] * 3, [True] * 3]


def test_vectors_next_to_an_action_mask_free_shard_stay_float32(tmp_path):
    save_frames(tmp_path, [[make_episode(0, pixels=False)]], make_spec(pixels=False))
    assert open_replay(tmp_path).gather([0, 1]).observation.dtype == torch.float32


def test_indices_are_inside_and_repeatable(tmp_path):
    save_frames(tmp_path, [[make_episode(0, 6)]], make_spec())
    source: ReplaySource = open_replay(tmp_path, seed=3)
    assert source.indices(4, 8).tolist() == open_replay(tmp_path, seed=3).indices(4, 8).tolist()
    assert set(source.indices(0, 200).tolist()) == set(range(6))


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_data_is_refused(tmp_path, index):
    save_frames(tmp_path, [[make_episode(0, 3)]], make_spec())
    with pytest.raises(IndexError, match=r"outside 0\.\.2"):
        open_replay(tmp_path).gather([index])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_step", 0), ("discount", 1.5), ("discount", float("nan")), ("reward_scale", 0.0), ("reward_scale", np.inf)],
)
def test_settings_are_checked(tmp_path, setting, value):
    save_frames(tmp_path, [[make_episode(0)]], make_spec())
    with pytest.raises(ConfigError, match=f"Replay.{setting}"):
        open_replay(tmp_path, **{setting: value})


def test_settings_and_fingerprint_are_for_the_runs_records(tmp_path):
    save_frames(tmp_path, [[make_episode(0)]], make_spec())
    replay = open_replay(tmp_path, n_step=2, discount=0.9, reward_scale=0.1, seed=4, tier="mmap")
    assert json.loads(json.dumps(replay.settings())) == {
        "n_step": 2,
        "discount": 0.9,
        "reward_clip": None,
        "reward_scale": 0.1,
        "actions": None,
        "sampling": "uniform",
        "held_out": 0.0,
        "split_seed": 0,
        "part": "train",
        "seed": 4,
    }  # not the tier, which changes no batch
    assert len(replay.fingerprint) == 64


def test_a_spec_that_differs_from_the_manifests_is_refused(tmp_path):
    save_frames(tmp_path, [[make_episode(0)]], make_spec(stack=2))
    with pytest.raises(
        SpecMismatchError, match=r"manifest\.json: observation_shape is \(2, 2, 3\); expected \(4, 2, 3\)"
    ):
        open_replay(tmp_path, spec=TaskSpec.pixels((4, 2, 3), NAMES))


@pytest.mark.parametrize("tier", ["device", "ram", "mmap"])
@settings(max_examples=30, deadline=None)
@given(dataset=datasets(), n_step=st.integers(1, 3))
def test_frames_where_the_update_runs_give_the_same_batches(tier, dataset, n_step):
    pixels, stack, shards = dataset
    with tempfile.TemporaryDirectory() as folder:
        save_frames(Path(folder), shards, make_spec(stack, pixels=pixels))
        host = open_replay(folder, n_step=n_step, tier="ram")
        device = open_replay(folder, n_step=n_step, tier=tier).to(torch.device("cpu"))
        indices = host.indices(3, 16)
        located = device.gather(indices)
        assert located.frames.device.type == "cpu"
        assert located.rows.dtype == torch.int64
        assert_same_bytes(host.gather(indices), located.stacked())


@pytest.mark.parametrize("tier", ["mmap", "ram"])
def test_prefetching_asks_for_what_a_batch_needs_and_changes_nothing(tmp_path, tier, monkeypatch):
    save_frames(tmp_path, [[make_episode(0, 5), make_episode(1, 3)]], make_spec(stack=2))
    replay = open_replay(tmp_path, tier=tier, n_step=2)
    before = replay.gather([0, 4, 7])
    asked = []
    whole = type(replay.store).prefetch
    monkeypatch.setattr(type(replay.store), "prefetch", lambda store, *rows: (asked.append(rows), whole(store, *rows)))
    replay.prefetch([0, 4, 7])
    # two steps on, but not beyond the ends of the episodes, which are the rows 4 and 7
    assert [[rows.tolist() for rows in pair] for pair in asked] == ([[[0, 4, 7], [1, 4, 7]]] if tier == "mmap" else [])
    assert_same_bytes(replay.gather([0, 4, 7]), before)


@pytest.mark.parametrize("tier", ["auto", "ram", "mmap"])
def test_on_a_cpu_frames_are_named_where_the_store_has_them(tmp_path, tier, monkeypatch):
    save_frames(tmp_path, [[make_episode(0, 5), make_episode(1, 3)]], make_spec(stack=2))
    replay = open_replay(tmp_path, tier=tier, n_step=2, held_out=0.5)
    placed = replay.to(torch.device("cpu"))
    held_out = placed.held_out()
    for named, gathered in ((placed, replay), (held_out, replay.held_out())):
        assert named.frames.data_ptr() == replay.store.frames.ctypes.data
        assert_same_bytes(named.gather([0, 2]).stacked(), gathered.gather([0, 2]))
    asked = []
    monkeypatch.setattr(type(replay.store), "prefetch", lambda store, *rows: asked.append(rows))
    placed.prefetch([0, 2])
    assert len(asked) == (replay.store.tier == "mmap")


def test_a_replay_that_gathers_in_its_own_way_does_so_on_a_cpu(tmp_path):
    class Mirrored(Replay):
        def gather(self, indices):
            return super().gather(indices).map(lambda tensor: tensor.flip(-1))

    save_frames(tmp_path, [[make_episode(0)]], make_spec())
    replay = Mirrored(open_replay(tmp_path).store)
    assert replay.to(torch.device("cpu")) is replay


def test_rewards_are_cut_step_by_step_and_then_scaled(tmp_path):
    frames = np.zeros((4, 2, 3), np.uint8)
    episode = Episode(frames, np.array([0, 1, 2]), np.array([5.0, -0.5, -3.0], np.float32), True, False)
    save_frames(tmp_path, [[episode]], make_spec())
    replay = open_replay(tmp_path, n_step=2, discount=0.5, reward_clip=1.0, reward_scale=10.0)
    # 1 - 0.5 * 0.5, -0.5 - 0.5 * 1 and -1, times 10
    assert replay.gather([0, 1, 2]).reward.tolist() == [7.5, -10.0, -10.0]
    assert replay.store.rewards.tolist() == [5.0, -0.5, -3.0]


def test_a_subset_of_actions_is_drawn_alone_and_the_others_are_illegal(tmp_path):
    logged = np.array([[True, True, False], [True, True, True], [True, False, True]])
    episode = Episode(
        np.arange(4, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(3, 2),
        np.array([1, 0, 2]),
        np.ones(3, np.float32),
        terminated=True,
        truncated=False,
        action_mask=logged,
    )
    save_frames(tmp_path / "masked", [[episode]], make_spec())
    replay = open_replay(tmp_path / "masked", actions=[2, 1])
    batch = replay.gather(np.arange(len(replay)))
    assert batch.action.tolist() == [1, 2]
    assert batch.observation[:, -1, 0, 0].tolist() == [0, 2]
    assert batch.action_mask.tolist() == [[False, True, False], [False, False, True]]
    # After the first step all three are logged as legal; after the last nothing is known, so the subset is.
    assert batch.next_action_mask.tolist() == [[False, True, True], [False, True, True]]

    plain = Episode(episode.observations, episode.actions, episode.rewards, terminated=True, truncated=False)
    save_frames(tmp_path / "plain", [[plain]], make_spec())
    batch = open_replay(tmp_path / "plain", actions=[0]).gather([0])
    assert batch.action_mask.tolist() == batch.next_action_mask.tolist() == [[True, False, False]]


def test_legal_actions_confine_what_follows_and_leave_all_transitions(tmp_path):
    episode = make_episode(0, 3)
    episode = replace(episode, actions=np.array([0, 1, 2]))
    save_frames(tmp_path / "plain", [[episode]], make_spec())
    replay = open_replay(tmp_path / "plain", legal_actions=[2, 1])
    batch = replay.gather([0, 1, 2])
    assert batch.action.tolist() == [0, 1, 2]
    # The first action is learned from, but no policy may take it.
    assert batch.action_mask.tolist() == batch.next_action_mask.tolist() == [[False, True, True]] * 3
    assert replay.has_whole_episodes
    assert replay.spec.legal_actions == (1, 2)
    assert replay.contents().legal.tolist() == [False, True, True]
    assert replay.contents().action_counts.tolist() == [1, 1, 1]
    assert replay.to(torch.device("cpu")).gather([0]).next_action_mask.tolist() == [[False, True, True]]

    logged = np.array([[True, True, False], [True, True, False], [True, False, True]])
    save_frames(tmp_path / "masked", [[replace(episode, action_mask=logged)]], make_spec())
    replay = open_replay(tmp_path / "masked", legal_actions=[1])
    batch = replay.gather(np.arange(len(replay)))
    # Not the second transition: where it leads to, action 1 is illegal. After the last one nothing is known.
    assert batch.action.tolist() == [0, 2]
    assert batch.action_mask.tolist() == [[False, True, False], [False, False, False]]
    assert batch.next_action_mask.tolist() == [[False, True, False]] * 2
    assert not replay.has_whole_episodes
    assert open_replay(tmp_path / "masked", legal_actions=[0]).has_whole_episodes

    # Only actions 0 and 1 are learned from, and of these only 1 is taken.
    replay = open_replay(tmp_path / "plain", actions=[0, 1], legal_actions=[1])
    batch = replay.gather([0, 1])
    assert batch.action.tolist() == [0, 1]
    assert batch.action_mask.tolist() == batch.next_action_mask.tolist() == [[False, True, False]] * 2
    assert replay.spec.legal_actions == (1,)
    assert not replay.has_whole_episodes


def test_legal_actions_that_the_data_never_allows_are_refused(tmp_path):
    masked = replace(make_episode(0, 3), actions=np.zeros(3, np.int64), action_mask=np.array([[True, True, False]] * 3))
    save_frames(tmp_path, [[masked]], make_spec())
    with pytest.raises(
        ConfigError, match=r"Replay\.legal_actions: \(2,\); expected actions that are legal in the data"
    ):
        open_replay(tmp_path, legal_actions=[2])


@pytest.mark.parametrize(("n_step", "drawn"), [(1, [2, 3]), (2, [0, 2, 3])])
def test_a_step_to_where_no_action_of_the_subset_is_legal_is_not_drawn(tmp_path, n_step, drawn):
    only_1, others = [False, True, False], [True, False, True]
    episode = Episode(
        np.arange(5, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(3, 2),
        np.array([0, 1, 2, 0]),
        np.ones(4, np.float32),
        terminated=False,
        truncated=True,
        action_mask=np.array([others, only_1, others, others]),
    )
    save_frames(tmp_path, [[episode]], make_spec())
    replay = open_replay(tmp_path, actions=[0, 2], n_step=n_step)
    batch = replay.gather(np.arange(len(replay)))
    assert batch.observation[:, -1, 0, 0].tolist() == drawn
    assert batch.next_action_mask.tolist() == [others] * len(drawn)
    # With legal_actions also the second step, of the action that is not legal: where it leads to, the subset is.
    replay = open_replay(tmp_path, legal_actions=[0, 2], n_step=n_step)
    batch = replay.gather(np.arange(len(replay)))
    assert batch.observation[:, -1, 0, 0].tolist() == sorted([1, *drawn])
    assert batch.next_action_mask.tolist() == [others] * (1 + len(drawn))
    assert replay.has_whole_episodes == (n_step == 2)


def episodes_of_gray(lengths):
    """Episode i shows gray level i only."""
    return [
        Episode(
            np.full((length + 1, 2, 3), gray, np.uint8),
            np.zeros(length, np.int64),
            np.full(length, float(gray), np.float32),
            terminated=True,
            truncated=False,
        )
        for gray, length in enumerate(lengths)
    ]


def grays_of(replay):
    return replay.gather(np.arange(len(replay))).observation[:, -1, 0, 0].tolist()


def test_a_split_keeps_episodes_whole_and_apart_whatever_the_sampler_draws(tmp_path):
    lengths = [1, 4, 2, 3, 5]
    save_frames(tmp_path, [episodes_of_gray(lengths)], make_spec())
    train = open_replay(tmp_path, held_out=0.4, split_seed=1, seed=0)
    held_out = open_replay(tmp_path, held_out=0.4, split_seed=1, seed=9, part="held_out")
    assert len(set(grays_of(train))) == 3
    assert len(set(grays_of(held_out))) == 2
    assert sorted(grays_of(train) + grays_of(held_out)) == sorted(np.repeat(range(5), lengths))
    assert set(held_out.gather(held_out.indices(0, 64)).observation[:, -1, 0, 0].tolist()) == set(grays_of(held_out))
    others = {tuple(sorted(set(grays_of(open_replay(tmp_path, held_out=0.4, split_seed=s))))) for s in range(6)}
    assert len(others) > 1


def test_sampling_sees_the_training_episodes_alone(tmp_path):
    save_frames(tmp_path, [episodes_of_gray([2, 2, 2, 2])], make_spec())
    replay = open_replay(tmp_path, held_out=0.25, sampling="top-returns:0.3")
    best = max(grays_of(replay))
    drawn = replay.gather(replay.indices(0, 32)).observation[:, -1, 0, 0]
    assert set(drawn.tolist()) == {best}


def test_a_run_records_how_data_was_chosen(tmp_path):
    save_frames(tmp_path, [episodes_of_gray([2, 2, 2])], make_spec())
    replay = open_replay(
        tmp_path,
        n_step=np.int64(2),
        held_out=0.3,
        split_seed=np.int32(4),
        actions=np.array([1, 0]),
        sampling="softmax-returns",
        reward_clip=2.0,
        seed=np.uint64(5),
    )
    recorded = json.loads(json.dumps(replay.settings()))
    assert (recorded["held_out"], recorded["split_seed"]) == (0.3, 4)
    assert (recorded["n_step"], recorded["seed"]) == (2, 5)
    assert (recorded["part"], recorded["actions"], recorded["reward_clip"]) == ("train", [0, 1], 2.0)
    assert recorded["sampling"] == "softmax-returns:0.1"
    assert "legal_actions" not in recorded
    assert open_replay(tmp_path, legal_actions=(2, 0)).settings()["legal_actions"] == [0, 2]
    again = open_replay(tmp_path, **recorded)
    assert again.indices(5, 16).tolist() == replay.indices(5, 16).tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reward_clip": 0.0}, r"Replay\.reward_clip: 0\.0"),
        ({"actions": ()}, r"Replay\.actions: \(\); expected one or more actions, or None"),
        ({"actions": (3,)}, r"Replay\.actions: \(3,\); expected one or more of 0\.\.2"),
        ({"actions": (0.5,)}, r"Replay\.actions: \(0\.5,\); expected one or more actions, or None"),
        ({"legal_actions": ()}, r"Replay\.legal_actions: \(\); expected one or more actions, or None"),
        ({"legal_actions": (3,)}, r"Replay\.legal_actions: \(3,\); expected one or more of 0\.\.2"),
        ({"legal_actions": "12"}, r"Replay\.legal_actions: '12'; expected one or more actions, or None"),
        (
            {"actions": (0, 1), "legal_actions": (1, 2)},
            r"Replay\.legal_actions: \(1, 2\); expected some of the setting actions, \(0, 1\), or None",
        ),
        ({"n_step": 1.5}, r"Replay\.n_step: 1\.5; expected 1 or more, a whole number"),
        ({"seed": 1.5}, r"Replay\.seed: 1\.5"),
        ({"held_out": 0.5, "split_seed": -1}, r"Replay\.split_seed: -1; expected 0 to 18446744073709551615"),
        ({"actions": (2,)}, r"Replay\.actions: \(2,\); expected actions that the data has"),
        ({"held_out": 1.0}, r"Replay\.held_out"),
        ({"held_out": 0.9}, r"Replay\.held_out: 0\.9 of 2 episodes leaves none; expected an episode left to train on"),
        ({"part": "held_out"}, r"Replay\.part: .*no episodes are held out"),
        ({"part": "test"}, r"Replay\.part: 'test'"),
        ({"sampling": "best"}, "sampling: 'best'"),
        ({"tier": "gpu"}, "tier: 'gpu'"),
        ({"discount": float("nan")}, r"Replay\.discount: nan; expected a number in \[0, 1\]"),
        ({"n_step": True}, r"Replay\.n_step: True; expected 1 or more, a whole number"),
        ({"include": ("reward",)}, r"Replay\.include: \('reward',\); expected some of"),
        ({"n_steps": 3}, r"Replay: no setting 'n_steps'; expected one of n_step, .*; did you mean n_step\?"),
    ],
)
def test_choices_that_make_no_sense_are_refused(tmp_path, wrong, message):
    save_frames(tmp_path, [episodes_of_gray([2, 2])], make_spec())
    with pytest.raises(ConfigError, match=message):
        open_replay(tmp_path, **wrong)


def test_what_a_batch_is_asked_to_carry_is_there(tmp_path):
    """Two episodes of 3 and 2 steps; with two-step returns the action after the next, where the log has one."""
    first, second = make_episode(0, 3), make_episode(1, 2)
    probability = np.array([0.5, 0.25, 1.0], np.float32)
    save_frames(tmp_path, [[replace(first, behaviour_probability=probability), second]], make_spec())
    plain = open_replay(tmp_path, n_step=2).gather(np.arange(5))
    assert (plain.next_action, plain.behaviour_probability, plain.index) == (None, None, None)
    replay = open_replay(tmp_path, n_step=2, include=("next_action", "behaviour_probability", "index"))
    batch = replay.gather([4, 0, 1, 2, 3])
    assert batch.index.tolist() == [4, 0, 1, 2, 3]
    assert batch.next_action.tolist() == [-1, first.actions[2], -1, -1, -1]
    np.testing.assert_array_equal(batch.behaviour_probability, [np.nan, 0.5, 0.25, 1.0, np.nan])
    assert replay.settings()["include"] == ["next_action", "behaviour_probability", "index"]

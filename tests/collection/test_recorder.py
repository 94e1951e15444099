import functools
import gc

import gymnasium
import numpy as np
import pytest
from frames_data import read_members
from gymnasium import spaces

from offrl import TaskSpec, envs, open_replay
from offrl.collection import Recorder, collect
from offrl.envs import DescribedTask, GrayStack, RandomBehaviour
from offrl.errors import ConfigError, DatasetError, InUseError, UnknownEnvironmentError
from offrl.shards import Manifest


class Line(gymnasium.Env):
    """Its observation counts the steps, in one array that is used again and again; ends after `length` of them."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, length=3, terminates=True):
        self.length, self.terminates, self.is_closed = length, terminates, False
        self.broken_at = None
        self.array = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.array[:] = 0
        return self.array, {"seed": seed}

    def step(self, action):
        if self.array[0] == self.broken_at:
            raise KeyboardInterrupt
        self.array += 1
        over = bool(self.array[0] == self.length)
        return self.array, float(action), over and self.terminates, over and not self.terminates, {"note": 7}

    def close(self):
        self.is_closed = True


class Screen(gymnasium.Env):
    """Frames whose brightness counts the steps, of the given shape; never ends."""

    action_space = spaces.Discrete(2)

    def __init__(self, *shape):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def _frame(self):
        return np.full(self.observation_space.shape, 10 + self.steps, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        return self._frame(), 0.0, False, False, {}


def play(recorder, *actions):
    """An episode, or as much of it as there are actions."""
    recorder.reset()
    return [recorder.step(action) for action in actions]


def recorded(directory):
    return read_members(directory, Manifest.load(directory))


def test_what_is_played_is_what_is_written(tmp_path):
    with Recorder(Line(), tmp_path) as recorder:
        play(recorder, 2, 0, 1)
        play(recorder, 1, 1, 1)
        assert not (tmp_path / "manifest.json").exists()
    data, manifest = recorded(tmp_path), Manifest.load(tmp_path)
    assert manifest.complete
    assert manifest.generator == {"name": "offrl.collect.Recorder"}
    assert manifest.environment["id"] == "Line"
    assert data["observations"].ravel().tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert data["actions"].tolist() == [2, 0, 1, 1, 1, 1]
    assert data["rewards"].tolist() == [2, 0, 1, 1, 1, 1]
    assert data["terminated"].tolist() == [False, False, True] * 2
    assert not data["truncated"].any()
    assert np.isnan(data["behaviour_probability"]).all()
    assert len(open_replay(tmp_path, progress=False)) == 6


def test_the_environment_is_passed_on_as_it_is(tmp_path):
    recorder = Recorder(Line(), tmp_path)
    observation, info = recorder.reset(seed=5)
    assert (observation.tolist(), info) == ([0], {"seed": 5})
    observation, *rest = recorder.step(np.int64(2))
    assert (observation.tolist(), rest) == ([1], [2.0, False, False, {"note": 7}])
    recorder.close()
    assert recorder.env.is_closed


def test_a_time_limit_is_truncated(tmp_path):
    with Recorder(Line(terminates=False), tmp_path) as recorder:
        play(recorder, 0, 0, 0)
    data = recorded(tmp_path)
    assert (data["terminated"].tolist(), data["truncated"].tolist()) == ([False] * 3, [False, False, True])


def test_a_probability_counts_for_the_step_after_it(tmp_path):
    with Recorder(Line(4), tmp_path) as recorder:
        recorder.reset()
        for probability in (0.25, None, 1.0, np.float32(0.5)):
            if probability is not None:
                recorder.behaviour_probability = probability
            recorder.step(0)
        assert np.isnan(recorder.behaviour_probability)
    np.testing.assert_array_equal(recorded(tmp_path)["behaviour_probability"], [0.25, np.nan, 1, 0.5])


@pytest.mark.parametrize("limit", [0, 2.5, "7"])
def test_what_is_no_size_of_a_shard_is_refused(tmp_path, limit):
    message = rf"Recorder.transitions_per_shard: {limit!r}; expected 1 or more, a whole number"
    with pytest.raises(ConfigError, match=message):
        Recorder(Line(), tmp_path, transitions_per_shard=limit)


def test_a_reward_beyond_float32_is_refused_at_its_step_and_what_came_before_is_kept(tmp_path):
    env = gymnasium.wrappers.TransformReward(Line(), lambda reward: 1e38 * reward**2)
    with Recorder(env, tmp_path) as recorder:
        play(recorder, 1, 0)
        with pytest.raises(DatasetError, match=r"the reward of step 2 is 4e\+38"):
            recorder.step(2)
    assert recorded(tmp_path)["rewards"].tolist() == pytest.approx([1e38, 0])


@pytest.mark.parametrize("probability", [0, -0.1, 1.5, float("inf")])
def test_what_is_no_probability_is_refused(tmp_path, probability):
    recorder = Recorder(Line(), tmp_path)
    with pytest.raises(ConfigError, match="Recorder.behaviour_probability: .*; expected 0 < probability <= 1"):
        recorder.behaviour_probability = probability


def test_an_episode_that_reset_or_close_ends_is_truncated(tmp_path):
    recorder = Recorder(Line(), tmp_path)
    play(recorder, 0, 1)
    play(recorder)  # reset and reset again: nothing was played
    play(recorder, 2)
    recorder.close()
    recorder.close()
    data = recorded(tmp_path)
    assert data["episode_lengths"].tolist() == [2, 1]
    assert data["truncated"].tolist() == [False, True, True]
    assert data["observations"].ravel().tolist() == [0, 1, 2, 0, 1]
    assert Manifest.load(tmp_path).complete


def test_shards_are_of_bounded_size(tmp_path):
    with Recorder(Line(), tmp_path, transitions_per_shard=7) as recorder:
        for _ in range(5):
            play(recorder, 0, 0, 0)
        assert [shard.num_transitions for shard in Manifest.load(tmp_path).shards] == [6, 6]
        assert not Manifest.load(tmp_path).complete
    assert [shard.num_transitions for shard in Manifest.load(tmp_path).shards] == [6, 6, 3]
    assert [shard.num_episodes for shard in Manifest.load(tmp_path).shards] == [2, 2, 1]


def test_an_episode_longer_than_a_shard_is_cut_and_every_stack_is_as_it_was_seen(tmp_path):
    env = GrayStack(Screen(4, 5))
    with Recorder(env, tmp_path, transitions_per_shard=3) as recorder:
        seen = [recorder.reset()[0], *(recorder.step(1)[0] for _ in range(8))]
    assert [shard.num_transitions for shard in Manifest.load(tmp_path).shards] == [3, 3, 2]
    batch = open_replay(tmp_path, progress=False).gather(np.arange(8))
    np.testing.assert_array_equal(batch.observation.numpy(), np.stack(seen[:-1]))
    np.testing.assert_array_equal(batch.next_observation.numpy(), np.stack(seen[1:]))
    assert (batch.discount > 0).all()  # a cut is no end of the task


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 1), (4, 5)])
def test_frames_become_the_stacks_that_make_would_give(tmp_path, shape):
    theirs = GrayStack(Screen(*shape))
    expected = [theirs.reset()[0], *[theirs.step(0)[0] for _ in range(5)]]
    with Recorder(Screen(*shape), tmp_path) as recorder:
        observation, _ = recorder.reset()
        assert observation.shape == shape
        for _ in range(5):
            recorder.step(0)
    assert recorded(tmp_path)["frames"].shape == (6, 4, 5)
    replay = open_replay(tmp_path, progress=False)
    assert replay.spec == TaskSpec.pixels((4, 4, 5), ("action 0", "action 1"))
    batch = replay.gather(np.arange(5))
    np.testing.assert_array_equal(batch.observation.numpy(), np.stack(expected[:-1]))
    np.testing.assert_array_equal(batch.next_observation.numpy(), np.stack(expected[1:]))


def test_a_described_task_says_how_many_frames_are_stacked(tmp_path):
    spec = TaskSpec.pixels((2, 4, 5), ("noop", "fire"))
    with Recorder(DescribedTask(Screen(4, 5, 3), spec), tmp_path) as recorder:
        play(recorder, 0)
    assert Manifest.load(tmp_path).spec == spec


def test_stacks_that_do_not_overlap_are_refused_and_what_came_before_is_kept(tmp_path):
    env = GrayStack(Screen(4, 5))
    with Recorder(env, tmp_path) as recorder:
        play(recorder, 0, 1)
        env._stack = env._stack[::-1]  # as another wrapper might order them
        with pytest.raises(DatasetError, match="environment: two observations in a row do not share their frames"):
            recorder.step(1)
        with pytest.raises(ConfigError, match="Recorder.step: no episode to step in; expected reset"):
            recorder.step(1)
    assert recorded(tmp_path)["actions"].tolist() == [0, 1]


def test_pictures_with_channels_first_are_no_stacks(tmp_path):
    class Coloured(Screen):
        def _frame(self):
            return np.stack([np.full((4, 5), self.steps + channel, np.uint8) for channel in (0, 50, 100)])

    with Recorder(Coloured(3, 4, 5), tmp_path) as recorder, pytest.raises(DatasetError, match="do not share"):
        play(recorder, 0)
    assert not (tmp_path / "manifest.json").exists()


def test_a_second_session_adds_to_the_first(tmp_path):
    for actions in ((0, 0, 0), (1, 1, 1)):
        with Recorder(Line(), tmp_path) as recorder:
            play(recorder, *actions)
    manifest = Manifest.load(tmp_path)
    assert [shard.name for shard in manifest.shards] == ["shard-00000.npz", "shard-00001.npz"]
    assert recorded(tmp_path)["actions"].tolist() == [0, 0, 0, 1, 1, 1]
    with Recorder(Line(), tmp_path):
        pass
    assert Manifest.load(tmp_path) == manifest


def test_a_session_that_adds_is_not_complete_until_it_is_closed(tmp_path):
    with Recorder(Line(), tmp_path) as recorder:
        play(recorder, 0)
    with Recorder(Line(), tmp_path, transitions_per_shard=3) as recorder:
        play(recorder, 0, 0, 0)
        assert not Manifest.load(tmp_path).complete
    assert Manifest.load(tmp_path).complete


def test_a_directory_of_another_task_or_maker_is_refused(tmp_path):
    with Recorder(Line(), tmp_path / "line") as recorder:
        play(recorder, 0)
    screen = Screen(4, 5)
    screen.action_space = Line.action_space
    with pytest.raises(DatasetError, match="spec.observation_dtype is 'float32'; expected 'uint8'"):
        Recorder(screen, tmp_path / "line")
    with pytest.raises(DatasetError, match="environment.id is 'Line'; expected 'Other'"):
        Recorder(Line(), tmp_path / "line", environment={"id": "Other"})
    collect(functools.partial(Line), RandomBehaviour(), tmp_path / "collected", transitions=1, workers=1)
    with pytest.raises(DatasetError, match=r"generator.behaviour is 'RandomBehaviour"):
        Recorder(Line(), tmp_path / "collected")
    Recorder(Line(), tmp_path / "line").close()  # a refused one holds no claim


def test_two_at_a_time_are_refused(tmp_path):
    first = Recorder(Line(), tmp_path)
    with pytest.raises(InUseError, match=r"is in use by process \d+ of .*; wait until it has ended"):
        Recorder(Line(), tmp_path)
    first.close()
    second = Recorder(Line(), tmp_path)
    del second
    gc.collect()
    Recorder(Line(), tmp_path).close()  # what nobody refers to claims nothing


def test_an_interrupt_leaves_whole_shards_and_a_manifest_that_says_so(tmp_path):
    env = Line(100)
    env.broken_at = 5
    with pytest.raises(KeyboardInterrupt), Recorder(env, tmp_path, transitions_per_shard=3) as recorder:
        play(recorder, *[1] * 50)
    manifest = Manifest.load(tmp_path)
    assert (manifest.complete, manifest.num_transitions) == (False, 5)
    assert env.is_closed
    assert recorded(tmp_path)["observations"].ravel().tolist() == [0, 1, 2, 3, 3, 4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "shard-00000.npz", "shard-00001.npz"]
    with Recorder(Line(), tmp_path) as recorder:
        play(recorder, 0)
    assert (Manifest.load(tmp_path).complete, Manifest.load(tmp_path).num_transitions) == (True, 6)


def test_without_close_the_full_shards_are_there(tmp_path):
    recorder = Recorder(Line(), tmp_path, transitions_per_shard=3)
    play(recorder, 0, 0, 0)
    play(recorder, 0)
    del recorder
    assert (Manifest.load(tmp_path).complete, Manifest.load(tmp_path).num_transitions) == (False, 3)


@pytest.mark.parametrize("action", [3, -1, 0.5, "left", None, np.array([0, 1])])
def test_what_is_no_action_is_refused_and_not_played(tmp_path, action):
    with Recorder(Line(), tmp_path) as recorder:
        play(recorder, 0)
        with pytest.raises(ConfigError, match=r"Recorder.step: action .*; expected an integer in 0\.\.2"):
            recorder.step(action)
        recorder.step(np.array(1))
    assert recorded(tmp_path)["actions"].tolist() == [0, 1]


def test_legal_actions_are_kept_and_others_refused_before_they_are_played(tmp_path):
    class Gate(Line):
        """Action 2 is legal at even places only."""

        def _info(self):
            return {"action_mask": np.array([1, 1, self.array[0] % 2 == 0], np.int8)}

        def reset(self, **options):
            return super().reset(**options)[0], self._info()

        def step(self, action):
            return *super().step(action)[:4], self._info()

    with Recorder(Gate(), tmp_path) as recorder:
        play(recorder, 2)
        recorder.behaviour_probability = 0.5
        with pytest.raises(DatasetError, match=r"action 2 of step 1 is illegal there; expected one of \[0, 1\]"):
            recorder.step(2)
        recorder.step(1)
        recorder.step(2)
    found = recorded(tmp_path)
    assert found["actions"].tolist() == [2, 1, 2]
    assert found["action_mask"].tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert np.isnan(found["behaviour_probability"]).all()  # 0.5 was of an action that was not played


def test_a_step_without_an_episode_is_refused(tmp_path):
    recorder = Recorder(Line(), tmp_path)
    with pytest.raises(ConfigError, match=r"no episode to step in; expected reset\(\) first"):
        recorder.step(0)
    play(recorder, 0, 0, 0)
    with pytest.raises(ConfigError, match="a wrapper that resets by itself goes around the Recorder"):
        recorder.step(0)
    recorder.close()
    with pytest.raises(ConfigError, match="Recorder: is closed; make a new one"):
        recorder.reset()


def test_a_wrapper_that_resets_by_itself_goes_around_it(tmp_path):
    env = gymnasium.wrappers.Autoreset(Recorder(Line(), tmp_path))
    env.reset()
    for _ in range(8):
        env.step(1)
    env.close()
    assert recorded(tmp_path)["episode_lengths"].tolist() == [3, 3]


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.Box(0, 1, (2,), np.float64), spaces.Dict({"a": spaces.Discrete(2)})]
)
def test_observations_that_the_layout_cannot_hold_are_refused(tmp_path, space):
    env = Line()
    env.observation_space = space
    with pytest.raises(UnknownEnvironmentError, match="expected float32 vectors"):
        Recorder(env, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_continuous_actions_are_refused(tmp_path):
    env = Screen(4, 5)
    env.action_space = spaces.Box(-1, 1, (1,), np.float32)
    with pytest.raises(UnknownEnvironmentError, match="expected Discrete actions"):
        Recorder(env, tmp_path)


def test_bad_settings_and_places_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Recorder.transitions_per_shard: 0; expected 1 or more"):
        Recorder(Line(), tmp_path, transitions_per_shard=0)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file: cannot be recorded into"):
        Recorder(Line(), tmp_path / "file")
    (tmp_path / "mine.npz").touch()
    with pytest.raises(DatasetError, match="holds .npz files without a manifest"):
        Recorder(Line(), tmp_path)


def test_an_adapted_environment_is_recorded_as_collect_would(tmp_path):
    make_env = functools.partial(envs.make, "CartPole-v1")
    collected = collect(make_env, RandomBehaviour(), tmp_path / "collected", transitions=1, workers=1)
    data = read_members(tmp_path / "collected", collected)
    lengths = data["episode_lengths"]
    first_seed = int(np.random.SeedSequence([0, 0]).spawn(2)[0].generate_state(1)[0]) % 10**9 + 10**9
    with Recorder(make_env(), tmp_path / "recorded") as recorder:
        recorder.reset(seed=first_seed)
        for action in data["actions"][: lengths[0]]:
            recorder.behaviour_probability = 0.5
            recorder.step(action)
    ours = recorded(tmp_path / "recorded")
    assert ours["episode_lengths"].tolist() == [lengths[0]]
    for name, values in ours.items():
        np.testing.assert_array_equal(values, data[name][: len(values)], err_msg=name)

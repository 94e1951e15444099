import functools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from offrl import DQN, Algorithm, LearnerConfig, envs, open_replay
from offrl.algorithms.algorithm import PolicyOutput
from offrl.collect import DATA_SEED_BASE, OnlineConfig, _Seen, collect, collect_online, play_episode
from offrl.envs.drivers import CartPoleMixture, EpsilonGreedy, RandomBehaviour, TrackDriver
from offrl.envs.wrappers import DiscreteActions
from offrl.errors import ConfigError, DatasetError, SpecMismatchError
from offrl.replay.shards import Episode, Manifest, write_shard
from offrl.spec import TaskSpec

CARTPOLE = functools.partial(envs.make, "CartPole-v1")


@dataclass
class Interrupted(RandomBehaviour):
    """Raises at the start of episodes with the given numbers; its representation does not say so."""

    failures: Sequence[int] = field(default=(), repr=False)
    error: BaseException = field(default_factory=KeyboardInterrupt, repr=False)
    begun: list[int] = field(default_factory=list, repr=False)

    def __deepcopy__(self, memo):
        return self

    def begin(self, env, rng):
        self.begun.append(len(self.begun))
        if self.begun[-1] in self.failures:
            raise self.error
        super().begin(env, rng)


class Counter(gymnasium.Env):
    """Stacks of 2 frames whose pixels count the steps; ends after 3."""

    observation_space = spaces.Box(0, 255, (2, 1, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, before=0, stride=1):
        self.before, self.stride = before, stride

    def _stack(self):
        newest = 10 + self.step_number * self.stride
        older = newest - self.stride if self.step_number else newest - self.before
        return np.array([older, newest], dtype=np.uint8).reshape(2, 1, 1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.step_number = seed, 0
        return self._stack(), {}

    def step(self, action):
        self.step_number += 1
        return self._stack(), 0.5 * self.step_number, False, self.step_number == 3, {}


def hashes(manifest):
    return [shard.sha256 for shard in manifest.shards]


def members(directory, manifest):
    parts = []
    for shard in manifest.shards:
        with np.load(directory / shard.name, allow_pickle=False) as archive:
            parts.append(dict(archive))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def test_whole_episodes_and_at_least_as_many_steps_as_asked(tmp_path):
    manifest = collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=200, workers=1, episodes_per_shard=2)
    data = members(tmp_path, manifest)
    assert manifest.complete
    assert manifest.num_transitions == len(data["actions"]) == data["episode_lengths"].sum() >= 200
    assert manifest.num_transitions - manifest.shards[-1].num_transitions < 200
    ends = np.cumsum(data["episode_lengths"]) - 1
    np.testing.assert_array_equal(np.flatnonzero(data["terminated"]), ends)
    assert (data["behaviour_probability"] == 0.5).all()
    assert (data["rewards"] == 1).all()
    assert Manifest.load(tmp_path) == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", *[s.name for s in manifest.shards]]


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    settings = {"transitions": 400, "seed": 5, "episodes_per_shard": 2}
    alone = collect(CARTPOLE, CartPoleMixture(), tmp_path / "1", workers=1, **settings)
    together = collect(CARTPOLE, CartPoleMixture(), tmp_path / "2", workers=2, **settings)
    assert hashes(alone) == hashes(together)
    assert sorted(p.name for p in (tmp_path / "1").iterdir()) == sorted(p.name for p in (tmp_path / "2").iterdir())


def test_another_seed_gives_other_data(tmp_path):
    one, two = (
        collect(CARTPOLE, RandomBehaviour(), tmp_path / str(s), transitions=50, seed=s, workers=1) for s in (1, 2)
    )
    assert set(hashes(one)).isdisjoint(hashes(two))


def test_a_complete_dataset_is_found_and_not_collected_again(tmp_path):
    first = collect(CARTPOLE, Interrupted(), tmp_path, transitions=100, workers=1)
    again = Interrupted(failures=[0])
    assert collect(CARTPOLE, again, tmp_path, transitions=100, workers=1) == first
    assert again.begun == []


def test_an_interrupted_collection_goes_on_to_the_same_bytes(tmp_path):
    settings = {"transitions": 200, "workers": 1, "episodes_per_shard": 2}
    whole = collect(CARTPOLE, Interrupted(), tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, Interrupted(failures=[5]), tmp_path / "parts", **settings)
    half = Manifest.load(tmp_path / "parts")
    assert not half.complete
    assert hashes(half) == hashes(whole)[:2]
    rest = Interrupted()
    assert hashes(collect(CARTPOLE, rest, tmp_path / "parts", **settings)) == hashes(whole)
    assert len(rest.begun) == 2 * (len(whole.shards) - 2)


def test_a_damaged_shard_of_an_interrupted_collection_is_made_again(tmp_path):
    settings = {"transitions": 200, "workers": 1, "episodes_per_shard": 2}
    whole = collect(CARTPOLE, Interrupted(), tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, Interrupted(failures=[5]), tmp_path / "parts", **settings)
    shard = tmp_path / "parts" / whole.shards[1].name
    shard.write_bytes(shard.read_bytes()[:-1])
    assert hashes(collect(CARTPOLE, Interrupted(), tmp_path / "parts", **settings)) == hashes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "generator.seed is 0; expected 1"),
        ({"transitions": 60}, "generator.transitions is 50; expected 60"),
        ({"behaviour": EpsilonGreedy(RandomBehaviour(), 0.5)}, "generator.behaviour is 'RandomBehaviour"),
        ({"environment": {"id": "Other-v0"}}, "environment.id is 'CartPole-v1'; expected 'Other-v0'"),
        ({"make_env": functools.partial(envs.make, "Acrobot-v1")}, "holds a dataset whose spec"),
    ],
)
def test_a_dataset_with_other_settings_is_left_alone(tmp_path, change, message):
    settings = {"make_env": CARTPOLE, "behaviour": RandomBehaviour(), "directory": tmp_path, "transitions": 50}
    collect(**settings, workers=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DatasetError, match=message):
        collect(**(settings | change), workers=1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_without_a_manifest_are_left_alone(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"precious")
    with pytest.raises(DatasetError, match="without a manifest"):
        collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=10, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_behaviour_gives_one_error_that_names_the_episode(tmp_path, workers):
    with pytest.raises(DatasetError, match=r"^collecting episode 0: AttributeError: .*'car'"):
        collect(CARTPOLE, TrackDriver(), tmp_path, transitions=10, workers=workers)


def test_what_cannot_travel_is_refused_before_workers_start(tmp_path):
    with pytest.raises(ConfigError, match="cannot be sent to worker processes"):
        collect(lambda: CARTPOLE(), RandomBehaviour(), tmp_path, transitions=10, workers=2)


def test_settings_below_one_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="transitions=0"):
        collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=0)


def test_workers_start_without_torch():
    code = "import sys, offrl.collect, offrl.envs.drivers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def play(env):
    return play_episode(env, RandomBehaviour(), envs.task_spec(env), seed=0, number=3)


def test_frames_are_kept_once():
    episode = play(Counter())
    assert episode.observations.ravel().tolist() == [10, 11, 12, 13]
    assert episode.rewards.tolist() == [0.5, 1.0, 1.5]
    assert (episode.terminated, episode.truncated, episode.leading) == (False, True, 0)


def test_a_first_stack_of_different_frames_is_kept_whole():
    episode = play(Counter(before=4))
    # the second stack's older frame is the first one's newest, so only the first row is new
    assert episode.observations.ravel().tolist() == [6, 10, 11, 12, 13]
    assert episode.leading == 1


def test_observations_that_are_no_stacks_are_refused():
    env = Counter()
    env._stack = lambda: np.array([env.step_number, 9], dtype=np.uint8).reshape(2, 1, 1)
    with pytest.raises(DatasetError, match="do not share their frames"):
        play(env)


def test_data_seeds_are_out_of_reach_of_evaluation_and_differ_between_episodes():
    env, seeds = Counter(), set()
    for number in range(20):
        play_episode(env, RandomBehaviour(), TaskSpec.pixels((2, 1, 1), ("a", "b")), seed=0, number=number)
        seeds.add(env.seed)
    assert len(seeds) == 20
    assert min(seeds) >= DATA_SEED_BASE


class Pedals(gymnasium.Env):
    """Two steps, whatever the action vector."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 2
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), float(action[0]), self.left == 0, False, {}


def test_the_manifest_says_what_each_action_does(tmp_path):
    table = np.array([[0, 1], [1, 0]], np.float32)
    make_env = functools.partial(DiscreteActions, Pedals(), table, ("brake", "gas"))
    manifest = collect(make_env, RandomBehaviour(), tmp_path, transitions=4, workers=1)
    assert manifest.environment["action_table"] == [[0, 1], [1, 0]]
    assert Manifest.load(tmp_path).environment["action_table"] == [[0, 1], [1, 0]]


class Corridor(gymnasium.Env):
    """Walk from 0 to +3 within 20 steps; keeps what was played, and is interrupted at the reset of that number."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, interrupted_at=None):
        self.interrupted_at, self.num_resets = interrupted_at, 0
        self.observations, self.actions, self.rewards = [], [], []

    def _observe(self):
        self.observations.append(self.position)
        return np.array([self.position], np.float32)

    def reset(self, *, seed=None, options=None):
        if self.num_resets == self.interrupted_at:
            raise KeyboardInterrupt
        super().reset(seed=seed)
        self.num_resets += 1
        self.position, self.steps = 0, 0
        return self._observe(), {}

    def step(self, action):
        self.position += 1 if action == 1 else -1
        self.steps += 1
        arrived = self.position == 3
        self.actions.append(action)
        self.rewards.append(float(arrived))
        return self._observe(), float(arrived), arrived, self.steps == 20, {}


class AlwaysOne(Algorithm):
    """Prefers action 1, whatever it learns; counts the updates and keeps the largest observation of a batch."""

    name = "always-one"

    def __init__(self, spec):
        super().__init__(spec, None)
        self.weight = nn.Parameter(torch.ones(1))
        self.num_updates = 0

    def loss(self, batch):
        self.num_updates += 1
        return (self.weight**2).sum(), {}

    def forward(self, observation):
        scores = torch.tensor([0.0, 1.0]).expand(len(observation), 2)
        return PolicyOutput(scores=scores, logits=torch.zeros_like(scores))


FP32 = LearnerConfig(precision="fp32")


def online(env, directory, algorithm=None, **settings):
    algorithm = AlwaysOne(envs.task_spec(env)) if algorithm is None else algorithm
    settings = {"transitions": 60, "learner": FP32, "progress": False} | settings
    return collect_online(lambda: env, algorithm, directory, **settings)


def test_an_online_learner_gets_better_and_its_dataset_is_all_that_it_played(tmp_path):
    env = Corridor()
    manifest = online(
        env,
        tmp_path,
        DQN(envs.task_spec(env)),
        transitions=1000,
        config=OnlineConfig(first_update=100, steps_per_update=2, batch_size=32, discount=0.9, last_epsilon=0.1),
        learner=LearnerConfig(learning_rate=3e-3, polyak=0.05, precision="fp32"),
    )
    data = members(tmp_path, manifest)
    assert manifest.complete
    assert manifest.num_transitions == len(env.actions) >= 1000
    assert data["actions"].tolist() == env.actions
    assert data["rewards"].tolist() == env.rewards
    assert data["observations"].ravel().tolist() == env.observations
    lengths = data["episode_lengths"]
    assert len(lengths) == env.num_resets
    assert lengths[-20:].mean() < 6 < 9 < lengths[:10].mean()  # the shortest way has 3 steps


def test_an_online_learners_probabilities_are_exact(tmp_path):
    config = OnlineConfig(first_epsilon=0.8, last_epsilon=0.2, exploration=0.5)
    data = members(tmp_path, online(Corridor(), tmp_path, config=config, transitions=200))
    begins = np.cumsum(data["episode_lengths"]) - data["episode_lengths"]
    # From 0.8 down to 0.2 over the first 100 transitions, in each episode what it began with.
    epsilon = np.repeat(np.maximum(0.8 - 0.6 * begins / 100, 0.2), data["episode_lengths"])
    expected = np.where(data["actions"] == 1, 1 - epsilon / 2, epsilon / 2)
    np.testing.assert_allclose(data["behaviour_probability"], expected, rtol=1e-6)
    assert set(data["actions"]) == {0, 1}


def test_online_updates_follow_the_transitions(tmp_path):
    env = Corridor()
    algorithm = AlwaysOne(envs.task_spec(env))
    config = OnlineConfig(first_epsilon=0, last_epsilon=0, first_update=6, steps_per_update=3, batch_size=4)
    online(env, tmp_path, algorithm, config=config, transitions=18)  # six episodes of three steps
    assert [config.num_updates(played) for played in (3, 6, 9, 15, 18)] == [0, 0, 1, 3, 4]
    assert algorithm.num_updates == 3  # nothing is played after the last episode


def test_what_is_in_memory_gives_the_batches_of_the_shards(tmp_path):
    spec, rng = TaskSpec.pixels((2, 1, 1), ("a", "b")), np.random.default_rng(0)
    seen, episodes = _Seen(tmp_path, spec), []
    for steps, leading, terminated in ((3, 0, True), (5, 1, False), (1, 0, True), (40, 0, False)):
        episodes.append(
            Episode(
                rng.integers(256, size=(leading + steps + 1, 1, 1), dtype=np.uint8),
                rng.integers(2, size=steps),
                rng.normal(size=steps).astype(np.float32),
                terminated=terminated,
                truncated=not terminated,
                leading=leading,
            )
        )
        seen.append(episodes[-1])
    Manifest(spec, (write_shard(tmp_path / "shard-00000.npz", episodes),), {}, {}).save(tmp_path)
    stored = open_replay(tmp_path, n_step=2, discount=0.9, reward_scale=3, seed=5, progress=False)
    remembered = OnlineConfig(n_step=2, discount=0.9, reward_scale=3).replay(seen.store(), seed=5)
    assert len(remembered) == len(stored) == 49
    np.testing.assert_array_equal(remembered.indices(7, 20), stored.indices(7, 20))
    ours, theirs = (vars(replay.gather(np.arange(49))) for replay in (remembered, stored))
    for name, tensor in theirs.items():
        assert tensor is ours[name] or torch.equal(tensor, ours[name]), name


def test_an_interrupted_online_collection_leaves_whole_shards_and_cannot_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        online(Corridor(interrupted_at=5), tmp_path, transitions=500, episodes_per_shard=2)
    manifest = Manifest.load(tmp_path)
    assert not manifest.complete
    assert [shard.num_episodes for shard in manifest.shards] == [2, 2]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DatasetError, match="interrupted, which cannot go on; remove it, or collect into another"):
        online(Corridor(), tmp_path, transitions=500, episodes_per_shard=2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_online_collection_that_wrote_nothing_can_begin_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        online(Corridor(interrupted_at=1), tmp_path)
    assert online(Corridor(), tmp_path).complete


def test_a_complete_online_collection_is_not_played_again(tmp_path):
    first, env = online(Corridor(), tmp_path), Corridor()
    assert online(env, tmp_path) == first
    assert env.num_resets == 0
    with pytest.raises(DatasetError, match=r"generator.online is .*'last_epsilon': 0.05"):
        online(env, tmp_path, config=OnlineConfig(last_epsilon=0.5))


def test_an_online_learner_for_another_task_is_refused(tmp_path):
    with pytest.raises(SpecMismatchError, match="observation_shape"):
        online(Corridor(), tmp_path, AlwaysOne(TaskSpec.vector(2, ("a", "b"))))
    assert list(tmp_path.iterdir()) == []


def test_online_settings_below_one_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="collect_online: transitions=0"):
        online(Corridor(), tmp_path, transitions=0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"first_epsilon": 1.5}, "a number in"),
        ({"last_epsilon": -0.1}, "a number in"),
        ({"exploration": 0.0}, "0 < exploration <= 1"),
        ({"first_update": 0}, "1 or more"),
        ({"steps_per_update": 0}, "1 or more"),
        ({"batch_size": 0}, "1 or more"),
    ],
)
def test_an_online_setting_out_of_range_is_refused(setting, expected):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"OnlineConfig.{name}: .*; expected {expected}"):
        OnlineConfig(**setting)

import gymnasium
import numpy as np
import pytest
import torch
from frames_data import read_members
from gymnasium import spaces
from torch import nn

from offrl import DQN, Algorithm, LearnerConfig, TaskSpec, envs, open_replay
from offrl.algorithms import PolicyOutput
from offrl.cli.request import recorded_request
from offrl.collection import OnlineConfig, collect_online
from offrl.collection._seen import Seen
from offrl.errors import ConfigError, DatasetError, SpecMismatchError
from offrl.hub import load
from offrl.shards import Episode, Manifest, write_shard


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
        self.num_updates += self.training  # and not a look at the weights
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
    data = read_members(tmp_path, manifest)
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
    data = read_members(tmp_path, online(Corridor(), tmp_path, config=config, transitions=200))
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


@pytest.mark.parametrize("masked", [(), (0,), (1, 3), (0, 1, 2, 3)])
def test_what_is_in_memory_gives_the_batches_of_the_shards(tmp_path, masked):
    spec, rng = TaskSpec.pixels((2, 1, 1), ("a", "b")), np.random.default_rng(0)
    seen, episodes = Seen(tmp_path, spec), []
    for number, (steps, leading, terminated) in enumerate(((3, 0, True), (5, 1, False), (1, 0, True), (40, 0, False))):
        actions = rng.integers(2, size=steps)
        mask = np.eye(2, dtype=bool)[actions]  # what the others have not stated is legal
        episodes.append(
            Episode(
                rng.integers(256, size=(leading + steps + 1, 1, 1), dtype=np.uint8),
                actions,
                rng.normal(size=steps).astype(np.float32),
                terminated=terminated,
                truncated=not terminated,
                leading=leading,
                action_mask=mask if number in masked else None,
            )
        )
        seen.append(episodes[-1])
    Manifest(spec, (write_shard(tmp_path / "shard-00000.npz", episodes),), {}, {}).save(tmp_path)
    stored = open_replay(tmp_path, n_step=2, discount=0.9, reward_scale=3, seed=5, progress=False)
    remembered = OnlineConfig(n_step=2, discount=0.9, reward_scale=3).replay(seen.store(), seed=5)
    assert len(remembered) == len(stored) == 49
    np.testing.assert_array_equal(remembered.indices(7, 20), stored.indices(7, 20))
    assert (remembered.store.action_mask is not None) == bool(masked)
    ours, theirs = (vars(replay.gather(np.arange(49))) for replay in (remembered, stored))
    for name, tensor in theirs.items():
        assert tensor is ours[name] or torch.equal(tensor, ours[name]), name


LEARNS = {
    "transitions": 500,
    "episodes_per_shard": 2,
    "config": OnlineConfig(first_update=50, steps_per_update=2, batch_size=16),
}


def learning(directory, interrupted_at=None, **settings):
    env = Corridor(interrupted_at)
    online(env, directory, DQN(envs.task_spec(env), seed=1), **LEARNS | settings)
    return env


def files(directory):
    """What a collection leaves: all bytes but those of the machine's description."""
    found = {path.relative_to(directory): path for path in directory.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.name != "environment.json"}


@pytest.mark.parametrize("interrupted_at", [5, 20, 31])
def test_an_interrupted_online_collection_goes_on_to_the_same_bytes(tmp_path, interrupted_at):
    whole = learning(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learning(tmp_path / "parts", interrupted_at)
    manifest = Manifest.load(tmp_path / "parts")
    assert not manifest.complete
    assert {shard.num_episodes for shard in manifest.shards} == {2}
    rest = learning(tmp_path / "parts")
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert rest.num_resets < whole.num_resets


def test_an_online_collection_whose_shard_is_damaged_begins_again(tmp_path):
    learning(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learning(tmp_path / "parts", interrupted_at=31)
    (tmp_path / "parts" / "shard-00001.npz").write_bytes(b"cut short")
    learning(tmp_path / "parts")
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_an_online_collection_passes_over_a_damaged_checkpoint(tmp_path):
    learning(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learning(tmp_path / "parts", interrupted_at=31)
    newest = max((tmp_path / "parts" / "learner" / "checkpoints").glob("step-*"))
    (newest / "learner.safetensors").write_bytes(b"cut short")
    with pytest.warns(UserWarning, match="damaged .*: the collection goes on from an earlier checkpoint"):
        learning(tmp_path / "parts")
    parts = {name: data for name, data in files(tmp_path / "parts").items() if ".damaged" not in name}
    assert parts == files(tmp_path / "whole")


def test_the_policy_of_an_online_collection_is_that_of_a_run(tmp_path):
    learning(tmp_path)
    policy = load(tmp_path / "learner", device="cpu")
    assert policy(np.array([[0.0], [2.0]], np.float32)).shape == (2,)
    assert recorded_request(tmp_path / "learner").environment == "Corridor"


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

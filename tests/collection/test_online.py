from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from frames_data import read_members
from gymnasium import spaces
from torch import nn

import offrl
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


class Narrow(nn.Module):
    def __init__(self, observation_shape, width=2):
        super().__init__()
        self.feature_dim, self.layer = width, nn.Linear(*observation_shape, width)

    def forward(self, observation):
        return self.layer(observation)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 7}, "generator.weights_seed is 0; expected 7"),
        ({"encoder": Narrow}, "generator.encoder is .*; expected 'test_online:Narrow'"),
    ],
)
def test_weights_that_began_otherwise_make_other_data(tmp_path, changed, message):
    env = Corridor()
    spec = envs.task_spec(env)
    first = online(env, tmp_path, DQN(spec))
    assert online(env, tmp_path, DQN(spec)) == first
    with pytest.raises(DatasetError, match=message):
        online(env, tmp_path, DQN(spec, **changed))
    # Earlier versions noted none of it.
    noted = {name: value for name, value in first.generator.items() if name != "weights_seed" and "encoder" not in name}
    replace(first, generator=noted).save(tmp_path)
    assert online(env, tmp_path, DQN(spec, **changed)).shards == first.shards


def test_encoders_of_other_settings_make_other_data(tmp_path):
    env = Corridor()
    online(env, tmp_path, DQN(envs.task_spec(env), encoder=partial(Narrow, width=3)))
    with pytest.raises(DatasetError, match=r"generator.encoder_settings is \{'width': 3\}; expected \{'width': 4\}"):
        online(env, tmp_path, DQN(envs.task_spec(env), encoder=partial(Narrow, width=4)))


class Masked(Corridor):
    """To the right only, and strict."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.array([0, 1], np.int8)}

    def step(self, action):
        assert action == 1
        observation, *rest, _ = super().step(action)
        return observation, *rest, {"action_mask": np.array([0, 1], np.int8)}


def test_the_policy_that_is_kept_asks_for_the_legal_actions_that_were_stated(tmp_path):
    algorithm = DQN(envs.task_spec(Masked()))
    with pytest.raises(KeyboardInterrupt):
        online(Masked(interrupted_at=6), tmp_path, algorithm)
    assert algorithm.spec.action_masks
    algorithm = DQN(envs.task_spec(Masked()))
    online(Masked(), tmp_path, algorithm)
    assert algorithm.spec.action_masks
    with torch.no_grad():
        algorithm.q_head.output.bias[:] = torch.tensor([9.0, 0.0])  # what is best is illegal
    for policy in (offrl.TorchPolicy(algorithm), load(tmp_path / "learner", device="cpu")):
        assert policy.spec.action_masks
        assert offrl.evaluate(policy, Masked, [1], workers=0, progress=False).scores == (1.0,)


class Sparing(Masked):
    """States what is legal at every second step; where it does not, all is."""

    def step(self, action):
        observation, reward, terminated, truncated, info = Corridor.step(self, action)
        stated = {"action_mask": np.array([0, 1], np.int8)} if self.steps % 2 == 0 else info
        return observation, reward, terminated, truncated, stated


def test_a_step_that_states_no_mask_allows_every_action(tmp_path):
    algorithm = DQN(envs.task_spec(Sparing()))
    online(Sparing(), tmp_path, algorithm)
    assert algorithm.spec.action_masks


def test_the_kept_learner_names_no_environment_whose_id_says_too_little(tmp_path):
    env = envs.ActionRepeat(Corridor(), 2)
    online(env, tmp_path, DQN(envs.task_spec(env)))
    assert recorded_request(tmp_path / "learner").environment is None


def test_a_directory_may_be_a_text(tmp_path):
    assert online(Corridor(), str(tmp_path)).complete


def test_an_online_learner_for_another_task_is_refused(tmp_path):
    with pytest.raises(SpecMismatchError, match="observation_shape"):
        online(Corridor(), tmp_path, AlwaysOne(TaskSpec.vector(2, ("a", "b"))))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "setting", [{"transitions": 0}, {"transitions": "60"}, {"episodes_per_shard": 2.0}, {"seed": -1}]
)
def test_online_settings_out_of_range_are_refused(tmp_path, setting):
    ((name, value),) = setting.items()
    with pytest.raises(
        ConfigError, match=rf"collect_online: .*{name}={value!r}.*; expected transitions and episodes_per"
    ):
        online(Corridor(), tmp_path, **setting)


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

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from frames_data import read_members
from gymnasium import spaces
from run_offrl import offrl, offrl_json

from offrl import DQN, envs, open_replay
from offrl.collection import KINDS, OnlineConfig, collect_protocol, online_defaults
from offrl.collection._best_policy import best_policy
from offrl.datasets import References, count_pairs
from offrl.errors import ConfigError, DatasetError, UnknownEnvironmentError
from offrl.hub import load
from offrl.shards import Manifest
from offrl.system.workers import require_sendable


class Corridor(gymnasium.Env):
    """Walk from 0 to +3 within 12 steps, 1 for the arrival; right is action 1."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def _observe(self):
        return np.array([self.position], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = 0, 0
        return self._observe(), {}

    def step(self, action):
        self.position += 1 if action == 1 else -1
        self.steps += 1
        arrived = self.position == 3
        return self._observe(), float(arrived), arrived, self.steps == 12, {}


ONLINE = OnlineConfig(first_update=60, steps_per_update=2, batch_size=16, discount=0.9, last_epsilon=0.1)
TOTAL = 400


def collected(kind, directory, make_env=Corridor, **settings):
    settings = {"transitions": TOTAL, "seed": 3, "workers": 1, "online": ONLINE, "progress": False} | settings
    return collect_protocol(make_env, kind, directory, **settings)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    directory = tmp_path_factory.mktemp("five")
    return directory, {kind: collected(kind, directory) for kind in KINDS}


def members(five, kind):
    directory, manifests = five
    return read_members(directory / kind, manifests[kind])


def digest(directory):
    """Every file of the datasets but the stores and what describes the machine."""
    names = ("manifest.json", "shard-*.npz", "policy.safetensors", "learner.safetensors")
    found = sorted(path for name in names for path in directory.rglob(name))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_the_five_kinds_are_there(five):
    directory, manifests = five
    assert [*manifests] == ["random", "expert", "mixed", "noisy", "replay"]
    for kind, manifest in manifests.items():
        assert manifest.complete
        assert manifest.num_transitions >= TOTAL
        assert Manifest.load(directory / kind) == manifest
        assert manifest.protocol["kind"] == kind


def test_random_acts_at_random_with_the_probability_of_each_action(five):
    data = members(five, "random")
    assert set(data["behaviour_probability"]) == {0.5}
    assert 0.4 < data["actions"].mean() < 0.6


def test_the_expert_is_greedy_and_has_learned(five):
    data = members(five, "expert")
    assert set(data["behaviour_probability"]) == {1.0}
    assert set(data["episode_lengths"]) == {3}  # the shortest way
    assert set(data["actions"]) == {1}


def test_noisy_is_the_expert_with_every_fifth_action_random(five):
    data = members(five, "noisy")
    policy = load(five[0] / "replay" / "learner" / "checkpoints" / "best", device="cpu")
    lengths = data["episode_lengths"]
    ends = np.cumsum(lengths + 1) - 1  # what an episode's last step led to
    greedy = policy(np.delete(data["observations"], ends, axis=0))
    expected = np.where(data["actions"] == greedy, 0.9, 0.1)
    np.testing.assert_allclose(data["behaviour_probability"], expected, rtol=1e-6)
    assert 0.85 < np.mean(data["actions"] == greedy) < 0.95


def test_mixed_has_whole_episodes_of_random_and_of_the_expert(five):
    def episodes(kind):
        store = open_replay(five[0] / kind, progress=False).store
        first = np.flatnonzero(np.diff(store.segment_end, prepend=-1))
        return [
            (
                tuple(store.actions[a : store.segment_end[a] + 1]),
                tuple(store.observations(np.arange(a, store.segment_end[a] + 1)).ravel()),
            )
            for a in first
        ]

    def first(kind, count):
        taken = []
        for episode in episodes(kind):
            if sum(len(actions) for actions, _ in taken) < count:
                taken.append(episode)
        return taken

    expected = first("random", 320) + first("expert", 80)
    found = episodes("mixed")
    assert sorted(found) == sorted(expected)
    assert found != expected  # shuffled
    num_random = sum(len(actions) for actions, _ in first("random", 320))
    assert 320 <= num_random < 332  # an episode has 12 steps at most
    assert np.isnan(members(five, "mixed")["behaviour_probability"]).all()


def test_replay_is_all_that_the_agent_saw(five):
    manifest = five[1]["replay"]
    assert manifest.generator["name"] == "offrl.collect_online"
    assert manifest.generator["algorithm_config"]["double"]
    lengths = members(five, "replay")["episode_lengths"]
    assert lengths[-10:].mean() < lengths[:10].mean()


def test_the_manifests_say_what_measures_refer_to(five):
    directory, manifests = five
    replay = manifests["replay"].protocol
    for manifest in manifests.values():
        assert References.of_manifest(manifest) == References.of_manifest(manifests["replay"])
    assert replay["best_return"] == 1.0
    assert 0.2 < replay["random_return"] < 0.6  # of a random walk that has 12 steps
    store = open_replay(directory / "replay", progress=False).store
    seen = References.of_store(store)
    assert replay["num_pairs"] == seen.num_pairs == count_pairs(store)
    positions = store.observations(np.arange(len(store)))
    assert (replay["feature_low"], replay["feature_high"]) == ([positions.min()], [positions.max()])
    assert manifests["noisy"].protocol["online"] == dict(Manifest.load(directory / "replay").generator)
    best = directory / "replay" / "learner" / "checkpoints" / "best"
    assert best.resolve().name == f"step-{replay['best_step']:09d}"
    assert replay["policy_sha256"][:16] in manifests["expert"].generator["behaviour"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(five, tmp_path):
    for kind in KINDS:
        collected(kind, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(five[0])
    other = collected("random", tmp_path / "other", seed=4)
    assert other.shards != five[1]["random"].shards


def test_complete_datasets_are_not_made_again(five):
    before = {path: path.stat().st_mtime_ns for path in five[0].rglob("*") if path.is_file()}
    for kind, manifest in five[1].items():
        assert collected(kind, five[0]) == manifest
    assert {path: path.stat().st_mtime_ns for path in five[0].rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("make_env", "transitions", "message"),
    [
        ("CartPole-v1", 10, "collect_protocol: make_env is 'CartPole-v1'; expected a function"),
        (Corridor, "10", "collect_protocol: transitions='10', .* all whole numbers"),
    ],
)
def test_what_cannot_be_collected_is_refused(tmp_path, make_env, transitions, message):
    with pytest.raises(ConfigError, match=message):
        collect_protocol(make_env, "random", tmp_path, transitions=transitions)


def test_other_settings_are_refused(five):
    with pytest.raises(DatasetError, match="replay: holds a dataset whose generator.seed is 3; expected 4"):
        collected("random", five[0], seed=4)


class Stops(Corridor):
    """Is interrupted at one reset."""

    left = 0

    def reset(self, **settings):
        type(self).left -= 1
        if type(self).left == 0:
            raise KeyboardInterrupt
        return super().reset(**settings)


@pytest.mark.parametrize("resets", [30, 90, 400])
def test_wherever_it_is_interrupted_it_goes_on_to_the_same_bytes(five, tmp_path, resets):
    def all_kinds():
        for kind in KINDS:
            collected(kind, tmp_path, make_env=Stops, environment={"id": "Corridor"})

    Stops.left = resets
    with pytest.raises(KeyboardInterrupt):
        all_kinds()
    all_kinds()
    assert digest(tmp_path) == digest(five[0])


KILLED = """
import os, sys
from offrl.collection import collect_protocol
import offrl.shards._recording as recording
import test_protocol as here
left = int(sys.argv[2])
add = recording.Recording.add
def dying(self, record):
    global left
    add(self, record)
    left -= 1
    if left == 0:
        os._exit(9)
recording.Recording.add = dying
for kind in here.KINDS:
    here.collected(kind, sys.argv[1])
"""


def test_a_kill_loses_no_byte(five, tmp_path):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data"), "9"]
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    for kind in KINDS:
        collected(kind, tmp_path / "data")
    assert digest(tmp_path / "data") == digest(five[0])


def test_a_missing_or_foreign_policy_is_an_error(tmp_path):
    collected("replay", tmp_path, transitions=40)
    (policy,) = (tmp_path / "replay" / "learner" / "checkpoints").glob("best/policy.safetensors")
    content = policy.read_bytes()
    policy.write_bytes(content[:-1] + b"x")
    with pytest.raises(DatasetError, match="is another policy than the one that the manifests name"):
        collected("expert", tmp_path, transitions=40)
    policy.unlink()
    with pytest.raises(DatasetError, match="the policy of the online run is missing"):
        collected("noisy", tmp_path, transitions=40)


def test_a_manifest_that_names_no_policy_is_an_error(tmp_path):
    manifest = collected("replay", tmp_path, transitions=40)
    replace(manifest, protocol={**manifest.protocol, "best_step": "../.."}).save(tmp_path / "replay")
    with pytest.raises(DatasetError, match=r"manifest.json: names no policy \(best_step is '../..'"):
        collected("expert", tmp_path, transitions=40)


def test_the_expert_travels_to_worker_processes(five):
    directory, manifests = five
    algorithm = DQN(manifests["replay"].spec)
    expert = best_policy(algorithm, directory / "replay", manifests["replay"].protocol)
    require_sendable((Corridor, expert), "test", "the expert")
    sent = pickle.loads(pickle.dumps(expert))
    assert repr(sent) == repr(expert) == manifests["expert"].generator["behaviour"]
    assert sent(np.array([1.0], np.float32)) == expert(np.array([1.0], np.float32)) == (1, 1.0)


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no kind 'medium'; expected one of random, expert, mixed, noisy, replay"):
        collected("medium", tmp_path)


def test_continuous_actions_are_refused(tmp_path):
    make_env = partial(envs.make, "Pendulum-v1")
    with pytest.raises(UnknownEnvironmentError, match="Pendulum-v1: actions Box.*; expected Discrete actions"):
        collect_protocol(make_env, "random", tmp_path / "data", transitions=10, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_agent_begins_to_learn_early_in_small_datasets():
    assert online_defaults(100).first_update == 5
    assert online_defaults(100_000).first_update == 1000


def test_the_command_makes_one_kind_or_all_and_inspect_measures_them(tmp_path):
    common = ("CartPole-v1", tmp_path / "data", "--transitions", 60, "--workers", 1, "--quiet")
    one = offrl_json("collect", *common, "--kind", "random")
    assert one["directory"] == str(tmp_path / "data" / "random")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["random", "replay"]
    text = offrl("collect", *common, "--kind", "all").stdout.splitlines()
    assert [line.split()[0] for line in text] == ["kind", *KINDS]
    found = offrl_json("inspect", tmp_path / "data" / "replay", "--quiet")["measures"]
    assert found["saco"] == 1.0
    assert found["references"]["num_pairs"] == found["num_pairs"]
    lines = offrl("inspect", tmp_path / "data" / "mixed", "--quiet").stdout.splitlines()
    assert any(line.startswith("SACo         ") for line in lines)
    assert any(line.startswith("TQ           ") for line in lines)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("CartPole-v1", "data", "--behaviour", "random"),
            "collect: --behaviour beside --kind; expected one of the two",
        ),
        (("carracing/mixed",), "collect: --kind beside carracing/mixed; expected a dataset as it is"),
        (("CartPole-v1",), "collect: no DIRECTORY; expected one to write CartPole-v1 into"),
        (("Pendulum-v1", "data"), "Pendulum-v1: actions Box"),
    ],
)
def test_what_does_not_go_with_a_kind_is_refused(more, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = offrl("collect", *more, "--kind", "mixed", "--transitions", 9, code=2).stderr
    assert message in refused
    assert list(tmp_path.iterdir()) == []

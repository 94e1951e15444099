import functools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from frames_data import read_members

from offrl import envs
from offrl.collection import collect, recorder
from offrl.collection import collector as module
from offrl.envs import CartPoleMixture, EpsilonGreedy, RandomBehaviour, TrackDriver
from offrl.errors import ConfigError, DatasetError
from offrl.shards import Manifest

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


def hashes(manifest):
    return [shard.sha256 for shard in manifest.shards]


def test_whole_episodes_and_at_least_as_many_steps_as_asked(tmp_path):
    manifest = collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=200, workers=1, episodes_per_shard=2)
    data = read_members(tmp_path, manifest)
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
    code = "import sys, offrl.collection.collector, offrl.envs.drivers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_recorder_is_found_here_too():
    assert module.Recorder is recorder.Recorder

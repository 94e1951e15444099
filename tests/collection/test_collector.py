import copy
import errno
import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from frames_data import read_members

import offrl
from offrl import envs
from offrl.collection import collect, recorder
from offrl.collection import collector as module
from offrl.envs import CartPoleMixture, EpsilonGreedy, RandomBehaviour, TrackDriver
from offrl.errors import ConfigError, DatasetError, InUseError
from offrl.shards import Manifest
from offrl.shards import _recording as recording_module
from offrl.shards._recording import Recording
from offrl.system.locks import locked
from offrl.system.workers import WorkerPool

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


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def first_episodes(manifest, directory, count):
    """The lengths of the first `count` episodes, and all steps' observations."""
    data = read_members(directory, manifest)
    lengths = data["episode_lengths"][:count].tolist()
    return lengths, data["observations"][: sum(lengths) + count].tolist()


def test_an_interrupted_collection_keeps_what_it_finished_and_goes_on_to_the_same_bytes(tmp_path):
    settings = {"transitions": 200, "workers": 1, "episodes_per_shard": 2}
    whole = collect(CARTPOLE, Interrupted(), tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, Interrupted(failures=[5]), tmp_path / "parts", **settings)
    half = Manifest.load(tmp_path / "parts")
    assert not half.complete
    assert hashes(half)[:2] == hashes(whole)[:2]
    assert [shard.num_episodes for shard in half.shards] == [2, 2, 1]
    assert first_episodes(half, tmp_path / "parts", 5) == first_episodes(whole, tmp_path / "whole", 5)
    with pytest.warns(UserWarning, match="the collection was interrupted"):
        assert offrl.open_replay(tmp_path / "parts").store.report.num_segments == 5
    rest = Interrupted()
    assert hashes(collect(CARTPOLE, rest, tmp_path / "parts", **settings)) == hashes(whole)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert len(rest.begun) == 2 * (len(whole.shards) - 2)


def test_a_collection_interrupted_in_its_first_episode_keeps_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, Interrupted(failures=[0]), tmp_path, transitions=50, workers=1)
    assert Manifest.load(tmp_path).shards == ()
    assert set(files(tmp_path)) == {"manifest.json"}


@pytest.fixture
def one_ahead(monkeypatch):
    """What is under way in this process when it is stopped counts as the shard after it, as if workers made it."""
    stop = module._InProcess.stop
    monkeypatch.setattr(module._InProcess, "stop", lambda self: {index + 1: made for index, made in stop(self).items()})


def test_a_shard_behind_a_missing_one_is_not_kept(tmp_path, one_ahead):
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, Interrupted(failures=[3]), tmp_path, transitions=100, workers=1, episodes_per_shard=2)
    assert [shard.name for shard in Manifest.load(tmp_path).shards] == ["shard-00000.npz"]


def test_an_interruption_after_the_last_shard_keeps_none_made_ahead(tmp_path, one_ahead, monkeypatch):
    add = Recording.add

    def add_and_interrupt(self, record):
        add(self, record)
        raise KeyboardInterrupt

    monkeypatch.setattr(Recording, "add", add_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=1, workers=1, episodes_per_shard=1)
    monkeypatch.undo()
    assert len(Manifest.load(tmp_path).shards) == 1
    assert (
        len(collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=1, workers=1, episodes_per_shard=1).shards) == 1
    )


def test_an_episode_that_goes_on_for_too_long_after_a_stop_is_given_up(tmp_path, monkeypatch):
    whole = collect(CARTPOLE, RandomBehaviour(), tmp_path / "whole", transitions=1, workers=1)
    behaviour = Interrupted()

    def stop_requested(seconds_ago=0.0):
        """Told so long ago that only the limit of an episode has passed, in the third episode."""
        return seconds_ago == 4 and len(behaviour.begun) == 3

    monkeypatch.setattr(module, "stop_requested", stop_requested)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_CHECKS", 0)
    short = collect(CARTPOLE, behaviour, tmp_path / "short", transitions=1, workers=1)
    assert [shard.num_episodes for shard in (*whole.shards, *short.shards)] == [4, 2]
    assert first_episodes(short, tmp_path / "short", 2) == first_episodes(whole, tmp_path / "whole", 2)


def first_draw(number, seed=0):
    """What tells episode `number` of the dataset `seed` from the others."""
    return np.random.default_rng(np.random.SeedSequence([seed, number]).spawn(2)[1]).integers(2**62)


@dataclass
class Waiting(RandomBehaviour):
    """Plays the given episodes only when `directory` holds a file `go`; its representation does not say so."""

    directory: Path = field(repr=False)
    episodes: Sequence[int] = field(default=(), repr=False)

    def begin(self, env, rng):
        super().begin(env, rng)
        draw = copy.deepcopy(rng).integers(2**62)
        for number in self.episodes:
            if draw == first_draw(number):
                (self.directory / f"begun-{number}").touch()
                while not (self.directory / "go").exists():
                    time.sleep(0.01)


def test_interrupted_workers_finish_their_episodes_and_keep_them(tmp_path, monkeypatch):
    settings = {"transitions": 250, "episodes_per_shard": 3}
    whole = collect(CARTPOLE, Waiting(tmp_path), tmp_path / "whole", workers=1, **settings)
    assert len(whole.shards) > 3
    original = WorkerPool.ready

    def ready(self, workers, timeout_seconds=None):
        """Interrupts when both workers play the second episode of a shard; these end when both were told to stop."""
        if timeout_seconds is not None:
            (tmp_path / "go").touch()
            return original(self, workers, timeout_seconds)
        while not (found := original(self, workers, 0.01)):
            if {path.name for path in tmp_path.glob("begun-*")} == {"begun-4", "begun-7"}:
                raise KeyboardInterrupt
        return found

    monkeypatch.setattr(WorkerPool, "ready", ready)
    with pytest.raises(KeyboardInterrupt):
        collect(CARTPOLE, Waiting(tmp_path, [4, 7]), tmp_path / "parts", workers=2, **settings)
    half = Manifest.load(tmp_path / "parts")
    assert not half.complete
    assert [shard.num_episodes for shard in half.shards] == [3, 2, 2]
    assert first_episodes(half, tmp_path / "parts", 5) == first_episodes(whole, tmp_path / "whole", 5)
    with pytest.warns(UserWarning, match="the collection was interrupted"):
        assert offrl.open_replay(tmp_path / "parts").store.report.num_segments == 7
    collect(CARTPOLE, Waiting(tmp_path), tmp_path / "parts", workers=1, **settings)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


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


def test_one_process_at_a_time_collects_and_the_other_is_told_who(tmp_path):
    with locked(tmp_path / ".lock"), pytest.raises(InUseError, match=rf"is in use by process {os.getpid()} of"):
        collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=10, workers=1)
    assert list(tmp_path.iterdir()) == []
    whole = collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=10, workers=1)
    with locked(tmp_path / ".lock"):  # a complete one is only looked at
        assert collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=10, workers=1) == whole


_KILLED = """
import functools, os, sys
from offrl import envs
from offrl.collection import collect
from offrl.envs import RandomBehaviour
count, sync = 0, os.fsync
def kill(descriptor):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    sync(descriptor)
os.fsync = kill
settings = {"transitions": 60, "workers": 1, "episodes_per_shard": 1, "progress": False}
collect(functools.partial(envs.make, "CartPole-v1"), RandomBehaviour(), sys.argv[1], **settings)
"""


@pytest.mark.parametrize("at", [1, 3, 5, 6, 9])  # the manifest; a shard; the first line, its directory; the second line
def test_a_killed_collection_goes_on_to_the_same_bytes_and_leaves_no_litter(tmp_path, at):
    settings = {"transitions": 60, "workers": 1, "episodes_per_shard": 1, "progress": False}
    collect(CARTPOLE, RandomBehaviour(), tmp_path / "whole", **settings)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "killed"), str(at)], check=False)
    assert killed.returncode == -9
    collect(CARTPOLE, RandomBehaviour(), tmp_path / "killed", **settings)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_the_collection_goes_on_from_there(tmp_path, monkeypatch, workers):
    settings = {"transitions": 100, "episodes_per_shard": 2, "progress": False}
    collect(CARTPOLE, RandomBehaviour(), tmp_path / "whole", workers=1, **settings)
    append, failed = recording_module.append_line, []

    def fill(directory, dataset, index, record):
        if index == 1 and not failed:
            failed.append(record)
            raise OSError(errno.ENOSPC, "No space left on device")
        append(directory, dataset, index, record)

    monkeypatch.setattr(recording_module, "append_line", fill)
    with pytest.raises(DatasetError, match=r"parts: cannot be written \(No space left on device\).*; free some space"):
        collect(CARTPOLE, RandomBehaviour(), tmp_path / "parts", workers=workers, **settings)
    assert [shard.num_episodes for shard in Manifest.load(tmp_path / "parts").shards] == [2]
    collect(CARTPOLE, RandomBehaviour(), tmp_path / "parts", workers=workers, **settings)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_shard_that_cannot_be_written_is_one_line_too(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_next_shard", full)
    with pytest.raises(DatasetError, match=r"cannot be written \(No space left on device\)"):
        collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=10, workers=1)
    assert set(files(tmp_path)) == {"manifest.json"}


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


@pytest.mark.parametrize(
    "setting",
    [
        {"transitions": 0},
        {"transitions": "10"},
        {"episodes_per_shard": 2.0},
        {"workers": 0},
        {"workers": True},
        {"seed": -1},
        {"seed": 0.5},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, setting):
    ((name, value),) = setting.items()
    message = (
        rf"collect: transitions=.*{name}={value!r}.*; expected .*workers of 1 or more, seed of 0 or more, all whole"
    )
    message = message if name != "transitions" else rf"collect: transitions={value!r}, .* all whole numbers"
    with pytest.raises(ConfigError, match=message):
        collect(CARTPOLE, RandomBehaviour(), tmp_path, **({"transitions": 10} | setting))


def test_numpys_numbers_are_as_good_as_pythons(tmp_path):
    manifest = collect(CARTPOLE, RandomBehaviour(), tmp_path, transitions=np.int64(10), seed=np.uint8(3), workers=1)
    assert (manifest.generator["transitions"], manifest.generator["seed"]) == (10, 3)


@pytest.mark.parametrize("make_env", ["CartPole-v1", CARTPOLE()])
def test_what_makes_no_environments_is_refused(tmp_path, make_env):
    with pytest.raises(
        ConfigError, match=r"collect: make_env is .*CartPole.*; pass functools.partial\(offrl.envs.make, ID"
    ):
        collect(make_env, RandomBehaviour(), tmp_path, transitions=10)


def test_workers_start_without_torch():
    code = "import sys, offrl.collection.collector, offrl.envs.drivers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_recorder_is_found_here_too():
    assert module.Recorder is recorder.Recorder

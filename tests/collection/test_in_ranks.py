"""Collecting on several ranks, here threads; tests/training/test_distributed.py has two processes collect."""

import functools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from offrl import envs
from offrl.collection import collect
from offrl.collection._in_ranks import InRanks
from offrl.collection.recipes import RECIPES
from offrl.envs import RandomBehaviour, TrackDriver
from offrl.errors import ConfigError, DatasetError
from offrl.shards import Manifest
from offrl.system.ranks import Ranks

CARTPOLE = functools.partial(envs.make, "CartPole-v1")
SETTINGS = {"transitions": 200, "seed": 3, "episodes_per_shard": 1, "progress": False}


class Threads:
    """What the ranks of `together` exchange."""

    def __init__(self, count):
        self.barrier, self.values = threading.Barrier(count, timeout=60), [None] * count


class Rank(Ranks):
    def __init__(self, rank, threads):
        super().__init__(rank, len(threads.values))
        self.threads = threads

    def gather(self, value):
        self.threads.values[self.rank] = json.dumps(value)
        self.threads.barrier.wait()
        found = [json.loads(each) for each in self.threads.values]
        self.threads.barrier.wait()
        return found


def together(count, function):
    """What `function` returns or raises on each rank."""
    threads = Threads(count)

    def run(rank):
        try:
            return function(Rank(rank, threads))
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    collect(CARTPOLE, RandomBehaviour(), directory, workers=1, **SETTINGS)
    return directory


@pytest.mark.parametrize("count", [2, 3])
def test_the_bytes_do_not_depend_on_the_number_of_ranks(alone, tmp_path, count):
    def on(ranks):
        return collect(CARTPOLE, RandomBehaviour(), tmp_path, workers=1, ranks=ranks, **SETTINGS)

    whole = Manifest.load(alone)
    assert together(count, on) == [whole] * count
    assert files(tmp_path) == files(alone)
    assert together(count, on) == [whole] * count  # found


def test_ranks_go_on_where_one_process_stopped_and_the_other_way_round(alone, tmp_path):
    def stop_after(num_shards):
        def make(self, index):
            if index == num_shards:
                raise ConnectionError("the other rank has gone")
            return whole_make(self, index)

        whole_make = InRanks.make
        return make

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InRanks, "make", stop_after(3))
        settings = {"workers": 1, **SETTINGS}
        found = together(2, lambda ranks: collect(CARTPOLE, RandomBehaviour(), tmp_path, ranks=ranks, **settings))
        assert [type(error) for error in found] == [ConnectionError] * 2
    assert Manifest.load(tmp_path).shards == Manifest.load(alone).shards[:3]
    together(2, lambda ranks: collect(CARTPOLE, RandomBehaviour(), tmp_path, ranks=ranks, **settings))
    assert files(tmp_path) == files(alone)


class Made:
    """Shards by their index; the others cannot be made."""

    def __init__(self, made):
        self.made = made

    def make(self, index):
        if index not in self.made:
            raise DatasetError(f"shard {index} failed", where="environment")
        return self.made[index]


def test_a_failure_counts_only_where_the_shard_is_needed(alone):
    shards = Manifest.load(alone).shards

    def on(ranks):
        source = InRanks(Made(dict(enumerate(shards[:5]))), alone, ranks)
        assert [source.make(index) for index in range(5)] == [*shards[:5]]
        source.make(5)

    assert [str(error) for error in together(3, on)] == ["environment: shard 5 failed"] * 3


def test_a_directory_that_ranks_do_not_share_is_refused(alone, tmp_path):
    shards = Manifest.load(alone).shards
    first, other = together(2, lambda ranks: InRanks(Made(dict(enumerate(shards))), tmp_path, ranks).make(0))
    assert "shard-00000.npz: was written by another rank, and is not here; expected a directory" in str(first)
    assert other == shards[0]


def test_ranks_that_would_play_other_episodes_are_refused(tmp_path):
    def on(ranks):
        settings = {**SETTINGS, "seed": ranks.rank}
        collect(CARTPOLE, RandomBehaviour(), tmp_path / "data", workers=1, ranks=ranks, **settings)

    for error in together(2, on):
        assert isinstance(error, ConfigError)
        assert "collect: the ranks have different settings or versions of packages" in str(error)
    assert not (tmp_path / "data").exists()


def test_an_error_is_told_to_all_ranks(tmp_path):
    found = together(2, lambda ranks: collect(CARTPOLE, TrackDriver(), tmp_path, workers=1, ranks=ranks, **SETTINGS))
    assert {"collecting episode 0: AttributeError" in str(error) for error in found} == {True}


def test_a_double_dqn_plays_on_one_rank():
    with pytest.raises(ConfigError, match="2 ranks; expected 1: a double DQN plays and learns in one process"):
        RECIPES["carracing/replay"].collect(Path("nowhere"), transitions=10, ranks=Ranks(1, 2))

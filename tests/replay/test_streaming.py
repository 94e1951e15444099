import json
import os
import shutil
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from naive_replay import make_episode, make_spec, save_frames, save_stacked
from s3_server import s3_server

from offrl import DQN, FitConfig, LearnerConfig, TaskSpec, fit
from offrl.errors import ConfigError, DatasetError, SpecMismatchError
from offrl.replay import Replay, StreamingReplay, open_replay
from offrl.replay.streaming import _cache
from offrl.replay.streaming._sampler import WindowSampler
from offrl.shards import Episode

URL = "memory://bucket/data"
SIZE = 40_000  # three windows of four of the twelve shards
FIELDS = ("observation", "action", "reward", "discount", "next_observation")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, an empty memory for the file system, no pauses between attempts, and no waiting for a disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(_cache, "_SECONDS_BETWEEN_ATTEMPTS", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path):
    """Twelve shards of 9 to 24 transitions, here and at URL."""
    shards = [[make_episode(10 * shard + i, steps=3 + shard * i % 5) for i in range(3)] for shard in range(12)]
    save_frames(tmp_path / "data", shards, make_spec())
    for path in (tmp_path / "data").iterdir():
        fsspec.filesystem("memory").pipe_file(f"{URL}/{path.name}", path.read_bytes())
    return tmp_path / "data"


@pytest.fixture
def fetched(monkeypatch):
    """The names of the shards that were fetched; what is put into `fails` is raised for that name, once for each."""

    class Fetched(list):
        def __init__(self):
            super().__init__()
            self.fails = []

    names, get_file = Fetched(), MemoryFileSystem.get_file

    def counted(self, rpath, lpath=None, **kwargs):
        name = rpath.rpartition("/")[2]
        names.append(name)
        if name in names.fails:
            names.fails.remove(name)
            raise ConnectionResetError("the network is gone")
        return get_file(self, rpath, lpath, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return names


def steps_of(replay, batch_size, passes=1):
    return range(passes * len(replay) // batch_size)


def draw_a_pass(replay, batch_size):
    for step in steps_of(replay, batch_size):
        replay.gather(replay.indices(step, batch_size))


def size_of(folder):
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a thread is at work there
                total += (Path(root) / name).stat().st_size
    return total


def test_batches_are_those_of_the_data_and_each_transition_comes_once_a_pass(data):
    local = open_replay(data, n_step=2, discount=0.5, progress=False)
    streamed = open_replay(URL, stream=SIZE, n_step=2, discount=0.5, include=["index"])
    assert isinstance(streamed, StreamingReplay)
    assert (len(streamed), streamed.fingerprint, streamed.spec) == (len(local), local.fingerprint, local.spec)
    assert streamed.environment == local.environment == "test"
    drawn = []
    for step in steps_of(streamed, 7, passes=2):
        indices = streamed.indices(step, 7)
        batch, expected = streamed.gather(indices), local.gather(indices % len(local))
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
        drawn += batch.index.tolist()
    size = len(local)
    assert sorted(drawn[:size]) == [*range(size)]
    assert sorted(drawn[size : len(drawn)]) == sorted({*drawn[size:]})
    assert drawn[:100] != drawn[size : size + 100]


def test_what_an_update_takes_is_a_function_of_seed_and_step(data):
    one, other = (open_replay(data, stream=SIZE, seed=3) for _ in range(2))
    for step in (20, 3):
        np.testing.assert_array_equal(one.indices(step, 8), other.indices(step, 8))
        np.testing.assert_array_equal(
            one.gather(one.indices(step, 8)).reward, other.gather(one.indices(step, 8)).reward
        )
    assert one.indices(0, 64).tolist() != open_replay(data, stream=SIZE, seed=4).indices(0, 64).tolist()


def test_each_shard_is_fetched_once_a_pass(data, fetched, cache):
    replay = open_replay(URL, stream=SIZE)
    assert fetched == ["shard-000.npz"]  # which says what the data is like
    fetched.clear()
    for step in steps_of(replay, 10, passes=2):
        replay.gather(replay.indices(step, 10))
    assert 2 * 12 <= len(fetched) <= 2 * 12 + 4  # two passes, and of the window ahead what has come by now
    replay.close()
    assert size_of(cache) == 0


def test_the_cache_keeps_to_its_limit(tmp_path, cache):
    generator = np.random.default_rng(0)

    def noise():
        frames = generator.integers(256, size=(13, 40, 40), dtype=np.uint8)
        return Episode(frames, np.zeros(12, np.int64), np.zeros(12, np.float32), terminated=True, truncated=False)

    limit = 300_000  # of 12 shards that take 20 kB as a file, and as much in a store
    save_frames(tmp_path / "noise", [[noise()] for _ in range(12)], TaskSpec.pixels((4, 40, 40), ("left", "right")))
    replay = open_replay(tmp_path / "noise", stream=limit)
    assert [len(window.shards) for window in replay._sampler.windows(0)] == [3, 3, 3, 3]
    largest, stopped = 0, threading.Event()

    def watch():
        nonlocal largest
        while not stopped.is_set():
            largest = max(largest, size_of(cache))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in steps_of(replay, 10):
        replay.gather(replay.indices(step, 10))
        replay._cache._next.store()  # as if training took so long that the next window is always there
    stopped.set()
    watcher.join()
    assert limit / 3 < largest <= limit


def test_a_cache_for_all_of_the_data_fetches_it_once(data, fetched):
    replay = open_replay(URL, stream="1M")
    for step in steps_of(replay, 10, passes=3):
        replay.gather(replay.indices(step, 10))
    assert sorted(fetched) == sorted(["shard-000.npz", *(f"shard-{i:03}.npz" for i in range(12))])


class Flat(torch.nn.Module):
    feature_dim = 2 * 2 * 3

    def __init__(self, observation_shape):
        super().__init__()

    def forward(self, observation):
        return observation.flatten(1)


def train(source, run, **options):
    torch.manual_seed(0)
    replay = open_replay(source, stream=SIZE, n_step=2)
    settings = LearnerConfig(precision="fp32", compile="off")
    config = FitConfig(epochs=2, batch_size=16, log_period=5, checkpoint_period=5)
    return fit(
        DQN(replay.spec, encoder=Flat), replay, config, learner=settings, run=run, loggers=[], device="cpu", **options
    )


def files_of(run):
    last = sorted((run / "checkpoints").iterdir())[-1]
    return [(run / "metrics.csv").read_bytes(), *(path.read_bytes() for path in sorted(last.glob("*.safetensors")))]


def test_a_broken_network_is_tried_again(data, fetched):
    replay = open_replay(URL, stream=SIZE)
    second = sorted(replay._sampler.windows(0)[1].shards)[0]
    fetched.fails = [f"shard-{second:03}.npz"] * 3
    draw_a_pass(replay, 10)
    assert fetched.fails == []


def test_a_run_that_the_network_stopped_equals_one_that_never_stopped_when_it_is_resumed(data, fetched, tmp_path):
    whole = train(URL, tmp_path / "whole")
    last = open_replay(URL, stream=SIZE)._sampler.windows(0)[-1]
    fetched.fails = [f"shard-{last.shards[0]:03}.npz"] * 10**3
    message = r"memory://bucket/data/shard-.*: cannot be reached or read \(ConnectionResetError: the network is gone\)"
    with pytest.raises(DatasetError, match=message):
        train(URL, tmp_path / "stopped")
    fetched.fails = []
    resumed = train(URL, tmp_path / "stopped", resume=True)
    assert whole.step == resumed.step == 2 * 10
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "stopped")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["replay"]["stream"] == SIZE


def test_a_shard_that_changed_under_way_is_refused(data, fetched):
    replay = open_replay(URL, stream=SIZE)
    name = f"shard-{replay._sampler.windows(0)[2].shards[0]:03}.npz"
    fsspec.filesystem("memory").pipe_file(f"{URL}/{name}", (data / name).read_bytes()[:-1] + b"!")
    with pytest.raises(DatasetError, match=rf"bucket/data/{name}: sha256 is .*, as manifest.json says"):
        draw_a_pass(replay, 10)


def test_a_full_disk_is_said(data, monkeypatch):
    replay = open_replay(URL, stream=SIZE)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MemoryFileSystem, "get_file", full)
    with pytest.raises(DatasetError, match=r"the cache cannot be written \(No space left on device\); expected"):
        replay.gather(replay.indices(0, 10))


def test_a_cache_too_small_for_two_windows_says_how_large_it_must_be(data):
    with pytest.raises(
        ConfigError, match=r"Replay.stream: 10.0kB, too small for two windows.*at least 2\d,\d{3} bytes"
    ):
        open_replay(data, stream="10K")
    least = 24_000
    assert len(open_replay(data, stream=least)._sampler.windows(0)) > 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stream": "plenty"}, "Replay.stream: 'plenty'; expected a size in bytes, such as \"20G\", or None"),
        ({"stream": 0}, "Replay.stream: 0; expected a size"),
        ({"stream": SIZE, "held_out": 0.1}, "Replay.held_out: 0.1 with stream; expected 0; or leave stream out"),
        ({"stream": SIZE, "actions": [1]}, r"Replay.actions: \(1,\) with stream"),
        ({"stream": SIZE, "sampling": "top-returns:0.1"}, "Replay.sampling: top-returns:0.1 with stream"),
        ({"stream": SIZE, "tier": "device"}, "Replay.tier: 'device' with stream"),
        ({"stream": SIZE, "skip_bad_shards": True}, "Replay.skip_bad_shards: True; expected False, or no stream"),
    ],
)
def test_what_cannot_be_streamed_is_refused(data, settings, message):
    with pytest.raises(ConfigError, match=message):
        open_replay(data, **settings)


def test_legal_actions_are_streamed_where_the_data_has_no_action_mask(data, tmp_path):
    replay = open_replay(data, stream=SIZE, legal_actions=[0, 2])
    assert replay.spec.legal_actions == (0, 2)
    batch = replay.gather([0, 1])
    assert batch.action_mask.tolist() == batch.next_action_mask.tolist() == [[True, False, True]] * 2
    masked = make_episode(0, action_mask=np.ones((3, 3), np.bool_))
    save_frames(tmp_path / "masked", [[masked]] * 3, make_spec())
    with pytest.raises(ConfigError, match=r"Replay.legal_actions: \(1,\) with stream, for data with an action_mask"):
        open_replay(tmp_path / "masked", stream=SIZE, legal_actions=[1])


def test_a_replay_of_a_store_does_not_stream(data):
    store = open_replay(data, progress=False).store
    with pytest.raises(ConfigError, match="Replay.stream: 40000; expected None for a store: open_replay streams"):
        Replay(store, stream=SIZE)


def test_data_without_a_manifest_or_of_another_task_is_refused(data, tmp_path):
    save_stacked(tmp_path / "stacked", [[make_episode(0)]], stack=2)
    with pytest.raises(DatasetError, match="stacked/manifest.json: no such file; .*offrl convert writes one"):
        open_replay(tmp_path / "stacked", stream=SIZE)
    with pytest.raises(SpecMismatchError, match="observation_shape"):
        open_replay(data, stream=SIZE, spec=make_spec(4))
    with pytest.raises(DatasetError, match="no such file or directory"):
        open_replay(tmp_path / "none", stream=SIZE)


def test_a_negative_index_is_refused(data):
    with pytest.raises(IndexError, match="index -1 is negative"):
        open_replay(data, stream=SIZE).gather([0, -1])


def masked(seed, has_mask):
    episode = make_episode(seed, steps=4)
    if has_mask:
        mask = np.zeros((4, 3), np.bool_)
        mask[np.arange(4), episode.actions] = True
        object.__setattr__(episode, "action_mask", mask)
    return episode


def test_shards_without_masks_beside_some_with_masks_count_as_all_legal(tmp_path):
    save_frames(tmp_path / "masks", [[masked(i, i == 0)] for i in range(4)], make_spec())
    local, streamed = (open_replay(tmp_path / "masks", progress=False, **o) for o in ({}, {"stream": 24_000}))
    assert streamed.spec == local.spec
    assert len(streamed._sampler.windows(0)) > 1
    for step in steps_of(streamed, 4):
        indices = streamed.indices(step, 4)
        for name in ("action_mask", "next_action_mask"):
            np.testing.assert_array_equal(getattr(streamed.gather(indices), name), getattr(local.gather(indices), name))
    save_frames(tmp_path / "late", [[masked(i, i == 3)] for i in range(4)], make_spec())
    streamed = open_replay(tmp_path / "late", stream=24_000)
    with pytest.raises(DatasetError, match="some shards have an action_mask, and the first one has none"):
        draw_a_pass(streamed, 4)


def test_what_a_killed_process_left_is_removed_by_the_next_one_and_what_is_in_use_is_not(data, cache):
    ours = open_replay(data, stream=SIZE)
    (mine,) = (path for path in (cache / "stream").iterdir() if path.is_dir())
    left = shutil.copytree(mine, cache / "stream" / "left")  # whose lock nobody holds
    (left / "window").mkdir()
    other = open_replay(data, stream=SIZE)
    assert mine.exists()
    assert not left.exists()
    for replay in (ours, other):
        replay.gather(replay.indices(0, 10))


def test_a_replay_that_nobody_has_any_more_leaves_nothing(data, cache):
    replay = open_replay(data, stream=SIZE)
    replay.gather(replay.indices(0, 10))
    del replay
    assert size_of(cache) == 0


def test_windows_hold_what_fits_and_passes_differ():
    sampler = WindowSampler([3, 0, 5, 2, 4], [10, 10, 30, 10, 20], limit=40, seed=1)
    for number in range(20):
        windows = sampler.windows(number)
        assert sorted(shard for window in windows for shard in window.shards) == [0, 1, 2, 3, 4]
        assert all(sum([10, 10, 30, 10, 20][shard] for shard in window.shards) <= 40 for window in windows)
        assert [window.start for window in windows] == [0, *np.cumsum([window.size for window in windows])[:-1]]
    orders = [[window.shards for window in sampler.windows(number)] for number in range(20)]
    assert any(one != other for one, other in pairwise(orders))


def test_from_a_real_s3_server(data, monkeypatch):
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    local = open_replay(data, progress=False)
    with s3_server() as endpoint:
        options = {"key": "test", "secret": "test", "client_kwargs": {"endpoint_url": endpoint}}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        storage = fsspec.filesystem("s3")
        storage.mkdir("bucket")
        for path in data.glob("*.*"):
            storage.put_file(str(path), f"bucket/data/{path.name}")
        replay = open_replay("s3://bucket/data", stream=SIZE)
        for step in steps_of(replay, 10):
            indices = replay.indices(step, 10)
            np.testing.assert_array_equal(replay.gather(indices).observation, local.gather(indices).observation)
        replay.close()

"""Frames are checked where they are used; the digests are hashlib's of what the files hold."""

import hashlib

import numpy as np
import pytest
import torch
from naive_replay import NAMES, save_frames

from offrl import TaskSpec
from offrl.errors import DatasetError
from offrl.replay import FrameStore, Replay, ingest
from offrl.replay import _hashes as hashes_module
from offrl.replay._device import frames_on
from offrl.shards import Episode

HEADER = 128


def make_store(directory, num_frames, size):
    """A store of one episode: row i leads from frame i to frame i + 1."""
    frames = np.random.default_rng(0).integers(256, size=(num_frames, size, size), dtype=np.uint8)
    steps = num_frames - 1
    episode = Episode(frames, np.zeros(steps, np.int64), np.zeros(steps, np.float32), True, False)
    save_frames(directory, [[episode]], TaskSpec.pixels((2, size, size), NAMES))
    return ingest(directory).path


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_the_digests_are_the_first_half_of_sha256_of_64_kib_each(tmp_path):
    path = make_store(tmp_path, 40, 64)  # 40 * 4096 bytes: two and a half blocks
    data = np.load(path / "frames.npy").tobytes()
    expected = [hashlib.sha256(data[start : start + 65536]).digest()[:16] for start in (0, 65536, 131072)]
    digests = np.load(path / "frames.blocks.npy")
    assert [digest.tobytes() for digest in digests] == expected


def test_the_rows_hash_is_of_the_values_and_their_type_and_shape(tmp_path):
    store = FrameStore.open(make_store(tmp_path, 4, 8))
    about = hashes_module.array_sha256(store.actions)
    assert about == sha256(bytes(3 * 8) + b"<i8 [3]")
    assert about != hashes_module.array_sha256(store.actions.reshape(3, 1))
    assert f'"actions": "{about}"' in (store.path / "store.json").read_text()


@pytest.mark.parametrize("is_placed", [False, True])
def test_a_flipped_byte_is_noticed_when_its_frame_is_gathered_and_not_before(tmp_path, is_placed):
    path = make_store(tmp_path, 40, 64)  # 16 frames a block
    flip(path / "frames.npy", HEADER + 20 * 4096 + 5)
    store = FrameStore.open(path, "mmap")
    replay = Replay(store).to(torch.device("cpu")) if is_placed else Replay(store)
    replay.gather(np.array([0, 14, 33, 38]))  # frames 0, 13 to 15, 32 to 34, 37 to 39
    for row in (15, 20, 31):  # blocks are checked whole: 15 leads to frame 16
        with pytest.raises(DatasetError, match=r"frames\.npy: block 1 \(frames 16 to 31\) was changed since it was "):
            replay.gather(np.array([0, row]))
    with pytest.raises(DatasetError, match=r"block 1 .*; delete the store's directory"):
        store.frames_between(15, 17)
    assert len(store.frames_between(32, 40)) == 8


@pytest.mark.parametrize("tier", ["ram", "device"])
def test_in_memory_all_is_checked_while_it_is_loaded(tmp_path, tier):
    path = make_store(tmp_path, 40, 64)
    flip(path / "frames.npy", HEADER + 39 * 4096)
    device = torch.device("cpu")
    with pytest.raises(DatasetError, match=r"frames\.npy: block 2 \(frames 32 to 39\)"):
        FrameStore.open(path, "ram") if tier == "ram" else frames_on(device, FrameStore.open(path, "mmap"))
    assert (ingest(tmp_path, tier="ram").frames == FrameStore.open(path, "ram").frames).all()  # made again


@pytest.mark.parametrize(
    ("size", "offset", "good", "bad"),
    [
        (96, 70_000, [0, 6, 15, 20], [7, 14]),  # of 9216 bytes: frame 7 begins in block 0 and ends in 1
        (300, 190_000, [0], [1, 2]),  # of 90,000: block 2 is from 131,072 to 196,608
        (400, 70_000, [2], [0]),  # of 160,000: frame 0 has all of block 1, which neither begins nor ends in it
    ],
)
def test_frames_that_reach_across_blocks_are_checked_in_all_of_them(tmp_path, size, offset, good, bad):
    path = make_store(tmp_path, 22 if size == 96 else 3, size)
    flip(path / "frames.npy", HEADER + offset)
    store = FrameStore.open(path, "mmap")
    store.frames_at(np.array(good))
    for frame in bad:
        with pytest.raises(DatasetError, match=r"was changed since it was written"):
            store.frames_at(np.array([*good, frame]))


def test_each_block_is_hashed_once(tmp_path, monkeypatch):
    path = make_store(tmp_path, 40, 64)
    sizes = []

    def counted(block):
        sizes.append(len(block))
        return hashlib.sha256(block).digest()[:16]

    monkeypatch.setattr(hashes_module, "block_digest", counted)
    store = FrameStore.open(path, "mmap")
    assert sizes == []
    store.frames_at(np.array([1, 1, 3]))
    assert sizes == [65536]
    store.frames_at(np.array([0, 15, 39]))
    assert sizes == [65536, 32768]
    for _ in range(2):
        store.frames_between(0, 40)
    assert sizes == [65536, 32768, 65536]


def test_what_is_read_ahead_is_what_will_be_hashed(tmp_path):
    blocks = FrameStore.open(make_store(tmp_path, 40, 64), "mmap")._blocks
    assert blocks.widened(20 * 4096, 22 * 4096) == (65536, 131072)
    assert blocks.widened(33 * 4096, 34 * 4096) == (131072, 40 * 4096)  # the last block is shorter
    blocks.require(np.array([20]))
    assert blocks.widened(20 * 4096, 22 * 4096) == (20 * 4096, 22 * 4096)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [((2, 16), np.uint8, r"uint8 \[2, 16\] of digests"), ((3, 16), np.int8, r"int8 \[3, 16\] of digests")],
)
def test_digests_are_those_of_the_frames(shape, dtype, message):
    frames = np.zeros((40, 64, 64), np.uint8)
    with pytest.raises(ValueError, match=message):
        hashes_module.FrameBlocks(frames, np.zeros(shape, dtype), None)


def test_changed_digests_are_noticed_on_opening(tmp_path):
    path = make_store(tmp_path, 40, 64)
    flip(path / "frames.blocks.npy", HEADER)
    with pytest.raises(DatasetError, match=r"frames\.blocks\.npy was changed since it was written"):
        FrameStore.open(path, "mmap")


@pytest.mark.parametrize("parts", [[1, 1, 1], [65536], [65535, 1, 5], [200_000, 3], [10, 65526, 65536, 7]])
def test_a_hasher_cares_not_how_the_bytes_come(parts):
    data = np.random.default_rng(1).integers(256, size=sum(parts), dtype=np.uint8).tobytes()
    expected = [hashlib.sha256(data[start : start + 65536]).digest()[:16] for start in range(0, len(data), 65536)]
    hasher, found, start = hashes_module.BlockHasher(), b"", 0
    for size in parts:
        found += hasher.update(memoryview(data[start : start + size]))
        start += size
    assert found + hasher.tail() == b"".join(expected)


def test_a_header_that_is_no_text_of_numpys_is_refused(tmp_path):
    path = make_store(tmp_path, num_frames=5, size=4)
    content = (path / "rewards.npy").read_bytes()
    for text in (b"((", b"[{", b"'''"):
        (path / "rewards.npy").write_bytes(content[:12] + text + content[12 + len(text) :])
        with pytest.raises(DatasetError, match="no finished frame store"):
            FrameStore.open(path)

"""Damaged datasets: each must be refused, or read as it was before; never read as something else, never a crash."""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from tqdm import tqdm

import offrl
from offrl import OfflineRLError, TaskSpec
from offrl.runs import describe_machine
from offrl.shards import Layout, Manifest, ShardRecord
from offrl.system.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "corruption.json"
MEMORY_LIMIT = 2**24  # bytes that reading may take at its peak; the shards have a few KB
NAMES = ("left", "right", "jump")

Members = list[tuple[str, bytes]]  # names without .npy, and the bytes of the .npy files


class Verdict(NamedTuple):
    """What became of one case.

    Attributes:
        damage: a key of `DAMAGES`.
        outcome: "refused", "equal", "needs a manifest", or else a failure in words.
        peak: bytes allocated at most while the damaged data was read.
        case: what was damaged, in words.
    """

    damage: str
    outcome: str
    peak: int
    case: str

    @property
    def good(self) -> bool:
        """Whether nothing was read that is not so, and within the memory allowed."""
        return self.outcome in ("refused", "equal", "needs a manifest") and self.peak <= MEMORY_LIMIT


# ---- the data


def frames_shard(rng: np.random.Generator, *, pixels: bool) -> dict[str, np.ndarray]:
    """Three episodes in the frames layout, with all optional members."""
    lengths = rng.permutation([1, 2, 3])
    leading = rng.integers(2, size=3) if pixels else np.zeros(3, np.int64)
    num_rows, num_frames = int(lengths.sum()), int((leading + lengths + 1).sum())
    is_end = np.isin(np.arange(num_rows), np.cumsum(lengths) - 1)
    terminated = is_end & (rng.random(num_rows) < 0.5)
    actions = rng.integers(len(NAMES), size=num_rows)
    action_mask = rng.random((num_rows, len(NAMES))) < 0.5
    action_mask[np.arange(num_rows), actions] = True
    if pixels:
        observations = {"frames": rng.integers(256, size=(num_frames, 3, 3), dtype=np.uint8)}
    else:
        observations = {"observations": rng.normal(size=(num_frames, 4)).astype(np.float32)}
    return {
        **observations,
        "actions": actions,
        "rewards": rng.random(num_rows).astype(np.float32),
        "terminated": terminated,
        "truncated": is_end & ~terminated,
        "episode_lengths": lengths,
        "leading": leading,
        "behaviour_probability": rng.random(num_rows).astype(np.float32),
        "action_mask": action_mask,
    }


def stacked_shard(rng: np.random.Generator, kind: str) -> dict[str, np.ndarray]:
    """Seven rows in the stacked layout, stacks of two frames."""
    if kind == "vectors":
        observations = rng.normal(size=(8, 4)).astype(np.float32)
    else:
        frames = rng.integers(256, size=(9, 3, 3), dtype=np.uint8)
        observations = np.stack([frames[:-1], frames[1:]], axis=1)
        if kind == "float":
            observations = (observations / 128 - 1).astype(np.float32)
    return {
        "states": observations[:-1],
        "actions": rng.integers(len(NAMES), size=7),
        "next_states": observations[1:],
        "rewards": rng.random(7).astype(np.float32),
        "dones": np.arange(7) == rng.integers(7),
    }


SHARDS: dict[str, Callable[[np.random.Generator], dict[str, np.ndarray]]] = {
    "frames, pixels": lambda rng: frames_shard(rng, pixels=True),
    "frames, vectors": lambda rng: frames_shard(rng, pixels=False),
    "stacked, uint8": lambda rng: stacked_shard(rng, "uint8"),
    "stacked, float": lambda rng: stacked_shard(rng, "float"),
    "stacked, vectors": lambda rng: stacked_shard(rng, "vectors"),
}
PACKINGS = ("stored", "deflated", "streamed")


def npy(array: np.ndarray) -> bytes:
    """The bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


class Pipe:
    """A file that cannot go back: zipfile then writes sizes and checksums after the data."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        """Adds to the content."""
        self.content += data
        return len(data)

    def flush(self) -> None:
        """Does nothing, and must be there."""


def pack(members: Members, packing: str, edit: Callable[[zipfile.ZipFile], None] = lambda archive: None) -> bytes:
    """An `.npz` file; `edit` may change the directory before it is written."""
    pipe, buffer = Pipe(), io.BytesIO()
    target: Any = pipe if packing == "streamed" else buffer
    method = zipfile.ZIP_STORED if packing == "stored" else zipfile.ZIP_DEFLATED
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that comes twice
        for name, content in members:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(content)
        edit(archive)
    return bytes(pipe.content) or buffer.getvalue()


# ---- the damage: to the bytes of one file


def flip(rng: np.random.Generator, content: bytes, low: int = 0, high: int | None = None) -> bytes:
    """One to four bits flipped between two places."""
    damaged = bytearray(content)
    high = len(content) if high is None else min(high, len(content))
    for at in rng.integers(low, high, size=rng.integers(1, 5)):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def flip_directory(rng: np.random.Generator, content: bytes) -> bytes:
    """Bits flipped in the zip's directory or its end."""
    return flip(rng, content, int.from_bytes(content[-6:-2], "little"))


def flip_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Bits flipped in a member's zip header, or, where it is stored, its npy header."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = rng.choice([info.header_offset for info in archive.infolist()])
    return flip(rng, content, start, start + 180)


def overwrite(rng: np.random.Generator, content: bytes) -> bytes:
    """A run of bytes that became zeros, ones or noise."""
    size = int(rng.integers(1, 64))
    at = int(rng.integers(len(content)))
    run = (bytes(size), b"\xff" * size, rng.bytes(size))[rng.integers(3)]
    return (content[:at] + run + content[at + size :])[: len(content)]


def truncate(rng: np.random.Generator, content: bytes) -> bytes:
    """Cut short, at any length."""
    return content[: rng.integers(len(content))]


def lose(rng: np.random.Generator, content: bytes) -> bytes:
    """A run of bytes that is missing."""
    at = int(rng.integers(len(content)))
    return content[:at] + content[at + int(rng.integers(1, 300)) :]


def append(rng: np.random.Generator, content: bytes) -> bytes:
    """Garbage at the end: noise, zeros, the file's own end, or a shard that was damaged itself."""
    garbage = (rng.bytes(100), bytes(int(rng.integers(1, 70_000))), truncate(rng, content)[::-1], flip(rng, content))
    return content + (*garbage, content[-int(rng.integers(1, 400)) :])[rng.integers(5)]


# ---- the damage: to a shard's members or its directory


def _member(rng: np.random.Generator, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    return archive.filelist[rng.choice(len(archive.filelist))]


def _two_members(rng: np.random.Generator, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [archive.filelist[i] for i in rng.choice(len(archive.filelist), 2, replace=False)]


def rename(rng: np.random.Generator, archive: zipfile.ZipFile) -> None:
    """The directory exchanges two names."""
    one, other = _two_members(rng, archive)
    one.filename, other.filename = other.filename, one.filename


def misname(rng: np.random.Generator, archive: zipfile.ZipFile) -> None:
    """The directory gives a member another name."""
    info = _member(rng, archive)
    info.filename = info.filename[::-1]


def redirect(rng: np.random.Generator, archive: zipfile.ZipFile) -> None:
    """The directory exchanges two members' places, and what it says of their content."""
    one, other = _two_members(rng, archive)
    for field in ("header_offset", "CRC", "compress_size", "file_size"):
        mine, others = getattr(one, field), getattr(other, field)
        setattr(one, field, others)
        setattr(other, field, mine)


def forget(rng: np.random.Generator, archive: zipfile.ZipFile) -> None:
    """The directory lacks a member."""
    archive.filelist.remove(_member(rng, archive))


def promise(rng: np.random.Generator, archive: zipfile.ZipFile) -> None:
    """The directory says that a member has terabytes."""
    info = _member(rng, archive)
    for field in ("file_size", "compress_size")[: rng.integers(1, 3)]:
        setattr(info, field, int(rng.integers(2**20, 2**50)))


def boast(rng: np.random.Generator, members: Members) -> Members:
    """A member's npy header, with a good checksum, says that it has terabytes."""
    at = int(rng.integers(len(members)))
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (int(rng.integers(10**6, 10**15)),)}
    np.lib.format.write_array_header_1_0(header, about)
    return [*members[:at], (members[at][0], header.getvalue() + rng.bytes(16)), *members[at + 1 :]]


def trail(rng: np.random.Generator, members: Members) -> Members:
    """A member has bytes after its array, with a good checksum."""
    at = int(rng.integers(len(members)))
    return [*members[:at], (members[at][0], members[at][1] + rng.bytes(8)), *members[at + 1 :]]


def repeat(rng: np.random.Generator, members: Members) -> Members:
    """A second member of a name."""
    one, other = rng.choice(len(members), 2, replace=False)
    return [*members, (members[one][0], members[other][1])]


Shards = list[Members]


def swap_within(rng: np.random.Generator, shards: Shards) -> Shards:
    """Two members of a shard exchange their content, whole and with good checksums."""
    members = dict(shards[0])
    one, other = rng.choice(list(members), 2, replace=False)
    members[one], members[other] = members[other], members[one]
    return [list(members.items()), shards[1]]


def swap_between(rng: np.random.Generator, shards: Shards) -> Shards:
    """Two shards exchange the content of a member."""
    mine, others = map(dict, shards)
    name = rng.choice(list(mine))
    mine[name], others[name] = others[name], mine[name]
    return [list(mine.items()), list(others.items())]


def swap_files(rng: np.random.Generator, shards: Shards) -> Shards:
    """Two shards exchange their names."""
    return shards[::-1]


def _in_bytes(damage: Callable[[np.random.Generator, bytes], bytes]) -> Callable[..., list[bytes]]:
    def damaged(rng: np.random.Generator, shards: Shards, packing: str) -> list[bytes]:
        return [damage(rng, pack(shards[0], packing)), pack(shards[1], packing)]

    return damaged


def _in_directory(edit: Callable[[np.random.Generator, zipfile.ZipFile], None]) -> Callable[..., list[bytes]]:
    def damaged(rng: np.random.Generator, shards: Shards, packing: str) -> list[bytes]:
        return [pack(shards[0], packing, lambda archive: edit(rng, archive)), pack(shards[1], packing)]

    return damaged


def _in_members(damage: Callable[[np.random.Generator, Members], Members]) -> Callable[..., list[bytes]]:
    def damaged(rng: np.random.Generator, shards: Shards, packing: str) -> list[bytes]:
        return [pack(damage(rng, shards[0]), packing), pack(shards[1], packing)]

    return damaged


def _in_shards(damage: Callable[[np.random.Generator, Shards], Shards]) -> Callable[..., list[bytes]]:
    def damaged(rng: np.random.Generator, shards: Shards, packing: str) -> list[bytes]:
        return [pack(members, packing) for members in damage(rng, shards)]

    return damaged


# The result is a dataset as good as the first one, of other content: only a manifest's hash can tell.
SWAPS = {
    "members exchanged in a shard": _in_shards(swap_within),
    "members exchanged between shards": _in_shards(swap_between),
    "shards exchanged": _in_shards(swap_files),
}
DAMAGES = {
    "bits flipped anywhere": _in_bytes(flip),
    "bits flipped in the zip's directory": _in_bytes(flip_directory),
    "bits flipped in a member's header": _in_bytes(flip_header),
    "bytes overwritten": _in_bytes(overwrite),
    "bytes lost": _in_bytes(lose),
    "cut short": _in_bytes(truncate),
    "garbage appended": _in_bytes(append),
    "names exchanged in the directory": _in_directory(rename),
    "a name changed in the directory": _in_directory(misname),
    "places exchanged in the directory": _in_directory(redirect),
    "a member missing in the directory": _in_directory(forget),
    "terabytes promised by the directory": _in_directory(promise),
    "terabytes promised by an npy header": _in_members(boast),
    "bytes after an array": _in_members(trail),
    "two members of one name": _in_members(repeat),
    **SWAPS,
}


# ---- the judgement


def save(folder: Path, files: list[bytes]) -> None:
    """Writes the shards."""
    folder.mkdir()
    for index, content in enumerate(files):
        (folder / f"shard-{index}.npz").write_bytes(content)


def save_manifest(folder: Path, files: list[bytes], arrays: list[dict[str, np.ndarray]], spec: TaskSpec) -> None:
    """Writes the manifest that belongs to `files`, which hold `arrays`."""
    is_stacked = "states" in arrays[0]
    records = []
    for index, (content, members) in enumerate(zip(files, arrays, strict=True)):
        num_rows = len(members["actions"])
        if is_stacked:
            num_episodes, num_frames = 1, 2 * spec.stack * num_rows
        else:
            num_episodes, num_frames = len(members["episode_lengths"]), len(members[next(iter(members))])
        sha256 = hashlib.sha256(content).hexdigest()
        records.append(ShardRecord(f"shard-{index}.npz", sha256, num_rows, num_episodes, num_frames))
    layout: Layout = "stacked" if is_stacked else "frames"
    Manifest(spec, tuple(records), {"id": "benchmark"}, {"name": "benchmark"}, layout=layout).save(folder)


def read(folder: Path, spec: TaskSpec) -> dict[str, Any]:
    """All that the replay makes of a directory of shards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stacks that look newest first, where both were exchanged
        replay = offrl.open_replay(folder, spec=spec, n_step=2, tier="ram", progress=False)
    store = replay.store
    stored = ("rewards", "terminated", "truncated", "segment_end", "behaviour_probability")
    batch = vars(replay.gather(np.arange(len(replay))))
    found = {name: None if tensor is None else tensor.numpy() for name, tensor in batch.items()}
    return {**found, **{f"store.{name}": getattr(store, name) for name in stored}}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two readings are the same in every value and type."""
    for name, array in one.items():
        if (array is None) != (other[name] is None):
            return False
        if array is not None and (array.dtype != other[name].dtype or not np.array_equal(array, other[name])):
            return False
    return True


def judge(seed: int) -> Verdict:
    """Makes a dataset, damages it, reads it; all of it a function of `seed`."""
    rng = np.random.default_rng(seed)
    data, packing, damage = (str(rng.choice(list(names))) for names in (SHARDS, PACKINGS, DAMAGES))
    has_manifest = bool(rng.random() < 0.2)  # rarely: a hash finds everything
    case = f"seed {seed}: {data}, {packing}, with{'' if has_manifest else 'out'} a manifest, {damage}"
    arrays = [SHARDS[data](rng) for _ in range(2)]
    shards = [[(name, npy(array)) for name, array in members.items()] for members in arrays]
    spec = TaskSpec.vector(4, NAMES) if "vectors" in data else TaskSpec.pixels((2, 3, 3), NAMES)
    whole = [pack(members, packing) for members in shards]
    with tempfile.TemporaryDirectory() as outer:
        save(Path(outer, "whole"), whole)
        expected = read(Path(outer, "whole"), spec)
        folder = Path(outer, "damaged")
        save(folder, DAMAGES[damage](rng, shards, packing))
        if has_manifest:
            save_manifest(folder, whole, arrays, spec)
        tracemalloc.start()
        try:
            outcome = "equal" if equal(read(folder, spec), expected) else "other data, without a word"
        except OfflineRLError:
            outcome = "refused"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if outcome.startswith("other") and damage in SWAPS and not has_manifest:
            save_manifest(folder, whole, arrays, spec)
            try:
                read(folder, spec)
            except OfflineRLError:
                outcome = "needs a manifest"
    return Verdict(damage, outcome, peak, case)


@click.command()
@click.option("--cases", default=10_000, show_default=True)
def corruption(cases: int) -> None:
    """Damages small datasets in every way, and counts what becomes of them."""
    verdicts = [judge(seed) for seed in tqdm(range(cases), unit="case", disable=None)]
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        rows[verdict.damage][verdict.outcome if verdict.good else "failed"] += 1
    failures = [f"{v.case}: {v.outcome}, {v.peak} bytes" for v in verdicts if not v.good]
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks corruption --cases {cases}",
            "cases": cases,
            "rows": {damage: dict(sorted(rows[damage].items())) for damage in DAMAGES},
            "largest_peak_bytes": max(verdict.peak for verdict in verdicts),
            "failures": failures,
            "machine": describe_machine(),
        },
    )
    for damage, counts in rows.items():
        print(f"{damage:<36} {', '.join(f'{outcome} {count}' for outcome, count in sorted(counts.items()))}")
    print(*failures[:20], sep="\n")
    print(f"{len(failures)} failures in {cases} cases")
    sys.exit(bool(failures))

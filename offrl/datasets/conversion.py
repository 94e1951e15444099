"""Datasets from one format to another: the two shard layouts, Minari's datasets, d3rlpy's files, tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from offrl.datasets._d3rlpy_files import is_hdf5, read_d3rlpy, write_d3rlpy
from offrl.datasets._episodes import EpisodeLog, Written, broken_ends, episodes, require_untold
from offrl.datasets._minari_files import PREFIX, dataset_id, is_minari, minari_path, read_minari
from offrl.datasets._minari_writer import write_minari
from offrl.datasets._moments import Moments
from offrl.datasets._stacked_files import stacked_shards, write_stacked_shard
from offrl.datasets._table_episodes import read_table
from offrl.datasets._table_files import is_table
from offrl.datasets.tables import TableColumns, require_names
from offrl.errors import ConfigError, DatasetError
from offrl.replay.ingestion import ingest
from offrl.replay.store import FrameStore
from offrl.shards._file_systems import is_remote, redacted
from offrl.shards.arrays import require_directory, require_new
from offrl.shards.episode import SHARD_BYTES, Episode, shard_path, write_shards
from offrl.shards.layouts import Dones
from offrl.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord
from offrl.shards.remote import local_copy
from offrl.spec import TaskSpec
from offrl.system.files import new_directory, remove_partials, replacing
from offrl.system.locks import clear_after_kill, locked

_TABLES = "a table, .csv or .parquet, or a directory of them"
_SOURCES = f"a directory of .npz shards, a dataset of Minari's, an HDF5 file of d3rlpy's, or {_TABLES}"

Format = Literal["frames", "stacked", "minari", "d3rlpy"]
SourceFormat = Format | Literal["table"]


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        source_format: what was read.
        target_format: what was written.
        num_transitions: written.
        num_episodes: written (segments, where the log does not hold episodes whole).
        bytes_before: size of the source's files.
        bytes_after: size of the target's files.
        frames_before: frames (or vectors) in the source, shared ones as often as it holds them.
        frames_after: the same of the target.
        notes: what the formats could not hold, one line each.
    """

    source_format: SourceFormat
    target_format: Format
    num_transitions: int
    num_episodes: int
    bytes_before: int
    bytes_after: int
    frames_before: int
    frames_after: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return {**asdict(self), "notes": list(self.notes)}

    def to_text(self) -> str:
        """A table for people."""
        lines = [
            f"transitions  {self.num_transitions:,} in {self.num_episodes:,} episodes",
            f"{'':<10}{self.source_format:>16}{self.target_format:>16}",
            f"{'bytes':<10}{self.bytes_before:>16,}{self.bytes_after:>16,}",
            f"{'frames':<10}{self.frames_before:>16,}{self.frames_after:>16,}",
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def convert(
    source: Path | str,
    target: Path | str,
    to: Format,
    *,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    columns: TableColumns | None = None,
    stack: int | None = None,
    action_names: Sequence[str] | None = None,
    skip_bad_shards: bool = False,
    environment: Mapping[str, Any] | None = None,
    standardise: bool = False,
    compress: bool = True,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> Conversion:
    """Writes a dataset anew in another format, or in the same with other shards; the source stays as it is.

    Shards can become anything; other formats become frames first. Target is whole or not there. In the frames layout
    each frame that stacks share is stored once; stacked shards that become stacked ones hold the same rows.

    Args:
        source: a directory of shards or its address elsewhere, a directory of Minari's (or `minari:ID`, of a local
            dataset), a file that d3rlpy's `ReplayBuffer.dump` wrote, or a table (.csv or .parquet), in one file or in
            a directory of several with the same columns, whose rows follow each other in the order of the names.
        target: a new directory (for d3rlpy a new file; for Minari also `minari:ID`).
        to: the format of the target.
        spec: the task, where the source does not say it; of a table also the order of its features, where the spec
            names them, and how networks see them.
        dones: stacked shards only: whether true in `dones` says that the episode "terminated" or "not_done".
        columns: tables only: which columns hold what; None where they have the usual names.
        stack: datasets of d3rlpy's and Minari's that do not say their task only: how many of their single frames make
            an observation; None for 4.
        action_names: these and tables only: what each action does, in words; None for the names in the table, or for as
            many actions as the data has, without names.
        skip_bad_shards: set damaged shards aside instead of stopping at the first.
        environment: what the manifest says about the environment, JSON-ready, where the source says nothing.
        standardise: vectors as frames only: networks that learn from the target see each feature less its mean, divided
            by its standard deviation over all steps, and so does the policy when it acts. Observations stay as they
            are.
        compress: deflate what is written (gzip in d3rlpy's file); a dataset of Minari's never is.
        shard_bytes: of the observations in one shard, before compression, unless one episode has more.
        progress: show bars on stderr where that is a terminal.

    Raises:
        ConfigError: an unknown format, one that cannot be reached in one step, names that do not tell actions apart,
            or `standardise` for pixels or another format.
        DatasetError: the source is missing, damaged, or holds what the target cannot; or the target exists.
        InUseError: another call is writing the target.
        MissingDependencyError: `minari`, `h5py` or `pyarrow` is needed and not installed.
        SpecMismatchError: `spec` differs from the source's.
    """
    if to not in get_args(Format):
        raise ConfigError(f"{to!r}", where="to", expected=f"one of {', '.join(get_args(Format))}")
    if shard_bytes < 1:
        raise ConfigError(f"{shard_bytes}", where="shard_bytes", expected="1 or more")
    if standardise and to != "frames":
        raise ConfigError("True", where="standardise", expected=f"False for the format {to}, or to='frames'")
    if action_names is not None:
        require_names(action_names, where="action_names")
    if is_remote(target):
        raise ConfigError("is an address", where=redacted(target), expected="a path on this machine")
    target_path = minari_path(target)
    lock = target_path.with_name(f".{target_path.name}.lock")  # beside the target, which has to be new
    if target_path.exists():
        clear_after_kill(lock, lambda: remove_partials(target_path))
    require_new(target_path)
    if is_remote(source):
        source_path = local_copy(source, skip_bad_shards=skip_bad_shards, progress=progress)
    else:
        source_path = minari_path(source)
    if columns is not None and not is_table(source_path):
        raise ConfigError("names of columns", where=source_path, expected=f"{_TABLES}, beside them")
    if stack is not None and stack < 1:
        raise ConfigError(f"{stack}", where="stack", expected="1 or more")
    names = None if action_names is None else tuple(action_names)
    told: dict[str, Any] = {"stack": stack, "action_names": names}
    with locked(lock, target=target_path):
        require_new(target_path)  # another call may have written it meanwhile
        store = None
        found: SourceFormat
        opened: AbstractContextManager[EpisodeLog]
        if is_minari(source_path) or str(source).startswith(PREFIX):
            found, opened = "minari", read_minari(source_path, spec, **told)
        elif is_table(source_path):
            columns = columns or TableColumns()
            columns = columns if names is None else replace(columns, action_names=names)
            require_untold(source_path, stack, None)
            found, opened = "table", nullcontext(read_table(source_path, columns, spec))
        elif source_path.is_file() and is_hdf5(source_path):
            found, opened = "d3rlpy", read_d3rlpy(source_path, spec, **told)
        else:
            require_directory(source_path, expected=_SOURCES)
            require_untold(source_path, stack, names)
            reading: dict[str, Any] = {"dones": dones, "skip_bad_shards": skip_bad_shards, "progress": progress}
            store = ingest(source_path, spec=spec, tier="mmap", **reading)
            found, opened = store.report.layout, nullcontext(_log(source_path, store, to))
        if store is not None and store.spec.channels > 1 and to in ("minari", "d3rlpy"):
            raise DatasetError(
                f"frames of {store.spec.channels} channels",
                where=source_path,
                expected=f"gray frames or vectors for the format {to}",
                hint="convert to frames or stacked",
            )
        if store is None and to != "frames":
            raise ConfigError(
                f"from {found} to {to}", where="convert", expected="frames", hint="convert to frames first"
            )
        bytes_before = _size(source_path)  # before the target, which may lie in the source
        try:
            with opened as log:
                origin = {"converted_from": {"format": found, "path": redacted(source)}}
                if standardise and log.spec.is_pixels:
                    raise ConfigError("True", where="standardise", expected="False for pixels", hint="leave it out")
                moments = Moments(log.spec.observation_shape[0]) if standardise else None
                passing = _with_bar(log, progress)
                log = replace(
                    log,
                    episodes=passing if moments is None else moments.watch(passing),
                    environment=log.environment or environment or {},
                    generator={**log.generator, **origin},
                )
                written = _write(target_path, to, log, store, moments, compress, shard_bytes, progress)
        except OSError as error:
            raise DatasetError(
                f"cannot be written ({error})", where=target_path, expected="room for it", hint="free some space"
            ) from error
        return Conversion(
            source_format=found,
            target_format=to,
            num_transitions=written.num_transitions,
            num_episodes=written.num_episodes,
            bytes_before=bytes_before,
            bytes_after=_size(target_path),
            frames_before=log.num_frames,
            frames_after=written.num_frames,
            notes=(*log.notes, *written.notes),
        )


def _log(directory: Path, store: FrameStore, to: Format) -> EpisodeLog:
    """The episodes of a directory of shards, whose task and data `store` has."""
    is_stacked = store.report.layout == "stacked"
    environment: Mapping[str, Any] = {}
    generator: Mapping[str, Any] = {"name": "unknown"}
    protocol: Mapping[str, Any] | None = None
    if (directory / MANIFEST_NAME).exists():
        manifest = Manifest.load(directory)
        environment, generator, protocol = manifest.environment, manifest.generator, manifest.protocol
    return EpisodeLog(
        spec=store.spec,
        episodes=episodes(store),
        num_transitions=len(store),
        num_frames=2 * store.spec.stack * len(store) if is_stacked else store.report.num_frames,
        environment=environment,
        generator=generator,
        protocol=protocol,
        notes=tuple(_notes(store, to)),
    )


def _notes(store: FrameStore, to: Format) -> Iterator[str]:
    """What is lost on the way from a store to another format."""
    if store.report.largest_rounding_error:
        error = store.report.largest_rounding_error
        yield f"float pixels are kept as uint8: the largest change is {error:.2g} gray levels"
    num_broken = len(broken_ends(store))
    if num_broken and to != "stacked":
        yield (
            f"{num_broken} terminated transition(s) lead to a stack that does not continue theirs: only its newest "
            "frame is kept; no return depends on it"
        )
    if to in ("stacked", "d3rlpy"):
        for name in ("behaviour_probability", "action_mask"):
            if getattr(store, name) is not None:
                yield f"{name} has no place in the format {to} and is left out"


def _with_bar(log: EpisodeLog, progress: bool) -> Iterator[Episode]:
    with _bar(log, progress) as bar:
        for episode in log.episodes:
            yield episode
            bar.update(len(episode))


def _bar(log: EpisodeLog, progress: bool) -> tqdm[Any]:
    return tqdm(desc="convert", total=log.num_transitions, unit=" steps", disable=None if progress else True)


def _write(
    target: Path,
    to: Format,
    log: EpisodeLog,
    store: FrameStore | None,
    moments: Moments | None,
    compress: bool,
    shard_bytes: int,
    progress: bool,
) -> Written:
    """Writes the target, whole or not at all."""
    if to == "d3rlpy":
        with replacing(target) as file:
            return write_d3rlpy(file, log, compress=compress)
    if to == "minari":
        name = dataset_id(target)
        with new_directory(target) as directory:
            return write_minari(directory, name, log)
    records: list[ShardRecord] = []
    with new_directory(target) as directory:
        if to == "stacked":
            assert store is not None
            with _bar(log, progress) as bar:
                for segments in stacked_shards(store, shard_bytes):
                    path = shard_path(directory, len(records))
                    records.append(write_stacked_shard(path, store, segments, compress=compress))
                    bar.update(records[-1].num_transitions)
        else:
            records += write_shards(directory, log.episodes, compress=compress, shard_bytes=shard_bytes)
        about = (log.environment, log.generator)
        spec = log.spec if moments is None else moments.standardise(log.spec)  # known when all have passed
        Manifest(spec, tuple(records), *about, layout=to, protocol=log.protocol).save(directory)
    return Written(
        sum(record.num_transitions for record in records),
        sum(record.num_episodes for record in records),
        sum(record.num_frames for record in records),
    )


def _size(path: Path) -> int:
    """Bytes of a file, or of all that is not hidden in a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(
        each.stat().st_size
        for each in path.rglob("*")
        if each.is_file() and not any(part.startswith(".") for part in each.relative_to(path).parts)
    )

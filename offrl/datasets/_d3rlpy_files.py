"""What d3rlpy 2 writes with `ReplayBuffer.dump`, read and written with h5py; d3rlpy itself is not needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets._episodes import (
    USUAL_STACK,
    EpisodeLog,
    Written,
    num_repeated,
    require_self_contained,
    require_untold,
)
from offrl.errors import DatasetError, missing_dependency
from offrl.shards._members import read_actions, read_rewards, require_finite, require_rows, unfit
from offrl.shards.episode import Episode
from offrl.spec import TaskSpec, default_action_names
from offrl.system.files import open_regular
from offrl.system.json_files import parse_json

_COLUMNS = ("observations", "actions", "rewards", "terminated")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION = "2.1"
_ABOUT = "offrl"  # a member of ours, which d3rlpy does not look at
_HINT = "write it again with ReplayBuffer.dump of d3rlpy 2"


def is_hdf5(path: Path) -> bool:
    """Whether a file is one of HDF5's, by its name or by how it begins."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        return True
    try:
        with open_regular(path) as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:  # which reading it says
        return True


def write_d3rlpy(path: Path, log: EpisodeLog, *, compress: bool = True) -> Written:
    """Writes episodes as a file for `d3rlpy.dataset.ReplayBuffer.load`, and the task beside them.

    Frames are not stacked: [T, 1, H, W]. Not held are frames before an episode's first one, what the last step led to,
    probabilities and legal actions.

    Raises:
        MissingDependencyError: h5py is not installed.
    """
    h5py = _h5py()
    transitions = frames = truncated = leading = index = 0
    options: dict[str, Any] = {"compression": "gzip"} if compress else {}
    # Without HDF5's own lock: whoever replaces a file holds one on what is written in its place.
    with h5py.File(path, "w", locking=False) as file:
        for index, episode in enumerate(log.episodes, start=1):
            members = {
                "observations": episode.observations[episode.leading : episode.leading + len(episode)],
                "actions": episode.actions.astype(np.int32)[:, None],
                "rewards": episode.rewards.astype(np.float32)[:, None],
            }
            if log.spec.is_pixels:
                members["observations"] = members["observations"][:, None]
            for name, array in members.items():
                file.create_dataset(f"{name}_{index - 1}", data=array, **options)
            file.create_dataset(f"terminated_{index - 1}", data=episode.terminated)
            transitions += len(episode)
            frames += len(episode)
            truncated += not episode.terminated
            leading += episode.leading > 0
        file.create_dataset("columns", data=list(_COLUMNS))
        file.create_dataset("num_episodes", data=index)
        file.create_dataset("version", data=_VERSION)
        about = {
            "spec": log.spec.to_dict(),
            "environment": dict(log.environment),
            "generator": dict(log.generator),
        }
        file.create_dataset(_ABOUT, data=json.dumps(about))
    notes = []
    if truncated:
        notes.append(
            f"d3rlpy holds no last observation: in {truncated} episode(s) that did not terminate it does not learn "
            "from the last step"
        )
    if leading:
        notes.append(f"{leading} episode(s) begin in mid-episode: their older frames are left out")
    return Written(transitions, index, frames, tuple(notes))


@contextmanager
def read_d3rlpy(
    path: Path,
    spec: TaskSpec | None = None,
    *,
    stack: int | None = None,
    action_names: tuple[str, ...] | None = None,
) -> Iterator[EpisodeLog]:
    """Opens a file that d3rlpy (or `write_d3rlpy`) wrote; its episodes are read as they are asked for.

    An episode that did not terminate loses its last step, because what it led to is not in the file.

    Args:
        path: the file.
        spec: the task; None for that of the file, which d3rlpy's do not say: then it is told by the observations.
        stack: how many single frames make an observation, where nobody says the task; None for 4.
        action_names: what the actions do, where nobody says the task; None for as many as occur, without names.

    Raises:
        DatasetError: no such file, not d3rlpy's, damaged, or of continuous actions.
        MissingDependencyError: h5py is not installed.
        SpecMismatchError: `spec` differs from the file's.
    """
    h5py = _h5py()
    try:
        require_self_contained(path)
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DatasetError(
            f"cannot be opened ({error})", where=path, expected="an HDF5 file of d3rlpy's", hint=_HINT
        ) from error
    with file:
        yield _log(path, file, spec, stack, action_names)


def _log(
    path: Path, file: Any, spec: TaskSpec | None, stack: int | None, action_names: tuple[str, ...] | None
) -> EpisodeLog:
    root = _Members(path, file)
    columns = {text.decode() if isinstance(text, bytes) else str(text) for text in root.read("columns").ravel()}
    if not columns.issuperset(_COLUMNS):
        raise root.fault(f"has the columns {sorted(columns)}", expected=", ".join(_COLUMNS), hint=_HINT)
    counted = root.read("num_episodes")
    if counted.size != 1 or counted.dtype.kind not in "iu" or not 0 <= int(counted) <= len(file):
        raise root.fault(f"num_episodes is {counted}", expected="the number of episodes in the file", hint=_HINT)
    num_episodes = int(counted)
    all_members = [_Members(path, file, index) for index in range(num_episodes)]
    about = _about(root)
    if about is not None:
        found = TaskSpec.from_dict(about["spec"], where=path)
        if spec is not None:
            spec.require_same(found, where=path, hint="pass no spec to take the data's own", legal_actions=False)
        spec = found
    if spec is not None:
        require_untold(path, stack, action_names)
    num_actions = None if action_names is None else len(action_names)
    num_transitions = num_frames = num_terminated = highest_action = 0
    for members in all_members:
        actions = read_actions(members, num_actions if spec is None else spec.num_actions)
        terminated = _terminated(members)
        num_frames += len(actions)
        num_transitions += len(actions) if terminated else max(len(actions) - 1, 0)
        num_terminated += terminated
        highest_action = max(highest_action, int(actions.max(initial=0)))
    if num_transitions < 1:
        raise root.fault("holds no transitions", expected="1 or more", hint="collect data first")
    if spec is None:
        names = action_names or default_action_names(max(highest_action + 1, 2))
        spec = _inferred_spec(all_members[0], names, stack)
    notes = []
    num_short = num_episodes - num_terminated
    if num_short:
        notes.append(f"{num_short} episode(s) that did not terminate lost their last step: what it led to is not there")
    if num_terminated:
        notes.append(
            f"what the last step of {num_terminated} terminated episode(s) led to is not there: the last observation "
            "stands for it; no return depends on it"
        )
    about = about or {"environment": {}, "generator": {"name": "d3rlpy"}}
    return EpisodeLog(
        spec=spec,
        episodes=_episodes(all_members, spec),
        num_transitions=num_transitions,
        num_frames=num_frames,
        environment=about["environment"],
        generator=about["generator"],
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Members:
    """The members of one episode, or, without an index, of the file."""

    path: Path
    file: Any
    index: int | None = None

    @property
    def remake(self) -> str:
        return _HINT

    def read(self, name: str) -> NDArray[Any]:
        key = name if self.index is None else f"{name}_{self.index}"
        if key not in self.file:
            raise self.fault(f"has no member {key!r}", expected="what d3rlpy 2 writes", hint=_HINT)
        try:
            return np.asarray(self.file[key][()])
        except Exception as error:  # HDF5 fails in many ways on damaged bytes
            raise self.fault(
                f"member {key!r} cannot be read ({type(error).__name__}: {error})", expected="an array", hint=_HINT
            ) from error

    def fault(self, what: str, *, expected: str, hint: str) -> DatasetError:
        where = f"{self.path}" if self.index is None else f"{self.path}: episode {self.index}"
        return DatasetError(what, where=where, expected=expected, hint=hint)


def _about(root: _Members) -> dict[str, Any] | None:
    """What `write_d3rlpy` noted about the data, if it wrote the file."""
    if _ABOUT not in root.file:
        return None
    text = root.read(_ABOUT).item()
    try:
        about = parse_json(text)
        return {"spec": about["spec"], "environment": dict(about["environment"]), "generator": dict(about["generator"])}
    except (ValueError, TypeError, KeyError) as error:
        raise root.fault(
            f"member {_ABOUT!r} cannot be read ({type(error).__name__}: {error})",
            expected="JSON with spec, environment, generator",
            hint="convert the data again",
        ) from error


def _terminated(members: _Members) -> bool:
    found = members.read("terminated")
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise unfit(members, "terminated", found, "one boolean")
    return bool(found)


def _inferred_spec(first: _Members, names: tuple[str, ...], stack: int | None) -> TaskSpec:
    observations = first.read("observations")
    is_pixels = observations.ndim == 4
    if is_pixels and observations.shape[1] == 1:
        return TaskSpec.pixels((stack or USUAL_STACK, *observations.shape[2:]), names)
    if stack is not None and not (is_pixels and observations.shape[1] == stack):
        what = f"stacks of {observations.shape[1]}" if is_pixels else f"observations {list(observations.shape)}"
        raise first.fault(f"holds {what}", expected=f"single frames for stack {stack}", hint="leave out stack")
    if is_pixels:
        return TaskSpec.pixels(observations.shape[1:], names)
    if observations.ndim == 2:
        return TaskSpec.vector(observations.shape[1], names)
    raise unfit(first, "observations", observations, "vectors [T, D], frames [T, 1, H, W] or stacks [T, S, H, W]")


def _episodes(all_members: list[_Members], spec: TaskSpec) -> Iterator[Episode]:
    for members in all_members:
        terminated = _terminated(members)
        actions = read_actions(members, spec.num_actions)
        rewards = read_rewards(members, len(actions))
        observations = members.read("observations")
        require_rows(members, "observations", observations, len(actions))
        steps = len(actions) if terminated else len(actions) - 1
        if steps < 1:
            continue
        frames, leading = _frames(members, observations, spec)
        if terminated:
            frames = np.concatenate([frames, frames[-1:]])
        yield Episode(frames, actions[:steps], rewards[:steps], terminated, not terminated, leading=leading)


def _frames(members: _Members, found: NDArray[Any], spec: TaskSpec) -> tuple[NDArray[Any], int]:
    """Single frames [leading + T, H, W] and how many lead, or vectors [T, D]."""
    if not spec.is_pixels:
        if found.shape[1:] != spec.observation_shape or found.dtype.kind not in "fiu":
            raise unfit(members, "observations", found, f"real numbers [T, {spec.observation_shape[0]}]")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
            vectors = found.astype(np.float32)
        require_finite(members, "observations", vectors)
        return vectors, 0
    channels = found.shape[1] if found.ndim == 4 else 0
    if found.shape[2:] != spec.observation_shape[1:] or channels not in (1, spec.stack) or found.dtype != np.uint8:
        raise unfit(
            members, "observations", found, f"uint8 [T, 1 or S, H, W] with (S, H, W) = {spec.observation_shape}"
        )
    if not np.array_equal(found[1:, :-1], found[:-1, 1:]):
        raise members.fault(
            "observations do not continue each other by one frame",
            expected="stacks that overlap, oldest frame first",
            hint="save single gray frames [T, 1, H, W]",
        )
    frames = np.concatenate([found[0], found[1:, -1]])
    repeated = num_repeated(frames, channels - 1)
    return frames[repeated:], channels - 1 - repeated


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise missing_dependency("h5py", extra="hdf5", purpose="d3rlpy's files") from error
    return h5py

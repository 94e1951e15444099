"""Minari's datasets, read and written with `minari`; nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets._episodes import USUAL_STACK, EpisodeLog, require_self_contained, require_untold
from offrl.errors import ConfigError, DatasetError, SpecMismatchError, missing_dependency
from offrl.shards._members import read_actions, read_flags, read_rewards, require_finite, unfit
from offrl.shards.episode import Episode
from offrl.spec import TaskSpec, default_action_names
from offrl.system.json_files import read_json

PREFIX = "minari:"
_METADATA = "metadata.json"
_ABOUT = "offrl"  # an entry of ours in the metadata: what Minari has no word for
_LEADING = "leading_frames"  # entries of ours in the infos
_PROBABILITY, _LEGAL = "behaviour_probability", "action_mask"
_LEAST_JPEG = 32  # Minari takes smaller pictures for something else
_HINT = "download or create it again"


def minari_path(name: Path | str) -> Path:
    """A path as it is, and of `minari:ID` where Minari keeps that dataset."""
    text = str(name)
    return _root() / text.removeprefix(PREFIX) if text.startswith(PREFIX) else Path(name)


def is_minari(path: Path) -> bool:
    """Whether a dataset of Minari's is in that directory (or is its `data` folder)."""
    return _metadata_path(path).is_file()


def _root() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def _metadata_path(path: Path) -> Path:
    return path / _METADATA if (path / _METADATA).is_file() else path / "data" / _METADATA


def dataset_id(path: Path) -> str:
    """The id that Minari loads a dataset in that directory by.

    Raises:
        ConfigError: it would be none.
        MissingDependencyError: minari is not installed.
    """
    _minari()
    from minari.dataset.minari_dataset import parse_dataset_id

    full, root = path.resolve(), _root().resolve()
    name = full.relative_to(root).as_posix() if full.is_relative_to(root) else full.name
    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{name!r} is no id of a dataset of Minari's",
            where=path,
            expected="a name that ends with a version: NAME-v0",
        ) from None
    return name


@contextmanager
def read_minari(
    path: Path,
    spec: TaskSpec | None = None,
    *,
    stack: int | None = None,
    action_names: tuple[str, ...] | None = None,
) -> Iterator[EpisodeLog]:
    """Opens a dataset of Minari's, whose episodes are read as they are asked for.

    Args:
        path: its directory.
        spec: the task; None for what the dataset says.
        stack: how many single frames make an observation, where nobody says the task; None for 4.
        action_names: what the actions do, where nobody says the task; None for none.

    Raises:
        DatasetError: no such dataset, a damaged one, or other spaces than gray frames or vectors and Discrete actions.
        MissingDependencyError: minari is not installed, or what it needs for that dataset.
        SpecMismatchError: `spec` differs from the dataset's.
    """
    minari = _minari()
    metadata_path = _metadata_path(path)
    try:
        for file in sorted(metadata_path.parent.glob("*.h*5")):
            require_self_contained(file)
        metadata = read_json(metadata_path)
        if not {"observation_space", "action_space"} <= metadata.keys():
            # Minari would make the environment to see its spaces, and a file must not choose what code runs.
            raise ValueError("it does not say its spaces")
        dataset = minari.MinariDataset(metadata_path.parent)
        num_transitions, num_episodes = int(dataset.total_steps), int(dataset.total_episodes)
        environment = {} if dataset.env_spec is None else {"id": str(dataset.env_spec.id)}
        generator = {"name": str(dataset.id)}
        ours = metadata.get(_ABOUT)
        if ours is not None:
            environment, generator = dict(ours["environment"]), dict(ours["generator"])
            found = ours["spec"]
    except DatasetError:
        raise
    except Exception as error:  # what is not as Minari wrote it makes it fail in many ways
        raise DatasetError(
            f"no dataset that Minari can read ({type(error).__name__}: {error})",
            where=path,
            expected="a local dataset of Minari's",
            hint=f"check the path; offrl downloads none: `minari download ID` does, and {PREFIX}ID names it",
        ) from error
    if num_transitions < 1:
        raise DatasetError("holds no transitions", where=path, expected="1 or more", hint="collect data first")
    if spec is not None or ours is not None:
        require_untold(path, stack, action_names)
    if ours is None:
        spec = _spec(path, dataset, spec, stack, action_names)
    else:
        known = TaskSpec.from_dict(found, where=metadata_path)
        if spec is not None:
            spec.require_same(
                known, where=metadata_path, hint="pass no spec to take the data's own", legal_actions=False
            )
        spec = known
    notes = []
    if spec.is_pixels and metadata.get("jpeg_encoding", True) and min(spec.observation_shape[1:]) >= _LEAST_JPEG:
        notes.append("Minari holds these frames as JPEG: they are near those that were recorded, not equal")
    yield EpisodeLog(
        spec=spec,
        episodes=_episodes(path, dataset, spec, is_ours=ours is not None),
        num_transitions=num_transitions,
        num_frames=num_transitions + num_episodes,
        environment=environment,
        generator=generator,
        notes=tuple(notes),
    )


def _spec(
    path: Path, dataset: Any, spec: TaskSpec | None, stack: int | None, action_names: tuple[str, ...] | None
) -> TaskSpec:
    """The task of a dataset that others wrote: the given one where it fits the spaces, else what they say."""
    from gymnasium.spaces import Box, Discrete

    observations, actions = dataset.observation_space, dataset.action_space
    if not isinstance(actions, Discrete) or actions.start != 0 or actions.n < 2:
        raise DatasetError(f"actions {actions}", where=path, expected="Discrete actions, 2 or more, from 0")
    shape = _without_channel(observations.shape) if isinstance(observations, Box) else ()
    if len(shape) != 1 and (len(shape) != 2 or observations.dtype != np.uint8):
        raise DatasetError(
            f"observations {observations}",
            where=path,
            expected="vectors, or uint8 frames (H, W), (H, W, 1) or (1, H, W)",
            hint="write gray frames, or features, into a dataset of your own",
        )
    if spec is None:
        names = action_names or default_action_names(int(actions.n))
        if len(names) != actions.n:
            raise ConfigError(f"{len(names)} action names", where=path, expected=f"{actions.n}, one for each action")
        if len(shape) == 2:
            return TaskSpec.pixels((stack or USUAL_STACK, *shape), names)
        require_untold(path, stack, None)
        return TaskSpec.vector(shape[0], names)
    stacked = shape if len(shape) == 1 else (spec.stack, *shape)
    if (spec.observation_shape, spec.num_actions) != (stacked, actions.n):
        raise SpecMismatchError(
            f"observations {stacked}, {actions.n} actions",
            where=path,
            expected=f"{spec.observation_shape}, {spec.num_actions} actions",
            hint="pass the task of this data",
        )
    return spec


def _without_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(H, W) of one gray frame with a channel axis; other shapes as they are."""
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return shape[1:] if shape[0] == 1 else shape[:2]
    return shape


@dataclass(frozen=True)
class _Members:
    """One episode's arrays."""

    path: Path
    index: int
    arrays: Mapping[str, Any]

    @property
    def remake(self) -> str:
        return _HINT

    def read(self, name: str) -> NDArray[Any]:
        return np.asarray(self.arrays[name])

    def fault(self, what: str, *, expected: str, hint: str) -> DatasetError:
        return DatasetError(what, where=f"{self.path}: episode {self.index}", expected=expected, hint=hint)


def _episodes(path: Path, dataset: Any, spec: TaskSpec, *, is_ours: bool) -> Iterator[Episode]:
    found = dataset.iterate_episodes()
    for index in range(dataset.total_episodes):
        members = _Members(path, index, {})
        try:
            data = next(found)
        except Exception as error:  # its storages fail in many ways on damaged bytes
            raise members.fault(
                f"cannot be read ({type(error).__name__}: {error})", expected="an episode", hint=_HINT
            ) from error
        arrays = {
            "observations": data.observations,
            "actions": data.actions,
            "rewards": data.rewards,
            "terminated": data.terminations,
            "truncated": data.truncations,
        }
        if len(data.rewards):
            yield _episode(_Members(path, index, arrays), spec, (data.infos or {}) if is_ours else {})


def _episode(members: _Members, spec: TaskSpec, extras: Mapping[str, Any]) -> Episode:
    actions = read_actions(members, spec.num_actions)
    rewards = read_rewards(members, len(actions))
    flags = {}
    for name in ("terminated", "truncated"):
        flag = read_flags(members, name, len(actions))
        early = np.flatnonzero(flag[:-1])
        if early.size:
            raise members.fault(
                f"{name} is true at row {early[0]}, inside an episode",
                expected="true only at its last step",
                hint=_HINT,
            )
        flags[name] = bool(flag[-1])
    observations = _observations(members, spec, len(actions) + 1)
    leading = np.asarray(extras.get(_LEADING, observations[:0]))
    if (leading.shape[1:], leading.dtype) != (observations.shape[1:], observations.dtype):
        raise unfit(members, _LEADING, leading, f"{observations.dtype} {list(observations.shape[1:])} each")
    return Episode(
        observations=np.concatenate([leading, observations]) if len(leading) else observations,
        actions=actions,
        rewards=rewards,
        behaviour_probability=extras.get(_PROBABILITY),
        leading=len(leading),
        action_mask=extras.get(_LEGAL),
        **flags,
    )


def _observations(members: _Members, spec: TaskSpec, num_rows: int) -> NDArray[Any]:
    """Single frames uint8 [T + 1, H, W], or float32 [T + 1, D]."""
    found = members.read("observations")
    shape = spec.observation_shape[-2:] if spec.is_pixels else spec.observation_shape
    kinds = "u" if spec.is_pixels else "fiu"
    if found.ndim < 2:
        raise unfit(members, "observations", found, f"[{num_rows}, ...]")
    values = found.reshape(len(found), *_without_channel(found.shape[1:])) if spec.is_pixels else found
    if values.shape != (num_rows, *shape) or found.dtype.kind not in kinds or (spec.is_pixels and found.itemsize > 1):
        raise unfit(members, "observations", found, f"[{num_rows}, {', '.join(map(str, shape))}]")
    if spec.is_pixels:
        return values
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
        vectors = values.astype(np.float32)
    require_finite(members, "observations", vectors)
    return vectors


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise missing_dependency("minari", extra="minari", purpose="Minari's datasets") from error
    return minari

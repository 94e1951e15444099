"""Plain arrays of logged steps as a dataset in the frames layout, in one call (no torch here)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.errors import ConfigError, DatasetError
from offrl.shards._members import (
    read_action_mask,
    read_actions,
    read_behaviour_probability,
    read_episode_lengths,
    read_flags,
    read_rewards,
    require_at_ends,
    require_finite,
    require_rows,
    unfit,
)
from offrl.shards._stacked_layout import is_channels_last
from offrl.shards.episode import SHARD_BYTES, split_episodes, write_shards
from offrl.shards.manifest import Manifest
from offrl.spec import TaskSpec, default_action_names
from offrl.system.files import new_directory
from offrl.system.json_files import require_json

_LOOKED_AT = 16  # rows of the first episode that are compared, to tell stacks from channels


def write_dataset(
    directory: Path | str,
    *,
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike | None = None,
    episode_lengths: ArrayLike | None = None,
    episode_ids: ArrayLike | None = None,
    behaviour_probability: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
    action_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    stack: int = 4,
    environment: Mapping[str, Any] | None = None,
    generator: Mapping[str, Any] | None = None,
    compress: bool = True,
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Writes N logged steps of E episodes, which follow each other in the arrays, as a dataset in the frames layout.

    An episode ends where its id changes, after as many steps as its length says, or, where neither is given, where
    `terminated` or `truncated` is true. The last row of all ends the last episode. An episode whose end is not
    terminated counts as truncated.

    Observations are best given with what the last step of each episode led to, steps + 1 rows an episode. Without these
    rows, an episode that terminated repeats its last observation, on which no return depends; one that was truncated
    loses its last step, with a warning, because its value depends on what that step led to.

    Args:
        directory: A new directory. It appears whole or not at all.
        observations: Vectors, real numbers [N + E, D] or [N, D], kept as float32; or single frames, uint8
            [N + E, H, W] or [N, H, W], or [..., C, H, W] for frames of C channels. Frames of booleans, such as
            MinAtar's, are kept as 0 and 1, and networks see just these; those of uint8 they see as value / 128 - 1.
        actions: Integers 0 .. A-1, [N].
        rewards: Real numbers [N], kept as float32.
        terminated: Whether the step ended the task, [N].
        truncated: Whether the step was the last one for another reason, such as a time limit, [N].
        episode_lengths: Steps of each episode, [E].
        episode_ids: The episode of each step, numbers or texts [N]; the rows of an episode lie together.
        behaviour_probability: How likely the logging policy was to choose the action, [N]; NaN where unknown.
        action_mask: The legal actions at each step, booleans (or 0 and 1) [N, A].
        action_names: What each action does, in words. Without names, A is the width of `action_mask`, or the highest
            action plus one.
        feature_names: For vectors: what each number is, in words: other data whose features stand in another order is
            then refused.
        stack: For frames: how many make an observation, gray or of C channels.
        environment: What the data was recorded in, JSON-ready, such as {"id": "my-game"}.
        generator: What recorded it, JSON-ready, such as {"name": "my-logger"}.
        compress: Deflate the shards.
        shard_bytes: Of the observations in one shard, before compression, unless one episode has more.

    Returns:
        The manifest of the dataset.

    Raises:
        ConfigError: Lengths beside ids, or a setting outside what is allowed.
        DatasetError: An array does not fit the others or holds what cannot be learned from; the directory exists, or
            cannot be written.
    """
    directory = Path(directory)
    for name, said in (("environment", environment), ("generator", generator)):
        require_json(said or {}, f"write_dataset.{name}")
    if episode_lengths is not None and episode_ids is not None:
        raise ConfigError("episode_ids beside episode_lengths", where="write_dataset", expected="one of the two")
    if stack < 1 or shard_bytes < 1:
        raise ConfigError(f"stack={stack}, shard_bytes={shard_bytes}", where="write_dataset", expected="1 or more")
    action_names, features = _names(action_names, "action_names"), _names(feature_names, "feature_names")
    require_new(directory)
    given = _Given(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        episode_lengths=episode_lengths,
        episode_ids=episode_ids,
        behaviour_probability=behaviour_probability,
        action_mask=_flags(action_mask),
    )
    steps = _steps(given, action_names)
    num_steps = len(steps["actions"])
    ended, cut = (
        read_flags(given, name, num_steps) if name in given else np.zeros(num_steps, np.bool_)
        for name in ("terminated", "truncated")
    )
    lengths = _lengths(given, ended | cut)
    ends = np.cumsum(lengths) - 1
    is_end = np.isin(np.arange(num_steps), ends)
    require_at_ends(given, "terminated", ended, is_end)
    require_at_ends(given, "truncated", cut, is_end)
    rows, has_last = _observations(given, lengths)
    if features is not None and (rows.ndim != 2 or len(features) != rows.shape[1]):
        expected = f"{rows.shape[1]}, one for each feature" if rows.ndim == 2 else "None for frames"
        raise ConfigError(f"{len(features)} names", where="write_dataset.feature_names", expected=expected)
    num_cut_short = 0 if has_last else int((~ended[ends]).sum())
    if num_cut_short:
        warnings.warn(
            f"{num_cut_short} truncated episode(s) lost their last step, because what it led to is not in the "
            "observations; pass steps + 1 rows of observations an episode to keep it",
            stacklevel=2,
        )
    mask = steps["action_mask"]
    num_actions = int(steps["actions"].max()) + 1 if mask is None else mask.shape[1]
    names = default_action_names(max(num_actions, 2)) if action_names is None else tuple(action_names)
    episodes = split_episodes(rows, steps, lengths, ended[ends], cut[ends], np.full(len(lengths), has_last))
    about = {} if environment is None else environment, {"name": "unknown"} if generator is None else generator
    try:
        with new_directory(directory) as partial:
            records = write_shards(partial, episodes, compress=compress, shard_bytes=shard_bytes)
            is_bool = given.read("observations").dtype == np.bool_
            spec = replace(_spec(rows, names, stack, is_bool=is_bool), feature_names=features)
            manifest = Manifest(spec, records, *about)
            manifest.save(partial)
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error})", where=directory, expected="room for it", hint="free some space"
        ) from error
    return manifest


def require_new(path: Path) -> None:
    """Refuses a path where there is something, so that no data is overwritten.

    Raises:
        DatasetError: It exists already.
    """
    if path.exists() or path.is_symlink():
        raise DatasetError("exists already", where=path, expected="a new path", hint="name another, or remove it")


def require_directory(path: Path, *, expected: str = "a directory of .npz shards") -> None:
    """Refuses what is no directory, and says what makes a dataset of a file.

    Args:
        path: Of the data.
        expected: What messages ask for.

    Raises:
        DatasetError: There is nothing, or a file.
    """
    if path.is_dir():
        return
    if str(path).startswith("minari:"):
        what, hint = "is a dataset of Minari's", f"offrl convert {path} DIRECTORY --to frames makes a dataset of it"
    elif not path.exists():
        what = "no such file" if path.suffix else "no such directory"
        hint = "check the path, or collect data first"
    elif not path.is_file():
        what, hint = "is not a directory", "check the path"
    else:
        what, hint = "is a file", "check the path"
        name = path.name.lower()
        if name.endswith((".h5", ".hdf5", ".csv", ".parquet")):
            hint = f"offrl convert {path} DIRECTORY --to frames makes a dataset of it"
        elif name.endswith((".tsv", ".txt", ".json", ".jsonl", ".xls", ".xlsx", ".pq", ".csv.gz")):
            hint = "save it as .csv, separated by commas, or as .parquet, of which offrl convert makes a dataset"
        elif name.endswith((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz")):
            hint = f"offrl fetch {path} DIRECTORY unpacks it"
        elif name.endswith(".npz"):
            hint = f"name the directory that it lies in, {path.parent}"
    raise DatasetError(what, where=path, expected=expected, hint=hint)


class _Given:
    """The arrays of a call by name, with the checks that shards get."""

    remake = "re-create the arrays"

    def __init__(self, **arrays: ArrayLike | None) -> None:
        self._arrays = {name: array for name, array in arrays.items() if array is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def read(self, name: str) -> NDArray[Any]:
        """One of them."""
        return np.asarray(self._arrays[name])

    def fault(self, what: str, *, expected: str, hint: str | None = None) -> DatasetError:
        """An error about the call; hints about files say nothing here."""
        useful = None if hint is None or "re-create" in hint else hint
        return DatasetError(what, where="write_dataset", expected=expected, hint=useful)


def _names(given: object, what: str) -> tuple[str, ...] | None:
    """The names of actions or features, if they are some."""
    if given is None:
        return None
    names = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else ()
    if not names or len({*names}) < len(names) or not all(isinstance(each, str) for each in names):
        raise ConfigError(f"{what}={given!r}", where="write_dataset", expected="texts, no two alike, or None")
    return tuple(map(str, names))  # plain ones, for JSON


def _steps(given: _Given, action_names: Sequence[str] | None) -> dict[str, Any]:
    """Everything that has one row a step, by its name in an `Episode`."""
    has_mask, has_probability = "action_mask" in given, "behaviour_probability" in given
    num_actions = None if action_names is None else len(action_names)
    if has_mask and num_actions is None:
        num_actions = given.read("action_mask").shape[-1]
    actions = read_actions(given, num_actions)
    if not len(actions):
        raise given.fault("holds no transitions", expected="1 step or more")
    probability = read_behaviour_probability(given, len(actions)) if has_probability else None
    if probability is not None and len(zeros := np.flatnonzero(given.read("behaviour_probability") == 0)):
        raise given.fault(
            f"behaviour_probability is 0 at row {zeros[0]}",
            expected="over 0, at most 1: the action was taken",
            hint="NaN where it is unknown",
        )
    return {
        "actions": actions,
        "rewards": read_rewards(given, len(actions)),
        "behaviour_probability": probability,
        "action_mask": read_action_mask(given, actions, num_actions or 0) if has_mask else None,
    }


def _flags(mask: ArrayLike | None) -> ArrayLike | None:
    """Legal actions as booleans where they are the zeros and ones that Gymnasium gives."""
    if mask is None:
        return None
    found = np.asarray(mask)
    is_binary = found.dtype.kind in "iu" and ((found == 0) | (found == 1)).all()
    return found.astype(np.bool_) if is_binary and found.ndim else found


def _lengths(given: _Given, ends: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps of each episode, [E]; `ends` [N] are the steps that the flags say are the last of one."""
    num_steps = len(ends)
    if "episode_lengths" in given:
        return read_episode_lengths(given, num_steps)
    is_last = ends.copy()
    if "episode_ids" in given:
        ids = given.read("episode_ids")
        if ids.ndim != 1 or ids.dtype.kind not in "biufUSM":
            raise unfit(given, "episode_ids", ids, "numbers or texts [N]")
        require_rows(given, "episode_ids", ids, num_steps)
        is_last = np.append(ids[1:] != ids[:-1], True)
        seen, counts = np.unique(ids[is_last], return_counts=True)
        if (counts > 1).any():
            raise given.fault(
                f"episode_ids has {seen[counts > 1][0]!s} again after another episode",
                expected="the rows of an episode together",
                hint="sort the rows by episode and step",
            )
    is_last[-1] = True
    ends_at = np.flatnonzero(is_last)
    return np.diff(ends_at, prepend=-1)


def _observations(given: _Given, lengths: NDArray[np.int64]) -> tuple[NDArray[Any], bool]:
    """Frames or vectors, and whether they hold what the last step of each episode led to."""
    found = given.read("observations")
    is_frames = found.ndim in (3, 4) and found.dtype in (np.uint8, np.bool_)
    if not is_frames and (found.ndim != 2 or found.dtype.kind not in "fiu"):
        scaled = "of floats from 0 to 1 make (255 * observations).round().astype(np.uint8)"
        hint = scaled if found.ndim in (3, 4) and found.dtype.kind == "f" else None
        raise unfit(given, "observations", found, "uint8 or bool frames [N, (C,) H, W] or real numbers [N, D]", hint)
    num_steps = int(lengths.sum())
    has_last = len(found) == num_steps + len(lengths)
    if len(found) != num_steps and not has_last:
        raise given.fault(
            f"observations has {len(found)} rows",
            expected=f"{num_steps + len(lengths)}, steps + 1 of every episode, or {num_steps} without the last ones",
        )
    if not is_frames:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
            found = found.astype(np.float32, copy=False)
        require_finite(given, "observations", found)
    elif found.ndim == 4:
        if is_channels_last(found.shape[1:]):
            raise given.fault(
                f"observations is {found.dtype} {list(found.shape)}: the channels are last",
                expected="[N, C, H, W]",
                hint="pass observations.transpose(0, 3, 1, 2)",
            )
        _require_no_stacks(given, found[: min(int(lengths[0]) + has_last, _LOOKED_AT)])
    return found.view(np.uint8) if found.dtype == np.bool_ else found, has_last


def _require_no_stacks(given: _Given, frames: NDArray[Any]) -> None:
    """Refuses stacks [T, S, H, W], which would be taken for frames of S channels without a word."""
    moves_on = len(frames) > 1 and np.array_equal(frames[1:, :-1], frames[:-1, 1:])
    if moves_on and frames.shape[1] > 1 and (frames[:, 0] != frames[:, -1]).any():
        raise given.fault(
            "observations are stacks: each row is the one before, moved on by one frame",
            expected="one frame a row, [N, H, W], or [N, C, H, W] of C channels",
            hint="pass the newest frames, observations[:, -1]",
        )


def _spec(observations: NDArray[Any], names: tuple[str, ...], stack: int, *, is_bool: bool) -> TaskSpec:
    if observations.ndim == 2:
        return TaskSpec.vector(observations.shape[1], names)
    channels = observations.shape[1] if observations.ndim == 4 else 1
    height, width = observations.shape[-2:]
    shape = (stack * channels, height, width)
    # Ones as networks see them: 1 / 128 - 1 would hardly differ from what they see of a zero.
    return (
        TaskSpec(shape, "uint8", names, channels=channels)
        if is_bool
        else TaskSpec.pixels(shape, names, channels=channels)
    )

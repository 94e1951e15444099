"""What every member of a shard must be: shapes, types and values, each fault a DatasetError that names it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError

_SHOWN = 4
_NO_NUMBERS = "number the discrete actions (a table of continuous ones has one for each row), and save the numbers"


class Members(Protocol):
    """Arrays by name, of a shard or of an episode in another format; `NpzReader` is one."""

    @property
    def remake(self) -> str:
        """How to get them right, in the imperative."""
        ...

    def read(self, name: str) -> NDArray[Any]:
        """One member; DatasetError where it is missing or damaged."""
        ...

    def fault(self, what: str, *, expected: str, hint: str) -> DatasetError:
        """An error that says where these members are."""
        ...


def read_actions(shard: Members, num_actions: int | None) -> NDArray[np.int64]:
    """The member `actions`, integers of any width, [N] or [N, 1].

    Raises:
        DatasetError: it is missing, damaged, not of integers, or outside 0..num_actions - 1.
    """
    found = shard.read("actions")
    if found.ndim == 2 and found.shape[1] > 1:
        raise unfit(shard, "actions", found, "integers [N]", _hint_for_rows(found))
    found = _column(shard, "actions", found)
    if found.dtype.kind not in "iu":
        raise unfit(shard, "actions", found, "integers", _hint_for_numbers(found))
    lowest, highest = int(found.min(initial=0)), int(found.max(initial=0))
    limit = 2**15 if num_actions is None else num_actions  # beyond that it is no action table but something else
    if lowest < 0 or highest >= limit:
        wrong = lowest if lowest < 0 else highest
        from_one = highest == num_actions and found.min() == 1
        raise shard.fault(
            f"actions has {wrong} at row {int(np.flatnonzero(found == wrong)[0])}",
            expected=f"integers 0..{limit - 1}",
            hint="they look counted from 1: save actions - 1"
            if from_one
            else f"{shard.remake}, without rows that only fill up"
            if lowest < 0
            else f"{shard.remake}, or pass a spec with all the actions",
        )
    return found.astype(np.int64)


def _hint_for_rows(found: NDArray[Any]) -> str:
    """What to do about actions [N, K]."""
    if found.dtype.kind in "biuf" and ((found == 0) | (found == 1)).all() and (found.sum(axis=1) == 1).all():
        return "they are one-hot: save actions.argmax(axis=1)"
    return _NO_NUMBERS


def _hint_for_numbers(found: NDArray[Any]) -> str:
    """What to do about actions [N] of another type than integers."""
    if found.dtype.kind in "bf" and np.isin(found, np.arange(2**15)).all():
        return "they are whole numbers: save actions.astype(np.int64)"
    if found.dtype.kind in "US" and all(text.isdecimal() for text in found.ravel()[:100].astype("U")):
        return "they are numbers as texts: save actions.astype(np.int64)"
    return _NO_NUMBERS


def read_rewards(shard: Members, num_rows: int) -> NDArray[np.float32]:
    """The member `rewards`, real numbers [N] or [N, 1].

    Raises:
        DatasetError: it is missing, damaged, has other than `num_rows` rows, or a value that is not finite.
    """
    found = _column(shard, "rewards", shard.read("rewards"))
    require_rows(shard, "rewards", found, num_rows)
    if found.dtype.kind not in "fiu":
        raise unfit(shard, "rewards", found, "real numbers")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
        rewards = found.astype(np.float32)
    require_finite(shard, "rewards", rewards)
    return rewards


def read_flags(shard: Members, name: str, num_rows: int) -> NDArray[np.bool_]:
    """A member of booleans, or of zeros and ones of any type, [N] or [N, 1].

    Raises:
        DatasetError: it is missing, damaged, has other than `num_rows` rows, or holds other values.
    """
    found = _column(shard, name, shard.read(name))
    require_rows(shard, name, found, num_rows)
    if found.dtype.kind not in "biuf":
        raise unfit(shard, name, found, "booleans", _hint_for_texts(name, found) or shard.remake)
    wrong = np.flatnonzero((found != 0) & (found != 1))
    if wrong.size:
        raise shard.fault(f"{name} has {found[wrong[0]]} at row {wrong[0]}", expected="0 or 1", hint=shard.remake)
    return found.astype(np.bool_)


def _hint_for_texts(name: str, found: NDArray[Any]) -> str | None:
    """What to do about flags that are texts."""
    if found.dtype.kind not in "US":
        return None
    values = np.unique(found)[:_SHOWN].tolist()
    plain = [(each.decode(errors="replace") if isinstance(each, bytes) else each).strip().lower() for each in values]
    true = [value for value, text in zip(values, plain, strict=True) if text in ("true", "t", "yes", "y", "1", "1.0")]
    comparison = f"{name} == {true[0]!r}" if len(true) == 1 else "a comparison"
    return f"they are texts ({', '.join(map(repr, values))}): save {comparison}"


def read_episode_lengths(shard: Members, num_rows: int) -> NDArray[np.int64]:
    """The member `episode_lengths`, the steps of each episode, [E].

    Raises:
        DatasetError: it is missing, damaged, or its lengths do not add up to `num_rows`.
    """
    lengths = shard.read("episode_lengths")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise unfit(shard, "episode_lengths", lengths, "integers [E]")
    # Each is compared on its own before the sum, which damaged values could overflow.
    if (lengths < 1).any() or (lengths > num_rows).any() or lengths.astype(np.int64).sum() != num_rows:
        raise shard.fault(
            f"episode_lengths (smallest {lengths.min(initial=num_rows)}) do not add up to the rows of actions",
            expected=f"lengths of 1 or more that add up to {num_rows}",
            hint=shard.remake,
        )
    return lengths.astype(np.int64)


def read_behaviour_probability(shard: Members, num_rows: int) -> NDArray[np.float32]:
    """The member `behaviour_probability`, [N], NaN where it is unknown.

    Raises:
        DatasetError: it is missing, damaged, has other than `num_rows` rows, or a value that is no probability.
    """
    found = shard.read("behaviour_probability")
    if found.shape != (num_rows,) or found.dtype.kind != "f":
        raise unfit(shard, "behaviour_probability", found, f"float [{num_rows}]")
    known = found[~np.isnan(found)]
    if ((known < 0) | (known > 1)).any():
        raise shard.fault("behaviour_probability has values outside 0..1", expected="probabilities", hint=shard.remake)
    return found.astype(np.float32, copy=False)


def read_action_mask(shard: Members, actions: NDArray[np.int64], num_actions: int) -> NDArray[np.bool_]:
    """The member `action_mask`, the legal actions at each step, bool [N, A].

    Raises:
        DatasetError: it is missing, damaged, of another shape, or forbids an action that was taken.
    """
    found = shard.read("action_mask")
    if found.shape != (len(actions), num_actions) or found.dtype != np.bool_:
        raise unfit(shard, "action_mask", found, f"bool [{len(actions)}, {num_actions}]")
    illegal = ~found[np.arange(len(actions)), actions]
    if illegal.any():
        row = int(np.flatnonzero(illegal)[0])
        raise shard.fault(
            f"action_mask forbids the action taken at row {row} ({actions[row]})",
            expected="it legal",
            hint=shard.remake,
        )
    return found


def require_at_ends(shard: Members, name: str, flags: NDArray[np.bool_], is_end: NDArray[np.bool_]) -> None:
    """Raises DatasetError where a flag, [N], is true at a step that is not the last of its episode."""
    inside = np.flatnonzero(flags & ~is_end)
    if inside.size:
        raise shard.fault(
            f"{name} is true at row {inside[0]}, inside an episode",
            expected="true only at the last step of an episode, by episode_lengths",
            hint=shard.remake,
        )


def _column(shard: Members, name: str, found: NDArray[Any]) -> NDArray[Any]:
    """A member of shape [N] or [N, 1], as [N]."""
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise unfit(shard, name, found, "[N]")
    return found


def require_rows(shard: Members, name: str, found: NDArray[Any], num_rows: int) -> None:
    """Raises DatasetError unless the member has as many rows as `actions`."""
    if len(found) != num_rows:
        raise shard.fault(
            f"{name} has {len(found)} rows",
            expected=f"{num_rows}, like actions",
            hint="the file is cut short or mixes two runs: re-create it",
        )


def require_finite(shard: Members, name: str, values: NDArray[Any]) -> None:
    """Raises DatasetError where a member, [N] or [N, D], holds NaN or infinities."""
    bad = ~np.isfinite(values)
    if bad.any():
        place = np.argwhere(bad)[0]
        raise shard.fault(
            f"{name} has {values[tuple(place)]} at row {place[0]}",
            expected="finite numbers in the range of float32",
            hint="drop that episode or repair the logger",
        )


def unfit(shard: Members, name: str, found: NDArray[Any], expected: str, hint: str | None = None) -> DatasetError:
    """The error for a member whose type or shape is wrong."""
    return shard.fault(f"{name} is {found.dtype} {list(found.shape)}", expected=expected, hint=hint or shard.remake)

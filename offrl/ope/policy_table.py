"""What a policy does at every logged observation: computed once, so that no estimator has to ask it again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from offrl.algorithms import Algorithm
from offrl.errors import ConfigError, SpecMismatchError
from offrl.ope.episodes import in_parts, last_and_cut, require_legal_choice, require_whole_episodes
from offrl.policies.acting import NetworkPolicy
from offrl.policies.policy import Policy, takes_action_masks
from offrl.replay import Replay

Evaluated: TypeAlias = Policy | Callable[..., NDArray[Any]]
"""A policy of offrl's, or a function of raw observations [N, ...] (and legal actions [N, A], where the task has them).

The function gives actions int [N] or probabilities [N, A].
"""

_TOLERANCE = 1e-4
_PARTS = {"train": "training", "held_out": "held-out"}


@dataclass(frozen=True)
class PolicyTable:
    """The probabilities with which a policy takes each action, for N transitions of a replay.

    Attributes:
        current: float32 [N, A], at the observation of each transition.
        following: float32 [N, A], at the observation one step on; where the episode terminated there nothing follows,
            and the row repeats `current`.
        part: Of which transitions, see `part_of`; None where that is not known.
    """

    current: NDArray[np.float32]
    following: NDArray[np.float32]
    part: str | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the policy takes one action for certain, everywhere."""
        return bool((self.following.max(axis=1) == 1).all() and (self.current.max(axis=1) == 1).all())


def part_of(replay: Replay) -> str:
    """Which transitions of which data a replay has: its training part, or its held-out one."""
    rows = hashlib.sha256(np.ascontiguousarray(replay.rows).data).hexdigest()[:16]
    return f"{replay.fingerprint}:{rows}"


def require_part(tables: Iterable[PolicyTable | NDArray[Any]], replay: Replay, where: str) -> None:
    """Checks that tables are of a replay's own transitions, as far as they say it: actions [N] only say how many.

    Raises:
        ConfigError: One is of others, such as those of the other part.
    """
    part: str | None = None
    for table in tables:
        size = len(table.following) if isinstance(table, PolicyTable) else len(table)
        what = None if size == len(replay.rows) else f"a table of {size:,} transitions"
        if what is None and isinstance(table, PolicyTable) and table.part is not None:
            part = part or part_of(replay)
            what = None if table.part == part else f"a table of {size:,} other transitions"
        if what is not None:
            raise ConfigError(
                what,
                where=where,
                expected=f"{len(replay.rows):,}, the {_PARTS[replay.config.part]} part's",
                hint="pass tabulate(policy, replay) of the same replay",
            )


def tabulate(policy: Evaluated, replay: Replay, *, name: str = "policy", progress: bool | None = None) -> PolicyTable:
    """Asks a policy once for each observation of a replay's episodes: `tabulate_each` of one policy."""
    return tabulate_each({name: policy}, replay, progress=progress)[name]


def tabulate_each(
    policies: Mapping[str, Evaluated], replay: Replay, *, progress: bool | None = None
) -> dict[str, PolicyTable]:
    """Asks policies once for each observation of a replay's episodes.

    Networks that several of offrl's policies share, with different thresholds, are asked once for all of these.

    Args:
        policies: By name, for errors and the bar: TorchPolicies, OnnxPolicies, or functions; see `Evaluated`.
        replay: Whole episodes, of its training or of its held-out part.
        progress: Whether to show a bar; None shows it on a terminal only.

    Raises:
        SpecMismatchError: A policy is of another task, or may take no action at some observation.
        ConfigError: One gives neither actions nor probabilities, or probabilities that are none; a replay of some
            actions only.
    """
    for name, policy in policies.items():
        if isinstance(policy, Algorithm):
            raise ConfigError(
                f"{type(policy).__name__}, which takes normalised tensors",
                where=name,
                expected="a policy of raw observations",
                hint="pass TorchPolicy(algorithm)",
            )
        spec = getattr(policy, "spec", None)
        if spec is not None:
            hint = "evaluate it on data of the task that it was trained for"
            spec.require_same(replay.spec, where=name, hint=hint, legal_actions=False)
        require_whole_episodes(replay, name)
        if takes_action_masks(policy):
            require_legal_choice(policy, replay, name)
    groups: dict[tuple[int, object], dict[str, Evaluated]] = {}
    for name, policy in policies.items():
        shared = (id(policy.networks), type(policy)._outputs) if _is_plain(policy) else (id(policy), None)
        groups.setdefault(shared, {})[name] = policy
    found: dict[str, PolicyTable] = {}
    for group in groups.values():
        found |= _tables(group, replay, progress)
    return {name: found[name] for name in policies}


def _is_plain(policy: Evaluated) -> TypeGuard[NetworkPolicy]:
    """Whether a policy chooses as offrl's do: a subclass of a user's may choose otherwise, and is asked whole."""
    return (
        isinstance(policy, NetworkPolicy)
        and type(policy).probabilities is NetworkPolicy.probabilities
        and type(policy).probabilities_of is NetworkPolicy.probabilities_of
        and type(policy).outputs is NetworkPolicy.outputs
        and type(policy)._choices is NetworkPolicy._choices
    )


def _tables(policies: Mapping[str, Evaluated], replay: Replay, progress: bool | None) -> dict[str, PolicyTable]:
    """Those of policies that share their networks."""
    store, rows, num_actions = replay.store, replay.rows, replay.spec.num_actions
    is_last, cut = last_and_cut(replay)
    first = next(iter(policies))
    title = f"{first}{f' and {len(policies) - 1} more' if len(policies) > 1 else ''} on the data"
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in policies}
    hidden = None if progress is None else not progress
    for chosen in tqdm(in_parts(rows), title, unit="batch", disable=hidden):
        mask = None if store.action_mask is None else store.action_mask[chosen]
        for name, answer in _ask(policies, store.observations(chosen), mask):
            parts[name].append(_checked(answer, (len(chosen), num_actions), mask, name))
    current = {name: np.concatenate(each) for name, each in parts.items()}
    following = {name: np.roll(each, -1, axis=0) for name, each in current.items()}
    for name, each in following.items():
        each[is_last] = current[name][is_last]
    for chosen in in_parts(cut):
        # Logs hold no legal actions for the observation that an episode ends with: there, all count as legal.
        mask = None if store.action_mask is None else np.ones((len(chosen), num_actions), np.bool_)
        for name, answer in _ask(policies, store.next_observations(rows[chosen]), mask):
            following[name][chosen] = _checked(answer, (len(chosen), num_actions), mask, name)
    part = part_of(replay)
    return {name: PolicyTable(current[name], following[name], part) for name in policies}


def _ask(
    policies: Mapping[str, Evaluated], observations: NDArray[Any], mask: NDArray[np.bool_] | None
) -> Iterator[tuple[str, object]]:
    """What policies that share their networks, if they are such, say: one after the other, from one pass."""
    outputs = None
    for name, policy in policies.items():
        # A policy says whether it needs masks. A function without a spec of its own is given those that there are.
        wants_masks = takes_action_masks(policy) or not hasattr(policy, "spec")
        masks = () if mask is None or not wants_masks else (mask,)
        if _is_plain(policy):
            outputs = policy.outputs(observations, *masks) if outputs is None else outputs
            yield name, policy.probabilities_of(outputs, *masks)
        else:
            function: Callable[..., object] = getattr(policy, "probabilities", policy)
            _require_takes(function, observations, masks, name)
            yield name, function(observations, *masks)


def _require_takes(function: Callable[..., object], observations: object, masks: tuple[object, ...], name: str) -> None:
    """Refuses a function that cannot be called so, before whatever it raises itself can be taken for that."""
    if not callable(function):
        raise ConfigError(f"a {type(function).__name__}", where=name, expected="a policy, or a function")
    try:
        signature(function).bind(observations, *masks)
    except ValueError:  # one of C's has none
        return
    except TypeError:
        what = "observations [N, ...] and legal actions bool [N, A]" if masks else "observations [N, ...]"
        raise ConfigError(
            f"a function of ({', '.join(signature(function).parameters)})",
            where=name,
            expected=f"one that takes {what}",
            hint="the data has legal actions: take them as the second argument" if masks else None,
        ) from None


def _checked(answer: object, shape: tuple[int, int], mask: NDArray[np.bool_] | None, name: str) -> NDArray[np.float32]:
    """An answer, actions int [N] or probabilities [N, A], as probabilities float32 [N, A].

    Args:
        answer: An array, a tensor, or lists.
        shape: N and A.
        mask: bool [N, A], the legal actions, or None where all are.
        name: Of the policy.

    Raises:
        ConfigError: It is neither.
        SpecMismatchError: It takes an illegal action.
    """
    size, num_actions = shape

    def refused(what: str) -> ConfigError:
        return ConfigError(
            what,
            where=name,
            expected=f"actions 0..{num_actions - 1}, int [N], or probabilities [N, {num_actions}], whose rows sum to 1",
        )

    if isinstance(answer, Tensor):
        answer = answer.detach().cpu()
    try:
        found = np.asarray(answer)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of several lengths, tensors that numpy cannot hold
        raise refused(f"gives a {type(answer).__name__} that is no array") from error
    if found.dtype.kind not in "biuf":
        raise refused(f"gives {found.dtype} {list(found.shape)}")
    if found.shape == (size,) and np.issubdtype(found.dtype, np.integer):
        is_action = (found >= 0) & (found < num_actions)
        if not is_action.all():
            raise refused(f"gives action {found[~is_action][0]}")
        found = np.eye(num_actions, dtype=np.float32)[found]
    if found.shape != shape:
        raise refused(f"gives {found.dtype} {list(found.shape)}")
    if not np.isfinite(found).all() or (found < 0).any() or (abs(found.sum(axis=1) - 1) > _TOLERANCE).any():
        raise refused("gives rows that are no probabilities: NaN, below 0, or of another sum than 1")
    if mask is not None and (found[~mask] > 0).any():
        raise SpecMismatchError(
            "takes an illegal action",
            where=name,
            expected="legal actions only, as action_mask names them",
            hint="a function: read the mask, its second argument; a policy: train it on data with legal actions",
        )
    return found.astype(np.float32)


def logged_table(replay: Replay) -> PolicyTable:
    """The log itself as a policy: it takes the logged actions, and after the end of an episode its last one once more.

    With it, fitted Q evaluation is SARSA, and tells what the behaviour is worth beyond where the log cuts episodes.

    Args:
        replay: Whole episodes.
    """
    store, rows = replay.store, replay.rows
    current = np.eye(replay.spec.num_actions, dtype=np.float32)[store.actions[rows]]
    following = np.roll(current, -1, axis=0)
    is_last = store.segment_end[rows] == rows
    following[is_last] = current[is_last]
    return PolicyTable(current, following, part_of(replay))

"""The settings of a replay."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from offrl.checks import Checks, is_whole
from offrl.errors import ConfigError
from offrl.replay.sampling import Sampling, parse_sampling
from offrl.system.files import parse_size

Part = Literal["train", "held_out"]
ReplayTier = Literal["auto", "device", "ram", "mmap"]
Extra = Literal["next_action", "behaviour_probability", "index"]


@dataclass(frozen=True)
class ReplayConfig:
    """What a replay draws, and how it makes transitions of it.

    Attributes:
        n_step: Steps summed into one reward, at least 1; fewer where the episode ends before.
        discount: Per step, in [0, 1].
        reward_clip: Each step's reward is cut to -reward_clip .. reward_clip; None leaves it as it is.
        reward_scale: Rewards are then multiplied by it; finite and not 0.
        actions: Only transitions that took one of these actions are drawn, and all other actions count as illegal;
            None takes all. Where the data has an action mask, transitions that lead to where none of these is legal are
            not drawn either.
        sampling: How often each transition is drawn: "uniform", "top-returns:0.1" (only the best tenth of the
            episodes), "softmax-returns:0.1" (a temperature), "balanced-actions", or an object with `weights`.
        held_out: Share of the episodes to keep from training, 0 or more, under 1.
        split_seed: Chooses the episodes that are held out; apart from `seed`, so that runs with other seeds keep the
            same episodes.
        part: "train", or "held_out" for a replay over the episodes that the training part lacks.
        seed: Of the sampler, 0 .. 2**64 - 1.
        tier: Where the frames are kept: on the "device" that trains, in "ram", or memory-mapped on disk ("mmap");
            "auto" takes the first of these that has twice as much memory free, the device only where it is a GPU. The
            batches are the same bytes from each.
        include: Fields that each batch carries besides: "next_action", "behaviour_probability", "index".
        stream: For data larger than the disk: shards go through a local cache of at most so many bytes, such as "20G",
            see `offrl.replay.streaming.source`; None keeps all of the data here.
        legal_actions: The only actions that the policy may take; all others count as illegal, but transitions with them
            are learned from. None for all, or for `actions` where these are given. Where the data has an action mask,
            transitions that lead to where none of these is legal are not drawn.

    Raises:
        ConfigError: A setting outside what is allowed.
    """

    n_step: int = 1
    discount: float = 0.99
    reward_clip: float | None = None
    reward_scale: float = 1.0
    actions: Sequence[int] | None = None
    sampling: Sampling | str = "uniform"
    held_out: float = 0.0
    split_seed: int = 0
    part: Part = "train"
    seed: int = 0
    tier: ReplayTier = "auto"
    include: Sequence[Extra] = ()
    stream: int | str | None = None
    legal_actions: Sequence[int] | None = None

    def __post_init__(self) -> None:
        checks = Checks(self, "Replay")
        checks.whole("n_step", least=1)
        checks.number("discount", "a number in [0, 1]", lambda discount: 0 <= discount <= 1)
        if self.reward_clip is not None:
            checks.number("reward_clip", "a number over 0, or None", lambda clip: clip > 0)
        checks.number("reward_scale", "a finite number other than 0", lambda scale: scale != 0)
        checks.number("held_out", "a share in [0, 1)", lambda share: 0 <= share < 1)
        checks.whole("split_seed", least=0, most=2**64 - 1)
        checks.whole("seed", least=0, most=2**64 - 1)
        checks.choice("tier", get_args(ReplayTier))
        checks.choice("part", get_args(Part))
        holds_out = self.part == "train" or self.held_out > 0
        checks.that(holds_out, "part", "'train', or held_out over 0 beside it: no episodes are held out")
        for name in ("actions", "legal_actions"):
            if (given := getattr(self, name)) is not None:
                checks.that(_are_actions(given), name, "one or more actions, or None")
                object.__setattr__(self, name, tuple(sorted({int(action) for action in given})))
        if self.actions is not None and self.legal_actions is not None:
            are_drawn = {*self.legal_actions} <= {*self.actions}
            checks.that(are_drawn, "legal_actions", f"some of the setting actions, {self.actions}, or None")
        if isinstance(self.sampling, str):
            object.__setattr__(self, "sampling", parse_sampling(self.sampling))
        is_strategy = callable(getattr(self.sampling, "weights", None))
        checks.that(is_strategy, "sampling", "a name, or an object with `weights`")
        is_list = isinstance(self.include, Sequence) and not isinstance(self.include, str)
        known = is_list and all(isinstance(each, str) and each in get_args(Extra) for each in self.include)
        checks.that(known, "include", f"some of {get_args(Extra)}")
        if self.stream is not None:
            object.__setattr__(self, "stream", _bytes(self.stream))
        for name in ("n_step", "split_seed", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def legal(self) -> tuple[int, ...] | None:
        """The only actions that the policy may take, ascending; None for all."""
        found = self.actions if self.legal_actions is None else self.legal_actions
        return None if found is None else tuple(found)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ReplayConfig:
        """The config of these settings by name; what is not named has its default.

        Raises:
            ConfigError: An unknown name, or a setting outside what is allowed.
        """
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise ConfigError(
                    f"no setting {name!r}",
                    where="Replay",
                    expected=f"one of {', '.join(names)}",
                    hint=f"did you mean {near[0]}?" if near else None,
                )
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """What a run's result depends on, JSON-ready: all but `tier`; three settings only where set."""
        values = {
            **asdict(self),
            "actions": None if self.actions is None else list(self.actions),
            "legal_actions": None if self.legal_actions is None else list(self.legal_actions),
            "sampling": str(self.sampling),
            "include": list(self.include),
        }
        del values["tier"]
        for name in ("include", "legal_actions", "stream"):  # so that runs of before them compare as equal
            if not values[name]:
                del values[name]
        return values


def config_of(config: ReplayConfig | None, settings: Mapping[str, Any]) -> ReplayConfig:
    """The config as given, or of these settings by name.

    Raises:
        ConfigError: Both are given, a name is unknown, or a setting is outside what is allowed.
    """
    if config is not None and settings:
        raise ConfigError(f"{', '.join(settings)} beside a config", where="Replay", expected="one of the two")
    return ReplayConfig.of(settings) if config is None else config


def _are_actions(given: Any) -> bool:
    is_list = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    return is_list and len(given) > 0 and all(is_whole(each) and each >= 0 for each in given)


def _bytes(size: object) -> int:
    """A size as a number of bytes.

    Raises:
        ConfigError: It is neither a size such as "20G" nor a positive number of bytes.
    """
    try:
        found: Any = parse_size(size) if isinstance(size, str) else size
    except ValueError:
        found = None
    if not is_whole(found) or found < 1:
        raise ConfigError(f"{size!r}", where="Replay.stream", expected='a size in bytes, such as "20G", or None')
    return int(found)

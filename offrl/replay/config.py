"""The settings of a replay."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from offrl.errors import ConfigError
from offrl.replay.sampling import Sampling, parse_sampling

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
            None takes all. Where the data says what is legal, transitions that lead to where none of these actions is
            legal are not drawn either.
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

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise ConfigError(f"{getattr(self, name)!r}", where=f"Replay.{name}", expected=expected)

        require(_is_whole(self.n_step) and self.n_step >= 1, "n_step", "1 or more, a whole number")
        require(_is_number(self.discount) and 0 <= self.discount <= 1, "discount", "a number in [0, 1]")
        clips = self.reward_clip is None or (_is_number(self.reward_clip) and self.reward_clip > 0)
        require(clips, "reward_clip", "a number over 0, or None")
        scales = _is_number(self.reward_scale) and math.isfinite(self.reward_scale) and self.reward_scale != 0
        require(scales, "reward_scale", "a finite number other than 0")
        require(_is_number(self.held_out) and 0 <= self.held_out < 1, "held_out", "a share in [0, 1)")
        require(_is_whole(self.split_seed) and self.split_seed >= 0, "split_seed", "0 or more, a whole number")
        require(_is_whole(self.seed) and 0 <= self.seed < 2**64, "seed", "0 .. 2**64 - 1")
        require(self.tier in get_args(ReplayTier), "tier", f"one of {', '.join(get_args(ReplayTier))}")
        require(self.part in get_args(Part), "part", "'train' or 'held_out'")
        holds_out = self.part == "train" or self.held_out > 0
        require(holds_out, "part", "'train', or held_out over 0 beside it: no episodes are held out")
        if self.actions is not None:
            is_list = isinstance(self.actions, Sequence | np.ndarray) and not isinstance(self.actions, str)
            known = is_list and len(self.actions) > 0 and all(_is_whole(each) and each >= 0 for each in self.actions)
            require(known, "actions", "one or more actions, or None")
            object.__setattr__(self, "actions", tuple(sorted({int(action) for action in self.actions})))
        if isinstance(self.sampling, str):
            object.__setattr__(self, "sampling", parse_sampling(self.sampling))
        require(callable(getattr(self.sampling, "weights", None)), "sampling", "a name, or an object with `weights`")
        is_list = isinstance(self.include, Sequence) and not isinstance(self.include, str)
        require(is_list and set(self.include) <= set(get_args(Extra)), "include", f"some of {get_args(Extra)}")
        for name in ("n_step", "split_seed", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))

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
        """What a run's result depends on, JSON-ready: all but `tier`, and `include` only where it is not empty."""
        values = {
            **asdict(self),
            "actions": None if self.actions is None else list(self.actions),
            "sampling": str(self.sampling),
            "include": list(self.include),
        }
        del values["tier"]
        if not self.include:
            del values["include"]
        return values


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)

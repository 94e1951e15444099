"""What a task looks like to a policy: its observations and its actions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from offrl.checks import is_number, is_whole
from offrl.errors import ConfigError, SpecMismatchError

if TYPE_CHECKING:  # collection workers read specs without paying for torch
    from torch import Tensor

_MOST_ACTIONS = 2**15
_MOST_VALUES = 2**26
_MOST_CHARACTERS = 200
_USUAL = {"channels": 1, "legal_actions": None, "action_masks": False, "feature_names": None}


@dataclass(frozen=True)
class TaskSpec:
    """Observations and actions of a task; equal specs mean that data, policies and environments fit together.

    Attributes:
        observation_shape: (C, H, W) for pixels, C being the channels of all frames of a stack, oldest frame first;
            (D,) for vectors.
        observation_dtype: "uint8" for pixels, "float32" for vectors.
        action_names: what each action does, in words; their number is the number of actions.
        scale: networks see `observation * scale + offset`; for pixels 1/128 and -1, so gray 128 is 0. Of vectors a
            number, or one for each feature.
        offset: see `scale`.
        hud: whether the picture's information bar is "visible", "hidden" (its rows are 0 after
            normalisation, which is gray 128), or None where the task has none.
        channels: of one frame, for pixels: 1 for gray, 3 for RGB. The stack is then C / channels frames.
        legal_actions: the only actions that a policy may take, in ascending order; None for all of them.
        action_masks: whether each observation comes with legal actions of its own (bool [A]), which a policy must
            be given too.
        feature_names: what each number of a vector is, in words, each of its own; None where nobody says it.

    Raises:
        ConfigError: a field outside what is allowed.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: Literal["uint8", "float32"]
    action_names: tuple[str, ...]
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    hud: Literal["visible", "hidden"] | None = None
    channels: int = 1
    legal_actions: tuple[int, ...] | None = None
    action_masks: bool = False
    feature_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("observation_shape", "action_names", "feature_names", "scale", "offset"):
            if isinstance(getattr(self, name), list):  # else the same task would not equal itself
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.observation_shape) not in (1, 3) or min(self.observation_shape) < 1:
            raise ConfigError(
                f"{self.observation_shape}",
                where="TaskSpec.observation_shape",
                expected="(C, H, W) for pixels or (D,) for vectors, all positive",
            )
        expected_dtype = "uint8" if self.is_pixels else "float32"
        if self.observation_dtype != expected_dtype:
            raise ConfigError(
                f"{self.observation_dtype!r} with shape {self.observation_shape}",
                where="TaskSpec.observation_dtype",
                expected=f"{expected_dtype!r}",
            )
        if math.prod(self.observation_shape) > _MOST_VALUES:
            raise ConfigError(
                f"{self.observation_shape}",
                where="TaskSpec.observation_shape",
                expected=f"at most {_MOST_VALUES:,} values in an observation",
            )
        if not isinstance(self.action_names, tuple):
            raise ConfigError(
                f"{self.action_names!r}"[:80],
                where="TaskSpec.action_names",
                expected="a tuple of texts, one for each action",
            )
        if not 2 <= len(self.action_names) <= _MOST_ACTIONS:
            raise ConfigError(
                f"{len(self.action_names)} action(s)",
                where="TaskSpec.action_names",
                expected=f"2 or more, at most {_MOST_ACTIONS:,}",
            )
        for name in self.action_names:
            if not _is_name(name):
                raise ConfigError(
                    f"{str(name)[:40]!r}",
                    where="TaskSpec.action_names",
                    expected=f"texts of at most {_MOST_CHARACTERS} characters",
                )
        divides = is_whole(self.channels) and self.channels >= 1 and (self.is_pixels or self.channels == 1)
        if not divides or (self.is_pixels and self.observation_shape[0] % self.channels):
            raise ConfigError(
                f"{self.channels!r} with shape {self.observation_shape}",
                where="TaskSpec.channels",
                expected="a divisor of the first axis for pixels, 1 for vectors",
            )
        for name in ("scale", "offset"):
            given = getattr(self, name)
            is_each = isinstance(given, tuple) and (len(given),) == self.observation_shape
            if not (all(map(is_number, given)) if is_each else is_number(given)):
                expected = "a finite number" + ("" if self.is_pixels else f", or one for each of {self._features}")
                raise ConfigError(f"{given!r}"[:80], where=f"TaskSpec.{name}", expected=expected)
        if self.feature_names is not None:
            names = self.feature_names if isinstance(self.feature_names, tuple) else ()
            if (len(names),) != self.observation_shape or len({*names}) < len(names) or not all(map(_is_name, names)):
                raise ConfigError(
                    f"{self.feature_names!r}"[:80],
                    where="TaskSpec.feature_names",
                    expected=f"None, or another text for each of {self._features}"
                    + (", of vectors only" if self.is_pixels else ""),
                )
        if self.hud not in (None, "visible", "hidden"):
            raise ConfigError(f"{self.hud!r}", where="TaskSpec.hud", expected="'visible', 'hidden' or None")
        if not isinstance(self.action_masks, bool):
            raise ConfigError(f"{self.action_masks!r}", where="TaskSpec.action_masks", expected="True or False")
        if self.legal_actions is not None:
            are_whole = isinstance(self.legal_actions, list | tuple) and all(map(is_whole, self.legal_actions))
            legal = tuple(sorted({*self.legal_actions})) if are_whole else ()
            if not legal or not 0 <= legal[0] <= legal[-1] < self.num_actions:
                raise ConfigError(
                    f"{self.legal_actions}",
                    where="TaskSpec.legal_actions",
                    expected=f"one or more of 0..{self.num_actions - 1}, or None",
                )
            object.__setattr__(self, "legal_actions", legal)

    @classmethod
    def pixels(
        cls,
        shape: tuple[int, int, int],
        action_names: tuple[str, ...],
        hud: Literal["visible", "hidden"] | None = None,
        *,
        channels: int = 1,
    ) -> TaskSpec:
        """The spec of stacked frames, gray or of several channels, normalised as value / 128 - 1."""
        return cls(shape, "uint8", action_names, scale=1 / 128, offset=-1.0, hud=hud, channels=channels)

    @classmethod
    def vector(
        cls, size: int, action_names: tuple[str, ...], *, feature_names: tuple[str, ...] | None = None
    ) -> TaskSpec:
        """The spec of float vectors, seen by networks as they are."""
        return cls((size,), "float32", action_names, feature_names=feature_names)

    def standardised(self, mean: Sequence[float], deviation: Sequence[float]) -> TaskSpec:
        """The same task of vectors, of which networks see (observation - mean) / deviation.

        Args:
            mean: [D], of each feature.
            deviation: [D], the standard deviation of each; networks see a feature where it is 0 as 0, always.
        """
        scale = tuple(1 / float(each) if each > 0 else 0.0 for each in deviation)
        offset = tuple(-float(each) * factor for each, factor in zip(mean, scale, strict=True))
        return replace(self, scale=scale, offset=offset)

    @property
    def _features(self) -> str:
        return f"{self.observation_shape[0]:,} features"

    @property
    def is_pixels(self) -> bool:
        """Whether observations are stacks of frames."""
        return len(self.observation_shape) == 3

    @property
    def num_actions(self) -> int:
        """A: actions are the integers 0 .. A-1."""
        return len(self.action_names)

    @property
    def stack(self) -> int:
        """Frames in one observation (1 for vectors)."""
        return self.observation_shape[0] // self.channels if self.is_pixels else 1

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of what is stored once a step: (H, W) of a gray frame, (channels, H, W) of others, (D,)."""
        if not self.is_pixels:
            return self.observation_shape
        size = self.observation_shape[1:]
        return size if self.channels == 1 else (self.channels, *size)

    def normalise(self, observation: Tensor) -> Tensor:
        """What networks see: `observation * scale + offset`. [N, ...] -> [N, ...] float32, or floating as it was."""
        values = observation if observation.is_floating_point() else observation.float()
        scale, offset = self.scaling(values)
        return values.mul(scale).add_(offset)  # in place the second time: a third full-size tensor would cost time

    def normalise_(self, values: Tensor) -> Tensor:
        """`normalise` of floats in place: the same bits, in the same tensor."""
        scale, offset = self.scaling(values)
        return values.mul_(scale).add_(offset)

    def scaling(self, like: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """`scale` and `offset` for tensors like this one: numbers, or tensors [D] of its type on its device."""
        # Torch takes no whole numbers over 64 bits.
        scale, offset = (
            like.new_tensor(given) if isinstance(given, tuple) else float(given) for given in (self.scale, self.offset)
        )
        return scale, offset

    def without_legal_actions(self) -> TaskSpec:
        """The same task as an environment describes it, which does not know what a policy is confined to."""
        return replace(self, legal_actions=None, action_masks=False)

    def feature(self, index: int) -> str:
        """A feature of a vector in words: its name, or else its number."""
        return str(index) if self.feature_names is None else self.feature_names[index]

    def require_same(self, other: TaskSpec, where: str | Path, hint: str, *, legal_actions: bool = True) -> None:
        """Checks that `other`, found at `where`, is the same task.

        Args:
            other: the other task.
            where: the file, environment or dataset that it describes.
            hint: what to do where they differ.
            legal_actions: whether `legal_actions` and `action_masks` must agree too, and how networks see vectors. An
                environment or a dataset on disk does not state them for a policy, so a comparison with one leaves
                them out. Names of features are compared where both have them.

        Raises:
            SpecMismatchError: it is another task; names the first field that differs.
        """
        left_out = {"legal_actions", "action_masks"} if not legal_actions else set()
        if self.feature_names is None or other.feature_names is None:
            left_out.add("feature_names")
        if not (legal_actions or self.is_pixels):
            left_out |= {"scale", "offset"}
        names = [field.name for field in fields(self) if field.name not in left_out]
        for name in sorted(names, key=("scale", "offset").__contains__):  # which rest on the features
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours == theirs:
                continue
            if name in ("feature_names", "scale", "offset") and isinstance(ours, tuple) and isinstance(theirs, tuple):
                index = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
                name, ours, theirs = f"{name}[{index}]", repr(ours[index]), repr(theirs[index])
            raise SpecMismatchError(f"{name} is {theirs}"[:500], where=where, expected=f"{ours}"[:500], hint=hint)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; fields that say what is usual are left out, as files before them have it."""
        values = asdict(self)
        for name, usual in _USUAL.items():
            if values[name] == usual:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str | Path) -> TaskSpec:
        """The inverse of `to_dict`.

        Raises:
            SpecMismatchError: a field is missing, unknown or of the wrong kind; `where` names the file.
        """
        try:
            values = dict(data)
            shape, names = values["observation_shape"], values["action_names"]
            if not isinstance(shape, list | tuple) or not all(map(is_whole, shape)):
                raise TypeError(f"observation_shape is {shape!r}")
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise TypeError("action_names are no list of texts")
            return cls(**{**values, "observation_shape": tuple(shape), "action_names": tuple(names)})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SpecMismatchError(
                f"not a task spec ({error})", where=where, expected=f"the fields {[f.name for f in fields(cls)]}"
            ) from error


def _is_name(name: object) -> bool:
    """Whether it can be written to any file: no half of a surrogate pair, and not a text of megabytes."""
    return isinstance(name, str) and len(name) <= _MOST_CHARACTERS and not any("\ud800" <= c <= "\udfff" for c in name)


def default_action_names(num_actions: int) -> tuple[str, ...]:
    """Names for actions that nobody named: action 0, action 1, ..."""
    return tuple(f"action {index}" for index in range(num_actions))

"""What a policy thinks, drawn beside the picture of an episode. Needs Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError, missing_dependency
from offrl.evaluation.trace import OpenPolicy, trace_episode
from offrl.policies.choices import Choices
from offrl.report.video import Moment

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

Color = tuple[int, int, int]

ALLOWED: Color = (0, 114, 178)
"""Bars of the actions that the policy chooses from; blue and vermilion of Okabe & Ito 2008, as in the plots."""
REFUSED: Color = (140, 187, 217)
"""Bars of the others; they are hatched as well, so that colour is not all that tells them apart."""
TAKEN: Color = (213, 94, 0)
"""The bar of the action taken, and the mark before its name."""
HEADER = 98
"""Pixels above the first row: the action, step and score, what the bars mean, and the ends of their scale."""
BAR_WIDTH = 150
"""Pixels from one end of the scale to the other."""
NAME_WIDTHS = (110, 190)
"""Pixels that the column of the names has at least, and after which a name is cut off."""
ROW_HEIGHTS = (15, 24)
"""Pixels that a row has at least and at most; rows take the height of the picture where they can."""
NUMBER_LENGTH = 8
"""Characters that a score has at most, however large it is: all panels of a film must be equally wide."""

_BLACK, _GRAY, _STRIPE = (0, 0, 0), (120, 120, 120), (255, 242, 214)
_MARGIN, _GAP, _FOOT = 12, 10, 6
_NAME_LEFT = 24  # the mark stands before it


class _Layout(NamedTuple):
    """Where things are, in pixels."""

    row: int
    font_size: int
    name_width: int
    bar_left: int
    value_right: int
    width: int
    height: int


class ActionPanel:
    """A panel for `offrl.report.record_episode`: the action in words, score and step, and a bar for each action.

    Args:
        names: the actions in words [A].
        choices: raw observations [1, ...] -> what the policy chooses from, such as `TorchPolicy.choices`.
        limits: the scores at the left and the right end of the bars, the same at every moment; what lies outside is
            drawn at the end.
        action_masks: whether `choices` is given the legal actions too, bool [1, A].

    Raises:
        ConfigError: limits that are no finite interval.
        MissingDependencyError: Pillow is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        choices: Callable[..., Choices],
        limits: tuple[float, float],
        *,
        action_masks: bool = False,
    ) -> None:
        low, high = limits
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ConfigError(
                f"{low}, {high}",
                where="ActionPanel.limits",
                expected="finite numbers, low <= high",
                hint="where the policy's scores are NaN or infinite, record without a panel",
            )
        try:
            import PIL  # noqa: F401
        except ImportError as error:
            raise missing_dependency("pillow", "video", "ActionPanel") from error
        self._names = names
        self._choices = choices
        self._action_masks = action_masks
        self._low, self._high = low, high
        # To a hundredth of the scale, or somewhat finer, as far as there is room.
        digits = 2 - math.floor(math.log10(high - low)) if high > low else 3
        room = NUMBER_LENGTH - 1 - max(len(f"{end:.0f}") for end in limits)
        self._digits = max(0, min(6, digits, room))

    @classmethod
    def of_episode(
        cls,
        policy: OpenPolicy,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        seed: int,
        *,
        max_steps: int | None = None,
        on_step: Callable[[], object] | None = None,
    ) -> ActionPanel:
        """The panel whose scale fits the episode of `seed`; plays it once to see which scores occur.

        Args:
            policy: whose thoughts are drawn. It plays the same episode again, unless it draws random actions in a way
                of its own.
            make_env: makes the environment.
            seed: given to `reset`.
            max_steps: look no farther; None plays to the end.
            on_step: called after each step.
        """
        scores = trace_episode(policy, make_env, seed, max_steps=max_steps, on_step=on_step).scores
        legal = scores[~np.isneginf(scores)]  # of an illegal action the score is -inf
        limits = float(legal.min()), float(legal.max())
        return cls(policy.spec.action_names, policy.choices, limits, action_masks=policy.spec.action_masks)

    def __call__(self, moment: Moment) -> NDArray[np.uint8]:
        """The panel: RGB uint8 [H, W, 3], as high as the picture, or as its rows need."""
        from PIL import Image, ImageDraw

        choices = self._choose(moment)
        scores, allowed = choices.scores[0].tolist(), choices.allowed[0].tolist()
        layout = self._layout(moment.height)
        image = Image.new("RGB", (layout.width, layout.height), "white")
        draw = ImageDraw.Draw(image)
        self._draw_header(image, draw, layout, moment, f"{sum(allowed)} of {len(allowed)}")
        for index, (score, is_allowed) in enumerate(zip(scores, allowed, strict=True)):
            self._draw_row(image, draw, layout, index, score, is_allowed, is_taken=index == moment.action)
        return np.array(image)

    def _choose(self, moment: Moment) -> Choices:
        observation, mask = moment.observation[None], moment.action_mask
        if not self._action_masks:
            return self._choices(observation)
        # Nothing is chosen in the last picture, where an environment may call no action legal.
        if mask is None or moment.action is None:
            mask = np.ones(len(self._names), np.bool_)
        return self._choices(observation, mask[None])

    def _layout(self, picture_height: int) -> _Layout:
        num_rows, (lowest, highest) = len(self._names), ROW_HEIGHTS
        row = min(highest, max(lowest, (picture_height - HEADER - _FOOT) // num_rows))
        font_size = min(14, row - 3)
        longest_name = max(_width(name, font_size) for name in self._names)
        name_width = min(NAME_WIDTHS[1], max(NAME_WIDTHS[0], longest_name))
        bar_left = _NAME_LEFT + name_width + _GAP
        value_right = bar_left + BAR_WIDTH + _GAP + _width("0" * NUMBER_LENGTH, font_size)
        height = max(picture_height, HEADER + row * num_rows + _FOOT)
        return _Layout(row, font_size, name_width, bar_left, value_right, value_right + _MARGIN, height)

    def _draw_header(self, image: Image, draw: ImageDraw, layout: _Layout, moment: Moment, num_allowed: str) -> None:
        stopped = "the end" if moment.has_ended else "stopped here"
        action = stopped if moment.action is None else self._names[moment.action]
        seed = "" if moment.seed is None else f"     seed {moment.seed}"
        _write(draw, _MARGIN, 18, _cut(action, 20, layout.width - 2 * _MARGIN), 20)
        _write(draw, _MARGIN, 43, f"step {moment.step}     score {moment.score:.1f}{seed}", 14)
        left = _MARGIN
        legend = ((f"allowed ({num_allowed})", ALLOWED), ("not allowed", REFUSED), ("taken", TAKEN))
        for words, color in legend:
            _fill(image, (left, 61, left + 10, 71), color, is_hatched=color == REFUSED)
            _write(draw, left + 14, 66, words, 12)
            left += 14 + _width(words, 12) + _GAP
        _write(draw, _NAME_LEFT, 87, "score of each action", 11, _GRAY)
        _write(draw, layout.bar_left, 87, self._number(self._low), 11, _GRAY)
        _write(draw, layout.bar_left + BAR_WIDTH, 87, self._number(self._high), 11, _GRAY, anchor="rm")

    def _draw_row(
        self, image: Image, draw: ImageDraw, layout: _Layout, index: int, score: float, is_allowed: bool, is_taken: bool
    ) -> None:
        top = HEADER + layout.row * index
        bottom, middle = top + layout.row, top + layout.row // 2
        if is_taken:
            image.paste(_STRIPE, (0, top, layout.width, bottom))
            draw.polygon([(_MARGIN, middle - 4), (_MARGIN, middle + 4), (_MARGIN + 7, middle)], fill=TAKEN)
        bar = (layout.bar_left, top + 2, layout.bar_left + self._length(score), bottom - 2)
        _fill(image, bar, TAKEN if is_taken else ALLOWED if is_allowed else REFUSED, is_hatched=not is_allowed)
        ink = _BLACK if is_allowed or is_taken else _GRAY
        name = _cut(self._names[index], layout.font_size, layout.name_width)
        _write(draw, _NAME_LEFT, middle, name, layout.font_size, ink)
        _write(draw, layout.value_right, middle, self._number(score), layout.font_size, ink, anchor="rm")

    def _length(self, score: float) -> int:
        """Pixels of a bar, 1 to BAR_WIDTH; a score that is no number has the shortest."""
        share = (score - self._low) / (self._high - self._low) if self._high > self._low else 1.0
        return max(1, round(BAR_WIDTH * min(1.0, share))) if share > 0 else 1

    def _number(self, score: float) -> str:
        number = "illegal" if score == -math.inf else f"{score:z.{self._digits}f}"
        return number if len(number) <= NUMBER_LENGTH else f"{score:.1e}"


def _fill(image: Image, box: tuple[int, int, int, int], color: Color, *, is_hatched: bool) -> None:
    """Fills a box (left, top, right, bottom), or hatches it and draws its edge."""
    from PIL import Image

    left, top, right, bottom = box
    y, x = np.indices((bottom - top, right - left))
    inked = (x + y) % 4 == 0 if is_hatched else np.ones(x.shape, dtype=bool)
    inked[[0, -1]] = inked[:, [0, -1]] = True
    image.paste(color, box, Image.fromarray(inked.astype(np.uint8) * 255))


def _write(
    draw: ImageDraw, x: int, y: int, words: str, size: int, color: Color = _BLACK, *, anchor: str = "lm"
) -> None:
    """Writes from x on ("lm"), or up to x ("rm"); y is the middle."""
    draw.text((x, y), words, fill=color, font=_font(size), anchor=anchor)


def _width(words: str, size: int) -> int:
    return math.ceil(_font(size).getlength(words))


def _cut(words: str, size: int, width: int) -> str:
    """The words, or as much of them as fits."""
    if _width(words, size) <= width:
        return words
    while words and _width(f"{words}…", size) > width:
        words = words[:-1]
    return f"{words}…"


@cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    """Pillow's own, which is the same on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)

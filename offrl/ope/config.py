"""How policies are judged by logged data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from offrl.checks import Checks, is_number
from offrl.ope.estimators import ESTIMATORS

Source = Literal["auto", "logged", "fitted"]


@dataclass(frozen=True)
class OpeConfig:
    """How `estimate` works.

    Attributes:
        estimators: Some of `ESTIMATORS`.
        discount: Per step, in [0, 1]; None takes the replay's.
        behaviour: "logged" reads the behaviour's probabilities from the data, also where some episodes are logged with
            probability 1 throughout, and refuses those that say nothing; "fitted" fits a model of the behaviour; "auto"
            takes the logged ones where they count (`logged_behaviour`), else fits.
        updates: Of fitted Q evaluation, each refit, and of the behaviour model; None takes `enough_updates` for the
            discount, and 5,000 for the behaviour model.
        refits: How often fitted Q evaluation is fitted anew, each time on training episodes drawn again with
            replacement but for the first: the intervals of what reads its values are over episodes and refits. With 1
            `fqe` has none.
        refit_best: Of several policies, how many are refitted: those whose first fit values them highest. `fqe` of the
            others is one fit's, without an interval. None refits all.
        history: Of `phdr`, how many decisions, the latest ones, weigh a step: as many as it takes until what was done
            before them does not matter any more. The longer, the fewer steps have any weight.
        batch_size: Of both.
        learning_rate: Of fitted Q evaluation; the behaviour model has that of `LearnerConfig`.
        precision: Of both.
        clip: The largest weight of an episode, over 0; None clips nothing. Clipping bounds the variance; of rewards
            that are never negative `is` and `pdis` become too low on average, and `wis` and `wpdis` move towards the
            plain mean of the episodes that agree with the policy.
        resamples: Of the bootstrap over held-out episodes.
        seed: Of everything that is drawn.
    """

    estimators: Sequence[str] = tuple(ESTIMATORS)
    discount: float | None = None
    behaviour: Source = "auto"
    updates: int | None = None
    refits: int = 3
    refit_best: int | None = None
    history: int = 8
    batch_size: int = 256
    learning_rate: float = 5e-4
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: float | None = None
    resamples: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        checks = Checks(self)
        is_list = isinstance(self.estimators, Sequence) and not isinstance(self.estimators, str)
        known = (
            is_list
            and len(self.estimators) > 0
            and all(isinstance(name, str) and name in ESTIMATORS for name in self.estimators)
        )
        checks.that(known, "estimators", f"one or more of {', '.join(ESTIMATORS)}")
        if self.discount is not None:
            checks.number("discount", "a number in [0, 1], or None", lambda discount: 0 <= discount <= 1)
        checks.choice("behaviour", get_args(Source))
        checks.choice("precision", ("fp32", "bf16"))
        optional = [name for name in ("updates", "refit_best") if getattr(self, name) is not None]
        for name in ("refits", "history", "batch_size", *optional):
            checks.whole(name, least=1)
        checks.whole("resamples", least=100)
        checks.whole("seed", least=0)
        checks.number("learning_rate", "a number over 0", lambda rate: rate > 0)
        checks.that(self.clip is None or (is_number(self.clip) and self.clip > 0), "clip", "a number over 0, or None")

"""The candidates of both sets. The estimators were built while looking at `first`; `second` is to confirm.

The candidates were fixed and committed before any was played. The discount of CartPole's values was 0.99 then: it tells
episodes of 200 and of 500 steps hardly apart, as the first set showed. It showed, too, that 4,000 updates of fitted Q
evaluation are too few for that discount, where `offrl.ope.fitting.enough_updates` makes 16,667. The second set of
CartPole had been looked at before that. CarRacing's first candidates were trained too shortly, on too few transitions:
none was better than the data; these have the example's settings and length of then, with the smaller network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.driving import example
from offrl import envs
from offrl.collection import RECIPES, Kind, collect, collect_protocol
from offrl.envs import TUNING_SEEDS, car_racing
from offrl.envs.cart_pole import CartPoleMixture
from offrl.envs.making import Env


class Candidate(NamedTuple):
    """A policy: a run's checkpoint, acting with a threshold."""

    algorithm: str
    seed: int
    step: int
    threshold: float | None
    """None for an algorithm whose policy does not depend on it."""

    @property
    def name(self) -> str:
        """What tables call it."""
        threshold = "" if self.threshold is None else f", threshold {self.threshold:g}"
        return f"{self.algorithm} {self.seed} at {self.step}{threshold}"


@dataclass(frozen=True)
class Task:
    """An environment, a dataset of it, and candidates.

    Attributes:
        environment: Its Gymnasium id.
        transitions: Of the dataset.
        ages: Updates after which a run is a candidate; the last is its length.
        first: Algorithm -> thresholds; its runs have seed 0.
        second: Likewise, with seed 1.
        episodes: Played for a candidate's true return.
        endless: Where the environment's time limit is no part of what is estimated (fitted values look beyond it): the
            steps after which 50 episodes more are cut, whose discounted returns are the true values.
        discount: Of the values that are estimated. The longer it looks ahead, the finer it tells long episodes apart.
        updates: Of fitted Q evaluation.
        learner: Settings that differ from the defaults.
        replay: Likewise, beside the held-out share.
        encoder: By name; None for the default.
        kind: Of the dataset, by the published protocol; None for the task's own mixture of drivers.
        longest: Steps after which an episode is cut, where the environment has no time limit of its own.
    """

    environment: str
    transitions: int
    ages: tuple[int, ...]
    first: Mapping[str, tuple[float | None, ...]]
    second: Mapping[str, tuple[float | None, ...]]
    episodes: int
    discount: float
    updates: int
    endless: int | None = None
    learner: Mapping[str, Any] = field(default_factory=dict)
    replay: Mapping[str, Any] = field(default_factory=dict)
    encoder: str | None = None
    kind: Kind | None = None
    longest: int | None = None

    @property
    def precision(self) -> Any:
        """Of fitted Q evaluation: that of the candidates' training, where the task says it."""
        return self.learner.get("precision", "fp32")

    def candidates(self, part: str) -> Iterator[Candidate]:
        """All of one set; those of `RUNS` are checkpoints of several runs, of each of which one is to be chosen."""
        if part == RUNS:
            for seed, quarter in product(RUN_SEEDS, range(1, 5)):
                yield Candidate("bcq", seed, self.ages[-1] * quarter // 4, None)
            return
        chosen, seed = (self.first, 0) if part == "first" else (self.second, 1)
        for algorithm, thresholds in chosen.items():
            for step, threshold in product(self.ages, thresholds):
                yield Candidate(algorithm, seed, step, threshold)

    def make_env(self, longest: int | None = None) -> Env:
        """One environment, with its own time limit or with another one."""
        limit = longest or self.longest
        return envs.make(self.environment, **({} if limit is None else {"max_episode_steps": limit}))

    def data(self, work: Path) -> Path:
        """Where its dataset lies."""
        return work / (self.kind or "data")

    def collect(self, work: Path) -> None:
        """The dataset, or what is missing of it."""
        if self.kind is not None:
            collect_protocol(self.make_env, self.kind, work, transitions=self.transitions)
        elif self.environment == car_racing.ENV_ID:
            RECIPES["carracing/mixed"].collect(self.data(work), transitions=self.transitions)
        else:
            # One of many drivers an episode, each with exact probabilities of at least 0.05 for every action.
            collect(self.make_env, CartPoleMixture(), self.data(work), transitions=self.transitions)


RUNS = "runs"
RUN_SEEDS = range(10, 15)
HELD_OUT = 0.25
TRAINING_DISCOUNT = 0.99
"""Of the candidates, where the task does not say another."""
SEEDS = TUNING_SEEDS[4000:5000]
ENDLESS_EPISODES = 50
_THRESHOLDS = (0.1, 0.3, 0.6, 0.9)

TASKS = {
    "cartpole": Task(
        "CartPole-v1",
        40_000,
        ages=(250, 1_000, 5_000),
        first={"bc": (None,), "dqn": (None,), "cql": (None,), "iql": (None,), "bcq": _THRESHOLDS},
        second={"rem": (None,), "crr": (None,), "bve": (None,), "qr-dqn": (None,), "qr-bcq": _THRESHOLDS},
        episodes=200,
        discount=0.997,
        endless=2_000,
        updates=16_667,
        learner={"learning_rate": 1e-3},
    ),
    "minatar": Task(
        "MinAtar/Breakout-v1",
        100_000,
        ages=(1_000, 3_000, 10_000),
        first={"bc": (None,), "dqn": (None,), "cql": (None,), "iql": (None,), "bcq": _THRESHOLDS},
        second={"rem": (None,), "crr": (None,), "bve": (None,), "qr-dqn": (None,), "qr-bcq": _THRESHOLDS},
        episodes=1_000,
        discount=0.99,
        updates=5_000,
        learner={"learning_rate": 3e-4},
        kind="replay",
        longest=2_000,
    ),
    "carracing": Task(
        car_racing.ENV_ID,
        60_000,
        ages=(1_000, 2_000, 4_000),
        first={"bc": (None,), "dqn": (None,), "cql": (None,), "iql": (None,), "bcq": _THRESHOLDS},
        second={"rem": (None,), "crr": (None,), "bve": (None,), "qr-dqn": (None,), "qr-bcq": _THRESHOLDS},
        episodes=20,
        discount=0.99,
        updates=5_000,
        learner={**asdict(example().LEARNER), "precision": "bf16", "compile": "off", "threads": 1},
        replay={"n_step": 10, "discount": 0.97, "reward_scale": 0.1},
        encoder="compact",
    ),
}

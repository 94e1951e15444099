"""From a table of logged decisions to one ONNX file that takes the legal actions of each decision.

python examples/logged_decisions.py

A shop writes to its customers once a week, for up to six weeks: it may wait, send an e-mail or a letter, call, offer a
discount, or visit. Not every customer may be called, and nobody gets two discounts. The log has a row for each
decision: what was known (20 numbers), what was allowed, what was done, with what probability, and what it earned.

The customers here are simulated, so that the policy from the log can be tried on new ones. With a log of your own,
leave out `campaign`, and begin with your table.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import offrl
from offrl.datasets import TableColumns, convert

ACTIONS = ("wait", "email", "letter", "call", "discount", "visit")
COSTS = np.array([0.0, 1.0, 3.0, 8.0, 0.0, 30.0])  # of each action; a discount costs only where something is sold
BASE = np.array([-4.0, -2.5, -2.5, -1.5, -1.0, 0.0])  # log odds of a sale, to the average customer
TASTES = 0.8 * np.random.default_rng(42).normal(size=(6, 12))  # what each action owes to the customer's 12 numbers
PRICE, REBATE, WEEKS = 100.0, 40.0, 6

# Which column holds what. The names of the allowed actions are what `*` stands for.
COLUMNS = TableColumns(
    episode="customer",
    step="week",
    observations="x_*",
    action="decision",
    reward="margin",
    probability="propensity",
    legal="may_*",
    terminated="ended",
)


class Decisions(NamedTuple):
    """All decisions of one week, a row for each customer."""

    customers: NDArray[np.int64]  # [N]
    week: int
    observations: NDArray[np.float32]  # [N, 20]
    legal: NDArray[np.bool_]  # [N, 6]
    actions: NDArray[np.int64]  # [N]
    probabilities: NDArray[np.float64]  # [N]
    margins: NDArray[np.float64]  # [N]
    ended: NDArray[np.bool_]  # [N]


Chooser = Callable[[NDArray[np.float32], NDArray[np.bool_], np.random.Generator], NDArray[np.float64]]


def campaign(choose: Chooser, num_customers: int, seed: int) -> Iterator[Decisions]:
    """Six weeks with new customers. `choose` gives the probabilities of the actions, [N, 20], [N, 6] -> [N, 6]."""
    rng = np.random.default_rng(seed)
    profile = rng.normal(size=(num_customers, 12))
    allowed = rng.random((num_customers, 6)) < [1, 0.8, 1, 0.6, 1, 0.3]
    times = np.zeros((num_customers, 6))  # how often each was done
    customers = np.arange(num_customers)
    for week in range(WEEKS):
        done = times[customers]
        contacts = done[:, 1:].sum(axis=1)
        observations = np.column_stack([profile[customers], done, contacts, np.full(len(customers), week)])
        legal = allowed[customers] & ~((np.arange(6) == ACTIONS.index("discount")) & (done > 0))
        probabilities = choose(observations.astype(np.float32), legal, rng)
        actions = (probabilities.cumsum(axis=1) > rng.random((len(customers), 1))).argmax(axis=1)
        odds = np.exp(BASE[actions] + (profile[customers] * TASTES[actions]).sum(axis=1) - 0.4 * contacts)
        sold = rng.random(len(customers)) < odds / (1 + odds)
        margins = sold * (PRICE - REBATE * (actions == ACTIONS.index("discount"))) - COSTS[actions]
        ended = sold | (week == WEEKS - 1)
        chosen = np.take_along_axis(probabilities, actions[:, None], axis=1)[:, 0]
        yield Decisions(customers, week, observations, legal, actions, chosen, margins, ended)
        times[customers, actions] += 1
        customers = customers[~ended]


def habits(
    observations: NDArray[np.float32], legal: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The policy that made the log: it likes cheap actions, knows a little, and leaves every legal one a chance."""
    weights = np.exp(-COSTS / 20 + 0.2 * observations[:, :12] @ TASTES.T) * legal
    return weights / weights.sum(axis=1, keepdims=True)


def act_with(
    policy: offrl.OnnxPolicy, observations: NDArray[np.float32], legal: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """A policy's choice as probabilities."""
    return np.eye(len(ACTIONS))[policy(observations, legal)]


def write_table(weeks: list[Decisions], path: Path) -> Path:
    """The log as it might lie in a database: Parquet, or CSV where pyarrow is not installed."""
    columns: dict[str, list[Any]] = {
        "customer": [f"c{number:05}" for week in weeks for number in week.customers],
        "week": [week.week for week in weeks for _ in week.customers],
        "decision": [ACTIONS[action] for week in weeks for action in week.actions],
    }
    for index in range(20):
        columns[f"x_{index}"] = [value for week in weeks for value in week.observations[:, index].tolist()]
    for index, name in enumerate(ACTIONS):
        columns[f"may_{name}"] = [int(flag) for week in weeks for flag in week.legal[:, index]]
    for name, field in (("propensity", "probabilities"), ("margin", "margins"), ("ended", "ended")):
        columns[name] = [value for week in weeks for value in getattr(week, field).tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    if find_spec("pyarrow") is None:
        with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
        return path.with_suffix(".csv")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def margin(weeks: list[Decisions]) -> float:
    """What was earned, a customer."""
    return sum(float(week.margins.sum()) for week in weeks) / len(weeks[0].customers)


def main(
    num_customers: int = 10_000, updates: int = 1_000, directory: Path = Path("data/logged-decisions")
) -> dict[str, float]:
    shutil.rmtree(directory, ignore_errors=True)  # of an earlier run: no writer of ours replaces a dataset
    table = write_table(list(campaign(habits, num_customers, seed=0)), directory / "log")
    print(convert(table, directory / "frames", "frames", columns=COLUMNS).to_text())

    replay = offrl.open_replay(directory / "frames", discount=1.0, reward_scale=0.01)
    algorithm = offrl.DiscreteBCQ(
        replay.spec, offrl.DiscreteBCQConfig(threshold=0.1), encoder=partial(offrl.MLPEncoder, hidden=(64, 64))
    )
    settings = offrl.LearnerConfig(learning_rate=1e-3, schedule="cosine", average_decay=0.99)
    learner = offrl.fit(algorithm, replay, offrl.FitConfig(updates=updates, batch_size=256), learner=settings)
    path = offrl.export_onnx(learner.snapshot(), directory / "decisions.onnx", contract="uint8")

    policy = offrl.OnnxPolicy(path)  # the file is all that a service needs
    ways: dict[str, Chooser] = {"as in the log": habits, f"as {path.name} says": partial(act_with, policy)}
    played = {name: list(campaign(choose, 4_000, seed=1)) for name, choose in ways.items()}
    print("\nthe first three customers")
    for customer, week in enumerate([played[f"as {path.name} says"][0]] * 3):
        allowed = ", ".join(np.array(ACTIONS)[week.legal[customer]])
        print(f"  {ACTIONS[week.actions[customer]]:10}of {allowed}")
    print(f"\n{'4,000 new customers':25}margin each  " + "".join(f"{name:>10}" for name in ACTIONS))
    for name, weeks in played.items():
        taken = np.bincount(np.concatenate([week.actions for week in weeks]), minlength=6)
        print(f"{name:25}{margin(weeks):11.2f}  " + "".join(f"{share:10.0%}" for share in taken / taken.sum()))
    return {name: margin(weeks) for name, weeks in played.items()}


if __name__ == "__main__":
    main()

"""Offline estimates on the pages, beside true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.pages.kept import all_kept, kept, machine_text, mean_and_interval, missing, table
from benchmarks.scoring.ranking import binomial_interval
from offrl.ope import ESTIMATORS

_SMALL = 10
"""Returns that are smaller have two digits."""


def obp() -> str:
    """Estimates of our estimators and of obp's, for each log of the Open Bandit sample."""
    found = kept("obp.json")
    if found is None:
        return missing("obp")
    names = {"random": "uniform", "bts": "Thompson sampling"}
    rows = [
        (
            row["campaign"],
            names[row["logger"]],
            f"{row['rounds']:,}",
            row["estimator"],
            f"{row['offrl']:.6f}",
            f"{row['obp']:.6f}",
            f"{row['difference']:.0e}",
        )
        for row in found["estimates"]
    ]
    head = ("campaign", "logged by", "rounds", "estimator", "offrl", f"obp {found['versions']['obp']}", "difference")
    note = f"Largest difference {found['largest_difference']:.1e}; {found['tolerance']:g} is allowed."
    return f"{table(head, rows)}\n\n{note} `{found['command']}`. {machine_text(found['machine'])}."


def judged() -> str:
    """How well offline estimates ranked policies whose true values are known, for each task and set of candidates."""
    results = [*all_kept("ope").values()]
    if not results:
        return missing("ope")
    head = (
        "estimator or statistic",
        "Spearman's rho",
        "rho with discounted returns",
        "rho in the better half",
        "regret@1",
        "regret@3",
        "chosen / best",
        "95 % intervals that hold",
        "without a remark",
    )
    parts = []
    for found in results:
        rows = [_ranked(name, row) for name, row in found["rankings"].items()]
        filled = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
        names, *cells = zip(*filled, strict=True)
        better = sum(each["return"] > found["data_mean_return"] for each in found["candidates"])
        parts.append(
            f"**{found['task']}**, {found['set']} set: {len(found['candidates'])} candidates, {better} of them better "
            f"than the data's mean return of {found['data_mean_return']:.1f}. {found['transitions']:,} transitions in "
            f"{found['episodes']:,} episodes, {found['held_out']:.0%} held out; values with a discount of "
            f"{found['discount']:g}; behaviour probabilities {found['behaviour_probabilities']}; true values from "
            f"{found['episodes_played']} episodes each.\n\n{table(names, cells)}\n\n"
            f"On one thread, {_costs(found)} `{found['command']}`. {machine_text(found['machine'])}."
        )
    return "\n\n".join([*parts, _pooled(results)])


def _pooled(results: Sequence[Mapping[str, Any]]) -> str:
    """How often the intervals of all sets hold."""
    rows = []
    for name in ESTIMATORS:
        every = [row for found in results if (row := found["rankings"].get(name, {})).get("intervals")]
        if not every:
            continue
        cells = [name, *_share([(row["intervals_that_hold"], row["intervals"]) for row in every])]
        trusted = [
            (row["that_hold_without_a_remark"], row["intervals_without_a_remark"])
            for row in every
            if row.get("intervals_without_a_remark")
        ]
        rows.append((*cells, *(_share(trusted) if len(trusted) == len(every) else ("", ""))))
    head = ("estimator", "95 % intervals that hold", "share", "of these without a remark", "share")
    return (
        f"Over all sets, with the binomial 95 % interval of the share, which counts the candidates of a "
        f"set as independent though they share fits:\n\n{table(head, rows)}"
    )


def _share(counts: Sequence[tuple[int, int]]) -> tuple[str, str]:
    held, count = (sum(each) for each in zip(*counts, strict=True))
    low, high = binomial_interval(held, count)
    return f"{held} of {count}", f"{held / count:.0%} ({low:.0%} to {high:.0%})"


def _costs(found: Mapping[str, Any]) -> str:
    """Of the estimates, beside that of training one of the candidates."""
    seconds, training = found["seconds"], found["seconds_of_training_a_run"]
    fit = seconds["one fit of fqe for all"]
    return (
        f"one fit of {found['updates']:,} updates with the values of all candidates by `fqe` took {fit:.0f} s, "
        f"{fit / training:.1f} times the {training:.0f} s of training one candidate's run; all estimators with "
        f"{found['refits']} fits {seconds['all estimators']:.0f} s, all statistics {seconds['all statistics']:.0f} s."
    )


def gained() -> str:
    """What choosing a checkpoint offline gains over taking the last one, for each task."""
    results = [*all_kept("selection").values()]
    if not results:
        return missing("select")
    names = list(dict.fromkeys(name for found in results for name in found["gains"]))
    head = ("chosen by", *(f"{found['task']}" for found in results))
    digits = [2 if abs(found["last"]["mean"]) < _SMALL else 1 for found in results]
    last = (mean_and_interval(found["last"], f".{each}f") for found, each in zip(results, digits, strict=True))
    rows = [("the last checkpoint's return", *last)]
    for name in names:
        gained = (found["gains"].get(name) for found in results)
        cells = zip(gained, digits, strict=True)
        rows.append((name, *("" if row is None else mean_and_interval(row, f"+.{each}f") for row, each in cells)))
    parts = [
        f"{found['task']}: {found['runs']} runs of BCQ with {found['updates']:,} updates, {found['checkpoints']} "
        f"checkpoints each, {found['episodes_played']} episodes a checkpoint. `{found['command']}`; "
        f"{machine_text(found['machine'])}."
        for found in results
    ]
    return f"{table(head, rows)}\n\n{' '.join(parts)}"


def _ranked(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    of_all = "" if row["candidates"] == 0 else f" ({row['candidates']} candidates)" * (row["candidates"] < 24)
    held, usable = "", ""
    if row.get("intervals"):
        low, high = row["coverage_interval_95"]
        held = f"{row['intervals_that_hold']} of {row['intervals']} ({low:.0%} to {high:.0%})"
    if "without_a_remark" in row:
        usable = str(row["without_a_remark"])
    if row["spearman"] is None:
        return (f"{name}{of_all}", "undefined", "", "", "", "", "", held, usable)
    low, high = row["spearman_interval_95"]
    upper = row["spearman_among_the_better_half"]
    discounted = row.get("spearman_of_discounted")
    return (
        f"{name}{of_all}",
        f"{row['spearman']:.2f} ({low:.2f} to {high:.2f})",
        "" if discounted is None else f"{discounted:.2f}",
        "undefined" if upper is None else f"{upper:.2f}",
        f"{row['regret_at_1']:.2f}",
        f"{row['regret_at_3']:.2f}",
        f"{row['chosen_over_best']:.2f}",
        held,
        usable,
    )

"""CarRacing on the pages: training runs, recipes, the leaderboard, the bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.laps import NEARLY, points_lost
from benchmarks.machines import processors
from benchmarks.pages.kept import (
    LEADERBOARDS,
    charts_of,
    difference_text,
    kept,
    machine_text,
    mean_and_interval,
    missing,
    table,
)
from benchmarks.readme import LOST, RUN_COLUMNS, beside_expert, over_runs
from benchmarks.recipes import CRITIC_WEIGHTED, TRIED, TRIED_BY

_SLID = 850
"""A lap that scores less has lost more than some tiles."""


def training_runs() -> str:
    """The example's recipe over several training runs."""
    found = {title: kept(f"{size}/runs.json") for size, title in (("demo", "The demo"), ("full", "The full size"))}
    parts = []
    for title, result in found.items():
        if result is not None:
            rows = [(name.upper(), *over_runs(row)) for name, row in result["algorithms"].items()]
            parts += [f"{title}: {_sizes(result)}", table(("algorithm", *RUN_COLUMNS), rows)]
            parts += [f"{LOST} {beside_expert(kept('expert.json'), result)}".strip()]
    return "\n\n".join(parts)


def _sizes(found: Mapping[str, Any]) -> str:
    """How the runs of a table were made."""
    held_out = f"{found['held_out']:.0%} of the episodes held out, " if found.get("held_out") else ""
    updates = f"{found['updates']:,} updates of batches of {found['batch_size']}"
    returns = f"{found['n_step']}-step returns, discount {found['discount']:g}"
    return (
        f"{found['transitions']:,} transitions, {held_out}{updates}, {returns}; each run on the same tracks, "
        f"`{found['seeds']}` (`{found['command']}`, one thread each; {_trained_by(found)})."
    )


def _trained_by(found: Mapping[str, Any]) -> str:
    """On which processors, and in which precision."""
    rows = found["algorithms"].values()
    if all(", " in key for row in rows for key in row["per_run"]):
        return processors(rows)
    return f"{found['precision']}, {found['machine']['processor']}"


def lost() -> str:
    """Where BCQ loses its points in the demo's runs."""
    found = kept("demo/runs.json")
    row = None if found is None else found["algorithms"]["bcq"]
    parts = None if row is None else points_lost(row, (NEARLY, _SLID))
    if row is None or parts is None:
        return missing("demo-runs")
    kinds = (
        "miss one to three tiles or so, and drive on to the limit of 1,000 steps",
        "miss more, up to about fifteen",
        "lose more",
    )
    scores = (f"{NEARLY:.0f} and more", f"{_SLID} to {NEARLY:.0f}", f"under {_SLID}")
    cells = [
        (f"{part.laps} {kind}", score, f"{part.points:.1f}")
        for part, kind, score in zip(parts, kinds, scores, strict=True)
    ]
    finished = [each["score"] for run in row["per_run"].values() for each in run["per_episode"] if each["finished"]]
    whole = sum(finished) / len(finished)
    head = (f"laps, of {row['episodes']}", "score", "points lost an episode")
    return (
        f"Laps with every tile score {whole:.1f} on average, an episode of the demo's {row['runs']} runs "
        f"{row['mean']:.1f}:\n\n{table(head, cells)}"
    )


def tried() -> str:
    """Recipes for CarRacing beside the example's, driven on seeds for tuning."""
    found = kept("carracing/recipes.json")
    if found is None:
        return missing("recipes")
    head: tuple[str, ...] = (
        "recipe",
        "mean",
        "each run's mean",
        "laps with every tile",
        "their steps",
        "minus the first",
    )
    parts = []
    for about, recipes in TRIED_BY.items():
        rows = {name: found["recipes"][name] for name in recipes if name in found["recipes"]}
        cells = [
            (
                f"**{name}**: {row['why']}",
                f"{row['mean']:.1f}",
                ", ".join(f"{run['mean']:.1f}" for run in row["per_run"].values()),
                f"{row['laps_with_every_tile']} of {row['episodes']}",
                f"{row['steps_of_finished_laps']:.0f}" if row["laps_with_every_tile"] else "",
                _minus_first(row),
            )
            for name, row in sorted(rows.items(), key=lambda row: -float(row[1]["mean"]))
        ]
        parts += [f"### {about}", table(head, cells)] if cells else []
    parts.append(
        f"Each run on the same tracks, `{found['seeds']}`, one thread each, {found['precision']}. *Minus the first*: "
        "minus *as it was*, with Welch's 95 % interval over training seeds (of several runs of one, the mean), where "
        "both have several. `python -m "
        f"benchmarks recipes --recipe NAME --runs N` makes a row. {machine_text(found['machine'])}; "
        f"{processors(found['recipes'].values())}.{_not_run(found['recipes'])}"
    )
    return "\n\n".join(parts) + _otherwise(found["recipes"])


def _not_run(recipes: Mapping[str, Any]) -> str:
    names = [name for name in TRIED if name not in recipes]
    return f" Planned, and not run yet: {'; '.join(names)}." if names else ""


def _minus_first(row: Mapping[str, Any]) -> str:
    """Only with its interval: a difference between single runs would look like a result."""
    found = row.get("minus_as_it_was")
    return "" if found is None or found["low"] is None else difference_text(found)


def _otherwise(recipes: Mapping[str, Any]) -> str:
    """What the same runs score when they drive otherwise."""
    known = sorted({each for row in recipes.values() for each in row.get("otherwise", {})})
    if not known:
        return ""
    cells = []
    for name, row in recipes.items():
        others = row.get("otherwise", {})
        for seed, own in row["per_run"].items():
            runs = [others.get(each, {}).get(seed) for each in known]
            if any(runs):
                shown = ("" if run is None else f"{run['mean']:.1f}, {run['finished']}" for run in (own, *runs))
                cells.append((name, seed, *shown))
    head = ("recipe", "training seed, processor", "as trained", *known)
    weighted = ", or CRR's with the policy that its critic weights" if CRITIC_WEIGHTED.keys() & {*known} else ""
    return (
        "\n\nThe same runs when they drive otherwise: BCQ's with another threshold, or any without the actions that "
        f"brake fully{weighted} (`--otherwise 0.99` of the same command, and so on); mean and laps with every tile:\n\n"
        f"{table(head, cells)}"
    )


def leaderboard() -> str:
    """Every algorithm on the datasets of CarRacing over training runs, beside BC."""
    found = {name: result for name in LEADERBOARDS if (result := kept(f"carracing/{name}.json")) is not None}
    return "\n\n".join(_leaderboard(*each) for each in found.items()) or missing("leaderboard")


def _leaderboard(name: str, found: Mapping[str, Any]) -> str:
    algorithms = found["algorithms"]
    rows = [
        (
            name.upper(),
            *over_runs(row),
            mean_and_interval(row["minus_bc"]) if "minus_bc" in row else "",
        )
        for name, row in algorithms.items()
    ]
    done = sum(row["seeds"] for row in algorithms.values())
    planned = found["runs"] * found["planned_algorithms"]
    unfinished = f" {done} of {planned} runs so far." if done < planned else ""
    head = ("algorithm", *RUN_COLUMNS, "minus BC (95 % t interval)")
    return "\n\n".join(
        [
            f"`{found['dataset']}`, whose mean return is {found['dataset_mean']:.0f}: {_sizes(found)}{unfinished}",
            table(head, rows),
            charts_of(name, "Mean return of each training run of each algorithm"),
        ]
    )


def bound() -> str:
    """The best laps that a search finds for each track, beside the scripted expert's."""
    found = kept("carracing/bound.json")
    if found is None:
        return missing("bound")
    names = {"expert": "`EXPERT`, the same settings on every track", "best": "the best settings found for each track"}
    rows = [
        (title, mean_and_interval(found[name]), f"{found[name]['mean_steps']:.0f}", str(found[name]["finished"]))
        for name, title in names.items()
    ]
    head = ("driver", "mean return (95 % interval over tracks)", "steps of a lap", "finished laps")
    after = ", ".join(f"{mean:.1f} after {count}" for count, mean in found["mean_best_after_laps"].items())
    return (
        f"{table(head, rows)}\n\nPaired by track, the search adds {mean_and_interval(found['best_minus_expert'])}. "
        f"{len(found['tracks'])} tracks, `{found['seeds']}`, {found['laps_a_track']} laps driven on each; mean of the "
        f"best so far: {after}. `{found['command']}`. {machine_text(found['machine'])}."
    )

"""The report's page, section by section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from offrl.datasets.summary import DatasetSummary, inspect_dataset
from offrl.evaluation.scores import Evaluation
from offrl.replay.store import FrameStore
from offrl.report._charts import dot_chart, line_chart
from offrl.report._dataset import dataset_section
from offrl.report._markup import NOTHING, Markup, data_uri, element, fact, note, row, section, write_document
from offrl.report._record import Record, Scores, TrainedRun, read_record
from offrl.statistics import Interval

_LARGEST_VIDEO = 8 * 2**20
_MOST_VIDEOS = 6
_NUM_COLORS = 6
_OVER_EPISODES = (
    "Intervals are percentile bootstrap intervals of the mean over the episodes of one training run: they say nothing "
    "of other training seeds."
)
_OVER_SEEDS = (
    "Over several training seeds, the mean is that of the runs' mean scores, and the interval is Student's t interval "
    "over these. Of one training run and of the data, the interval is a bootstrap interval over episodes, and says "
    "nothing of other training seeds."
)


def write_report(
    directory: str | Path,
    path: str | Path | None = None,
    *,
    dataset: FrameStore | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Writes a page about a run: settings, curves, scores, videos, its dataset, how to reproduce it.

    Several runs that differ in nothing but their seed are one row and one line, over their training seeds; of runs with
    the same seed, the newest counts.

    The page holds its pictures and videos (up to 8 MB each) itself and asks for nothing from elsewhere. The same
    run gives the same bytes.

    Args:
        directory: a run; or a directory whose subdirectories are runs, which are compared. Scores are those of its
            evaluation.json, videos those of its folder `videos`.
        path: the HTML file; default: report.html in `directory`.
        dataset: what the run was trained on, where it is at hand.
        commands: what to type to make the run again.

    Returns:
        The file's path.

    Raises:
        RunError: no run there, or a file of it that is damaged.
    """
    record = read_record(Path(directory))
    path = Path(directory, "report.html") if path is None else Path(path)
    summary = None if dataset is None else inspect_dataset(dataset)
    title = record.directory.resolve().name
    labels = dict.fromkeys([*record.scores, *record.groups])
    styles = {label: number % _NUM_COLORS for number, label in enumerate(labels)}
    reference = record.dataset_mean if summary is None else summary.mean_return
    num_references = record.dataset_episodes if summary is None else summary.num_episodes
    write_document(
        path,
        f"{title}: report",
        _header(record, title),
        _facts(record, summary, reference),
        _scores(record, reference, num_references, styles),
        _curves(record.groups, styles),
        _videos(record),
        dataset_section(record, summary, dataset),
        _settings(record.groups),
        _reproduction(record.runs, commands),
    )
    return path


def _header(record: Record, title: str) -> Markup:
    finished = (record.directory.joinpath(name) for name in ("metrics.csv", "evaluation.json"))
    times = [path.stat().st_mtime for path in finished if path.exists()]
    date = f" · {datetime.fromtimestamp(max(times), UTC):%d %B %Y}".replace(" 0", " ") if times else ""
    where = f" on {record.task}" if record.task else ""
    trained = element("p", f"{' and '.join(record.algorithms)}{where}, trained offline{date}")
    return element("header", element("h1", title), trained, *_played_while_training(record))


def _played_while_training(record: Record) -> list[Markup]:
    """Says where a choice of checkpoint was not made offline."""
    for run in record.runs:
        if played := run.config.get("evaluation"):
            often = f"{played.get('episodes', 'some')} episodes, every {played.get('every')}"
            text = f"The environment was used while training ({often}): checkpoints/best was not chosen offline."
            return [note(text)]
    return []


def _facts(record: Record, summary: DatasetSummary | None, reference: Interval | None) -> Markup:
    cards = []
    if record.best is not None:
        scores = record.scores[record.best]
        mean = scores.mean
        num_runs = len(scores.evaluations)
        origin = f"mean over {num_runs} training seeds" if num_runs > 1 else "one training run"
        cards.append(fact(f"Mean score, {record.best}", f"{mean.mean:,.1f}", f"{origin}, {_interval_text(scores)}"))
        finished = [lap for evaluation in scores.evaluations for lap in evaluation.finished]
        if finished:
            share = f"{100 * sum(finished) / len(finished):.0f} %"
            cards.append(fact("Finished laps", f"{sum(finished)} of {len(finished)}", share))
        if reference is not None:
            above = f"{mean.mean - reference.mean:+,.1f}"
            cards.append(fact("Against its data", above, f"the data's mean is {reference.mean:,.1f}"))
    updates = sorted({run.updates for run in record.runs})
    count = f"{updates[0]:,}" if len(updates) == 1 else f"{updates[0]:,} to {updates[-1]:,}"
    times = []
    for label, group in record.groups.items():
        seconds = [run.seconds for run in group if run.seconds]
        if seconds:
            each = " each" if len(group) > 1 else ""
            times.append(f"{label} {_duration(float(np.mean(seconds)))}{each}")
    cards.append(fact("Updates", count, ", ".join(times)))
    if summary is not None:
        cards.append(fact("Transitions", f"{summary.num_transitions:,}", f"in {summary.num_episodes:,} episodes"))
    return element("div", *cards, class_="grid-cards")


def _interval_text(scores: Scores) -> str:
    """The 95 % interval of a policy's mean, and what it is over, or why there is none."""
    num_episodes = len(scores.evaluations[0].seeds)
    if scores.mean.low is None:
        return scores.mean.bounds(num_episodes)
    bounds = scores.mean.bounds(num_episodes, form=",.1f")
    over = f" over its {num_episodes:,} episodes" if len(scores.evaluations) == 1 else ""
    return f"95 % interval{over} {bounds}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.1f} min"


def _scores(
    record: Record, reference: Interval | None, num_references: int | None, styles: Mapping[str, int]
) -> Markup:
    evaluations = record.evaluations
    if not evaluations:
        return section("Scores", note("Not evaluated yet: offrl evaluate RUN --out RUN/evaluation.json"))
    over_seeds = any(len(scores.evaluations) > 1 for scores in record.scores.values())
    seeds = next(iter(evaluations.values())).seeds
    remarks = [
        f"Scores are undiscounted returns of whole episodes, on seeds from {min(seeds):,} on. "
        + (_OVER_SEEDS if over_seeds else _OVER_EPISODES),
        *_differences(record),
        *record.remarks,
    ]
    line = None if reference is None else reference.mean
    rows: dict[str, tuple[Sequence[float], Interval]]
    if over_seeds:
        rows = {name: (scores.means, scores.mean) for name, scores in record.scores.items()}
        title, x_label = "Mean score of every training run by algorithm", "mean return of a training run"
        key = "A dot is a training run, the circle the mean with its interval"
    else:
        rows = {name: (scores.evaluations[0].scores, scores.mean) for name, scores in record.scores.items()}
        title, x_label = "Scores of every episode by policy", "return of an episode"
        key = "A dot is an episode, the circle their mean with its interval"
    chart = dot_chart(rows, title, styles, line, x_label)
    key += "." if line is None else ", the dashed line the data's mean."
    table = (
        _scores_over_seeds(record, reference, num_references)
        if over_seeds
        else _scores_of_policies(record, reference, num_references)
    )
    return section(
        "Scores",
        element("div", element("div", table, class_="scroll"), *map(note, remarks), class_="card"),
        element(
            "div",
            element("div", chart, note(key), class_="card"),
            element("div", element("h3", "Every episode"), _episodes(evaluations), class_="card"),
            class_="grid-two",
        ),
    )


def _scores_of_policies(record: Record, reference: Interval | None, num_references: int | None) -> Markup:
    """A row for each policy, all of one training run."""
    has_laps = any(evaluation.finished for evaluation in record.evaluations.values())
    columns = ["mean", "95 % interval over episodes", "median", "worst tenth", "steps", "episodes"]
    columns += ["laps"] if has_laps else []
    rows = [] if reference is None else [_data_row(reference, num_references, len(columns))]
    for name, scores in record.scores.items():
        (evaluation,) = scores.evaluations
        num_episodes = len(evaluation.seeds)
        cells = [
            f"{evaluation.mean.mean:,.1f}",
            evaluation.mean.bounds(num_episodes, form=",.1f"),
            f"{evaluation.median:,.1f}",
            f"{evaluation.percentile_10:,.1f}",
            f"{evaluation.mean_length:,.0f}",
            f"{num_episodes:,}",
            *([f"{sum(evaluation.finished)} of {num_episodes}"] if has_laps else []),
        ]
        rows.append(row(name, cells, class_=_best_class(record, name)))
    return _score_table("policy", columns, rows)


def _scores_over_seeds(record: Record, reference: Interval | None, num_references: int | None) -> Markup:
    """A row for each algorithm, over its training seeds."""
    has_laps = any(evaluation.finished for evaluation in record.evaluations.values())
    columns = ["mean", "95 % interval", "training seeds", "lowest run", "highest run", "steps", "episodes"]
    columns += ["laps"] if has_laps else []
    rows = []
    if reference is not None:
        rows.append(_data_row(reference, num_references, len(columns)))
    for name, scores in record.scores.items():
        played = scores.evaluations
        counts = list(dict.fromkeys(len(evaluation.seeds) for evaluation in played))
        is_one = len(played) == 1
        bounds = scores.mean.bounds(counts[0], form=",.1f")
        finished = [lap for evaluation in played for lap in evaluation.finished]
        cells = [
            f"{scores.mean.mean:,.1f}",
            f"{bounds}, over episodes" if is_one and scores.mean.low is not None else bounds,
            "one training run" if is_one else f"{len(played)}",
            "-" if is_one else f"{min(scores.means):,.1f}",
            "-" if is_one else f"{max(scores.means):,.1f}",
            f"{np.mean([length for evaluation in played for length in evaluation.lengths]):,.0f}",
            f"{counts[0]:,} each"
            if len(counts) == 1 and not is_one
            else f"{sum(len(each.seeds) for each in played):,}",
            *([f"{sum(finished)} of {len(finished)}"] if has_laps else []),
        ]
        rows.append(row(name, cells, class_=_best_class(record, name)))
    return _score_table("algorithm", columns, rows)


def _data_row(reference: Interval, num_episodes: int | None, num_columns: int) -> Markup:
    """The dataset's row: its mean return, and the interval over its episodes."""
    if reference.low is None and num_episodes is None:
        bounds = "too few episodes for an interval"
    else:
        bounds = reference.bounds(num_episodes or 0, form=",.1f")
    cells = [f"{reference.mean:,.1f}", bounds]
    return row("the data", [*cells, *[""] * (num_columns - len(cells))])


def _best_class(record: Record, name: str) -> str | None:
    return "best" if name == record.best and len(record.scores) > 1 else None


def _score_table(first: str, columns: Sequence[str], rows: Sequence[Markup]) -> Markup:
    heads = element("tr", element("th", first), *(element("th", c, class_="number") for c in columns))
    return element("table", element("thead", heads), element("tbody", *rows))


def _differences(record: Record) -> list[str]:
    """The best policy against each other one, where their episodes or training seeds can be paired."""
    lines = []
    for name, rival in record.scores.items():
        paired = None if record.best in (None, name) else record.scores[record.best].minus(rival)
        if paired is None:
            continue
        by, mean = paired
        bounds = mean.bounds(len(rival.evaluations[0].seeds), form="+,.1f")
        bounds = bounds if mean.low is None else f"95 % interval {bounds}"
        lines.append(f"{record.best} - {name}, paired by {by}: {mean.mean:+,.1f}, {bounds}.")
    return lines


def _episodes(evaluations: Mapping[str, Evaluation]) -> Markup:
    by_seed: dict[int, dict[str, float]] = {}
    for name, evaluation in evaluations.items():
        for seed, score in zip(evaluation.seeds, evaluation.scores, strict=True):
            by_seed.setdefault(seed, {})[name] = score
    rows = [
        row(str(seed), [f"{found[name]:,.1f}" if name in found else "" for name in evaluations])
        for seed, found in by_seed.items()
    ]
    heads = element(
        "tr", element("th", "episode seed"), *(element("th", name, class_="number") for name in evaluations)
    )
    return element("div", element("table", element("thead", heads), element("tbody", *rows)), class_="scroll window")


def _curves(groups: Mapping[str, Sequence[TrainedRun]], styles: Mapping[str, int]) -> Markup:
    names = dict.fromkeys(name for group in groups.values() for run in group for name in run.metrics if name != "step")
    cards = []
    for name in names:
        lines = {}
        for label, group in groups.items():
            logged = [(run.metrics["step"], run.metrics[name]) for run in group if name in run.metrics]
            if logged:
                lines[label] = logged
        if all(np.ptp(values) == 0 for logged in lines.values() for _, values in logged):  # a constant learning rate
            continue
        words = name.replace("_", " ")
        chart = line_chart(lines, f"{words} over gradient steps", styles)
        cards.append(element("figure", element("h3", words), chart, class_="card"))
    if not cards:
        return NOTHING
    keys = []
    for label, group in groups.items():
        text = f"{label}, {len(group)} training seeds" if len(group) > 1 else f"{label}, one training run"
        keys.append(element("li", element("span", class_=f"key c{styles[label]}"), text))
    has_band = any(len(group) > 1 for group in groups.values())
    legend = element("ul", *keys, class_="legend") if len(groups) > 1 or has_band else NOTHING
    words = "A line is the mean over the training seeds; its band reaches from the lowest to the highest run."
    about = note(words) if has_band else NOTHING
    return section("Training", legend, element("div", *cards, class_="grid-two"), about)


def _videos(record: Record) -> Markup:
    figures = []
    for path in record.videos[:_MOST_VIDEOS]:
        size = path.stat().st_size
        caption = _caption(path.stem, record.evaluations)
        if size > _LARGEST_VIDEO:
            where = path.relative_to(record.directory)
            figures.append(element("p", f"{caption}: {where}, {size / 2**20:.0f} MB, is too large for this page"))
            continue
        video = element(
            "video", src=data_uri(path.read_bytes(), "video/mp4"), controls=True, loop=True, muted=True,
            playsinline=True, preload="metadata",
        )  # fmt: skip
        figures.append(element("figure", video, element("figcaption", caption), class_="card"))
    return section("Videos", element("div", *figures, class_="grid-two")) if figures else NOTHING


def _caption(stem: str, evaluations: Mapping[str, Evaluation]) -> str:
    """A file's name in words; with seed and score where the name says that it is a policy's best or worst episode."""
    policy, _, which = stem.rpartition("-")
    evaluation = {name.lower(): each for name, each in evaluations.items()}.get(policy.lower())
    if evaluation is None or which not in ("best", "worst"):
        return stem.replace("-", " ").replace("_", " ")
    seed: int = getattr(evaluation, which)
    return f"{policy.upper()}, its {which} episode: seed {seed}, {evaluation.scores[evaluation.seeds.index(seed)]:,.1f}"


def _settings(groups: Mapping[str, Sequence[TrainedRun]]) -> Markup:
    runs = [run for group in groups.values() for run in group]
    rows = []
    for title, key in {"algorithm": "algorithm_config", "updates": "learner", "run": "fit", "replay": "replay"}.items():
        names = list(dict.fromkeys(name for run in runs for name in run.config.get(key, {})))
        if names:
            rows.append(element("tr", element("th", title, colspan=len(groups) + 1), class_="group"))
        for name in names:
            # Runs of a group differ in their seed, and in what was settled by measuring.
            values = [", ".join(dict.fromkeys(_setting(run, key, name) for run in group)) for group in groups.values()]
            kind = "differs" if len(set(values)) > 1 else None
            rows.append(
                element("tr", element("th", name.replace("_", " ")), *(element("td", v, class_=kind) for v in values))
            )
    encoders = [str(group[0].config.get("encoder", "")).rpartition(":")[2] for group in groups.values()]
    first = [element("tr", element("th", "encoder"), *(element("td", encoder) for encoder in encoders))]
    if any("algorithm_seed" in run.config for run in runs):
        seeds = [", ".join(dict.fromkeys(_value(r.config.get("algorithm_seed")) for r in g)) for g in groups.values()]
        first.append(element("tr", element("th", "seed of the first weights"), *(element("td", s) for s in seeds)))
    heads = element("tr", element("th", "setting"), *(element("th", label) for label in groups))
    table = element("table", element("thead", heads), element("tbody", *first, *rows))
    return section("Settings", element("div", element("div", table, class_="scroll"), class_="card"))


def _setting(run: TrainedRun, key: str, name: str) -> str:
    """In words; with what "auto" came to on this machine."""
    value, settled = _value(run.config.get(key, {}).get(name)), run.config.get("settled", {}).get(name)
    return value if settled in (None, value) else f"{value}: {settled}"


def _reproduction(runs: Sequence[TrainedRun], commands: Sequence[str]) -> Markup:
    about = dict(runs[0].environment)
    versions = about.pop("versions", {})
    rows = {**about, **(versions if isinstance(versions, Mapping) else {})}
    shown = [row(name, [_value(v)]) for name, v in rows.items() if v is not None]
    table = element("table", element("tbody", *shown)) if shown else note("Not recorded.")
    typed = [element("pre", command) for command in commands]
    return section(
        "How to reproduce it",
        *([element("div", *typed, class_="card")] if typed else []),
        element(
            "div",
            element("details", element("summary", "Machine and versions"), element("div", table, class_="scroll")),
            class_="card wide",
        ),
    )


def _value(value: Any) -> str:
    """A setting in words."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)

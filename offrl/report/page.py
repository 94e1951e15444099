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
from offrl.report._record import Record, TrainedRun, read_record
from offrl.statistics import Interval

_LARGEST_VIDEO = 8 * 2**20
_MOST_VIDEOS = 6
_NUM_COLORS = 6


def write_report(
    directory: str | Path,
    path: str | Path | None = None,
    *,
    dataset: FrameStore | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Writes a page about a run: settings, curves, scores, videos, its dataset, how to make it again.

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
    labels = dict.fromkeys([*record.evaluations, *(run.label for run in record.runs)])
    styles = {label: number % _NUM_COLORS for number, label in enumerate(labels)}
    reference = record.dataset_mean if summary is None else summary.mean_return
    write_document(
        path,
        f"{title}: report",
        _header(record, title),
        _facts(record, summary, reference),
        _scores(record, reference, styles),
        _curves(record.runs, styles),
        _videos(record),
        dataset_section(record, summary, dataset),
        _settings(record.runs),
        _reproduction(record.runs, commands),
    )
    return path


def _header(record: Record, title: str) -> Markup:
    finished = (record.directory.joinpath(name) for name in ("metrics.csv", "evaluation.json"))
    times = [path.stat().st_mtime for path in finished if path.exists()]
    date = f" · {datetime.fromtimestamp(max(times), UTC):%d %B %Y}".replace(" 0", " ") if times else ""
    where = f" on {record.task}" if record.task else ""
    return element(
        "header", element("h1", title), element("p", f"{' and '.join(record.algorithms)}{where}, trained offline{date}")
    )


def _facts(record: Record, summary: DatasetSummary | None, reference: Interval | None) -> Markup:
    cards = []
    if record.best is not None:
        evaluation = record.evaluations[record.best]
        mean, low, high = evaluation.mean
        num_episodes = len(evaluation.seeds)
        interval = f"95 % interval {low:,.1f} to {high:,.1f}, {num_episodes} episodes"
        cards.append(fact(f"Mean score, {record.best}", f"{mean:,.1f}", interval))
        if evaluation.finished:
            finished = sum(evaluation.finished)
            share = f"{100 * finished / num_episodes:.0f} %"
            cards.append(fact("Finished laps", f"{finished} of {num_episodes}", share))
        if reference is not None:
            above = f"{mean - reference.mean:+,.1f}"
            cards.append(fact("Against its data", above, f"the data's mean is {reference.mean:,.1f}"))
    updates = sorted({run.updates for run in record.runs})
    count = f"{updates[0]:,}" if len(updates) == 1 else f"{updates[0]:,} to {updates[-1]:,}"
    times = [f"{run.label} {_duration(run.seconds)}" for run in record.runs if run.seconds]
    cards.append(fact("Updates", count, ", ".join(times)))
    if summary is not None:
        cards.append(fact("Transitions", f"{summary.num_transitions:,}", f"in {summary.num_episodes:,} episodes"))
    return element("div", *cards, class_="grid-cards")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.1f} min"


def _scores(record: Record, reference: Interval | None, styles: Mapping[str, int]) -> Markup:
    evaluations = record.evaluations
    if not evaluations:
        return section("Scores", note("Not evaluated yet: offrl evaluate RUN --out RUN/evaluation.json"))
    has_laps = any(evaluation.finished for evaluation in evaluations.values())
    columns = ["mean", "95 % interval", "median", "worst tenth", "steps", "episodes", *(["laps"] if has_laps else [])]
    rows = []
    if reference is not None:
        cells = [f"{reference.mean:,.1f}", f"{reference.low:,.1f} to {reference.high:,.1f}"]
        rows.append(row("the data", [*cells, *[""] * (len(columns) - len(cells))]))
    for name, evaluation in evaluations.items():
        mean, low, high = evaluation.mean
        cells = [
            f"{mean:,.1f}",
            f"{low:,.1f} to {high:,.1f}",
            f"{np.median(evaluation.scores):,.1f}",
            f"{np.percentile(evaluation.scores, 10):,.1f}",
            f"{np.mean(evaluation.lengths):,.0f}",
            f"{len(evaluation.seeds):,}",
            *([f"{sum(evaluation.finished)} of {len(evaluation.seeds)}"] if has_laps else []),
        ]
        rows.append(row(name, cells, class_="best" if name == record.best and len(evaluations) > 1 else None))
    heads = element("tr", element("th", "policy"), *(element("th", c, class_="number") for c in columns))
    table = element("table", element("thead", heads), element("tbody", *rows))
    scores = {name: evaluation.scores for name, evaluation in evaluations.items()}
    seeds = next(iter(evaluations.values())).seeds
    remarks = [
        f"Scores are undiscounted returns of whole episodes, on seeds from {min(seeds):,} on; "
        "intervals are percentile bootstrap intervals of the mean.",
        *_differences(evaluations, record.best),
    ]
    line = None if reference is None else reference.mean
    chart = dot_chart(scores, "Scores of every episode by policy", styles, line)
    key = "A dot is an episode, the circle their mean with its interval"
    key += "." if line is None else ", the dashed line the data's mean."
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


def _differences(evaluations: Mapping[str, Evaluation], best: str | None) -> list[str]:
    """The best policy against each other one, where they played the same seeds."""
    if best is None:
        return []
    mine = evaluations[best]
    rivals = {name: each for name, each in evaluations.items() if name != best and each.seeds == mine.seeds}
    return [f"{best} - {name}, paired by seed: {mine.minus(rival)}." for name, rival in rivals.items()]


def _episodes(evaluations: Mapping[str, Evaluation]) -> Markup:
    by_seed: dict[int, dict[str, float]] = {}
    for name, evaluation in evaluations.items():
        for seed, score in zip(evaluation.seeds, evaluation.scores, strict=True):
            by_seed.setdefault(seed, {})[name] = score
    rows = [
        row(str(seed), [f"{found[name]:,.1f}" if name in found else "" for name in evaluations])
        for seed, found in by_seed.items()
    ]
    heads = element("tr", element("th", "seed"), *(element("th", name, class_="number") for name in evaluations))
    return element("div", element("table", element("thead", heads), element("tbody", *rows)), class_="scroll window")


def _curves(runs: Sequence[TrainedRun], styles: Mapping[str, int]) -> Markup:
    names = dict.fromkeys(name for run in runs for name in run.metrics if name != "step")
    cards = []
    for name in names:
        lines = {run.label: (run.metrics["step"], run.metrics[name]) for run in runs if name in run.metrics}
        if all(np.ptp(values) == 0 for _, values in lines.values()):  # a constant learning rate
            continue
        words = name.replace("_", " ")
        chart = line_chart(lines, f"{words} over gradient steps", styles)
        cards.append(element("figure", element("h3", words), chart, class_="card"))
    if not cards:
        return NOTHING
    keys = [
        element("li", element("span", class_=f"key c{styles[run.label]}"), run.label)
        for run in (runs if len(runs) > 1 else ())
    ]
    legend = element("ul", *keys, class_="legend") if keys else NOTHING
    return section("Training", legend, element("div", *cards, class_="grid-two"))


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


def _settings(runs: Sequence[TrainedRun]) -> Markup:
    rows = []
    for title, key in {"algorithm": "algorithm_config", "updates": "learner", "run": "fit", "replay": "replay"}.items():
        rows.append(element("tr", element("th", title, colspan=len(runs) + 1), class_="group"))
        for name in dict.fromkeys(name for run in runs for name in run.config.get(key, {})):
            values = [_setting(run, key, name) for run in runs]
            kind = "differs" if len(set(values)) > 1 else None
            rows.append(
                element("tr", element("th", name.replace("_", " ")), *(element("td", v, class_=kind) for v in values))
            )
    encoders = [str(run.config.get("encoder", "")).rpartition(":")[2] for run in runs]
    first = element("tr", element("th", "encoder"), *(element("td", encoder) for encoder in encoders))
    heads = element("tr", element("th", "setting"), *(element("th", run.label) for run in runs))
    table = element("table", element("thead", heads), element("tbody", first, *rows))
    return section("Settings", element("div", element("div", table, class_="scroll"), class_="card"))


def _setting(run: TrainedRun, key: str, name: str) -> str:
    """In words; with what "auto" came to on this machine."""
    value, settled = _value(run.config.get(key, {}).get(name)), run.config.get("settled", {}).get(name)
    return value if settled in (None, value) else f"{value}: {settled}"


def _reproduction(runs: Sequence[TrainedRun], commands: Sequence[str]) -> Markup:
    about = dict(runs[0].environment)
    versions = about.pop("versions", {})
    rows = {**about, **(versions if isinstance(versions, Mapping) else {})}
    table = element("table", element("tbody", *(row(name, [_value(v)]) for name, v in rows.items() if v is not None)))
    shown = [element("pre", command) for command in commands]
    return section(
        "How to make it again",
        *([element("div", *shown, class_="card")] if shown else []),
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

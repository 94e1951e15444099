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
from offrl.report._charts import line_chart, score_chart
from offrl.report._markup import NOTHING, Markup, data_uri, element, fact, note, row, section, write_document
from offrl.report._record import Record, Scores, TrainedRun, read_record
from offrl.report.dataset_page import _dataset_section
from offrl.report.metrics import Curve, score_curve
from offrl.report.ope_page import OPE_NAME, ope_section
from offrl.report.scores import _scores_section
from offrl.runs.files import read_run_json
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
        _scores_section(record, reference, num_references, styles),
        _judged(record),
        _curves(record.groups, styles),
        _videos(record),
        _dataset_section(record, summary, dataset),
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


def _judged(record: Record) -> Markup:
    """What `offrl ope` said of the run, where somebody asked."""
    return ope_section(read_run_json(record.directory, OPE_NAME), where=record.directory / OPE_NAME)


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


def _curves(groups: Mapping[str, Sequence[TrainedRun]], styles: Mapping[str, int]) -> Markup:
    names = dict.fromkeys(name for group in groups.values() for run in group for name in run.metrics if name != "step")
    cards = [*_score_curves(groups, styles)]
    for name in names:
        lines = {
            label: [run.metrics for run in group if name in run.metrics]
            for label, group in groups.items()
            if any(name in run.metrics for run in group)
        }
        logged = [run[name] for runs in lines.values() for run in runs]
        if all(np.ptp(values) == 0 for values in logged):  # a constant learning rate
            continue
        chart = line_chart(lines, name, styles)
        cards.append(element("figure", element("h3", name.replace("_", " ")), chart, class_="card"))
    if not cards:
        return NOTHING
    keys = []
    for label, group in groups.items():
        text = f"{label}, {len(group)} training seeds" if len(group) > 1 else f"{label}, one training run"
        keys.append(element("li", element("span", class_=f"key c{styles[label]}"), text))
    has_band = any(len(group) > 1 for group in groups.values())
    legend = element("ul", *keys, class_="legend") if len(groups) > 1 or has_band else NOTHING
    words = (
        "A line is the mean over the training seeds. The band of a metric reaches from the lowest to the highest run."
    )
    about = note(words) if has_band else NOTHING
    return section("Training", legend, element("div", *cards, class_="grid-two"), about)


def _score_curves(groups: Mapping[str, Sequence[TrainedRun]], styles: Mapping[str, int]) -> list[Markup]:
    """The card of the scores while training, if there are any: over training seeds, or of the one run there is."""
    played = {label: [run for run in group if "score" in run.evaluations] for label, group in groups.items()}
    played = {label: runs for label, runs in played.items() if runs}
    if not played:
        return []
    curves = {label: score_curve([run.evaluations for run in runs]) for label, runs in played.items()}
    apart = [label for label, curve in curves.items() if not len(curve.steps)]
    curves = {label: curve for label, curve in curves.items() if label not in apart}
    (label, runs), *others = played.items()
    found = runs[0].evaluations
    if any(curve.low is not None for curve in curves.values()):
        band = " The band is Student's 95 % t interval over the training seeds; a wide one may leave the picture."
    elif len(runs) == 1 and not others and {"low", "high"} <= found.keys():
        curves[label] = Curve(found["step"], found["score"], found["low"], found["high"])
        band = " The band is the 95 % interval over the episodes of this training run."
    else:
        band = ""
    about = f"Mean return of the episodes played while training{_tuning_seeds(runs[0])}.{band}"
    if apart:
        about += f" Not drawn, as their runs were not played at the same steps: {', '.join(apart)}."
    chart = score_chart(curves, "score while training over gradient steps", styles) if curves else NOTHING
    return [element("figure", element("h3", "score while training"), chart, note(about), class_="card")]


def _tuning_seeds(run: TrainedRun) -> str:
    """On which seeds a run was played while it trained, if its evaluator said so."""
    evaluation = run.config.get("evaluation") or {}
    first, last = (evaluation.get(name) for name in ("first_seed", "last_seed"))
    if not (isinstance(first, int) and isinstance(last, int)):
        return ""
    return f", on tuning seeds {first:,} to {last:,}: not those of the table of scores"


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
    in_any_case = {name.lower(): each for name, each in evaluations.items()}
    evaluation = evaluations.get(policy, in_any_case.get(policy.lower()))
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

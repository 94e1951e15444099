"""The scores of runs in one table: a row for each algorithm over its training seeds, as data, as text, as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from offrl.evaluation.scores import Evaluation
from offrl.replay.store import FrameStore
from offrl.report._charts import dot_chart
from offrl.report._markup import Markup, element, note, row, section
from offrl.report._record import Record, read_record
from offrl.report.compare import TrainingSeed
from offrl.report.ope_page import OPE_NAME
from offrl.statistics import Interval, bootstrap_mean

_NOT_EVALUATED = "Not played yet: offrl evaluate RUN --out RUN/evaluation.json"
_BY_LOGS = "By logs alone: offrl ope RUN --out RUN/ope.json, of a run that held episodes out (--set held_out=0.1)"
_OVER_EPISODES = (
    "Intervals are percentile bootstrap intervals of the mean over the episodes of one training run: they say nothing "
    "of other training seeds."
)
_OVER_SEEDS = (
    "Over several training seeds, the mean is that of the runs' mean scores, and the interval is Student's t interval "
    "over these. Of one training run and of the data, the interval is a bootstrap interval over episodes, and says "
    "nothing of other training seeds."
)


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one algorithm (with one choice of settings) over its training runs, or of one policy.

    Attributes:
        name: the algorithm, with the settings in which it differs from others of the table; or the policy.
        mean: over several training runs, the mean of their mean scores with Student's t interval; of one run, the mean
            of its episodes with a bootstrap interval over these.
        run_means: the mean score of each training run.
        training_seeds: of these runs, as (of the first weights, of the batches); None where they are not known.
        episodes: undiscounted returns and lengths of the episodes, by training run.
    """

    name: str
    mean: Interval
    run_means: tuple[float, ...]
    training_seeds: tuple[TrainingSeed | None, ...]
    episodes: tuple[Evaluation, ...]

    @property
    def interval_over(self) -> Literal["training seeds", "episodes"]:
        """What the interval is over: only one over training seeds says how another run would score."""
        return "training seeds" if len(self.run_means) > 1 else "episodes"

    @property
    def num_episodes(self) -> int:
        """Of all training runs together."""
        return sum(len(evaluation.seeds) for evaluation in self.episodes)

    @property
    def mean_length(self) -> float:
        """Steps of an episode, over all episodes."""
        return float(np.mean([length for evaluation in self.episodes for length in evaluation.lengths]))

    @property
    def finished(self) -> tuple[bool, ...]:
        """Whether each episode's lap was finished; empty where there are no laps."""
        return tuple(lap for evaluation in self.episodes for lap in evaluation.finished)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `interval_95` is None where there is no interval."""
        found: dict[str, Any] = {
            "name": self.name,
            "num_runs": len(self.run_means),
            "training_seeds": [None if seed is None else list(seed) for seed in self.training_seeds],
            **self.mean.to_dict(),
            "interval_over": self.interval_over,
            "run_means": list(self.run_means),
            "num_episodes": self.num_episodes,
            "mean_length": self.mean_length,
        }
        if self.finished:
            found["finished_share"] = sum(self.finished) / len(self.finished)
        return found


@dataclass(frozen=True)
class ScoreDifference:
    """The best row of a table against another one, paired.

    Attributes:
        best: name of the row with the highest mean.
        other: name of the other row.
        paired_by: "training seed", or, of one run each, "episode seed".
        mean: of the differences, best - other, with its 95 % interval over the pairs.
        num_episodes: of each of the other's runs.
    """

    best: str
    other: str
    paired_by: str
    mean: Interval
    num_episodes: int

    def __str__(self) -> str:
        """One line for people."""
        bounds = self.mean.bounds(self.num_episodes, form="+,.1f")
        bounds = bounds if self.mean.low is None else f"95 % interval {bounds}"
        return f"{self.best} - {self.other}, paired by {self.paired_by}: {self.mean.mean:+,.1f}, {bounds}."

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"best": self.best, "other": self.other, "paired_by": self.paired_by, **self.mean.to_dict()}


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a run, or of a directory of runs.

    Attributes:
        rows: one for each algorithm over its training seeds, or for each policy; empty where nothing was evaluated.
        differences: the best row against each other one that can be paired with it.
        dataset_mean: of the returns of the dataset, where that is known.
        dataset_episodes: how many these are, likewise.
        remarks: what was left out, a sentence each.
        is_estimated: whether estimates by logs alone are there, which a table of scores does not show.
    """

    rows: tuple[ScoreRow, ...]
    differences: tuple[ScoreDifference, ...] = ()
    dataset_mean: Interval | None = None
    dataset_episodes: int | None = None
    remarks: tuple[str, ...] = ()
    is_estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        mean = self.dataset_mean
        return {
            "scores": [each.to_dict() for each in self.rows],
            "differences": [each.to_dict() for each in self.differences],
            "dataset": None if mean is None else {**mean.to_dict(), "num_episodes": self.dataset_episodes},
            "remarks": list(self.remarks),
        }

    def to_text(self) -> str:
        """A table for people, with the differences and remarks below it."""
        if not self.rows:
            return _NOT_EVALUATED if self.is_estimated else f"{_NOT_EVALUATED}\n{_BY_LOGS}"
        lines = [self._heads, *self._data_row, *([each.name, *self._cells(each)] for each in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        ]
        below = [*map(str, self.differences), *self.remarks]
        return "\n".join([*table, *([""] if below else []), *below])

    def to_html(self) -> Markup:
        """The table alone, as an element of a page."""
        best = max(self.rows, key=lambda each: each.mean.mean) if len(self.rows) > 1 else None
        rows = [row(name, cells) for name, *cells in self._data_row]
        rows += [row(each.name, self._cells(each), class_="best" if each is best else None) for each in self.rows]
        first, *others = self._heads
        heads = element("tr", element("th", first), *(element("th", head, class_="number") for head in others))
        return element("table", element("thead", heads), element("tbody", *rows))

    @property
    def is_over_seeds(self) -> bool:
        """Whether a row is of several training runs."""
        return any(len(each.run_means) > 1 for each in self.rows)

    @property
    def _has_laps(self) -> bool:
        return any(each.finished for each in self.rows)

    @property
    def _heads(self) -> list[str]:
        if self.is_over_seeds:
            heads = ["algorithm", "mean", "95 % interval", "training seeds", "lowest run", "highest run"]
        else:
            heads = ["policy", "mean", "95 % interval over episodes", "median", "worst tenth"]
        return [*heads, "steps an episode", "episodes", *(["laps"] if self._has_laps else [])]

    @property
    def _data_row(self) -> list[list[str]]:
        """The dataset's row, if its mean is known: that, and the interval over its episodes."""
        mean, count = self.dataset_mean, self.dataset_episodes
        if mean is None:
            return []
        few = mean.low is None and count is None
        bounds = "too few episodes for an interval" if few else mean.bounds(count or 0, form=",.1f")
        cells = ["the data", f"{mean.mean:,.1f}", bounds]
        return [cells + [""] * (len(self._heads) - len(cells))]

    def _cells(self, each: ScoreRow) -> list[str]:
        """What stands in a row beside its name."""
        mean, played, is_one = each.mean, each.episodes, len(each.episodes) == 1
        counts = list(dict.fromkeys(len(evaluation.seeds) for evaluation in played))
        cells = [f"{mean.mean:,.1f}", mean.bounds(counts[0], form=",.1f")]
        if not self.is_over_seeds:
            cells += [f"{played[0].median:,.1f}", f"{played[0].percentile_10:,.1f}"]
        elif is_one:
            cells[1] += ", over episodes" if mean.low is not None else ""
            cells += ["one training run", "-", "-"]
        else:
            cells += [f"{len(played)}", f"{min(each.run_means):,.1f}", f"{max(each.run_means):,.1f}"]
        cells.append(f"{each.mean_length:,.0f}")
        cells.append(f"{counts[0]:,} each" if len(counts) == 1 and not is_one else f"{each.num_episodes:,}")
        if self._has_laps:
            cells.append(f"{sum(each.finished)} of {len(each.finished)}" if each.finished else "-")
        return cells


def score_table(directory: str | Path, *, dataset: FrameStore | None = None) -> ScoreTable:
    """The scores of a run, or of the runs in a directory, as `offrl report` shows them.

    The scores are those of the runs' evaluation.json. Runs that differ in nothing but their seed are one row, over
    their training seeds; of runs with the same seed, the newest counts.

    Args:
        directory: a run, or a directory whose subdirectories are runs.
        dataset: what the runs were trained on, where it is at hand.

    Raises:
        RunError: no run there, or a file of it that is damaged.
    """
    record = read_record(Path(directory))
    if dataset is None:
        return _table(record, record.dataset_mean, record.dataset_episodes)
    returns = dataset.episode_returns()
    return _table(record, bootstrap_mean(returns), len(returns))


def _table(record: Record, dataset_mean: Interval | None, dataset_episodes: int | None) -> ScoreTable:
    rows = [
        ScoreRow(name, scores.mean, tuple(scores.means), scores.seeds, scores.evaluations)
        for name, scores in record.scores.items()
    ]
    is_estimated = (record.directory / OPE_NAME).exists()
    return ScoreTable(
        tuple(rows), tuple(_differences(record)), dataset_mean, dataset_episodes, record.remarks, is_estimated
    )


def _differences(record: Record) -> Iterator[ScoreDifference]:
    """The best policy against each other one, where their episodes or training seeds can be paired."""
    for name, rival in record.scores.items():
        paired = None if record.best in (None, name) else record.scores[record.best].minus(rival)
        if paired is not None and record.best is not None:
            yield ScoreDifference(record.best, name, *paired, num_episodes=len(rival.evaluations[0].seeds))


def _scores_section(
    record: Record, reference: Interval | None, num_references: int | None, styles: Mapping[str, int]
) -> Markup:
    """The section of a page: table, chart, and every episode."""
    table = _table(record, reference, num_references)
    if not table.rows:
        return section("Scores", *map(note, table.to_text().splitlines()))
    seeds = next(iter(record.evaluations.values())).seeds
    remarks = [
        f"Scores are undiscounted returns of whole episodes, on seeds from {min(seeds):,} on. "
        + (_OVER_SEEDS if table.is_over_seeds else _OVER_EPISODES),
        *map(str, table.differences),
        *table.remarks,
    ]
    dots: dict[str, tuple[Sequence[float], Interval]]
    if table.is_over_seeds:
        dots = {each.name: (each.run_means, each.mean) for each in table.rows}
        title, x_label = "Mean score of every training run by algorithm", "mean return of a training run"
        key = "A dot is a training run, the circle the mean with its interval"
    else:
        dots = {each.name: (each.episodes[0].scores, each.mean) for each in table.rows}
        title, x_label = "Scores of every episode by policy", "return of an episode"
        key = "A dot is an episode, the circle their mean with its interval"
    line = None if reference is None else reference.mean
    chart = dot_chart(dots, title, styles, line, x_label)
    key += "." if line is None else ", the dashed line the data's mean."
    return section(
        "Scores",
        element("div", element("div", table.to_html(), class_="scroll"), *map(note, remarks), class_="card"),
        element(
            "div",
            element("div", chart, note(key), class_="card"),
            element("div", element("h3", "Every episode"), _episodes(record.evaluations), class_="card"),
            class_="grid-two",
        ),
    )


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

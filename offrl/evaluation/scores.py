"""What a policy's episodes scored: summaries with intervals, as tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offrl.errors import ConfigError
from offrl.statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
class Evaluation:
    """Scores of whole episodes, one for each seed, in the order of the seeds.

    Attributes:
        seeds: given to `reset`.
        scores: undiscounted returns.
        lengths: steps.
        finished: whether `info["lap_finished"]` was true at the end; empty where no episode's end says.
        versions: of the packages that it was played with; empty where that is not known.
    """

    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """From what `dataclasses.asdict` gave, even if JSON made lists of its tuples."""
        columns = {name: tuple(data[name]) for name in ("seeds", "scores", "lengths", "finished")}
        return cls(**columns, versions=dict(data["versions"]))

    @classmethod
    def of_shares(cls, shares: Sequence[Evaluation]) -> Evaluation:
        """The evaluation whose episodes were dealt out in turn: the first, the second, ..., the first again."""
        count = len(shares)
        num_episodes = sum(len(share.seeds) for share in shares)
        has_laps = any(share.finished for share in shares)

        def dealt(columns: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
            return tuple(columns[index % count][index // count] for index in range(num_episodes))

        return cls(
            seeds=dealt([share.seeds for share in shares]),
            scores=dealt([share.scores for share in shares]),
            lengths=dealt([share.lengths for share in shares]),
            finished=dealt([share.finished or (False,) * len(share.seeds) for share in shares]) if has_laps else (),
            versions=shares[0].versions,
        )

    @property
    def mean(self) -> Interval:
        """Mean score and its 95 % bootstrap interval; fewer than five episodes have none."""
        return bootstrap_mean(self.scores)

    @property
    def standard_deviation(self) -> float:
        """Of the scores: the root of the mean squared distance to their mean."""
        return float(np.std(self.scores))

    @property
    def median(self) -> float:
        """Of the scores."""
        return float(np.median(self.scores))

    @property
    def percentile_10(self) -> float:
        """The score that a tenth of the episodes stay below."""
        return float(np.percentile(self.scores, 10))

    @property
    def mean_length(self) -> float:
        """Steps."""
        return float(np.mean(self.lengths))

    @property
    def finished_share(self) -> float | None:
        """Share of the episodes with a finished lap, in 0..1; None where there are no laps."""
        return sum(self.finished) / len(self.finished) if self.finished else None

    @property
    def best(self) -> int:
        """The seed of the best episode."""
        return self.seeds[int(np.argmax(self.scores))]

    @property
    def worst(self) -> int:
        """The seed of the worst episode."""
        return self.seeds[int(np.argmin(self.scores))]

    def minus(self, other: Evaluation) -> Interval:
        """Mean and 95 % interval of the paired differences to another policy's scores on the same seeds.

        Fewer than five episodes have no interval.

        Raises:
            ConfigError: the seeds differ, or it is no Evaluation.
        """
        if not isinstance(other, Evaluation):
            raise ConfigError(
                f"a {type(other).__name__}", where="Evaluation.minus", expected="an Evaluation on the same seeds"
            )
        if self.seeds != other.seeds:
            raise ConfigError("the evaluations' seeds differ", where="Evaluation.minus", expected="the same seeds")
        return bootstrap_mean(np.subtract(self.scores, other.scores))

    def _bounds(self, mean: Interval) -> str:
        """The 95 % interval of a mean over these episodes in words, or why there is none."""
        bounds = mean.bounds(len(self.seeds))
        return bounds if mean.low is None else f"95 % interval {bounds}"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the summary first, then each episode."""
        summary: dict[str, Any] = {
            "episodes": len(self.seeds),
            **self.mean.to_dict(),
            "standard_deviation": self.standard_deviation,
            "median": self.median,
            "percentile_10": self.percentile_10,
            "mean_length": self.mean_length,
        }
        columns: dict[str, Sequence[Any]] = {"seed": self.seeds, "score": self.scores, "length": self.lengths}
        if self.finished:
            summary |= {"finished": sum(self.finished), "finished_share": self.finished_share}
            columns["finished"] = self.finished
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {**summary, "versions": dict(self.versions), "per_episode": rows}

    def to_text(self) -> str:
        """Tables for people: each episode, then, where a terminal ends, the summary."""
        head = ["seed", "score", "steps"]
        rows = [
            [str(seed), f"{score:.1f}", str(length)]
            for seed, score, length in zip(self.seeds, self.scores, self.lengths, strict=True)
        ]
        if self.finished:
            head.append("lap")
            rows = [[*row, "finished" if lap else "-"] for row, lap in zip(rows, self.finished, strict=True)]
        summary = {
            "episodes": f"{len(self.seeds)}, seeds {min(self.seeds)} to {max(self.seeds)}",
            "mean score": f"{self.mean.mean:.1f}, {self._bounds(self.mean)}",
            "standard deviation": f"{self.standard_deviation:.1f}",
            "median score": f"{self.median:.1f}",
            "10th percentile": f"{self.percentile_10:.1f}",
            "mean length": f"{self.mean_length:.1f} steps",
        }
        if self.finished:
            summary["finished laps"] = f"{sum(self.finished)} of {len(self.seeds)} ({self.finished_share:.0%})"
        if self.versions:
            summary["versions"] = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        width = max(map(len, summary))
        return "\n".join([*_table(head, rows), "", *(f"{name:<{width}}  {text}" for name, text in summary.items())])


@dataclass(frozen=True)
class Sweep:
    """One policy with several thresholds, all on the same seeds.

    Attributes:
        evaluations: by threshold.
        baseline: the threshold that the others are compared with.
    """

    evaluations: Mapping[float, Evaluation]
    baseline: float

    @property
    def differences(self) -> dict[float, Interval]:
        """By threshold: mean and 95 % interval of the paired differences to the baseline's scores."""
        base = self.evaluations[self.baseline]
        return {threshold: each.minus(base) for threshold, each in self.evaluations.items()}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: an entry for each threshold, under names that `offrl report` shows."""
        differences = self.differences
        names = self._names()
        return {
            "baseline": self.baseline,
            "policies": {
                f"threshold {names[threshold]}": {
                    "threshold": threshold,
                    "minus_baseline": differences[threshold].to_dict(),
                    **each.to_dict(),
                }
                for threshold, each in self.evaluations.items()
            },
        }

    def _names(self) -> dict[float, str]:
        """The thresholds as they are written: with six digits, or with all where six are those of another, too."""
        short = [f"{threshold:g}" for threshold in self.evaluations]
        return {
            threshold: name if short.count(name) == 1 else repr(threshold)
            for threshold, name in zip(self.evaluations, short, strict=True)
        }

    def to_text(self) -> str:
        """A table for people, a row for each threshold."""
        names = self._names()
        base = self.evaluations[self.baseline]
        num_episodes = len(base.seeds)
        head = ["threshold", "mean", "95 % interval", "median", "10th percentile", "steps"]
        head += ["laps"] if base.finished else []
        rows = []
        for threshold, difference in self.differences.items():
            each = self.evaluations[threshold]
            row = [names[threshold], f"{each.mean.mean:.1f}", _cell(each.mean, num_episodes), f"{each.median:.1f}"]
            row += [f"{each.percentile_10:.1f}", f"{each.mean_length:.1f}"]
            row += [str(sum(each.finished))] if base.finished else []
            is_base = threshold == self.baseline
            signed = f"{difference.mean:+.1f}, {_cell(difference, num_episodes, '+.1f')}"
            rows.append([*row, "-" if is_base else signed])
        lines = _table([*head, f"paired difference to {names[self.baseline]}"], rows)
        seeds = f"{num_episodes} episodes, seeds {min(base.seeds)} to {max(base.seeds)}"
        remarks = [base.mean.bounds(num_episodes)] if base.mean.low is None else []
        return "\n".join([*lines, "", seeds, *remarks])


def _cell(mean: Interval, num_episodes: int, form: str = ".1f") -> str:
    """A table's cell; why there is no interval stands below the table."""
    return "too few" if mean.low is None else mean.bounds(num_episodes, form=form)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns that are as wide as they must be, aligned on the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in (head, *rows)]

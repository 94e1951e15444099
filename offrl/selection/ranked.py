"""What a ranking of policies says: a table, and why the first one is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ranked:
    """A policy with its place.

    Attributes:
        name: Of the candidate.
        threshold: That the policy acts with.
        statistics: By name.
        ranks: By the name of a statistic: 1 is the best; equals share the mean of their places.
        first_in: The share of resamples of the held-out episodes in which it comes first, of which equals have equal
            shares; None with fewer than five.
        remark: What is wrong with the policy, in words; "" for nothing that is known.
    """

    name: str
    threshold: float
    statistics: Mapping[str, float]
    ranks: Mapping[str, float]
    first_in: float | None = None
    remark: str = ""

    @property
    def mean_rank(self) -> float:
        """The mean of the ranks, by which several statistics decide together."""
        return float(np.mean([*self.ranks.values()]))

    @property
    def place(self) -> tuple[float, float]:
        """Less is better: the mean of the ranks; of equals that of the first statistic."""
        return self.mean_rank, next(iter(self.ranks.values()))


@dataclass(frozen=True)
class Ranking:
    """Policies, the best one first.

    Attributes:
        policies: Of all candidates and thresholds.
        num_transitions: That they were read on.
        num_episodes: Of these.
        fitted: By the name of a statistic, the updates of the model that was fitted for it.
    """

    policies: Sequence[Ranked]
    num_transitions: int
    num_episodes: int
    fitted: Mapping[str, int] = field(default_factory=dict)

    @property
    def winner(self) -> Ranked:
        """The one to take."""
        return self.policies[0]

    def reason(self) -> str:
        """Why the winner is taken, in one line."""
        best, count = self.winner, len(self.policies)
        where = f"on {self.num_transitions:,} held-out transitions of {self.num_episodes:,} episodes"
        if best.first_in is not None and count > 1:
            where += f" and in {best.first_in:.0%} of resamples of these"
        taken = f"{best.name} with threshold {best.threshold:g}"
        equals = [each for each in self.policies[1:] if each.mean_rank == best.mean_rank]
        rules = [f"best by {next(iter(best.ranks))}"] if len(best.ranks) > 1 else []
        rules += ["first"] if any(each.place == best.place for each in equals) else []
        others = f"{len(equals)} other{'s' * (len(equals) > 1)}"
        equal = f" (equal to {others}; of equals the {', of these the '.join(rules)} is taken)" if equals else ""
        if len(best.statistics) == 1:
            ((name, value),) = best.statistics.items()
            return f"{taken}: its {name} of {value:.4g} is the best of {count} policies{equal}, {where}"
        parts = ", ".join(f"{name} {value:.4g} (rank {best.ranks[name]:g})" for name, value in best.statistics.items())
        return (
            f"{taken}: its mean rank of {best.mean_rank:.3g} is the best of {count} policies{equal}, {where}: {parts}"
        )

    def to_text(self) -> str:
        """A table, the best policy first, and under it what is wrong with some."""
        names = [*self.winner.statistics]
        several = len(names) > 1
        head = ["policy", "threshold", *(word for name in names for word in ([name, "rank"] if several else [name]))]
        is_sure = self.winner.first_in is not None and len(self.policies) > 1
        rows = [[*head, *(["mean rank"] if several else []), *(["first in"] if is_sure else [])]]
        for each in self.policies:
            row = [each.name, f"{each.threshold:g}"]
            for name in names:
                row += [f"{each.statistics[name]:.4g}", *([f"{each.ranks[name]:g}"] if several else [])]
            row += [f"{each.mean_rank:.3g}"] if several else []
            rows.append([*row, *([f"{each.first_in:.0%}"] if is_sure else [])])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        remarks = [f"{each.name}: {each.remark}" for each in self.policies if each.remark]
        return "\n".join([*lines, *(["", *dict.fromkeys(remarks)] if remarks else [])])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a statistic that is no number is null."""
        policies = [
            {
                "policy": each.name,
                "threshold": each.threshold,
                "statistics": {name: value if np.isfinite(value) else None for name, value in each.statistics.items()},
                "ranks": dict(each.ranks),
                "mean_rank": each.mean_rank,
                "first_in": each.first_in,
                "remark": each.remark,
            }
            for each in self.policies
        ]
        return {
            "winner": policies[0],
            "reason": self.reason(),
            "num_transitions": self.num_transitions,
            "num_episodes": self.num_episodes,
            "fitted": dict(self.fitted),
            "policies": policies,
        }

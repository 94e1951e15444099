"""rliable's own interquartile mean and probability of improvement of scores that come as JSON on stdin."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
from rliable import metrics


def main() -> None:
    """Reads {name: scores [tasks, runs]} and a baseline, writes one number of each kind for each name."""
    asked = json.load(sys.stdin)
    scores = {name: np.array(rows).T for name, rows in asked["scores"].items()}  # rliable's are [runs, tasks]
    baseline = scores.get(asked["baseline"])
    found = {"version": version("rliable"), "interquartile_mean": {}, "probability_of_improvement": {}}
    for name, values in scores.items():
        found["interquartile_mean"][name] = float(metrics.aggregate_iqm(values))
        if baseline is not None and name != asked["baseline"]:
            better = float(metrics.probability_of_improvement(values, baseline))
            found["probability_of_improvement"][name] = better
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

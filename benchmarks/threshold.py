"""A trained BCQ run of the CarRacing example, scored again with another threshold to act with."""

from __future__ import annotations

from pathlib import Path

import click

import offrl
from benchmarks.demo import RESULTS
from offrl.checkpoint import latest_checkpoint, load_policy
from offrl.envs import car_racing
from offrl.evaluate import SCORE_SEEDS
from offrl.files import write_json
from offrl.runs import describe_machine


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("name", type=click.Choice(["demo", "full"]))
@click.argument("threshold", type=float)
@click.option("--episodes", default=100, show_default=True)
def threshold(run: Path, name: str, threshold: float, episodes: int) -> None:
    """Scores RUN (a run's bcq/ directory) and keeps the result beside that of the size NAME."""
    algorithm = load_policy(offrl.DiscreteBCQ(car_racing.spec()), latest_checkpoint(run / "checkpoints"))
    policy = offrl.TorchPolicy(algorithm, threshold=threshold)
    evaluation = offrl.evaluate(policy, car_racing.make, SCORE_SEEDS[:episodes])
    print(f"acting with threshold {threshold}: {evaluation.mean}, {sum(evaluation.finished)} laps")
    write_json(
        RESULTS / name / f"bcq-acting-threshold-{threshold}.json",
        {
            "command": f"python -m benchmarks threshold RUN {name} {threshold} --episodes {episodes}",
            "threshold": threshold,
            "BCQ": evaluation.to_dict(),
            "machine": describe_machine(),
        },
    )

"""CarRacing from logged data: collect, look, train BCQ and BC, compare, export.

python examples/carracing_bcq.py            # 8 to 40 minutes on 2 cores
python examples/carracing_bcq.py --fast     # two minutes: the same steps, too small to learn to drive
python examples/carracing_bcq.py --full     # an hour or more: more data, more updates, 100 episodes
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import offrl
from offrl.collection import RECIPES
from offrl.datasets import inspect_dataset, sample_stacks
from offrl.envs import SCORE_SEEDS, car_racing
from offrl.evaluation import Evaluation
from offrl.policies import verify_onnx
from offrl.replay import Replay
from offrl.report import ActionPanel, plots, record_episode
from offrl.runs import create_run, describe_machine
from offrl.statistics import Interval
from offrl.system.devices import resolve_device
from offrl.system.json_files import write_json


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    transitions: int
    updates: int
    episodes: int
    log_period: int = 100
    films: int = 2
    film_steps: int | None = None


SIZES = {
    "fast": Size(transitions=2_000, updates=60, episodes=2, log_period=10, films=1, film_steps=250),
    "demo": Size(transitions=60_000, updates=8_000, episodes=20),
    "full": Size(transitions=300_000, updates=50_000, episodes=100),
}
# Of several training runs of a size, each on one thread: how many, and BCQ's mean score in the worst and the best of
# them on the tracks that this example drives. `python -m benchmarks readme` writes this line from benchmarks/results/.
OVER_RUNS: dict[str, tuple[int, int, int]] = {"demo": (5, 920, 924), "full": (3, 918, 920)}
NUM_ENVS = 20
BATCH_SIZE = 64
# Scaled rewards keep the errors of q small, where the Huber loss is quadratic. All was chosen on tracks for tuning, see
# docs/carracing-tried.md.
# Full brake is what only the noise in the data does: a policy that may take it slides, or brakes for good.
NO_FULL_BRAKE = np.flatnonzero(car_racing.ACTION_TABLE[:, 2] < 1).tolist()
REPLAY: dict[str, Any] = {"n_step": 3, "discount": 0.99, "reward_scale": 0.1, "legal_actions": NO_FULL_BRAKE}
LEARNER = offrl.LearnerConfig(learning_rate=5e-4, schedule="cosine", polyak=0.01, average_decay=0.999)


def collect_data(directory: Path, size: Size) -> None:
    """Drivers of mixed skill and noise, on all cores; returns at once where that was done before."""
    print(f"Data: {size.transitions:,} transitions of scripted drivers in {directory}")
    RECIPES["carracing/mixed"].collect(directory, transitions=size.transitions)


def open_data(directory: Path, seed: int) -> Replay:
    """A dataset in either layout, as both algorithms read it."""
    # Stacked shards say nothing of the task, so it is said here; a manifest says it itself (the HUD, for one).
    spec = None if (directory / "manifest.json").exists() else car_racing.spec()
    replay = offrl.open_replay(directory, spec=spec, seed=seed, **REPLAY)
    expected = car_racing.spec(replay.spec.hud or "visible")
    hint = "this example drives CarRacing: pass data of that task"
    expected.require_same(replay.spec, where=directory, hint=hint, legal_actions=False)
    return replay


def show_data(replay: Replay, plot_directory: Path) -> dict[str, Any]:
    """Prints what is in the data, draws it, and returns its line of the final table."""
    summary = inspect_dataset(replay.store)
    print(f"\n{summary.to_text()}")
    plots.plot_returns(summary.returns, plot_directory / "dataset_returns.png")
    plots.plot_action_coverage(summary.action_counts, summary.action_names, plot_directory / "dataset_actions.png")
    observations, actions = sample_stacks(replay.store, 6, seed=0)
    captions = [replay.spec.action_names[action] for action in actions]
    plots.plot_stacks(observations, captions, plot_directory / "dataset_samples.png")
    # An episode that terminates has finished its lap or left the field, which costs 100.
    last = np.unique(replay.store.segment_end)
    finished = int(np.sum(replay.store.terminated[last] & (replay.store.rewards[last] > -100)))
    return {"episodes": len(last), **summary.mean_return.to_dict(), "finished": finished}


def train(
    algorithm: offrl.Algorithm, replay: Replay, data: Path, size: Size, run: Path, device: torch.device
) -> offrl.Algorithm:
    """Trains and returns what is evaluated: the averaged weights."""
    num_parameters = sum(p.numel() for p in algorithm.parameters() if p.requires_grad)
    print(f"\n{algorithm.name.upper()}: {num_parameters:,} trainable parameters, {size.updates:,} updates on {device}")
    learner = offrl.fit(
        algorithm,
        replay,
        offrl.FitConfig(updates=size.updates, batch_size=BATCH_SIZE, log_period=size.log_period),
        learner=LEARNER,
        run=run,
        device=device,
        notes={"data": str(data.absolute()), "environment": car_racing.ENV_ID},  # for the command line
    )
    return learner.snapshot()


def report(dataset: dict[str, Any], evaluations: dict[str, Evaluation], over_runs: tuple[int, int, int] | None) -> str:
    """One table: the data and each policy; with enough episodes, BCQ minus BC on the same seeds and which draw it is.

    Args:
        dataset: the data's line.
        evaluations: of each policy.
        over_runs: of `OVER_RUNS`, where this is a run of such a size.
    """
    rows = [("dataset", dataset)] + [(name, evaluation.to_dict()) for name, evaluation in evaluations.items()]
    width = len("2 episodes: too few for an interval")
    lines = [f"{'':10}{'mean':>8}   {'95 % interval':<{width}}{'finished laps':>16}"]
    for name, row in rows:
        bounds = Interval(row["mean"], *(row["interval_95"] or (None, None))).bounds(row["episodes"])
        lines.append(f"{name:10}{row['mean']:8.1f}   {bounds:<{width}}{row.get('finished', 0):>9} of {row['episodes']}")
    difference = evaluations["BCQ"].minus(evaluations["BC"])
    if difference.low is not None:
        bounds = difference.bounds(len(evaluations["BC"].seeds), form="+.1f")
        lines.append(f"BCQ - BC, paired by seed: {difference.mean:+.1f}, {bounds}")
        draw = "one training run of each: another seed scores differently"
        if over_runs is not None:
            count, lowest, highest = over_runs
            draw = f"one training run of each; on these tracks {count} other runs of BCQ scored {lowest} to {highest}"
        lines.append(f"({draw})")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--fast", is_flag=True, help="Two minutes, tiny sizes.")
@click.option("--full", is_flag=True, help="An hour or more on 2 cores, for a better driver.")
@click.option("--data", type=click.Path(path_type=Path), help="A dataset of your own, in either layout.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU where there is one.")
@click.option("--seed", default=0, show_default=True, help="Of the first weights and batches; the data is the same.")
def main(fast: bool, full: bool, data: Path | None, runs: Path, device: str, seed: int) -> None:
    """Runs it all; bad input ends in one line and exit code 2."""
    if fast and full:
        raise click.UsageError("--fast or --full: one of them")
    try:
        run_all("fast" if fast else "full" if full else "demo", data, runs, device, seed)
    except (offrl.OfflineRLError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run_all(size_name: str, data: Path | None, runs: Path, device: str, seed: int) -> None:
    """Collects, looks, trains, compares, exports."""
    start = time.perf_counter()
    size = SIZES[size_name]
    where = resolve_device(device)
    directory = data or Path("data") / f"carracing-mixed-{size.transitions // 1000}k"
    if data is None:
        collect_data(directory, size)
    replay = open_data(directory, seed)
    run = create_run(runs, f"carracing-{size_name}")
    plot_directory = run / "plots"
    dataset = show_data(replay, plot_directory)

    bcq = train(offrl.DiscreteBCQ(replay.spec, seed=seed), replay, directory, size, run / "bcq", where)
    bc = train(offrl.BC(replay.spec, seed=seed), replay, directory, size, run / "bc", where)

    make_env = partial(car_racing.make, hud=replay.spec.hud or "visible")
    seeds = SCORE_SEEDS[: size.episodes]
    policies: dict[str, offrl.TorchPolicy | offrl.OnnxPolicy] = {
        "BC": offrl.TorchPolicy(bc),
        "BCQ": offrl.TorchPolicy(bcq),
    }
    if size_name == "fast":  # what this size has learnt is nothing to look at
        policies["shipped"] = offrl.load("carracing-bcq")
    print(f"\nEvaluation on the {len(seeds)} seeds from {seeds[0]:,}")
    evaluations = {
        name: offrl.evaluate(policy, make_env, seeds, num_envs=NUM_ENVS) for name, policy in policies.items()
    }
    table = report(dataset, evaluations, OVER_RUNS.get(size_name) if data is None else None)
    print(f"\n{table}\n")
    if "shipped" in policies:
        print(
            f"{size.updates} updates show that every step works; they teach little. `shipped` is the BCQ policy that\n"
            "comes with offrl.\n"
        )
    write_json(
        run / "evaluation.json",
        {
            "size": {"name": size_name, **asdict(size)},
            "recipe": {"batch_size": BATCH_SIZE, **REPLAY},
            "minutes": (time.perf_counter() - start) / 60,
            "dataset": {**dataset, "fingerprint": replay.fingerprint},
            "policies": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
            "bcq_minus_bc": evaluations["BCQ"].minus(evaluations["BC"])._asdict(),
            "machine": describe_machine(),
        },
    )

    real, _ = sample_stacks(replay.store, 1000, seed=1)
    for contract in ("float", "uint8"):
        path = offrl.export_onnx(bcq, run / f"bcq-{contract}.onnx", contract=contract)
        check = verify_onnx(path, bcq, real)
        print(
            f"{path}: {check.num_observations:,} observations in {check.runtime}, {check.num_disagreements} other "
            f"actions (near-ties: {check.near_tie_share:.2%}), largest difference of q {check.max_q_difference:.1e}"
        )
    shown = "shipped" if "shipped" in policies else "BCQ"
    films = {"best": evaluations[shown].best, "worst": evaluations[shown].worst}
    for which, episode_seed in list(films.items())[: size.films]:
        path = run / "videos" / f"{shown.lower()}-{which}.mp4"
        how: dict[str, Any] = {"max_steps": size.film_steps}
        panel = ActionPanel.of_episode(policies[shown], make_env, episode_seed, **how)
        recording = record_episode(policies[shown], make_env, episode_seed, path, num_envs=NUM_ENVS, panel=panel, **how)
        print(f"{path}: seed {episode_seed}, score {recording.score:.1f}, {recording.length} steps")
    for name in ("bcq", "bc"):
        plots.plot_losses(run / name / "metrics.csv", plot_directory / f"{name}_loss.png")
    scores = {name: evaluation.scores for name, evaluation in evaluations.items()}
    plots.plot_scores(scores, plot_directory / "scores.png", reference=dataset["mean"])

    print(
        f"\nDone in {(time.perf_counter() - start) / 60:.1f} minutes. In {run}/:\n"
        "  evaluation.json          every episode's seed and score, versions and machine\n"
        "  bcq-float.onnx           float contract: gray / 128 - 1 in; q and logits out\n"
        "  bcq-uint8.onnx           for deployment: raw frames in; action, q and logits out\n"
        "  videos/ plots/           the best and the worst episode, and why it acts; losses, scores, the data\n"
        "  bcq/ bc/                 each run: settings, metrics.csv, checkpoints"
    )


if __name__ == "__main__":
    main()

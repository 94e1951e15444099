"""The policy that comes with offrl: the best of the example's training runs by tuning seeds, as one small file."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx

import offrl
from benchmarks import demo_runs
from benchmarks.driving import Run
from benchmarks.stores import ROOT
from offrl.datasets import sample_stacks
from offrl.envs import SCORE_SEEDS, car_racing
from offrl.evaluation.grader import grade
from offrl.hub import load_algorithm, model_card
from offrl.policies import verify_onnx
from offrl.policies._onnx_seal import sealed
from offrl.runs import latest_checkpoint
from offrl.system.files import replacing
from offrl.system.json_files import write_json

MODELS = ROOT / "offrl" / "hub" / "models"
NAME = "carracing-bcq"
_LARGE = 1024
"""Weights of fewer numbers stay float32."""


def halve_weights(model: onnx.ModelProto) -> None:
    """Stores large weights as float16, with a cast back to float32 that a runtime does once: half the file's size."""
    graph = model.graph
    for tensor in list(graph.initializer):
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.size < _LARGE:
            continue
        half = onnx.numpy_helper.from_array(weights.astype(np.float16), f"{tensor.name}.half")
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
        cast = onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)


@click.command()
@click.option("--full", "size", flag_value="full", help="Of the example's full size in place of the demo's.")
@click.option("--episodes", default=100, show_default=True)
def ship(size: str | None, episodes: int) -> None:
    """Writes offrl/hub/models/carracing-bcq.onnx and its card from the runs of `demo-runs --tuning` and `demo-runs`."""
    study = demo_runs.study(size or "demo", ["bcq"], None, demo_runs.TUNING)
    tuned = {seed: found["mean"] for seed, found in study.evaluations().get("bcq", {}).items()}
    if not tuned:
        words = "--full --tuning" if size == "full" else "--tuning"
        sys.exit(f"no run to ship: python -m benchmarks demo-runs {words} --algorithm bcq makes them")
    recipe = study.recipes["bcq"]
    runs = [Run(study.work, recipe, seed) for seed in tuned]
    best = runs[int(np.argmax([*tuned.values()]))]
    run = best.directory
    print(f"{run}: the best of {len(tuned)} runs by tuning seeds, {max(tuned.values()):.1f}")
    algorithm = load_algorithm(latest_checkpoint(run / "checkpoints"), device="cpu")
    store = offrl.open_replay(recipe.data()).store
    observations, _ = sample_stacks(store, 5_000, seed=0)
    target = MODELS / f"{NAME}.onnx"
    with replacing(target) as partial_path:
        offrl.export_onnx(algorithm, partial_path, contract="float")  # which course graders take, too
        verify_onnx(partial_path, algorithm, observations)
        whole = offrl.OnnxPolicy(partial_path)
        model = onnx.load(partial_path)
        halve_weights(model)
        partial_path.write_bytes(sealed(model))
        same = float(np.mean(offrl.OnnxPolicy(partial_path)(observations) == whole(observations)))
    print(f"{target.stat().st_size / 1e6:.1f} MB; {same:.2%} of {len(observations):,} actions as with float32 weights")
    make_env = partial(car_racing.make, hud="visible")
    found = offrl.evaluate(offrl.load(target), make_env, SCORE_SEEDS[:episodes])
    graded = grade(target, SCORE_SEEDS[:episodes])
    result = {
        "file": target.name,
        "run": run.name,
        "recipe": {"batch_size": recipe.batch_size, **recipe.replay_settings()},
        "same_actions_as_float32": same,
        **found.to_dict(),
        "grader": graded.to_dict(),
    }
    write_json(ROOT / "benchmarks" / "results" / "shipped.json", result)
    scored = [each.evaluation_path(demo_runs.SCORED) for each in runs]
    evaluations = [path for path in scored if path.exists()]
    card = model_card(run, evaluations=evaluations)
    laps = f"{sum(found.finished)} of {len(found.seeds)}"
    changed = f"{1 - same:.2%} of the actions on {len(observations):,} observations of the data"
    this_file = (
        f'## This file\n\n`offrl.load("{NAME}")`: of {len(tuned)} training runs the one with the best score on seeds '
        f"for tuning: training run {1 + runs.index(best)} above, of seed {best.seed}. Its weights are stored as "
        f"float16, and {changed} change. The scores above are of float32 weights in torch: another action leads "
        "to another lap.\n"
        f"`offrl evaluate {NAME} --episodes {episodes}`: mean {found.mean.mean:.1f}, 95 % interval over episodes "
        f"{found.mean.bounds(len(found.seeds))}, finished laps {laps}; with `--grader` {graded.mean.mean:.1f}. "
        f"`offrl watch {NAME}` shows it drive. Each lap's score: `benchmarks/results/shipped.json`.\n\n"
        f"Data: {recipe.dataset}, {len(store):,} transitions, mean return {store.episode_returns().mean():.0f}.\n\n"
    )
    card = card.replace(f"# {run.name}", f"# {NAME}").replace('"model-uint8.onnx"', f'"{NAME}"')
    target.with_suffix(".md").write_text(card.replace("## Versions", this_file + "## Versions"), encoding="utf-8")
    print(f"{found.mean}, {laps} laps")


@click.command()
@click.argument("film", type=click.Path(path_type=Path))
@click.option("--first", default=150, show_default=True, help="Frame of the film at which it begins.")
@click.option("--seconds", default=7.0, show_default=True)
def animation(film: Path, first: int, seconds: float) -> None:
    """Draws docs/images/carracing.webp, the README's animation, from a FILM that `offrl record carracing-bcq` made."""
    import imageio_ffmpeg
    from PIL import Image

    frames = imageio_ffmpeg.read_frames(str(film))
    width, height = next(frames)["size"]
    size = (width * 4 // 5, height * 4 // 5)
    every = 5  # of 50 frames a second
    pictures = [
        Image.frombytes("RGB", (width, height), frame).resize(size, Image.Resampling.LANCZOS)
        for number, frame in enumerate(frames)
        if first <= number < first + 50 * seconds and number % every == 0
    ]
    target = ROOT / "docs" / "images" / "carracing.webp"
    pictures[0].save(
        target, save_all=True, append_images=pictures[1:], duration=20 * every, loop=0, quality=50, method=6
    )
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {len(pictures)} pictures")

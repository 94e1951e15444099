"""`offrl evaluate` and `offrl export`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click import argument, option

from offrl.cli.actors import load_actor, load_trained
from offrl.cli.console import PATH, device_option, environment_option, hud_option, output_options, show, workers_option
from offrl.cli.names import network_options
from offrl.cli.request import Request, open_data
from offrl.errors import ConfigError, OfflineRLError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from offrl.onnx_policy import Contract

_FILE_NAMES = {"float": "model.onnx", "uint8": "model-uint8.onnx"}
_REAL_OBSERVATIONS = 1000


@click.command(short_help="Play episodes with a policy.")
@argument("policy", type=PATH)
@environment_option
@hud_option
@option("--episodes", type=click.IntRange(1), default=20, show_default=True)
@option("--seed-start", type=click.IntRange(0), help="Of the first episode; default: the seeds kept for scores.")
@option("--threshold", type=float, help="Likelihood threshold; default: the policy's own.")
@option("--epsilon", type=float, default=0.0, show_default=True, help="Probability of a random action.")
@option("--out", type=PATH, help="Write the result to this JSON file as well.")
@network_options
@device_option
@workers_option(0)
@output_options
def evaluate(
    policy: Path,
    environment: str | None,
    hud: str | None,
    episodes: int,
    seed_start: int | None,
    threshold: float | None,
    epsilon: float,
    out: Path | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl evaluate runs/bcq-001 --env CarRacing-v3 --episodes 20 --out runs/bcq-001/evaluation.json

    POLICY is a run (its latest checkpoint), a checkpoint's directory, or an ONNX file. A class of your own that the
    run was trained with is named again, with --algorithm or --encoder: none is loaded because a file says so.
    """
    from offrl.evaluate import SCORE_SEEDS
    from offrl.evaluate import evaluate as play
    from offrl.files import write_json

    actor = load_actor(
        policy,
        algorithm=algorithm,
        encoder=encoder,
        device=device,
        environment=environment,
        hud=hud,
        threshold=threshold,
        epsilon=epsilon,
    )
    first = SCORE_SEEDS.start if seed_start is None else seed_start
    seeds = range(first, first + episodes)
    evaluation = play(actor.policy, actor.make_env, seeds, workers=workers, progress=False if quiet else None)
    result = {
        "policy": str(actor.path),
        "environment": {"id": actor.environment, **actor.make_env.keywords},
        "threshold": actor.policy.threshold,
        "epsilon": epsilon,
        **evaluation.to_dict(),
    }
    if out is not None:
        write_json(out, result)
    lines = {
        "policy": actor.path,
        "environment": actor.environment,
        "episodes": f"{episodes}, seeds {seeds[0]} to {seeds[-1]}",
        "mean score": "{:.1f}, 95 % interval {:.1f} to {:.1f}".format(*evaluation.mean),
        "median score": f"{result['median']:.1f}",
        "mean length": f"{result['mean_length']:.1f} steps",
    }
    if evaluation.finished:
        lines["finished laps"] = f"{sum(evaluation.finished)} of {episodes}"
    show(result if as_json else lines, as_json)


@click.command(short_help="Write a policy as ONNX and verify it.")
@argument("policy", type=PATH)
@argument("target", metavar="DIRECTORY|FILE.onnx", type=PATH)
@option("--contract", type=click.Choice(["float", "uint8", "both"]), default="both", show_default=True)
@network_options
@output_options
def export(
    policy: Path,
    target: Path,
    contract: Contract | Literal["both"],
    algorithm: str | None,
    encoder: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl export runs/bcq-001 runs/bcq-001

    Writes POLICY, a run or a checkpoint's directory, as model.onnx (the float contract) and model-uint8.onnx into
    DIRECTORY, or one contract as FILE.onnx. Each file is run beside torch on random observations, and on 1,000 of
    the run's dataset where that is present; one that differs is not written.
    """
    from offrl.export import export_onnx, verify_onnx
    from offrl.files import replacing

    chosen: list[Contract] = ["float", "uint8"] if contract == "both" else [contract]
    is_file = target.suffix == ".onnx"
    if is_file and len(chosen) > 1:
        raise ConfigError(
            f"{target} for two contracts", where="export", expected="a directory", mend="or add --contract float"
        )
    trained = load_trained(policy, algorithm, encoder, "cpu")
    observations = _real_observations(trained.request, quiet)
    num_real = 0 if observations is None else len(observations)
    files, lines = [], []
    for each in chosen:
        path = target if is_file else target / _FILE_NAMES[each]
        with replacing(path) as partial:  # takes its place only when it is verified
            export_onnx(trained.algorithm, partial, contract=each)
            found = verify_onnx(partial, trained.algorithm, observations)
        files.append({"file": str(path), "contract": each, "num_real_observations": num_real, **asdict(found)})
        lines += [
            f"{path}  {each} contract, verified with {found.runtime}",
            f"  {found.num_observations} observations, {num_real} of them real: largest difference of q "
            f"{found.max_q_difference:.1e}, of logits {found.max_logits_difference:.1e}",
            f"  other actions than torch in {found.num_disagreements}; near-ties in {found.near_tie_share:.2%}",
        ]
    show({"files": files}, as_json, text="\n".join(lines))


def _real_observations(request: Request, quiet: bool) -> NDArray[Any] | None:
    """Some of the run's own data, where that is still there."""
    from offrl.replay.inspect import sample_stacks

    if request.data is None or not Path(request.data).is_dir():
        return None
    try:
        return sample_stacks(open_data(request, progress=not quiet).store, _REAL_OBSERVATIONS, seed=0)[0]
    except OfflineRLError as error:
        click.echo(f"warning: verified on random observations only: {error}", err=True)
        return None

"""`offrl evaluate` and `offrl export`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import click
from click import argument, option

from offrl.cli.actors import Actor, file_of, load_actor, load_trained, require_no_network
from offrl.cli.behaviours import DRIVER, load_driver
from offrl.cli.console import (
    DATA,
    FILE,
    PATH,
    device_option,
    environment_option,
    hud_option,
    output_options,
    refuse_beside,
    show,
    workers_option,
)
from offrl.cli.logged import real_observations
from offrl.cli.names import CAR_RACING, network_options
from offrl.errors import ConfigError
from offrl.system.ranks import Ranks
from offrl.system.torchrun import join

if TYPE_CHECKING:
    from offrl.algorithms.algorithm import Algorithm
    from offrl.evaluation.scores import Evaluation, Sweep
    from offrl.policies._onnx_file import Contract

_FILE_NAMES = {"float": "model.onnx", "uint8": "model-uint8.onnx"}
_EPISODES = 20
_GRADER_EPISODES = 50


@click.command(short_help="Evaluate a policy or a scripted driver on seeded episodes.")
@argument("policy", type=PATH)
@environment_option
@hud_option
@option("--episodes", type=click.IntRange(1), help=f"Default: {_EPISODES}; with --grader: {_GRADER_EPISODES}.")
@option(
    "--seed-start",
    type=click.IntRange(0),
    help="Seed of the first episode; default: the first of SCORE_SEEDS, with several thresholds of TUNING_SEEDS.",
)
@option("--threshold", help="Likelihood threshold, or several, such as 0.0,0.1,0.3; default: the policy's own.")
@option("--epsilon", type=float, help="Probability of a random action; default: 0.")
@option("--grader", is_flag=True, help="Play CarRacing by the course grader's rule.")
@option("--out", type=FILE, help="Write the result to this JSON file as well.")
@network_options
@device_option
@workers_option(0)
@output_options
def evaluate(
    policy: Path,
    environment: str | None,
    hud: str | None,
    episodes: int | None,
    seed_start: int | None,
    threshold: str | None,
    epsilon: float | None,
    grader: bool,
    out: Path | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl evaluate runs/bcq-001 --env CarRacing-v3 --episodes 20 --out runs/bcq-001/evaluation.json

    POLICY is a run (its latest checkpoint), a checkpoint's directory such as RUN/checkpoints/best, an ONNX file, a
    policy that comes with offrl such as carracing-bcq, hf://owner/name, or one of CarRacing's scripted drivers:
    driver:expert, driver:0.7 (a skill in [0, 1]) or, in any environment, driver:random. Several thresholds
    are compared on the same episodes, which begin with seed 1000000: the seeds that are kept for scores are refused
    where a setting is chosen. A class of your own that the run was trained with is named again, with --algorithm or
    --encoder: none is loaded because a file says so.
    """
    from offrl.envs.seeds import SCORE_SEEDS, TUNING_SEEDS
    from offrl.runs.files import of_run
    from offrl.system.files import require_writable
    from offrl.system.json_files import write_sealed_json

    thresholds = [] if threshold is None else _parse_thresholds(threshold)
    is_driver = str(policy).startswith(DRIVER)
    if is_driver:
        trained: dict[str, Any] = {"--grader": grader or None, "--threshold": threshold, "--device": device}
        trained |= {"--algorithm": algorithm, "--encoder": encoder}
        refuse_beside("a driver", trained, where="evaluate", expected="a trained policy")
    elif grader:
        rule = {"--env": environment, "--hud": hud, "--threshold": threshold, "--epsilon": epsilon, "--device": device}
        refuse_beside("--grader", rule, where="evaluate", expected="the grader's own rule")
    if out is not None:
        require_writable(out)
    if seed_start is None:
        seed_start = (TUNING_SEEDS if len(thresholds) > 1 else SCORE_SEEDS).start
    ranks = join()
    seeds = ranks.share(range(seed_start, seed_start + (episodes or (_GRADER_EPISODES if grader else _EPISODES))))
    how = {"workers": ranks.workers(workers), "progress": None if ranks.is_first and not quiet else False}
    where: dict[str, Any] = {"environment": environment, "hud": hud, "epsilon": epsilon or 0.0}
    if grader:
        found, about, run = _grade(policy, algorithm, encoder, seeds, how)
    elif is_driver:
        found, about, run = _drive(str(policy), seeds, where, how)
    else:
        alone = thresholds[0] if len(thresholds) == 1 else None
        actor = load_actor(policy, algorithm=algorithm, encoder=encoder, device=device, threshold=alone, **where)
        found, about, run = _act(actor, thresholds, seeds, how)
    found = _of_all(found, ranks)
    if not ranks.is_first:
        return
    result = {**about, **found.to_dict()}
    settings = {**about, "environment": _in_words(about["environment"])}
    width = max(map(len, settings))
    show(
        result,
        as_json,
        "\n".join([*(f"{name:<{width}}  {value}" for name, value in settings.items()), "", found.to_text()]),
    )
    if out is not None:  # shown first: where it cannot be written, what was played is not lost
        write_sealed_json(out, of_run(run, result))


class _Played(NamedTuple):
    """What came out, what was played, JSON-ready, and the run that it is of."""

    found: Evaluation | Sweep
    about: dict[str, Any]
    run: Path | None = None


def _of_all(found: Evaluation | Sweep, ranks: Ranks) -> Evaluation | Sweep:
    """The episodes of all ranks, of which `found` has this rank's share."""
    from offrl.evaluation.scores import Evaluation, Sweep

    if ranks.count == 1:
        return found
    if isinstance(found, Sweep):
        whole = {threshold: _of_all(each, ranks) for threshold, each in found.evaluations.items()}
        return Sweep(cast("dict[float, Evaluation]", whole), found.baseline)
    return Evaluation.of_shares([Evaluation.from_json(share) for share in ranks.gather(asdict(found))])


def _act(actor: Actor, thresholds: list[float], seeds: Sequence[int], how: dict[str, Any]) -> _Played:
    """Plays with a trained policy, with all of several thresholds."""
    from offrl.evaluation.scoring import evaluate as play
    from offrl.evaluation.scoring import sweep_thresholds
    from offrl.policies.torch_policy import TorchPolicy
    from offrl.runs.files import run_of

    about = {
        "policy": str(actor.path),
        "environment": {"id": actor.environment, **actor.make_env.keywords},
        "threshold": actor.policy.threshold,
        "epsilon": actor.policy.epsilon,
    }
    run = run_of(actor.path) if isinstance(actor.policy, TorchPolicy) else None
    if len(thresholds) < 2:
        return _Played(play(actor.policy, actor.make_env, seeds, **how), about, run)
    return _Played(sweep_thresholds(actor.policy, thresholds, actor.make_env, seeds, **how), about, run)


def _drive(name: str, seeds: Sequence[int], where: dict[str, Any], how: dict[str, Any]) -> _Played:
    """Plays with a driver."""
    from offrl.evaluation.scoring import evaluate_behaviour

    driven = load_driver(name, **where)
    about = {
        "policy": name,
        "environment": {"id": driven.environment, **driven.make_env.keywords},
        "epsilon": where["epsilon"],
    }
    return _Played(evaluate_behaviour(driven.behaviour, driven.make_env, seeds, **how), about)


def _grade(
    policy: Path, algorithm: str | None, encoder: str | None, seeds: Sequence[int], how: dict[str, Any]
) -> _Played:
    """Plays by the grader's rule, with a file or what a run is exported as."""
    from offrl.evaluation import grader
    from offrl.runs.files import run_of

    run = None
    graded: Path | Algorithm
    if (file := file_of(policy)) is not None:
        require_no_network(policy, algorithm, encoder, None)
        graded = file
    else:
        policy, _, graded = load_trained(policy, algorithm, encoder, "cpu")
        run = run_of(policy)
    about = {
        "policy": str(policy),
        "environment": {"id": CAR_RACING, "rule": "grader"},
        "threshold": grader.THRESHOLD,
        "epsilon": grader.EPSILON,
    }
    return _Played(grader.grade(graded, seeds, **how), about, run)


def _parse_thresholds(text: str) -> list[float]:
    """The numbers in "0.0,0.1,0.3", each once."""
    try:
        return list(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(
            f"{text!r}", where="--threshold", expected="numbers in [0, 1), such as 0.3 or 0.0,0.1,0.3"
        ) from error


def _in_words(environment: dict[str, Any]) -> str:
    """Its id and its options."""
    return ", ".join(str(value) if name == "id" else f"{name} {value}" for name, value in environment.items())


@click.command(short_help="Write a policy as ONNX and verify it.")
@argument("policy", type=PATH)
@argument("target", metavar="DIRECTORY|FILE.onnx", type=PATH)
@option("--contract", type=click.Choice(["float", "uint8", "both"]), default="both", show_default=True)
@option("--data", type=DATA, help="The dataset that the run was trained on; default: where it was then.")
@network_options
@output_options
def export(
    policy: Path,
    target: Path,
    contract: Contract | Literal["both"],
    data: Path | str | None,
    algorithm: str | None,
    encoder: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl export runs/bcq-001 runs/bcq-001

    Writes POLICY, a run or a checkpoint's directory, as model.onnx (the float contract) and model-uint8.onnx into
    DIRECTORY, or one contract as FILE.onnx. Each file is run beside torch on random observations, and on 1,000 of
    the run's dataset where that is present and has a frame store, or is named with --data; one that differs is not
    written. A dataset that only the run names is read, never written.
    """
    from tqdm import tqdm

    from offrl.policies.export import export_onnx
    from offrl.policies.verify import verify_onnx
    from offrl.runs.files import run_of
    from offrl.system.files import replacing

    chosen: list[Contract] = ["float", "uint8"] if contract == "both" else [contract]
    is_file = target.suffix == ".onnx"
    trained = load_trained(policy, algorithm, encoder, "cpu")
    if contract == "both" and trained.algorithm.spec.action_masks:
        chosen = ["uint8"]  # the float contract has no input for the legal actions of each observation
    if is_file and len(chosen) > 1:
        raise ConfigError(
            f"{target} for two contracts", where="export", expected="a directory", hint="or add --contract float"
        )
    observations = real_observations(trained.request, run_of(trained.checkpoint), data, quiet=quiet)
    num_real = 0 if observations is None else len(observations)
    files, lines = [], []
    for each in tqdm(chosen, "export", unit="file", disable=True if quiet else None):
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

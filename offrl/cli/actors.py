"""Policies from disk, and the environments that they play in."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from offrl.cli.behaviours import DRIVER
from offrl.cli.console import refuse_beside
from offrl.cli.names import CAR_RACING, ENCODERS, algorithm_class, environment_factory, load_class
from offrl.cli.request import Request, read_request
from offrl.errors import ConfigError, RunError

if TYPE_CHECKING:
    from offrl.algorithms.algorithm import Algorithm
    from offrl.envs.making import Env
    from offrl.policies.onnx_policy import OnnxPolicy
    from offrl.policies.torch_policy import TorchPolicy


class Trained(NamedTuple):
    """A checkpoint, loaded."""

    checkpoint: Path
    request: Request
    algorithm: Algorithm


class Actor(NamedTuple):
    """A policy, where it lies, and the environment that it plays in."""

    policy: OnnxPolicy | TorchPolicy
    path: Path
    environment: str
    make_env: partial[Env]
    fps: int


def load_trained(path: Path, algorithm: str | None, encoder: str | None, device: str | None) -> Trained:
    """The policy of a run (its latest checkpoint) or of a checkpoint.

    Raises:
        RunError: it is neither, or damaged.
        ConfigError: a class of the user's own that the user does not name, or no such device.
    """
    from offrl.hub.loading import find_policy, load_algorithm
    from offrl.runs.files import run_of

    checkpoint = find_policy(path)
    if checkpoint.is_file():
        raise RunError("is an ONNX file", where=path, expected="a run or a checkpoint", hint="name the run it is from")
    request = read_request(run_of(checkpoint), algorithm, encoder)
    trained = load_algorithm(
        checkpoint,
        algorithm=algorithm_class(request.algorithm),
        encoder=None if request.encoder is None else load_class(request.encoder, ENCODERS, "encoder"),
        device=device or "auto",
    )
    return Trained(checkpoint, request, trained)


def file_of(path: Path) -> Path | None:
    """The ONNX file that `path` stands for: itself, a policy that comes with offrl, ...; None for a run or checkpoint.

    Raises:
        RunError: there is no policy.
    """
    from offrl.hub.loading import find_policy

    found = find_policy(path)
    return found if found.is_file() else None


def require_no_network(path: Path, algorithm: str | None, encoder: str | None, device: str | None) -> None:
    """Checks that nobody says how to build the network that a file holds, or where to run it.

    Raises:
        ConfigError: somebody does.
    """
    given = {"--algorithm": algorithm, "--encoder": encoder, "--device": device}
    refuse_beside("an ONNX file", given, where=path, expected="a run or a checkpoint")


def load_actor(
    path: Path,
    *,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    environment: str | None,
    hud: str | None,
    threshold: float | None = None,
    epsilon: float = 0.0,
    pictures: bool = False,
) -> Actor:
    """A run's policy, a checkpoint's or an ONNX file's, in the environment that is named or that its data is of.

    Args:
        path: of the run, the checkpoint or the file.
        algorithm: a class of the user's own that the run was made with.
        encoder: likewise.
        device: of the networks; None for a GPU where there is one.
        environment: a Gymnasium id; None for that of the run's data.
        hud: CarRacing's bar; None as the policy was trained.
        threshold: None for the policy's own.
        epsilon: probability of a random action.
        pictures: whether the environment is asked for pictures of itself.

    Raises:
        ConfigError: a driver, no environment is known, a setting outside what is allowed, or one that a file has no use
            for.
        RunError, ExportError: no policy there, or a damaged one.
        SpecMismatchError: the environment is not the task that the policy was trained for.
    """
    from offrl import envs
    from offrl.policies.onnx_policy import OnnxPolicy
    from offrl.policies.torch_policy import TorchPolicy

    if str(path).startswith(DRIVER):
        raise ConfigError("a driver", where=path, expected="a trained policy", hint="offrl evaluate plays drivers")
    policy: OnnxPolicy | TorchPolicy
    if (file := file_of(path)) is not None:
        require_no_network(path, algorithm, encoder, device)
        policy = OnnxPolicy(file, threshold=threshold, epsilon=epsilon)
    else:
        trained = load_trained(path, algorithm, encoder, device)
        policy = TorchPolicy(trained.algorithm, threshold=threshold, epsilon=epsilon)
        path, environment = trained.checkpoint, environment or trained.request.gymnasium_id(path)
    if environment is None and policy.spec.hud is not None:
        environment = CAR_RACING  # nothing else has an information bar
    if environment is None:
        raise ConfigError("no environment", where=path, expected="--env", hint=f"name it, such as --env {CAR_RACING}")
    hud = hud or (policy.spec.hud if environment == CAR_RACING else None)
    # CarRacing hands its pictures over with every step.
    settings: dict[str, Any] = {"render_mode": "rgb_array"} if pictures and environment != CAR_RACING else {}
    make_env = environment_factory(environment, hud, **settings)
    with closing(make_env()) as env:
        policy.spec.require_same(
            envs.task_spec(env),
            where=environment,
            hint="take the environment that the policy was trained for",
            legal_actions=False,
        )
        fps = _frames_per_second(env.metadata.get("render_fps"))
    return Actor(policy, path, environment, make_env, fps)


def _frames_per_second(stated: Any) -> int:
    """Of a film: what an environment's metadata says, or 50 where that is no number, which some leave at None."""
    from offrl.checks import is_number

    return max(1, round(float(stated))) if is_number(stated) and stated > 0 else 50

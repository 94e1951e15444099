"""A policy from wherever it lies: a run, a checkpoint, an ONNX file, a name, a model hub."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import torch

import offrl.algorithms
import offrl.networks
from offrl.algorithms.algorithm import Algorithm
from offrl.algorithms.building import build_algorithm, with_settings
from offrl.errors import ConfigError, RunError, missing_dependency
from offrl.networks.encoders import EncoderFactory
from offrl.policies._onnx_file import Contract
from offrl.policies.onnx_policy import OnnxPolicy
from offrl.policies.torch_policy import TorchPolicy
from offrl.runs.checkpoint import latest_checkpoint, load_policy
from offrl.runs.files import read_run_config, run_of
from offrl.spec import TaskSpec
from offrl.system.devices import resolve_device
from offrl.system.sealing import SEAL_NAME, read_seal, read_sealed

HUB = "hf://"
"""What the address of a model on Hugging Face's hub begins with: hf://owner/name."""
PUBLISHED_NAMES: dict[Contract, str] = {"uint8": "model-uint8.onnx", "float": "model.onnx"}
_MODELS = Path(__file__).parent / "models"


def load(
    path: str | Path,
    *,
    algorithm: type[Algorithm] | None = None,
    encoder: EncoderFactory | None = None,
    threshold: float | None = None,
    epsilon: float = 0.0,
    stochastic: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
) -> TorchPolicy | OnnxPolicy:
    """The policy at `path`, ready to act on raw observations.

    Args:
        path: A run's directory (its latest checkpoint), a checkpoint's (such as RUN/checkpoints/best), an ONNX file, a
            directory that `publish` or `offrl export` wrote, the name of a policy that comes with offrl such as
            "carracing-bcq", or hf://owner/name, which needs the extra `hub`.
        algorithm: The class that a run was trained with, where it is one of your own: no file chooses what code runs.
        encoder: The encoder that it was trained with, likewise.
        threshold: See `TorchPolicy`, as for the next three.
        epsilon: Probability of a random action.
        stochastic: Whether to sample actions.
        seed: Of the random actions.
        device: Of a run's networks: "cpu", "cuda", ..., or "auto" for a GPU where there is one.

    Returns:
        A TorchPolicy for a run or checkpoint, else an OnnxPolicy.

    Raises:
        RunError: There is no policy, or a damaged one.
        ConfigError: A class of your own that is not passed, or a setting outside what is allowed.
        ExportError: The ONNX file is damaged, or none of offrl's.
        MissingDependencyError: huggingface_hub is not installed.
    """
    acting: dict[str, Any] = {"threshold": threshold, "epsilon": epsilon, "stochastic": stochastic, "seed": seed}
    found = find_policy(path)
    if found.is_file():
        if algorithm is not None or encoder is not None:
            raise ConfigError(
                "algorithm or encoder beside an ONNX file",
                where=found,
                expected="a run or checkpoint",
                hint="leave it out",
            )
        return OnnxPolicy(found, **acting)
    loaded = load_algorithm(found, algorithm=algorithm, encoder=encoder, device=device)
    return TorchPolicy(loaded, run=run_of(found), **acting)


def find_policy(path: str | Path) -> Path:
    """The checkpoint's directory or the ONNX file that `path` stands for; see `load`.

    Raises:
        RunError: There is none.
        MissingDependencyError: huggingface_hub is not installed.
    """
    if (address := re.fullmatch("hf:/+(.+)", str(path))) is not None:  # a Path has one slash where it was given two
        path = _download(HUB + address[1])
    path = Path(path)
    shipped = shipped_policies()
    if not path.exists() and str(path) in shipped:
        return shipped[str(path)]
    if path.name == "policy.safetensors" and path.is_file():
        return path.parent
    if path.is_file():
        return _as_published(path)
    if (path / "policy.safetensors").is_file():
        return path
    if (path / "checkpoints").is_dir():
        return latest_checkpoint(path / "checkpoints")
    for name in PUBLISHED_NAMES.values():
        if (path / name).is_file():
            return _as_published(path / name)
    near = difflib.get_close_matches(str(path), shipped, n=1)
    near += [str(each.parent) for each in sorted(path.glob("*/checkpoints"))]
    raise RunError(
        "no policy here" if path.is_dir() else "no such file or directory",
        where=path,
        expected=f"a run, a checkpoint's directory, an .onnx file, {HUB}owner/name, or {' or '.join(shipped)}",
        hint=f"did you mean {near[0]}?" if near else "check the path",
    )


def _as_published(path: Path) -> Path:
    """The path of an ONNX file, which in a folder that `publish` wrote has to be the one that was published."""
    try:
        seal = read_seal(path.parent)
        if seal is not None and path.name in seal["files"]:
            read_sealed(path.parent, path.name, seal)
    except (OSError, ValueError) as error:
        raise RunError(
            f"damaged ({error})",
            where=path,
            expected="the file that was published",
            hint="restore it, or publish the policy again",
        ) from error
    return path


def shipped_policies() -> dict[str, Path]:
    """The policies that come with offrl: name -> ONNX file."""
    return {path.stem: path for path in sorted(_MODELS.glob("*.onnx"))}


def load_algorithm(
    checkpoint: str | Path,
    *,
    algorithm: type[Algorithm] | None = None,
    encoder: EncoderFactory | None = None,
    device: torch.device | str = "auto",
) -> Algorithm:
    """The algorithm of a run with the weights of a checkpoint, as evaluation sees them.

    Args:
        checkpoint: Its directory, in a run's.
        algorithm: See `load`, as for the next two.
        encoder: The run's.
        device: Of the networks.

    Raises:
        RunError: The run or checkpoint is missing or damaged, or is of other networks.
        ConfigError: A class of your own that is not passed.
    """
    checkpoint = Path(checkpoint)
    run = run_of(checkpoint)
    config = read_run_config(run, checkpoint)
    try:
        name, settings, spec = config["algorithm"], dict(config["algorithm_config"]), config["spec"]
        said = (config.get("notes") or {}).get("algorithm") or name  # its class, where it is none of offrl's
        encoder_name, encoder_settings = config["encoder"], config.get("encoder_settings", {})
        if not isinstance(said, str) or not isinstance(encoder_name, str | None):
            raise TypeError(f"algorithm is {said!r}, encoder {encoder_name!r}")
        if not isinstance(encoder_settings, dict):
            raise TypeError(f"encoder_settings is {encoder_settings!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"damaged ({type(error).__name__}: {error})", where=run / "config.json", expected="what offrl wrote there"
        ) from error
    kind = algorithm or _known(said, _algorithms(), "algorithm", run, name)
    require_algorithm(kind, name, run)
    if encoder is None and encoder_name is not None:
        encoder = _known(encoder_name, _encoders(), "encoder", run)
    if encoder is not None:
        encoder = with_settings(encoder, encoder_settings, run)
    task = TaskSpec.from_dict(spec, where=run / "config.json")
    try:
        built = build_algorithm(kind, task, settings, encoder=encoder, where=run / "config.json")
    except OSError as error:  # an encoder that reads a file, which need not be here any more
        raise ConfigError(
            f"the encoder cannot be made with the run's settings ({error})",
            where=run,
            expected=f"what {encoder_settings} name",
            hint="pass encoder=lambda shape: YourEncoder(shape, ...) with other ones",
        ) from error
    return load_policy(built.to(resolve_device(device)), checkpoint)


def require_algorithm(kind: type[Algorithm], name: str, run: Path) -> None:
    """Checks that a class is that of a run, whose config.json calls its algorithm `name`.

    Raises:
        ConfigError: It is another algorithm's.
    """
    given = getattr(kind, "name", kind.__name__)
    if given != name:
        raise ConfigError(
            f"{kind.__name__}, whose name is {given!r}",
            where="algorithm",
            expected=f"the class of {name!r}, which {run} was trained with",
        )


def _algorithms() -> dict[str, type[Algorithm]]:
    """Offrl's own, by name, and by module and class."""
    found = (getattr(offrl.algorithms, name) for name in dir(offrl.algorithms))
    kinds = [k for k in found if isinstance(k, type) and issubclass(k, Algorithm) and hasattr(k, "name")]
    return {name: k for k in kinds for name in (k.name, f"{k.__module__}:{k.__qualname__}")}


def _encoders() -> dict[str, Any]:
    """Offrl's own, by module and name."""
    kinds = (getattr(offrl.networks, name) for name in dir(offrl.networks) if name.endswith("Encoder"))
    return {f"{kind.__module__}:{kind.__qualname__}": kind for kind in kinds}


def _known(name: str, known: dict[str, Any], what: str, run: Path, called: str | None = None) -> Any:
    if name not in known:
        raise ConfigError(
            f"the run was made with the {what} {name if called in (None, name) else f'{called} ({name})'}",
            where=run,
            expected="that class passed by you: a file must not choose what code runs",
            hint=f"load(..., {what}=YourClass), or --{what} package.module:Class on the command line",
        )
    return known[name]


def _download(address: str) -> Path:
    """The files of a published policy, in the hub's own cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing_dependency("huggingface_hub", extra="hub", purpose=f"load({address!r})") from error
    owner_and_name, _, revision = address.removeprefix(HUB).partition("@")
    try:
        return Path(
            snapshot_download(
                owner_and_name,
                revision=revision or None,
                allow_patterns=[*PUBLISHED_NAMES.values(), SEAL_NAME, "README.md"],
            )
        )
    except Exception as error:  # of the hub, of the network, of a name that is none
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"cannot be fetched ({reason})", where=address, expected=f"{HUB}owner/name, reachable"
        ) from error

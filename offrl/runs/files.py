"""The JSON files of a run's directory: each says its own hash, and of which run it is.

What ties them together is the run's identity, a hash of its settings: every checkpoint's seal has it, and so have
environment.json and evaluation.json. A file that was exchanged for another run's is whole, but not of this run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from offrl.errors import RunError, SpecMismatchError
from offrl.runs.checkpoint import checkpoints
from offrl.spec import TaskSpec
from offrl.system.files import read_at_most
from offrl.system.json_files import MAX_BYTES, is_sealed, parse_json, read_json, write_json, write_sealed_json
from offrl.system.sealing import read_seal

RUN_KEY = "run_sha256"
"""In a file that is of a run: the run's identity."""
CONFIG_NAME = "config.json"
END_NAME = "ended.json"
"""Says why a run ended before its last update."""
_LENGTHS = ("updates", "epochs")
_KINDS: dict[str, Any] = {"settled": dict | None, "init": str | None, "notes": dict | None}
_HINT = "restore it; where you changed it on purpose, take its lines sealed and content_sha256 out"


def read_run_config(directory: Path | str, checkpoint: Path | str | None = None) -> dict[str, Any]:
    """The run's `config.json`.

    Args:
        directory: The run's.
        checkpoint: The one that it is read for; None for the newest that says of which run it is.

    Raises:
        RunError: It is missing or no JSON object, was changed, or is another run's than the checkpoint.
    """
    directory = Path(directory)
    config, has_seal = _read_config(directory)
    if has_seal:
        _require_own(directory, _identity(config), None if checkpoint is None else Path(checkpoint))
    return _upgraded(config, directory / CONFIG_NAME)


def run_of(checkpoint: Path) -> Path:
    """The directory of the run that a checkpoint lies in."""
    return checkpoint.absolute().parent.parent


def recorded_task(config: Mapping[str, Any], run: Path) -> TaskSpec:
    """The task that a run's config.json, as it was read, says.

    Raises:
        SpecMismatchError: It says none, or one that cannot be.
    """
    return TaskSpec.from_dict(config.get("spec", {}), where=run / CONFIG_NAME)


def write_run_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Writes the run's `config.json`, sealed: other settings in it would give another result without a word."""
    write_sealed_json(directory / CONFIG_NAME, config)


def lengthen_run(directory: Path, fit: Mapping[str, Any]) -> None:
    """Records the length of a run that goes on for longer, and leaves everything else as it was written."""
    config, has_seal = _read_config(directory)
    kept = {name: value for name, value in config["fit"].items() if name in fit or name not in _LENGTHS}
    longer = {**config, "fit": {**kept, **{name: fit[name] for name in _LENGTHS if name in fit}}}
    (write_sealed_json if has_seal else write_json)(directory / CONFIG_NAME, longer)


def read_identity(directory: Path) -> str | None:
    """What the files of this run have in common; None where its config.json does not vouch for itself, or is missing.

    Raises:
        RunError: It is damaged.
    """
    if not (directory / CONFIG_NAME).is_file():
        return None
    config, has_seal = _read_config(directory)
    return _identity(config) if has_seal else None


def read_run_json(directory: Path, name: str) -> dict[str, Any]:
    """What a JSON file of a run says, such as its environment.json; empty where there is none.

    Raises:
        RunError: It was changed, is no JSON object, or is another run's.
    """
    path = directory / name
    try:
        found = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(
            f"damaged ({error})", where=path, expected="a JSON object, as offrl wrote it", hint=_HINT
        ) from error
    run = found.pop(RUN_KEY, None)
    if run is not None and (own := read_identity(directory)) is not None and run != own:
        raise RunError(
            "is of another run",
            where=path,
            expected=f"what was written for the {CONFIG_NAME} beside it",
            hint="restore it; a policy's scores are written anew by offrl evaluate",
        )
    return found


def write_run_json(directory: Path, name: str, data: Mapping[str, Any]) -> None:
    """Writes a JSON file of the run in `directory`, sealed."""
    write_sealed_json(directory / name, of_run(directory, data))


def of_run(directory: Path | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data, with the identity of the run that it is of; as it is without one."""
    own = None if directory is None else read_identity(directory)
    return {**data} if own is None else {**data, RUN_KEY: own}


def _read_config(directory: Path) -> tuple[dict[str, Any], bool]:
    """The config.json as it was written, and whether it has a seal."""
    path = directory / CONFIG_NAME
    try:
        content = read_at_most(path, MAX_BYTES)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return parse_json(content), is_sealed(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"no {CONFIG_NAME} here", where=directory, expected="a run's directory") from error
    except (OSError, ValueError) as error:
        raise RunError(f"damaged ({error})", where=path, expected="what offrl wrote there", hint=_HINT) from error


def _identity(config: Mapping[str, Any]) -> str:
    """A hash of what stays as it is as long as a run goes on: no remarks, no length, nothing that was measured."""
    kept = {name: value for name, value in config.items() if name not in ("notes", "settled")}
    if isinstance(fit := kept.get("fit"), Mapping):
        kept["fit"] = {name: value for name, value in fit.items() if name not in _LENGTHS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _require_own(directory: Path, identity: str, checkpoint: Path | None) -> None:
    """Raises RunError where the checkpoint, or else every checkpoint that says of which run it is, is another's."""
    found = [checkpoint] if checkpoint is not None else checkpoints(directory / "checkpoints")[::-1]
    foreign = None
    for each in found:
        try:
            seal = read_seal(each)
        except (OSError, ValueError):  # who loads the checkpoint says so
            continue
        run = None if seal is None else seal.get("run")
        if run is None or run == identity:  # before seals had it, none had: the older ones have not either
            return
        foreign = foreign or each
    if foreign is not None:
        raise RunError(
            f"is not the one that {foreign.name} was made with",
            where=directory / CONFIG_NAME,
            expected="a checkpoint and a config.json of one run",
            hint="restore the one that was exchanged",
        )


def _upgraded(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """What a config.json of a development version before 0.1.0 says, in today's names."""
    settings, encoder, spec = (config.get(name) for name in ("algorithm_config", "encoder", "spec"))
    for name, kinds in _KINDS.items():
        if not isinstance(config.get(name), kinds):
            raise RunError(f"{name} is {config[name]!r}", where=where, expected="what offrl wrote there")
    if isinstance(settings, dict):
        settings.pop("initialisation", None)  # how weights began says nothing about weights that are loaded
    if isinstance(encoder, str):
        config["encoder"] = re.sub(r"^offrl\.encoders:", "offrl.networks.encoders:", encoder)
    if isinstance(spec, dict):
        with suppress(SpecMismatchError):  # who reads the spec says what is wrong with it
            config["spec"] = json.loads(json.dumps(TaskSpec.from_dict(spec, where="config.json").to_dict()))
    return config

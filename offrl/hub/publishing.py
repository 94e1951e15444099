"""A run as a folder that a model hub takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from offrl.algorithms.algorithm import Algorithm
from offrl.algorithms.building import without_paths
from offrl.errors import RunError
from offrl.hub._estimates import estimates_of
from offrl.hub.card import evaluation_of, model_card
from offrl.hub.loading import PUBLISHED_NAMES, find_policy, load_algorithm
from offrl.networks.encoders import EncoderFactory
from offrl.policies.export import export_onnx
from offrl.policies.verify import verify_onnx
from offrl.report.ope_page import OPE_NAME
from offrl.runs._tables import copy_tables
from offrl.runs.files import read_identity, read_run_config, read_run_json, run_of, write_run_config, write_run_json
from offrl.system.files import new_directory
from offrl.system.sealing import seal_files, write_sealed

_TABLES = ("metrics.csv", "evaluations.csv")


def publish(
    policy: str | Path,
    directory: str | Path,
    *,
    evaluations: Sequence[str | Path] = (),
    observations: NDArray[Any] | None = None,
    algorithm: type[Algorithm] | None = None,
    encoder: EncoderFactory | None = None,
) -> Path:
    """Writes a trained policy as a folder for a model hub: README.md (the card), ONNX files, weights, settings, scores.

    `offrl.load(directory)` loads it again. Upload it with your hub's own tool, such as
    `hf upload owner/name DIRECTORY`; then `offrl.load("hf://owner/name")` does.

    Args:
        policy: A run or a checkpoint.
        directory: A new one; it appears whole or not at all.
        evaluations: See `model_card`.
        observations: Raw ones [N, ...], such as some of the data, to verify the files on besides random ones.
        algorithm: A class of your own that the run was trained with, see `offrl.load`.
        encoder: Likewise.

    Returns:
        The folder.

    Raises:
        RunError: The directory exists, or there is no run or checkpoint.
        ExportError: A file acts differently from torch.
    """
    directory = Path(directory)
    if directory.exists():
        raise RunError("exists already", where=directory, expected="a new directory", hint="choose another name")
    checkpoint = find_policy(policy)
    if checkpoint.is_file():
        raise RunError("is an ONNX file", where=checkpoint, expected="a run or a checkpoint", hint="copy the file")
    trained = load_algorithm(checkpoint, algorithm=algorithm, encoder=encoder, device="cpu")
    card, run = model_card(checkpoint, evaluations=evaluations), run_of(checkpoint)
    with new_directory(directory) as partial:
        for contract, name in PUBLISHED_NAMES.items():
            if contract == "uint8" or not trained.spec.action_masks:
                export_onnx(trained, partial / name, contract=contract)
                verify_onnx(partial / name, trained, observations)
        saved = partial / "checkpoints" / checkpoint.resolve().name
        saved.mkdir(parents=True)
        config = read_run_config(run)
        notes = {**(config.get("notes") or {}), "data": None}  # a path on this machine is nobody's business
        init = {"init": None} if config.get("init") is not None else {}
        if "encoder_settings" in config:  # not in runs of earlier versions
            config["encoder_settings"] = without_paths(config["encoder_settings"])
        write_run_config(partial, {**config, **init, "notes": notes})
        weights = {"policy.safetensors": (checkpoint / "policy.safetensors").read_bytes()}
        write_sealed(saved, weights, run=read_identity(partial))
        if machine := read_run_json(run, "environment.json"):
            machine.pop("launcher", None)  # the names of a host and of its processes are nobody's, either
            write_run_json(partial, "environment.json", machine)
        copy_tables(run, partial, _TABLES)
        if (scores := evaluation_of(run, checkpoint)) is not None:
            write_run_json(partial, "evaluation.json", {**scores, "policy": f"checkpoints/{saved.name}"})
        if estimates := estimates_of(run, checkpoint):
            write_run_json(partial, OPE_NAME, {**estimates, "policy": f"checkpoints/{saved.name}"})
        seal_files(partial, [name for name in PUBLISHED_NAMES.values() if (partial / name).exists()])
        (partial / "README.md").write_text(card, encoding="utf-8")
    return directory

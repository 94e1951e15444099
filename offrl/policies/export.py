"""ONNX files: a trained policy out (`export_onnx`), checked against torch (`verify_onnx`).

Files are read back by `offrl.policies.OnnxPolicy`.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
import warnings
from pathlib import Path
from typing import get_args

import onnx
import torch
from torch import Tensor, nn

from offrl._version import __version__
from offrl.algorithms.algorithm import Algorithm
from offrl.checks import plain_threshold
from offrl.errors import ConfigError, ExportError
from offrl.losses import greedy_actions
from offrl.policies._onnx_file import APPLY_THRESHOLD, ILLEGAL, INPUT, MASK_INPUT, OUTPUTS, Contract
from offrl.policies._onnx_folding import drop_idle_casts, fold_means, fold_output, prune
from offrl.policies._onnx_seal import sealed
from offrl.system.files import replacing

_OPSET = 13


_MOST_WITH_ILLEGAL = 1 - 1e-6
"""Scaled by a threshold above it, logits reach those of illegal actions."""


def logit_scale(threshold: float) -> float:
    """What logits are multiplied by, log 0.3 / log threshold, so that 0.3 on them rules out what `threshold` did.

    The rule p / max p > threshold reads logit - max logit > log threshold. Threshold 0 gives 0: nothing is ruled out.

    Raises:
        ConfigError: a threshold outside [0, 1).
    """
    threshold = plain_threshold(threshold, "threshold")
    return math.log(APPLY_THRESHOLD) / math.log(threshold) if threshold > 0 else 0.0


def scaled(logits: Tensor, scale: float) -> Tensor:
    """Logits times `logit_scale`; 0 makes all of them 0, those of -inf, too."""
    if scale == 0:
        return torch.zeros_like(logits)
    return logits if scale == 1 else logits * scale


def export_onnx(algorithm: Algorithm, path: str | Path, *, contract: Contract) -> Path:
    """Writes the greedy policy of `algorithm` as one ONNX file, opset 13, any batch size N.

    Both contracts have the outputs `q` (the scores) and `logits`, float32 [N, A], the logits scaled by log 0.3 / log
    threshold, and 0 for all legal actions where the threshold is 0: their softmax is no policy. A reader takes the best
    q among the actions whose probability, softmax(logits), exceeds 0.3 times the largest. An illegal action has q and
    logit of about -1e9, so that no such reader takes it: the task's fixed subset (`TaskSpec.legal_actions`) is folded
    into the file, and where each observation has legal actions of its own (`TaskSpec.action_masks`) the uint8 contract
    has a second input, `action_mask` bool [N, A].
    The metadata says all that a reader needs: task_spec (JSON), action_names (JSON),
    stack_order, contract, apply_threshold (0.3), algorithm, algorithm_threshold, offrl_version, and content_sha256, the
    hash of all the rest, which is checked when offrl reads the file.

    Args:
        algorithm: stays as it is, on its device; the file holds a float32 copy.
        path: the file; written in one step, an older one is replaced.
        contract: "float": input `observation` float32 as networks see it (pixels: gray / 128 - 1; vectors: raw),
            outputs (q, logits); "uint8": input `observation` raw (uint8 pixels or float32 vectors), outputs
            (action int64 [N], q, logits), normalisation and threshold inside.

    Returns:
        The file's path.

    Raises:
        ConfigError: no algorithm, or an unknown contract.
        ExportError: the file cannot be written, torch cannot trace the algorithm, or the float contract was asked for
            where each observation has legal actions of its own.
    """
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            f"a {type(algorithm).__name__}",
            where="export_onnx",
            expected="an Algorithm",
            hint="pass policy.algorithm of a TorchPolicy, learner.snapshot(), or offrl.load(run).algorithm",
        )
    if contract not in get_args(Contract):
        raise ConfigError(f"{contract!r}", where="contract", expected=f"one of {get_args(Contract)}")
    path = Path(path)
    if contract == "float" and algorithm.spec.action_masks:
        raise ExportError(
            "the float contract has no input for the legal actions of each observation",
            where="export_onnx",
            expected="the uint8 contract for a policy whose data has action masks",
            hint="pass contract='uint8' (offrl export --contract uint8)",
        )
    has_illegal = algorithm.spec.legal_actions is not None or algorithm.spec.action_masks
    if has_illegal and _MOST_WITH_ILLEGAL < algorithm.threshold < 1:
        raise ConfigError(
            f"{algorithm.threshold!r}",
            where="threshold",
            expected=f"at most {_MOST_WITH_ILLEGAL}, for an ONNX file of a task with illegal actions",
            hint="set algorithm.threshold = 0.999 before the export: the likeliest action is left there, too",
        )
    model = _trace(algorithm, contract)
    drop_idle_casts(model)
    fold_means(model.graph)
    for output in ("q", "logits") if algorithm.spec.legal_actions is not None else ("logits",):
        fold_output(model.graph, output)
    prune(model.graph)
    onnx.helper.set_model_props(
        model,
        {
            "task_spec": json.dumps(algorithm.spec.to_dict()),
            "action_names": json.dumps(algorithm.spec.action_names),
            "stack_order": "oldest first",
            "contract": contract,
            "apply_threshold": str(APPLY_THRESHOLD),
            "algorithm": algorithm.name,
            "algorithm_threshold": str(algorithm.threshold),
            "offrl_version": __version__,
        },
    )
    onnx.checker.check_model(model)
    try:
        with replacing(path) as partial:
            partial.write_bytes(sealed(model))
    except OSError as error:
        raise ExportError(f"cannot be written ({error.strerror})", where=path) from error
    return path


class _Graph(nn.Module):
    """What a file computes."""

    penalty: Tensor

    def __init__(self, algorithm: Algorithm, contract: Contract) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.contract = contract
        self.scale = logit_scale(algorithm.threshold)
        legal = algorithm.spec.legal_actions
        self.illegal: list[int] | None = None
        if legal is not None:
            self.illegal = [action for action in range(algorithm.spec.num_actions) if action not in legal]
        penalty = torch.zeros(algorithm.spec.num_actions)
        penalty[self.illegal or []] = ILLEGAL
        self.register_buffer("penalty", penalty, persistent=False)

    def forward(self, observation: Tensor, action_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        raw = self.contract == "uint8"
        scores, logits = self.algorithm(self.algorithm.spec.normalise(observation) if raw else observation)
        logits = scaled(logits, self.scale)
        if self.illegal:  # added, not filled in: an addition folds into the bias of the last layer
            scores, logits = scores + self.penalty, logits + self.penalty
        if action_mask is not None:
            scores, logits = (values.masked_fill(~action_mask, ILLEGAL) for values in (scores, logits))
        return (greedy_actions(scores, logits, APPLY_THRESHOLD), scores, logits) if raw else (scores, logits)


def _trace(algorithm: Algorithm, contract: Contract) -> onnx.ModelProto:
    spec = algorithm.spec
    graph = _Graph(copy.deepcopy(algorithm).cpu().float(), contract).eval()
    raw_pixels = contract == "uint8" and spec.is_pixels
    example = torch.zeros(2, *spec.observation_shape, dtype=torch.uint8 if raw_pixels else torch.float32)
    inputs: list[str] = [INPUT]
    examples: tuple[Tensor, ...] = (example,)
    if spec.action_masks:
        inputs, examples = [INPUT, MASK_INPUT], (example, torch.ones(2, spec.num_actions, dtype=torch.bool))
    names = OUTPUTS[contract]
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        file = Path(directory) / "traced.onnx"
        # Of torch's exporters only the TorchScript one writes opset 13; it says on every call that it is old.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        try:
            torch.onnx.export(
                graph,
                examples,
                file,
                dynamo=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=list(names),
                dynamic_axes={name: {0: "N"} for name in (*inputs, *names)},
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            what = str(error).strip().splitlines()[0]
            raise ExportError(f"torch cannot export it to opset {_OPSET} ({what})", where=algorithm.name) from error
        return onnx.load(file)

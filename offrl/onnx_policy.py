"""Policies read back from the ONNX files that `offrl.export` writes; needs neither an algorithm nor its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor

from offrl.errors import ConfigError, ExportError, SpecMismatchError
from offrl.losses import greedy_actions
from offrl.policy import explore
from offrl.spec import TaskSpec

APPLY_THRESHOLD = 0.3
"""What readers of our files apply to the softmax of `logits`, whatever threshold the algorithm was trained with."""

Contract = Literal["float", "uint8"]

INPUT = "observation"
OUTPUTS: dict[str, tuple[str, ...]] = {"float": ("q", "logits"), "uint8": ("action", "q", "logits")}


class OnnxFile:
    """A file that `export_onnx` wrote, ready to run on raw observations.

    Raises:
        ExportError: the file is missing, not ONNX, or not one of ours.
        SpecMismatchError: the task spec in its metadata cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        mend = "write it with offrl.export.export_onnx"
        try:
            content = Path(path).read_bytes()
            model = onnx.load_from_string(content)
        except OSError as error:
            raise ExportError(f"cannot be read ({error.strerror})", where=path, mend=mend) from error
        except DecodeError as error:
            raise ExportError("not an ONNX file", where=path, mend=mend) from error
        properties = {entry.key: entry.value for entry in model.metadata_props}
        contract = properties.get("contract", "")
        inputs = [value.name for value in model.graph.input]
        outputs = tuple(value.name for value in model.graph.output)
        if contract not in OUTPUTS or inputs != [INPUT] or outputs != OUTPUTS[contract]:
            raise ExportError(
                f"contract {contract!r}, inputs {inputs}, outputs {list(outputs)}",
                where=path,
                expected=f"an offrl policy: input {INPUT!r}, outputs {' or '.join(map(str, OUTPUTS.values()))}",
                mend=mend,
            )
        try:
            spec = json.loads(properties.get("task_spec", ""))
        except json.JSONDecodeError as error:
            raise ExportError(f"metadata task_spec is not JSON ({error})", where=path, mend=mend) from error
        self.path = Path(path)
        self.contract = contract
        self.spec = TaskSpec.from_dict(spec, where=path)
        self.names = OUTPUTS[contract]
        self.runtime, self._session = _open_session(model, path)

    def check(self, observation: NDArray[Any]) -> None:
        """Raises SpecMismatchError unless these are raw observations [N, ...] of the file's task."""
        spec = self.spec
        if observation.shape[1:] != spec.observation_shape or observation.dtype != spec.observation_dtype:
            raise SpecMismatchError(
                f"observations are {observation.dtype} {list(observation.shape)}",
                where=self.path,
                expected=f"{spec.observation_dtype} [N, {', '.join(map(str, spec.observation_shape))}]",
            )

    def run(self, observation: NDArray[Any]) -> dict[str, Tensor]:
        """The file's outputs by name, for raw observations [N, ...].

        Raises:
            SpecMismatchError: see `check`.
        """
        self.check(observation)
        if self.contract == "float":
            observation = self.spec.normalise(torch.tensor(observation)).numpy()
        outputs = self._session.run(list(self.names), {INPUT: observation})
        return {name: torch.from_numpy(output) for name, output in zip(self.names, outputs, strict=True)}


def _open_session(model: onnx.ModelProto, path: str | Path) -> tuple[str, Any]:
    """(name and version, session) of onnxruntime where installed, else of onnx's own reference evaluator."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return f"onnx.reference {onnx.__version__}", ReferenceEvaluator(model)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        what = str(error).strip().splitlines()[0]
        raise ExportError(f"onnxruntime cannot load it ({what})", where=path) from error
    return f"onnxruntime {onnxruntime.__version__}", session


class OnnxPolicy:
    """The policy in an ONNX file of either contract; nothing but the file is needed.

    Args:
        path: a file written by `offrl.export.export_onnx`.
        threshold: on the softmax of the file's logits, which are scaled so that 0.3 is right.
        epsilon: probability of a uniformly random action; drawn as TorchPolicy draws them.
        seed: of the random actions.

    Attributes:
        spec: the task.
        runtime: what runs the file, with its version: onnxruntime where installed, else onnx's reference evaluator.

    Raises:
        ConfigError: threshold or epsilon outside what is allowed.
        ExportError: the file is missing, not ONNX, or not one of ours.
        SpecMismatchError: the task spec in its metadata cannot be read.
    """

    def __init__(
        self, path: str | Path, *, threshold: float = APPLY_THRESHOLD, epsilon: float = 0.0, seed: int = 0
    ) -> None:
        if not 0 <= threshold < 1:
            raise ConfigError(f"{threshold}", where="OnnxPolicy.threshold", expected="0 <= threshold < 1")
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"{epsilon}", where="OnnxPolicy.epsilon", expected="0 <= epsilon <= 1")
        self._file = OnnxFile(path)
        self.spec = self._file.spec
        self.runtime = self._file.runtime
        self.threshold = threshold
        self.epsilon = epsilon
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.int64]:
        """Actions [N] for raw observations [N, ...].

        Raises:
            SpecMismatchError: observations of another shape or dtype than the task's.
        """
        outputs = self._file.run(observation)
        actions = greedy_actions(outputs["q"], outputs["logits"], self.threshold).numpy()
        return explore(actions, self.spec.num_actions, self.epsilon, self._rng)

"""An ONNX file that offrl wrote, opened and run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.errors import ExportError, SpecMismatchError
from offrl.policies._onnx_limits import MAX_BYTES, parse, require_bounded
from offrl.policies._onnx_seal import require_seal
from offrl.spec import TaskSpec
from offrl.system.files import read_at_most
from offrl.system.json_files import parse_json

APPLY_THRESHOLD = 0.3
"""What readers of our files apply to the softmax of `logits`, whatever threshold the algorithm was trained with."""


Contract = Literal["float", "uint8"]


INPUT = "observation"
MASK_INPUT = "action_mask"


ILLEGAL = -1e9
"""What a file gives as q and logit of an illegal action: no reader picks it, and no softmax of it is NaN."""


OUTPUTS: dict[str, tuple[str, ...]] = {"float": ("q", "logits"), "uint8": ("action", "q", "logits")}


_DTYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.DOUBLE: "float64",
}


def is_foreign(path: Path) -> bool:
    """Whether a file is a whole ONNX model that says nothing of what offrl's say."""
    try:
        model = parse(read_at_most(path, MAX_BYTES))
    except (OSError, ValueError):
        return False
    if not model.graph.node:  # no bytes are a model of nothing
        return False
    return not {entry.key for entry in model.metadata_props} & {"contract", "task_spec", "algorithm_threshold"}


class OnnxFile:
    """A file that `export_onnx` wrote, ready to run on raw observations.

    Attributes:
        path: as given.
        contract: "float" or "uint8".
        spec: the task.
        algorithm_threshold: what the policy was exported with, which `APPLY_THRESHOLD` stands for in the file.
        names: of the outputs.
        is_sealed: whether the file says the hash of its content, which was checked then; older files do not.
        runtime: what runs the file, with its version: onnxruntime where installed, else onnx's reference evaluator.

    Raises:
        ExportError: the file is missing, not ONNX, or not one of ours.
        SpecMismatchError: the task spec in its metadata cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        hint = "write it with offrl.policies.export.export_onnx"
        try:
            content = read_at_most(Path(path), MAX_BYTES)
            model = parse(content)
            self.is_sealed = require_seal(content, model)
            require_bounded(model)
        except OSError as error:
            raise ExportError(f"cannot be read ({error.strerror})", where=path, hint=hint) from error
        except ValueError as error:
            raise ExportError(str(error), where=path, expected="an ONNX file of offrl's", hint=hint) from error
        del content
        properties = {entry.key: entry.value for entry in model.metadata_props}
        contract = properties.get("contract", "")
        inputs = [value.name for value in model.graph.input]
        outputs = tuple(value.name for value in model.graph.output)
        may_take_masks = contract == "uint8" and inputs == [INPUT, MASK_INPUT]
        if contract not in OUTPUTS or (inputs != [INPUT] and not may_take_masks) or outputs != OUTPUTS[contract]:
            raise ExportError(
                f"contract {contract!r}, inputs {inputs}, outputs {list(outputs)}",
                where=path,
                expected=f"an offrl policy: input {INPUT!r}, outputs {' or '.join(map(str, OUTPUTS.values()))}",
                hint=hint,
            )
        try:
            spec = parse_json(properties.get("task_spec", ""))
        except ValueError as error:
            raise ExportError(f"metadata task_spec is not JSON ({error})", where=path, hint=hint) from error
        self.algorithm_threshold = _parse_threshold(properties.get("algorithm_threshold", ""))
        if not 0 <= self.algorithm_threshold < 1:
            found = properties.get("algorithm_threshold")
            raise ExportError(f"metadata algorithm_threshold is {found!r}", where=path, expected="0 to 1", hint=hint)
        self.path = Path(path)
        self.contract = contract
        self.spec = TaskSpec.from_dict(spec, where=path)
        if self.spec.action_masks != (MASK_INPUT in inputs):
            raise ExportError(
                f"inputs {inputs} for a task with action_masks {self.spec.action_masks}",
                where=path,
                expected=f"an input {MASK_INPUT!r} where the task has action masks, and there only",
                hint=hint,
            )
        self.names = OUTPUTS[contract]
        self._require_inputs(model)
        self.runtime, self._session = _open_session(model, path)

    def _require_inputs(self, model: onnx.ModelProto) -> None:
        """Raises ExportError unless the file takes the observations of its own task, in batches of any size."""
        is_raw = self.contract == "uint8" and self.spec.is_pixels
        expected = {INPUT: ("uint8" if is_raw else "float32", self.spec.observation_shape)}
        if self.spec.action_masks:
            expected[MASK_INPUT] = ("bool", (self.spec.num_actions,))
        for value in model.graph.input:
            tensor = value.type.tensor_type
            dtype = _DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}")
            batch, *shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim] or [0]
            if (dtype, tuple(shape)) != expected[value.name] or batch is not None:
                right, row = expected[value.name]
                raise ExportError(
                    f"input {value.name!r} is {dtype} {['N' if size is None else size for size in (batch, *shape)]}",
                    where=self.path,
                    expected=f"{right} [N, {', '.join(map(str, row))}], as its task_spec says",
                    hint="export it again",
                )

    def check(self, observation: NDArray[Any]) -> None:
        """Raises SpecMismatchError unless these are raw observations [N, ...] of the file's task."""
        spec = self.spec
        if observation.shape[1:] != spec.observation_shape or observation.dtype != spec.observation_dtype:
            raise SpecMismatchError(
                f"observations are {observation.dtype} {list(observation.shape)}",
                where=self.path,
                expected=f"{spec.observation_dtype} [N, {', '.join(map(str, spec.observation_shape))}]",
            )

    def run(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None = None) -> dict[str, Tensor]:
        """The file's outputs by name, for raw observations [N, ...].

        Args:
            observation: as the environment gives them.
            legal: bool [N, A], for a file that takes the legal actions of each observation; others leave it out.

        Raises:
            SpecMismatchError: see `check`.
        """
        self.check(observation)
        if self.contract == "float":
            observation = self.spec.normalise(torch.tensor(observation)).numpy()
        return self.run_as_they_are(observation, legal)

    def run_as_they_are(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None = None) -> dict[str, Tensor]:
        """The outputs by name, for what the file itself takes: in the float contract, normalised observations."""
        inputs = {INPUT: observation, MASK_INPUT: legal} if self.spec.action_masks else {INPUT: observation}
        try:
            outputs = self._session.run(list(self.names), inputs)
        except Exception as error:  # of onnxruntime or onnx's evaluator, for a file whose operators do not fit
            what = " ".join(str(error).split()) or type(error).__name__
            raise ExportError(f"cannot be run ({what})", where=self.path, hint="export it again") from error
        found = {name: np.asarray(output) for name, output in zip(self.names, outputs, strict=True)}
        for name, output in found.items():
            self._require_output(name, output, len(observation))
        return {name: torch.from_numpy(output) for name, output in found.items()}

    def _require_output(self, name: str, output: NDArray[Any], num_observations: int) -> None:
        shape = (num_observations, self.spec.num_actions)[: 1 if name == "action" else 2]
        dtype = "int64" if name == "action" else "float32"
        if output.shape != shape or output.dtype != dtype:
            raise ExportError(
                f"output {name!r} is {output.dtype} {list(output.shape)}",
                where=self.path,
                expected=f"{dtype} {list(shape)}",
            )


def _parse_threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


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

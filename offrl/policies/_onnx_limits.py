"""What an ONNX file may consist of, checked before it is parsed, and what it may compute, checked before it is run.

Protobuf turns two bytes of a file into a hundred of memory, and ONNX has loops, files beside the file, and operators
that make a tensor of any size. A policy needs none of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import onnx

MAX_BYTES = 2**29
MAX_NODES = 5_000
MAX_PARTS = 100_000  # fields of all messages together; ResNet-50 has some 3,000
MAX_PACKED_BYTES = 2**24  # of numbers that are not raw bytes, and grow eightfold in memory
MAX_METADATA_BYTES = 2**22
MAX_ELEMENTS = 2**26  # of one value, for one observation; of several it may be as many times that

_Schema = dict[int, "_Schema | str"]
# Fields that are messages or lists of numbers, by number: the fields in them, or why there must be none (of onnx.proto;
# texts and single numbers are only counted).
_SUBGRAPH = "a graph in a graph (Loop, If, Scan)"
_ELSEWHERE = "weights outside of the file"
_SPARSE = "sparse weights"
_NO_TENSOR = "a value that is no tensor"
_DEVICES = "settings of devices"
_PACKED = "packed"
_TENSOR: _Schema = {
    1: _PACKED, 3: {}, 4: _PACKED, 5: _PACKED, 7: _PACKED, 10: _PACKED, 11: _PACKED, 13: _ELSEWHERE, 16: {},
}  # fmt: skip
_ATTRIBUTE: _Schema = {
    5: _TENSOR, 6: _SUBGRAPH, 7: _PACKED, 8: _PACKED, 10: _TENSOR, 11: _SUBGRAPH, 14: _NO_TENSOR, 15: _NO_TENSOR,
    22: _SPARSE, 23: _SPARSE,
}  # fmt: skip
_TYPE: _Schema = {1: {2: {1: {}}}, 4: _NO_TENSOR, 5: _NO_TENSOR, 7: _NO_TENSOR, 8: _NO_TENSOR, 9: _NO_TENSOR}
_VALUE: _Schema = {2: _TYPE, 4: {}}
_NODE: _Schema = {5: _ATTRIBUTE, 9: {}, 10: _DEVICES}
_GRAPH: _Schema = {1: _NODE, 5: _TENSOR, 11: _VALUE, 12: _VALUE, 13: _VALUE, 14: {2: {}}, 15: _SPARSE, 16: {}}
_MODEL: _Schema = {
    7: _GRAPH, 8: {}, 14: {}, 20: "instructions for training", 25: "functions of its own", 26: _DEVICES,
}  # fmt: skip

_OPERATORS = frozenset(
    {
        "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil",
        "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Div", "Dropout", "Einsum", "Elu", "Equal",
        "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "Gelu", "Gemm",
        "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization",
        "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu",
        "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish",
        "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceL1", "ReduceL2",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Reshape", "Round", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Cos",
        "Slice", "Softmax", "Softplus", "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
        "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
        # Quantised copies, as onnxruntime makes them.
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv",
        "QLinearMatMul", "QuantizeLinear",
    }
)  # fmt: skip


def parse(content: bytes) -> onnx.ModelProto:
    """The model in the bytes of a file.

    Raises:
        ValueError: It is no ONNX file, or has more parts than a policy has, or other ones.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    _Scan().message(memoryview(content), _MODEL)
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # DecodeError, of protobuf, which has no types; and RecursionError
        raise ValueError("not an ONNX file") from error
    if sum(len(entry.key) + len(entry.value) for entry in model.metadata_props) > MAX_METADATA_BYTES:
        raise ValueError(f"its metadata has more than {MAX_METADATA_BYTES:,} bytes")
    return model


class _Scan:
    """Counts the parts of a serialised message without building any of them."""

    def __init__(self) -> None:
        self._num_parts = self._num_nodes = self._num_packed = 0

    def message(self, content: memoryview, schema: _Schema) -> None:
        for number, field in _fields(content):
            self._num_parts += 1
            if self._num_parts > MAX_PARTS:
                raise ValueError(f"it has more than {MAX_PARTS:,} parts")
            known = schema.get(number, "")
            if field is None:
                continue
            if known is _PACKED:
                self._num_packed += len(field)
                if self._num_packed > MAX_PACKED_BYTES:
                    raise ValueError(f"it has more than {MAX_PACKED_BYTES:,} bytes of numbers that are not raw bytes")
            elif isinstance(known, dict):
                if schema is _GRAPH and number == 1:
                    self._num_nodes += 1
                    if self._num_nodes > MAX_NODES:
                        raise ValueError(f"it has more than {MAX_NODES:,} operators")
                self.message(field, known)
            elif known:
                raise ValueError(f"it has {known}")


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """The fields of a message: their numbers, and the bytes of those that have a length."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        field = None
        if kind == 0:
            _, at = _varint(content, at)
        elif kind == 1:
            at += 8
        elif kind == 2:
            size, at = _varint(content, at)
            field = content[at : at + size]
            at += size
        elif kind == 5:
            at += 4
        else:  # groups, which ONNX does not have
            raise ValueError("not an ONNX file")
        if at > len(content) or number == 0:
            raise ValueError("not an ONNX file")
        yield number, field


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if at + index >= len(content):
            break
        byte = content[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("not an ONNX file")


def require_bounded(model: onnx.ModelProto) -> None:
    """Checks that the model needs no more memory than can be told beforehand, and no time without end.

    Raises:
        ValueError: It has an operator that no policy needs, or a value of a size that is too large or not known.
    """
    for node in model.graph.node:
        if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx"):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ValueError(f"the operator {name[:80]!r} is none that a policy needs")
    shaped = copy.deepcopy(model)
    del shaped.graph.value_info[:]  # what the file says of its values, rather than what they are
    for value in shaped.graph.output:
        value.type.tensor_type.ClearField("shape")
    of_one, of_three = (_sizes(shaped, count) for count in (1, 3))
    for node in model.graph.node:
        for name in filter(None, node.output):
            size = of_one.get(name, -1)
            if not 0 <= size <= MAX_ELEMENTS:
                found = "of a size that nothing says beforehand" if size < 0 else f"of {size:,} numbers"
                raise ValueError(f"the operator {node.op_type} makes a value {found}")
            if not 0 <= of_three.get(name, -1) <= 3 * size:
                raise ValueError(f"the operator {node.op_type} makes a value that grows faster than the observations")


def _sizes(model: onnx.ModelProto, num_observations: int) -> dict[str, int]:
    """How many numbers each value holds, of so many observations; -1 where that is not known.

    Raises:
        ValueError: The operators do not fit together.
    """
    for value in model.graph.input:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = num_observations
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:  # InferenceError, and others of C++
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"its operators do not fit together ({what[-1]})") from error
    return {value.name: _size(value) for value in (*inferred.value_info, *inferred.output)}


def _size(value: onnx.ValueInfoProto) -> int:
    """How many numbers it holds; -1 where that is not known."""
    if not value.type.tensor_type.HasField("shape"):
        return -1
    dims = value.type.tensor_type.shape.dim
    return math.prod(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else -1

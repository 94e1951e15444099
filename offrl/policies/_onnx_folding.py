"""What makes an exported file simpler than torch's trace of it, without changing what it computes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx


def drop_idle_casts(model: onnx.ModelProto) -> None:
    """Bypasses casts to the type that a value has already: traces of the `.float()` that guards mixed precision."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    element_type = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Cast" and element_type.get(node.input[0]) == node.attribute[0].i:
            renamed[node.output[0]] = node.input[0]


def fold_means(graph: onnx.GraphProto) -> None:
    """Turns a mean over outputs of a Gemm, of quantiles or heads, into a Gemm with the mean of their weights."""
    producers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    for node in [node for node in graph.node if node.op_type == "ReduceMean"]:
        reshape = producers.get(node.input[0])
        gemm = producers.get(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
        if reshape is None or gemm is None or gemm.op_type != "Gemm" or len(gemm.input) != 3:
            continue
        if not all(name in constants for name in (*gemm.input[1:], reshape.input[1])):
            continue
        settings = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        shape, axes = constants[reshape.input[1]].tolist(), settings.get("axes")
        is_mean_of_outputs = len(shape) == 3 and shape[0] == -1 and axes in ([1], [2]) and settings.get("keepdims") == 0
        is_transposed = any(each.name == "transB" and each.i == 1 for each in gemm.attribute)
        if not (is_mean_of_outputs and is_transposed):  # weights [outputs, inputs]: how torch writes a Linear
            continue
        folded = copy.deepcopy(gemm)
        folded.name = node.output[0]
        for index, name in enumerate(gemm.input[1:], start=1):
            value = constants[name]
            mean = value.reshape(*shape[1:], *value.shape[1:]).mean(axis=0 if axes == [1] else 1)
            folded.input[index] = f"{name}.mean"
            graph.initializer.append(onnx.numpy_helper.from_array(mean.astype(value.dtype), f"{name}.mean"))
        folded.output[:] = node.output
        graph.node.insert(list(graph.node).index(node), folded)
        graph.node.remove(node)


def fold_output(graph: onnx.GraphProto, output: str) -> None:
    """Lets a Gemm write an output where it can, so that readers need no operator beyond those of the networks.

    A Gemm that is scaled, shifted by a constant for each action, or aliased becomes one Gemm with other weights;
    constant zeros become one with zero weights; anything else stays as torch wrote it.
    """
    producers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)

    # Walking back from the output, which is factor * (what `source` gives) + shift.
    shift: Any = np.zeros(1, np.float32)
    source, factor = producers[output], np.float32(1)
    while source.op_type in ("Identity", "Mul", "Add"):
        # A Mul by one number is the scale of the logits, an Add of one number for each action the penalty.
        is_add = source.op_type == "Add"
        folded = [n for n in source.input if n in constants and (is_add or constants[n].size == 1)]
        inputs = [name for name in source.input if name not in folded]
        if len(inputs) != 1 or inputs[0] not in producers:
            return
        for name in folded:
            if is_add:
                shift = shift + factor * constants[name]
            else:
                factor *= np.float32(constants[name].item())
        source = producers[inputs[0]]
    if source.op_type == "ConstantOfShape" and not any(onnx.numpy_helper.to_array(a.t).any() for a in source.attribute):
        source, factor = producers["q"], np.float32(0)
    if source.op_type != "Gemm" or len(source.input) != 3 or not all(name in constants for name in source.input[1:]):
        return
    if output in source.output:
        return

    weight, bias = (constants[name] * factor for name in source.input[1:])
    if shift.any():
        if shift.ndim != 1 or shift.shape != bias.shape:
            return
        bias = bias + shift
    names = [f"{output}.scaled.{name}" for name in source.input[1:]]
    for name, values in zip(names, (weight, bias), strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    gemm = copy.deepcopy(source)
    gemm.name = output
    gemm.input[1:] = names
    gemm.output[:] = [output]
    graph.node.remove(producers[output])
    graph.node.insert(list(graph.node).index(source) + 1, gemm)


def prune(graph: onnx.GraphProto) -> None:
    """Drops nodes and weights that no output needs."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)


def _constants(graph: onnx.GraphProto) -> dict[str, Any]:
    """Arrays by name."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return constants | {
        n.output[0]: onnx.numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"
    }

"""ONNX files that are not what they say, sealed as if offrl had written them."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from offrl import TaskSpec
from offrl.policies._onnx_seal import sealed

SPEC = TaskSpec.vector(4, ("left", "right"))


def policy(nodes=None, *, spec=None, inputs=None, tensors=(), **metadata):
    """A file of the float contract; by default a good one."""
    weights = [numpy_helper.from_array(np.zeros((4, 2), np.float32), "w"), *tensors]
    nodes = nodes or [helper.make_node("MatMul", ["observation", "w"], [name]) for name in ("q", "logits")]
    inputs = inputs or [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("q", "logits")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    said = json.dumps(SPEC.to_dict()) if spec is None else spec
    helper.set_model_props(model, {"task_spec": said, "contract": "float", "algorithm_threshold": "0.3", **metadata})
    return model


def small():
    return [helper.make_node("MatMul", ["observation", "w"], ["q"])]


def loop():
    """Runs its body for ever."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["x"], ["x2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
        [value("c2", TensorProto.BOOL, []), value("x2", TensorProto.FLOAT, None)],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    return policy([*small(), helper.make_node("Loop", ["", "true", "q"], ["logits"], body=body)], tensors=[true])


def branch():
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Identity", ["q"], ["y"])], "body", [], [value])
    true = numpy_helper.from_array(np.array(True), "true")
    node = helper.make_node("If", ["true"], ["logits"], then_branch=body, else_branch=body)
    return policy([*small(), node], tensors=[true])


def outside(path):
    model = policy()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(path))
    return model


def huge():
    """Makes a tensor of a terabyte."""
    size = numpy_helper.from_array(np.array([2**38], np.int64), "size")
    make = helper.make_node("ConstantOfShape", ["size"], ["big"])
    nodes = [*small(), make, helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0)]
    return policy([*nodes, helper.make_node("Add", ["q", "m"], ["logits"])], tensors=[size])


def outer_product():
    ones = numpy_helper.from_array(np.ones((2**16, 1), np.float32), "ones")
    row = numpy_helper.from_array(np.ones((1, 2**16), np.float32), "row")
    nodes = [*small(), helper.make_node("Mul", ["ones", "row"], ["big"])]
    nodes += [
        helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0),
        helper.make_node("Add", ["q", "m"], ["logits"]),
    ]
    return policy(nodes, tensors=[ones, row])


def pairs():
    """Compares each observation with each other one: of one it is small, of 100,000 it is 40 GB."""
    nodes = [
        *small(),
        helper.make_node("Transpose", ["q"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["q", "turned"], ["all"]),
        helper.make_node("ReduceMax", ["all"], ["m"], axes=[1], keepdims=1),
    ]
    return policy([*nodes, helper.make_node("Add", ["q", "m"], ["logits"])])


def unknown_operator(domain=""):
    return policy([*small(), helper.make_node("Mystery", ["q"], ["logits"], domain=domain)])


def random_operator():
    return policy([*small(), helper.make_node("RandomUniformLike", ["q"], ["logits"])])


def many_nodes():
    names = ["q", *(f"x{i}" for i in range(5_001))]
    chain = [helper.make_node("Relu", [a], [b]) for a, b in zip(names, [*names[1:], "logits"], strict=True)]
    return policy([*small(), *chain])


def functions():
    model = policy()
    model.functions.add(name="f", domain="d")
    return model


def other_input(kind=TensorProto.FLOAT, shape=("N", 5)):
    return policy(inputs=[helper.make_tensor_value_info("observation", kind, list(shape))])


def other_output():
    wide = numpy_helper.from_array(np.zeros((4, 3), np.float32), "wide")
    nodes = [helper.make_node("MatMul", ["observation", "wide"], [name]) for name in ("q", "logits")]
    return policy(nodes, tensors=[wide])


def changed():
    content = bytearray(sealed(policy()))
    content[content.index(b"\0" * 32)] = 1
    return bytes(content)


def parts(count=60_000):
    """Two bytes in the file are a hundred in memory."""
    return onnx.ModelProto(graph=onnx.GraphProto(node=[onnx.NodeProto()] * count)).SerializeToString()


FILES = {
    "loop": lambda outer: sealed(loop()),
    "if": lambda outer: sealed(branch()),
    "weights elsewhere": lambda outer: sealed(outside(outer / "secret.txt")),
    "a terabyte": lambda outer: sealed(huge()),
    "an outer product": lambda outer: sealed(outer_product()),
    "all pairs of observations": lambda outer: sealed(pairs()),
    "an unknown operator": lambda outer: sealed(unknown_operator()),
    "an operator of another domain": lambda outer: sealed(unknown_operator("com.example")),
    "random numbers": lambda outer: sealed(random_operator()),
    "many operators": lambda outer: sealed(many_nodes()),
    "many empty parts": lambda outer: parts(),
    "functions": lambda outer: sealed(functions()),
    "another shape": lambda outer: sealed(other_input()),
    "another type": lambda outer: sealed(other_input(TensorProto.DOUBLE, ("N", 4))),
    "a batch of one size": lambda outer: sealed(other_input(shape=(1, 4))),
    "a scalar": lambda outer: sealed(other_input(shape=())),
    "other outputs": lambda outer: sealed(other_output()),
    "a changed weight": lambda outer: changed(),
    "deep JSON": lambda outer: sealed(policy(spec="[" * 100_000)),
    "infinity": lambda outer: sealed(policy(spec=json.dumps(SPEC.to_dict()).replace("1.0", "1e999"))),
    "a list for a spec": lambda outer: sealed(policy(spec="[]")),
    "a threshold of NaN": lambda outer: sealed(policy(algorithm_threshold="nan")),
    "many names": lambda outer: sealed(policy(spec=json.dumps({**SPEC.to_dict(), "action_names": ["a"] * 40_000}))),
    "half a character": lambda outer: sealed(
        policy(spec=json.dumps({**SPEC.to_dict(), "action_names": ["\ud800", "b"]}))
    ),
}

"""Files changed at random: any file by its bytes, and each format by what it is made of."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import onnx

from offrl.policies._onnx_seal import sealed as sealed_model
from offrl.system.json_files import sealed

Mutate = Callable[[np.random.Generator, bytes], bytes]

_BYTES = (b"\0", b"\xff" * 4, b"\xed\xa0\x80", b"[" * 5_000, b'{"a":' * 2_000, b"1e999", b"-1", b"\r\n", b'"', b",,")
_NUMBERS = (0, -1, 1, 2, 3, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, 4.9, 1e308, float("nan"))
_TEXTS = (
    "",
    "\0",
    "\ud800",
    "../x",
    "/dev/zero",
    "x" * 10_000,
    "\x1b[2J",
    "NaN",
    "1e999",
    "os:system",
    "é",
    "9" * 5_000,
)
_ARRAYS = (np.nan, np.inf, -1, 2**31, 1e300, -0.5, 7)
_DTYPES = ("<f4", "<f8", "<i8", "<i4", "|u1", "|b1", "<c8", "<U3", "<M8[s]", ">f4", "<u8", "|S2", "<f2")


def mutate_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """One to three changes to the bytes."""
    for _ in range(rng.integers(1, 4)):
        content = _change(rng, content)
    return content


def _change(rng: np.random.Generator, content: bytes) -> bytes:
    at, size = int(rng.integers(len(content) + 1)), int(rng.integers(1, 64))
    rest = content[at + size :]
    other = int(rng.integers(len(content) + 1))
    flipped = bytes(each ^ (1 << int(rng.integers(8))) for each in content[at : at + 1])
    changes = (
        content[:at] + flipped + content[at + 1 :],
        content[:at] + rng.bytes(size) + rest,
        content[:at] + bytes(size) + rest,
        content[:at] + rest,
        content[:at] + _BYTES[rng.integers(len(_BYTES))] + content[at:],
        content[:at] + content[other : other + size] + content[at:],
        content[:at],
    )
    return changes[rng.choice(len(changes), p=(0.3, 0.15, 0.1, 0.1, 0.15, 0.1, 0.1))]


def mutate_json(rng: np.random.Generator, content: bytes) -> bytes:
    """A JSON file that says something else; as often as not with the hash of what it says then, else without one."""
    data = json.loads(content)
    for name in ("sealed", "content_sha256"):
        data.pop(name, None)
    for _ in range(rng.integers(1, 4)):
        data = _changed(rng, data)
    if isinstance(data, dict) and rng.random() < 0.5:
        with suppress(ValueError, RecursionError):  # what has no JSON stays without
            data = sealed(data)
    written = json.dumps(data).encode()
    return mutate_bytes(rng, written) if rng.random() < 0.1 else written


def _changed(rng: np.random.Generator, data: Any) -> Any:
    """A copy in which one value, anywhere, is another."""
    if not data or not isinstance(data, dict | list) or rng.random() < 0.1:
        return _strange(rng, data)
    if isinstance(data, list):
        at = int(rng.integers(len(data)))
        lists = (
            [*data[:at], *data[at + 1 :]],
            [*data, data[at]],
            [*data[:at], _changed(rng, data[at]), *data[at + 1 :]],
        )
        return lists[rng.choice(3, p=(0.1, 0.1, 0.8))]
    key = list(data)[rng.integers(len(data))]
    rest = {name: value for name, value in data.items() if name != key}
    changed = {**data, key: _changed(rng, data[key])}
    return (rest, {**rest, _text(rng): data[key]}, changed)[rng.choice(3, p=(0.08, 0.07, 0.85))]


def _strange(rng: np.random.Generator, data: Any) -> Any:
    deep: Any = 1
    for _ in range(int(rng.choice([2, 20, 400]))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    number = _NUMBERS[rng.integers(len(_NUMBERS))]
    if isinstance(data, int | float) and rng.random() < 0.5:
        return data * 2 + 1 if rng.random() < 0.3 else number
    return (None, True, [], {}, number, _text(rng), [data], {"a": data}, str(data), deep, [number] * 3)[
        rng.integers(11)
    ]


def _text(rng: np.random.Generator) -> str:
    return _TEXTS[rng.integers(len(_TEXTS))]


def mutate_npz(rng: np.random.Generator, content: bytes) -> bytes:
    """A shard in which members are of another type, shape or content, missing, or named otherwise."""
    with np.load(io.BytesIO(content)) as archive:
        members = dict(archive)
    for _ in range(rng.integers(1, 3)):
        name = str(rng.choice(list(members)))
        array = members.pop(name)
        match rng.integers(6):
            case 0:
                with suppress(ValueError):  # a text that is no number
                    array = array.astype(str(rng.choice(_DTYPES[:6])))
            case 1:
                array = np.zeros(rng.integers(0, 4, size=rng.integers(0, 5)), str(rng.choice(_DTYPES)))
            case 2 if array.size:
                with suppress(ValueError, TypeError):
                    array = array.astype(np.float64)
                    array.flat[rng.integers(array.size)] = _ARRAYS[rng.integers(len(_ARRAYS))]
            case 3:
                array = array[:-1] if array.ndim else array[None]
            case 4:
                name = name[::-1]
            case _:
                array = np.asfortranarray(array[..., None] if rng.random() < 0.5 else array)
        if rng.random() < 0.9 or not members:
            members[name] = array
    buffer = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(buffer, **members)
    return buffer.getvalue()


def mutate_safetensors(rng: np.random.Generator, content: bytes) -> bytes:
    """Weights whose header says something else."""
    (size,) = struct.unpack("<Q", content[:8])
    header = mutate_json(rng, content[8 : 8 + size])
    claimed = len(header) if rng.random() < 0.9 else int(rng.choice([0, 2**20, 2**40, 2**63 - 1]))
    return struct.pack("<Q", claimed) + header + content[8 + size :]


def mutate_onnx(rng: np.random.Generator, content: bytes) -> bytes:
    """A policy whose graph or metadata say something else, with the hash of that."""
    model = onnx.load_from_string(content)
    for _ in range(rng.integers(1, 3)):
        graph = model.graph
        entry, node = (each[rng.integers(len(each))] for each in (model.metadata_props, graph.node))
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        number = int(rng.choice([0, -1, 1, 3, 2**31, 2**62]))
        match rng.integers(9):
            case 0:
                entry.value = _text(rng).encode(errors="ignore").decode()
            case 1 if entry.value.startswith("{"):
                entry.value = mutate_json(rng, entry.value.encode()).decode(errors="ignore")
            case 2:
                node.op_type = str(rng.choice(["Loop", "Expand", "MatMul", "Gemm", "Tile", "Reshape", "Cast", "x"]))
            case 3 if node.input:
                node.input[rng.integers(len(node.input))] = str(rng.choice([tensor.name, node.output[0], "", "none"]))
            case 4 if tensor.dims:
                tensor.dims[rng.integers(len(tensor.dims))] = number
            case 5:
                tensor.data_type = int(rng.integers(0, 25))
            case 6:
                graph.node.add().CopyFrom(node)
            case 7 if node.attribute:
                attribute = node.attribute[rng.integers(len(node.attribute))]
                attribute.i, attribute.f = number, float(number)
            case _:
                value = (graph.input if rng.random() < 0.5 else graph.output)[0]
                value.type.tensor_type.elem_type = int(rng.integers(0, 12))
    return sealed_model(model)


def mutate_csv(rng: np.random.Generator, content: bytes) -> bytes:
    """A table with other cells."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    cells = ("", "nan", "inf", "1e999", "-1", "9" * 400, "0x1", '"', "left", "\0", "1_0", "2**63", "٣", "true")
    for _ in range(rng.integers(1, 4)):
        row = rows[0 if rng.random() < 0.2 else rng.integers(len(rows))]
        cell = int(rng.integers(len(row)))
        if rng.random() < 0.2:
            row.insert(cell, cells[rng.integers(len(cells))])
        elif rng.random() < 0.1 and len(row) > 1:
            del row[cell]
        else:
            row[cell] = cells[rng.integers(len(cells))]
    return "\n".join(map(",".join, rows)).encode()

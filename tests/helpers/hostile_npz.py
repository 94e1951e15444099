"""Shards (.npz) that are not what they say, or hold what no reader should take."""

import io
import math
import struct
import zipfile

import numpy as np
from archives import zip_of


def npz(members):
    """A shard of stacked vectors in which some members are replaced."""
    arrays = {
        "states": np.zeros((4, 2), np.float32),
        "actions": np.zeros(4, np.int64),
        "next_states": np.zeros((4, 2), np.float32),
        "rewards": np.zeros(4, np.float32),
        "dones": np.zeros(4, np.bool_),
        **members,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def header(shape, descr="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def raw(content):
    return zip_of([("actions.npy", content), ("states.npy", header((0, 2)))])


def claims(size):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("states.npy", header((1, 1)) + bytes(4))
        archive.filelist[0].file_size = size
    return buffer.getvalue()


def bzip():
    return zip_of([("states.npy", header((1, 1)) + bytes(4))], zipfile.ZIP_BZIP2)


FILES = {
    "pickle": lambda: npz({"actions": np.array([[1], [2, 3]], object)}),
    "a terabyte": lambda: raw(header((2**38,)) + bytes(8)),
    "more than deflate can": lambda: claims(2**31),
    "negative": lambda: raw(header((-1,)) + bytes(8)),
    "no rows but 2 ** 60 of nothing": lambda: npz({"actions": np.zeros((2, 0), np.int64)}),
    "texts": lambda: npz({"actions": np.array(["left"] * 4)}),
    "void": lambda: raw(header((10**9,), "|V0")),
    "a deep header": lambda: raw(np.lib.format.magic(1, 0) + struct.pack("<H", 9_000) + b"(" * 9_000),
    "version 9": lambda: raw(b"\x93NUMPY\x09\x00" + bytes(20)),
    "bzip2": bzip,
    "twice": lambda: zip_of([("states.npy", b"1"), ("states.npy", b"2")]),
    "25,000 members": lambda: zip_of([(f"{index}.npy", b"") for index in range(25_000)]),
    "bytes in front": lambda: b"MZ" + bytes(100) + npz({}),
    "NaN": lambda: npz({"rewards": np.full(4, math.nan, np.float32)}),
    "an action of 2 ** 40": lambda: npz({"actions": np.full(4, 2**40)}),
    "a name with an escape": lambda: zip_of([("\x1b[2J.npy", b"1")]),
    "a path": lambda: zip_of([("../../evil.npz", header((1, 1)) + bytes(4))]),
}

import gc
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from offrl.system.npy import read_npy_header

DTYPES = [np.dtype(name) for name in ("bool", "u1", "i1", "<u2", ">i4", "<i8", "<f2", ">f4", "<f8", "|S5", "<U3")]


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def file_of(header, version=b"\x01\x00"):
    return io.BytesIO(b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header)


@given(st.sampled_from(DTYPES), array_shapes(min_dims=0, min_side=0), st.sampled_from("CF"))
def test_it_says_what_numpy_wrote(dtype, shape, order):
    array = np.zeros(shape, dtype, order)
    content = saved(array)
    found = read_npy_header(io.BytesIO(content))
    assert (found.dtype, found.shape) == (dtype, shape)
    assert found.order == ("C" if array.flags.c_contiguous else "F")
    assert len(content) - found.start == array.nbytes


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_are_read(version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros((2, 3), np.float32), version)
    stream.seek(0)
    assert read_npy_header(stream) == (np.dtype("float32"), (2, 3), "C", stream.tell())


def test_the_entries_come_in_any_order():
    header = b"{'shape': (4, 2), 'descr': '<i4', 'fortran_order': True}\n"
    assert read_npy_header(file_of(header))[:3] == (np.dtype("<i4"), (4, 2), "F")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"((",
        b"{'descr': '<f4', 'fortran_order': False, }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3 4), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'shape': (4,), }",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '(3)f4', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (03,), }",
        b"{'descr': '<f4' 'fortran_order': False 'shape': (3,) }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 99999999999999999999), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 40 + b"), }",
        b"{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
        b"{'descr': '<U99999999999999999999', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<f4'"
        + b" " * 3000
        + b"'fortran_order': False"
        + b" " * 3000
        + b"'shape': (1,)"
        + b" " * 3000
        + b"x",
        b"{'descr': '<f9', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (3,), }",
    ],
    ids=lambda header: header[-30:].decode(),
)
def test_anything_else_is_a_value_error(header):
    with pytest.raises(ValueError, match="header|type|array"):
        read_npy_header(file_of(header))


def test_what_is_no_npy_file_or_is_cut_is_refused():
    content = saved(np.zeros(3))
    for cut in range(len(content) - 3 * 8):
        with pytest.raises(ValueError, match=r"\.npy file|its header is"):
            read_npy_header(io.BytesIO(content[:cut]))
    with pytest.raises(ValueError, match="not as a .npy file of version 1 or 2"):
        read_npy_header(file_of(b"{}", b"\x03\x00"))
    with pytest.raises(ValueError, match="a header of 60,000 bytes"):
        read_npy_header(file_of(b"{".ljust(60_000)))


@pytest.fixture
def restless():
    """Threads take turns at every chance, also inside Python's parser, where its garbage collection runs code."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()

    def callback(*_):
        return sum(number * number for number in range(200))

    sys.setswitchinterval(1e-6)
    gc.set_threshold(20, 2, 2)
    gc.callbacks.append(callback)
    yield
    gc.callbacks.remove(callback)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


def test_threads_do_not_disturb_each_other(restless):
    """CPython 3.11's parser, which `np.load` calls for each header, fails here some 30 times in 3,000."""
    content = saved(np.zeros((3, 4), np.float32))

    def read(depth):
        return read(depth - 1) if depth else read_npy_header(io.BytesIO(content))[:3]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, [0, 1, 2, 3, 4, 5, 6] * 400)) == {(np.dtype("float32"), (3, 4), "C")}

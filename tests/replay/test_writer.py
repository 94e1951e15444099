import numpy as np
import pytest

from offrl.replay._writer import GrowingArray


def test_a_finished_array_is_what_was_appended(tmp_path):
    rows = np.arange(24, dtype=np.int64).reshape(4, 2, 3)
    array = GrowingArray(tmp_path / "a.npy", np.float32, (2, 3))
    for part in (rows[:1], rows[1:1], rows[1:]):
        array.append(part)
    array.finish()
    for mode in (None, "r"):
        loaded = np.load(tmp_path / "a.npy", mmap_mode=mode, allow_pickle=False)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, rows)


def test_an_unfinished_array_does_not_load(tmp_path):
    array = GrowingArray(tmp_path / "a.npy", np.float32, ())
    array.append(np.zeros(100))
    array.close()
    with pytest.raises(ValueError, match=r"magic|pickled"):
        np.load(tmp_path / "a.npy", allow_pickle=False)

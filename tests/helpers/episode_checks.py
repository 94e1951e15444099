"""Episodes compared field by field, bytes and types included."""

from dataclasses import fields

import numpy as np


def assert_same_episodes(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        for field in fields(theirs):
            value, wanted = getattr(mine, field.name), getattr(theirs, field.name)
            if isinstance(wanted, np.ndarray):
                assert value.dtype == wanted.dtype, field.name
                np.testing.assert_array_equal(value, wanted, err_msg=field.name)
            else:
                assert value == wanted, field.name

import dataclasses
import json
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offrl import OfflineRLError, TaskSpec
from offrl.errors import ConfigError, SpecMismatchError
from offrl.spec import default_action_names

NAMES = ("left", "right", "stay")


def test_pixels_are_seen_as_gray_over_128_minus_1():
    spec = TaskSpec.pixels((4, 96, 96), NAMES)
    assert spec.normalise(torch.tensor([0, 64, 128, 255], dtype=torch.uint8)).tolist() == [-1, -0.5, 0, 0.9921875]


def test_vectors_are_seen_as_they_are():
    assert TaskSpec.vector(2, NAMES).normalise(torch.tensor([[3.0, -7.0]])).tolist() == [[3, -7]]


def test_survives_json():
    spec = TaskSpec.pixels((4, 96, 96), NAMES, hud="hidden")
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict())), "file") == spec


def test_lists_and_tuples_are_the_same_task():
    spec = TaskSpec([2], "float32", ["left", "right", "stay"])
    assert spec == TaskSpec.vector(2, NAMES)
    assert hash(spec) == hash(TaskSpec.vector(2, NAMES))
    TaskSpec.vector(2, NAMES).require_same(TaskSpec.vector(2, [*NAMES]), where="data", hint="")


def test_counts_come_from_the_shape_and_the_names():
    spec = TaskSpec.pixels((3, 8, 8), default_action_names(5))
    assert (spec.stack, spec.num_actions, spec.is_pixels) == (3, 5, True)
    assert spec.action_names[4] == "action 4"
    assert (TaskSpec.vector(6, NAMES).stack, TaskSpec.vector(6, NAMES).is_pixels) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (((96, 96), "uint8", NAMES), "observation_shape"),
        (((4, 96, 0), "uint8", NAMES), "observation_shape"),
        (((4, 96, 96), "float32", NAMES), "observation_dtype"),
        (((4,), "uint8", NAMES), "observation_dtype"),
        (((4,), "float32", ("only one",)), "action_names"),
        (((4,), "float32", NAMES, 1.0, 0.0, "maybe"), "hud"),
    ],
)
def test_refuses_what_is_no_task(arguments, field):
    with pytest.raises(ConfigError, match=f"TaskSpec.{field}: .*expected"):
        TaskSpec(*arguments)


def test_a_different_task_is_named_by_its_first_field():
    shown = TaskSpec.pixels((4, 96, 96), NAMES, hud="visible")
    hidden = TaskSpec.pixels((4, 96, 96), NAMES, hud="hidden")
    with pytest.raises(SpecMismatchError, match="data: hud is hidden; expected visible; use other data"):
        shown.require_same(hidden, where="data", hint="use other data")


@pytest.mark.parametrize("damage", [{}, {"observation_shape": 3}, {"unknown": 1}])
def test_from_dict_names_the_file(damage):
    good = TaskSpec.vector(2, NAMES).to_dict()
    bad = {**good, **damage} if damage else {}
    with pytest.raises(SpecMismatchError, match=r"manifest.json: not a task spec"):
        TaskSpec.from_dict(bad, "manifest.json")


def test_a_stack_is_stated_apart_from_the_channels():
    rgb = TaskSpec.pixels((12, 8, 9), ("left", "right"), channels=3)
    assert (rgb.stack, rgb.frame_shape) == (4, (3, 8, 9))
    assert TaskSpec.from_dict(json.loads(json.dumps(rgb.to_dict())), where="x") == rgb
    gray = TaskSpec.pixels((4, 8, 9), ("left", "right"))
    assert (gray.stack, gray.frame_shape, gray.channels) == (4, (8, 9), 1)
    assert "channels" not in gray.to_dict()  # as files of gray stacks have always been
    with pytest.raises(ConfigError, match=r"TaskSpec.channels: 3 with shape \(4, 8, 9\); expected a divisor"):
        TaskSpec.pixels((4, 8, 9), ("left", "right"), channels=3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*TaskSpec.vector(2, ("a", "b")).to_dict(), "channels", "unknown"]), JSON)
def test_a_spec_whose_field_holds_anything_is_a_spec_or_an_error_of_ours(name, value):
    data = {**TaskSpec.vector(2, ("a", "b")).to_dict(), name: value}
    with suppress(OfflineRLError):
        found = TaskSpec.from_dict(data, where="manifest.json")
        assert found.num_actions == 2 or name == "action_names"


def test_a_whole_number_of_more_than_64_bits_is_a_scale_like_any_other():
    spec = dataclasses.replace(TaskSpec.vector(1, ("a", "b")), scale=10**30, offset=-(10**30))
    assert spec.normalise(torch.tensor([[2.0]])).item() == pytest.approx(1e30)

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
        (((4,), "float32", 6), "action_names"),
        (((2,), "float32", NAMES, (1.0, 2.0, 3.0)), "scale"),
        (((2,), "float32", NAMES, (1.0, float("nan"))), "scale"),
        (((2,), "float32", NAMES, 1.0, (0.0,)), "offset"),
        (((4, 96, 96), "uint8", NAMES, (1.0,) * 4), "scale"),
        (((2,), "float32", NAMES, 1.0, 0.0, None, 1, None, False, ("age",)), "feature_names"),
        (((2,), "float32", NAMES, 1.0, 0.0, None, 1, None, False, ("age", "age")), "feature_names"),
        (((2,), "float32", NAMES, 1.0, 0.0, None, 1, None, False, "ab"), "feature_names"),
        (((4, 9, 9), "uint8", NAMES, 1.0, 0.0, None, 1, None, False, ("a", "b", "c", "d")), "feature_names"),
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


def test_features_in_another_order_are_another_task_where_both_name_them():
    spec = TaskSpec.vector(3, NAMES, feature_names=("age", "income", "visits"))
    spec.require_same(TaskSpec.vector(3, NAMES), where="environment", hint="")
    TaskSpec.vector(3, NAMES).require_same(spec, where="environment", hint="")
    permuted = TaskSpec.vector(3, NAMES, feature_names=("age", "visits", "income"))
    for legal_actions in (True, False):
        with pytest.raises(SpecMismatchError, match=r"data: feature_names\[1\] is 'visits'; expected 'income'; sort"):
            spec.require_same(permuted, where="data", hint="sort them", legal_actions=legal_actions)


def test_each_feature_may_be_seen_by_its_own_mean_and_deviation():
    spec = TaskSpec.vector(3, NAMES).standardised([40, 3000, 7], [10, 500, 0])
    seen = spec.normalise(torch.tensor([[30.0, 4000, 7], [45, 2750, 8]]))
    torch.testing.assert_close(seen, torch.tensor([[-1.0, 2, 0], [0.5, -0.5, 0]]))
    assert spec.normalise(torch.zeros(1, 3, dtype=torch.float64)).dtype == torch.float64
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict())), "file") == spec


def test_how_networks_see_vectors_is_no_part_of_what_data_and_environments_state():
    plain = TaskSpec.vector(2, NAMES)
    standardised = plain.standardised([1, 2], [3, 4])
    standardised.require_same(plain, where="environment", hint="", legal_actions=False)
    with pytest.raises(SpecMismatchError, match="run: scale is 1.0; expected"):  # other weights would be needed
        standardised.require_same(plain, where="run", hint="")
    with pytest.raises(SpecMismatchError, match=r"run: offset\[1\] is -0.75; expected -0.5"):
        standardised.require_same(plain.standardised([1, 3], [3, 4]), where="run", hint="")


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

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offrl.checks import restore_value
from offrl.cli.settings import format_value, parse_settings, parse_value, setting_groups
from offrl.errors import ConfigError
from offrl.training import FitConfig, LearnerConfig


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("7", int, 7),
        ("7", float, 7.0),
        ("7", str, "7"),
        ("5e-4", float, 5e-4),
        ("TRUE", bool, True),
        ("false", bool, False),
        ("none", float | None, None),
        ("none", str | None, None),
        ("nobody", str | None, "nobody"),
        ("0.5", int | float, 0.5),
        ("cosine", Literal["constant", "cosine"], "cosine"),
        ('{"betas": [0.8, 0.9]}', Mapping[str, Any], {"betas": [0.8, 0.9]}),
        ("[64, 32]", tuple[int, ...], (64, 32)),
        ("[64, 32]", Sequence[int], (64, 32)),
        ("[64, 32]", list[int], [64, 32]),
    ],
)
def test_values_take_the_type_of_their_field(text, hint, expected):
    value = parse_value(text, hint, where="here")
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("7.5", int, "a whole number"),
        ("many", float | None, "a finite number or none"),
        ("nan", float, "a finite number"),
        ("inf", float, "a finite number"),
        ("1", bool, "true or false"),
        ("linear", Literal["constant", "cosine"], "one of constant, cosine"),
        ("[1]", Mapping[str, Any], "a JSON object"),
        ("{", Mapping[str, Any], "a JSON object"),
    ],
)
def test_other_values_are_refused(text, hint, expected):
    with pytest.raises(ConfigError) as caught:
        parse_value(text, hint, where="--set field")
    assert str(caught.value) == f"--set field: {text!r}; expected {expected}"


@given(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.dictionaries(st.text(), st.integers())
    | st.tuples(st.integers(), st.integers())
)
def test_values_survive_the_command_line(value):
    hint = {dict: Mapping[str, Any], tuple: tuple[int, ...]}.get(type(value), type(value))
    assert parse_value(format_value(value), hint, where="here") == value


def test_text_survives_the_command_line():
    assert parse_value(format_value("cosine"), str, where="here") == "cosine"


def test_fields_go_to_the_groups_that_have_them_and_the_later_value_counts():
    groups = {"a": {"x": int, "shared": int}, "b": {"shared": float}}
    found = parse_settings(["x=1", "shared=2", "x=3"], groups)
    assert found == {"a": {"x": 3, "shared": 2}, "b": {"shared": 2.0}}
    assert [type(found[group]["shared"]) for group in "ab"] == [int, float]


def test_a_value_may_hold_an_equals_sign():
    assert parse_settings(["name=a=b"], {"a": {"name": str}}) == {"a": {"name": "a=b"}}


def test_an_unknown_field_lists_the_fields_and_the_nearest():
    groups = {"learner": get_type_hints(LearnerConfig), "fit": get_type_hints(FitConfig)}
    with pytest.raises(ConfigError, match="no field 'learnin_rate'.*batch_size.*did you mean learning_rate"):
        parse_settings(["learnin_rate=1"], groups)
    with pytest.raises(ConfigError, match="'learning_rate'; expected FIELD=VALUE"):
        parse_settings(["learning_rate"], groups)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gamma", "discount"),
        ("action_flexibility", "threshold"),
        ("beta", "logit_penalty"),
        ("target_update_interval", "target_period"),
        ("n_steps", "updates or n_step"),
    ],
)
def test_what_d3rlpy_calls_a_setting_is_translated(theirs, ours):
    groups = {
        group: {name: field.hint for name, field in fields.items()} for group, fields in setting_groups("bcq").items()
    }
    with pytest.raises(ConfigError, match=rf"no field '{theirs}'.*did you mean {ours}\?$"):
        parse_settings([f"{theirs}=1"], groups)


def test_tuples_come_back_from_json():
    assert restore_value([1, 2], tuple[int, ...]) == (1, 2)
    assert restore_value([1, 2], list[int]) == [1, 2]
    assert restore_value(3, int | None) == 3

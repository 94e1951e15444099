"""The section of offline estimates: what it shows, and what it refuses."""

import copy

import pytest

from offrl.errors import RunError
from offrl.report.ope_page import ope_section, write_ope_page

ROW = {
    "estimator": "fqe",
    "value": {"mean": 1234.5, "interval_95": [1200.0, 1300.0]},
    "difference_to_behaviour": {"mean": -3.25, "interval_95": None},
    "effective_size": None,
    "refits": 3,
    "remark": "",
}
UNDEFINED = {
    **ROW,
    "estimator": "wis",
    "value": {"mean": None, "interval_95": None},
    "effective_size": 0.5,
    "remark": "no",
}
FOUND = {
    "policy": "<mine>",
    "discount": 0.99,
    "held_out_episodes": 64,
    "training_episodes": 1920,
    "split": {"held_out": 0.03, "split_seed": 0},
    "behaviour": {"mean": 40.0, "interval_95": [30.0, 50.0]},
    "behaviour_probabilities": "logged",
    "support": 0.87,
    "estimates": [ROW, UNDEFINED],
    "warnings": ["few"],
}


def test_numbers_and_what_to_beware_of(tmp_path):
    text = write_ope_page(FOUND, tmp_path / "page.html").read_text()
    for shown in (
        "&lt;mine&gt;",
        "Read on 64 held-out episodes; models were fitted on 1,920 others.",
        "the behaviour&#x27;s is 40.00 [30.00 to 50.00]",
        "takes 87% of the policy",
        "1,234.50",
        "1,200.00 to 1,300.00",
        "-3.25",
        "undefined",
        "<li>wis: no.</li><li>few</li>",
    ):
        assert shown in text, shown
    assert ">nan<" not in text.lower()


def test_a_behaviour_beyond_cuts_is_shown(tmp_path):
    found = {**FOUND, "behaviour_fitted": {"mean": 50.0, "interval_95": [45.0, 55.0]}}
    text = write_ope_page(found, tmp_path / "page.html").read_text()
    assert "40.00 [30.00 to 50.00], and 50.00 [45.00 to 55.00] by fitted Q, beyond where the log is cut, too." in text


def test_where_nobody_asked_there_is_nothing(tmp_path):
    assert ope_section({}, where=tmp_path) == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found.pop("estimates"),
        lambda found: found["estimates"][0].pop("value"),
        lambda found: found.update(support="much"),
        lambda found: found.update(estimates=3),
        lambda found: found["behaviour"].update(interval_95=[1.0]),
    ],
)
def test_something_else_is_refused(damage, tmp_path):
    found = copy.deepcopy(FOUND)
    damage(found)
    with pytest.raises(RunError, match="ope.json: damaged .*expected what `offrl ope --out` writes"):
        ope_section(found, where=tmp_path / "ope.json")

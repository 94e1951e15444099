import json

import pytest

from offrl.errors import RunError
from offrl.runs import read_run_config
from offrl.training._resume import resume_run

CONFIG = {"a": {"b": [1, 2]}, "fit": {"epochs": 1, "batch_size": 10}, "learner": {"schedule": "constant"}}


def test_settings_are_compared_as_json_and_what_was_settled_is_not(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "settled": {"precision": "bf16"}}))
    assert not resume_run(tmp_path, {**CONFIG, "a": {"b": (1, 2)}}, 100)
    with pytest.raises(RunError, match=r"a.b is \[1, 3\]; expected \[1, 2\]"):
        resume_run(tmp_path, {**CONFIG, "a": {"b": (1, 3)}}, 100)
    with pytest.raises(RunError, match=r"c is 5; expected None"):
        resume_run(tmp_path, {**CONFIG, "c": 5}, 100)


def test_a_setting_that_is_newer_than_the_run_has_to_be_its_default(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "algorithm_config": {"beta": 2.0}}))
    defaults = {"beta": 1.0, "weighted": False, "sizes": (1, 2)}

    def current(**changed):
        return {**CONFIG, "algorithm_config": {**defaults, "beta": 2.0, **changed}}

    assert not resume_run(tmp_path, current(), 100, defaults)
    with pytest.raises(RunError, match=r"algorithm_config.weighted is True; expected False"):
        resume_run(tmp_path, current(weighted=True), 100, defaults)
    with pytest.raises(RunError, match=r"algorithm_config.beta is 1.0; expected 2.0"):
        resume_run(tmp_path, current(beta=1.0), 100, defaults)


def test_a_run_may_become_longer_and_records_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "settled": {"precision": "bf16"}}))
    assert resume_run(tmp_path, {**CONFIG, "fit": {"epochs": 2, "batch_size": 10}}, 100)
    recorded = read_run_config(tmp_path)
    assert (recorded["fit"]["epochs"], recorded["settled"]) == (2, {"precision": "bf16"})
    with pytest.raises(RunError, match=r"10 updates in all; expected 20 or more"):
        resume_run(tmp_path, CONFIG, 100)


def test_a_run_whose_schedule_depends_on_its_length_may_not(tmp_path):
    config = {**CONFIG, "learner": {"schedule": "cosine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        RunError, match=r"20 updates in all for a run of 10; expected 10: the schedule 'cosine' depends"
    ):
        resume_run(tmp_path, {**config, "fit": {"epochs": 2, "batch_size": 10}}, 100)
    assert not resume_run(
        tmp_path, {**config, "fit": {"updates": 10, "batch_size": 10}}, 100
    )  # as long, in other words

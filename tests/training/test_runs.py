import json

import pytest

from offrl.errors import RunError
from offrl.training import create_run, describe_machine, read_run_config
from offrl.training.runs import claim_run, require_same_config


def test_a_new_run_takes_the_next_free_name(tmp_path):
    names = [create_run(tmp_path, "bcq").name for _ in range(2)]
    (tmp_path / "bcq-003").write_text("a file in the way")
    assert [*names, create_run(tmp_path, "bcq").name] == ["bcq-001", "bcq-002", "bcq-004"]


def test_a_named_run_may_be_an_empty_directory_but_nothing_else(tmp_path):
    claim_run(tmp_path / "new" / "run")
    claim_run(tmp_path / "new" / "run")
    (tmp_path / "file").write_text("")
    for taken in (tmp_path / "file", tmp_path / "new"):
        with pytest.raises(RunError, match="exists already"):
            claim_run(taken)


def test_settings_are_compared_as_json_and_what_was_settled_is_not(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"a": {"b": [1, 2]}, "settled": {"precision": "bf16"}}))
    require_same_config(tmp_path, {"a": {"b": (1, 2)}})
    with pytest.raises(RunError, match=r"a.b is \[1, 3\]; expected \[1, 2\]"):
        require_same_config(tmp_path, {"a": {"b": (1, 3)}})
    with pytest.raises(RunError, match=r"c is 5; expected None"):
        require_same_config(tmp_path, {"a": {"b": (1, 2)}, "c": 5})


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config.json: damaged"):
        read_run_config(tmp_path)


def test_the_machine_is_described_with_versions():
    machine = describe_machine()
    assert {"offrl", "torch", "numpy"} <= machine["versions"].keys()
    assert json.loads(json.dumps(machine)) == machine

import json
import re

import pytest

from offrl.errors import InUseError, RunError
from offrl.runs import create_run, describe_machine, read_run_config
from offrl.runs.directory import with_time, working_on
from offrl.runs.files import write_run_config


def test_a_new_run_takes_the_next_free_name(tmp_path):
    names = [create_run(tmp_path, "bcq").name for _ in range(2)]
    (tmp_path / "bcq-003").write_text("a file in the way")
    assert [*names, create_run(tmp_path, "bcq").name] == ["bcq-001", "bcq-002", "bcq-004"]


def test_a_named_run_may_be_an_empty_directory_but_nothing_else(tmp_path):
    for _ in range(2):
        with working_on(tmp_path / "new" / "run", resume=False):
            pass
    (tmp_path / "file").write_text("")
    for taken in (tmp_path / "file", tmp_path / "new"):
        with pytest.raises(RunError, match="exists already"), working_on(taken, resume=False):
            pass


def test_one_at_a_time_works_on_a_run(tmp_path):
    with working_on(tmp_path / "run", resume=False):
        for resume in (False, True):
            with pytest.raises(InUseError, match=r"run: is in use by process \d+"):
                working_on(tmp_path / "run", resume=resume).__enter__()


def test_a_changed_digit_in_the_config_is_noticed(tmp_path):
    write_run_config(tmp_path, {"learner": {"learning_rate": 5e-4}})
    assert read_run_config(tmp_path) == {"learner": {"learning_rate": 5e-4}}
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("0.0005", "0.0006"))
    with pytest.raises(RunError, match=r"config.json: damaged \(it was changed since it was written"):
        read_run_config(tmp_path)


def test_a_name_may_have_the_time():
    assert re.fullmatch(r"bcq-\d{4}-\d\d-\d\d-\d{6}", with_time("bcq-{time}"))
    assert with_time("bcq") == "bcq"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config.json: damaged"):
        read_run_config(tmp_path)


def test_the_machine_is_described_with_versions():
    machine = describe_machine()
    assert {"offrl", "torch", "numpy"} <= machine["versions"].keys()
    assert json.loads(json.dumps(machine)) == machine

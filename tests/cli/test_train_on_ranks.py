"""What `offrl train` takes from torchrun, without processes."""

import json
from pathlib import Path

import pytest
from run_offrl import offrl

from offrl.cli import training
from offrl.errors import ConfigError
from offrl.system import ranks, torchrun


@pytest.fixture
def as_rank_2(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torchrun, "_joined", None)


def test_where_a_setting_has_a_rank_each_process_trains_a_run_of_its_own(as_rank_2):
    run, settings = training._with_rank(Path("runs/bcq-{rank}"), ("seed={rank}", "n_step=5"))
    assert (run, settings) == (Path("runs/bcq-2"), ("seed=2", "n_step=5"))
    assert torchrun.join() is ranks.ALONE  # and asks nobody


def test_without_a_rank_in_them_settings_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(torchrun, "_joined", None)
    assert training._with_rank(Path("runs/bcq"), ("n_step=5",)) == (Path("runs/bcq"), ("n_step=5",))
    assert torchrun._joined is None


def test_runs_of_several_processes_need_a_name_each(as_rank_2):
    with pytest.raises(ConfigError, match=r"--run: runs/bcq for the runs of all .*; take --run runs/bcq-\{rank\}"):
        training._with_rank(Path("runs/bcq"), ("seed={rank}",))


def test_a_command_that_torchrun_starts_again_finds_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for name, launcher in (("bcq-001", "job-6"), ("bcq-002", "job-7"), ("mine-2026-11-25", "job-7")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "environment.json").write_text(json.dumps({"launcher": launcher}))
    assert training._begun_before(None, "bcq") == Path("runs/bcq-002")
    assert training._begun_before(Path("runs/mine-{time}"), "bcq") == Path("runs/mine-2026-11-25")
    assert training._begun_before(Path("runs/bcq-001"), "bcq") is None


@pytest.mark.parametrize(("rank", "said"), [(0, "error: no/such: no such directory"), (1, "error: rank 1: no/such")])
def test_an_error_names_the_rank_that_met_it(rank, said, monkeypatch):
    monkeypatch.setattr(torchrun, "_joined", ranks.Ranks(rank, 2))
    assert offrl("inspect", "no/such", code=2).stderr.startswith(said)

import csv
import io
import os
import subprocess
import sys
import types

import pytest

from offrl import BC, FitConfig, fit
from offrl.errors import MissingDependencyError, RunError
from offrl.runs import ConsoleLogger, CSVLogger, TensorBoardLogger, WandbLogger


def log_steps(logger, steps):
    for step in steps:
        logger.log(step, {"loss": 1 / step, "q": 2.0 * step}, {"updates_per_second": 10.0})
    logger.close()


def test_rows_hold_the_step_and_full_precision_and_timings_stay_apart(tmp_path):
    log_steps(CSVLogger(tmp_path / "run"), [3])
    assert (tmp_path / "run/metrics.csv").read_bytes() == b"step,loss,q\n3,0.3333333333333333,6.0\n"
    assert (tmp_path / "run/timings.csv").read_bytes() == b"step,updates_per_second\n3,10.0\n"


@pytest.mark.parametrize("torn", ["", "600,0.00", "60"])
def test_a_resumed_run_ends_with_the_files_of_one_never_stopped(tmp_path, torn):
    log_steps(CSVLogger(tmp_path / "straight"), [100, 200, 300, 400, 500])
    log_steps(CSVLogger(tmp_path / "resumed"), [100, 200, 300, 400])
    with (tmp_path / "resumed/metrics.csv").open("a") as file:
        file.write(torn)  # the machine died in the middle of a row
    log_steps(CSVLogger(tmp_path / "resumed", resume_step=250), [300])
    log_steps(CSVLogger(tmp_path / "resumed", resume_step=300), [400, 500])
    for name in ("metrics.csv", "timings.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "resumed").iterdir()) == ["metrics.csv", "timings.csv"]


def test_a_run_resumed_before_its_first_row_starts_the_file(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,lo")
    log_steps(CSVLogger(tmp_path, resume_step=0), [1])
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,q\n1,1.0,2.0\n"


def test_a_new_run_never_appends_to_another_runs_file(tmp_path):
    log_steps(CSVLogger(tmp_path), [1])
    with pytest.raises(RunError, match=r"metrics\.csv: exists already; resume"):
        CSVLogger(tmp_path)


@pytest.mark.parametrize("metrics", [{"loss": 1.0}, {"q": 1.0, "loss": 1.0}, {"loss": 1.0, "q": 1.0, "score": 9.0}])
def test_other_columns_than_the_first_rows_are_refused(tmp_path, metrics):
    logger = CSVLogger(tmp_path)
    log_steps(logger, [1])
    with pytest.raises(RunError, match=r"metrics\.csv: columns .* at step 2; expected \['loss', 'q'\]"):
        logger.log(2, metrics, {"updates_per_second": 1.0})
    with (tmp_path / "metrics.csv").open() as file:
        assert [row[0] for row in csv.reader(file)] == ["step", "1"]


def test_columns_are_remembered_on_resume(tmp_path):
    log_steps(CSVLogger(tmp_path), [1])
    with pytest.raises(RunError, match="columns"):
        CSVLogger(tmp_path, resume_step=1).log(2, {"loss": 1.0}, {"updates_per_second": 1.0})


@pytest.mark.parametrize("content", ["name,score\na,1\n", "step,loss\nx,1\n"])
def test_a_file_that_is_not_ours_is_refused_and_kept(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(RunError, match=r"metrics\.csv"):
        CSVLogger(tmp_path, resume_step=1)
    assert (tmp_path / "metrics.csv").read_text() == content


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_there_is_one_plain_line_every_tenth_of_the_run():
    stream = io.StringIO()
    logger = ConsoleLogger(1000, stream=stream)
    for step in range(50, 1001, 50):
        logger.log(step, {"loss": 0.5}, {})
    logger.close()
    lines = stream.getvalue().splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"update {step} of 1000" for step in range(100, 1001, 100)]
    assert lines[0].startswith("update 100 of 1000 (10 %), loss 0.5, ")
    assert lines[-1].endswith("updates/s, 00:00 left")


def test_a_resumed_console_says_nothing_about_what_was_done_before():
    stream = io.StringIO()
    logger = ConsoleLogger(1000, initial=500, stream=stream)
    logger.log(550, {}, {})
    assert stream.getvalue() == ""
    logger.log(600, {}, {})
    assert stream.getvalue().startswith("update 600 of 1000 (60 %), ")


def test_the_loss_is_that_of_the_row_as_metrics_csv_has_it():
    stream = io.StringIO()
    logger = ConsoleLogger(10, stream=stream)
    logger.log(1, {"loss": 1.0}, {})
    logger.log(2, {"loss": 11.0}, {})
    assert "loss 11," in stream.getvalue().splitlines()[1]


def test_a_terminal_gets_a_bar_that_starts_where_the_run_resumes():
    stream = Terminal()
    logger = ConsoleLogger(1000, initial=500, stream=stream)
    logger.log(1000, {"loss": 0.25}, {})
    logger.close()
    first, last = stream.getvalue().split("\r")[1], stream.getvalue().split("\r")[-1]
    assert "500/1000" in first
    assert "1000/1000" in last
    assert "loss=0.25" in last


def read_events(directory):
    """What TensorBoard shows: (step, value) of every row by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_metrics_and_timings_as_soon_as_they_are_logged(tmp_path):
    logger = TensorBoardLogger(tmp_path / "run")
    logger.log(2, {"loss": 0.5, "q": 4.0}, {"updates_per_second": 10.0})
    logger.log(4, {"loss": 0.25, "q": 8.0}, {"updates_per_second": 20.0})
    assert read_events(tmp_path / "run") == {
        "loss": [(2, 0.5), (4, 0.25)],
        "q": [(2, 4.0), (4, 8.0)],
        "timings/updates_per_second": [(2, 10.0), (4, 20.0)],
    }
    logger.close()


def test_tensorboard_forgets_what_was_logged_past_the_step_of_a_resumed_run(tmp_path):
    log_steps(TensorBoardLogger(tmp_path), [1, 2, 3, 4])
    log_steps(TensorBoardLogger(tmp_path, resume_step=2), [3])
    assert [step for step, _ in read_events(tmp_path)["q"]] == [1, 2, 3]


def test_tensorboard_lies_inside_a_new_run_and_shows_its_metrics(toy_replay, tmp_path):
    run = tmp_path / "run"
    loggers = [TensorBoardLogger(run / "tensorboard"), TensorBoardLogger(tmp_path / "never logged to")]
    loggers[1].close()
    config = FitConfig(updates=4, batch_size=8, log_period=2)
    fit(BC(toy_replay.spec), toy_replay, config, run=run, loggers=loggers[:1], device="cpu")
    with (run / "metrics.csv").open() as file:
        rows = [(int(row["step"]), pytest.approx(float(row["loss"]))) for row in csv.DictReader(file)]
    assert read_events(run / "tensorboard")["loss"] == rows
    assert len(rows) == 2
    assert not (tmp_path / "never logged to").exists()


class WandbStandIn(types.ModuleType):
    """Says what was asked of wandb."""

    def __init__(self):
        super().__init__("wandb")
        self.calls = []

    def init(self, **settings):
        self.calls.append(settings)
        return self

    def log(self, values, *, step):
        self.calls.append((step, values))

    def finish(self):
        self.calls.append("finish")


def test_wandb_gets_its_settings_and_every_row_at_its_step(monkeypatch):
    wandb = WandbStandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log_steps(WandbLogger(project="cars", config={"lr": 0.1}), [2])
    assert wandb.calls == [
        {"project": "cars", "config": {"lr": 0.1}},
        (2, {"loss": 0.5, "q": 4.0, "timings/updates_per_second": 10.0}),
        "finish",
    ]


def test_wandb_writes_a_run_to_disk_in_its_offline_mode(tmp_path):
    # In a process of its own: wandb leaves threads, hooks and a service behind.
    program = """
from offrl.runs import WandbLogger

logger = WandbLogger(project="cars", mode="offline")
logger.log(100, {"loss": 0.4375}, {"updates_per_second": 10.0})
logger.close()
"""
    private = {f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "CACHE", "DATA")}
    environment = {**os.environ, **private, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    [run] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = run.read_bytes()
    assert b"timings/updates_per_second" in content
    assert b"0.4375" in content


@pytest.mark.parametrize("found", [None, types.ModuleType("wandb")], ids=["nothing", "its own directory of runs"])
def test_without_wandb_the_error_says_what_to_install(monkeypatch, found):
    monkeypatch.setitem(sys.modules, "wandb", found)
    with pytest.raises(MissingDependencyError, match=r"WandbLogger: wandb is not installed; .*-m pip install 'wandb>="):
        WandbLogger(project="cars")


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"tensorboard is not installed; .*-m pip install 'tensorboard>="):
        TensorBoardLogger(tmp_path)

import csv
import json
import shutil
import signal

import pytest
import torch
from toy_replay import ToyReplay

from offrl import BC, DQN, DiscreteBCQ, FitConfig, LearnerConfig, TaskSpec, fit
from offrl.errors import ConfigError, OfflineRLError, RunError
from offrl.runs import checkpoints, latest_checkpoint
from offrl.runs.checkpoint import find_resumable
from offrl.selection import agreement, td_error
from offrl.training import Selection, Statistic
from offrl.training.selection import Ratings

SPEC = TaskSpec.vector(3, ("left", "right"))
CONFIG = FitConfig(updates=24, batch_size=64, log_period=2, checkpoint_period=4)


class HoldingOut(ToyReplay):
    def held_out(self):
        return ToyReplay(self.spec, seed=1)


class Stopper:
    """Interrupts the run at a step; remembers its rows and why it ended."""

    def __init__(self, at=None):
        self.at, self.rows, self.ended = at, [], None

    def log(self, step, metrics, timings):
        self.rows.append((step, dict(metrics)))
        if step == self.at:
            signal.raise_signal(signal.SIGINT)

    def log_end(self, step, reason):
        self.ended = (step, reason)

    def close(self):
        pass


def scripted(values, *, more_is_better=True):
    """A statistic that takes these values, one for each row of metrics, whatever the policy: it counts the rows.

    The step of a row is told by DQN's only trained number that is known: its optimiser has none, so the test's own
    algorithm counts its updates in a buffer.
    """

    def function(algorithm, batch):
        return torch.tensor(float(values[int(algorithm.updates) // 2 - 1 if algorithm.updates else 0]))

    return Statistic("scripted", function, more_is_better)


class Counting(DQN):
    """A DQN that knows how often its loss was asked while it trained."""

    def make_networks(self, encoder):
        super().make_networks(encoder)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def loss(self, batch):
        if self.training and torch.is_grad_enabled():
            self.updates += 1
        return super().loss(batch)


def train(run, selection, *, at=None, resume=False, config=CONFIG, algorithm=None, **options):
    stopper = Stopper(at)
    learner = fit(
        Counting(SPEC) if algorithm is None else algorithm,
        HoldingOut(SPEC),
        config,
        learner=LearnerConfig(precision="fp32", compile="off"),
        run=run,
        resume=resume,
        selection=selection,
        loggers=[stopper],
        device="cpu",
        **options,
    )
    return learner, stopper


def total_of(algorithm):
    return next(algorithm.parameters()).detach().double().sum()


def steps_of(run):
    return [int(path.name.removeprefix("step-")) for path in checkpoints(run / "checkpoints")]


def contents(run):
    paths = [path for path in run.rglob("*") if path.is_file()]
    left_out = {"timings.csv", "environment.json", "logs.json", ".lock"}
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.name not in left_out}


# The rows at steps 2, 4, ... 24; checkpoints at 4, 8, ... 24 have every other one.
VALUES = [9, 1, 9, 5, 9, 4, 9, 3, 9, 2, 9, 0]


def test_the_statistics_are_columns_of_the_metrics(tmp_path):
    selection = Selection([td_error, agreement])
    _, stopper = train(tmp_path / "run", selection, algorithm=DiscreteBCQ(SPEC))
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["held_out_td_error"]) for row in rows] == [each["held_out_td_error"] for _, each in stopper.rows]
    assert {"held_out_loss", "held_out_agreement"} <= rows[0].keys()
    assert all(0 <= float(row["held_out_agreement"]) <= 1 for row in rows)
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["selection"]
    assert recorded == {"statistics": ["td_error", "agreement"], "keep_best": None, "patience": None}
    assert steps_of(tmp_path / "run") == [0, 4, 8, 12, 16, 20, 24]  # all are kept


def test_training_is_the_same_with_a_selection_as_without(tmp_path):
    selected, _ = train(tmp_path / "with", Selection([td_error], keep_best=1), algorithm=DiscreteBCQ(SPEC))
    plain, _ = train(tmp_path / "without", None, algorithm=DiscreteBCQ(SPEC))
    ours, theirs = selected.algorithm.state_dict(), plain.algorithm.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_statistics_are_of_the_averaged_weights_where_those_are_on(tmp_path):
    weight = Statistic("weight", lambda algorithm, _: total_of(algorithm), True)
    stopper = Stopper()
    learner = LearnerConfig(precision="fp32", compile="off", average_decay=0.9, learning_rate=0.1)
    trained = fit(
        DQN(SPEC), HoldingOut(SPEC), CONFIG, learner=learner, selection=Selection([weight]), loggers=[stopper]
    )
    found = stopper.rows[-1][1]["held_out_weight"]
    assert found == pytest.approx(float(total_of(trained.snapshot())), rel=1e-6)
    assert found != pytest.approx(float(total_of(trained.algorithm)), rel=1e-5)


def test_the_best_checkpoints_are_kept_and_the_newest_two(tmp_path):
    # Of the values 1, 5, 4, 3, 2, 0 at the steps 4 to 24 the best two are at 8 and 12; the rows between have none.
    train(tmp_path / "more", Selection([scripted(VALUES)], keep_best=2))
    assert steps_of(tmp_path / "more") == [8, 12, 20, 24]
    train(tmp_path / "less", Selection([scripted(VALUES, more_is_better=False)], keep_best=2))
    assert steps_of(tmp_path / "less") == [4, 20, 24]
    for kept in checkpoints(tmp_path / "more" / "checkpoints"):
        assert (kept / "learner.safetensors").exists()


def test_a_kept_checkpoint_can_be_gone_on_from(tmp_path):
    selection = Selection([scripted(VALUES)], keep_best=2)
    train(tmp_path / "run", selection)
    before = contents(tmp_path / "run")
    for newest in checkpoints(tmp_path / "run" / "checkpoints")[1:]:
        (newest / "policy.safetensors").write_bytes(b"damaged")
    assert find_resumable(tmp_path / "run" / "checkpoints").checkpoint.name == "step-000000008"
    with pytest.warns(UserWarning, match="goes on from update 8"):
        train(tmp_path / "run", selection, resume=True)
    found = contents(tmp_path / "run")
    assert {name: found[name] for name in before} == before


@pytest.mark.parametrize("at", [2, 4, 6, 14, 22])
def test_a_resumed_run_keeps_what_one_never_stopped_keeps(tmp_path, at):
    selection = Selection([scripted(VALUES), td_error], keep_best=2)
    train(tmp_path / "whole", selection)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", selection, at=at)
    assert at in steps_of(tmp_path / "broken")  # the newest is kept, rated or not
    train(tmp_path / "broken", selection, resume=True)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_what_a_killed_process_did_not_remove_is_removed_when_the_run_goes_on(tmp_path):
    selection = Selection([scripted(VALUES)], keep_best=2)
    train(tmp_path / "run", selection)
    before = contents(tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(folder / "step-000000020", folder / "step-000000016")
    shutil.copytree(folder / "step-000000020", folder / ".step-000000004.0123456789ab.partial")
    train(tmp_path / "run", selection, resume=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("at", [None, 4, 10, 12])
def test_a_run_ends_when_its_statistic_does_not_become_better(tmp_path, at):
    values = [1, 2, 7, 3, 3, 3, 99, 99, 99, 99, 99, 99]  # best at step 6; the third row after it is that of step 12
    selection = Selection([scripted(values)], patience=3, keep_best=3)
    if at is not None:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", selection, at=at)
    learner, stopper = train(tmp_path / "run", selection, resume=at is not None)
    reason = "held_out_scripted has not become better in 3 rows of metrics, since it was 7 at update 6"
    assert (learner.step, stopper.ended) == (12, (12, reason))
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").name == "step-000000012"
    ended = json.loads((tmp_path / "run" / "ended.json").read_text())
    assert (ended["step"], ended["reason"]) == (12, reason)
    if at is not None:
        train(tmp_path / "whole", selection)
        assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_resuming_a_run_that_has_ended_changes_nothing(tmp_path):
    selection = Selection([scripted([5, 4, 3, 2, 1, 0, 9, 9, 9, 9, 9, 9])], patience=4, keep_best=1)
    train(tmp_path / "run", selection)
    before = contents(tmp_path / "run")
    learner, _ = train(tmp_path / "run", selection, resume=True)
    assert learner.step == 10
    assert contents(tmp_path / "run") == before


def test_a_run_that_ends_between_two_checkpoints_has_one_there(tmp_path):
    # Best at step 2; the second row after it is that of step 6, where no checkpoint is due.
    selection = Selection([scripted([5, 4, 3, *[9] * 9])], patience=2, keep_best=1)
    train(tmp_path / "run", selection)
    assert steps_of(tmp_path / "run") == [4, 6]
    assert find_resumable(tmp_path / "run" / "checkpoints").checkpoint.name == "step-000000006"


def test_the_end_of_a_run_is_scored_once(tmp_path):
    scored = []

    def evaluator(algorithm):
        scored.append(int(algorithm.updates))
        return {"score": 1.0}

    selection = Selection([scripted([5, 4, 3, *[9] * 9])], patience=2)
    train(tmp_path / "run", selection, evaluate_every=4, evaluator=evaluator)
    assert scored == [4, 6]
    train(tmp_path / "run", selection, evaluate_every=4, evaluator=evaluator, resume=True)
    assert scored == [4, 6]


def test_a_run_without_a_directory_ends_early_too():
    learner, stopper = train(None, Selection([scripted(VALUES, more_is_better=False)], patience=2))
    assert learner.step == stopper.ended[0] == 8  # 9, 1, 9, 5: best at step 4


def test_nan_is_worse_than_any_number():
    ratings = Ratings(Selection([scripted([])], keep_best=1, patience=2), 1, {})
    for step, value in enumerate([float("nan"), -5.0, float("nan")], start=1):
        ratings.add(step, {"held_out_scripted": value})
    assert (ratings.best_step(), ratings.steps_to_keep(), ratings.reason_to_end()) == (2, {2, 3}, None)


def test_the_earlier_of_two_equals_is_the_better_one():
    ratings = Ratings(Selection([scripted([])], keep_best=1), 1, {1: 2.0, 2: 7.0, 3: 7.0, 4: 0.0, 5: 0.0})
    assert (ratings.best_step(), ratings.steps_to_keep()) == (2, {2, 4, 5})


def test_other_settings_of_the_selection_are_refused_on_resume(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", Selection([agreement], patience=8), at=4)
    with pytest.raises(RunError, match=r"selection\.patience is 9; expected 8, as the run began with"):
        train(tmp_path / "run", Selection([agreement], patience=9), resume=True)
    with pytest.raises(RunError, match=r"selection\.patience is None"):
        train(tmp_path / "run", None, resume=True)


def test_what_cannot_be_selected_by_is_refused_before_training(tmp_path):
    def refused(message, selection, **options):
        with pytest.raises(ConfigError, match=message):
            train(tmp_path / "run", selection, **options)
        assert not (tmp_path / "run").exists()

    with pytest.raises(ConfigError, match="no held-out episodes"):
        fit(DQN(SPEC), ToyReplay(SPEC), CONFIG, selection=Selection([agreement]), loggers=[])
    refused("keep_best with evaluate_every", Selection([agreement], keep_best=1), evaluate_every=4, evaluator=print)
    refused(
        r"a checkpoint every 5 updates and a row of metrics every 2; .*such as 4",
        Selection([agreement], keep_best=1),
        config=FitConfig(updates=24, batch_size=8, log_period=2, checkpoint_period=5),
    )
    with pytest.raises(ConfigError, match="keep_best without a run"):
        train(None, Selection([agreement], keep_best=1))
    odd = Statistic("odd", lambda algorithm, batch: batch.reward, True)
    with pytest.raises(ConfigError, match=r"Statistic odd: the shape \[2\]; expected a 0-d tensor"):
        train(None, Selection([odd]))
    number = Statistic("number", lambda algorithm, batch: 1.0, True)
    with pytest.raises(ConfigError, match=r"Statistic number: a float; expected a 0-d tensor"):
        train(None, Selection([number]))
    with pytest.raises(OfflineRLError, match="bc learns no values"):
        train(None, Selection([td_error]), algorithm=BC(SPEC))
    loss = Statistic("loss", lambda algorithm, batch: batch.reward.mean(), True)
    with pytest.raises(ConfigError, match="a statistic loss, as the loss has a metric"):
        train(None, Selection([loss]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statistics": []}, "one or more"),
        ({"statistics": ["td_error"]}, "one or more of offrl.training.Statistic"),
        ({"statistics": [agreement, agreement]}, "different names"),
        ({"statistics": [agreement], "keep_best": 0}, "1 or more"),
        ({"statistics": [agreement], "patience": 1.5}, "1 or more"),
    ],
)
def test_settings_outside_what_is_allowed(settings, message):
    with pytest.raises(ConfigError, match=message):
        Selection(**settings)


def test_a_statistic_has_a_name_for_its_column():
    with pytest.raises(ConfigError, match=r"Statistic.name: 'a, b'; expected a word"):
        Statistic("a, b", lambda algorithm, batch: batch.reward.mean(), True)

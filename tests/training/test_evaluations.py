import csv
import json
import signal
import threading
import time

import pytest
import torch
from toy_replay import ToyReplay

from offrl.algorithms import BC, DiscreteBCQ
from offrl.errors import ConfigError, RunError
from offrl.runs import checkpoints, load_policy
from offrl.runs.checkpoint import step_of
from offrl.training import FitConfig, LearnerConfig, fit
from offrl.training import _evaluations as evaluations

CONFIG = FitConfig(updates=24, batch_size=8, log_period=5, checkpoint_period=10)
LEARNER = LearnerConfig(precision="fp32", compile="off")


class Scorer:
    """Gives the scores that a test says, in order, and keeps the weights that it was asked about."""

    def __init__(self, *scores, interrupt_at=None):
        self.scores, self.seen, self.interrupt_at = list(scores), [], interrupt_at

    def __call__(self, algorithm):
        if len(self.seen) + 1 == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        assert not algorithm.training
        self.seen.append(next(algorithm.parameters()).detach().clone())
        return {"score": self.scores[len(self.seen) - 1], "length": 7.0}

    def settings(self):
        return {"environment": "Toy-v0", "episodes": 3}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=[False, True], ids=["training waits", "in the background"])
def in_background(request, monkeypatch):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1000 if request.param else 1)
    return request.param


def test_scores_are_kept_in_their_own_file_and_the_best_checkpoint_is_named(toy_replay, tmp_path, in_background):
    scorer = Scorer(1.0, 3.0, 3.0)
    run = tmp_path / "run"
    learner = fit(
        BC(toy_replay.spec),
        toy_replay,
        CONFIG,
        learner=LEARNER,
        run=run,
        evaluate_every=10,
        evaluator=scorer,
        loggers=[],
    )
    found = [(row["step"], row["score"], row["length"]) for row in rows_of(run / "evaluations.csv")]
    assert found == [("10", "1.0", "7.0"), ("20", "3.0", "7.0"), ("24", "3.0", "7.0")]
    assert [row["step"] for row in rows_of(run / "metrics.csv")] == ["5", "10", "15", "20", "24"]
    assert (run / "checkpoints" / "best").resolve().name == "step-000000020"  # the earliest of the best
    best = load_policy(BC(toy_replay.spec), run / "checkpoints" / "best")
    torch.testing.assert_close(next(best.parameters()), scorer.seen[1])
    torch.testing.assert_close(next(learner.snapshot().parameters()), scorer.seen[2])
    recorded = json.loads((run / "config.json").read_text())["evaluation"]
    assert recorded == {"every": 10, "environment": "Toy-v0", "episodes": 3}


def test_training_is_the_same_with_and_without_an_evaluator(toy_replay, tmp_path, in_background):
    for name, options in (("with", {"evaluate_every": 7, "evaluator": Scorer(*range(9))}), ("without", {})):
        fit(BC(toy_replay.spec), toy_replay, CONFIG, learner=LEARNER, run=tmp_path / name, loggers=[], **options)
    for name in ("metrics.csv", "checkpoints/step-000000024/learner.safetensors"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_a_run_stopped_while_it_is_scored_is_scored_when_it_goes_on(toy_replay, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1)

    def run(name, scorer, resume=False):
        fit(
            BC(toy_replay.spec),
            toy_replay,
            CONFIG,
            learner=LEARNER,
            run=tmp_path / name,
            resume=resume,
            evaluate_every=10,
            evaluator=scorer,
            loggers=[],
        )

    whole, rest = Scorer(1.0, 3.0, 2.0), Scorer(3.0, 2.0)
    run("whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run("broken", Scorer(1.0, 3.0, interrupt_at=2))
    assert [row["step"] for row in rows_of(tmp_path / "broken" / "evaluations.csv")] == ["10"]
    run("broken", rest, resume=True)
    assert [torch.equal(a, b) for a, b in zip(whole.seen[1:], rest.seen, strict=True)] == [True, True]
    for name in ("evaluations.csv", "metrics.csv", "checkpoints/best/policy.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_evaluations_that_take_longer_than_their_period_do_not_pile_up(toy_replay, monkeypatch):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1000)
    begun, ended, unfinished = [], [], []

    def evaluator(algorithm):
        begun.append(algorithm)
        time.sleep(0.05)
        ended.append(algorithm)
        return {"score": 1.0}

    start = evaluations.Evaluations.start

    def counted(self, step, algorithm):
        start(self, step, algorithm)
        unfinished.append(len(unfinished) + 1 - len(ended))

    monkeypatch.setattr(evaluations.Evaluations, "start", counted)
    options = {"evaluate_every": 2, "evaluator": evaluator, "loggers": []}
    fit(BC(toy_replay.spec), toy_replay, CONFIG, learner=LEARNER, **options)
    assert len(begun) == 12
    assert max(unfinished) <= 2


def test_an_evaluator_that_fails_in_the_background_loses_nothing_that_was_learned(toy_replay, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1000)
    goes_on = threading.Event()

    def evaluator(_):
        goes_on.wait(60)
        raise ValueError("no track")

    class Logger:
        def log(self, step, metrics, timings):
            if step == 15:
                goes_on.set()

        def close(self): ...

    config = FitConfig(updates=10**6, batch_size=8, log_period=5, checkpoint_period=10**6)
    options = {"evaluate_every": 10, "evaluator": evaluator, "loggers": [Logger()]}
    with pytest.raises(ValueError, match="no track"):
        fit(BC(toy_replay.spec), toy_replay, config, learner=LEARNER, run=tmp_path / "run", **options)
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert step_of(newest) >= 15
    assert (newest / "learner.safetensors").exists()


def test_an_evaluation_that_nobody_needs_any_more_is_stopped(toy_replay, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1000)

    class Endless:
        stopped = threading.Event()

        def __call__(self, algorithm):
            signal.raise_signal(signal.SIGTERM)  # of the process: it is the main thread that answers
            self.stopped.wait(60)
            return {"score": 1.0}

        def stop(self):
            self.stopped.set()

    evaluator = Endless()
    with pytest.raises(KeyboardInterrupt):
        fit(
            BC(toy_replay.spec),
            toy_replay,
            FitConfig(updates=10**6, batch_size=8, log_period=5, checkpoint_period=10**6),
            learner=LEARNER,
            run=tmp_path / "run",
            evaluate_every=10,
            evaluator=evaluator,
            loggers=[],
        )
    assert evaluator.stopped.is_set()


def test_a_logger_is_given_the_scores_if_it_has_a_place_for_them(toy_replay):
    class Plain:
        def log(self, step, metrics, timings): ...
        def close(self): ...

    found = []

    class Scores(Plain):
        def log_evaluation(self, step, scores):
            found.append((step, scores["score"]))

    fit(
        BC(toy_replay.spec),
        toy_replay,
        CONFIG,
        evaluate_every=12,
        evaluator=Scorer(5.0, 6.0),
        loggers=[Plain(), Scores()],
    )
    assert found == [(12, 5.0), (24, 6.0)]


def test_a_run_goes_on_where_the_first_laps_are_finished_and_where_none_is_any_more(toy_replay, tmp_path):
    found = iter([{"score": 1.0}, {"score": 3.0, "finished_share": 0.5}, {"score": 2.0}])
    run = tmp_path / "run"
    options = {"evaluate_every": 10, "evaluator": lambda _: next(found), "run": run, "loggers": []}
    fit(BC(toy_replay.spec), toy_replay, CONFIG, learner=LEARNER, **options)
    expected = "step,score,finished_share\n10,1.0,nan\n20,3.0,0.5\n24,2.0,nan\n"
    assert (run / "evaluations.csv").read_text() == expected
    assert (run / "checkpoints" / "best").resolve().name == "step-000000020"


@pytest.mark.parametrize("answer", [None, {}, {"score": float("nan")}, 3.0])
def test_an_evaluator_that_returns_no_score_is_named(toy_replay, answer):
    with pytest.raises(ConfigError, match=r"evaluator: .* expected \{\"score\": a finite number"):
        fit(BC(toy_replay.spec), toy_replay, CONFIG, evaluate_every=10, evaluator=lambda _: answer, loggers=[])


@pytest.mark.parametrize("every", [0, "1 hour", "0epochs", 1.5])
def test_a_period_is_updates_or_epochs(toy_replay, every):
    with pytest.raises(ConfigError, match='updates, 1 or more, or epochs such as "1epoch"'):
        fit(BC(toy_replay.spec), toy_replay, CONFIG, evaluate_every=every, evaluator=Scorer(1.0), loggers=[])


def test_a_period_without_an_evaluator_is_refused(toy_replay):
    with pytest.raises(ConfigError, match="both or neither"):
        fit(BC(toy_replay.spec), toy_replay, CONFIG, evaluate_every=10, loggers=[])


def test_three_epochs_give_three_rows_scores_and_checkpoints(toy_replay, tmp_path):
    """An epoch of n transitions in batches of 8 is ceil(n / 8) updates."""
    epoch = -(-len(toy_replay) // 8)
    config = FitConfig(epochs=3, batch_size=8, log_period="1epoch", checkpoint_period="1 epoch")
    run = tmp_path / "run"
    fit(
        BC(toy_replay.spec),
        toy_replay,
        config,
        run=run,
        evaluate_every="1epoch",
        evaluator=Scorer(1.0, 2.0, 3.0),
        loggers=[],
    )
    expected = [epoch, 2 * epoch, 3 * epoch]
    for name in ("metrics.csv", "evaluations.csv"):
        assert [int(row["step"]) for row in rows_of(run / name)] == expected
    assert [path.name for path in checkpoints(run / "checkpoints")][1:] == [f"step-{step:09d}" for step in expected]


@pytest.mark.parametrize("log_period", ["1epoch", 5])
def test_a_run_of_one_epoch_made_longer_equals_one_of_two(toy_replay, tmp_path, log_period):
    def run(name, epochs, resume=False):
        config = FitConfig(epochs=epochs, batch_size=8, log_period=log_period, checkpoint_period="1epoch")
        bcq = DiscreteBCQ(toy_replay.spec)
        fit(bcq, toy_replay, config, learner=LEARNER, run=tmp_path / name, resume=resume, loggers=[])

    run("whole", 2)
    run("grown", 1)
    run("grown", 2, resume=True)
    last = checkpoints(tmp_path / "whole" / "checkpoints")[-1].name
    for name in ("metrics.csv", "config.json", f"checkpoints/{last}/learner.safetensors"):
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("last", [9.0, 0.0])
@pytest.mark.parametrize("first_length", [14, 8])  # updates: with one score at a period before the last, and with none
def test_a_run_made_longer_has_the_scores_of_one_that_was_as_long_from_the_start(
    toy_replay, tmp_path, monkeypatch, first_length, last
):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1)

    def run(name, updates, scores, resume=False):
        config = FitConfig(updates=updates, batch_size=8, log_period=5, checkpoint_period=10)
        options = {"learner": LEARNER, "run": tmp_path / name, "resume": resume, "loggers": []}
        fit(BC(toy_replay.spec), toy_replay, config, evaluate_every=10, evaluator=Scorer(*scores), **options)

    run("whole", 24, [1.0, 3.0, 2.0])
    before = [1.0] if first_length > 10 else []
    run("grown", first_length, [*before, last])  # the last one is none of the longer run's
    run("grown", 24, [1.0, 3.0, 2.0][len(before) :], resume=True)
    for name in ("evaluations.csv", "metrics.csv", "config.json", "checkpoints/best/policy.safetensors"):
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_best_checkpoint_of_a_run_made_longer_is_one_that_it_scores(toy_replay, tmp_path):
    def run(updates, evaluator, resume=False):
        config = FitConfig(updates=updates, batch_size=8, log_period=5, checkpoint_period=10)
        options = {"learner": LEARNER, "run": tmp_path, "resume": resume, "loggers": []}
        fit(BC(toy_replay.spec), toy_replay, config, evaluate_every=10, evaluator=evaluator, **options)

    def is_stopped(_):
        seen.append((tmp_path / "checkpoints" / "best").is_symlink())
        raise KeyboardInterrupt

    seen = []
    run(8, lambda _: {"score": 5.0})
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step-000000008"
    with pytest.raises(KeyboardInterrupt):
        run(24, is_stopped, resume=True)
    assert seen == [False]


def test_a_run_resumed_without_its_evaluator_is_refused(toy_replay, tmp_path):
    options = {"learner": LEARNER, "run": tmp_path / "run", "loggers": []}
    fit(BC(toy_replay.spec), toy_replay, CONFIG, evaluate_every=10, evaluator=Scorer(1.0, 2.0, 3.0), **options)
    with pytest.raises(RunError, match=r"evaluation\.\w+ is None"):
        fit(BC(toy_replay.spec), toy_replay, CONFIG, resume=True, **options)


def test_what_is_in_the_background_runs_in_a_thread_of_its_own(toy_replay, monkeypatch):
    monkeypatch.setattr(evaluations, "num_cores", lambda: 1000)
    threads = []

    def score(_):
        threads.append(threading.current_thread() is threading.main_thread())
        return {"score": 1.0}

    fit(BC(toy_replay.spec), toy_replay, CONFIG, evaluate_every=24, evaluator=score, loggers=[])
    assert threads == [False]


class HoldsOut(ToyReplay):
    """Keeps 200 transitions of another seed from training."""

    def held_out(self):
        return ToyReplay(self.spec, seed=1)


def test_the_loss_of_held_out_episodes_stands_beside_the_training_loss(toy_replay, tmp_path):
    replay = HoldsOut(toy_replay.spec)
    bc = BC(replay.spec)
    learner = fit(bc, replay, CONFIG, learner=LEARNER, run=tmp_path / "run", loggers=[])
    last = rows_of(tmp_path / "run" / "metrics.csv")[-1]
    # The mean over the first 512 held-out transitions, in batches of 8, with the weights after the last update.
    held_out = replay.held_out()
    losses = [bc.loss(held_out.gather(held_out.indices(step, 8)))[0] for step in range(64)]
    assert float(last["held_out_loss"]) == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert learner.algorithm.training  # as before the measurement


def test_batches_that_do_not_divide_512_are_taken_whole(toy_replay, tmp_path):
    replay, bc = HoldsOut(toy_replay.spec), BC(toy_replay.spec)
    config = FitConfig(updates=1, batch_size=300, log_period=1)
    fit(bc, replay, config, learner=LEARNER, run=tmp_path / "run", loggers=[])
    held_out = replay.held_out()
    losses = [bc.loss(held_out.gather(held_out.indices(step, 300)))[0] for step in range(2)]
    (row,) = rows_of(tmp_path / "run" / "metrics.csv")
    assert float(row["held_out_loss"]) == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_measuring_held_out_losses_does_not_change_training(toy_replay, tmp_path):
    for name, replay in (("with", HoldsOut(toy_replay.spec)), ("without", toy_replay)):
        fit(DiscreteBCQ(replay.spec), replay, CONFIG, learner=LEARNER, run=tmp_path / name, loggers=[])
    found = [tmp_path / name / "checkpoints/step-000000024/learner.safetensors" for name in ("with", "without")]
    assert found[0].read_bytes() == found[1].read_bytes()

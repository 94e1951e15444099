import csv
import errno
import json
import os
import shutil
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_replay import ToyReplay

from offrl import Batch, TaskSpec
from offrl.algorithms import BC, Algorithm, DiscreteBCQ, DiscreteBCQConfig, PolicyOutput
from offrl.batch import FrameBatch
from offrl.errors import ConfigError, InUseError, RunError, SpecMismatchError
from offrl.networks import NatureEncoder
from offrl.runs import checkpoints, latest_checkpoint, load_learner, load_policy
from offrl.runs.directory import working_on
from offrl.system import sealing
from offrl.system.devices import resolve_device
from offrl.system.signals import Interrupted
from offrl.training import FitConfig, Learner, LearnerConfig, fit
from offrl.training._feed import plan_updates

CONFIG = FitConfig(updates=24, batch_size=8, log_period=5, checkpoint_period=10)


class Recorder:
    """A Logger of a user's own; sends this process a ctrl-C when it sees `interrupt_at`."""

    def __init__(self, interrupt_at=None):
        self.rows, self.interrupt_at, self.closed = [], interrupt_at, False

    def log(self, step, metrics, timings):
        self.rows.append((step, dict(metrics)))
        if step == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)

    def close(self):
        self.closed = True


def train(replay, run, *, interrupt_at=None, algorithm=None, config=CONFIG, **options):
    algorithm = DiscreteBCQ(replay.spec) if algorithm is None else algorithm
    learner = LearnerConfig(schedule="cosine", average_decay=0.9, precision=options.pop("precision", "fp32"))
    return fit(algorithm, replay, config, learner=learner, run=run, loggers=[Recorder(interrupt_at)], **options)


def files_of(run):
    last = latest_checkpoint(run / "checkpoints")
    names = [last / "learner.safetensors", last / "policy.safetensors", last / "state.json"]
    return [path.read_bytes() for path in [*names, run / "metrics.csv", run / "config.json"]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_and_resumed_twice_equals_one_never_stopped(toy_replay, tmp_path, precision):
    train(toy_replay, tmp_path / "whole", precision=precision)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(toy_replay, broken, interrupt_at=5, precision=precision)
    with pytest.raises(KeyboardInterrupt):
        train(toy_replay, broken, interrupt_at=15, resume=True, precision=precision)
    learner = train(toy_replay, broken, resume=True, precision=precision)
    assert learner.step == 24
    assert files_of(broken) == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("optimizer", "optimizer_settings", "precision"),
    [("Adam", {}, "fp32"), ("Adam", {}, "bf16"), ("SGD", {"momentum": 0.9}, "fp32"), ("RMSprop", {}, "fp32")],
)
def test_a_resumed_run_is_exact_with_convolutions_too(tmp_path, optimizer, optimizer_settings, precision):
    # Their weights lie in channels_last order, and a fused optimiser's moments must too.
    spec = TaskSpec.pixels((4, 36, 36), ("left", "right", "stay"))
    replay = ToyReplay(spec)
    config = FitConfig(updates=6, batch_size=4, log_period=2)
    settings = LearnerConfig(optimizer=optimizer, optimizer_settings=optimizer_settings, precision=precision)

    def run(name, interrupt_at=None, resume=False):
        bcq = DiscreteBCQ(spec, encoder=NatureEncoder)
        fit(bcq, replay, config, learner=settings, run=tmp_path / name, loggers=[Recorder(interrupt_at)], resume=resume)

    run("whole")
    for stop in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            run("broken", interrupt_at=stop, resume=stop > 2)
    run("broken", resume=True)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_a_run_killed_before_its_first_period_can_be_resumed(toy_replay, tmp_path):
    class Killed(ToyReplay):
        def gather(self, indices):
            if self.left == 0:
                raise RuntimeError("the machine is gone")
            self.left -= 1
            return super().gather(indices)

    killed = Killed(toy_replay.spec)
    killed.left = 4
    with pytest.raises(RuntimeError, match="the machine is gone"):
        train(killed, tmp_path / "run")
    train(toy_replay, tmp_path / "run", resume=True)
    train(toy_replay, tmp_path / "whole")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def test_a_run_whose_losses_are_no_numbers_stops_and_keeps_what_was_checked(toy_replay, tmp_path):
    class Poisoned(ToyReplay):
        def gather(self, indices):
            batch = super().gather(indices)
            return Batch(**{**vars(batch), "reward": batch.reward * float("nan")})

    config = FitConfig(updates=24, batch_size=8, log_period=24, checkpoint_period=10)
    with pytest.raises(RunError, match="the loss or a gradient is infinite or NaN in 10 of the 10 updates before 10"):
        train(Poisoned(toy_replay.spec), tmp_path / "run", config=config)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000000000"]


@pytest.mark.parametrize(("checkpoint_period", "found_by"), [(1, "the weights after update 1"), (5, "the loss or a")])
def test_weights_that_an_update_ruined_are_never_saved(toy_replay, tmp_path, checkpoint_period, found_by):
    """The first update's loss is finite and its step is 1e19 long: only a loss after it tells."""
    learner = LearnerConfig(precision="fp32", optimizer="SGD", learning_rate=1e19)
    config = FitConfig(updates=10, batch_size=8, log_period=10, checkpoint_period=checkpoint_period)
    with pytest.raises(RunError, match=found_by):
        fit(BC(toy_replay.spec), toy_replay, config, learner=learner, run=tmp_path / "run", loggers=[], device="cpu")
    (first,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert first.name == "step-000000000"


@pytest.mark.parametrize("most", [1, 4, 10])
@pytest.mark.parametrize("start", [0, 3, 20])
def test_groups_of_updates_end_where_the_run_logs_or_saves(start, most):
    groups = list(plan_updates(start, 33, [10, 8], most))
    assert [step for group in groups for step in group] == list(range(start, 33))
    for group in groups:
        assert 1 <= len(group) <= most
        assert not any(step % period == 0 for step in group[1:] for period in (10, 8))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_end_a_process_save_it_as_ctrl_c_does(toy_replay, tmp_path, number):
    class Ended(Recorder):
        def log(self, step, metrics, timings):
            if step == 5:
                signal.raise_signal(number)

    run = tmp_path / "run"
    with pytest.raises(Interrupted) as caught:
        fit(
            DiscreteBCQ(toy_replay.spec),
            toy_replay,
            CONFIG,
            learner=LearnerConfig(schedule="cosine", average_decay=0.9, precision="fp32"),
            run=run,
            loggers=[Ended()],
        )
    assert caught.value.exit_code == 128 + number
    assert latest_checkpoint(run / "checkpoints").name == "step-000000005"
    train(toy_replay, run, resume=True)
    train(toy_replay, tmp_path / "whole")
    assert files_of(run) == files_of(tmp_path / "whole")


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["learner.safetensors", "policy.safetensors", "state.json", "seal.json"])
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(toy_replay, tmp_path, name):
    for run in ("whole", "damaged"):
        train(toy_replay, tmp_path / run)
    run = tmp_path / "damaged"
    damage(latest_checkpoint(run / "checkpoints") / name)
    with pytest.warns(UserWarning, match=r"step-000000024.*damaged.*goes on from update 20"):
        train(toy_replay, run, resume=True)
    assert files_of(run) == files_of(tmp_path / "whole")


def test_going_back_keeps_every_policy(toy_replay, tmp_path):
    run = tmp_path / "run"
    config = replace(CONFIG, checkpoint_period=5)
    train(toy_replay, run, config=config)
    kept = checkpoints(run / "checkpoints")
    assert [(path / "learner.safetensors").exists() for path in kept] == [False] * 4 + [True] * 2
    for path in kept[-2:]:
        damage(path / "learner.safetensors")
    with pytest.warns(UserWarning, match="goes on from update 0"):
        train(toy_replay, run, config=config, resume=True)
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {*(path.name for path in kept), "step-000000020.damaged", "step-000000024.damaged"}
    train(toy_replay, tmp_path / "whole", config=config)
    assert files_of(run) == files_of(tmp_path / "whole")


def test_a_state_that_a_kill_left_behind_is_dropped_on_resuming(toy_replay, tmp_path):
    run = tmp_path / "run"
    train(toy_replay, run)
    first, *_, last = checkpoints(run / "checkpoints")
    shutil.copy(last / "learner.safetensors", first / "learner.safetensors")
    train(toy_replay, run, resume=True)
    kept = [path.name for path in checkpoints(run / "checkpoints") if (path / "learner.safetensors").exists()]
    assert kept == ["step-000000020", "step-000000024"]


def test_a_run_of_policies_alone_is_not_begun_again(toy_replay, tmp_path):
    run = tmp_path / "run"
    train(toy_replay, run)
    for path in checkpoints(run / "checkpoints"):
        (path / "learner.safetensors").unlink(missing_ok=True)
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match="its checkpoints keep their policy only; .*--init"):
        train(toy_replay, run, resume=True)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("what", ["no checkpoint", "only damaged ones", "half of one"])
def test_a_run_without_a_whole_checkpoint_begins_again(toy_replay, tmp_path, what):
    train(toy_replay, tmp_path / "whole")
    run = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(toy_replay, run, interrupt_at=5)
    kept = checkpoints(run / "checkpoints")
    assert [path.name for path in kept] == ["step-000000000", "step-000000005"]
    if what == "only damaged ones":
        for path in kept:
            damage(path / "policy.safetensors")
    else:
        shutil.rmtree(run / "checkpoints")
    if what == "half of one":
        (run / "checkpoints" / ".step-000000000.0123456789ab.partial").mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"goes on from update 0|begins again"):
        train(toy_replay, run, resume=True)
    assert files_of(run) == files_of(tmp_path / "whole")
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_run_that_begins_again_takes_its_first_weights_from_where_it_did(toy_replay, tmp_path):
    train(toy_replay, tmp_path / "first")
    init = latest_checkpoint(tmp_path / "first" / "checkpoints")
    train(toy_replay, tmp_path / "whole", init=init)
    with pytest.raises(KeyboardInterrupt):
        train(toy_replay, tmp_path / "broken", init=init, interrupt_at=5)
    shutil.rmtree(tmp_path / "broken" / "checkpoints")
    with pytest.warns(UserWarning, match="begins again"):
        train(toy_replay, tmp_path / "broken", resume=True)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_a_checkpoint_under_the_name_of_another_step_is_refused(toy_replay, tmp_path):
    train(toy_replay, tmp_path / "run")
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    moved = last.rename(last.with_name("step-000000099"))
    with pytest.raises(RunError, match=r"damaged \(state.json is of step 24\)"):
        load_learner(Learner(DiscreteBCQ(toy_replay.spec), total_updates=24), moved)


def test_metrics_that_lost_a_row_are_refused(toy_replay, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(toy_replay, run, interrupt_at=15)
    header, *rows = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join([header, *rows[1:]]))
    with pytest.raises(RunError, match=r"metrics.csv: was changed since the checkpoint was made"):
        train(toy_replay, run, resume=True)


def test_a_full_disk_ends_a_run_in_one_line_and_leaves_it_to_be_resumed(toy_replay, tmp_path, monkeypatch):
    run = tmp_path / "run"
    written = sealing.write_sealed

    def write(directory, contents, **about):
        if about["step"] == 20:
            (directory / "state.json").write_bytes(b"{")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(directory, contents, **about)

    monkeypatch.setattr("offrl.runs.checkpoint.write_sealed", write)
    with pytest.raises(RunError, match=r"step-000000020: cannot be written \(No space left on device\)"):
        train(toy_replay, run)
    monkeypatch.undo()
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []
    train(toy_replay, run, resume=True)
    train(toy_replay, tmp_path / "whole")
    assert files_of(run) == files_of(tmp_path / "whole")


def test_two_processes_do_not_train_one_run(toy_replay, tmp_path):
    with working_on(tmp_path / "run", resume=False):
        for resume in (False, True):
            with pytest.raises(InUseError, match="run: is in use by process"):
                train(toy_replay, tmp_path / "run", resume=resume)


def test_a_killed_run_goes_on_from_its_last_checkpoint(toy_replay, tmp_path):
    train(toy_replay, tmp_path / "whole")

    class Killed(Recorder):
        def log(self, step, metrics, timings):
            if step == 20:
                raise RuntimeError("the machine is gone")

    run = tmp_path / "killed"
    with pytest.raises(RuntimeError, match="the machine is gone"):
        fit(
            DiscreteBCQ(toy_replay.spec),
            toy_replay,
            CONFIG,
            learner=LearnerConfig(schedule="cosine", average_decay=0.9, precision="fp32"),
            run=run,
            loggers=[Killed()],
        )
    assert latest_checkpoint(run / "checkpoints").name == "step-000000010"
    train(toy_replay, run, resume=True)
    assert files_of(run) == files_of(tmp_path / "whole")


class Watched(ToyReplay):
    """Keeps what was gathered, and whether the main thread did it."""

    def __init__(self, spec):
        super().__init__(spec)
        self.gathered = []

    def gather(self, indices):
        self.gathered.append((threading.current_thread() is threading.main_thread(), np.asarray(indices).tolist()))
        return super().gather(indices)


def test_a_replay_that_cannot_prefetch_is_gathered_by_a_thread(toy_replay):
    replay = Watched(toy_replay.spec)
    fit(DiscreteBCQ(replay.spec), replay, FitConfig(updates=4, batch_size=8), loggers=[], device="cpu")
    assert replay.gathered[0] == (True, replay.indices(0, 2).tolist())  # on which the algorithm is tried
    assert replay.gathered[1:] == [(False, replay.indices(step, 8).tolist()) for step in range(4)]


def test_what_a_replay_is_asked_to_prefetch_is_gathered_two_updates_later(toy_replay):
    class Prefetching(Watched):
        gather_ahead = False

        def prefetch(self, indices):
            self.gathered.append(("asked", indices.tolist()))

    replay = Prefetching(toy_replay.spec)
    fit(DiscreteBCQ(replay.spec), replay, FitConfig(updates=4, batch_size=8), loggers=[], device="cpu")
    asked, gathered = ([(kind, replay.indices(step, 8).tolist()) for step in range(4)] for kind in ("asked", True))
    assert replay.gathered[1:] == [*asked[:3], gathered[0], asked[3], *gathered[1:]]


def test_batches_come_from_the_replay_that_was_placed_on_the_device(toy_replay):
    class Elsewhere(ToyReplay):
        def to(self, device):
            return Placed(self.spec)

        def gather(self, indices):
            raise AssertionError("its frames lie elsewhere by now")

    class Placed(ToyReplay):
        def gather(self, indices):
            batch = super().gather(indices)
            rows = torch.arange(len(batch))[:, None]
            rest = {name: getattr(batch, name) for name in ("action", "reward", "discount")}
            return FrameBatch(torch.cat([batch.observation, batch.next_observation]), rows, rows + len(batch), **rest)

    config, learner = FitConfig(updates=2, batch_size=8), LearnerConfig(precision="fp32")
    here, placed = (
        fit(DiscreteBCQ(toy_replay.spec, seed=1), replay, config, learner=learner, loggers=[], device="cpu")
        .snapshot()
        .state_dict()
        for replay in (ToyReplay(toy_replay.spec), Elsewhere(toy_replay.spec))
    )
    assert all(torch.equal(tensor, placed[name]) for name, tensor in here.items())


def test_a_replay_that_is_none_is_refused_in_a_line(toy_replay):
    with pytest.raises(ConfigError, match=r"replay: list is no replay; expected a subclass of offrl.ReplaySource"):
        fit(DiscreteBCQ(toy_replay.spec), [1, 2], FitConfig(updates=1))


def test_a_run_directory_holds_what_the_design_says(toy_replay, tmp_path):
    run = tmp_path / "run"
    train(toy_replay, run)
    config = json.loads((run / "config.json").read_text())
    assert config["algorithm"] == "bcq"
    assert config["encoder"] == "offrl.networks.encoders:MLPEncoder"
    assert config["algorithm_config"]["threshold"] == 0.3
    assert config["settled"] == {"precision": "fp32", "compile": "off", "threads": torch.get_num_threads()}
    assert torch.__version__.startswith(json.loads((run / "environment.json").read_text())["versions"]["torch"])
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [5, 10, 15, 20, 24]
    assert {"loss", "td_loss", "imitation_loss", "q", "learning_rate"} <= rows[0].keys()
    assert [path.name for path in checkpoints(run / "checkpoints")] == [
        "step-000000000",
        "step-000000010",
        "step-000000020",
        "step-000000024",
    ]
    # Old checkpoints keep their policy, the last two also what resuming needs.
    assert not (run / "checkpoints" / "step-000000010" / "learner.safetensors").exists()
    assert (run / "checkpoints" / "step-000000010" / "policy.safetensors").exists()
    assert (run / "checkpoints" / "step-000000020" / "learner.safetensors").exists()


def test_a_checkpoints_policy_is_the_snapshot(toy_replay, tmp_path):
    learner = train(toy_replay, tmp_path / "run")
    loaded = load_policy(DiscreteBCQ(toy_replay.spec, seed=99), latest_checkpoint(tmp_path / "run" / "checkpoints"))
    observation = toy_replay.gather([0, 1, 2]).observation
    assert torch.equal(loaded(observation).scores, learner.snapshot()(observation).scores)
    assert not torch.equal(loaded(observation).scores, learner.algorithm(observation).scores)  # weights were averaged


def test_warm_start_takes_weights_and_sets_targets(toy_replay, tmp_path):
    train(toy_replay, tmp_path / "first")
    checkpoint = latest_checkpoint(tmp_path / "first" / "checkpoints")
    algorithm = DiscreteBCQ(toy_replay.spec, seed=5)
    fit(
        algorithm,
        toy_replay,
        FitConfig(updates=1),
        learner=LearnerConfig(learning_rate=1e-12, polyak=1e-12, precision="fp32"),
        init=checkpoint,
        loggers=[],
    )
    warm = load_policy(DiscreteBCQ(toy_replay.spec), checkpoint)
    torch.testing.assert_close(algorithm.encoder.state_dict(), warm.encoder.state_dict())
    torch.testing.assert_close(algorithm.target_encoder.state_dict(), warm.encoder.state_dict())


def test_first_weights_may_be_named_by_their_run_and_are_of_the_same_task_in_the_same_units(toy_replay, tmp_path):
    run, one = tmp_path / "first", FitConfig(updates=1, batch_size=8)
    learner = train(toy_replay, run)
    (begun := DiscreteBCQ(toy_replay.spec, seed=5)).requires_grad_(True)
    tiny = LearnerConfig(learning_rate=1e-12, precision="fp32")
    fit(begun, toy_replay, one, learner=tiny, init=run, loggers=[])
    torch.testing.assert_close(begun.encoder.state_dict(), learner.snapshot().encoder.state_dict())
    config = json.loads((run / "config.json").read_text())
    plain = {name: value for name, value in config.items() if name not in ("sealed", "content_sha256")}
    (run / "config.json").write_text(json.dumps({**plain, "replay": {"discount": 0.5, "reward_scale": 0.1}}))
    toy_replay.settings = lambda: {"discount": 0.99, "reward_scale": 0.1}
    with pytest.warns(UserWarning, match="of a run with discount=0.5, and this one has discount=0.99: their values"):
        fit(DiscreteBCQ(toy_replay.spec), toy_replay, one, init=str(run), loggers=[])
    (run / "config.json").write_text(json.dumps({**plain, "spec": {**plain["spec"], "scale": 2.0}}))
    with pytest.raises(SpecMismatchError, match="scale is 2.0; expected .*; take the first weights from .* --like"):
        fit(DiscreteBCQ(toy_replay.spec), toy_replay, one, init=run, loggers=[])


def test_ctrl_c_leaves_a_checkpoint_at_the_update_it_came_in(toy_replay, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(toy_replay, tmp_path / "run", interrupt_at=5)
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").name == "step-000000005"


def test_one_epoch_is_written_in_one_way():
    assert [repr(FitConfig(epochs=epochs).epochs) for epochs in (1, 1.0, 0.5)] == ["1", "1", "0.5"]


def test_epochs_are_passes_worth_of_updates(toy_replay):
    assert FitConfig(epochs=2, batch_size=64).total_updates(len(toy_replay)) == 8
    recorder = Recorder()
    fit(DiscreteBCQ(toy_replay.spec), toy_replay, FitConfig(epochs=0.5, batch_size=50), loggers=[recorder])
    assert [step for step, _ in recorder.rows] == [2]
    assert recorder.closed


def test_the_same_seed_gives_the_same_weights(toy_replay):
    def weights(seed):
        learner = fit(
            DiscreteBCQ(toy_replay.spec, seed=seed),
            toy_replay,
            FitConfig(updates=5),
            learner=LearnerConfig(precision="fp32"),
            loggers=[],
        )
        return learner.algorithm.q_head.output.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_refuses_a_directory_that_is_taken(toy_replay, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="run: exists already; expected a new name"):
        train(toy_replay, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_refuses_to_resume_with_other_settings(toy_replay, tmp_path):
    train(toy_replay, tmp_path / "run")
    other = DiscreteBCQ(toy_replay.spec, DiscreteBCQConfig(threshold=0.5))
    with pytest.raises(RunError, match="algorithm_config.threshold is 0.5; expected 0.3, as the run began with"):
        train(toy_replay, tmp_path / "run", algorithm=other, resume=True)


def test_refuses_to_resume_what_is_no_run(toy_replay, tmp_path):
    with pytest.raises(RunError, match="no config.json here"):
        train(toy_replay, tmp_path, resume=True)


def test_refuses_data_of_another_task(toy_replay):
    other = DiscreteBCQ(TaskSpec.vector(3, ("left", "right", "jump")))
    with pytest.raises(SpecMismatchError, match="replay: action_names is .*stay.*; expected .*jump"):
        fit(other, toy_replay, CONFIG)


def test_refuses_damaged_and_foreign_checkpoints(toy_replay, tmp_path):
    train(toy_replay, tmp_path / "run")
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints")
    wider = DiscreteBCQ(TaskSpec.vector(4, ("left", "right", "stay")))
    with pytest.raises(RunError, match=r"encoder.network.0.weight are \[256, 3\]; expected \[256, 4\]"):
        load_policy(wider, checkpoint)
    path = checkpoint / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="policy.safetensors: damaged"):
        load_policy(DiscreteBCQ(toy_replay.spec), checkpoint)
    path.unlink()
    with pytest.raises(RunError, match="policy.safetensors: no such file"):
        load_policy(DiscreteBCQ(toy_replay.spec), checkpoint)


@pytest.mark.parametrize(
    "settings", [{}, {"updates": 5, "epochs": 1}, {"updates": 0}, {"updates": 5, "batch_size": 0}, {"epochs": -1}]
)
def test_lengths_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match="FitConfig"):
        FitConfig(**settings)


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(ConfigError, match="device: 'cuda:99' cannot be used here"):
        resolve_device("cuda:99")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": 100}, r"fit.config: 100; expected a FitConfig; pass FitConfig\(updates=100\)"),
        ({"replay": "data/mine"}, r"fit.replay: 'data/mine'; .*; pass offrl.open_replay\('data/mine'\)"),
        ({"algorithm": DiscreteBCQ}, "fit.algorithm: the class DiscreteBCQ; expected an offrl.Algorithm; construct it"),
        ({"learner": CONFIG}, "fit.learner: a FitConfig; expected a LearnerConfig"),
        ({"selection": ["loss"]}, "fit.selection: a list; expected a Selection"),
        ({"evaluator": "CartPole-v1", "evaluate_every": 1}, "fit.evaluator: 'CartPole-v1'; expected a function of an"),
        ({"loggers": Recorder()}, r"fit.loggers: .*Recorder.*; expected a list of loggers; pass \[logger\]"),
        ({"loggers": iter([Recorder()])}, r"fit.loggers: .*; expected a list of loggers"),  # it would be used up
        ({"loggers": ["console"]}, r"fit.loggers: \['console'\]; expected a list of loggers"),
    ],
)
def test_an_argument_of_another_kind_is_one_line(toy_replay, arguments, message):
    given = {"algorithm": BC(toy_replay.spec), "replay": toy_replay, "config": CONFIG, "loggers": [], **arguments}
    with pytest.raises(ConfigError, match=message):
        fit(**given)


class Nameless(Algorithm):
    def __init__(self, spec, config=None):
        super().__init__(spec, config)
        self.layer = nn.Linear(*spec.observation_shape, spec.num_actions)

    def loss(self, batch):
        return self.layer(batch.observation).square().mean(), {}

    def forward(self, observation):
        scores = self.layer(observation)
        return PolicyOutput(scores, torch.zeros_like(scores))


class Named(Nameless):
    name = "named"


def test_a_run_says_what_it_needs_to_record_an_algorithm(toy_replay, tmp_path):
    one = FitConfig(updates=1, batch_size=8)
    with pytest.raises(ConfigError, match=r"^Nameless: no name; expected a class attribute, such as name = \"mine\""):
        fit(Nameless(toy_replay.spec), toy_replay, one, run=tmp_path / "run", loggers=[])
    with pytest.raises(ConfigError, match=r"^Named.config: a dict; expected a dataclass, whose fields a run records"):
        fit(Named(toy_replay.spec, {"width": 1}), toy_replay, one, run=tmp_path / "run", loggers=[])
    assert not (tmp_path / "run").exists()
    assert fit(Nameless(toy_replay.spec, {"width": 1}), toy_replay, one, loggers=[]).step == 1


def test_numbers_of_numpy_are_settings_as_others_are(toy_replay, tmp_path):
    def run(name, whole, number):
        config = FitConfig(updates=whole(2), batch_size=whole(8), log_period=whole(1))
        learner = LearnerConfig(
            learning_rate=number(0.25), optimizer_settings={"weight_decay": number(0.5)}, precision="fp32"
        )
        bcq = DiscreteBCQ(toy_replay.spec, DiscreteBCQConfig(threshold=number(0.5)))
        options = {"run": tmp_path / name, "evaluate_every": whole(2), "evaluator": lambda _: {"score": 1.0}}
        fit(bcq, toy_replay, config, learner=learner, loggers=[], notes={"tries": whole(3)}, **options)
        return files_of(tmp_path / name)

    assert run("numpy", np.int64, np.float32) == run("plain", int, float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"notes": {"a": object()}}, r"fit.notes.a: cannot be written to config.json \(a object\); expected finite"),
        ({"notes": {"a": [float("nan")]}}, r"fit.notes.a: cannot be written to config.json \(.*\)"),
        (
            {"learner": LearnerConfig(optimizer_settings={"weight_decay": torch.tensor(0.0)})},
            r"fit.learner: cannot be written to config.json \(a Tensor\)",
        ),
    ],
)
def test_what_a_run_cannot_record_is_refused_before_anything_is_measured(
    toy_replay, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr(Learner, "autotune", lambda *_: pytest.fail("measures"))
    with pytest.raises(ConfigError, match=message):
        fit(BC(toy_replay.spec), toy_replay, CONFIG, run=tmp_path / "run", loggers=[], **arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_records_the_seed_of_its_first_weights_and_is_resumed_with_it(toy_replay, tmp_path):
    one = FitConfig(updates=1, batch_size=8)
    path = tmp_path / "run" / "config.json"
    fit(BC(toy_replay.spec, seed=np.int64(3)), toy_replay, one, run=tmp_path / "run", loggers=[])
    config = json.loads(path.read_text())
    assert config["algorithm_seed"] == 3
    with pytest.raises(RunError, match="algorithm_seed is 0; expected 3, as the run began with"):
        fit(BC(toy_replay.spec), toy_replay, one, run=tmp_path / "run", resume=True, loggers=[])

    for name in ("algorithm_seed", "sealed", "content_sha256"):  # as an earlier version wrote it
        config.pop(name, None)
    path.write_text(json.dumps(config))
    fit(BC(toy_replay.spec), toy_replay, one, run=tmp_path / "run", resume=True, loggers=[])

    init = latest_checkpoint(tmp_path / "run" / "checkpoints")
    fit(BC(toy_replay.spec, seed=4), toy_replay, one, run=tmp_path / "warm", init=init, loggers=[])
    assert json.loads((tmp_path / "warm" / "config.json").read_text())["algorithm_seed"] is None


class Mine(BC):
    name = "mine"


def test_a_run_notes_the_class_of_an_algorithm_of_ones_own_and_where_the_data_lies(toy_replay, tmp_path):
    toy_replay.origin = {"data": "/logs"}
    one = FitConfig(updates=1, batch_size=8)
    for kind, notes in ((Mine, {}), (BC, {"data": "/elsewhere"})):
        fit(kind(toy_replay.spec), toy_replay, one, run=tmp_path / kind.name, loggers=[], notes=notes)
    mine, bc = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("mine", "bc"))
    assert (mine["algorithm"], mine["notes"]) == ("mine", {"algorithm": "test_loop:Mine", "data": "/logs"})
    assert bc["notes"] == {"algorithm": "bc", "data": "/elsewhere"}


class Twice(BC):
    """Another loss under the name of BC."""

    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return 2 * loss, metrics


@pytest.mark.parametrize(("begun_with", "resumed_with"), [(Twice, BC), (BC, Twice)])
def test_a_run_is_not_resumed_with_another_class_of_its_algorithms_name(toy_replay, tmp_path, begun_with, resumed_with):
    one = FitConfig(updates=1, batch_size=8)
    fit(begun_with(toy_replay.spec), toy_replay, one, run=tmp_path, loggers=[])
    expected = "test_loop:Twice" if begun_with is Twice else "bc"
    message = rf"the algorithm is of the class {resumed_with.__name__}; expected {expected}, as the run began with"
    with pytest.raises(RunError, match=message):
        fit(resumed_with(toy_replay.spec), toy_replay, one, run=tmp_path, resume=True, loggers=[])
    fit(begun_with(toy_replay.spec), toy_replay, one, run=tmp_path, resume=True, loggers=[])


@pytest.mark.parametrize("kind", [Twice, Mine, BC])
@pytest.mark.parametrize("note", ["what I tried on Monday", "BC: dropout 0.1", "mine", None])
def test_a_run_that_does_not_name_another_class_is_resumed(toy_replay, tmp_path, kind, note):
    one = FitConfig(updates=1, batch_size=8)
    fit(kind(toy_replay.spec), toy_replay, one, run=tmp_path, loggers=[], notes={"algorithm": note})
    assert fit(kind(toy_replay.spec), toy_replay, one, run=tmp_path, resume=True, loggers=[]).step == 1


def test_a_class_may_have_moved_to_another_module(toy_replay, tmp_path):
    one = FitConfig(updates=1, batch_size=8)
    fit(Twice(toy_replay.spec), toy_replay, one, run=tmp_path, loggers=[], notes={"algorithm": "__main__:Twice"})
    assert fit(Twice(toy_replay.spec), toy_replay, one, run=tmp_path, resume=True, loggers=[]).step == 1


def test_a_run_leaves_torch_the_threads_that_it_found(toy_replay, tmp_path):
    torch.set_num_threads(2)
    settings = LearnerConfig(precision="fp32", threads=1)
    seen = []

    class Watch:
        def log(self, step, metrics, timings):
            seen.append(torch.get_num_threads())

        def close(self):
            pass

    config = FitConfig(updates=2, batch_size=4, log_period=1)
    fit(BC(toy_replay.spec), toy_replay, config, learner=settings, run=tmp_path / "run", loggers=[Watch()])
    assert (seen, torch.get_num_threads()) == ([1, 1], 2)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settled"]["threads"] == 1
    # Another number may be taken on resume: it is no setting that the result is compared by.
    more = LearnerConfig(precision="fp32", threads=2)
    longer = replace(config, updates=4)
    fit(BC(toy_replay.spec), toy_replay, longer, learner=more, run=tmp_path / "run", resume=True, loggers=[Watch()])
    assert seen == [1, 1, 2, 2]

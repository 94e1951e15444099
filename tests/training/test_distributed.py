"""Several ranks: two processes that torchrun starts, once for all tests; and what needs no processes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ranks_script
import torch
from ranks_script import EVALUATOR, SPEC, Poisoned, check_sum, train, train_on_mixtures, train_on_pixels
from toy_replay import ToyReplay

from offrl.algorithms import DiscreteBCQ
from offrl.errors import ConfigError, RunError
from offrl.evaluation import Evaluation
from offrl.replay.sampler import Sampler
from offrl.runs import latest_checkpoint
from offrl.system.ranks import Ranks
from offrl.system.signals import StopRequest
from offrl.system.torchrun import describe, launcher, was_begun_by_this_launcher
from offrl.training import FitConfig
from offrl.training._feed import gathered_ahead, plan_updates
from offrl.training._updates import Loop

HELPERS = Path(ranks_script.__file__).parent
COLLECTED = ("collected-on-1", "collected-on-2")
SECONDS = 120  # for what takes ten


def environment(**variables):
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables}


def wait_for(condition, process):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two ranks have made; in the end torchrun was sent a SIGTERM."""
    folder = tmp_path_factory.mktemp("ranks")
    train(ToyReplay(SPEC), folder / "one", evaluate_every=12, evaluator=EVALUATOR)
    with pytest.raises(KeyboardInterrupt):
        train(ranks_script.Interrupting(SPEC), folder / "begun-on-1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun = subprocess.Popen(
        [*command, ranks_script.__file__, str(folder)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for((folder / "stopped" / "metrics.csv").exists, torchrun)
        torchrun.send_signal(signal.SIGTERM)
        torchrun.communicate(timeout=SECONDS)
    finally:
        torchrun.kill()
    return folder


@pytest.fixture
def found(folder):
    return json.loads((folder / "found.json").read_text())


def rows_of(run, name="metrics.csv"):
    with (run / name).open(newline="") as file:
        return [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]


def assert_same_rows(one, other):
    assert [row.keys() for row in one] == [row.keys() for row in other]
    for ours, theirs in zip(one, other, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-5, abs=1e-6)


def test_two_ranks_collect_the_bytes_of_one(folder):
    ranks_script.collect_episodes(folder / "collected-on-1")
    one, two = ({path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in COLLECTED)
    assert len(one) > 4
    assert two == one


def test_the_losses_of_two_ranks_are_those_of_one_process(folder, found):
    assert found["ranks"] == [[0, 2], [1, 2]]
    rows = rows_of(folder / "whole")
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 24]
    assert_same_rows(rows, rows_of(folder / "one"))


def test_weights_targets_and_averages_are_the_same_on_both_ranks(found):
    assert found["weights"][0] == found["weights"][1]
    assert found["pixels"][0] == found["pixels"][1]


def test_augmentation_is_that_of_the_batch_of_all_ranks(found):
    assert found["pixels"][0] == pytest.approx(check_sum(train_on_pixels()), rel=1e-4, abs=1e-3)


def test_mixtures_of_heads_are_those_of_one_process(found):
    assert found["mixtures"][0] == found["mixtures"][1]
    assert found["mixtures"][0] == pytest.approx(check_sum(train_on_mixtures()), rel=1e-4, abs=1e-3)


def test_an_update_that_one_rank_cannot_make_is_left_out_on_both(folder, tmp_path):
    train(Poisoned(SPEC), tmp_path / "one")
    rows = rows_of(folder / "poisoned")
    assert [row["skipped_updates"] for row in rows] == [1, 0, 0, 0, 0]
    assert_same_rows(rows, rows_of(tmp_path / "one"))


def test_a_batch_that_the_ranks_cannot_share_is_refused_in_a_line(folder, found):
    assert found["odd"] == (
        "FitConfig.batch_size: 7 transitions for 2 ranks; "
        "expected a multiple of 2: it is the batch of all ranks together"
    )
    assert not (folder / "odd").exists()


def test_a_run_begun_on_one_process_goes_on_on_two(folder):
    assert_same_rows(rows_of(folder / "begun-on-1"), rows_of(folder / "one"))


def test_a_run_begun_on_two_ranks_goes_on_on_one(folder, found, tmp_path):
    assert found["stopped"] == [143, 143]  # the signal came to the second rank alone
    run = tmp_path / "run"
    shutil.copytree(folder / "begun-on-2", run)
    assert 5 < int(latest_checkpoint(run / "checkpoints").name[-9:]) < 24
    assert json.loads((run / "environment.json").read_text())["ranks"] == 2
    train(ToyReplay(SPEC), run, resume=True)
    assert_same_rows(rows_of(run), rows_of(folder / "one"))


def test_episodes_played_by_two_ranks_score_as_those_of_one_process(folder, found):
    assert found["scores"] == EVALUATOR(DiscreteBCQ(SPEC))
    assert [row["step"] for row in rows_of(folder / "whole", "evaluations.csv")] == [12, 24]
    assert (folder / "whole" / "checkpoints" / "best").exists()


def test_a_signal_to_torchrun_leaves_a_checkpoint(folder):
    last = latest_checkpoint(folder / "stopped" / "checkpoints")
    assert int(last.name[-9:]) >= 5
    assert (last / "learner.safetensors").exists()


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_order_of_samples_does_not_depend_on_the_number_of_ranks(count):
    sampler = Sampler(1000, seed=3)
    gathered = [[] for _ in range(count)]

    def feed(rank):
        replay = SimpleNamespace(
            gather_ahead=False,
            indices=sampler.indices,
            prefetch=lambda indices: None,
            gather=lambda indices: gathered[rank].append(indices),
        )
        plan = plan_updates(0, 6, [4], 1)
        with gathered_ahead(replay, plan, 16, torch.device("cpu"), Ranks(rank, count)) as batches:
            assert [num for _, num in batches] == [1] * 6

    for rank in range(count):
        feed(rank)
    for step in range(6):
        assert np.concatenate([parts[step] for parts in gathered]).tolist() == sampler.indices(step, 16).tolist()


def test_episodes_are_dealt_out_and_put_in_order_again():
    whole = Evaluation(
        (5, 6, 7, 8, 9), (1.0, 2.0, 3.0, 4.0, 5.0), (10, 20, 30, 40, 50), (True, False, False, True, True)
    )
    shares = []
    for rank in range(2):
        columns = [
            Ranks(rank, 2).share(column) for column in (whole.seeds, whole.scores, whole.lengths, whole.finished)
        ]
        shares.append(Evaluation(*columns))
    assert shares[1].seeds == (6, 8)
    assert Evaluation.of_shares(shares) == whole
    with pytest.raises(ConfigError, match="evaluate: 1 episodes for 2 ranks; expected one or more for each rank"):
        Ranks(0, 2).share([5])


def test_the_first_rank_of_a_machine_opens_the_data_before_the_others():
    store = torch.distributed.HashStore()
    order = []
    with Ranks(2, 4, local_rank=0, num_local=2, store=store).first_here("data"):
        order.append("first")
        assert not store.check(["offrl/data/0/0"])  # the others wait
    with Ranks(3, 4, local_rank=1, num_local=2, store=store).first_here("data"):
        order.append("second")
    assert order == ["first", "second"]


def test_an_error_on_every_rank_is_said_once():
    store = torch.distributed.HashStore()
    assert [Ranks(rank, 3, store=store).fails_first() for rank in (1, 0, 2)] == [True, False, False]


def test_a_rank_that_is_gone_is_an_error_of_one_line():
    said = (
        "[/a/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:53429: Connection reset by peer. This is typically"
    )
    one_line = pytest.raises(RunError, match=r"rank 1 of 2 has lost another one \(Read error .* reset by peer\)")
    with one_line, Ranks(1, 2).watched():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="a defect"), Ranks(1, 2).watched():
        raise RuntimeError("a defect")


def test_only_the_torchrun_that_began_a_run_goes_on_with_it_by_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # what torchrun says without --rdzv-id
    about = describe(Ranks(0, 1))
    assert about == {"ranks": 1, "launcher": launcher()}
    assert f" {os.getppid()} " in launcher()
    (tmp_path / "environment.json").write_text(json.dumps(about))
    assert not was_begun_by_this_launcher(tmp_path)  # it has not restarted anything
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert was_begun_by_this_launcher(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert not was_begun_by_this_launcher(tmp_path)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert describe(Ranks()) == {}


ON_TWO_HOSTS = """
import json, os, ranks_script
from offrl.training import FitConfig
learner = ranks_script.train(ranks_script.ToyReplay(ranks_script.SPEC), None, FitConfig(updates=3, batch_size=8))
print(json.dumps(ranks_script.check_sum(learner)))
"""


@pytest.fixture
def two_hosts():
    """Two network namespaces with an interface each, joined by a cable; (command prefix, interface) of each."""
    names = [f"offrl-{os.getpid()}-{number}" for number in range(2)]
    links = [f"veth{os.getpid()}{letter}"[-15:] for letter in "ab"]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", links[0], "netns", names[0], "type", "veth", "peer", "name", links[1], "netns", names[1])
        for number, (name, link) in enumerate(zip(names, links, strict=True)):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", link)
            for each in (link, "lo"):  # the first rank calls itself by its address, too
                ip("-n", name, "link", "set", each, "up")
        yield [(["ip", "netns", "exec", name], link) for name, link in zip(names, links, strict=True)]
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_ranks_on_two_hosts_train_together_over_the_network(two_hosts):
    processes = []
    for rank, (prefix, link) in enumerate(two_hosts):
        group = {"RANK": f"{rank}", "WORLD_SIZE": "2", "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500"}
        command = [*prefix, sys.executable, "-c", ON_TWO_HOSTS]
        variables = environment(**group, GLOO_SOCKET_IFNAME=link)
        processes.append(subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True))
    try:
        said = [json.loads(process.communicate(timeout=SECONDS)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert said[0] == said[1]
    alone = train(ToyReplay(SPEC), None, FitConfig(updates=3, batch_size=8))
    assert said[0] == pytest.approx(check_sum(alone), rel=1e-4, abs=1e-3)


def test_a_signal_that_the_others_have_not_heard_of_waits_for_the_next_update():
    """Else the rank would leave the loop alone, and its messages would meet those of another update."""
    stop = StopRequest()

    def largest(number):
        stop.set(signal.SIGTERM)  # just after this rank said that there was none
        return number

    loop = SimpleNamespace(_ranks=SimpleNamespace(largest=largest))
    assert not Loop._is_stopped(loop, stop)
    assert Loop._is_stopped(loop, stop)

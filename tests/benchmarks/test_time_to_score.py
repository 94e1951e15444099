"""The time to a score: slices until it is reached, and how it is shown."""

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import time_to_score, ways
from benchmarks.alternate import Way
from benchmarks.baseline import PlainBCQ, greedy_policy
from benchmarks.driving import example
from benchmarks.peers.protocol import LIKE_OURS
from benchmarks.stores import ROOT
from benchmarks.time_to_score import Competitor, Traced, race
from benchmarks.train import our_command
from offrl.collection import collect
from offrl.envs import RandomBehaviour, car_racing
from offrl.replay import ingest
from offrl.runs import describe_machine, latest_checkpoint


@pytest.mark.filterwarnings("ignore:`torch.jit")  # what other libraries write their policies as
def test_a_policy_of_the_plain_loop_acts_from_a_file_as_in_memory(tmp_path):
    torch.manual_seed(0)
    agent = PlainBCQ(5)
    greedy_policy(agent.network).save(str(tmp_path / "policy.pt"))
    pixels = np.random.default_rng(0).integers(256, size=(3, 4, 96, 96), dtype=np.uint8)
    with torch.no_grad():
        q, logits = agent.network(torch.from_numpy(pixels).float() / 128 - 1)
    likelihood = logits.softmax(1) / logits.softmax(1).amax(1, keepdim=True)
    expected = [max(range(5), key=lambda a: q[row, a] if likelihood[row, a] > 0.3 else -np.inf) for row in range(3)]
    assert Traced(tmp_path / "policy.pt")(pixels).tolist() == expected


class FakeWay:
    """Ten updates a second."""

    def __init__(self, command, log):
        self.about = {"parameters": 1}
        self.done = 0

    def run(self, updates):
        self.done += updates
        return {"seconds": updates / 10}

    def close(self):
        pass


@pytest.fixture
def scores(monkeypatch):
    found = []

    class Found:
        def __init__(self, value):
            self.mean = self
            self.value = value

    def evaluate(policy, make_env, tracks):
        result = Found(found.pop(0))
        result.mean = Found(None)
        result.mean.mean = result.value
        return result

    monkeypatch.setattr(time_to_score, "Way", FakeWay)
    monkeypatch.setattr(time_to_score.offrl, "evaluate", evaluate)
    return found


def test_ours_ends_at_the_first_slice_that_reaches_the_score(scores, tmp_path):
    scores += [100.0, 849.9, 850.0, 900.0]
    row = race("offrl", Competitor([], lambda: None, 200), 850.0, float("inf"), tmp_path)
    assert row["has_reached"]
    assert row["updates"] == 600
    assert row["seconds"] == pytest.approx(60, abs=1)
    assert [point["score"] for point in row["curve"]] == [100.0, 849.9, 850.0]


def test_a_peer_is_stopped_at_the_limit_and_its_slices_fit_its_rate(scores, tmp_path):
    scores += [0.0] * 10
    row = race("other", Competitor([], lambda: None), 850.0, 120.0, tmp_path)
    assert not row["has_reached"]
    # 10 updates tell the rate; then slices of 40 seconds, the last one beyond the limit.
    assert [point["updates"] for point in row["curve"]] == [410, 810, 1210]
    assert row["seconds"] == pytest.approx(121, abs=1)


def test_a_slice_of_ours_is_answered_when_its_checkpoint_is_there(tmp_path):
    shards, run = tmp_path / "shards", tmp_path / "run"
    collect(partial(car_racing.make, max_episode_steps=40), RandomBehaviour(), shards, transitions=60, workers=1)
    words = our_command("example", store=ingest(shards).path, updates=2, run_length=4, batch_size=4, run=run)
    way = Way(words, tmp_path / "log", threads=1)
    try:
        for step in (2, 4):
            assert way.run(2)["seconds"] > 0
            assert latest_checkpoint(run / "checkpoints").name == f"step-{step:09d}"
    finally:
        way.close()


class StoppedChannel:
    """What hears an answer stops the process for a hundred seconds."""

    def __init__(self, watch):
        self.watch = watch
        self.answers = []

    def say(self, answer):
        self.answers.append(answer)
        self.watch.now += 100.0

    def next_slice(self):
        return 4


class FakeWatch:
    now = 0.0

    def __init__(self):
        self.start = FakeWatch.now

    def read(self):
        return {"seconds": FakeWatch.now - self.start, "cpu_seconds": 0.0}


def test_no_slice_of_ours_counts_the_time_that_it_was_stopped(monkeypatch, tmp_path):
    """Of 4 updates of a second each; what comes between a slice's end and its answer is part of the next one."""
    monkeypatch.setattr(ways, "Watch", FakeWatch)
    channel = StoppedChannel(FakeWatch)
    gate = ways.SavedGate(channel, tmp_path, 4, "cpu")
    gate.open()
    for step in range(2, 13, 2):
        FakeWatch.now += 2.0
        gate.log(step, {}, {})
    gate.close()
    assert [answer["seconds"] for answer in channel.answers] == [4.0] * 3


def test_what_the_peers_take_over_is_what_the_example_has():
    recipe = example()
    ours = {"learning_rate": recipe.LEARNER.learning_rate, "polyak": recipe.LEARNER.polyak}
    assert {**ours, "reward_scale": recipe.REPLAY["reward_scale"]} == LIKE_OURS
    assert recipe.REPLAY["discount"] == notebook_discount()


def notebook_discount():
    text = (ROOT / "benchmarks" / "peers" / "notebook_bcq.py").read_text(encoding="utf-8")
    return float(re.search(r"^DISCOUNT = (.*)$", text, re.MULTILINE)[1])


def test_the_page_says_who_has_not_arrived(hooks, tmp_path):
    assert "`python -m benchmarks time-to-score`" in hooks.time_to_score()
    row = {"has_reached": True, "seconds": 100.0, "updates": 1500, "curve": [{"score": 860.0}]}
    late = {"has_reached": False, "seconds": 810.0, "updates": 900, "curve": [{"score": 10.0}, {"score": -3.0}]}
    result = {"rows": {"offrl": row, "d3rlpy": late}, "score": 850.0, "transitions": 60_000, "at_most": 8.0}
    result |= {"tracks": "T", "command": "c", "machine": describe_machine()}
    (tmp_path / "time_to_score.json").write_text(json.dumps(result))
    shown = hooks.time_to_score()
    assert "| offrl | 100 | 1.0 | 1,500 | 860 |" in shown
    assert "| d3rlpy | not in 810 | > 8.1 | 900 | 10 |" in shown

"""The time to a score: slices until it is reached, and how it is shown."""

import json

import numpy as np
import pytest
import torch

from benchmarks import time_to_score
from benchmarks.baseline import PlainBCQ, greedy_policy
from benchmarks.time_to_score import Competitor, Traced, race
from offrl.runs import describe_machine


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
    # 10 updates tell the rate; then slices of 45 seconds, the last one over the limit.
    assert [point["updates"] for point in row["curve"]] == [460, 910, 1360]
    assert row["seconds"] == pytest.approx(136, abs=1)


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

"""Readings and statistics of candidates against a loop over transitions, one at a time."""

from dataclasses import replace

import numpy as np
import pytest
from naive_replay import make_episode, make_spec, save_frames

from offrl import BC, DiscreteBCQ, ReplayConfig, TorchPolicy
from offrl.errors import OfflineRLError, SpecMismatchError
from offrl.replay import Replay, open_replay
from offrl.selection import CRITERIA, Log, Reading
from offrl.selection.reading import read_candidate


def opened(folder, *, pixels=0, masks=False, **settings):
    """Eight episodes, some of which are cut, one after a single step."""
    episodes = []
    for seed, steps in enumerate([3, 1, 5, 4, 2, 1, 6, 3]):
        extra = {}
        if masks:
            allowed = np.random.default_rng(seed).random((steps, 3)) < 0.5
            extra = {"action_mask": allowed | np.eye(3, dtype=bool)[make_episode(seed, steps, pixels=pixels).actions]}
        episodes.append(make_episode(seed, steps, pixels=pixels, terminated=seed % 3 > 0, **extra))
    spec = make_spec(pixels=pixels)
    save_frames(folder, [episodes[:5], episodes[5:]], spec)
    return open_replay(folder, progress=False, **settings)


def one_at_a_time(replay, algorithm, threshold):
    """For each transition: the action, its reward, the policy's action, q, and the same of what follows."""
    policy = TorchPolicy(algorithm, threshold=threshold)
    plain = Replay(replay.store, ReplayConfig(**{**vars(replay.config), "n_step": 1, "reward_scale": 1.0}))
    for index in range(len(plain)):
        batch = plain.gather([index])
        masks = [None if each is None else each.numpy() for each in (batch.action_mask, batch.next_action_mask)]
        action = policy(batch.observation.numpy(), masks[0])[0]
        next_action = policy(batch.next_observation.numpy(), masks[1])[0]
        spec = algorithm.spec
        q, next_q = (algorithm.values(spec.normalise(each))[0] for each in (batch.observation, batch.next_observation))
        yield batch, action, next_action, q.detach().numpy(), next_q.detach().numpy()


@pytest.mark.parametrize("pixels", [0, 1])
@pytest.mark.parametrize("masks", [False, True])
def test_td_error_and_agreement_are_those_of_a_loop_over_transitions(tmp_path, monkeypatch, pixels, masks):
    monkeypatch.setattr("offrl.ope.episodes._AT_ONCE", 3)
    replay = opened(tmp_path, pixels=pixels, masks=masks, held_out=0.5, reward_clip=1.0, discount=0.8).held_out()
    algorithm = DiscreteBCQ(replay.spec, seed=3, **({"encoder": Flat} if pixels else {})).eval()
    scale = 0.25
    readings = [*read_candidate(algorithm, replay, [0.0, 0.95], with_values=True, reward_scale=scale)]
    log = Log.of(replay)
    for threshold, reading in zip([0.0, 0.95], readings, strict=True):
        squares, agreed = [], []
        for batch, action, next_action, q, next_q in one_at_a_time(replay, algorithm, threshold):
            target = float(batch.reward) + float(batch.discount) * next_q[next_action] / scale
            squares.append((q[int(batch.action)] / scale - target) ** 2)
            agreed.append(action == int(batch.action))
        assert CRITERIA["td_error"].function(reading, log) == pytest.approx(np.mean(squares), rel=1e-4)
        assert CRITERIA["agreement"].function(reading, log) == np.mean(agreed)


class Flat:
    """An encoder for the tiny pictures of the tests."""

    def __new__(cls, shape):
        from torch import nn

        network = nn.Flatten()
        network.feature_dim = int(np.prod(shape))
        return network


def test_the_log_begins_where_episodes_do(tmp_path):
    log = Log.of(opened(tmp_path, discount=0.5))
    assert np.flatnonzero(log.is_first).tolist() == [0, 3, 4, 9, 13, 15, 16, 22]
    last = np.array([2, 3, 8, 12, 14, 15, 21, 24])
    assert log.discount[last].tolist() == [0.5, 0, 0, 0.5, 0, 0, 0.5, 0]  # the first, fourth and seventh are cut


def log_of_three():
    return Log(
        action=np.array([1, 0, 1]),
        reward=np.array([2.0, 1.0, 4.0]),
        discount=np.array([0.5, 0.0, 0.5]),
        is_first=np.array([True, False, True]),
    )


def test_statistics_of_three_transitions():
    reading = Reading(
        action=np.array([0, 0, 1]),
        next_action=np.array([0, 1, 1]),
        q=np.array([[10.0, 3.0], [5.0, 9.0], [7.0, 8.0]]),
        next_q=np.array([[4.0, 99.0], [np.nan, np.inf], [99.0, 6.0]]),
    )
    # 3 - (2 + 0.5 * 4) = -1, 5 - 1 = 4, 8 - (4 + 0.5 * 6) = 1: squares 1, 16, 1. First steps: 10 and 8.
    names = ("td_error", "initial_value", "agreement")
    found = {name: CRITERIA[name].function(reading, log_of_three()) for name in names}
    assert found == {"td_error": 6.0, "initial_value": 9.0, "agreement": 2 / 3}


def test_a_policy_that_may_take_no_action_somewhere_is_named_with_the_episode(tmp_path):
    replay = opened(tmp_path, masks=True)
    mask = replay.store.action_mask[:, 1]
    first = int(replay.store.episode_of_rows()[np.flatnonzero(~mask)[0]])
    middle = DiscreteBCQ(replace(replay.spec, legal_actions=(1,), action_masks=True)).eval()
    said = rf"^mine: no action of \(1,\) is legal at a step of episode {first}; expected one or more at each step"
    with pytest.raises(SpecMismatchError, match=said):
        next(read_candidate(middle, replay, [0.0], with_values=False, name="mine"))


def test_an_algorithm_without_values_has_an_agreement_only(tmp_path):
    replay = opened(tmp_path)
    (reading,) = read_candidate(BC(replay.spec).eval(), replay, [0.0], with_values=False)
    assert reading.q is None
    with pytest.raises(OfflineRLError, match="bc learns no values"):
        next(read_candidate(BC(replay.spec).eval(), replay, [0.0], with_values=True))

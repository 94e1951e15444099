"""What policies do at logged observations, tabulated; and what is refused as a policy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_replay import save_frames
from two_rooms import POLICIES, SPEC, two_rooms

from offrl import DQN, DiscreteBCQ, DiscreteBCQConfig, TaskSpec, TorchPolicy
from offrl.errors import ConfigError, OfflineRLError, SpecMismatchError
from offrl.ope import tabulate, tabulate_each
from offrl.replay import open_replay
from offrl.shards import Episode


def in_a(observations):
    """Acts by what it sees: 0 in room A, 1 in B."""
    return observations[:, 1].astype(np.int64)


def test_the_next_row_is_what_follows_and_a_cut_is_looked_at(tmp_path):
    replay = two_rooms(tmp_path, 20, longest=2)
    table = tabulate(in_a, replay, progress=False)
    store = replay.store
    rows = np.arange(len(store))
    current, following = (table.current.argmax(1), table.following.argmax(1))
    np.testing.assert_array_equal(current, store.observations(rows)[:, 1])
    goes_on = ~store.terminated
    assert goes_on.any()
    assert (store.truncated & goes_on).any()
    np.testing.assert_array_equal(following[goes_on], store.next_observations(rows)[goes_on, 1])
    assert table.is_greedy


def test_each_observation_is_asked_about_once(tmp_path):
    replay = two_rooms(tmp_path, 20, longest=2)
    seen = []

    def counting(observations):
        seen.append(len(observations))
        return np.zeros(len(observations), np.int64)

    tabulate(counting, replay, progress=False)
    assert sum(seen) == len(replay) + int((~replay.store.terminated & replay.store.truncated).sum())


def test_networks_are_asked_once_for_all_thresholds(tmp_path, monkeypatch):
    replay = two_rooms(tmp_path, 20, longest=2)
    bcq = DiscreteBCQ(SPEC, DiscreteBCQConfig(threshold=0.0), seed=0)
    first = TorchPolicy(bcq, stochastic=True)
    policies = {"0": first, "uniform": POLICIES["uniform"], "0.9": first.with_threshold(0.9)}
    policies |= {"other": TorchPolicy(DiscreteBCQ(SPEC, seed=1)), "random": TorchPolicy(bcq, epsilon=0.5)}
    separate = {name: tabulate(policy, replay, progress=False) for name, policy in policies.items()}
    asked, forward = [], DiscreteBCQ.forward
    monkeypatch.setattr(DiscreteBCQ, "forward", lambda self, *given: asked.append(self) or forward(self, *given))
    together = tabulate_each(policies, replay, progress=False)
    assert [*together] == [*policies]
    for name, table in separate.items():
        np.testing.assert_array_equal(together[name].current, table.current)
        np.testing.assert_array_equal(together[name].following, table.following)
    assert len(asked) == 4  # two networks, each for the observations and for what follows the cuts
    assert (separate["0"].current != separate["0.9"].current).any()


def test_a_subclass_that_chooses_otherwise_is_asked_itself(tmp_path):
    class Second(TorchPolicy):
        """Takes the second action, whatever the networks say."""

        def probabilities(self, observation, action_mask=None):
            return np.eye(2)[np.ones(len(observation), np.int64)]

    replay, dqn = two_rooms(tmp_path, 5), DQN(SPEC, seed=0)
    found = tabulate_each({"plain": TorchPolicy(dqn), "own": Second(dqn)}, replay, progress=False)
    assert (found["own"].current[:, 1] == 1).all()
    np.testing.assert_array_equal(found["plain"].current, tabulate(TorchPolicy(dqn), replay, progress=False).current)


def test_a_subclass_whose_networks_say_otherwise_does_not_share_their_outputs(tmp_path):
    class Worst(TorchPolicy):
        def _outputs(self, observation, legal):
            found = super()._outputs(observation, legal)
            return found._replace(scores=-found.scores)

    replay, dqn = two_rooms(tmp_path, 20), DQN(SPEC, seed=1)
    found = tabulate_each({"best": TorchPolicy(dqn), "worst": Worst(dqn)}, replay, progress=False)
    np.testing.assert_array_equal(found["worst"].current.argmax(1), 1 - found["best"].current.argmax(1))


def test_an_algorithm_is_no_policy(tmp_path):
    with pytest.raises(
        ConfigError, match=r"mine: DQN, which takes normalised tensors; .*; pass TorchPolicy\(algorithm\)"
    ):
        tabulate(DQN(SPEC), two_rooms(tmp_path, 20), name="mine")


def test_a_part_has_its_own_rows(tmp_path):
    replay = two_rooms(tmp_path, 20, held_out=0.5)
    for part in (replay, replay.held_out()):
        table = tabulate(in_a, part, progress=False)
        np.testing.assert_array_equal(table.current.argmax(1), part.store.observations(part.rows)[:, 1])


def test_probabilities_and_policies_of_networks(tmp_path):
    replay = two_rooms(tmp_path, 5)
    np.testing.assert_array_equal(tabulate(POLICIES["uniform"], replay, progress=False).current, 0.5)
    policy = TorchPolicy(DQN(SPEC, seed=0), epsilon=0.5)
    table = tabulate(policy, replay, progress=False)
    assert not table.is_greedy
    np.testing.assert_allclose(np.sort(table.current, axis=1), [[0.25, 0.75]] * len(replay), rtol=1e-6)


def test_masks_reach_those_that_take_them_and_no_illegal_action_passes(tmp_path):
    spec = replace(SPEC, action_masks=True)
    mask = np.array([[True, False], [False, True], [True, True]])
    episode = Episode(
        observations=np.zeros((4, 2), np.float32),
        actions=np.array([0, 1, 0]),
        rewards=np.zeros(3, np.float32),
        terminated=True,
        truncated=False,
        action_mask=mask,
    )
    save_frames(tmp_path, [[episode]], spec)
    replay = open_replay(tmp_path, progress=False)
    table = tabulate(lambda observations, legal: legal.argmax(axis=1), replay, progress=False)
    np.testing.assert_array_equal(table.current.argmax(1), [0, 1, 0])
    with pytest.raises(SpecMismatchError, match="takes an illegal action"):
        tabulate(lambda observations, legal: np.zeros(len(legal), np.int64), replay, progress=False)
    with pytest.raises(ConfigError, match=r"a function of \(observations\); .*take them as the second argument"):
        tabulate(lambda observations: np.zeros(len(observations), np.int64), replay, progress=False)


def test_an_error_of_a_function_itself_is_its_own(tmp_path):
    def mine(observations):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="^mine$"):
        tabulate(mine, two_rooms(tmp_path, 5), progress=False)
    with pytest.raises(ConfigError, match=r"a function of \(\); expected one that takes observations \[N, \.\.\.\]$"):
        tabulate(lambda: 0, two_rooms(tmp_path / "again", 5), progress=False)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (lambda observations: np.full(len(observations), 2), "gives action 2; expected actions 0..1"),
        (lambda observations: np.zeros(len(observations)), r"gives float64 \["),
        (lambda observations: np.full((len(observations), 2), 0.4), "no probabilities"),
        (lambda observations: np.full((len(observations), 2), np.nan), "no probabilities"),
        (lambda observations: np.full((len(observations), 3), 1 / 3), r"gives float64 \["),
        (lambda observations: [[0.5, 0.5]] * (len(observations) - 1) + [[1.0]], "gives a list that is no array; exp"),
        (lambda observations: [torch.ones(2, requires_grad=True)] * len(observations), "gives a list that is no array"),
        (lambda observations: ["go"] * len(observations), r"gives <U2 \["),
        (lambda observations: None, r"gives object \[\]"),
        (lambda observations: np.full((len(observations), 2), 0.5 + 0j), r"gives complex128 \["),
    ],
)
def test_what_is_no_policy_is_refused(policy, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        tabulate(policy, two_rooms(tmp_path, 5), name="mine", progress=False)


def test_a_tensor_with_a_gradient_will_do(tmp_path):
    shares = torch.tensor([0.25, 0.75], requires_grad=True)
    table = tabulate(lambda observations: shares.expand(len(observations), 2), two_rooms(tmp_path, 5), progress=False)
    np.testing.assert_array_equal(table.current, [[0.25, 0.75]] * len(table.current))


def masked(folder, *masks):
    """An episode of one step for each mask [1, 3]."""
    episodes = [
        Episode(
            observations=np.zeros((2, 2), np.float32),
            actions=np.array([mask.index(1)]),
            rewards=np.zeros(1, np.float32),
            terminated=True,
            truncated=False,
            action_mask=np.array([mask], np.bool_),
        )
        for mask in masks
    ]
    save_frames(folder, [episodes], TaskSpec.vector(2, ("left", "stay", "right")))
    return open_replay(folder, progress=False)


def test_a_policy_that_may_take_no_action_somewhere_is_named_with_the_episode(tmp_path):
    replay = masked(tmp_path, [0, 0, 1], [1, 0, 1], [1, 1, 0])
    only_right = TorchPolicy(DQN(replace(replay.spec, legal_actions=(2,), action_masks=True)))
    said = (
        r"^mine: no action of \(2,\) is legal at a step of episode 2; .*; leave such episodes out of the data, or take"
    )
    with pytest.raises(SpecMismatchError, match=said):
        tabulate(only_right, replay, name="mine", progress=False)


def test_a_policy_of_another_task_is_refused(tmp_path):
    other = TorchPolicy(DQN(TaskSpec.vector(3, ("go", "stop")), seed=0))
    with pytest.raises(OfflineRLError, match="mine: .*evaluate it on data of the task"):
        tabulate(other, two_rooms(tmp_path, 5), name="mine", progress=False)


def test_a_replay_of_some_actions_is_refused_as_its_rows_do_not_follow_each_other(tmp_path):
    with pytest.raises(ConfigError, match="whole episodes"):
        tabulate(POLICIES["uniform"], two_rooms(tmp_path, 5, actions=(0,)), progress=False)

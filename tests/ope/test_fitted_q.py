"""Fitted Q evaluation against values that anybody can compute."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from naive_replay import save_frames
from two_rooms import DISCOUNT, POLICIES, SPEC, VALUES, A, B, episode, two_rooms

from offrl import LearnerConfig
from offrl.batch import Batch
from offrl.errors import ConfigError, RunError
from offrl.ope import FittedQ, FittedQConfig, FittedValues, OpeConfig, PolicyTable, estimate, fit_q, read, tabulate
from offrl.ope.fitting import EpisodesAgain, default_learner, enough_updates, steps_ahead
from offrl.replay import Replay, open_replay
from offrl.replay.sampling import Candidates
from offrl.selection import FittingConfig
from offrl.shards import Episode

QUICK = LearnerConfig(learning_rate=3e-3, polyak=0.2, precision="fp32", compile="off", threads=1)


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield two_rooms(tmp_path_factory.mktemp("rooms"), longest=3, held_out=0.3)


def tables(part):
    return {name: tabulate(policy, part, progress=False) for name, policy in POLICIES.items()}


def test_it_finds_the_values_of_several_policies_in_one_pass(replay):
    model = fit_q(tables(replay), replay, 500, batch_size=64, learner=QUICK, device="cpu")
    found = model.policy_values(torch.from_numpy(np.stack([A, B]))).detach().numpy()  # [2, P, 2]
    for number, (name, (in_a, in_b)) in enumerate(VALUES.items()):
        weights = {"always 0": (1, 0), "always 1": (0, 1), "uniform": (0.5, 0.5)}[name]
        values = found[:, number] @ np.array(weights)
        assert values == pytest.approx((in_a, in_b), abs=0.02), name
    # And of actions that the policies do not take: stopping in A is worth 0.3, whoever goes on.
    assert found[0, :, 1] == pytest.approx(0.3, abs=0.02)
    held_out = replay.held_out()
    values = read(model, held_out, [*tables(held_out).values()])
    assert isinstance(values, FittedValues)
    begins = held_out.store.observations(held_out.rows)[:, 0] == 1
    assert values.value[0, begins] == pytest.approx(0.9, abs=0.02)
    # An episode that was cut after three steps stands in B: what comes after counts, as each policy goes on.
    last = held_out.store.segment_end[held_out.rows] == held_out.rows
    cut = ~held_out.store.terminated[held_out.rows[last]]
    assert cut.any()
    assert (
        pytest.approx(np.array([[1.0, 0.27, VALUES["uniform"][1]]] * cut.sum()), abs=0.02) == values.end_value[:, cut].T
    )
    assert (values.end_value[:, ~cut] == 0).all()


def batch(**changes):
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    values = {
        "observation": rows,
        "action": torch.tensor([0, 1]),
        "reward": torch.tensor([0.5, 1.0]),
        "discount": torch.tensor([0.9, 0.0]),
        "next_observation": rows.flip(0),
        "index": torch.tensor([2, 0]),
    }
    return Batch(**{**values, **changes})


def of_constants(model, q, target_q):
    """Gives the networks these outputs [P * A], whatever they see."""
    with torch.no_grad():
        for head, values in ((model.head, q), (model.target_head, target_q)):
            head.output.weight.zero_()
            head.output.bias.copy_(torch.tensor(values))
    return model


@pytest.mark.parametrize("greedy", [True, False])
def test_the_loss_of_two_rows_by_hand(greedy):
    model = of_constants(FittedQ(SPEC, FittedQConfig(2, scale=2.0)), [1.0, 2.0, 3.0, 4.0], [0.5, 1.0, 1.5, 2.0])
    # Row 2 of the tables belongs to the first transition: policy 0 takes action 1 there, policy 1 action 0.
    sure = [np.eye(2, dtype=np.float32)[[0, 0, 1]], np.eye(2, dtype=np.float32)[[0, 0, 0]]]
    mixed = [np.full((3, 2), 0.5, np.float32), sure[1]]
    model.follow([PolicyTable(each, each) for each in (sure if greedy else mixed)])
    loss, metrics = model.loss(batch())
    # Outputs times the scale of 2: q of the logged actions (0, then 1) are 2 and 6 in the first row, 4 and 8 in the
    # second. Targets: 0.5 + 0.9 * 2 = 2.3 (with 0.5 each: 0.5 + 0.9 * 1.5 = 1.85) and 0.5 + 0.9 * 3 = 3.2; then 1, 1.
    first = 2.3 if greedy else 1.85
    errors = np.array([2 - first, 6 - 3.2, 4 - 1, 8 - 1]) / 2
    assert loss.item() == pytest.approx((errors**2).mean(), rel=1e-6)
    assert metrics["q"].item() == pytest.approx(5.0)


def test_targets_outside_of_what_is_possible_are_cut():
    model = of_constants(FittedQ(SPEC, FittedQConfig(1, high=1.0)), [0.0, 0.0], [50.0, 50.0])
    model.follow([PolicyTable(*[np.eye(2, dtype=np.float32)[[0, 0, 0]]] * 2)])
    assert model.loss(batch())[0].item() == pytest.approx(1.0)  # both targets are 1


def test_without_policies_it_says_so():
    with pytest.raises(ConfigError, match="no policies.*follow"):
        FittedQ(SPEC).loss(batch())
    with pytest.raises(ConfigError, match="0 policies; expected 1"):
        FittedQ(SPEC).follow([])


def test_a_resumed_fit_equals_one_that_never_stopped(replay, tmp_path, monkeypatch):
    few = {"always 0": tabulate(POLICIES["always 0"], replay, progress=False)}
    whole = fit_q(few, replay, 40, batch_size=8, learner=QUICK, device="cpu", run=tmp_path / "whole")
    fit_q(few, replay, 20, batch_size=8, learner=QUICK, device="cpu", run=tmp_path / "halves")
    halves = fit_q(few, replay, 40, batch_size=8, learner=QUICK, device="cpu", run=tmp_path / "halves")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, halves.state_dict()[name]), name


def test_a_run_of_other_policies_does_not_go_on(replay, tmp_path):
    for name in ("always 0", "always 1"):
        table = {"policy": tabulate(POLICIES[name], replay, progress=False)}
        refused = pytest.raises(RunError, match="policies") if name == "always 1" else nullcontext()
        with refused:
            fit_q(table, replay, 2, batch_size=8, learner=QUICK, device="cpu", run=tmp_path / "run")


def test_the_data_says_what_values_are_possible(replay):
    model = fit_q({"0": tabulate(POLICIES["always 0"], replay, progress=False)}, replay, 1, learner=QUICK, device="cpu")
    assert model.config.low == 0
    assert model.config.high == pytest.approx(1 / (1 - DISCOUNT))


def test_episodes_again_are_whole_ones_and_as_many():
    candidates = Candidates(np.zeros(6, np.int64), np.array([0, 0, 0, 4, 4, 7]), np.zeros(8))
    weights = EpisodesAgain(1).weights(candidates)
    assert weights[[0, 3, 5]].sum() == 3
    np.testing.assert_array_equal(weights, np.repeat(weights[[0, 3, 5]], [3, 2, 1]))
    assert any((EpisodesAgain(seed).weights(candidates) != weights).any() for seed in range(5))


def test_a_table_of_another_part_is_refused(replay):
    table = tabulate(POLICIES["always 0"], replay.held_out(), progress=False)
    with pytest.raises(ConfigError, match="a table of .* transitions; expected .*, the training part's"):
        fit_q({"always 0": table}, replay, 1, device="cpu")


def test_a_table_of_the_other_part_is_refused_where_both_are_equally_long(tmp_path):
    rng = np.random.default_rng(0)
    save_frames(tmp_path, [[episode(rng, longest=1) for _ in range(8)]], SPEC)
    replay = open_replay(tmp_path, progress=False, held_out=0.5)
    policy, held_out = POLICIES["always 0"], replay.held_out()
    other, own = tabulate(policy, held_out, progress=False), tabulate(policy, replay, progress=False)
    said = (
        r"fit_q.tables: a table of 4 other transitions; expected 4, the training part's; pass tabulate\(policy, replay"
    )
    with pytest.raises(ConfigError, match=said):
        fit_q({"always 0": other}, replay, 1, device="cpu")
    model = fit_q({"always 0": own}, replay, 1, batch_size=2, learner=QUICK, device="cpu")
    with pytest.raises(
        ConfigError, match="read.tables: a table of 4 other transitions; expected 4, the held-out part's"
    ):
        read(model, held_out, [own])
    assert read(model, held_out, [other]).value.shape == (1, 4)
    assert read(model, held_out, [PolicyTable(own.current, own.following)]).value.shape == (1, 4)  # it does not say


def test_bf16_comes_near_and_is_trained_like_any_other(replay):
    table = {"always 0": tabulate(POLICIES["always 0"], replay, progress=False)}
    learner = LearnerConfig(learning_rate=3e-3, polyak=0.2, precision="bf16", compile="off", threads=1)
    model = fit_q(table, replay, 500, batch_size=64, learner=learner, device="cpu")
    found = model.policy_values(torch.from_numpy(np.stack([A, B]))).detach().numpy()
    assert found[:, 0, 0] == pytest.approx(VALUES["always 0"], abs=0.05)


@pytest.mark.parametrize(
    ("discount", "updates"), [(0.0, 5_000), (0.99, 5_000), (0.997, 16_667), (0.999, 50_000), (0.99999, 50_000)]
)
def test_the_further_a_discount_looks_the_more_updates_are_made(tmp_path, discount, updates):
    replay = two_rooms(tmp_path, num_episodes=3)
    replay = Replay(replay.store, discount=discount)
    assert enough_updates(replay) == updates
    assert FittingConfig().updates_of("q", replay) == updates
    assert FittingConfig().updates_of("backups", replay) == 5_000
    assert FittingConfig(updates=7).updates_of("q", replay) == 7


def test_without_a_discount_the_longest_episode_says_how_many(tmp_path):
    rng = np.random.default_rng(0)
    ended = {"terminated": True, "truncated": False}
    lasting = Episode(np.tile(A, (201, 1)), np.ones(200, np.int64), np.zeros(200, np.float32), **ended)
    save_frames(tmp_path, [[episode(rng), lasting]], SPEC)
    replay = open_replay(tmp_path, progress=False, discount=1.0)
    assert enough_updates(replay) == 10_000
    assert default_learner(steps_ahead(replay), 10_000).polyak == pytest.approx(0.12)  # as with any other discount
    assert default_learner(steps_ahead(Replay(replay.store, discount=0.99)), 5_000).polyak == pytest.approx(0.12)


def test_an_estimate_makes_as_many_updates_as_its_discount_needs(tmp_path, monkeypatch):
    asked = []

    def fit_q(tables, replay, updates, **how):
        asked.append(updates)
        raise StopIteration

    monkeypatch.setattr("offrl.ope.fitted_q.fit_q", fit_q)
    replay = two_rooms(tmp_path, num_episodes=20, held_out=0.5)
    for updates in (None, 7):
        config = OpeConfig(discount=0.995, estimators=["fqe"], behaviour="logged", updates=updates)
        with pytest.raises(StopIteration):
            estimate(POLICIES["always 0"], replay, config, progress=False)
    assert asked == [10_000, 7]

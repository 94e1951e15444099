"""The shelf against its papers (`papers.py`, which never saw this code) in float64: loss, gradients, five updates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import papers
import pytest
import torch
from papers import Net, Row
from torch import nn

from offrl import Batch, TaskSpec
from offrl.algorithms import (
    BVE,
    CQL,
    CRR,
    DQN,
    IQL,
    QRBCQ,
    QRCQL,
    QRDQN,
    REM,
    BVEConfig,
    CQLConfig,
    CRRConfig,
    DiscreteSAC,
    DiscreteSACConfig,
    DQNConfig,
    IQLConfig,
    QRBCQConfig,
    QRCQLConfig,
    QRDQNConfig,
    REMConfig,
)
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.losses import random_mixture
from offrl.training import Learner, LearnerConfig

NUM_ACTIONS = 3
SIZE = 5
SPEC = TaskSpec.vector(SIZE, ("left", "right", "stay"))
DISCOUNTS = (0.0, 0.99, 0.99**3, 0.97, 0.0, 0.9, 0.99**2)  # terminated, and returns of one to three steps
LEARNING_RATE, POLYAK = 3e-3, 0.05


class Wide(nn.Module):
    """One layer that sees its observations in float64; the Learner hands them over in float32."""

    feature_dim = 16

    def __init__(self, observation_shape):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(*observation_shape, self.feature_dim), nn.ReLU())

    def forward(self, observation):
        return self.network(observation.to(self.network[0].weight.dtype))


def make_batch(seed, *, masks=False):
    """Seven transitions, their observations exact in float32. Some that go on have no logged action next."""
    rng = np.random.default_rng(seed)
    count = len(DISCOUNTS)
    next_action = rng.integers(NUM_ACTIONS, size=count)
    next_action[[0, 3]] = -1  # where the episode terminated, and where the log ends
    action = torch.tensor(rng.integers(NUM_ACTIONS, size=count))
    batch = Batch(
        observation=torch.tensor(rng.normal(size=(count, SIZE)), dtype=torch.float32),
        action=action,
        reward=torch.tensor(2 * rng.normal(size=count)),
        discount=torch.tensor(DISCOUNTS, dtype=torch.float64),
        next_observation=torch.tensor(rng.normal(size=(count, SIZE)), dtype=torch.float32),
        next_action=torch.tensor(next_action),
    )
    if not masks:
        return batch
    legal, next_legal = (torch.tensor(rng.random((count, NUM_ACTIONS)) < 0.6) for _ in range(2))
    legal[1, action[1]] = False  # what was logged was legal, whatever the log says of it
    legal[2] = False
    next_legal[[4, 5]] = False  # nothing follows a terminated step, and no value where nothing is legal
    next_legal[6] = torch.arange(NUM_ACTIONS) == 1
    return replace(batch, action_mask=legal, next_action_mask=next_legal)


def rows_of(batch):
    def actions(mask, i, logged=()):
        return [b for b in range(NUM_ACTIONS) if mask is None or mask[i, b] or b in logged]

    return [
        Row(
            s=batch.observation[i].double(),
            a=batch.action[i].item(),
            r=batch.reward[i].item(),
            discount=batch.discount[i].item(),
            s_next=batch.next_observation[i].double(),
            legal=actions(batch.action_mask, i, (batch.action[i],)),
            next_legal=actions(batch.next_action_mask, i),
            a_next=batch.next_action[i].item(),
        )
        for i in range(len(batch))
    ]


def critics(encoder, head, count):
    return [(encoder, head)] + [(encoder, f"{head}.others.{k}") for k in range(count - 1)]


def paths_of(*, q=1, **others):
    """Which layers make what: q and its target, of `q` members each, and other roles by name."""
    paths = {"q": critics("encoder", "q_head", q), "target_q": critics("target_encoder", "target_q_head", q)}
    return paths | {name: [path] for name, path in others.items()}


@dataclass(frozen=True)
class Case:
    """One algorithm with settings, and its paper: a function of networks, rows, weights, and the update's number."""

    make: Callable
    paper: Callable
    paths: dict = field(default_factory=paths_of)
    reduce: str = "min"
    targets: Sequence[tuple[str, str]] = (("encoder", "target_encoder"), ("q_head", "target_q_head"))

    def loss(self, rows, context, weights):
        return self.paper(Net(weights, self.paths, self.reduce), rows, SimpleNamespace(weights=weights, **context))


def by_head(count):
    """[count * A] outputs, head by head."""
    return lambda outputs: [outputs[k * NUM_ACTIONS : (k + 1) * NUM_ACTIONS] for k in range(count)]


def by_action(count):
    """[A * count] outputs, action by action."""
    return lambda outputs: [outputs[b * count : (b + 1) * count] for b in range(NUM_ACTIONS)]


def dqn(**settings):
    return Case(lambda: (DQN, DQNConfig(**settings)), lambda net, rows, _: papers.cql(net, rows, alpha=0.0))


def cql(weight, ensemble=None):
    reduce, count = (ensemble or "min:1").split(":")
    return Case(
        lambda: (CQL, CQLConfig(weight=weight, ensemble=ensemble)),
        lambda net, rows, _: papers.cql(net, rows, weight),
        paths_of(q=int(count)),
        reduce,
    )


def iql(expectile, temperature, weight_limit=100.0, **ensemble):
    reduce, count = (ensemble.get("ensemble", "min:2") or "min:1").split(":")
    config = partial(IQLConfig, expectile=expectile, temperature=temperature, weight_limit=weight_limit, **ensemble)
    return Case(
        lambda: (IQL, config()),
        lambda net, rows, _: papers.iql(net, rows, expectile, temperature, weight_limit),
        paths_of(q=int(count), v=("encoder", "value_head"), policy=("encoder", "policy_head")),
        reduce,
    )


def crr(weighting, advantage, beta=1.0, weight_limit=20.0, ensemble=None):
    reduce, count = (ensemble or "min:1").split(":")
    config = partial(CRRConfig, weighting, beta, weight_limit, advantage, ensemble=ensemble)
    return Case(
        lambda: (CRR, config()),
        lambda net, rows, _: papers.crr(net, rows, weighting, advantage, beta, weight_limit),
        paths_of(
            q=int(count), policy=("encoder", "policy_head"), target_policy=("target_encoder", "target_policy_head")
        ),
        reduce,
        (("encoder", "target_encoder"), ("q_head", "target_q_head"), ("policy_head", "target_policy_head")),
    )


def rem(num_heads):
    def paper(net, rows, at):
        alphas = random_mixture(torch.tensor(at.update), num_heads, at.seed).double().tolist()
        return papers.rem(net, rows, alphas, by_head(num_heads))

    return Case(lambda: (REM, REMConfig(num_heads=num_heads)), paper)


def qr_dqn(num_quantiles, kappa, *, double):
    # Eq. 10's sum over quantiles is a mean here, so that the loss does not grow with their number.
    def paper(net, rows, _):
        return papers.qr_dqn(net, rows, by_action(num_quantiles), kappa, double=double) / num_quantiles

    return Case(lambda: (QRDQN, QRDQNConfig(num_quantiles=num_quantiles, kappa=kappa, double=double)), paper)


def qr_bcq(num_quantiles, kappa, threshold, penalty=0.01):
    def paper(net, rows, _):
        shape = by_action(num_quantiles), kappa
        return papers.quantile_bcq(net, rows, *shape, threshold, penalty, td_weight=1 / num_quantiles)

    settings = {"threshold": threshold, "logit_penalty": penalty, "num_quantiles": num_quantiles, "kappa": kappa}
    return Case(lambda: (QRBCQ, QRBCQConfig(**settings)), paper, paths_of(imitation=("encoder", "imitation_head")))


def qr_cql(num_quantiles, kappa, weight):
    def paper(net, rows, _):
        # The sum over quantiles and the penalty beside it, divided by their number.
        return papers.quantile_cql(net, rows, by_action(num_quantiles), kappa, weight) / num_quantiles

    return Case(lambda: (QRCQL, QRCQLConfig(weight=weight, num_quantiles=num_quantiles, kappa=kappa)), paper)


def sac(coefficient, target_entropy=None, **ensemble):
    """With a target entropy, the coefficient is learned. The actor's gradient ends at the features."""
    reduce, count = (ensemble.get("ensemble", "min:2") or "min:1").split(":")
    learned = {"learn_entropy_coefficient": target_entropy is not None}
    if target_entropy is not None:
        learned["target_entropy"] = target_entropy

    def paper(net, rows, at):
        fixed = torch.tensor(coefficient, dtype=torch.float64).log()
        return papers.discrete_sac(net, rows, at.weights.get("log_entropy_coefficient", fixed), target_entropy)

    return Case(
        lambda: (DiscreteSAC, DiscreteSACConfig(entropy_coefficient=coefficient, **learned, **ensemble)),
        paper,
        paths_of(q=int(count), policy=("encoder", "stop", "policy_head")),
        reduce,
    )


def bve(ensemble=None):
    reduce, count = (ensemble or "min:1").split(":")
    paper = lambda net, rows, _: papers.bve(net, rows)  # noqa: E731
    return Case(lambda: (BVE, BVEConfig(ensemble=ensemble)), paper, paths_of(q=int(count)), reduce)


CASES = {
    "double DQN, the oracle's own check": dqn(),
    "CQL": cql(1.0),
    "CQL, weight 0.3, least of 2": cql(0.3, "min:2"),
    "CQL, mean of 3": cql(2.0, "mean:3"),
    "IQL": iql(0.7, 3.0),
    "IQL, expectile 0.9, weights cut": iql(0.9, 1.0, weight_limit=1.2),
    "IQL, one critic": iql(0.3, 0.5, ensemble=None),
    "IQL, mean of 2": iql(0.6, 2.0, ensemble="mean:2"),
    "CRR, exp": crr("exp", "mean"),
    "CRR, exp, weights cut": crr("exp", "mean", beta=0.2, weight_limit=2.0),
    "CRR, exp, max": crr("exp", "max", beta=2.0),
    "CRR, binary": crr("binary", "mean"),
    "CRR, binary, max": crr("binary", "max"),
    "CRR, least of 2": crr("exp", "mean", ensemble="min:2"),
    "REM": rem(4),
    "REM, one head": rem(1),
    "QR-DQN": qr_dqn(5, 1.0, double=False),
    "QR-DQN, double": qr_dqn(4, 1.0, double=True),
    "QR-DQN, kappa 0.3": qr_dqn(3, 0.3, double=True),
    "QR-BCQ": qr_bcq(4, 1.0, 0.3),
    "QR-BCQ, threshold 0.8, kappa 2": qr_bcq(3, 2.0, 0.8, penalty=0.1),
    "QR-BCQ, threshold 0": qr_bcq(3, 1.0, 0.0),
    "QR-CQL": qr_cql(4, 1.0, 0.5),
    "QR-CQL, kappa 0.3, weight 2": qr_cql(3, 0.3, 2.0),
    "SAC": sac(1.0, 0.98),
    "SAC, target entropy 0.3, one critic": sac(0.2, 0.3, ensemble=None),
    "SAC, fixed coefficient": sac(0.5),
    "SAC, coefficient 0, mean of 2": sac(0.0, ensemble="mean:2"),
    "BVE": bve(),
    "BVE, mean of 2": bve("mean:2"),
}


def make_algorithm(case):
    """In float64; with larger outputs, so that errors are on both sides of Huber's kink, and targets of their own."""
    kind, config = case.make()
    algorithm = kind(SPEC, config, encoder=Wide, seed=1).double()
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in algorithm.named_parameters():
            if name.endswith("output.weight") and parameter.requires_grad:
                parameter.mul_(8)
        algorithm.copy_to_targets()
        for name, parameter in algorithm.named_parameters():
            if name.startswith("target_"):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
    return algorithm


def weights_of(algorithm):
    return {name: w.clone() for name, w in algorithm.state_dict().items() if w.is_floating_point()}


def trained_by(algorithm):
    return [name for name, parameter in algorithm.named_parameters() if parameter.requires_grad]


def test_every_listed_algorithm_is_compared_with_its_paper():
    compared = {make_algorithm(case).name for case in CASES.values()}
    assert compared | {"bc", "bcq"} == {
        algorithm_class(name).name for name in ALGORITHMS
    }  # these have files of their own


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


@pytest.mark.parametrize("masks", [False, True], ids=["all legal", "masks"])
def test_loss_and_gradients_are_the_papers(case, masks):
    algorithm = make_algorithm(case)
    for seed in range(3):
        batch, context = make_batch(seed, masks=masks), {"update": seed, "seed": algorithm.seed}
        expected = papers.gradients_of(
            partial(case.loss, rows_of(batch), context), weights_of(algorithm), trained_by(algorithm)
        )
        algorithm.zero_grad()
        loss, _ = algorithm.loss(batch)
        loss.backward()
        assert loss.item() == pytest.approx(expected[0], rel=1e-12, abs=1e-12)
        for name, parameter in algorithm.named_parameters():
            if parameter.requires_grad:
                found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                np.testing.assert_allclose(found, expected[1][name], rtol=1e-9, atol=1e-13, err_msg=name)
            else:
                assert parameter.grad is None


@pytest.mark.parametrize("masks", [False, True], ids=["all legal", "masks"])
def test_weights_and_targets_after_five_updates_are_the_papers(case, masks):
    algorithm = make_algorithm(case)
    settings = LearnerConfig(learning_rate=LEARNING_RATE, polyak=POLYAK, precision="fp32", compile="off")
    weights, trained, adam = weights_of(algorithm), trained_by(algorithm), papers.Adam(LEARNING_RATE)
    first = dict(weights)
    learner = Learner(algorithm, settings, total_updates=5)
    for update in range(5):
        batch, context = make_batch(10 + update, masks=masks), {"update": update, "seed": algorithm.seed}
        _, gradients = papers.gradients_of(partial(case.loss, rows_of(batch), context), weights, trained)
        adam.step(weights, gradients)
        papers.follow(weights, case.targets, POLYAK)
        learner.update(batch)

    found = weights_of(algorithm)
    assert found.keys() == weights.keys()
    for name, expected in weights.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-11, err_msg=name)
        assert not torch.equal(expected, first[name]), name


def test_the_weights_of_rems_heads_are_uniform_numbers_over_their_sum():
    drawn = np.array([random_mixture(torch.tensor(update), 2, 5).tolist() for update in range(4000)])
    np.testing.assert_allclose(drawn.sum(axis=1), 1, atol=1e-6)
    # P(u / (u + v) < x) = x / (2 (1 - x)) up to one half, of u and v uniform in (0, 1); standard error below 0.008.
    for x, share in ((0.1, 1 / 18), (0.25, 1 / 6), (0.5, 1 / 2), (0.75, 5 / 6)):
        assert (drawn[:, 0] < x).mean() == pytest.approx(share, abs=0.025)
    assert len(np.unique(drawn[:, 0])) > 3900  # others at every update
    again, other = (random_mixture(torch.tensor(7), 2, seed).tolist() for seed in (5, 6))
    assert again == drawn[7].tolist() != other

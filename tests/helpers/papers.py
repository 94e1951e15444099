"""Algorithms of the shelf, transcribed from their papers with loops over rows and actions, for comparison in float64.

Nothing here imports offrl, so that a mistake of offrl's cannot be on both sides. A constant of an equation (a target,
a weight, an advantage) is a Python float and therefore has no gradient; only what the paper differentiates is a tensor.

What the papers leave open, or the house does otherwise, is an argument: `td`, the loss of a temporal difference;
`reduce`, what becomes of several critics; one encoder under all heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Path = Sequence[str]


@dataclass(frozen=True)
class Row:
    """One transition. `legal` and `next_legal` are the actions that the task allows; a_next is -1 where unknown."""

    s: Tensor
    a: int
    r: float
    discount: float
    s_next: Tensor
    legal: Sequence[int]
    next_legal: Sequence[int]
    a_next: int = -1

    @property
    def goes_on(self) -> bool:
        return self.discount > 0 and len(self.next_legal) > 0


@dataclass(frozen=True)
class Net:
    """Small networks: the weights by name, and for each role the paths of its members, each a series of layers.

    A part with `.hidden` and `.output` is a head; any other is an encoder of one layer with a ReLU. "stop" lets no
    gradient through. `reduce` is min or mean, of the members for each action.
    """

    weights: Weights
    paths: Mapping[str, Sequence[Path]]
    reduce: str = "min"

    def members(self, role: str, s: Tensor) -> list[list[Tensor]]:
        """The outputs of each member, as lists of numbers."""
        return [self._along(path, s) for path in self.paths[role]]

    def __call__(self, role: str, s: Tensor) -> list[Tensor]:
        """The outputs of a role with one member."""
        (outputs,) = self.members(role, s)
        return outputs

    def constants(self, role: str, s: Tensor) -> list[float]:
        """The outputs as plain numbers, which have no gradient; those of several members, reduced."""
        members = [[x.item() for x in outputs] for outputs in self.members(role, s)]
        choose = min if self.reduce == "min" else lambda *values: sum(values) / len(values)
        return [choose(*values) for values in zip(*members, strict=True)] if len(members) > 1 else members[0]

    def _along(self, path: Path, s: Tensor) -> list[Tensor]:
        x = s
        for part in path:
            if part == "stop":
                x = x.detach()
            elif f"{part}.hidden.weight" in self.weights:
                x = self._linear(f"{part}.output", self._relu(self._linear(f"{part}.hidden", x)))
            else:
                x = self._relu(self._linear(f"{part}.network.0", x))
        return list(x)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

    @staticmethod
    def _relu(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.zeros_like(x))


# What several papers share.

Difference = Callable[[Tensor], Tensor]


def total(values: Sequence[Tensor]) -> Tensor:
    return sum(values, torch.zeros((), dtype=torch.float64))


def mean(values: Sequence[Tensor]) -> Tensor:
    return total(values) / len(values)


def huber(u: Tensor, kappa: float = 1.0) -> Tensor:
    """u^2 / 2 within kappa, kappa (|u| - kappa / 2) outside."""
    return 0.5 * u * u if abs(u.item()) <= kappa else kappa * (u.abs() - 0.5 * kappa)


def log_softmax(logits: Sequence[Tensor], legal: Sequence[int]) -> dict[int, Tensor]:
    """log pi(b | s) of each legal action b."""
    return {b: logits[b] - log_sum_exp(logits, legal) for b in legal}


def log_sum_exp(values: Sequence[Tensor], legal: Sequence[int]) -> Tensor:
    most = max(values[b].item() for b in legal)
    return most + torch.log(total([torch.exp(values[b] - most) for b in legal]))


def softmax(logits: Sequence[float], legal: Sequence[int]) -> dict[int, float]:
    most = max(logits[b] for b in legal)
    weight = {b: math.exp(logits[b] - most) for b in legal}
    return {b: w / sum(weight.values()) for b, w in weight.items()}


def argmax(values: Sequence[float], legal: Sequence[int]) -> int:
    """The first of the best legal actions."""
    best = legal[0]
    for b in legal:
        if values[b] > values[best]:
            best = b
    return best


def likely(logits: Sequence[float], threshold: float, legal: Sequence[int]) -> list[int]:
    """BCQ's constraint (arXiv:1910.01708): more than `threshold` times as likely as the likeliest legal action."""
    g = softmax(logits, legal)
    return [b for b in legal if threshold == 0 or g[b] / max(g.values()) > threshold]


def of_critics(net: Net, row: Row, y: float, td: Difference) -> Tensor:
    """The mean over the critics of td(Q_k(s, a) - y): all of them learn the same target."""
    return mean([td(q[row.a] - y) for q in net.members("q", row.s)])


def double_target(net: Net, row: Row) -> float:
    """y = r + gamma Q'(s', argmax_b Q(s', b)) (arXiv:1509.06461)."""
    if not row.goes_on:
        return row.r
    best = argmax(net.constants("q", row.s_next), row.next_legal)
    return row.r + row.discount * net.constants("target_q", row.s_next)[best]


# CQL, arXiv:2006.04779: eq. 4 with CQL(H), the sum over actions taken exactly.


def cql(net: Net, rows: Sequence[Row], alpha: float, td: Difference = huber) -> Tensor:
    """alpha E[log sum_b exp Q(s, b) - Q(s, a)] + E[td(Q(s, a) - y)]; eq. 4 has td(u) = u^2 / 2."""
    terms = []
    for row in rows:
        gaps = [log_sum_exp(q, row.legal) - q[row.a] for q in net.members("q", row.s)]
        terms.append(alpha * mean(gaps) + of_critics(net, row, double_target(net, row), td))
    return mean(terms)


# IQL, arXiv:2110.06169: eqs. 5 to 7, of which 5 and 7 have the target critic.


def expectile_loss(u: Tensor, tau: float) -> Tensor:
    """L_2^tau(u) = |tau - 1(u < 0)| u^2."""
    return abs(tau - (1.0 if u.item() < 0 else 0.0)) * u * u


def iql(net: Net, rows: Sequence[Row], tau: float, beta: float, most: float, td: Difference = huber) -> Tensor:
    """L_V (eq. 5) + L_Q (eq. 6) + L_pi (eq. 7), the weight of the last at most `most`; eq. 6 has td(u) = u^2."""
    terms = []
    for row in rows:
        (v,) = net("v", row.s)
        judged = net.constants("target_q", row.s)[row.a]
        y = row.r + (row.discount * net.constants("v", row.s_next)[0] if row.goes_on else 0.0)
        exponent = beta * (judged - v.item())
        weight = math.exp(exponent) if exponent < math.log(most) else most
        policy = -weight * log_softmax(net("policy", row.s), row.legal)[row.a]
        terms.append(expectile_loss(judged - v, tau) + of_critics(net, row, y, td) + policy)
    return mean(terms)


# CRR, arXiv:2006.15134: eqs. 1 to 4 and algorithm 1; expectations over actions are sums.


def crr(
    net: Net, rows: Sequence[Row], f: str, advantage: str, beta: float, most: float, td: Difference = huber
) -> Tensor:
    """E[td(Q(s, a) - y)] - E[f log pi(a | s)], y = r + gamma sum_b pi'(b | s') Q'(s', b).

    f is 1(A > 0) ("binary") or exp(A / beta) up to `most` ("exp"). A is Q(s, a) less sum_b pi(b | s) Q(s, b) ("mean")
    or less the largest Q ("max"). The paper's maximum is over samples of pi; over all actions A is never positive, so
    that 1(A > 0) means the best action there.
    """
    terms = []
    for row in rows:
        y = row.r
        if row.goes_on:
            pi_next = softmax(net.constants("target_policy", row.s_next), row.next_legal)
            q_next = net.constants("target_q", row.s_next)
            y += row.discount * sum(pi_next[b] * q_next[b] for b in row.next_legal)
        q, pi = net.constants("q", row.s), softmax(net.constants("policy", row.s), row.legal)
        if advantage == "max":
            gain = q[row.a] - max(q[b] for b in row.legal)
            is_good = row.a == argmax(q, row.legal)
        else:
            gain = q[row.a] - sum(pi[b] * q[b] for b in row.legal)
            is_good = gain > 0
        weight = float(is_good) if f == "binary" else min(math.exp(gain / beta), most)
        terms.append(of_critics(net, row, y, td) - weight * log_softmax(net("policy", row.s), row.legal)[row.a])
    return mean(terms)


# REM, arXiv:1907.04543: eq. 4. `heads(outputs)[k][b]` is head k's value of action b.

Grouping = Callable[[Sequence], Sequence[Sequence]]


def rem(net: Net, rows: Sequence[Row], alphas: Sequence[float], heads: Grouping, td: Difference = huber) -> Tensor:
    """td(sum_k alpha_k Q_k(s, a) - r - gamma max_b sum_k alpha_k Q'_k(s', b)), alpha on the simplex."""
    terms = []
    for row in rows:
        y = row.r
        if row.goes_on:
            q_next = heads(net.constants("target_q", row.s_next))
            mixed = [sum(alpha * q_k[b] for alpha, q_k in zip(alphas, q_next, strict=True)) for b in row.next_legal]
            y += row.discount * max(mixed)
        q = heads(net("q", row.s))
        terms.append(td(total([alpha * q_k[row.a] for alpha, q_k in zip(alphas, q, strict=True)]) - y))
    return mean(terms)


# QR-DQN, arXiv:1710.10044: eqs. 9, 10 and algorithm 1. `quantiles(outputs)[b][i]` is the i-th quantile of action b.


def quantile_loss(theta: Sequence[Tensor], goals: Sequence[float], kappa: float) -> Tensor:
    """sum_i mean_j rho_i(goal_j - theta_i), rho_i(u) = |tau_i - 1(u < 0)| L_kappa(u), tau_i the midpoints."""
    terms = []
    for i, theta_i in enumerate(theta):
        tau = (2 * i + 1) / (2 * len(theta))
        differences = [goal - theta_i for goal in goals]
        terms.append(mean([abs(tau - (1.0 if u.item() < 0 else 0.0)) * huber(u, kappa) for u in differences]))
    return total(terms)


def quantile_goals(net: Net, row: Row, allowed: Sequence[int], quantiles: Grouping, *, double: bool) -> list[float]:
    """r + gamma theta'_j(s', a*), a* the action with the largest mean of theta' (of theta where double)."""
    theta = quantiles(net.constants("target_q", row.s_next))
    if not row.goes_on:
        return [row.r] * len(theta[0])
    chooser = quantiles(net.constants("q", row.s_next)) if double else theta
    best = argmax([sum(of_b) / len(of_b) for of_b in chooser], allowed)
    return [row.r + row.discount * theta_j for theta_j in theta[best]]


def qr_dqn(net: Net, rows: Sequence[Row], quantiles: Grouping, kappa: float, *, double: bool) -> Tensor:
    terms = []
    for row in rows:
        goals = quantile_goals(net, row, row.next_legal, quantiles, double=double)
        terms.append(quantile_loss(quantiles(net("q", row.s))[row.a], goals, kappa))
    return mean(terms)


def quantile_cql(net: Net, rows: Sequence[Row], quantiles: Grouping, kappa: float, alpha: float) -> Tensor:
    """CQL (arXiv:2006.04779, eq. 4 with CQL(H)) on double QR-DQN: Q(s, b) is the mean of b's quantiles."""
    terms = []
    for row in rows:
        goals = quantile_goals(net, row, row.next_legal, quantiles, double=True)
        found = quantiles(net("q", row.s))
        q = [mean(each) for each in found]
        gap = log_sum_exp(q, row.legal) - q[row.a]
        terms.append(quantile_loss(found[row.a], goals, kappa) + alpha * gap)
    return mean(terms)


def quantile_bcq(
    net: Net, rows: Sequence[Row], quantiles: Grouping, kappa: float, threshold: float, penalty: float, td_weight: float
) -> Tensor:
    """BCQ (arXiv:1910.01708, eqs. 10 and 11) whose value is a distribution: its mean chooses among the likely."""
    terms = []
    for row in rows:
        allowed = likely(net.constants("imitation", row.s_next), threshold, row.next_legal) if row.goes_on else []
        goals = quantile_goals(net, row, allowed, quantiles, double=True)
        td = quantile_loss(quantiles(net("q", row.s))[row.a], goals, kappa)
        logits = net("imitation", row.s)
        imitation = -log_softmax(logits, range(len(logits)))[row.a]
        terms.append(td_weight * td + imitation + penalty * mean([x * x for x in logits]))
    return mean(terms)


# Discrete SAC, arXiv:1910.07207: the soft value (eq. 10), the temperature (eq. 11), the policy (eq. 12).


def discrete_sac(
    net: Net, rows: Sequence[Row], log_alpha: Tensor, entropy_share: float | None, td: Difference = huber
) -> Tensor:
    """J_Q + J_pi + J(alpha), the last where `entropy_share` is given: the target entropy H is that share of the most.

    y = r + gamma sum_b pi(b | s') (min Q'(s', b) - alpha log pi(b | s')), pi the present policy;
    J_pi = sum_b pi(b | s) (alpha log pi(b | s) - min Q(s, b)); J(alpha) = sum_b pi(b | s) (-alpha (log pi(b | s) + H)).
    """
    alpha = log_alpha.exp().item()
    terms = []
    for row in rows:
        y = row.r
        if row.goes_on:
            pi = softmax(net.constants("policy", row.s_next), row.next_legal)
            q = net.constants("target_q", row.s_next)
            y += row.discount * sum(pi[b] * (q[b] - alpha * math.log(pi[b])) for b in row.next_legal)
        q = net.constants("q", row.s)
        log_pi = log_softmax(net("policy", row.s), row.legal)
        actor = total([p.exp() * (alpha * p - q[b]) for b, p in log_pi.items()])
        terms.append(of_critics(net, row, y, td) + actor)
        if entropy_share is not None:
            goal = entropy_share * math.log(len(row.legal))
            pi = {b: math.exp(p.item()) for b, p in log_pi.items()}
            terms[-1] = terms[-1] + total([pi[b] * -log_alpha.exp() * (math.log(pi[b]) + goal) for b in row.legal])
    return mean(terms)


# BVE, arXiv:2103.09575: the value of the behaviour policy, by the action that was logged next.


def bve(net: Net, rows: Sequence[Row], td: Difference = huber) -> Tensor:
    """E[td(Q(s, a) - r - gamma Q'(s', a'))], a' as logged; a row that goes on and has none teaches nothing."""
    terms = []
    for row in rows:
        if row.discount == 0:
            terms.append(of_critics(net, row, row.r, td))
        elif row.a_next >= 0:
            y = row.r + row.discount * net.constants("target_q", row.s_next)[row.a_next]
            terms.append(of_critics(net, row, y, td))
    return mean(terms)


# Training: Adam (arXiv:1412.6980, algorithm 1) and Polyak averaging, with loops.


@dataclass
class Adam:
    """One optimiser of named weights, with the paper's settings."""

    learning_rate: float
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)
    t: int = 0

    def step(self, weights: dict[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self.t += 1
        for name, g in gradients.items():
            self.first[name] = 0.9 * self.first.get(name, torch.zeros_like(g)) + 0.1 * g
            self.second[name] = 0.999 * self.second.get(name, torch.zeros_like(g)) + 0.001 * g * g
            m, v = self.first[name] / (1 - 0.9**self.t), self.second[name] / (1 - 0.999**self.t)
            weights[name] = weights[name] - self.learning_rate * m / (v.sqrt() + 1e-8)


def gradients_of(
    loss: Callable[[Weights], Tensor], weights: Weights, trained: Sequence[str]
) -> tuple[float, dict[str, Tensor]]:
    """The loss, and its derivative by each of the trained weights."""
    leaves = {name: w.detach().clone().requires_grad_(name in trained) for name, w in weights.items()}
    value = loss(leaves)
    found = torch.autograd.grad(value, [leaves[name] for name in trained], allow_unused=True)
    zeros = {name: torch.zeros_like(weights[name]) for name in trained}
    return value.item(), {name: zeros[name] if g is None else g for name, g in zip(trained, found, strict=True)}


def follow(weights: dict[str, Tensor], pairs: Sequence[tuple[str, str]], polyak: float) -> None:
    """theta' <- (1 - polyak) theta' + polyak theta, for every weight of each (online, target) pair of parts."""
    for online, target in pairs:
        for name in [name for name in weights if name.startswith(f"{target}.")]:
            weights[name] = (1 - polyak) * weights[name] + polyak * weights[online + name[len(target) :]]

"""Tianshou's DiscreteBCQ, DiscreteCQL and DiscreteCRR on vectors, for the table of scores.

Read in the sources of 2.0.1. It has no networks of its own for vectors: both columns have offrl's, an encoder that
the heads share. With `settings` "ours": offrl's learning rate, discount and Polyak targets (its own copies are turned
off by a period that never comes), and the weights of the losses that offrl's defaults have. Two differences are the
algorithms' own. CQL is on QR-DQN, here with the fewest quantiles that it takes, 2: its loss, a sum over target
quantiles, is then the Huber loss where both are equal, and the penalty weighs 1, as offrl's. CRR's critic has half the
squared error and adds CQL's penalty (weight 0 here, as in the paper; its default is 10). Its policy loss multiplies log
probabilities of shape [B] by weights of shape [B, 1], whose product is [B, B]: the mean of that is the mean log
probability times the mean weight, so that no action is weighted by its own advantage. And it sends gradients through
the weights into critic and policy, where the paper has constants. It takes a time limit for an end; with offrl's
settings it is told of terminations only. Its buffer draws by a generator of its own, which is seeded here: otherwise
all training seeds would see the same batches. With "defaults" all settings are the library's: among them a learning
rate of 0.001, 200 quantiles, a penalty of weight 10, and no target networks for CQL and CRR.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
import torch
from cell import HIDDEN, serve
from tianshou.algorithm.imitation.discrete_bcq import DiscreteBCQ, DiscreteBCQPolicy
from tianshou.algorithm.imitation.discrete_cql import DiscreteCQL
from tianshou.algorithm.imitation.discrete_crr import DiscreteCRR
from tianshou.algorithm.modelfree.qrdqn import QRDQNPolicy
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step

NEVER = 10**12
NUM_QUANTILES = {"ours": 2, "defaults": 200}
LIKE_OURS: dict[str, dict[str, Any]] = {
    "bcq": {"imitation_logits_penalty": 0.01},
    "cql": {"min_q_weight": 1.0},
    "crr": {"min_q_weight": 0.0, "policy_improvement_mode": "exp", "ratio_upper_bound": 20.0, "beta": 1.0},
}


class Agent:
    """One of them."""

    def __init__(self, cell: Mapping[str, Any], data: Mapping[str, np.ndarray]) -> None:
        self.versions = {"tianshou": version("tianshou")}
        self.batch_size, self.polyak = cell["batch_size"], None
        self.is_actor = cell["algorithm"] == "crr"
        settings: dict[str, Any] = {"optim": AdamOptimizerFactory()}
        if cell["settings"] == "ours":
            self.polyak = cell["polyak"]
            settings = {
                "optim": AdamOptimizerFactory(lr=cell["learning_rate"]),
                "gamma": cell["discount"],
                "target_update_freq": NEVER,
                **LIKE_OURS[cell["algorithm"]],
            }
        if cell["algorithm"] == "cql":
            settings["num_quantiles"] = NUM_QUANTILES[cell["settings"]]
        self.algorithm = make(cell["algorithm"], data["observations"].shape[1:], cell["num_actions"], settings)
        tells_limits = not (self.is_actor and cell["settings"] == "ours")
        self.buffer = fill(data, tells_limits=tells_limits)
        self.buffer._random_state = np.random.RandomState(cell["seed"])

    def update(self) -> None:
        """One gradient step."""
        with policy_within_training_step(self.algorithm.policy):
            self.algorithm.update(self.buffer, self.batch_size)
        if self.polyak is not None:
            self.algorithm._lagged_networks.polyak_parameter_update(self.polyak)

    def act(self, observation: np.ndarray) -> int:
        """The greedy action: of an actor the likeliest one."""
        with torch.no_grad():
            if self.is_actor:
                return int(self.algorithm.policy.actor(observation[None])[0].argmax(dim=1))
            return int(self.algorithm.policy(Batch(obs=observation[None], info=Batch())).act[0])


def make(name: str, shape: tuple[int, ...], num_actions: int, settings: Mapping[str, Any]) -> Any:
    """The algorithm, on networks of offrl's widths."""
    space = gymnasium.spaces.Discrete(num_actions)
    if name == "cql":
        net = Net(state_shape=shape, action_shape=num_actions, hidden_sizes=HIDDEN, num_atoms=settings["num_quantiles"])
        return DiscreteCQL(policy=QRDQNPolicy(model=net, action_space=space), **settings)
    features = Net(state_shape=shape, hidden_sizes=HIDDEN[:1])
    heads = [
        DiscreteActor(preprocess_net=features, action_shape=num_actions, hidden_sizes=HIDDEN[1:], softmax_output=False)
        for _ in range(2 if name == "bcq" else 1)
    ]
    if name == "bcq":
        policy = DiscreteBCQPolicy(model=heads[0], imitator=heads[1], action_space=space)
        return DiscreteBCQ(policy=policy, **settings)
    critic = DiscreteCritic(preprocess_net=features, hidden_sizes=HIDDEN[1:], last_size=num_actions)
    return DiscreteCRR(policy=DiscreteActorPolicy(actor=heads[0], action_space=space), critic=critic, **settings)


def fill(data: Mapping[str, np.ndarray], *, tells_limits: bool) -> ReplayBuffer:
    """The data as a buffer with next observations of its own; CRR asks `done` alone, which time limits set, too."""
    is_end = np.zeros(len(data["actions"]), bool)
    is_end[data["ends"]] = True
    terminated = data["terminated"].astype(bool)
    return ReplayBuffer.from_data(
        obs=data["observations"],
        act=data["actions"],
        rew=data["rewards"],
        terminated=terminated,
        truncated=is_end & ~terminated,
        done=is_end if tells_limits else terminated,
        obs_next=data["next_observations"],
    )


if __name__ == "__main__":
    serve(Agent)

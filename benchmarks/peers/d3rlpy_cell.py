"""d3rlpy's DiscreteBC, DoubleDQN, DiscreteBCQ and DiscreteCQL on vectors, for the table of scores.

Read in the sources of 2.8.1. With `settings` "ours": offrl's learning rate, discount, widths of layers and Polyak
targets (its own are copies every 8,000 updates; with a period that never comes one is left, after the first update),
and the weights of the losses that offrl's defaults have. BCQ's imitator shares all hidden layers with q, as is its
default; the loss of q is Huber's, too. With "defaults" all of these are the library's. In both, batches are of the size
that is asked for, and are drawn one transition at a time; the last step of an episode that was cut is not drawn, as it
has no next one there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import d3rlpy
import numpy as np
from cell import HIDDEN, serve
from d3rlpy.dataset import Episode, InfiniteBuffer, ReplayBuffer
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.torch_utility import soft_sync

NEVER = 10**12
CONFIGS: dict[str, Any] = {
    "bc": d3rlpy.algos.DiscreteBCConfig,
    "dqn": d3rlpy.algos.DoubleDQNConfig,
    "bcq": d3rlpy.algos.DiscreteBCQConfig,
    "cql": d3rlpy.algos.DiscreteCQLConfig,
}
LIKE_OURS: dict[str, dict[str, Any]] = {
    "bc": {"beta": 0.0},
    "dqn": {},
    "bcq": {"action_flexibility": 0.3, "beta": 0.01},
    "cql": {"alpha": 1.0},
}


class Agent:
    """One of them."""

    def __init__(self, cell: Mapping[str, Any], data: Mapping[str, np.ndarray]) -> None:
        d3rlpy.seed(cell["seed"])
        self.versions = {"d3rlpy": d3rlpy.__version__}
        self.batch_size, self.polyak = cell["batch_size"], None
        settings: dict[str, Any] = {"batch_size": self.batch_size}
        if cell["settings"] == "ours":
            settings |= {"learning_rate": cell["learning_rate"], **LIKE_OURS[cell["algorithm"]]}
            settings["encoder_factory"] = VectorEncoderFactory(hidden_units=[*HIDDEN])
            if cell["algorithm"] != "bc":
                self.polyak = cell["polyak"]
                settings |= {"gamma": cell["discount"], "target_update_interval": NEVER}
        self.buffer = ReplayBuffer(
            InfiniteBuffer(),
            episodes=list(episodes(data)),
            action_space=d3rlpy.ActionSpace.DISCRETE,
            action_size=cell["num_actions"],
        )
        self.algorithm = CONFIGS[cell["algorithm"]](**settings).create(device="cpu:0")
        self.algorithm.build_with_dataset(self.buffer)

    def update(self) -> None:
        """One gradient step."""
        self.algorithm.update(self.buffer.sample_transition_batch(self.batch_size))
        if self.polyak is not None:
            modules = self.algorithm.impl.modules
            soft_sync(modules.targ_q_funcs, modules.q_funcs, self.polyak)

    def act(self, observation: np.ndarray) -> int:
        """The greedy action."""
        return int(self.algorithm.predict(observation[None])[0])


def episodes(data: Mapping[str, np.ndarray]) -> Any:
    """The data's episodes."""
    start = 0
    for end in data["ends"].tolist():
        rows = slice(start, end + 1)
        start = end + 1
        if rows.stop - rows.start == 1 and not data["terminated"][end]:
            continue  # it has no transition there
        yield Episode(
            observations=data["observations"][rows],
            actions=data["actions"][rows, None],
            rewards=data["rewards"][rows, None],
            terminated=bool(data["terminated"][end]),
        )


if __name__ == "__main__":
    serve(Agent)

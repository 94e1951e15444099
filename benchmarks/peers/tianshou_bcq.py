"""Tianshou's DiscreteBCQ, in memory: `algorithm.update(buffer, batch_size)`, without its trainer's logging.

Read in the sources of 2.0.1. The network is the one of its Atari examples: DQNet's convolutions shared by two
DiscreteActors with 512 hidden units each. An update gathers from the buffer twice (s, then s' n steps on), runs the
convolutions five times (q and imitator each run them at s and at s', the target once more) and copies the target every
8,000 updates. Frames are scaled here, as float32 on the device: its own `scale_obs` divides uint8 to float64 first.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from protocol import Channel, common_options, serve
from tianshou.algorithm.imitation.discrete_bcq import DiscreteBCQ, DiscreteBCQPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from tianshou.env.atari.atari_network import DQNet
from tianshou.utils.net.discrete import DiscreteActor
from tianshou.utils.torch_utils import policy_within_training_step


class ScaledDQNet(DQNet):
    """DQNet on raw frames."""

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        """[B, 4, 96, 96] uint8 -> features."""
        device = next(self.parameters()).device
        return super().forward(torch.as_tensor(obs, device=device).float() / 255, state, info)


def fill(folder: Path) -> ReplayBuffer:
    """The data as a buffer that stacks when it samples."""
    data = {name: np.load(folder / f"{name}.npy") for name in ("actions", "rewards", "terminated", "truncated", "last")}
    observations = np.load(folder / "frames.npy")[data["last"]]
    buffer = ReplayBuffer(len(observations), stack_num=4, ignore_obs_next=True)
    for row in range(len(observations)):
        buffer.add(
            Batch(
                obs=observations[row],
                act=data["actions"][row],
                rew=float(data["rewards"][row]),
                terminated=bool(data["terminated"][row]),
                truncated=bool(data["truncated"][row]),
                info={},
            )
        )
    return buffer


def main() -> None:
    """Serves slices until stdin closes."""
    channel = Channel()
    options = common_options().parse_args()
    buffer = fill(options.folder)
    features = ScaledDQNet(4, 96, 96, options.num_actions, features_only=True)
    heads = [
        DiscreteActor(
            preprocess_net=features, action_shape=options.num_actions, hidden_sizes=[512], softmax_output=False
        )
        for _ in range(2)
    ]
    policy = DiscreteBCQPolicy(
        model=heads[0],
        imitator=heads[1],
        unlikely_action_threshold=0.3,
        action_space=gymnasium.spaces.Discrete(options.num_actions),
    )
    algorithm = DiscreteBCQ(
        policy=policy,
        optim=AdamOptimizerFactory(lr=3e-4),
        gamma=0.99,
        n_step_return_horizon=10,
        imitation_logits_penalty=0.01,
    ).to(options.device)

    def run(updates: int) -> None:
        with policy_within_training_step(policy):
            for _ in range(updates):
                algorithm.update(buffer, options.batch_size)  # reads the losses: it waits by itself

    about = {
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "versions": {"tianshou": version("tianshou"), "torch": torch.__version__},
    }
    serve(channel, about, run)


if __name__ == "__main__":
    main()

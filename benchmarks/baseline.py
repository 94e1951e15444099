"""Discrete BCQ as one would write it first: plain PyTorch, eager, float32. Imports nothing of offrl."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATE = 3e-4
THRESHOLD = 0.3
LOGIT_PENALTY = 0.01
POLYAK = 0.005


class Network(nn.Module):
    """The Nature network with two heads, for stacks of 96 x 96 frames. [B, 4, 96, 96] -> q, logits, each [B, A]."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()
        )
        self.q_head = nn.Sequential(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, num_actions))
        self.imitation_head = nn.Sequential(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, num_actions))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Q and the imitator's logits."""
        features = self.encoder(observation)
        return self.q_head(features), self.imitation_head(features)

    def q(self, observation: Tensor) -> Tensor:
        """Q alone, which is all that is asked of a target network."""
        q: Tensor = self.q_head(self.encoder(observation))
        return q


def greedy(q: Tensor, logits: Tensor) -> Tensor:
    """The best of the actions that are likely enough. [B]."""
    probability = logits.softmax(dim=1)
    unlikely = probability / probability.max(dim=1, keepdim=True).values <= THRESHOLD
    return q.masked_fill(unlikely, -torch.inf).argmax(dim=1)


class _Greedy(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return greedy(*self.network(pixels.float() / 128 - 1))


def greedy_policy(network: Network) -> torch.jit.ScriptModule:
    """Raw pixels [B, 4, 96, 96] -> actions [B], as TorchScript."""
    traced: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
        _Greedy(network), torch.zeros(2, 4, 96, 96)
    )
    return traced


class PlainBCQ:
    """The network, its target and the update."""

    def __init__(
        self,
        num_actions: int,
        device: torch.device | str = "cpu",
        learning_rate: float = LEARNING_RATE,
        polyak: float = POLYAK,
    ) -> None:
        self.device = torch.device(device)
        self.polyak = polyak
        self.network = Network(num_actions).to(self.device)
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    def loss(
        self, observation: Tensor, action: Tensor, reward: Tensor, discount: Tensor, next_observation: Tensor
    ) -> Tensor:
        """The loss on normalised float observations [B, 4, 96, 96]; `discount` is 0 where the episode terminated."""
        q, logits = self.network(observation)
        with torch.no_grad():
            next_q, next_logits = self.network(next_observation)
            next_action = greedy(next_q, next_logits).unsqueeze(1)
            target = reward + discount * self.target.q(next_observation).gather(1, next_action).squeeze(1)
        td_loss = F.smooth_l1_loss(q.gather(1, action.unsqueeze(1)).squeeze(1), target)
        loss: Tensor = td_loss + F.cross_entropy(logits, action) + LOGIT_PENALTY * logits.square().mean()
        return loss

    def update(self, *batch: Tensor) -> float:
        """One step on (observation, action, reward, discount, next_observation); frames uint8 or normalised."""
        observation, action, reward, discount, next_observation = (part.to(self.device) for part in batch)
        loss = self.loss(_normalised(observation), action, reward, discount, _normalised(next_observation))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for online, target in zip(self.network.parameters(), self.target.parameters(), strict=True):
                target.lerp_(online, self.polyak)
        return loss.item()


def _normalised(observation: Tensor) -> Tensor:
    return observation.float() / 128 - 1 if observation.dtype == torch.uint8 else observation

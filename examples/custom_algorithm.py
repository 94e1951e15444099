"""An algorithm of your own, complete: critic-regularised regression, beside behaviour cloning on CartPole.

The library has it, too, with all its options: offrl.CRR.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from offrl import BC, Algorithm, Batch, FitConfig, LearnerConfig, TorchPolicy, evaluate, fit, open_replay
from offrl.algorithms import Metrics, PolicyOutput, frozen_copy
from offrl.collection import collect
from offrl.envs import SCORE_SEEDS, drivers, make
from offrl.evaluation import Evaluation
from offrl.losses import bootstrap_target, select_action, td_loss
from offrl.networks import EncoderFactory, Head, feature_dim


@dataclass(frozen=True)
class Config:
    """Settings of CRR.

    Attributes:
        margin: An action is imitated where its advantage exceeds this.
    """

    margin: float = 0.0


class CRR(Algorithm[Config]):
    """Imitates what the critic finds better than the policy itself (Wang et al. 2020, arXiv:2006.15134, binary)."""

    name = "crr"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder, a head for the critic's q and one for the policy's logits; targets for encoder and q."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = Head(feature_dim(self.encoder), self.spec.num_actions)
        self.policy_head = Head(feature_dim(self.encoder), self.spec.num_actions)
        self.target_encoder, self.target_q_head = frozen_copy(self.encoder), frozen_copy(self.q_head)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Huber loss of q against r + discount E_pi[q'], plus -log pi(a | s) where q(s, a) - E_pi[q(s, .)] > margin."""
        features = self.encoder(batch.observation)
        q, logits = self.q_head(features), self.policy_head(features)
        with torch.no_grad():
            next_q = self.target_q_head(self.target_encoder(batch.next_observation))
            next_value = (self(batch.next_observation).logits.softmax(dim=1) * next_q).sum(dim=1)
            advantage = select_action(q, batch.action) - (logits.softmax(dim=1) * q).sum(dim=1)
            imitated = (advantage > self.config.margin).float()
        td = td_loss(q, batch.action, bootstrap_target(batch.reward, batch.discount, next_value))
        imitation = (imitated * nn.functional.cross_entropy(logits, batch.action, reduction="none")).mean()
        return td + imitation, {"td_loss": td, "imitated": imitated.mean()}

    def forward(self, observation: Tensor) -> PolicyOutput:
        """The policy's logits rank the actions and rule out the unlikely."""
        logits = self.policy_head(self.encoder(observation))
        return PolicyOutput(scores=logits, logits=logits)

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """The Learner moves these after their online networks."""
        return [(self.encoder, self.target_encoder), (self.q_head, self.target_q_head)]


def main(transitions: int = 20_000, updates: int = 5_000, episodes: int = 20) -> dict[str, Evaluation]:
    make_env, data = partial(make, "CartPole-v1"), Path("data") / f"cartpole-mixed-{transitions}"
    collect(make_env, drivers.CartPoleMixture(), data, transitions=transitions, workers=1)
    replay = open_replay(data, n_step=5, discount=0.99, reward_scale=0.1)
    settings = LearnerConfig(learning_rate=1e-3, schedule="cosine", average_decay=0.999)
    evaluations = {}
    for algorithm in (CRR(replay.spec), BC(replay.spec)):
        policy = TorchPolicy(fit(algorithm, replay, FitConfig(updates=updates), learner=settings).snapshot())
        evaluations[algorithm.name] = evaluate(policy, make_env, SCORE_SEEDS[:episodes], workers=0)
        print(f"{algorithm.name}: {evaluations[algorithm.name].mean} of 500 at most")
    return evaluations


if __name__ == "__main__":
    main()

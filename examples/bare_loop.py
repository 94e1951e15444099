"""All of offline training in the open, without `fit` and `Learner`: discrete BCQ on logged play of CartPole.

Read this first. `Learner` makes this update, too, and adds precision, compiling, averaged weights and exact resume.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from offrl import MLPEncoder, evaluate, open_replay
from offrl.collection import collect
from offrl.envs import SCORE_SEEDS, default_behaviour, make
from offrl.losses import double_q_target, greedy_actions, imitation_loss, likely_actions, td_loss
from offrl.networks import Head, seeded


def main(transitions: int = 20_000, updates: int = 2_000, episodes: int = 20) -> float:
    # 1. Data: played once by scripted drivers, written to shards, and read as n-step transitions.
    make_env, data = partial(make, "CartPole-v1"), Path("data") / f"cartpole-mixed-{transitions}"
    collect(make_env, default_behaviour("CartPole-v1"), data, transitions=transitions, workers=1)
    replay = open_replay(data, n_step=5, discount=0.99, reward_scale=0.1)

    # 2. Networks for q and for the imitator's logits, [B, A] each, and a slower copy that judges the next action.
    def make_network() -> torch.nn.Sequential:
        encoder = MLPEncoder(replay.spec.observation_shape)
        return torch.nn.Sequential(encoder, Head(encoder.feature_dim, replay.spec.num_actions))

    with seeded(0):
        q_network, imitator, target_network = make_network(), make_network(), make_network().requires_grad_(False)
    target_network.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam([*q_network.parameters(), *imitator.parameters()], lr=1e-3)

    # 3. The updates. The batch of each is a pure function of the seed and the update's number.
    for step in range(updates):
        batch = replay.gather(replay.indices(step, batch_size=128))
        observation, next_observation = map(replay.spec.normalise, (batch.observation, batch.next_observation))
        with torch.no_grad():
            allowed = likely_actions(imitator(next_observation), threshold=0.3)
            next_q, next_q_target = q_network(next_observation), target_network(next_observation)
            target = double_q_target(batch.reward, batch.discount, next_q, next_q_target, allowed)
        td = td_loss(q_network(observation), batch.action, target)
        loss = td + imitation_loss(imitator(observation), batch.action)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_([*target_network.parameters()], [*q_network.parameters()], 0.005)
        if step % 500 == 0:
            print(f"update {step}: loss {loss.item():.4f}")

    # 4. Acting: raw observations [N, ...] to actions [N].
    @torch.no_grad()
    def policy(observation: np.ndarray, action_mask: np.ndarray | None = None) -> np.ndarray:
        seen = replay.spec.normalise(torch.from_numpy(observation))
        return greedy_actions(q_network(seen), imitator(seen), threshold=0.3).numpy()

    score = evaluate(policy, make_env, SCORE_SEEDS[:episodes], workers=0).mean
    print(f"score {score} of 500 at most")
    return score.mean


if __name__ == "__main__":
    main()

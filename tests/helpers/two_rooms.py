"""A task of two rooms whose values anybody can compute, and data of it by a uniform behaviour.

In room A action 0 leads to B, and action 1 ends the episode with reward 0.3; in B action 0 ends it with reward 1, and
action 1 leads back to A. Episodes begin in A.
"""

import numpy as np
from naive_replay import save_frames

from offrl import TaskSpec
from offrl.replay import open_replay
from offrl.shards import Episode

SPEC = TaskSpec.vector(2, ("go", "stop"))
DISCOUNT = 0.9
A, B = np.eye(2, dtype=np.float32)
VALUES = {  # of A and of B
    "always 0": (0.9, 1.0),
    "always 1": (0.3, 0.27),
    "uniform": (0.375 / 0.7975, 0.5 + 0.45 * 0.375 / 0.7975),
}
POLICIES = {
    "always 0": lambda observations: np.zeros(len(observations), np.int64),
    "always 1": lambda observations: np.ones(len(observations), np.int64),
    "uniform": lambda observations: np.full((len(observations), 2), 0.5),
}


def episode(rng, longest=20):
    """Played by a uniform behaviour; cut after `longest` steps."""
    observations, actions, rewards = [A], [], []
    while len(actions) < longest:
        action = int(rng.integers(2))
        is_in_a = observations[-1][0] == 1
        reward = 0.3 * (is_in_a and action == 1) + 1.0 * (not is_in_a and action == 0)
        actions.append(action)
        rewards.append(reward)
        observations.append(B if is_in_a else A)
        if reward > 0:
            break
    has_ended = rewards[-1] > 0
    return Episode(
        observations=np.stack(observations),
        actions=np.array(actions),
        rewards=np.array(rewards, np.float32),
        terminated=has_ended,
        truncated=not has_ended,
        behaviour_probability=np.full(len(actions), 0.5, np.float32),
    )


def two_rooms(folder, num_episodes=300, longest=20, **settings):
    """A replay of it."""
    rng = np.random.default_rng(0)
    save_frames(folder, [[episode(rng, longest) for _ in range(num_episodes)]], SPEC)
    return open_replay(folder, progress=False, discount=DISCOUNT, **settings)

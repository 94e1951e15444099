"""Slow, obvious transitions straight from episodes, to check the replay against; and writers of test data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from offrl import TaskSpec
from offrl.shards import Episode, Manifest, write_shard

NAMES = ("left", "right", "jump")


@dataclass
class Row:
    observation: np.ndarray
    action: int
    reward: float
    next_observation: np.ndarray
    terminated: bool
    follows: bool  # continues the row before it
    channels: int = 1  # planes of one frame


def stack_at(frames, index, stack):
    """The stack whose newest frame is `index`, oldest first, the first frame repeated where there is none older."""
    found = [frames[max(index - age, 0)] for age in reversed(range(stack))]
    return np.stack(found) if frames.ndim == 3 else np.concatenate(found)


def observation_at(episode, index, stack):
    if episode.observations.ndim == 2:
        return episode.observations[index]
    return stack_at(episode.observations, index, stack)


def rows_of(episodes, stack):
    rows = []
    for episode in episodes:
        for step in range(len(episode.actions)):
            last_step = step == len(episode.actions) - 1
            rows.append(
                Row(
                    observation=observation_at(episode, episode.leading + step, stack),
                    action=int(episode.actions[step]),
                    reward=float(episode.rewards[step]),
                    next_observation=observation_at(episode, episode.leading + step + 1, stack),
                    terminated=episode.terminated and last_step,
                    follows=step > 0,
                    channels=episode.observations.shape[1] if episode.observations.ndim == 4 else 1,
                )
            )
    return rows


def n_step_of(rows, index, n_step, discount):
    """(reward, discount, next observation) of the return that starts at `index`."""
    reward, weight = 0.0, 1.0
    while True:
        row = rows[index]
        reward += weight * row.reward
        weight *= discount
        n_step -= 1
        if row.terminated:
            return reward, 0.0, row.next_observation
        if n_step == 0 or index + 1 == len(rows) or not rows[index + 1].follows:
            return reward, weight, row.next_observation
        index += 1


def save_frames(directory: Path, shards, spec, **settings):
    """Writes lists of episodes as the frames layout."""
    records = [write_shard(directory / f"shard-{i:03}.npz", episodes) for i, episodes in enumerate(shards)]
    Manifest(spec, tuple(records), {"id": "test"}, {"name": "test"}, **settings).save(directory)


def stacked_members(rows):
    return {
        "states": np.stack([row.observation for row in rows]),
        "actions": np.array([row.action for row in rows]),
        "next_states": np.stack([row.next_observation for row in rows]),
        "rewards": np.array([row.reward for row in rows], np.float32),
        "dones": np.array([row.terminated for row in rows]),
    }


def save_stacked(directory: Path, shards, stack):
    """Writes lists of episodes as the stacked layout."""
    directory.mkdir(parents=True, exist_ok=True)
    for i, episodes in enumerate(shards):
        np.savez(directory / f"shard-{i:03}.npz", **stacked_members(rows_of(episodes, stack)))


def make_episode(seed, steps=3, *, pixels=1, terminated=True, truncated=None, leading=0, high=256, **fields):
    generator = np.random.default_rng(seed)
    if pixels:  # the number of channels
        frame = (2, 3) if pixels == 1 else (pixels, 2, 3)
        observations = generator.integers(high, size=(leading + steps + 1, *frame), dtype=np.uint8)
    else:
        observations = generator.normal(size=(steps + 1, 4)).astype(np.float32)
    return Episode(
        observations=observations,
        actions=generator.integers(len(NAMES), size=steps),
        rewards=generator.normal(size=steps).astype(np.float32),
        terminated=terminated,
        truncated=not terminated if truncated is None else truncated,
        leading=leading,
        **fields,
    )


def make_spec(stack=2, *, pixels=1):
    """The task of frames of `pixels` channels, 0 for vectors."""
    pixels = int(pixels)
    return TaskSpec.pixels((stack * pixels, 2, 3), NAMES, channels=pixels) if pixels else TaskSpec.vector(4, NAMES)


@st.composite
def datasets(draw):
    """(channels, stack, shards of episodes): length 1, cut, mid-episode and nearly constant episodes included."""
    pixels = draw(st.sampled_from([0, 1, 3]))
    stack = draw(st.integers(1, 4)) if pixels else 1
    episodes = st.builds(
        make_episode,
        st.integers(0, 2**32 - 1),
        st.integers(1, 8),
        pixels=st.just(pixels),
        terminated=st.booleans(),
        truncated=st.booleans(),  # with terminated or without; an episode that just stops counts as truncated
        leading=st.integers(0, stack - 1),
        high=st.sampled_from([2, 256]),  # with two gray levels, frames of different times are often equal
    )
    return pixels, stack, draw(st.lists(st.lists(episodes, min_size=1, max_size=3), min_size=1, max_size=3))

"""The log of a small game as a sound logger writes it; tests spoil it in the ways of real ones."""

import warnings

import numpy as np
from naive_replay import rows_of, stacked_members

from offrl import TaskSpec
from offrl.datasets import inspect_dataset
from offrl.replay import ingest
from offrl.shards import Episode

SIZE = 24
STEPS = (9, 14, 11, 17, 8, 12)
SPEC = TaskSpec.pixels((4, SIZE, SIZE), ("left", "right", "jump"))


def play(lengths=STEPS, *, terminated=True):
    """Episodes in which a white dot runs before a moving landscape; every step costs, and the goal pays 10."""
    rng = np.random.default_rng(0)
    episodes = []
    for length in lengths:
        landscape = rng.integers(200, size=(SIZE, 4 * SIZE), dtype=np.uint8)
        actions = rng.permutation(np.arange(length) % 3)
        positions = np.cumsum([rng.integers(SIZE), *np.array([-1, 1, 2])[actions]]) % SIZE
        frames = np.stack([np.roll(landscape, step, axis=1)[:, :SIZE] for step in range(length + 1)])
        frames[np.arange(length + 1), 3, positions] = 255
        rewards = rng.choice([-0.1, -0.3], size=length).astype(np.float32)
        if terminated:
            rewards[-1] = 10
        episodes.append(Episode(frames, actions, rewards, terminated, not terminated))
    return episodes


def log_of(episodes, stack=4):
    """The members of a stacked shard."""
    return stacked_members(rows_of(episodes, stack))


def lines(folder, *shards, spec=None, dones="terminated"):
    """What `offrl inspect` warns about, one line each."""
    folder.mkdir(exist_ok=True)
    for index, members in enumerate(shards):
        np.savez(folder / f"shard-{index}.npz", **members)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the lines of ingest, which are seen again
        store = ingest(folder, spec=spec, dones=dones, progress=False)
    return list(inspect_dataset(store).warnings)

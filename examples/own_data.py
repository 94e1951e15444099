"""From your own numpy arrays to a policy, in each of the two layouts that offrl reads.

python examples/own_data.py

The logs here are of a game: a ball falls, a paddle below moves left, stays or moves right, and the reward is 1 where it
catches the ball. It was played at random; what is learned from that catches nearly every ball.

Vectors instead of pictures: `TaskSpec.vector(D, names)`, float32 observations of shape [D], and no stacks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import offrl
from offrl.shards import write_dataset

SIZE, CELL, STACK = 6, 6, 2  # squares a side, pixels a square, frames in an observation
SPEC = offrl.TaskSpec.pixels((STACK, SIZE * CELL, SIZE * CELL), ("left", "stay", "right"))


class Game(NamedTuple):
    """The log of one game of T steps."""

    frames: NDArray[np.uint8]  # [T + 1, H, W]: the last one is what the last action led to
    actions: NDArray[np.int64]  # [T]
    rewards: NDArray[np.float32]  # [T]
    terminated: NDArray[np.bool_]  # [T]: true at the last step


def draw(row: int, column: int, paddle: int) -> NDArray[np.uint8]:
    """The gray picture [H, W] of the ball at (row, column) and the paddle."""
    board = np.zeros((SIZE, SIZE), np.uint8)
    board[SIZE - 1, paddle] = 128
    board[row, column] = 255
    return board.repeat(CELL, axis=0).repeat(CELL, axis=1)


def stacks(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Observations [T, S, H, W] of frames [T, H, W]: oldest first; the first one stands for what came before it."""
    ages = np.arange(STACK)[::-1]
    return np.take(frames, np.maximum(np.arange(len(frames))[:, None] - ages, 0), axis=0)


def play(policy: Callable[[NDArray[np.uint8]], NDArray[np.int64]], rng: np.random.Generator) -> Game:
    """One game. A policy takes observations [N, S, H, W] to actions [N]; here N is 1."""
    column, paddle = rng.integers(SIZE, size=2)
    frames, actions = [draw(0, column, paddle)], []
    for row in range(1, SIZE):
        action = int(policy(stacks(np.array(frames[-STACK:]))[-1:])[0])
        paddle = min(max(paddle + action - 1, 0), SIZE - 1)
        frames.append(draw(row, column, paddle))
        actions.append(action)
    rewards = np.zeros(len(actions), np.float32)
    rewards[-1] = paddle == column
    return Game(np.array(frames), np.array(actions), rewards, np.arange(len(actions)) == len(actions) - 1)


def write_stacked(games: list[Game], directory: Path) -> None:
    """The stacked layout, which many loggers write: any number of .npz files of these five arrays, and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    observations = [stacks(game.frames) for game in games]
    np.savez_compressed(
        directory / "log-000.npz",
        states=np.concatenate([stack[:-1] for stack in observations]),
        actions=np.concatenate([game.actions for game in games]),
        next_states=np.concatenate([stack[1:] for stack in observations]),
        rewards=np.concatenate([game.rewards for game in games]),
        dones=np.concatenate([game.terminated for game in games]),
    )


def write_frames(games: list[Game], directory: Path) -> None:
    """The frames layout: each frame once, terminated apart from truncated, and a manifest that says what it is."""
    write_dataset(
        directory,
        observations=np.concatenate([game.frames for game in games]),
        actions=np.concatenate([game.actions for game in games]),
        rewards=np.concatenate([game.rewards for game in games]),
        terminated=np.concatenate([game.terminated for game in games]),
        action_names=SPEC.action_names,
        stack=STACK,
    )


def train(directory: Path, updates: int) -> offrl.TorchPolicy:
    """A policy from the data in `directory`, whichever its layout."""
    # The stacked layout does not say what the actions are called, so the spec does; a manifest's has to be the same.
    replay = offrl.open_replay(directory, spec=SPEC, discount=0.95)
    algorithm = offrl.DiscreteBCQ(replay.spec, encoder=offrl.CompactEncoder)
    settings = offrl.LearnerConfig(learning_rate=1e-3, schedule="cosine", polyak=0.05)
    learner = offrl.fit(algorithm, replay, offrl.FitConfig(updates=updates), learner=settings)
    return offrl.TorchPolicy(learner.snapshot())


def main(num_games: int = 1_000, updates: int = 1_500, directory: Path = Path("data/catch")) -> dict[str, float]:
    rng = np.random.default_rng(0)
    games = [play(lambda observations: rng.integers(3, size=len(observations)), rng) for _ in range(num_games)]
    shutil.rmtree(directory, ignore_errors=True)  # of an earlier run: no writer of ours replaces a dataset
    caught = {"the data": float(np.mean([game.rewards[-1] for game in games]))}
    for layout, write in (("stacked", write_stacked), ("frames", write_frames)):
        write(games, directory / layout)
        policy = train(directory / layout, updates)
        test = np.random.default_rng(1)
        caught[f"BCQ from the {layout} layout"] = float(np.mean([play(policy, test).rewards[-1] for _ in range(200)]))
    for name, share in caught.items():
        print(f"{name:30}{share:6.1%} of the balls caught")
    return caught


if __name__ == "__main__":
    main()

"""The usual course notebook: compressed npz of float32 stacks, a Dataset, a DataLoader with one worker, eager BCQ.

One file is read at a time and shuffled within itself, since all of them would not fit into memory; next states are one
step on. The files are written beside the data, once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from protocol import LIKE_OURS, Channel, add_policy_options, common_options, serve
from torch.utils.data import DataLoader, IterableDataset

sys.path.append(str(Path(__file__).resolve().parents[1]))
from baseline import PlainBCQ, greedy_policy

ROWS_A_FILE = 1000
DISCOUNT = 0.99


def write_files(folder: Path, target: Path) -> None:
    """The transitions as such notebooks log them: `states`, `actions`, `next_states`, `rewards`, `dones`."""
    names = ("actions", "rewards", "terminated", "last", "first", "next_last", "next_first")
    data = {name: np.load(folder / f"{name}.npy") for name in names}
    frames = np.load(folder / "frames.npy", mmap_mode="r")

    def stacks(last: np.ndarray, first: np.ndarray) -> np.ndarray:
        windows = np.maximum(last[:, None] - np.arange(3, -1, -1), first[:, None])
        return frames[windows].astype(np.float32) / 128 - 1

    target.mkdir(exist_ok=True)
    for start in range(0, len(data["actions"]), ROWS_A_FILE):
        rows = slice(start, start + ROWS_A_FILE)
        partial = target / f"{start:07d}.partial.npz"
        np.savez_compressed(
            partial,
            states=stacks(data["last"][rows], data["first"][rows]),
            actions=data["actions"][rows],
            next_states=stacks(data["next_last"][rows], data["next_first"][rows]),
            rewards=data["rewards"][rows],
            dones=data["terminated"][rows],
        )
        partial.rename(target / f"{start:07d}.npz")
    (target / "complete").touch()


class Demonstrations(IterableDataset):
    """Endless (state, action, reward, discount, next_state), file by file."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.int64, np.float32, np.float32, np.ndarray]]:
        """One transition after the other."""
        rng = np.random.default_rng(0)
        while True:
            for index in rng.permutation(len(self.files)):
                with np.load(self.files[index]) as archive:
                    data = {name: archive[name] for name in archive.files}
                for row in rng.permutation(len(data["actions"])):
                    yield (
                        data["states"][row],
                        data["actions"][row],
                        data["rewards"][row],
                        np.float32(0 if data["dones"][row] else DISCOUNT),
                        data["next_states"][row],
                    )


def main() -> None:
    """Serves slices until stdin closes."""
    channel = Channel()
    parser = common_options()
    add_policy_options(parser)
    parser.add_argument("--batches", action="store_true", help="only draw them, update nothing")
    parser.add_argument("--prepare", action="store_true", help="only write the files")
    options = parser.parse_args()
    files = options.folder / "notebook"
    if not (files / "complete").exists():
        write_files(options.folder, files)
    if options.prepare:
        return
    loader = DataLoader(Demonstrations(sorted(files.glob("*.npz"))), batch_size=options.batch_size, num_workers=1)
    batches = iter(loader)
    settings = {name: LIKE_OURS[name] for name in ("learning_rate", "polyak")} if options.like_ours else {}
    reward_scale = LIKE_OURS["reward_scale"] if options.like_ours else 1.0
    agent = PlainBCQ(options.num_actions, options.device, **settings)

    def run(updates: int) -> None:
        for _ in range(updates):
            observation, action, reward, discount, next_observation = next(batches)
            if not options.batches:
                agent.update(observation, action, reward * reward_scale, discount, next_observation)

    def afterwards() -> None:
        if options.policy is not None:
            greedy_policy(agent.network).save(str(options.policy))

    about = {
        "parameters": sum(parameter.numel() for parameter in agent.network.parameters()),
        "versions": {"torch": torch.__version__},
    }
    serve(channel, about, run, afterwards)


if __name__ == "__main__":
    main()

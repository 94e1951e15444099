"""d3rlpy's DiscreteBCQ, in memory: its sampling and its update, without the logging of its `fit`.

Read in the sources of 2.8.1. Encoder, hidden layer included, shared by q and imitator (`share_encoder`, its default):
fewer weights than two hidden layers have. An update runs the encoder five times: at s for q and for the imitator, at s'
for both again, and in the target; the target is copied every 8,000 updates. A batch is picked one transition at a time,
stacked by its picker, cast to float32, divided by 255. It cannot combine n-step returns with stacking, so n is 1.
"""

from __future__ import annotations

from pathlib import Path

import d3rlpy
import numpy as np
import torch
from d3rlpy.dataset import Episode, FrameStackTransitionPicker, InfiniteBuffer, ReplayBuffer
from protocol import Channel, common_options, serve


def episodes(folder: Path) -> list[Episode]:
    """Each with one frame a step, as the picker stacks them."""
    data = {
        name: np.load(folder / f"{name}.npy") for name in ("actions", "rewards", "terminated", "segment_end", "last")
    }
    frames = np.load(folder / "frames.npy")
    ends = np.unique(data["segment_end"])
    found = []
    for start, end in zip(np.concatenate([[0], ends[:-1] + 1]), ends, strict=True):
        rows = slice(start, end + 1)
        found.append(
            Episode(
                observations=frames[data["last"][rows]][:, None],
                actions=data["actions"][rows, None],
                rewards=data["rewards"][rows, None],
                terminated=bool(data["terminated"][end]),
            )
        )
    return found


def main() -> None:
    """Serves slices until stdin closes."""
    channel = Channel()
    parser = common_options()
    parser.add_argument("--compile", action="store_true", help="its compile_graph: CUDA graphs; CUDA only")
    parser.add_argument("--batches", action="store_true", help="only draw them, update nothing")
    options = parser.parse_args()
    buffer = ReplayBuffer(
        InfiniteBuffer(),
        transition_picker=FrameStackTransitionPicker(n_frames=4),
        episodes=episodes(options.folder),
        action_space=d3rlpy.ActionSpace.DISCRETE,
        action_size=options.num_actions,
    )
    config = d3rlpy.algos.DiscreteBCQConfig(
        batch_size=options.batch_size,
        learning_rate=3e-4,
        gamma=0.97,
        action_flexibility=0.3,
        beta=0.01,
        observation_scaler=d3rlpy.preprocessing.PixelObservationScaler(),
        compile_graph=options.compile,
    )
    algorithm = config.create(device=options.device)
    algorithm.build_with_dataset(buffer)

    def run(updates: int) -> None:
        for _ in range(updates):
            if options.batches:
                buffer.sample_transition_batch(options.batch_size)
                continue
            algorithm.update(buffer.sample_transition_batch(options.batch_size))  # reads the losses: it waits by itself

    groups = algorithm.impl.q_function_optim.param_groups
    parameters = sum(parameter.numel() for group in groups for parameter in group["params"])
    about = {"parameters": parameters, "versions": {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}}
    serve(channel, about, run)


if __name__ == "__main__":
    main()

"""d3rlpy's DiscreteBCQ, in memory: its sampling and its update, without the logging of its `fit`.

Read in the sources of 2.8.1. Encoder, hidden layer included, shared by q and imitator (`share_encoder`, its default):
fewer weights than two hidden layers have. An update runs the encoder five times: at s for q and for the imitator, at s'
for both again, and in the target; the target is copied every 8,000 updates. A batch is picked one transition at a time,
stacked by its picker, cast to float32, divided by 255. It cannot combine n-step returns with stacking, so n is 1.
With `--defaults` learning rate, discount, batch size and the weight of the logits' penalty are the library's, too; with
`--like-ours` the learning rate, which stays constant, the Polyak targets and the scale of rewards are the CarRacing
example's.
"""

from __future__ import annotations

from pathlib import Path

import d3rlpy
import numpy as np
import torch
from d3rlpy.dataset import Episode, FrameStackTransitionPicker, InfiniteBuffer, ReplayBuffer
from d3rlpy.torch_utility import soft_sync
from protocol import LIKE_OURS, Channel, add_policy_options, common_options, serve

NEVER = 10**12


def episodes(folder: Path, reward_scale: float = 1.0) -> list[Episode]:
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
                rewards=data["rewards"][rows, None] * np.float32(reward_scale),
                terminated=bool(data["terminated"][end]),
            )
        )
    return found


def main() -> None:
    """Serves slices until stdin closes."""
    channel = Channel()
    parser = common_options()
    add_policy_options(parser)
    parser.add_argument("--compile", action="store_true", help="its compile_graph: CUDA graphs; CUDA only")
    parser.add_argument("--batches", action="store_true", help="only draw them, update nothing")
    parser.add_argument("--defaults", action="store_true", help="the library's own settings, its batch size among them")
    options = parser.parse_args()
    buffer = ReplayBuffer(
        InfiniteBuffer(),
        transition_picker=FrameStackTransitionPicker(n_frames=4),
        episodes=episodes(options.folder, LIKE_OURS["reward_scale"] if options.like_ours else 1.0),
        action_space=d3rlpy.ActionSpace.DISCRETE,
        action_size=options.num_actions,
    )
    settings = {"batch_size": options.batch_size, "learning_rate": 3e-4, "gamma": 0.99}
    settings |= {"action_flexibility": 0.3, "beta": 0.01}
    if options.like_ours:
        settings |= {"learning_rate": LIKE_OURS["learning_rate"], "target_update_interval": NEVER}
    config = d3rlpy.algos.DiscreteBCQConfig(
        **({} if options.defaults else settings),
        observation_scaler=d3rlpy.preprocessing.PixelObservationScaler(),
        compile_graph=options.compile,
    )
    algorithm = config.create(device=options.device)
    algorithm.build_with_dataset(buffer)

    def run(updates: int) -> None:
        for _ in range(updates):
            batch = buffer.sample_transition_batch(config.batch_size)
            if options.batches:
                continue
            algorithm.update(batch)  # reads the losses: it waits by itself
            if options.like_ours:
                modules = algorithm.impl.modules
                soft_sync(modules.targ_q_funcs, modules.q_funcs, LIKE_OURS["polyak"])

    def afterwards() -> None:
        if options.policy is not None:
            algorithm.save_policy(str(options.policy))

    groups = algorithm.impl.q_function_optim.param_groups
    parameters = sum(parameter.numel() for group in groups for parameter in group["params"])
    about = {"parameters": parameters, "versions": {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}}
    serve(channel, about, run, afterwards)


if __name__ == "__main__":
    main()

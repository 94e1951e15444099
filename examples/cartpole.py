"""CartPole in 90 seconds: collect, look, train, evaluate, export, and act with the exported file.

python examples/cartpole.py
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import offrl
from offrl import envs
from offrl.collection import collect
from offrl.datasets import inspect_dataset, sample_stacks
from offrl.envs import SCORE_SEEDS, CartPoleMixture
from offrl.evaluation import Evaluation
from offrl.policies import verify_onnx
from offrl.runs import create_run


def main(transitions: int = 20_000, updates: int = 5_000, episodes: int = 20) -> Evaluation:
    make_env = partial(envs.make, "CartPole-v1")

    # Drivers from hopeless to good, one per episode. A second call finds the data and returns at once.
    data = Path("data") / f"cartpole-mixed-{transitions}"
    collect(make_env, CartPoleMixture(), data, transitions=transitions, workers=1)
    replay = offrl.open_replay(data, n_step=5, discount=0.99, reward_scale=0.1)
    print(inspect_dataset(replay.store).to_text())

    run = create_run("runs", "cartpole")
    learner = offrl.fit(
        offrl.DiscreteBCQ(replay.spec, offrl.DiscreteBCQConfig(threshold=0.3)),
        replay,
        offrl.FitConfig(updates=updates),
        learner=offrl.LearnerConfig(learning_rate=1e-3, schedule="cosine", average_decay=0.999),
        run=run,
    )
    bcq = learner.snapshot()  # the averaged weights

    seeds = SCORE_SEEDS[:episodes]  # no episode of the data began like these
    evaluation = offrl.evaluate(offrl.TorchPolicy(bcq), make_env, seeds, workers=0)
    print(f"\nBCQ: {evaluation.mean} over {episodes} episodes, of 500 at most")

    path = offrl.export_onnx(bcq, run / "bcq.onnx", contract="uint8")
    observations, _ = sample_stacks(replay.store, 1000, seed=0)
    check = verify_onnx(path, bcq, observations)
    policy = offrl.OnnxPolicy(path)
    print(f"{path}: {check.num_disagreements} of {check.num_observations} actions differ from torch's")
    print("first actions:", [replay.spec.action_names[action] for action in policy(observations[:3])])
    return evaluation


if __name__ == "__main__":
    main()

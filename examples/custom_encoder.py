"""An encoder of your own, trained on CarRacing, saved, loaded and exported.

python examples/custom_encoder.py

On the command line, from examples/: offrl train DATA --encoder custom_encoder:PlaceEncoder
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import offrl
from offrl.collection import RECIPES
from offrl.datasets import sample_stacks
from offrl.policies import Verification, verify_onnx
from offrl.runs import create_run, latest_checkpoint, load_policy


class PlaceEncoder(nn.Module):
    """Convolutions that also know where in the picture they look: a learned map is added to what the first one sees.

    Any nn.Module is an encoder that is made from the shape of an observation, takes normalised observations
    [B, C, H, W] to features [B, feature_dim], and says `feature_dim`. [B, C, H, W] -> [B, feature_dim].
    """

    def __init__(self, observation_shape: tuple[int, ...], channels: int = 32) -> None:
        super().__init__()
        self.near = nn.Conv2d(observation_shape[0], channels, kernel_size=8, stride=4)
        self.far = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(2 * channels, 2 * channels, kernel_size=3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            seen = self.near(torch.zeros(1, *observation_shape))
            self.feature_dim = self.far(seen).shape[1]
        self.place = nn.Parameter(torch.zeros_like(seen))

    def forward(self, observation: Tensor) -> Tensor:
        """The features of each observation."""
        features: Tensor = self.far(torch.relu(self.near(observation) + self.place))
        return features


def main(transitions: int = 2_000, updates: int = 100) -> Verification:
    data = Path("data") / f"carracing-mixed-{transitions // 1000}k"
    RECIPES["carracing/mixed"].collect(data, transitions=transitions)
    replay = offrl.open_replay(data, n_step=3, reward_scale=0.1)

    encoder = partial(PlaceEncoder, channels=16)  # the class itself where its defaults are right
    bcq = offrl.DiscreteBCQ(replay.spec, encoder=encoder)
    print(f"{sum(p.numel() for p in bcq.encoder.parameters()):,} parameters in the encoder")
    run = create_run("runs", "custom-encoder")
    learner = offrl.fit(bcq, replay, offrl.FitConfig(updates=updates, log_period=10), run=run)

    # A checkpoint holds weights and no code: it is loaded into an algorithm made as it was for training.
    checkpoint = latest_checkpoint(run / "checkpoints")
    loaded = load_policy(offrl.DiscreteBCQ(replay.spec, encoder=encoder), checkpoint)
    path = offrl.export_onnx(loaded, run / "policy.onnx", contract="uint8")
    check = verify_onnx(path, learner.snapshot(), sample_stacks(replay.store, 200, seed=0)[0])
    print(f"{checkpoint} -> {path}: {check.num_disagreements} of {check.num_observations} actions differ from torch's")
    return check


if __name__ == "__main__":
    main()

"""A policy that acts with an algorithm's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.algorithms.algorithm import Algorithm, PolicyOutput
from offrl.checks import plain_threshold
from offrl.errors import ConfigError
from offrl.policies.acting import NetworkPolicy
from offrl.policies.choices import Actor, Choices, choose_from
from offrl.system.devices import exact_convolutions


class TorchPolicy(NetworkPolicy):
    """Acts with an algorithm's networks, in float32, on whatever device they are.

    It takes legal actions only: those of `spec.legal_actions`, and of the `action_mask` that it is given.

    Args:
        algorithm: is put into evaluation mode.
        threshold: the likelihood threshold, in [0, 1); None takes the algorithm's own.
        epsilon: probability of a uniformly random legal action (0.001 in the discrete BCQ paper).
        stochastic: sample each action from the softmax of the logits over the legal and likely actions, instead of
            taking the one with the best score.
        seed: of the random actions.
        run: the directory of the run that it is of, which says what it was trained on: `offrl.load` passes it.

    Raises:
        ConfigError: no algorithm; threshold or epsilon out of range.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        threshold: float | None = None,
        epsilon: float = 0.0,
        stochastic: bool = False,
        seed: int = 0,
        run: Path | None = None,
    ) -> None:
        if not isinstance(algorithm, Algorithm):
            raise ConfigError(
                f"a {type(algorithm).__name__}",
                where="TorchPolicy",
                expected="an Algorithm",
                hint="pass learner.snapshot(), or offrl.load(run).algorithm",
            )
        self.threshold = plain_threshold(
            algorithm.threshold if threshold is None else threshold, "TorchPolicy.threshold"
        )
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"{epsilon}", where="TorchPolicy.epsilon", expected="0 <= epsilon <= 1")
        self.algorithm = algorithm.eval()
        self.spec = algorithm.spec
        self.epsilon = epsilon
        self.stochastic = stochastic
        self.seed = seed
        self.run = run
        self._actor = Actor(epsilon, stochastic, seed)
        self._device = next(algorithm.parameters()).device

    @property
    def networks(self) -> Algorithm:
        """The algorithm."""
        return self.algorithm

    def _outputs(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None) -> PolicyOutput:
        with torch.inference_mode(), exact_convolutions(self._device):
            raw = torch.from_numpy(np.array(observation)).to(self._device)
            output: PolicyOutput = self.algorithm(self.spec.normalise(raw))
            return output

    def _choose(self, outputs: PolicyOutput, legal: NDArray[np.bool_] | None) -> Choices:
        with torch.inference_mode():
            return choose_from(outputs.scores, outputs.logits, self.threshold, legal)

    def with_threshold(self, threshold: float) -> TorchPolicy:
        """A policy of the same networks with this threshold; its random actions begin anew.

        Raises:
            ConfigError: a threshold out of range.
        """
        how: dict[str, Any] = {
            "epsilon": self.epsilon,
            "stochastic": self.stochastic,
            "seed": self.seed,
            "run": self.run,
        }
        return TorchPolicy(self.algorithm, threshold=threshold, **how)

"""Policies read back from the ONNX files that `export_onnx` writes; they need neither an algorithm nor its weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.algorithms.algorithm import PolicyOutput
from offrl.checks import plain_threshold
from offrl.errors import ConfigError
from offrl.policies._onnx_file import APPLY_THRESHOLD, OnnxFile
from offrl.policies.acting import NetworkPolicy
from offrl.policies.choices import Actor, Choices, choose_from


class OnnxPolicy(NetworkPolicy):
    """The policy in an ONNX file of either contract; nothing but the file is needed.

    Args:
        path: a file written by `offrl.policies.export_onnx`.
        threshold: as TorchPolicy's, in [0, 1); None takes the algorithm's own. The file's logits are scaled so that
            0.3 on them stands for the algorithm's own threshold; any other is scaled alike before it is applied.
        epsilon: probability of a uniformly random legal action; drawn as TorchPolicy draws them.
        stochastic: as TorchPolicy's: sample from the softmax of the algorithm's own logits.
        seed: of the random actions.

    Attributes:
        spec: the task.
        threshold: on the algorithm's own logits.
        runtime: what runs the file, with its version: onnxruntime where installed, else onnx's reference evaluator.

    Raises:
        ConfigError: threshold or epsilon outside what is allowed; or a threshold over 0 or stochastic actions for a
            file that was exported with threshold 0, which holds no logits.
        ExportError: the file is missing, not ONNX, or not one of ours.
        SpecMismatchError: the task spec in its metadata cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threshold: float | None = None,
        epsilon: float = 0.0,
        stochastic: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"{epsilon}", where="OnnxPolicy.epsilon", expected="0 <= epsilon <= 1")
        self._file = OnnxFile(path)
        self.spec = self._file.spec
        self.runtime = self._file.runtime
        self.epsilon = epsilon
        self.stochastic = stochastic
        self.seed = seed
        self._begin(self._file.algorithm_threshold if threshold is None else threshold)

    def _begin(self, threshold: float) -> None:
        threshold = plain_threshold(threshold, "OnnxPolicy.threshold")
        own = self._file.algorithm_threshold
        if own == 0 and self.stochastic:
            raise ConfigError(
                f"stochastic actions of {self._file.path}, which was exported with threshold 0 and without logits",
                where="OnnxPolicy.stochastic",
                expected="False",
                hint="take the checkpoint, or export it with a threshold over 0",
            )
        if own == 0 < threshold:
            raise ConfigError(
                f"{threshold} for {self._file.path}, which was exported with threshold 0 and without logits",
                where="OnnxPolicy.threshold",
                expected="0",
                hint="take the checkpoint, or export it with a threshold to act with",
            )
        self.threshold = threshold
        # The file's logits are scaled for `APPLY_THRESHOLD`; another threshold needs them as they were, and so does
        # sampling. At the file's own threshold they stay as they are, so that a tie is decided as its readers do.
        self._applied, self._scale = APPLY_THRESHOLD, 1.0
        if threshold != own or self.stochastic:
            self._applied, self._scale = threshold, math.log(APPLY_THRESHOLD) / math.log(own)
        self._actor = Actor(self.epsilon, self.stochastic, self.seed)

    @property
    def networks(self) -> OnnxFile:
        """The file."""
        return self._file

    def _outputs(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None) -> PolicyOutput:
        outputs = self._file.run(observation, legal)
        return PolicyOutput(outputs["q"], outputs["logits"])

    def _choose(self, outputs: PolicyOutput, legal: NDArray[np.bool_] | None) -> Choices:
        return choose_from(outputs.scores, outputs.logits, self._applied, legal, self._scale)

    def with_threshold(self, threshold: float) -> OnnxPolicy:
        """A policy of the same file with this threshold; its random actions begin anew.

        Raises:
            ConfigError: see the class.
        """
        policy = copy.copy(self)
        policy._begin(threshold)
        return policy

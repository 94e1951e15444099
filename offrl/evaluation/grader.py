"""The course grader's way of scoring an exported file, step by step.

CarRacing-v3 without frame skip, the information bar visible; observations are stacks of 4 gray frames that are not
rounded, gray / 128 - 1, the first one repeated; the action is the best q among those whose softmax of the logits is
over 0.3 of the largest; one in a thousand is random; the score is the mean of 50 episodes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.envs import car_racing
from offrl.envs.seeds import SCORE_SEEDS
from offrl.errors import ExportError
from offrl.evaluation.scores import Evaluation
from offrl.evaluation.scoring import evaluate
from offrl.losses import masked_argmax
from offrl.policies._onnx_file import OnnxFile
from offrl.policies.export import export_onnx
from offrl.spec import TaskSpec

THRESHOLD = 0.3
"""An action must be more than so many times as likely as the likeliest."""
EPSILON = 0.001
"""Probability of a random action."""
NUM_EPISODES = 50
"""Episodes that the mean is taken over."""
_NUM_ENVS = 10


def grade(
    policy: str | Path | Algorithm,
    seeds: Sequence[int] = SCORE_SEEDS[:NUM_EPISODES],
    *,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Scores a policy by the grader's rule; the same seeds give the same scores, whatever the number of workers.

    Args:
        policy: an ONNX file of the float contract, or an algorithm, which is exported as that: with its logits scaled,
            so that the grader's 0.3 acts as the algorithm's own threshold.
        seeds: see `offrl.evaluation.evaluate`. A random action depends on the seed of its episode.
        workers: likewise.
        progress: likewise.

    Raises:
        ExportError: the file is missing, damaged or of the uint8 contract; or the algorithm cannot be exported.
        SpecMismatchError: the policy is not for CarRacing with its information bar visible.
        ConfigError: see `offrl.evaluation.evaluate`.
        MissingDependencyError: Box2D or pygame is not installed.
    """
    if isinstance(policy, Algorithm):
        _require_task(policy.spec, policy.name)
        with tempfile.TemporaryDirectory() as directory:
            player = GraderPolicy(export_onnx(policy, Path(directory) / f"{policy.name}.onnx", contract="float"))
    else:
        player = GraderPolicy(policy)
    # Of a module without torch: what plays imports the environment, and nothing else.
    make_env = partial(car_racing.make_exact, EPSILON)
    return evaluate(player, make_env, seeds, num_envs=_NUM_ENVS, workers=workers, progress=progress)


class GraderPolicy:
    """Acts as the grader does with a file of the float contract; random actions are the environment's affair.

    Observations are run one by one, as in a grader: in a batch, rounding would depend on its size.

    Args:
        path: the file.

    Raises:
        ExportError: the file is missing, damaged or of the uint8 contract.
        SpecMismatchError: it is not for CarRacing with its information bar visible.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = OnnxFile(path)
        if self._file.contract != "float":
            raise ExportError(
                "a file of the uint8 contract, which takes whole gray values",
                where=path,
                expected="the float contract: the grader gives gray / 128 - 1 that was never rounded",
                hint="export it with --contract float",
            )
        _require_task(self._file.spec, path)

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.int64]:
        """Normalised observations, float32 [N, 4, 96, 96] -> actions [N]."""
        outputs = [self._file.run_as_they_are(row[None]) for row in observation]
        q, logits = (torch.cat([each[name] for each in outputs]) for name in ("q", "logits"))
        actions: NDArray[np.int64] = grader_actions(q, logits).numpy()
        return actions


def _require_task(spec: TaskSpec, where: str | Path) -> None:
    hint = "the grader plays CarRacing with its information bar visible"
    car_racing.spec().require_same(spec, where=where, hint=hint, legal_actions=False)


def grader_actions(q: Tensor, logits: Tensor) -> Tensor:
    """The best q among the actions whose probability is over 0.3 of the largest. [N, A], [N, A] -> int64 [N]."""
    probability = logits.softmax(dim=1)
    return masked_argmax(q, probability / probability.max(dim=1, keepdim=True).values > THRESHOLD)

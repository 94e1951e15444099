"""Whether an ONNX file and the algorithm that it was made from agree."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError, ExportError
from offrl.losses import greedy_actions, likely_actions
from offrl.policies._onnx_file import APPLY_THRESHOLD, ILLEGAL, OnnxFile
from offrl.policies.choices import legal_actions
from offrl.policies.export import logit_scale, scaled
from offrl.spec import TaskSpec


@dataclass(frozen=True)
class Verification:
    """How far an ONNX file and the algorithm it was made from agree.

    Attributes:
        runtime: what ran the file, with its version.
        batch_sizes: the sizes of the batches that were run, each once.
        num_observations: how many observations were compared; each with random legal actions (one or more) where the
            task has action masks.
        max_q_difference: largest |q of the file - scores of torch|.
        max_logits_difference: the same for the logits, scaled as in the file.
        num_disagreements: observations whose greedy action differs; all of them near-ties.
        near_tie_share: share of near-ties in 0..1: the best two allowed scores, or an action's log probability ratio
            and the log threshold, are within `tolerance`, so that rounding may decide.
        tolerance: as given, relative to the largest |value| of each output where that is over 1.
    """

    runtime: str
    batch_sizes: tuple[int, ...]
    num_observations: int
    max_q_difference: float
    max_logits_difference: float
    num_disagreements: int
    near_tie_share: float
    tolerance: float


def verify_onnx(
    path: str | Path,
    algorithm: Algorithm,
    observations: NDArray[Any] | None = None,
    *,
    num_random: int = 64,
    seed: int = 0,
    tolerance: float = 1e-4,
) -> Verification:
    """Runs the file and torch on the same observations, in batches of 1, 7 and up to 64.

    Args:
        path: a file written by `export_onnx`, either contract.
        algorithm: what it was made from.
        observations: raw [N, ...], as many as wished, from the real task; None for random ones alone.
        num_random: how many random observations to add (uniform pixels, or standard normal vectors).
        seed: of the random observations.
        tolerance: see `Verification`.

    Raises:
        ExportError: the file cannot be run, its outputs differ by more than the tolerance, or its greedy action
            differs where there is no near-tie.
        SpecMismatchError: the file, the observations and the algorithm do not describe the same task.
        ConfigError: there is nothing to compare.
    """
    file = OnnxFile(path)
    algorithm.spec.require_same(file.spec, where=path, hint="verify it with the algorithm it was exported from")
    generator = np.random.default_rng(seed)
    raw = _random_observations(file.spec, num_random, generator)
    if observations is not None:
        file.check(observations)
        raw = np.concatenate([observations, raw])
    batches = [raw[rows] for rows in _slices(len(raw))]
    if not batches:
        raise ConfigError("no observations", where="verify_onnx", expected="observations, or num_random over 0")

    num_actions = algorithm.spec.num_actions
    masks = _random_masks(algorithm.spec, len(raw), generator) if algorithm.spec.action_masks else None
    is_legal = legal_actions(algorithm.spec, len(raw), masks)
    legal = torch.ones(len(raw), num_actions, dtype=torch.bool) if is_legal is None else torch.from_numpy(is_legal)
    reference = copy.deepcopy(algorithm).cpu().float().eval()
    with torch.no_grad():
        outputs = [reference(algorithm.spec.normalise(torch.tensor(batch))) for batch in batches]
    q, logits = (torch.cat(values) for values in zip(*outputs, strict=True))
    logits = scaled(logits, logit_scale(algorithm.threshold))
    action = greedy_actions(q, logits, APPLY_THRESHOLD, None if is_legal is None else legal)
    runs = [file.run(raw[rows], None if masks is None else masks[rows]) for rows in _slices(len(raw))]
    found = {name: torch.cat([run[name] for run in runs]) for name in file.names}

    q_tolerance, logits_tolerance = (tolerance * max(1.0, _largest(values[legal])) for values in (q, logits))
    q_difference, logits_difference = (
        _difference(found[name], values)[legal].max().item() for name, values in (("q", q), ("logits", logits))
    )
    illegal = torch.cat([found[name][~legal] for name in ("q", "logits")])
    highest = illegal.max().item() if len(illegal) else ILLEGAL
    if not highest <= ILLEGAL / 2:
        raise ExportError(
            f"q or logits of an illegal action reach {highest:.3g}",
            where=path,
            expected=f"about {ILLEGAL:.0e}, so that no reader takes it",
            hint="export it again from this algorithm",
        )
    if not (q_difference <= q_tolerance and logits_difference <= logits_tolerance):
        raise ExportError(
            f"q differs from torch by up to {q_difference:.3g}, logits by up to {logits_difference:.3g}",
            where=path,
            expected=f"at most {q_tolerance:.3g} and {logits_tolerance:.3g}",
            hint="export it again from this algorithm",
        )
    near_tie = _near_ties(q, logits, legal, q_tolerance, logits_tolerance)
    disagree = greedy_actions(found["q"], found["logits"], APPLY_THRESHOLD) != action
    if "action" in found:
        disagree |= found["action"] != action
    if (disagree & ~near_tie).any():
        raise ExportError(
            f"{int((disagree & ~near_tie).sum())} of {len(action)} greedy actions differ from torch",
            where=path,
            expected="none, near-ties aside",
        )
    return Verification(
        runtime=file.runtime,
        batch_sizes=tuple(sorted({len(batch) for batch in batches})),
        num_observations=len(action),
        max_q_difference=q_difference,
        max_logits_difference=logits_difference,
        num_disagreements=int(disagree.sum()),
        near_tie_share=near_tie.float().mean().item(),
        tolerance=tolerance,
    )


def _largest(values: Tensor) -> float:
    """Of the finite ones, by size. [N] -> a number."""
    return float(values.nan_to_num(0.0, 0.0, 0.0).abs().max())


def _difference(found: Tensor, expected: Tensor) -> Tensor:
    """By how much each number is off; equal infinities, with which an algorithm rules actions out, are not."""
    return torch.where(found == expected, 0.0, (found - expected).abs())


def _random_observations(spec: TaskSpec, count: int, generator: np.random.Generator) -> NDArray[Any]:
    shape = (count, *spec.observation_shape)
    if spec.is_pixels:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.standard_normal(shape, dtype=np.float32)


def _random_masks(spec: TaskSpec, count: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Each action legal with probability 1/2, and one or more of those that the task allows in each row."""
    masks = generator.random((count, spec.num_actions)) < 0.5
    allowed = range(spec.num_actions) if spec.legal_actions is None else spec.legal_actions
    masks[np.arange(count), generator.choice(np.array(allowed), size=count)] = True
    return masks


def _slices(count: int) -> Iterator[slice]:
    """Batches of 1, 7, 64, 64, ... and what is left."""
    start, size = 0, 1
    while start < count:
        yield slice(start, start + size)
        start, size = start + size, 7 if size == 1 else 64


def _near_ties(q: Tensor, logits: Tensor, legal: Tensor, q_tolerance: float, logits_tolerance: float) -> Tensor:
    """Where rounding may decide the greedy action. [N, A], [N, A], bool [N, A] -> bool [N]."""
    logits = logits.masked_fill(~legal, ILLEGAL)
    log_ratio = logits - logits.max(dim=1, keepdim=True).values
    at_threshold = (log_ratio - math.log(APPLY_THRESHOLD)).abs() <= logits_tolerance
    best_two = q.masked_fill(~likely_actions(logits, APPLY_THRESHOLD, legal), -torch.inf).topk(2, dim=1).values
    return at_threshold.any(dim=1) | (best_two[:, 0] - best_two[:, 1] <= q_tolerance)

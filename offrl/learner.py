"""How a loss is run: one update, from a raw batch to moved targets, the same for every algorithm."""

from __future__ import annotations

import copy
import ctypes
import inspect
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm
from offrl.augment import Augmentation
from offrl.batch import Batch
from offrl.errors import ConfigError, RunError
from offrl.spec import TaskSpec

_UNSUITABLE_OPTIMIZERS = {"LBFGS": "it needs the loss as a function", "SparseAdam": "it needs sparse gradients"}
# Older versions cache a weight's bf16 copy under no_grad, and a later forward then loses the gradient (pytorch#112583).
_AUTOCAST_CACHE = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h

Precision = Literal["auto", "fp32", "bf16"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of the update.

    Attributes:
        optimizer: the name of a class in torch.optim.
        optimizer_settings: its further keyword arguments, such as {"weight_decay": 0.01}.
        learning_rate: at the first update.
        schedule: "constant", or "cosine" down to 0 at the last update (arXiv:1608.03983).
        polyak: how far targets move towards their online networks, in (0, 1].
        target_period: every how many updates they move; polyak 1 with a longer period is the hard copy of DQN.
        average_decay: of the averaged weights that evaluation and export use, in [0, 1); 0 uses the plain weights.
            After t updates it is at most t / (t + 10), so that the first weights are soon forgotten.
        precision: of the networks; "auto" takes bf16 where a short measurement shows it faster.
        augment_shift: pictures move at random by up to so many pixels, in x and y apart (`offrl.augment`).
        augment_brightness: pictures become brighter or darker at random by up to so many of the 256 gray levels.
        augment_seed: of the augmentation.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    optimizer: str = "Adam"
    optimizer_settings: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 3e-4
    schedule: Schedule = "constant"
    polyak: float = 0.005
    target_period: int = 1
    average_decay: float = 0.0
    precision: Precision = "auto"
    augment_shift: int = 0
    augment_brightness: int = 0
    augment_seed: int = 0

    def __post_init__(self) -> None:
        def require(valid: bool, name: str, expected: str) -> None:
            if not valid:
                raise ConfigError(f"{getattr(self, name)!r}", where=f"LearnerConfig.{name}", expected=expected)

        kind = getattr(torch.optim, self.optimizer, None)
        is_optimizer = inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
        require(is_optimizer, "optimizer", "a class of torch.optim, such as 'Adam', 'AdamW' or 'SGD'")
        unsuitable = _UNSUITABLE_OPTIMIZERS.get(self.optimizer)
        require(unsuitable is None, "optimizer", f"another one: {unsuitable}")
        require("lr" not in self.optimizer_settings, "optimizer_settings", "learning_rate in place of 'lr'")
        require(0 < self.learning_rate < math.inf, "learning_rate", "a positive number")
        require(self.schedule in get_args(Schedule), "schedule", f"one of {get_args(Schedule)}")
        require(0 < self.polyak <= 1, "polyak", "0 < polyak <= 1")
        require(self.target_period >= 1, "target_period", "1 or more")
        require(0 <= self.average_decay < 1, "average_decay", "0 <= average_decay < 1")
        require(self.precision in get_args(Precision), "precision", f"one of {get_args(Precision)}")
        for name in ("augment_shift", "augment_brightness", "augment_seed"):
            require(getattr(self, name) >= 0, name, "0 or more")


class Learner:
    """Trains an algorithm, one batch at a time.

    On a CPU with glibc it sets malloc, for the whole process, to keep large freed blocks: fresh ones cost a quarter
    of an update.

    Args:
        algorithm: is moved to `device` and trained in place.
        config: how.
        total_updates: the length of the run, for the schedule.
        device: where the networks live.

    Attributes:
        step: updates done.
        precision: "fp32" or "bf16"; "auto" is settled by `settle_precision`, at the first update at the latest.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        config: LearnerConfig | None = None,
        *,
        total_updates: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = LearnerConfig() if config is None else config
        self.device = torch.device(device)
        self.total_updates = total_updates
        self.step = 0
        self.precision: Precision = self.config.precision
        if self.device.type == "cpu":
            _keep_freed_memory()
        self.algorithm = algorithm
        algorithm.to(self.device)
        # channels_last is how convolutions run fastest; it changes strides and no value.
        algorithm.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        algorithm.train()
        self._trained = {name: p for name, p in algorithm.named_parameters() if p.requires_grad}
        self._optimizer = self._make_optimizer()
        self._targets = [pair for online, target in algorithm.targets() for pair in _state_pairs(online, target)]
        self._average = {name: p.detach().clone() for name, p in self._trained.items() if self.config.average_decay > 0}
        self._metric_sums: dict[str, Tensor] = {}
        self._metric_count = 0
        config = self.config
        self._augmentation = Augmentation(config.augment_shift, config.augment_brightness, config.augment_seed)
        if self._augmentation and not algorithm.spec.is_pixels:
            raise ConfigError("vectors", where="LearnerConfig.augment_shift, augment_brightness", expected="pixels")
        self._bf16_is_exact = _normalises_exactly(algorithm.spec, torch.bfloat16)

    def update(self, batch: Batch) -> None:
        """One gradient step on a raw batch, [B, ...] as replay hands it over; nothing waits for the device."""
        self.settle_precision(batch)
        self.algorithm.train()  # a policy made of it in the meantime has switched it to evaluation
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        metrics = self._gradients(self.algorithm, batch, self.precision)
        self._optimizer.step()
        self.step += 1
        if self.step % self.config.target_period == 0:
            _lerp(self._targets, self.config.polyak)
        if self._average:
            # Early averages would otherwise remember the random first weights for 1 / (1 - decay) updates.
            decay = min(self.config.average_decay, self.step / (self.step + 10))
            _lerp([(self._trained[name], average) for name, average in self._average.items()], 1 - decay)
        for name, value in metrics.items():
            total = self._metric_sums.get(name)
            self._metric_sums[name] = value.float() if total is None else total + value
        self._metric_count += 1

    @property
    def learning_rate(self) -> float:
        """What the schedule gives for the next update."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        progress = min(self.step / self.total_updates, 1.0)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def read_metrics(self) -> dict[str, float]:
        """The metrics' means since the last reading; this is where the host waits for the device.

        Raises:
            RunError: the loss is not finite.
        """
        self.require_finite()
        means = {name: total.item() / self._metric_count for name, total in self._metric_sums.items()}
        self._metric_sums, self._metric_count = {}, 0
        return means

    def require_finite(self) -> None:
        """Waits for the device and checks the losses since the last reading.

        Raises:
            RunError: one is not finite.
        """
        loss = self._metric_sums["loss"].item() if self._metric_count else 0.0
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} within the updates before {self.step}",
                where="training",
                expected="a finite loss",
                mend="lower learning_rate, scale the rewards down (reward_scale), or set precision='fp32'",
            )

    def snapshot(self) -> Algorithm:
        """A copy of the algorithm as evaluation and export see it: the averaged weights where those are on."""
        algorithm = copy.deepcopy(self.algorithm)
        for name, parameter in algorithm.named_parameters():
            if name in self._average:
                parameter.data.copy_(self._average[name])
        return algorithm.eval()

    def settle_precision(self, batch: Batch) -> None:
        """Turns "auto" into what runs a forward and backward pass on this batch faster here."""
        if self.precision != "auto":
            return
        seconds = dict.fromkeys(("fp32", "bf16"), math.inf)
        batch = batch.to(self.device)
        trial = copy.deepcopy(self.algorithm)  # layers with running statistics must not see the batch eight times
        if self.device.type in ("cpu", "cuda"):
            for _ in range(6):  # the first passes pay for warm-up, others may be disturbed; the best one counts
                for precision in ("fp32", "bf16"):
                    start = time.perf_counter()
                    self._gradients(trial, batch, precision)
                    if self.device.type == "cuda":
                        torch.cuda.synchronize(self.device)
                    seconds[precision] = min(seconds[precision], time.perf_counter() - start)
        self.precision = "bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32"

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on; `load_state` is the inverse."""
        tensors = {f"algorithm.{name}": tensor for name, tensor in self.algorithm.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self._average.items()}
        tensors |= {f"metric.{name}": total for name, total in self._metric_sums.items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": v for key, v in values.items() if isinstance(v, Tensor)}
        return tensors

    def state_values(self) -> dict[str, Any]:
        """The rest of the state, ready for JSON."""
        state = self._optimizer.state_dict()["state"]
        scalars = {str(i): {k: v for k, v in s.items() if not isinstance(v, Tensor)} for i, s in state.items()}
        return {
            "step": self.step,
            "precision": self.precision,
            "metric_count": self._metric_count,
            "optimizer": scalars,
        }

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_tensors` and `state_values` were taken.

        Raises:
            RuntimeError, KeyError: the state belongs to other networks or settings.
        """
        groups: dict[str, dict[str, Tensor]] = {"algorithm": {}, "average": {}, "metric": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = tensor
        self.algorithm.load_state_dict(groups["algorithm"])
        for name, average in self._average.items():
            average.copy_(groups["average"][name])
        self._metric_sums = {name: tensor.to(self.device) for name, tensor in groups["metric"].items()}
        self._metric_count = values["metric_count"]
        state: dict[int, dict[str, Any]] = {int(i): dict(s) for i, s in values["optimizer"].items()}
        trained = list(self._trained.values())
        for name, tensor in groups["optimizer"].items():
            index, key = name.split(".", 1)
            parameter = trained[int(index)]
            if tensor.shape == parameter.shape:
                # Fused kernels walk raw memory: a moment must lie in memory as its parameter does (channels_last).
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
            state[int(index)][key] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        self.step = values["step"]
        self.precision = values["precision"]

    def _prepare(self, batch: Batch, precision: str) -> Batch:
        batch = batch.to(self.device)
        now, after = batch.observation, batch.next_observation
        if self._augmentation:
            now, after = self._augmentation(now, after, self.step)
        dtype = torch.bfloat16 if precision == "bf16" and self._bf16_is_exact else torch.float32
        return replace(batch, observation=self._normalise(now, dtype), next_observation=self._normalise(after, dtype))

    def _normalise(self, observation: Tensor, dtype: torch.dtype) -> Tensor:
        if observation.dim() == 4:  # before one byte becomes two or four
            observation = observation.contiguous(memory_format=torch.channels_last)
        return self.algorithm.spec.normalise(observation.to(dtype))

    def _gradients(self, algorithm: Algorithm, batch: Batch, precision: str) -> Mapping[str, Tensor]:
        prepared = self._prepare(batch, precision)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=_AUTOCAST_CACHE
        ):
            loss, metrics = algorithm.loss(prepared)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach(), **metrics}

    def _make_optimizer(self) -> torch.optim.Optimizer:
        kind = getattr(torch.optim, self.config.optimizer)
        settings = {"lr": self.config.learning_rate, **self.config.optimizer_settings}
        is_open = not {"fused", "foreach", "differentiable"} & settings.keys()
        if is_open and "fused" in inspect.signature(kind).parameters and self.device.type in ("cpu", "cuda"):
            settings["fused"] = True
        try:
            optimizer: torch.optim.Optimizer = kind(self._trained.values(), **settings)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{self.config.optimizer} refuses {settings} ({error})", where="LearnerConfig.optimizer_settings"
            ) from error
        return optimizer


def _normalises_exactly(spec: TaskSpec, dtype: torch.dtype) -> bool:
    """Whether pixels lose nothing by being normalised in `dtype`: gray / 128 - 1 fits into the 8 bits of bf16."""
    grays = torch.arange(256, dtype=torch.uint8)
    return spec.is_pixels and torch.equal(spec.normalise(grays.to(dtype)).float(), spec.normalise(grays))


def _state_pairs(online: nn.Module, target: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(source, destination) tensors of a target network, buffers (running means) included."""
    ours, theirs = online.state_dict(), target.state_dict()
    return [(ours[name], theirs[name]) for name in theirs if theirs[name].is_floating_point()]


@torch.no_grad()
def _lerp(pairs: list[tuple[Tensor, Tensor]], weight: float) -> None:
    """Moves each destination by `weight` towards its source, all in one call."""
    if pairs:
        sources, destinations = zip(*pairs, strict=True)
        torch._foreach_lerp_(destinations, sources, weight)


def _keep_freed_memory() -> None:
    """Lets glibc keep the large blocks that are freed, for the whole process; elsewhere it does nothing.

    Every update allocates the same tensors again. By default each large one is a fresh mapping, whose pages the
    kernel has to clear: a quarter of an update with NatureEncoder, half of one with CompactEncoder.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc accepts
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

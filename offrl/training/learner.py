"""How a loss is run: one update, from a raw batch to moved targets, the same for every algorithm."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm
from offrl.batch import Batch
from offrl.errors import ConfigError, RunError
from offrl.spec import TaskSpec
from offrl.system.memory import keep_freed_memory
from offrl.training._augment import Augmentation
from offrl.training._autotune import shortest_seconds
from offrl.training._graphs import UpdateGraph, recorded

_UNSUITABLE_OPTIMIZERS = {"LBFGS": "it needs the loss as a function", "SparseAdam": "it needs sparse gradients"}
# Older versions cache a weight's bf16 copy under no_grad, and a later forward then loses the gradient (pytorch#112583).
_AUTOCAST_CACHE = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)

Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]
_COMPILING_TAKES = 60.0  # seconds at the most, on 2 cores, and what share of an update it may well save
_COMPILING_SAVES = 0.1
_COMPILING_NEEDS = 1000  # updates; with fewer the question is not worth a measurement

Schedule = Literal["constant", "cosine"]
NonFinite = Literal["stop", "skip"]


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
        precision: of the networks; "auto" takes bf16 where a short measurement shows it faster; "fp32" is exact on a
            GPU too (no TF32).
        compile: whether torch.compile works on the loss; "auto" only in runs long enough to repay its warm-up, and
            where a measurement shows it faster.
        updates_per_graph: updates that a CUDA device replays as one CUDA graph, with Adam or AdamW; 0 runs each
            kernel by itself. Without effect on other devices.
        non_finite: what an update does whose loss or a gradient is infinite or NaN: it changes no trained weight, and
            at the next reading of the metrics the run stops ("stop") or counts it as `skipped_updates` ("skip").
            Targets go on following; running statistics, if the networks have any, have seen it.
        augment_shift: pictures move at random by up to so many pixels, in x and y apart (`offrl.training._augment`).
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
    compile: Compile = "auto"
    updates_per_graph: int = 10
    non_finite: NonFinite = "stop"
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
        require(self.compile in get_args(Compile), "compile", f"one of {get_args(Compile)}")
        require(self.non_finite in get_args(NonFinite), "non_finite", f"one of {get_args(NonFinite)}")
        for name in ("updates_per_graph", "augment_shift", "augment_brightness", "augment_seed"):
            require(getattr(self, name) >= 0, name, "0 or more")


class Pace(NamedTuple):
    """What changes from update to update beside the batch; float32 tensors [] where a CUDA graph replays the update.

    Attributes:
        learning_rate: of the optimiser.
        target: how far the targets move; 0 leaves them.
        average: how far the averaged weights move; 0 where there are none.
    """

    learning_rate: float | Tensor
    target: float | Tensor
    average: float | Tensor


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
        precision: "fp32" or "bf16"; "auto" is settled by `settle`, at the first update at the latest.
        compile: "on" or "off", likewise.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        config: LearnerConfig | None = None,
        *,
        total_updates: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config = LearnerConfig() if config is None else config
        self.device = torch.device(device)
        self.total_updates = total_updates
        self.step = 0
        self.precision: Precision = config.precision
        self.compile: Compile = config.compile
        if self.device.type == "cpu":
            keep_freed_memory()
        self.algorithm = algorithm
        algorithm.to(self.device)
        # channels_last is how convolutions run fastest; it changes strides and no value.
        algorithm.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        algorithm.train()
        self._loss = algorithm.loss
        self._is_settled = False
        self._trained = {name: p for name, p in algorithm.named_parameters() if p.requires_grad}
        self._optimizer = self._make_optimizer()
        self._targets = [pair for online, target in algorithm.targets() for pair in _state_pairs(online, target)]
        self._average = {name: p.detach().clone() for name, p in self._trained.items() if config.average_decay > 0}
        self._metric_sums: dict[str, Tensor] = {}
        self._metric_count = 0
        self._augmentation = Augmentation(config.augment_shift, config.augment_brightness, config.augment_seed)
        if self._augmentation and not algorithm.spec.is_pixels:
            raise ConfigError("vectors", where="LearnerConfig.augment_shift, augment_brightness", expected="pixels")
        self._bf16_is_exact = _normalises_exactly(algorithm.spec, torch.bfloat16)
        # Adam's fused CUDA kernels can leave a step out without asking the host, and so can run inside a graph.
        self._stays_on_device = self.device.type == "cuda" and all(
            map(self._optimizer.defaults.get, ("fused", "capturable"))
        )
        self.updates_per_graph = config.updates_per_graph if self._stays_on_device else 0
        self._graphs: dict[int, UpdateGraph] = {}

    def update(self, batch: Batch, count: int = 1) -> None:
        """`count` gradient steps, on as many equal parts of a raw batch, one after the other.

        Nothing waits for a CUDA device, with Adam or AdamW.

        Args:
            batch: [count * B, ...] as replay hands it over.
            count: updates; when as many are asked for again, with batches of the same shapes, a CUDA device replays
                them as one graph.
        """
        batch = batch.to(self.device)
        parts = batch.split(count)
        self.settle(parts[0])
        self.algorithm.train()  # a policy made of it in the meantime has switched it to evaluation
        steps = range(self.step, self.step + count)
        draws = self._augmentation.draws(steps, len(parts[0].action))
        paces = [self._pace(step) for step in steps]
        graph = self._graphs.get(count)
        if graph is not None and graph.fits(batch):
            # From pinned memory the device copies by itself, and the host goes on.
            graph.replay(batch, draws.pin_memory(), torch.tensor(paces).pin_memory())
        else:
            draws = draws.to(self.device)
            for part, draw, pace in zip(parts, draws, paces, strict=True):
                self._update(part, draw, pace)
            self._record(batch, draws, torch.tensor(paces))  # what has run once is set up
        self.step += count
        self._metric_count += count

    def _record(self, batch: Batch, draws: Tensor, paces: Tensor) -> None:
        if self.updates_per_graph == 0:
            return
        try:
            self._graphs[len(paces)] = UpdateGraph(
                lambda part, draw, pace: self._update(part, draw, Pace(*pace)), batch, draws, paces
            )
        except RuntimeError as error:
            self.updates_per_graph = 0
            reason = str(error).splitlines()[0]
            warnings.warn(f"no CUDA graph of {self.algorithm.name}'s update: {reason}; it runs without", stacklevel=3)

    def _update(self, batch: Batch, draws: Tensor, pace: Pace) -> None:
        """One update, wholly on the device: this is what a CUDA graph holds."""
        for group in self._optimizer.param_groups:
            group["lr"] = pace.learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        metrics = self._gradients(batch, draws, self.precision)
        skipped = self._not_finite(metrics["loss"])
        if self._stays_on_device:
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not skipped.item():
            self._optimizer.step()
        _lerp(self._targets, pace.target)
        _lerp([(self._trained[name], average) for name, average in self._average.items()], pace.average)
        sums = {}
        for name, value in {**metrics, "skipped_updates": skipped}.items():
            counted = value if name == "skipped_updates" else torch.where(skipped > 0, 0.0, value.float())
            total = self._metric_sums.get(name)
            sums[name] = counted.clone() if total is None else total.add_(counted)
        self._metric_sums = sums

    def _pace(self, step: int) -> Pace:
        """Of the update that follows `step` others."""
        config, done = self.config, step + 1
        # Early averages would otherwise remember the random first weights for 1 / (1 - decay) updates.
        decay = min(config.average_decay, done / (done + 10))
        return Pace(
            learning_rate=self.learning_rate_at(step),
            target=config.polyak if done % config.target_period == 0 else 0.0,
            average=1 - decay if self._average else 0.0,
        )

    @property
    def learning_rate(self) -> float:
        """What the schedule gives for the next update."""
        return self.learning_rate_at(self.step)

    def learning_rate_at(self, step: int) -> float:
        """What the schedule gives for the update that follows `step` others."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        progress = min(step / self.total_updates, 1.0)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def read_metrics(self) -> dict[str, float]:
        """The metrics' means over the updates since the last reading; here the host waits for the device.

        With non_finite="skip", `skipped_updates` is how many were left out of them.

        Raises:
            RunError: some were not finite, and non_finite="stop".
        """
        self.require_finite()
        sums = dict(zip(self._metric_sums, torch.stack([*self._metric_sums.values()]).tolist(), strict=True))
        skipped = sums.pop("skipped_updates")
        applied = self._metric_count - skipped
        means = {name: total / applied if applied else math.nan for name, total in sums.items()}
        self._forget_metrics()
        return means if self.config.non_finite == "stop" else {**means, "skipped_updates": skipped}

    def require_finite(self) -> None:
        """Waits for the device and, with non_finite="stop", checks the updates since the last reading.

        Raises:
            RunError: some were not finite. They were left out, so the weights are the last good ones.
        """
        skipped = self._metric_sums["skipped_updates"].item() if self._metric_count else 0.0
        if skipped and self.config.non_finite == "stop":
            count = self._metric_count
            self._forget_metrics()
            raise RunError(
                f"the loss or a gradient is infinite or NaN in {skipped:.0f} of the {count} updates before {self.step}",
                where="training",
                expected="finite ones",
                hint="lower learning_rate, scale the rewards down (reward_scale), or set precision='fp32'",
            )

    def _forget_metrics(self) -> None:
        for total in self._metric_sums.values():
            total.zero_()  # in place: a CUDA graph adds to these very tensors
        self._metric_count = 0

    def snapshot(self) -> Algorithm:
        """A copy of the algorithm as evaluation and export see it: the averaged weights where those are on."""
        algorithm = copy.deepcopy(self.algorithm)
        for name, parameter in algorithm.named_parameters():
            if name in self._average:
                parameter.data.copy_(self._average[name])
        return algorithm.eval()

    def settle(self, batch: Batch) -> None:
        """Turns each "auto" into what runs a forward and backward pass on this batch faster here, and compiles.

        Raises:
            ConfigError: compile is "on", and cannot be here.
        """
        if self._is_settled:
            return
        self._is_settled = True
        batch = batch.to(self.device)
        draws = self._augmentation.draws(range(1), len(batch.action))[0].to(self.device)
        buffers = [(buffer, buffer.clone()) for buffer in self.algorithm.buffers()]
        if self.precision == "auto":
            known = ("fp32", "bf16") if self.device.type in ("cpu", "cuda") else ("fp32",)
            ways = {precision: partial(self._gradients, batch, draws, precision) for precision in known}
            seconds = self._shortest_seconds(ways)
            self.precision = "bf16" if seconds.get("bf16", math.inf) < 0.95 * seconds["fp32"] else "fp32"
        if self.compile != "off":
            self._settle_compiling(partial(self._gradients, batch, draws, self.precision))
        for buffer, before in buffers:
            buffer.copy_(before)  # running statistics have not seen these passes
        self._optimizer.zero_grad(set_to_none=True)

    def _settle_compiling(self, run: Callable[[], object]) -> None:
        """Lets the loss run compiled from now on, unless that is left to us and does not repay the time it takes.

        Raises:
            ConfigError: compile is "on", and cannot be here.
        """
        eager_seconds = math.inf
        if self.compile == "auto":
            updates = self.total_updates - self.step
            if updates >= _COMPILING_NEEDS:
                eager_seconds = self._shortest_seconds({"eager": run})["eager"]
            if updates < _COMPILING_NEEDS or eager_seconds * updates * _COMPILING_SAVES < _COMPILING_TAKES:
                self.compile = "off"
                return
        self._loss = torch.compile(self.algorithm.loss, dynamic=False)
        try:
            repays = self._shortest_seconds({"compiled": run})["compiled"] < 0.95 * eager_seconds
        except Exception as error:  # whatever the compiler, or the one behind it, has to say
            if self.compile == "on":
                raise ConfigError(
                    f"torch.compile fails ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})",
                    where="LearnerConfig.compile",
                    expected="a loss that it can take, and a C++ compiler",
                    hint="take compile='off'",
                ) from error
            repays = False
        if not repays:
            self._loss = self.algorithm.loss
        self.compile = "on" if repays else "off"

    def _shortest_seconds(self, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Of each way as it will run: where updates are replayed as graphs, launching kernels must not count."""
        if self.updates_per_graph > 0:
            ways = {name: recorded(run, self.device) for name, run in ways.items()}
        return shortest_seconds(ways, self.device)

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
            "compile": self.compile,
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
        self.precision, self.compile = values["precision"], values["compile"]
        self._is_settled, self._graphs = False, {}

    def _prepare(self, batch: Batch, draws: Tensor, precision: str) -> Batch:
        batch = batch.stacked()
        now, after = batch.observation, batch.next_observation
        if self._augmentation:
            now, after = self._augmentation(now, after, draws)
        dtype = torch.bfloat16 if precision == "bf16" and self._bf16_is_exact else torch.float32
        return replace(batch, observation=self._normalise(now, dtype), next_observation=self._normalise(after, dtype))

    def _normalise(self, observation: Tensor, dtype: torch.dtype) -> Tensor:
        if observation.dim() == 4 and not observation.is_contiguous(memory_format=torch.channels_last):
            # Before one byte becomes two or four; twice as fast as contiguous(memory_format=torch.channels_last).
            observation = torch.stack(observation.unbind(1), dim=-1).permute(0, 3, 1, 2)
        return self.algorithm.spec.normalise(observation.to(dtype))

    def _gradients(self, batch: Batch, draws: Tensor, precision: str) -> Mapping[str, Tensor]:
        prepared = self._prepare(batch, draws, precision)
        use_bf16 = precision == "bf16"
        with nullcontext() if use_bf16 else _exact_convolutions(self.device):
            with torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=use_bf16, cache_enabled=_AUTOCAST_CACHE
            ):
                loss, metrics = self._loss(prepared)
            loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach(), **metrics}

    def _not_finite(self, loss: Tensor) -> Tensor:
        """1.0 where the loss or a gradient is infinite or NaN, else 0.0. [].

        Told by the gradients' Euclidean norms, eight times as fast as isfinite; beyond 1e19 they are infinite, too.
        """
        gradients = [p.grad for p in self._trained.values() if p.grad is not None]
        norms = torch.stack([loss.float(), *torch._foreach_norm(gradients)])
        return (~norms.isfinite()).any().float()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        kind = getattr(torch.optim, self.config.optimizer)
        settings = {"lr": self.config.learning_rate, **self.config.optimizer_settings}
        is_open = not {"fused", "foreach", "differentiable"} & settings.keys()
        fused = {"cpu": {"Adam", "AdamW", "SGD", "Adagrad"}, "cuda": {"Adam", "AdamW", "SGD"}}  # in every torch we take
        if is_open and self.config.optimizer in fused.get(self.device.type, ()):
            settings["fused"] = True
        if self.device.type == "cuda" and "fused" in settings and "capturable" in inspect.signature(kind).parameters:
            settings.setdefault("capturable", True)
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


def _exact_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Within it float32 convolutions on a CUDA device are that, where torch's default rounds to TF32's 11 bits."""
    cudnn = torch.backends.cudnn
    if device.type != "cuda":
        return nullcontext()
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )


def _state_pairs(online: nn.Module, target: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(source, destination) tensors of a target network, buffers (running means) included."""
    ours, theirs = online.state_dict(), target.state_dict()
    return [(ours[name], theirs[name]) for name in theirs if theirs[name].is_floating_point()]


@torch.no_grad()
def _lerp(pairs: list[tuple[Tensor, Tensor]], weight: float | Tensor) -> None:
    """Moves each destination by `weight` towards its source, all in one call."""
    if not pairs:
        return
    sources, destinations = zip(*pairs, strict=True)
    if isinstance(weight, Tensor):  # read when a graph is replayed
        torch._foreach_lerp_(destinations, sources, [weight] * len(pairs))
    elif weight > 0:
        torch._foreach_lerp_(destinations, sources, weight)

"""How a loss is run: one update, from a raw batch to moved targets, the same for every algorithm."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm
from offrl.batch import Batch, FrameBatch
from offrl.checks import is_whole
from offrl.errors import ConfigError, RunError
from offrl.networks._layout import lay_channels_last
from offrl.system.devices import exact_convolutions, resolve_device
from offrl.system.memory import keep_freed_memory
from offrl.system.ranks import ALONE, Ranks
from offrl.system.workers import MOST_THREADS
from offrl.training import optimizer
from offrl.training._augment import Augmentation, Preparation
from offrl.training._autotune import MEASURED_UPDATES, best_threads, does_compiling_repay, fastest_precision, kept
from offrl.training._graphs import UpdateGraph
from offrl.training._metric_sums import MetricSums
from offrl.training.config import Compile, LearnerConfig, Precision, Threads

# Older versions cache a weight's bf16 copy under no_grad, and a later forward then loses the gradient (pytorch#112583).
_AUTOCAST_CACHE = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)

_HINT = (
    "lower learning_rate, scale the rewards down (reward_scale), or set precision='fp32'; "
    "what was saved before holds weights that were checked"
)


class StepSchedule(NamedTuple):
    """What changes from update to update beside the batch; float32 tensors [] where a CUDA graph replays the update.

    Attributes:
        learning_rate: Of the optimiser.
        target: How far the targets move; 0 leaves them.
        average: How far the averaged weights move; 0 where there are none.
    """

    learning_rate: float | Tensor
    target: float | Tensor
    average: float | Tensor


Loss = Callable[[Batch | FrameBatch, Tensor, str], tuple[Tensor, dict[str, Tensor]]]
"""From a raw batch, its augmentation draws and a precision to the loss and detached metrics."""


class _LossModule(nn.Module):
    """An algorithm's loss as a module's forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, algorithm: Algorithm, loss: Loss) -> None:
        super().__init__()
        self.algorithm = algorithm
        self._loss = loss

    def forward(self, batch: Batch | FrameBatch, draws: Tensor, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch, draws, precision)


class Learner:
    """Trains an algorithm, one batch at a time.

    On a CPU with glibc it sets malloc, for the whole process, to keep large freed blocks: fresh ones cost a quarter
    of an update.

    Args:
        algorithm: is moved to `device` and trained in place.
        config: how.
        total_updates: the length of the run, for the schedule.
        device: where the networks live; "auto" for a GPU where there is one.
        ranks: the processes that train together, each on its part of the batches; `fit` asks torchrun for them.

    Raises:
        ConfigError: no such device, settings that the optimiser or the task does not take, no updates, or targets that
            pair different networks.

    Attributes:
        step: updates done.
        precision: "fp32" or "bf16"; "auto" becomes one of them in `autotune`, at the first update at the latest.
        compile: "on" or "off", likewise.
        threads: of torch, likewise; "auto" becomes torch's own number on several ranks and on other devices.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        config: LearnerConfig | None = None,
        *,
        total_updates: int,
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config = LearnerConfig() if config is None else config
        if not isinstance(config, LearnerConfig):
            raise ConfigError(f"a {type(config).__name__}", where="Learner.config", expected="a LearnerConfig")
        self.device = resolve_device(device)
        if not is_whole(total_updates) or total_updates < 1:
            raise ConfigError(f"{total_updates!r}", where="Learner.total_updates", expected="1 or more, a whole number")
        self.total_updates = total_updates
        self.step = 0
        self.precision: Precision = config.precision
        self.compile: Compile = config.compile
        # On several ranks torchrun has divided the cores, and a GPU's host has little to do.
        is_open = self.device.type == "cpu" and ranks.count == 1
        self.threads: Threads = config.threads if is_open or config.threads != "auto" else torch.get_num_threads()
        if self.device.type == "cpu":
            keep_freed_memory()
        self.algorithm = algorithm
        algorithm.to(self.device)
        lay_channels_last(algorithm)
        algorithm.train()
        self._ranks = ranks
        ranks.copy_first_(algorithm.state_dict().values())
        self._loss: Loss = self._raw_loss
        self._is_tuned = False
        groups = optimizer.groups_of(algorithm)
        self._optimizer = optimizer.make_optimizer(config, groups, self.device)
        self._rate_scales = [group.learning_rate_scale for group in groups]
        trained = {id(parameter) for group in groups for parameter in group.parameters}
        by_name = {name: p for name, p in algorithm.named_parameters() if p.requires_grad}
        self._trained = {name: p for name, p in by_name.items() if id(p) in trained}
        self._untrained = [p for p in by_name.values() if id(p) not in trained]
        self._targets = optimizer.target_pairs(algorithm)
        self._average = {name: p.detach().clone() for name, p in self._trained.items() if config.average_decay > 0}
        self._metrics = MetricSums()
        self._last_batch: tuple[Batch | FrameBatch, Tensor] | None = None
        self._augmentation = Augmentation(config.augment_shift, config.augment_brightness, config.augment_seed)
        if self._augmentation and not algorithm.spec.is_pixels:
            raise ConfigError("vectors", where="LearnerConfig.augment_shift, augment_brightness", expected="pixels")
        if self._augmentation and config.augment_shift >= (most := min(algorithm.spec.observation_shape[-2:])):
            raise ConfigError(
                f"{config.augment_shift}", where="LearnerConfig.augment_shift", expected=f"fewer pixels than {most}"
            )
        self._prepare = Preparation(algorithm.spec, self._augmentation, self.device)
        self._stays_on_device = optimizer.stays_on_device(self._optimizer, self.device)
        # Gradients that are exchanged between processes are no part of a graph.
        self.updates_per_graph = config.updates_per_graph if self._stays_on_device and ranks.count == 1 else 0
        self._graphs: dict[int, UpdateGraph] = {}

    def update(self, batch: Batch | FrameBatch, count: int = 1) -> None:
        """`count` gradient steps, on as many equal parts of a raw batch, one after the other.

        Nothing waits for a CUDA device, with Adam or AdamW.

        Args:
            batch: [count * B, ...] as replay hands it over; on several ranks, this rank's B rows of each batch.
            count: updates; when as many are asked for again, with batches of the same shapes, a CUDA device replays
                them as one graph.
        """
        batch = batch.to(self.device)
        parts: list[Batch | FrameBatch] = [*batch.split(count)]
        self.autotune(parts[0])
        if not self.algorithm.training:  # a policy made of it in the meantime has switched it to evaluation
            self.algorithm.train()
        steps = range(self.step, self.step + count)
        draws = self._draws(steps, len(parts[0]))
        schedules = [self._step_schedule(step) for step in steps]
        graph = self._graphs.get(count)
        if graph is not None and graph.fits(batch):
            # From pinned memory the device copies by itself, and the host goes on.
            graph.replay(batch, draws.pin_memory(), torch.tensor(schedules).pin_memory())
        else:
            draws = draws.to(self.device)
            for step, part, draw, schedule in zip(steps, parts, draws, schedules, strict=True):
                self._update(part, draw, schedule)
                if self.device.type == "cpu" and (step + 1) % optimizer.CLEARING_PERIOD == 0:
                    optimizer.clear_tiny(self._optimizer)
            self._record(batch, draws, torch.tensor(schedules))  # what has run once is set up
        self.step += count
        self._metrics.count += count
        self._last_batch = parts[-1], draws[-1]

    def _draws(self, steps: range, num_rows: int) -> Tensor:
        """What the augmentation draws for this rank's rows of the batches of all ranks."""
        batch_size = num_rows * self._ranks.count
        return self._augmentation.draws(steps, batch_size)[:, self._ranks.rows(batch_size)]

    def _record(self, batch: Batch | FrameBatch, draws: Tensor, schedules: Tensor) -> None:
        if self.updates_per_graph == 0:
            return
        try:
            self._graphs[len(schedules)] = UpdateGraph(
                lambda part, draw, values: self._update(part, draw, StepSchedule(*values)), batch, draws, schedules
            )
        except RuntimeError as error:
            self.updates_per_graph = 0
            reason = str(error).splitlines()[0]
            warnings.warn(f"no CUDA graph of {self.algorithm.name}'s update: {reason}; it runs without", stacklevel=3)

    def _update(self, batch: Batch | FrameBatch, draws: Tensor, schedule: StepSchedule) -> None:
        """One update, wholly on the device: this is what a CUDA graph holds."""
        for group, scale in zip(self._optimizer.param_groups, self._rate_scales, strict=True):
            group["lr"] = schedule.learning_rate if scale == 1 else schedule.learning_rate * scale
        self._clear_gradients()
        metrics = self._gradients(batch, draws, self.precision)
        skipped = self._not_finite(metrics["loss"])
        self._ranks.largest_(skipped)  # an update is left out on all ranks or on none
        if self._stays_on_device:
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not skipped.item():
            self._optimizer.step()
        optimizer.move(self._targets, schedule.target)
        optimizer.move([(self._trained[name], average) for name, average in self._average.items()], schedule.average)
        self._metrics.add(metrics, skipped)

    def _step_schedule(self, step: int) -> StepSchedule:
        """Of the update that follows `step` others."""
        config, done = self.config, step + 1
        # Early averages would otherwise remember the random first weights for 1 / (1 - decay) updates.
        decay = min(config.average_decay, done / (done + 10))
        return StepSchedule(
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

    def read_metrics(self, *, keep: bool = False) -> dict[str, float]:
        """The metrics' means over the updates since the last reading; here the host waits for the device.

        With non_finite="skip", `skipped_updates` is how many were left out of them. Before the first update there are
        no others.

        Args:
            keep: The next reading has these updates, too.

        Raises:
            RunError: some were not finite, and non_finite="stop".
        """
        self.share_metrics()
        self.require_finite()
        means, num_skipped = self._metrics.read(keep=keep)
        return means if self.config.non_finite == "stop" else {**means, "skipped_updates": num_skipped}

    def share_metrics(self) -> None:
        """Gives each rank the mean of the ranks' metrics, so that one of them can log and save for all."""
        self._ranks.mean_(self._metrics.totals.values())

    def require_finite(self) -> None:
        """Waits for the device and, with non_finite="stop", checks the updates since the last reading.

        Raises:
            RunError: The loss or a gradient of some was not finite. They changed no trained weight.
        """
        skipped = self._metrics.num_skipped()
        if skipped and self.config.non_finite == "stop":
            count = self._metrics.count
            self._metrics.forget()
            raise RunError(
                f"the loss or a gradient is infinite or NaN in {skipped:.0f} of the {count} updates before {self.step}",
                where="training",
                expected="finite ones",
                hint=_HINT,
            )

    def require_sound_weights(self) -> None:
        """Checks the weights as they are now: an update's loss says something of the weights before it only.

        Raises:
            RunError: A weight is infinite or NaN or, with non_finite="stop", their loss for the last batch.
        """
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in self._trained.values()]).all()
        if self._last_batch is not None and self.config.non_finite == "stop":
            batch, draws = self._last_batch
            with kept(self.algorithm):
                loss, _ = self._measure(self._prepare(batch, draws.to(self.device), self.precision))
            finite = finite & loss.isfinite()
        if self._ranks.any(not finite.item()):
            raise RunError(
                f"the weights after update {self.step} are infinite or NaN, or give a loss that is",
                where="training",
                expected="finite ones",
                hint=_HINT,
            )

    def measure(self, batches: Iterable[Batch | FrameBatch]) -> dict[str, float]:
        """The mean loss and metrics of raw batches that are not trained on, without augmentation. Changes nothing."""
        prepare = Preparation(self.algorithm.spec, Augmentation(), self.device)
        no_draws = torch.empty(0)
        sums = MetricSums()
        with kept(self.algorithm):  # a loss of one's own may count its calls
            for batch in batches:
                loss, metrics = self._measure(prepare(batch.to(self.device), no_draws, self.precision))
                sums.add({"loss": loss, **metrics}, torch.zeros((), device=self.device))
                sums.count += 1
        return sums.read().means

    def _measure(self, prepared: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self.algorithm.eval()  # what only training has (dropout, running statistics) sees nothing of this
        with torch.no_grad(), self._in_precision(self.precision):
            found = self._detached_loss(prepared)
        self.algorithm.train()
        return found

    def snapshot(self) -> Algorithm:
        """A copy of the algorithm as evaluation and export see it: the averaged weights where those are on."""
        algorithm = copy.deepcopy(self.algorithm)
        for name, parameter in algorithm.named_parameters():
            if name in self._average:
                parameter.data.copy_(self._average[name])
        return algorithm.eval()

    def autotune(self, batch: Batch | FrameBatch, announce: Callable[[str], None] = lambda _: None) -> None:
        """Turns each "auto" into what runs a forward and backward pass on this batch faster here, and compiles.

        Args:
            batch: [B, ...] as replay hands it over.
            announce: Is told in a few words what takes the time, before it does.

        Raises:
            ConfigError: compile is "on", and cannot be here.
        """
        if self._is_tuned:
            return
        self._is_tuned = True
        batch = batch.to(self.device)
        draws = self._draws(range(1), len(batch))[0].to(self.device)
        self._loss = self._raw_loss
        if self.threads != "auto":
            torch.set_num_threads(self.threads)
        with kept(self.algorithm):  # running statistics have not seen these passes
            if self._ranks.is_first:
                self._choose_by_measuring(batch, draws, announce)
            if self._ranks.count > 1:
                self._share_gradients(batch, draws)
        self._clear_gradients()

    def _choose_by_measuring(self, batch: Batch | FrameBatch, draws: Tensor, announce: Callable[[str], None]) -> None:
        as_graphs, updates = self.updates_per_graph > 0, self.total_updates - self.step
        if self.threads == "auto":
            self.threads = torch.get_num_threads()
            if updates >= MEASURED_UPDATES:
                announce("measuring how many threads are fastest")
                precision = "fp32" if self.precision == "auto" else self.precision
                self.threads = best_threads(partial(self._gradients, batch, draws, precision), self.threads)
                torch.set_num_threads(self.threads)
        if self.precision == "auto":
            announce("measuring which precision is fastest")
            known = ("fp32", "bf16") if self.device.type in ("cpu", "cuda") else ("fp32",)
            ways = {precision: partial(self._gradients, batch, draws, precision) for precision in known}
            self.precision = fastest_precision(ways, self.device, as_graphs=as_graphs)
        if self.compile != "off":
            announce("compiling the update, where that repays itself; the next run takes it from torch's cache")
            repays = does_compiling_repay(
                partial(self._gradients, batch, draws, self.precision),
                self._compile_loss,
                updates,
                self.device,
                is_asked=self.compile == "on",
                as_graphs=as_graphs,
            )
            self.compile = "on" if repays else "off"
            if not repays:
                self._loss = self._raw_loss

    def _share_gradients(self, batch: Batch | FrameBatch, draws: Tensor) -> None:
        """Takes over what rank 0 has chosen, and puts the loss into a module that exchanges gradients."""
        self.precision, self.compile = self._ranks.first([self.precision, self.compile])
        if self.compile == "on" and not self._ranks.is_first:
            self._compile_loss()
        self._clear_gradients()
        self._gradients(batch, draws, self.precision)  # tells which parameters the loss does not use
        parameters = [*self._trained.values(), *self._untrained]
        has_unused = self._ranks.any(any(parameter.grad is None for parameter in parameters))
        module = _LossModule(self.algorithm, self._loss)
        self._loss = self._ranks.sharing_gradients(module, has_unused_parameters=has_unused)

    def _compile_loss(self) -> None:
        compiled = torch.compile(self._raw_loss, dynamic=False)

        def loss(batch: Batch | FrameBatch, draws: Tensor, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
            if isinstance(batch, FrameBatch):  # what is compiled, and kept by torch, is then good for more data
                torch._dynamo.maybe_mark_dynamic(batch.frames, 0)
            return compiled(batch, draws, precision)

        self._loss = loss

    def _raw_loss(self, batch: Batch | FrameBatch, draws: Tensor, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """From bytes to the loss: all that is compiled as one."""
        return self._detached_loss(self._prepare(batch, draws, precision))

    def _detached_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics without gradients: a compiled function would else make room for them."""
        loss, metrics = self.algorithm.loss(batch)
        return loss, {name: value.detach() for name, value in metrics.items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on; `load_state` is the inverse."""
        tensors = {f"algorithm.{name}": tensor for name, tensor in self.algorithm.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self._average.items()}
        tensors |= {f"metric.{name}": total for name, total in self._metrics.totals.items()}
        return tensors | {f"optimizer.{name}": t for name, t in optimizer.state_tensors(self._optimizer).items()}

    def state_values(self) -> dict[str, Any]:
        """The rest of the state, ready for JSON."""
        return {
            "step": self.step,
            "precision": self.precision,
            "compile": self.compile,
            "threads": self.threads if self._ranks.count == 1 else None,
            "metric_count": self._metrics.count,
            "optimizer": optimizer.state_values(self._optimizer),
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
        self._metrics.load(groups["metric"], values["metric_count"], self.device)
        optimizer.load_state(self._optimizer, groups["optimizer"], values["optimizer"])
        self.step = values["step"]
        self.take_choices(values)
        self._is_tuned, self._graphs = False, {}

    def take_choices(self, choices: Mapping[str, Any]) -> None:
        """Takes over what was chosen by measuring before: "precision", "compile" and "threads"; what lacks stays.

        But a number of threads that the config names holds.
        """
        self.precision = choices.get("precision", self.precision)
        self.compile = choices.get("compile", self.compile)
        threads: Any = choices.get("threads")
        if self.threads == "auto" and is_whole(threads) and 1 <= threads <= MOST_THREADS:
            self.threads = int(threads)
            torch.set_num_threads(self.threads)

    def share_state(self) -> None:
        """Puts every rank where rank 0 is."""
        if self._ranks.count > 1:
            tensors = self._ranks.first_tensors(self.state_tensors())
            values = self._ranks.first(self.state_values())
            if not self._ranks.is_first:
                self.load_state({name: tensor.to(self.device) for name, tensor in tensors.items()}, values)

    def _clear_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        for parameter in self._untrained:  # those of what no group trains would be summed over all updates
            parameter.grad = None

    def _gradients(self, batch: Batch | FrameBatch, draws: Tensor, precision: str) -> Mapping[str, Tensor]:
        with self._ranks.watched():
            with self._in_precision(precision):
                loss, metrics = self._loss(batch, draws, precision)
            with nullcontext() if precision == "bf16" else exact_convolutions(self.device):
                loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach(), **metrics}

    @contextmanager
    def _in_precision(self, precision: str) -> Iterator[None]:
        """Within it the networks run in this precision."""
        is_bf16 = precision == "bf16"
        with (
            nullcontext() if is_bf16 else exact_convolutions(self.device),
            torch.autocast(self.device.type, torch.bfloat16, enabled=is_bf16, cache_enabled=_AUTOCAST_CACHE),
        ):
            yield

    def _not_finite(self, loss: Tensor) -> Tensor:
        """1.0 where the loss or a gradient is infinite or NaN, else 0.0. [].

        Told by the gradients' Euclidean norms, eight times as fast as isfinite; beyond 1e19 they are infinite, too.
        """
        gradients = [p.grad for p in self._trained.values() if p.grad is not None]
        norms = torch.stack([loss.float(), *torch._foreach_norm(gradients)])
        return (~norms.isfinite()).any().float()

"""Our ways of training, each served by a process of its own: python -m benchmarks.ways NAME."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

import offrl
from benchmarks.baseline import PlainBCQ
from benchmarks.batches import memory_kib
from benchmarks.peers.protocol import Channel, Watch, serve
from offrl import Batch, TaskSpec
from offrl.networks import EncoderFactory
from offrl.replay import FrameStore, Replay
from offrl.system.workers import num_cores
from offrl.training import Learner
from offrl.training.config import Precision


@dataclass(frozen=True)
class Options:
    """What a way is measured with.

    Attributes:
        store: the data's directory; None for a way that needs none.
        batch_size: of an update.
        updates: of a slice.
        run_length: updates that the run says it will make; what pays in a long run is left alone in a short one.
        actions: of a way without data.
        precision: of the networks.
        device: of the networks.
        run: where the run is kept, a checkpoint after each slice; None keeps none.
    """

    store: Path | None
    batch_size: int
    updates: int
    run_length: int
    actions: int
    precision: Precision
    device: str
    run: Path | None

    def replay(self) -> Replay:
        """The data on disk, n-step returns as in the CarRacing example."""
        if self.store is None:
            raise click.UsageError("--store is missing")
        from benchmarks.driving import example

        return Replay(FrameStore.open(self.store, "mmap"), **example().REPLAY)


class Gate:
    """A logger that holds `offrl.fit` between two slices, which are as long as its log period."""

    def __init__(self, channel: Channel, run: Path, updates: int, device: str) -> None:
        self._channel = channel
        self._run = run
        self._updates = updates
        self._device = device

    def open(self) -> None:
        """Waits for the next slice to be asked for."""
        asked = self._channel.next_slice()
        assert asked == self._updates, "fit logs every --updates"
        self._watch = Watch()

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Answers with the slice's seconds, the share of them that fit waited for data, and what "auto" became."""
        taken = self._watch.read()
        waited = timings["data_wait"] * self._updates / timings["updates_per_second"]  # its clock ran while we held it
        settled = json.loads((self._run / "config.json").read_bytes())["settled"]
        self._channel.say({**taken, "data_wait": waited / taken["seconds"], **settled, **memory(self._device)})
        self.open()

    def close(self) -> None:
        """Nothing is open."""


class SavedGate(Gate):
    """Answers half a slice late, when the checkpoint of the slice's end is there; its seconds are the slice's.

    `fit` logs twice a slice, before it saves: what it does after the end of a slice is part of the next one.
    """

    def __init__(self, channel: Channel, run: Path, updates: int, device: str) -> None:
        super().__init__(channel, run, updates, device)
        self._ended: dict[str, float] | None = None
        self._carried = {"seconds": 0.0, "cpu_seconds": 0.0}

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Notes the end of a slice, or answers for the one that has ended."""
        if step % self._updates == 0:
            self._ended = self._watch.read()
        elif self._ended is not None:
            self._answer(self._ended)
            self.open()

    def close(self) -> None:
        """Answers for the last slice: all is saved."""
        if self._ended is not None:
            self._answer(self._ended)

    def _answer(self, ended: Mapping[str, float]) -> None:
        answer = {name: self._carried[name] + value for name, value in ended.items()}
        self._carried = {name: value - ended[name] for name, value in self._watch.read().items()}
        self._ended = None
        self._channel.say(answer)  # last: whoever hears it stops this process, and its clock goes on


def end_to_end(channel: Channel, options: Options, encoder: EncoderFactory, **learner: Any) -> None:
    """`offrl.fit` on data from disk, as users run it; `learner` are further settings of the Learner."""
    replay = options.replay()
    algorithm = offrl.DiscreteBCQ(replay.spec, encoder=encoder)
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        kind, log_period = (Gate, options.updates) if options.run is None else (SavedGate, options.updates // 2)
        gate = kind(channel, run, options.updates, options.device)
        channel.say(about(algorithm, options.batch_size))
        gate.open()
        offrl.fit(
            algorithm,
            replay,
            offrl.FitConfig(
                updates=options.run_length,
                batch_size=options.batch_size,
                log_period=log_period,
                checkpoint_period=options.run_length if options.run is None else options.updates,
            ),
            learner=offrl.LearnerConfig(**{"precision": options.precision, **learner}),
            run=run,
            loggers=[gate],
            device=options.device,
        )


def ceiling(channel: Channel, options: Options) -> None:
    """The Learner on one batch that never changes: no data path at all."""
    spec = TaskSpec.pixels((4, 96, 96), tuple(str(action) for action in range(options.actions)))
    config = offrl.LearnerConfig(precision=options.precision)
    algorithm = offrl.DiscreteBCQ(spec, encoder=offrl.NatureEncoder)
    learner = Learner(algorithm, config, total_updates=options.run_length, device=options.device)
    together = max(learner.updates_per_graph, 1)
    if options.updates % together:
        raise click.UsageError(f"--updates must be a multiple of {together}, as many as one CUDA graph holds")
    batch = synthetic_batch(spec, options.batch_size * together).to(learner.device)

    def run(count: int) -> dict[str, Any]:
        for _ in range(0, count, together):
            learner.update(batch, together)
        learner.read_metrics()
        return {"precision": learner.precision, "compile": learner.compile, **memory(options.device)}

    serve(channel, about(algorithm, options.batch_size), run)


def like_the_example(channel: Channel, options: Options) -> None:
    """End to end with the CarRacing example's learner."""
    from benchmarks.driving import example

    settings = asdict(example().LEARNER)
    end_to_end(channel, options, offrl.NatureEncoder, **{n: v for n, v in settings.items() if n != "precision"})


def plain(channel: Channel, options: Options) -> None:
    """The plain eager update on batches from our replay, gathered when they are asked for."""
    replay = options.replay()
    agent = PlainBCQ(replay.spec.num_actions, options.device)
    step = 0

    def run(count: int) -> None:
        nonlocal step
        for _ in range(count):
            batch = replay.gather(replay.indices(step, options.batch_size))
            agent.update(batch.observation, batch.action, batch.reward, batch.discount, batch.next_observation)
            step += 1

    serve(channel, {"parameters": num_parameters(agent.network)}, run)


def synthetic_batch(spec: TaskSpec, batch_size: int) -> Batch:
    """A raw batch of noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, *spec.observation_shape)
    return Batch(
        observation=torch.randint(256, shape, dtype=torch.uint8, generator=generator),
        action=torch.randint(spec.num_actions, (batch_size,), generator=generator),
        reward=torch.randn(batch_size, generator=generator),
        discount=torch.full((batch_size,), 0.97),
        next_observation=torch.randint(256, shape, dtype=torch.uint8, generator=generator),
    )


def about(algorithm: offrl.Algorithm, batch_size: int) -> dict[str, float]:
    """Trained weights, and the multiplications and additions of one update of the network's matrices."""
    batch = synthetic_batch(algorithm.spec, 1)
    now, after = (algorithm.spec.normalise(pixels) for pixels in (batch.observation, batch.next_observation))
    with FlopCounterMode(display=False) as counter:
        loss, _ = algorithm.loss(replace(batch, observation=now, next_observation=after))
        loss.backward()  # type: ignore[no-untyped-call]
    algorithm.zero_grad(set_to_none=True)
    return {"parameters": num_parameters(algorithm), "gflop": counter.get_total_flops() * batch_size / 1e9}


def num_parameters(module: torch.nn.Module) -> int:
    """Trained weights."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def memory(device: str) -> dict[str, float]:
    """MiB: the device's peak, or what this process holds beside mapped files (Linux)."""
    if device.startswith("cuda"):
        return {"memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    return {"memory_mib": memory_kib()["RssAnon"] / 1024}


WAYS: dict[str, Callable[[Channel, Options], None]] = {
    "offrl": partial(end_to_end, encoder=offrl.NatureEncoder),
    "eager": partial(end_to_end, encoder=offrl.NatureEncoder, compile="off", updates_per_graph=0),
    "all-threads": partial(end_to_end, encoder=offrl.NatureEncoder, threads=num_cores()),
    "ceiling": ceiling,
    "float32": partial(end_to_end, encoder=offrl.NatureEncoder, precision="fp32"),
    "compact": partial(end_to_end, encoder=offrl.CompactEncoder),
    "example": like_the_example,
    "plain": plain,
}


@click.command()
@click.argument("name", type=click.Choice(list(WAYS)))
@click.option("--store", type=click.Path(path_type=Path))
@click.option("--batch-size", default=128)
@click.option("--updates", default=60)
@click.option("--run-length", default=10**9)
@click.option("--actions", default=25)
@click.option("--precision", default="auto")
@click.option("--device", default="cpu")
@click.option("--run", type=click.Path(path_type=Path))
def main(name: str, **options: Any) -> None:
    """Serves slices of one way until stdin closes."""
    WAYS[name](Channel(), Options(**options))


if __name__ == "__main__":
    main()

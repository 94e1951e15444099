"""Choices made by measuring: which of several ways to do the same is the fastest here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Literal

import torch

from offrl.errors import ConfigError
from offrl.training._graphs import recorded

_ROUNDS = 6  # the first ones pay for warm-up, others may be disturbed by what else runs
_HOPELESS = 3.0  # times as slow as the fastest: such a way is not measured again
_FASTER = 0.95  # what the other way has to take at the most, of the time of the simple one

_MUCH_FASTER = 0.85  # what fewer threads have to take at the most: a near tie must not change a run's rounding
_ROUNDS_OF_THREADS = 5

_COMPILING_SECONDS = 25.0  # what compiling takes on 2 cores; a fifth of it from torch's cache
_COMPILING_SAVES = 0.15  # the share of an update that it may well save
MEASURED_UPDATES = 1000  # with fewer updates some questions are not worth a measurement

Run = Callable[[], object]


@contextmanager
def kept(network: torch.nn.Module) -> Iterator[None]:
    """What is measured in here leaves the network's buffers as they were, whether it changes or replaces them."""
    before = [
        (module, name, tensor, tensor.clone())
        for module in network.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    try:
        yield
    finally:
        for module, name, tensor, value in before:
            tensor.copy_(value)
            module._buffers[name] = tensor


def shortest_seconds(ways: Mapping[str, Run], device: torch.device) -> dict[str, float]:
    """The shortest time that each way took, in seconds, over a few rounds in which all take their turn.

    A way that is hopelessly slower than the fastest is left out of later rounds: bf16 on a processor without such
    instructions may take a hundred times as long.
    """
    seconds = dict.fromkeys(ways, math.inf)
    for _ in range(_ROUNDS):
        for name, run in ways.items():
            if seconds[name] < math.inf and seconds[name] > _HOPELESS * min(seconds.values()):
                continue
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def best_threads(run: Run, most: int) -> int:
    """With how many of torch's threads a pass takes least time: `most`, or fewer where that is much faster.

    Threads wait for each other many times in an update, and spin meanwhile. Where another process keeps one of their
    cores busy, all of them wait for the one that is interrupted, and fewer threads do more. So the median counts here,
    not the shortest time, which is one without a disturbance.

    Args:
        run: A forward and backward pass on the CPU.
        most: Threads; it is tried with these, and with halves of them down to one.
    """
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    if len(counts) == 1:
        return most
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for _ in range(_ROUNDS_OF_THREADS):
            for count in counts:
                torch.set_num_threads(count)
                start = time.perf_counter()
                run()
                seconds[count].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(most)
    typical = {count: median(found[1:]) for count, found in seconds.items()}  # the first ones pay for warm-up
    fastest = min(counts, key=lambda count: typical[count])
    return fastest if typical[fastest] < _MUCH_FASTER * typical[most] else most


def fastest_precision(ways: Mapping[str, Run], device: torch.device, *, as_graphs: bool) -> Literal["fp32", "bf16"]:
    """The faster precision: "bf16" where that is measurably faster than "fp32", else "fp32".

    Args:
        ways: A forward and backward pass in each precision.
        device: Where they run.
        as_graphs: Whether updates will be replayed as CUDA graphs, so that launching kernels must not count.
    """
    seconds = _measure(ways, device, as_graphs)
    return "bf16" if seconds.get("bf16", math.inf) < _FASTER * seconds["fp32"] else "fp32"


def does_compiling_repay(
    run: Run, compile_it: Callable[[], None], updates: int, device: torch.device, *, is_asked: bool, as_graphs: bool
) -> bool:
    """Whether a pass is faster compiled, and by enough to repay the time that compiling takes.

    Args:
        run: A forward and backward pass.
        compile_it: After it, `run` runs compiled; not called where too few updates are left to repay it.
        updates: That are left.
        device: Where the pass runs.
        is_asked: Whether the user asked for compiling: then only a pass that fails speaks against it.
        as_graphs: See `fastest_precision`.

    Raises:
        ConfigError: The user asked for compiling, and it fails.
    """
    eager_seconds = math.inf
    if not is_asked:
        if updates < MEASURED_UPDATES:
            return False
        eager_seconds = _measure({"eager": run}, device, as_graphs)["eager"]
        if eager_seconds * updates * _COMPILING_SAVES < _COMPILING_SECONDS:
            return False
    compile_it()
    try:
        return _measure({"compiled": run}, device, as_graphs)["compiled"] < _FASTER * eager_seconds
    except Exception as error:  # whatever the compiler, or the one behind it, has to say
        if is_asked:
            raise ConfigError(
                f"torch.compile fails ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})",
                where="LearnerConfig.compile",
                expected="a loss that it can take, and a C++ compiler",
                hint="take compile='off'",
            ) from error
        return False


def _measure(ways: Mapping[str, Run], device: torch.device, as_graphs: bool) -> dict[str, float]:
    return shortest_seconds({n: recorded(run, device) for n, run in ways.items()} if as_graphs else ways, device)

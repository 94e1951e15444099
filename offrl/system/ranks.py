"""The processes that torchrun starts for one run, and what they tell each other; a process alone tells nobody."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from offrl.errors import ConfigError, RunError
from offrl.system.workers import num_cores

if TYPE_CHECKING:  # what collects and evaluates alone does not pay for torch
    import torch
    from torch import Tensor, nn

_POLL_SECONDS = 0.1


class Ranks:
    """The processes that train together, of which this is one; by default this one alone.

    Every method that says "collective" must be called by all ranks, in the same order. Alone none of them does
    anything. What they tell each other is JSON and tensors, no pickle.

    Args:
        rank: Of this process, 0 .. `count` - 1.
        count: Of processes, on all machines.
        local_rank: Of this process among those on its machine.
        num_local: Of the processes on this machine.
        store: Where torchrun's processes find each other; None where they do not need to.

    Attributes:
        has_failed: Whether this process has met an error, such as that another one is gone.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, local_rank: int = 0, num_local: int = 1, store: Any = None
    ) -> None:
        self.rank, self.count, self.local_rank, self.num_local = rank, count, local_rank, num_local
        self._store = store
        self.has_failed = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run, logs and prints."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """This rank's rows of a batch of all ranks.

        Raises:
            ConfigError: The batch cannot be divided by the ranks.
        """
        if self.count == 1:
            return slice(None)
        if batch_size % self.count:
            raise ConfigError(
                f"{batch_size} transitions for {self.count} ranks",
                where="FitConfig.batch_size",
                expected=f"a multiple of {self.count}: it is the batch of all ranks together",
            )
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def share(self, episodes: Sequence[int]) -> Sequence[int]:
        """This rank's share of some episodes, which are dealt out in turn.

        Raises:
            ConfigError: There are fewer episodes than ranks.
        """
        if len(episodes) < self.count:
            raise ConfigError(
                f"{len(episodes)} episodes for {self.count} ranks",
                where="evaluate",
                expected="one or more for each rank",
            )
        return episodes[self.rank :: self.count] if self.count > 1 else episodes

    def workers(self, workers: int | None) -> int | None:
        """The worker processes of this rank: the ranks of a machine share its cores where None asks for all of them."""
        if self.count == 1 or workers is not None:
            return workers
        cores = num_cores() // self.num_local
        return cores if cores > 1 else 0

    def device(self, device: torch.device | str) -> torch.device | str:
        """The device of this rank: of several GPUs the one with its number on the machine.

        Raises:
            ConfigError: There are more ranks than GPUs on this machine, or all would use one GPU.
        """
        if self.count == 1:
            return device
        import torch

        name = str(device)
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return "cpu"
        if name not in ("auto", "cuda"):
            raise ConfigError(f"{name!r} for {self.count} ranks", where="device", expected="'auto', 'cpu' or 'cuda'")
        if self.num_local > (num_gpus := torch.cuda.device_count()):
            raise ConfigError(
                f"{self.num_local} ranks for {num_gpus} GPUs",
                where="device",
                expected="a GPU for each rank on a machine",
                hint="start fewer ranks with --nproc-per-node, or train on 'cpu'",
            )
        torch.cuda.set_device(self.local_rank)  # NCCL talks through the current device
        return f"cuda:{self.local_rank}"

    def any(self, flag: bool) -> bool:
        """Whether it is true on one of the ranks. Collective."""
        if self.count == 1:
            return flag
        return self.largest(float(flag)) > 0

    def largest(self, number: float) -> float:
        """The largest of the ranks' numbers. Collective."""
        if self.count == 1:
            return number
        import torch

        found = torch.tensor([number])
        self.largest_(found)
        return found.item()

    def largest_(self, tensor: Tensor) -> None:
        """Sets a tensor to the largest of all ranks, element by element. Collective."""
        if self.count > 1:
            import torch.distributed as dist

            with self.watched():
                dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Sets tensors [] to their means over the ranks. Collective."""
        found = [*tensors]
        if self.count > 1 and found:
            import torch
            import torch.distributed as dist

            together = torch.stack(found)
            with self.watched():
                dist.all_reduce(together)
            for tensor, total in zip(found, together / self.count, strict=True):
                tensor.copy_(total)

    def first(self, value: Any = None) -> Any:
        """The value of rank 0, JSON-ready. Collective."""
        if self.count == 1:
            return value
        found: list[Any] = self.gather(value if self.is_first else None)
        return found[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, JSON-ready, in the order of the ranks. Collective."""
        if self.count == 1:
            return [value]
        import torch
        import torch.distributed as dist

        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        with self.watched():
            dist.all_gather(lengths, torch.tensor([len(content)]))
            longest = int(max(lengths).item())
            padded = torch.cat([content, torch.zeros(longest - len(content), dtype=torch.uint8)])
            contents = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
            dist.all_gather(contents, padded)
        return [json.loads(bytes(each[: int(length)].tolist())) for each, length in zip(contents, lengths, strict=True)]

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        """Sets tensors to those of rank 0, which have the same shapes. Collective."""
        if self.count > 1:
            import torch
            import torch.distributed as dist

            with self.watched(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor.data, src=0)

    def first_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of rank 0 by name, on the host; the other ranks need not know their names and shapes. Collective."""
        if self.count == 1:
            return dict(tensors)
        import torch

        known = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()}
        found = {
            # In plain order: how the values of rank 0 lie in memory is not what is sent.
            name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format)
            if self.is_first
            else torch.empty(shape, dtype=getattr(torch, dtype))
            for name, (dtype, shape) in self.first(known).items()
        }
        self.copy_first_(found.values())
        return found

    def sharing_gradients(self, module: nn.Module, *, has_unused_parameters: bool) -> nn.Module:
        """The module, whose backward passes give each rank the mean of all ranks' gradients. Collective."""
        from torch.nn.parallel import DistributedDataParallel

        with self.watched():
            return DistributedDataParallel(module, find_unused_parameters=has_unused_parameters)

    @contextmanager
    def first_here(self, name: str) -> Iterator[None]:
        """On each machine one rank runs the block before the others do; however long it takes.

        Where a rank fails in it, torchrun ends those that wait.
        """
        key = f"offrl/{name}/{os.environ.get('GROUP_RANK', '0')}/{_attempt()}"
        waits = self.count > 1 and self._store is not None
        if waits and self.local_rank > 0:
            with self.watched():
                while not self._store.check([key]):
                    time.sleep(_POLL_SECONDS)
        yield
        if waits and self.local_rank == 0:
            with self.watched():
                self._store.set(key, "1")

    def part(self, seconds: float) -> bool:
        """Waits until all ranks are done with each other; whether they are, and not one has failed or takes too long.

        Of those that leave a group while others still use it, gloo now and then ends one with SIGABRT. Who waits here
        asks the store, and no rank: one that is gone keeps nobody for longer than `seconds`.

        Args:
            seconds: How long to wait at most.
        """
        if self._store is None or self.has_failed:
            return not self.has_failed
        deadline = time.monotonic() + seconds
        try:
            count = self._store.add(f"offrl/done/{_attempt()}", 1)
            while count < self.count and time.monotonic() < deadline:
                if self._store.add(f"offrl/failed/{_attempt()}", 0) > 0:
                    return False
                time.sleep(_POLL_SECONDS)
                count = self._store.add(f"offrl/done/{_attempt()}", 0)
        except Exception:  # the machine that has the store is gone
            return False
        return bool(count >= self.count)

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Notes that this rank ends alone where a signal cuts the block: others may wait for it, and it not for them.

        An interrupt that all ranks have agreed on passes.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            self.has_failed |= not getattr(error, "is_agreed", False)
            raise

    def fails_first(self) -> bool:
        """Whether this is the first rank that asks: of an error on all of them one line is enough."""
        self.has_failed = True
        if self._store is None:
            return True
        try:
            count: int = self._store.add(f"offrl/failed/{_attempt()}", 1)
        except Exception:  # the machine that has the store is gone
            return True
        return count == 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Says in one line that another rank has gone, which the connection to it tells."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_of_connection(error):
                raise
            self.has_failed = True
            raise RunError(
                f"rank {self.rank} of {self.count} has lost another one ({reason_in(error)})",
                where="training on several ranks",
                hint="what that one or torchrun said tells why; with torchrun --max-restarts the run goes on by itself",
            ) from error


def _attempt() -> str:
    """Tells the starts of the processes by one torchrun apart."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def reason_in(error: Exception) -> str:
    """What gloo, NCCL or torch says first, without the place in its source."""
    return re.sub(r"^\[[^\]]*\] ", "", " ".join(str(error).split())).partition(". ")[0][:200]


def _is_of_connection(error: RuntimeError) -> bool:
    from torch import distributed as dist

    words = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in words for word in ("gloo", "nccl", "connection", "socket"))


ALONE = Ranks()

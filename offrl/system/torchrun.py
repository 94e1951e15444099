"""How a process learns from torchrun which others it trains with, and whether torchrun has started it before."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from offrl.errors import RunError
from offrl.system.json_files import read_json
from offrl.system.ranks import ALONE, Ranks, reason_in

_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others before it gives up: longer than an evaluation, which rank 0 may make alone."""

_JOINING = timedelta(minutes=5)
"""How long a rank waits for the others to start: torchrun starts them together."""

_LEAVING_SECONDS = 10.0
"""How long a rank waits for the others at its end: less than torchrun gives processes that it stops."""

_RANK = "{rank}"
"""In a setting of the command line: this process's rank, for one run a process."""

_joined: Ranks | None = None


def current() -> Ranks:
    """The ranks that `join` has connected; `ALONE` before."""
    return ALONE if _joined is None else _joined


def join() -> Ranks:
    """The ranks that torchrun's environment variables speak of, connected at the first call; without them `ALONE`.

    A process group that is there already is used as it is.

    Raises:
        RunError: They cannot be reached.
    """
    global _joined
    if _joined is not None:
        return _joined
    loaded = sys.modules.get("torch.distributed")
    if loaded is not None and loaded.is_available() and loaded.is_initialized():
        _joined = Ranks(loaded.get_rank(), loaded.get_world_size(), _variable("LOCAL_RANK", 0), _num_local())
    elif _variable("WORLD_SIZE", 1) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        _joined = _connect()
    return ALONE if _joined is None else _joined


def stay_alone() -> None:
    """From now on `join` gives this process alone, whatever the environment says."""
    global _joined
    _joined = ALONE


def _connect() -> Ranks:
    import atexit

    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://", timeout=_JOINING))
        # With GPUs, what the host has to say still takes the way over the host.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RunError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} cannot reach the others ({reason_in(error)})",
            where=address,
            expected="an address that all machines reach, as torchrun --rdzv-endpoint or --master-addr names it",
            hint="choose the network with GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME where a machine has several",
        ) from error
    atexit.register(_leave)
    return Ranks(rank, count, _variable("LOCAL_RANK", 0), _num_local(), store)


def _leave() -> None:
    import torch.distributed as dist

    # To take leave of ranks that are gone may take for ever.
    if dist.is_initialized() and current().part(_LEAVING_SECONDS):
        with suppress(Exception):  # the others may be gone already
            dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        return default


def _num_local() -> int:
    return _variable("LOCAL_WORLD_SIZE", 1)


def with_rank(text: str) -> str:
    """The text with this process's rank in place of `{rank}`; 0 without torchrun."""
    return text.replace(_RANK, str(_variable("RANK", 0)))


def launcher() -> str | None:
    """Names the torchrun that started this process, the same one after its own restarts; None without torchrun."""
    number = os.environ.get("TORCHELASTIC_RUN_ID")
    if number != "none":  # --rdzv-id, or one that --standalone draws: the same on all machines
        return number
    parent = os.getppid()
    try:  # the number of a process is used again; together with the moment of its start it is not
        started = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "0"
    return f"{socket.gethostname()} {parent} {started}"


def was_begun_by_this_launcher(directory: Path) -> bool:
    """Whether torchrun has started this process again, and the process before began the run in this directory."""
    if _variable("TORCHELASTIC_RESTART_COUNT", 0) == 0:
        return False
    try:
        recorded = read_json(directory / "environment.json").get("launcher")
    except (OSError, ValueError):
        return False
    return recorded is not None and recorded == launcher()


def describe(ranks: Ranks) -> dict[str, Any]:
    """What a run's environment.json records; nothing of a process that nobody started with others."""
    started_by = launcher()
    return {} if started_by is None and ranks.count == 1 else {"ranks": ranks.count, "launcher": started_by}

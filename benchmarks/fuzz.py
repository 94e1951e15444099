"""Mutated files for every reader: only errors of offrl's own may come out, in time and within memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.fuzzing.mutations import mutate_bytes
from benchmarks.fuzzing.readers import Reader, make_readers
from offrl import OfflineRLError
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SECONDS, KIB = 10, 500 * 2**10  # that one case may take
PART = 1000  # cases that a process is given at a time


class _HangError(BaseException):
    """A case took too long; no reader may catch it."""


def judge(reader: Reader, seed: int, index: int) -> str:
    """Mutates the reader's file, a function of seed and index, and uses it: "read", "refused", or what went wrong."""
    rng = np.random.default_rng([seed, index])
    mutate = mutate_bytes if rng.random() < 0.4 else reader.mutate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.path.write_bytes(mutate(rng, reader.content))
        try:
            reader.use()
        except OfflineRLError as error:
            is_line = str(error).isprintable() or "\t" in str(error)
            return "refused" if is_line else f"several lines: {str(error)[:200]!r}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        except _HangError:
            return f"took more than {SECONDS} s"
        finally:
            reader.path.write_bytes(reader.content)
    return "read"


@contextmanager
def _alarm() -> Iterator[None]:
    def hang(*_: Any) -> None:
        raise _HangError

    signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@click.command()
@click.option("--cases", default=1_000_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--minutes", type=float, help="End after so many, however many cases there were.")
@click.option("--workers", default=num_cores(), show_default="a core each", help="Processes.")
def fuzz(cases: int, seed: int, minutes: float | None, workers: int) -> None:
    """Gives mutated files to every reader, and counts what becomes of them."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    failures: list[str] = []
    begun, count = time.monotonic(), 0
    parts = [range(start, min(start + PART, cases)) for start in range(0, cases, PART)]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(dir=_memory()) as root,
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=(root,)) as pool,
        tqdm(total=cases, unit="case", disable=None) as bar,
    ):
        waiting = deque(pool.submit(_part, seed, part) for part in parts)
        while waiting:
            outcomes = waiting.popleft().result()
            for name, index, outcome in outcomes:
                rows[name][outcome if outcome in ("read", "refused") else "failed"] += 1
                if outcome not in ("read", "refused"):
                    failures.append(f"{name}, seed {seed}, case {index}: {outcome}")
            count += len(outcomes)
            bar.update(len(outcomes))
            if minutes is not None and time.monotonic() - begun > 60 * minutes:
                pool.shutdown(cancel_futures=True)
                break
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks fuzz --cases {cases} --seed {seed}"
            + (f" --minutes {minutes:g}" if minutes is not None else ""),
            "cases": count,
            "rows": {name: dict(sorted(counts.items())) for name, counts in rows.items()},
            "limits": {"seconds": SECONDS, "mib": KIB // 2**10},
            "failures": failures[:100],
            "machine": describe_machine(),
        },
    )
    for name, counts in rows.items():
        print(f"{name:<20} {', '.join(f'{outcome} {number}' for outcome, number in sorted(counts.items()))}")
    print(*failures[:40], sep="\n")
    print(f"{len(failures)} failures in {count} cases")
    sys.exit(bool(failures))


def _memory() -> str | None:
    """Where files cost no disk: a case takes five times as long where its file is written to one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


_readers: dict[str, Reader] = {}


def _start(root: str) -> None:
    torch.set_num_threads(1)
    with suppress(ImportError):
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)  # of what it refuses it writes a line to stderr, each time
    _readers.update(make_readers(Path(tempfile.mkdtemp(dir=root))))


def _part(seed: int, part: range) -> list[tuple[str, int, str]]:
    """(reader, case, outcome) of each case."""
    names, outcomes = list(_readers), []
    for index in part:
        name, before = names[index % len(names)], _peak()
        with _alarm():
            outcome = judge(_readers[name], seed, index)
        if _peak() - before > KIB:
            outcome = f"took {(_peak() - before) // 2**10} MiB"
        outcomes.append((name, index, outcome))
    return outcomes

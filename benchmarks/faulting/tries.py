"""One try: an operation begins, something happens to it, the user goes on, and what is there then is judged."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faulting.disks import Image, resize, small_disk
from benchmarks.faulting.events import Event
from benchmarks.faulting.operations import Operation, empty_directory
from benchmarks.faulting.processes import Disturbance, Ended, Running
from benchmarks.faulting.trees import Difference, compare, read_tree

OUTCOMES = {
    "equal": "survived bit-equal",
    "refused": "refused in a line, then bit-equal",
    "litter": "bit-equal, with files left over",
    "traceback": "ended in a traceback",
    "lost": "lost",
    "stuck": "stuck",
    "wrong": "wrong without a word",
}
GOOD = ("equal", "refused")
_FAILING = {"write": errno.EIO, "fsync": errno.EIO, "rename": errno.EIO, "mkdir": errno.EIO, "open": errno.EIO}
_FULL = ("write", "mkdir", "open")
_DISK_SIZES = 24


@dataclass(frozen=True)
class Outcome:
    """What became of a try.

    Attributes:
        operation: Its name.
        fault: A key of `FAULTS`.
        at: Where it happened.
        outcome: A key of `OUTCOMES`.
        detail: What the commands said, or how the result differs; empty where all is well.
    """

    operation: str
    fault: str
    at: str
    outcome: str
    detail: str = ""


def judge(first: Sequence[Ended], again: Sequence[Ended], difference: Difference) -> str:
    """The outcome, a key of `OUTCOMES`; the worst one where several are true.

    Args:
        first: The processes that something happened to.
        again: How the user went on, the last one the one that did not refuse, if any; empty where nobody had to.
        difference: Of what is there in the end from what an undisturbed operation makes.
    """
    ended = [*first, *again]
    is_whole = not (difference.missing or difference.changed)
    # To be refused because everything is there already is no harm.
    if any(each.code is None for each in ended) or (again and again[-1].code != 0 and not is_whole):
        return "stuck"
    if difference.missing:
        return "lost"
    if difference.changed:
        return "wrong"
    if any(each.code not in (0, -9) and not each.is_refusal for each in ended):
        return "traceback"
    if difference.left:
        return "litter"
    return "refused" if any(each.is_refusal for each in ended) else "equal"


@dataclass
class Bench:
    """Where tries are made: always in the same directory, because some operations write its path.

    Attributes:
        work: The directory, which is empty between tries.
        log: What the newest process printed.
        random: For whatever is random.
        every: Only each so-many-th file event.
        kills: Random kills of one operation.
        pairs: Pairs of one operation, at the same moment, and as many with a delay.
        expected: What each operation makes, by name.
        events: What file events it has.
        seconds: How long it takes.
    """

    work: Path
    log: Path
    random: random.Random
    every: int = 1
    kills: int = 50
    pairs: int = 10
    expected: dict[str, dict[str, str]] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def learn(self, operation: Operation, *, watched: bool) -> None:
        """Runs an operation undisturbed, twice.

        Raises:
            RuntimeError: It fails, or does not make the same twice.
        """
        trees = []
        for is_watched in (False, watched):
            operation.begin(self.work)
            ended = Running(operation.command, self.work, self.log, watched=is_watched).wait()
            if ended.code != 0:
                raise RuntimeError(f"{operation.name}, undisturbed: {ended.output}")
            trees.append(self._tree(operation))
            empty_directory(self.work)
            if is_watched:
                self.events[operation.name] = ended.events
            else:
                self.seconds[operation.name] = ended.seconds
        if compare(trees[1], trees[0]):
            raise RuntimeError(f"{operation.name} makes something else: {compare(trees[1], trees[0]).to_text()}")
        self.expected[operation.name] = trees[0]

    def run(self, operation: Operation, disturbance: Disturbance) -> Ended:
        """The operation, disturbed."""
        return Running(operation.command, self.work, self.log, watched=disturbance.event is not None).wait(disturbance)

    def go_on(self, operation: Operation) -> list[Ended]:
        """The operation again, as a user would."""
        found = []
        for command in operation.ways_on(self.work):
            found.append(Running(command, self.work, self.log).wait())
            if found[-1].code == 0:
                break
        return found

    def outcome(self, operation: Operation, fault: str, at: str, first: Sequence[Ended]) -> Outcome:
        """Goes on where that has to be, looks at the result, and removes it."""
        again = [] if any(each.code == 0 for each in first) else self.go_on(operation)
        difference = compare(self._tree(operation), self.expected[operation.name])
        if not again and difference.left and not (difference.missing or difference.changed):
            again = self.go_on(operation)  # what is left over has to be gone after the next one only
            difference = compare(self._tree(operation), self.expected[operation.name])
        empty_directory(self.work)
        found = judge(first, again, difference)
        detail = ""
        if found not in GOOD:
            said = [f"exit {each.code}: {' '.join(each.output.split())[-400:]}" for each in [*first, *again]]
            detail = "; ".join([*filter(None, [difference.to_text()]), *said])
        return Outcome(operation.name, fault, at, found, detail)

    def numbered_events(self, operation: Operation, kinds: Sequence[str] = ()) -> list[tuple[int, Event]]:
        """Each event with its number from 1, or every so-many-th of them, beginning anywhere."""
        found = [
            (number, event)
            for number, event in enumerate(self.events[operation.name], 1)
            if not kinds or event.kind in kinds
        ]
        return found[self.random.randrange(min(self.every, len(found)) or 1) :: self.every]

    def _tree(self, operation: Operation) -> dict[str, str]:
        return read_tree(self.work, ("lost+found", *operation.ignored))


def _random_kills(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    for _ in range(bench.kills):
        seconds = bench.random.uniform(0, bench.seconds[operation.name])
        operation.begin(bench.work)
        ended = bench.run(operation, Disturbance(seconds=seconds))
        yield bench.outcome(operation, "kills", f"after {seconds:.3f} s", [ended])


def _kills_at_events(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    for number, event in bench.numbered_events(operation):
        operation.begin(bench.work)
        ended = bench.run(operation, Disturbance(event=number))
        yield bench.outcome(operation, "events", _named(number, event, ended), [ended])


def _errors(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    for number, event in bench.numbered_events(operation, [*_FAILING]):
        operation.begin(bench.work)
        ended = bench.run(operation, Disturbance(event=number, error=_FAILING[event.kind]))
        yield bench.outcome(operation, "errors", _named(number, event, ended), [ended])


def _no_space(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    for number, event in bench.numbered_events(operation, _FULL):
        operation.begin(bench.work)
        ended = bench.run(operation, Disturbance(event=number, error=errno.ENOSPC))
        yield bench.outcome(operation, "no space", _named(number, event, ended), [ended])


def _full_disk(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    """A disk that has room for a part of the result only, until the user makes room."""
    operation.begin(bench.work)
    bench.run(operation, Disturbance())
    given, needed = _size(operation.inputs), _size(bench.work)
    empty_directory(bench.work)
    steps = max(_DISK_SIZES // bench.every, 2)
    for step in range(steps):
        size = given + (needed - given) * (step + 1) // steps
        with small_disk(bench.work, size):
            operation.begin(bench.work)
            ended = bench.run(operation, Disturbance())
            resize(bench.work, 64 * 2**20)
            yield bench.outcome(operation, "full disk", f"of {size:,} bytes", [ended])


def _pairs(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    """Two at once, half of them each as process 1 of its own container; and of train also two that resume."""
    for number in range(2 * bench.pairs):
        delay = 0.0 if number % 2 else bench.random.uniform(0, bench.seconds[operation.name])
        alone = number % 4 > 1
        operation.begin(bench.work)
        command, about = operation.command, ""
        if operation.resume and number % 8 > 3:
            middle = len(bench.events[operation.name]) // 2 if operation.name in bench.events else None
            cut = Disturbance(event=middle, seconds=None if middle else bench.seconds[operation.name] / 2)
            bench.run(operation, cut)
            command, about = operation.ways_on(bench.work)[0], ", resuming"
        one = Running(command, bench.work, bench.log, alone=alone)
        time.sleep(delay)
        other = Running(command, bench.work, bench.log.with_suffix(".other"), alone=alone)
        first = [one.wait(), other.wait()]
        at = f"{delay:.3f} s apart{about}{', both process 1' * alone}"
        yield bench.outcome(operation, "pairs", at, first)


def _power_cuts(bench: Bench, operation: Operation) -> Iterator[Outcome]:
    """An ext4 disk that loses its power in front of each event, and after the end."""
    image = Image(bench.log.with_suffix(".img"), bench.work)
    for number, event in [*bench.numbered_events(operation), (None, None)]:
        image.clear()
        with image.mounted():
            operation.begin(bench.work)
            os.sync()
            ended = bench.run(operation, Disturbance(event=number or 10**6, before_kill=image.cut_power))
            if not ended.disturbed:
                image.cut_power()
        with image.mounted():
            at = "after the end" if event is None else _named(number or 0, event, ended)
            yield bench.outcome(operation, "power", at, [ended])


def _named(number: int, event: Event, ended: Ended) -> str:
    """The event at which it happened; threads may have changed the order since it was counted."""
    found = ended.events[number - 1] if len(ended.events) >= number else event
    return f"{number}: {found.kind} {found.path}"


def _size(directory: Path) -> int:
    """Bytes in whole pages, which is how a tmpfs counts."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in directory.rglob("*") if path.is_file())


Fault = Callable[[Bench, Operation], Iterator[Outcome]]
FAULTS: dict[str, tuple[str, Fault]] = {
    "kills": ("killed at a random moment", _random_kills),
    "events": ("killed at a file event", _kills_at_events),
    "errors": ("write, fsync, rename, mkdir or open fails", _errors),
    "no space": ("no space left, at an event", _no_space),
    "full disk": ("a disk that is full", _full_disk),
    "pairs": ("two at once", _pairs),
    "power": ("power cut at a file event", _power_cuts),
}
NEED_EVENTS = ("events", "errors", "no space", "power")
CANNOT = (OSError, subprocess.CalledProcessError)

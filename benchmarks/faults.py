"""What happens to what is written when a process is killed, a disk fails or is full, or two work on the same."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
from tqdm import tqdm

from benchmarks.faulting.events import are_seen
from benchmarks.faulting.lanes import Lanes, Task
from benchmarks.faulting.limits import hostile_cases, hostile_tries
from benchmarks.faulting.operations import Operation, make_archive
from benchmarks.faulting.serving import serving
from benchmarks.faulting.tries import FAULTS, GOOD, NEED_EVENTS, OUTCOMES, Bench, Outcome
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.signals import raising_on_signals

RESULTS = Path(__file__).parent / "results" / "faults.json"
_HOSTILE = "hostile"
OPERATIONS = ("train", "ingest", "collect", "convert", "fetch", "export")
_QUICK = {"events": 6, "errors": 3, "pairs": 3}
"""How many tries of a fault in --quick, each of another operation."""


@click.command()
@click.option(
    "--operation", "operations", multiple=True, type=click.Choice(OPERATIONS), help="Default: all; repeatable."
)
@click.option("--fault", "faults", multiple=True, type=click.Choice([*FAULTS, _HOSTILE]), help="Default: all.")
@click.option("--kills", default=300, show_default=True, help="At random moments, of all operations together.")
@click.option("--every", default=1, show_default=True, type=click.IntRange(1), help="Only each so-many-th file event.")
@click.option("--seed", default=0, show_default=True, help="Of whatever is random.")
@click.option("--at-once", default=2, show_default=True, type=click.IntRange(1), help="How many tries.")
@click.option("--quick", is_flag=True, help="A dozen tries, in less than a minute; writes no results.")
def faults_command(
    operations: tuple[str, ...], faults: tuple[str, ...], kills: int, every: int, seed: int, at_once: int, quick: bool
) -> None:
    """Disturbs each operation in every way, repeats it as a user would, and compares with an undisturbed one."""
    chosen, ways = operations or OPERATIONS, faults or (*FAULTS, _HOSTILE)
    titles = {**{name: what for name, (what, _) in FAULTS.items()}, _HOSTILE: "a hostile file"}
    cannot: dict[str, str] = {}
    if not hostile_cases():
        cannot[_HOSTILE] = "no tests/hostile/cases.py in this checkout"
    if not are_seen():
        cannot |= dict.fromkeys(NEED_EVENTS, "file events cannot be watched here")
    watched = "events" not in cannot
    tasks: list[Task]
    if quick:
        tasks, at_once = [("all", "quick", partial(_quick_tries, chosen, frozenset(cannot)))], 1
    else:
        tasks = _tasks(chosen, ways, cannot)
    settings = {"every": 10**6 if quick else every, "kills": kills // len(OPERATIONS)}  # quick: one event, anywhere
    # A signal raises, so that no disk stays mounted.
    with raising_on_signals(), tempfile.TemporaryDirectory() as folder, serving(make_archive()) as address:
        lanes = Lanes(
            tasks, at_once, Path(folder), address, names=chosen, settings=settings, seed=seed, watched=watched
        )
        outcomes = list(tqdm(lanes, unit="try", disable=None))
    cannot |= lanes.cannot
    order = [*chosen, "read"]
    outcomes.sort(key=lambda each: (order.index(each.operation), [*titles].index(each.fault)))
    given = [*(f"--operation {name}" for name in operations), *(f"--fault '{name}'" for name in faults)]
    shown = f"python -m benchmarks faults {' '.join([*given, f'--kills {kills} --every {every} --seed {seed}'])}"
    failures = [vars(outcome) for outcome in outcomes if outcome.outcome not in GOOD]
    if not quick:
        write_json(
            RESULTS,
            {
                "command": shown,
                "faults": titles,
                "outcomes": OUTCOMES,
                "rows": _rows(outcomes),
                "not_possible_here": cannot,
                "file_events": {name: lanes.events[name] for name in chosen if name in lanes.events},
                "failures": failures,
                "machine": describe_machine(),
            },
        )
    print(_table(_rows(outcomes)))
    for fault, reason in cannot.items():
        if fault in ways:
            print(f"not possible here: {titles[fault]} ({reason})")
    for failure in failures[:20]:
        print("{operation}, {fault}, {at}: {outcome} ({detail})".format(**failure))
    print(f"{len(failures)} failures in {len(outcomes)} tries")
    sys.exit(bool(failures))


def _tasks(operations: Sequence[str], faults: Sequence[str], cannot: Collection[str]) -> list[Task]:
    """Each fault of each operation: those with the most tries first, so that no process has one left in the end."""
    tasks: list[Task] = [
        (operation, fault, partial(_tries, fault, operation))
        for fault in sorted(FAULTS, key=lambda fault: fault not in NEED_EVENTS)
        for operation in operations
        if fault in faults and fault not in cannot
    ]
    if _HOSTILE in faults and _HOSTILE not in cannot:
        tasks.append(("read", _HOSTILE, lambda bench, made: hostile_tries(bench)))
    return tasks


def _tries(fault: str, operation: str, bench: Bench, made: Mapping[str, Operation]) -> Iterator[Outcome]:
    return FAULTS[fault][1](bench, made[operation])


def _quick_tries(
    operations: Sequence[str], cannot: Collection[str], bench: Bench, made: Mapping[str, Operation]
) -> Iterator[Outcome]:
    for fault, count in _QUICK.items():
        if fault not in cannot:
            for name in bench.random.sample(operations, min(count, len(operations))):
                yield next(FAULTS[fault][1](bench, made[name]))


def _rows(outcomes: Sequence[Outcome]) -> dict[str, dict[str, dict[str, int]]]:
    """Counts by operation, fault and outcome."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for each in outcomes:
        counts.setdefault(each.operation, {}).setdefault(each.fault, Counter())[each.outcome] += 1
    return {name: {fault: dict(found) for fault, found in row.items()} for name, row in counts.items()}


def _table(rows: dict[str, dict[str, dict[str, int]]]) -> str:
    """A line for each operation and fault, and their sum."""
    total: Counter[str] = Counter()
    lines = [("", "", "tried", *OUTCOMES)]
    for operation, row in rows.items():
        for fault, counts in row.items():
            lines.append((operation, fault, *_numbers(Counter(counts))))
            total.update(counts)
    lines.append(("all", "", *_numbers(total)))
    return "\n".join("".join([f"{line[0]:<9}{line[1]:<10}", *(f"{text:>10}" for text in line[2:])]) for line in lines)


def _numbers(counts: Counter[str]) -> list[str]:
    return [str(number) for number in (counts.total(), *(counts[outcome] for outcome in OUTCOMES))]


faults_command.name = "faults"

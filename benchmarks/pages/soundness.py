"""What holds, on the pages: the same bytes, damaged files, faults, memory, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.pages.kept import kept, machine_text, missing, table


def identity() -> str:
    """What the byte-for-byte comparison of CarRacing's frames found, for each version of Gymnasium."""
    found = kept("identity.json")
    if found is None:
        return missing("identity")
    rows = [
        (_drawn_with(result), name, str(way["tracks"]), str(result["steps"]), str(len(way["different"])))
        for result in found["versions"]
        for name, way in result["ways"].items()
    ]
    head = ("Gymnasium", "actions", "tracks", "steps on each", "tracks with any difference")
    return f"{table(head, rows)}\n\n`{found['command']}`. {machine_text(found['machine'])}."


def _drawn_with(result: Mapping[str, Any]) -> str:
    """The version of Gymnasium, and of what it draws with where the result says so."""
    packages = ", ".join(f"{name} {version}" for name, version in result.get("packages", {}).items())
    return f"{result['gymnasium']} ({packages})" if packages else str(result["gymnasium"])


def memory() -> str:
    """What many resets of CarRacing leave in memory."""
    found = kept("memory.json")
    if found is None:
        return missing("memory")
    rows = [
        (f"`{name}`", f"{row['before_mib']:.1f}", f"{row['grown_mib']:+.2f}") for name, row in found["rows"].items()
    ]
    head = ("environment", "resident MiB before", f"MiB added by {found['resets']} resets")
    return f"{table(head, rows)}\n\n`{found['command']}`. {machine_text(found['machine'])}."


def corruption() -> str:
    """What became of datasets that were damaged."""
    found = kept("corruption.json")
    if found is None:
        return missing("corruption")
    outcomes = ("refused", "equal", "needs a manifest", "failed")
    rows = [(damage, *(f"{row.get(name, 0):,}" for name in outcomes)) for damage, row in found["rows"].items()]
    peak = f"{found['largest_peak_bytes'] / 2**20:.1f} MiB at most while reading"
    return f"{table(('damage', *outcomes), rows)}\n\n`{found['command']}`. {peak}. {machine_text(found['machine'])}."


def damages() -> str:
    """What became of files of every kind that were damaged."""
    found = kept("damages.json")
    if found is None:
        return missing("damages")
    outcomes = ("noticed", "harmless", "failed")
    parts = []
    for title, rows in (("file", found["rows"]), ("damage", found["ways"])):
        lines = [(name, *(f"{row.get(outcome, 0):,}" for outcome in outcomes)) for name, row in rows.items()]
        parts.append(table((title, *outcomes), lines))
    count = f"{found['count']:,} damages, {len(found['failures'])} of them neither noticed nor harmless."
    return "\n\n".join([*parts, f"{count} `{found['command']}`. {machine_text(found['machine'])}."])


def faults() -> str:
    """What became of operations that something happened to."""
    found = kept("faults.json")
    if found is None:
        return missing("faults")
    rows = []
    for operation, row in found["rows"].items():
        for fault, counts in row.items():
            numbers = (f"{counts.get(outcome, 0):,}" for outcome in found["outcomes"])
            rows.append((operation, found["faults"][fault], f"{sum(counts.values()):,}", *numbers))
    titles = ("operation", "what happened", "tried", *found["outcomes"].values())
    cannot = [f"{found['faults'][fault]}: {reason}." for fault, reason in found["not_possible_here"].items()]
    remarks = " ".join([f"`{found['command']}`.", *(["Not possible there:", *cannot] if cannot else [])])
    return f"{table(titles, rows)}\n\n{remarks} {machine_text(found['machine'])}."


def soak() -> str:
    """What a process held after hours of work."""
    found = kept("soak.json")
    if found is None:
        return missing("soak")
    first, last = found["samples"][0], found["samples"][-1]
    titles = {"memory": "memory, MiB", "untrimmed": "with freed memory that malloc keeps, MiB"}
    rows = [(title, *(f"{each[key] / 2**20:,.1f}" for each in (first, last))) for key, title in titles.items()]
    for title, key in (("open files", "descriptors"), ("threads", "threads")):
        rows.append((title, f"{first[key]}", f"{last[key]}"))
    growth = f"from the second tenth of the time to the last, memory changed by {found['growth_of_memory']:+.2%}"
    return (
        f"{table(('held', 'after one round', 'at the end'), rows)}\n\n{found['rounds']:,} rounds; {growth}. "
        f"`{found['command']}`. {machine_text(found['machine'])}."
    )


def ranks() -> str:
    """One run on several ranks, several runs side by side, and what signals left."""
    found = kept("ranks.json")
    if found is None:
        return missing("ranks")
    rows = []
    for task in found["tasks"].values():
        for way, row in task["ways"].items():
            difference = task["largest_loss_difference"].get(str(row["processes"])) if " on " in way else None
            shown = "" if difference is None else f"{difference:.1e}"
            way = way.replace("on 1 ranks", "on 1 rank")
            rows.append((task["environment"], way, str(row["threads"]), f"{row['updates_per_second']:.1f}", shown))
    head = ("data", "way", "threads of each process", "updates per second, all runs", "largest difference of a loss")
    signals = found.get("signals")
    stopped = (
        f"Of {signals['sent']} runs on two ranks that torchrun was told to end with SIGTERM, {signals['saved']} ended "
        f"with a checkpoint of their last update, after {signals['longest_seconds']:.1f} seconds at most.\n\n"
        if signals
        else ""
    )
    return f"{table(head, rows)}\n\n{stopped}`{found['command']}`. {machine_text(found['machine'])}."

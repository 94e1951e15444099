"""Rates on the pages: updates, batches, inference, the environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.pages.kept import all_kept, charts_of, interval_text, kept, machine_text, missing, ratio_text, table


def speed(name: str) -> str:
    """A kept measurement of speed: both ways, their ratio, how it was made."""
    found = kept(f"speed/{name}.json")
    if found is None:
        return missing(name)
    rows = [(label, f"{rate:,.0f}") for label, rate in found["rows"].items()]
    return "\n\n".join(
        [
            f"**{found['ratio']:.2f} times**: {found['ratio_of']}.",
            table(("implementation", found["unit"]), rows),
            f"`{found['command']}`: {found['notes']}. {machine_text(found['machine'])}.",
        ]
    )


def train() -> str:
    """Updates per second of each implementation, on each kind of processor where they were measured."""
    parts = [
        f"**{_where(found)}**\n\n{_train(found)}\n\n![Updates per second](benchmarks/train/{name}.png)"
        for name, found in all_kept("train").items()
    ]
    return "\n\n".join(parts) if parts else missing("train --peers")


def _where(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    return str(machine["processor"] if found["device"] == "cpu" else machine["gpu"])


def _train(found: Mapping[str, Any]) -> str:
    rows = []
    for name, way in found["ways"].items():
        versions = ", ".join(f"{package} {version}" for package, version in way.get("versions", {}).items())
        notes = way["notes"] + (f" ({versions})" if versions else "")
        if "gflop" in way:
            rate = way["updates_per_second"] * way["gflop"] / 1000
            notes += f"; {way['precision']}{', compiled' if way['compile'] == 'on' else ''}, {rate:.3g} TFLOP/s"
        rows.append(
            (
                name,
                f"{way['updates_per_second']:,.1f}",
                ratio_text(way["ratio"]),
                f"{way['parameters'] / 1e6:.2f} M",
                notes,
            )
        )
    first = next(iter(found["ways"]))
    rounds = len(found["ways"][first]["rates"])
    head = ("implementation", "updates/s", f"speed-up of {first}", "weights", "description")
    waits = found["ways"][first].get("data_wait")
    roofline = found["matrix_teraflops"]
    wait = "" if waits is None else f" {first} waits for data {waits:.1%} of the time."
    return "\n\n".join(
        [
            f'<div class="described" markdown>\n\n{table(head, rows)}\n\n</div>',
            f"Medians of {rounds} alternating slices of each implementation; in brackets the smallest and largest "
            f"ratio within a round. Batch {found['batch_size']}, {' x '.join(map(str, found['observation']))} uint8, "
            f"{found['actions']} actions, {found['transitions']:,} transitions, {found['threads']} threads, "
            f"{found['device']}.{wait} TFLOP/s count the network's matrix products; matrix products alone reach "
            f"{roofline['fp32']:.3g} here in float32 and {roofline['bf16']:.3g} in bf16. `{found['command']}`. "
            f"{machine_text(found['machine'], found['device'])}.",
        ]
    )


def time_to_score() -> str:
    """Seconds to a driving policy, beside others."""
    found = kept("time_to_score.json")
    if found is None:
        return missing("time-to-score")
    ours = found["rows"]["offrl"]["seconds"]
    rows = []
    for name, row in found["rows"].items():
        times = f"{row['seconds'] / ours:.1f}"
        best = max((point["score"] for point in row["curve"]), default=math.nan)
        taken = (
            (f"{row['seconds']:.0f}", times) if row["has_reached"] else (f"not in {row['seconds']:.0f}", f"> {times}")
        )
        rows.append((name, *taken, f"{row['updates']:,}", f"{best:.0f}"))
    head = ("trained by", f"seconds to {found['score']:g}", "times ours", "updates", "best mean on the way")
    return (
        f"{table(head, rows)}\n\n{found['transitions']:,} transitions, tracks `{found['tracks']}`, one training run "
        f"each; others are stopped with the first evaluation after {found['at_most']:g} times our time. "
        f"`{found['command']}`. {machine_text(found['machine'])}."
    )


def growth() -> str:
    """What an update costs with more data, a larger batch, more actions."""
    found = kept("growth/results.json")
    if found is None:
        return missing("growth")
    parts = []
    labels = {
        "transitions": "transitions, store read beforehand",
        "transitions_not_in_memory": "transitions, store not cached at first",
        "batch_size": "batch size",
        "actions": "actions",
    }
    for axis, label in labels.items():
        rows = [
            (
                f"{int(size):,}",
                f"{row['updates_per_second']:,.1f}",
                f"{row['milliseconds']:,.1f}",
                f"{row['memory_mib']:,.0f}",
            )
            for size, row in found[axis].items()
        ]
        parts.append(table((label, "updates/s", "ms per update", "MiB"), rows))
    parts.append(
        "Memory is the resident memory of the process without mapped files. The stores hold noise, on disk and "
        f"memory-mapped; batch size and actions are varied on one synthetic batch. `{found['command']}`. "
        f"{machine_text(found['machine'], found['device'])}."
    )
    return "\n\n".join(
        [*parts, charts_of("growth", "Time and memory of an update against data, batch size and actions")]
    )


def inference() -> str:
    """How fast a trained policy answers, as torch and as ONNX files."""
    found = kept("inference/results.json")
    if found is None:
        return missing("inference")
    rows = [
        (
            name,
            f"{row['batch_1_milliseconds']:.2f}",
            f"{row['batch_64_per_second']:,.0f}",
            f"{row['equal_actions']:.2%}",
            f"{row['megabytes']:.1f}" if "megabytes" in row else "",
        )
        for name, row in found["ways"].items()
    ]
    head = ("runtime", "ms for 1 observation", "observations/s in batches of 64", "same action as torch", "file in MB")
    origin = f"Actions on {found['observations']:,} observations of the dataset. `{found['command']}`."
    return "\n\n".join(
        [
            table(head, rows),
            f"{origin} {machine_text(found['machine'])}.",
            charts_of("inference", "Observations per second"),
        ]
    )


def profile() -> str:
    """Where the time of one update goes."""
    found = kept("profile/results.json")
    if found is None:
        return missing("profile")
    before = found.get("before")
    earlier = [] if before is None else [f"At revision {before['revision']}:", _parts_of_updates(before["rows"])]
    return "\n\n".join(
        [
            _parts_of_updates(found["rows"]),
            *earlier,
            f"Batch {found['batch_size']}, {found['threads']} threads, {found['device']}. "
            f"`{found['command']}`. {machine_text(found['machine'], found['device'])}.",
            charts_of("profile", "Milliseconds of each part of an update"),
        ]
    )


def _parts_of_updates(rows: Mapping[str, Mapping[str, float]]) -> str:
    parts = list(next(iter(rows.values())))
    cells = [(name, *(f"{row[part]:.1f}" for part in parts), f"{sum(row.values()):.1f}") for name, row in rows.items()]
    return table(("milliseconds", *parts, "total"), cells)


def precision() -> str:
    """Losses and scores of the same runs in float32 and bf16."""
    found = kept("precision.json")
    if found is None:
        return missing("precision")
    rows, differences = [], []
    for task, result in found["tasks"].items():
        rows += [
            (task, way, ", ".join(f"{run['mean']:.1f}" for run in runs), str(len(runs[0]["scores"])))
            for way, runs in result["runs"].items()
        ]
        score = result["score_difference"]
        ends = score["low"], score["high"]
        differences.append(
            f"- {task}: bf16 minus float32 **{score['mean']:+.1f}**, "
            f"{interval_text(ends, len(rows[-1][2].split(',')), 'run', '+.1f')}; the mean losses "
            f"differ by {result['loss_difference']:.2%} at most"
        )
    return "\n\n".join(
        [
            table(("task", "precision", "mean return of each run", "episodes of each"), rows),
            "\n".join(differences),
            f"`{found['command']}`. {machine_text(found['machine'])}.",
            charts_of("precision", "Mean returns in both precisions"),
        ]
    )


def precision_runs() -> str:
    """The demo's training runs in both precisions."""
    found = kept("precision_runs.json")
    if found is None:
        return missing("precision-runs")
    rows = [
        (
            name,
            ", ".join(f"{run['mean']:.1f}" for run in row["per_run"].values()),
            f"{row['mean']:.1f}",
            f"{row['laps_with_every_tile']} of {row['episodes']}",
        )
        for name, row in found["precisions"].items()
    ]
    difference, count = found["score_difference"], len(found["differences"])
    bounds = interval_text((difference["low"], difference["high"]), count, "run", "+.1f")
    return "\n\n".join(
        [
            table(("the demo in", "mean score of each run", "their mean", "laps with every tile"), rows),
            f"bf16 minus float32, run by run with the same seed: **{difference['mean']:+.1f}**, {bounds}. Tracks "
            f"`{found['seeds']}`, one thread a run. `{found['command']}`. {machine_text(found['machine'])}.",
        ]
    )


def quick() -> str:
    """The ratios that CI compares with."""
    found = kept("quick.json")
    if found is None:
        return missing("quick --record")
    rows = [
        (processor, name, f"{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}")
        for processor, ratios in found["processors"].items()
        for name, ratio in ratios.items()
    ]
    head = ("processor", "measurement", "speed-up over the plain implementation", "range over the rounds")
    origin = f"`{found['command']}`. The latest was measured on {machine_text(found['machine'])}."
    return "\n\n".join([table(head, rows), origin, charts_of("quick", "Speed-up over the plain implementation")])


def data() -> str:
    """Batches a second beside plain numpy and others, and what training from each store waits, reads and holds."""
    found = kept("data.json")
    if found is None:
        return missing("data --peers")
    gathered = [
        (label, name, f"{way['updates_per_second']:,.0f}", ratio_text(way["ratio"]))
        for label, ways in found["gathering"].items()
        for name, way in ways.items()
    ]
    trained = [
        (
            label,
            f"{row['updates_per_second']:.1f}",
            f"{row['data_wait']:.1%}",
            f"{row['read_mib']:,.0f}",
            f"{row['anonymous_mib']:,.0f}",
            f"{row['mapped_file_mib']:,.0f}",
        )
        for label, row in found["training"].items()
    ]
    ways = "\n".join(f"- {name}: {meaning}" for name, meaning in found["ways"].items())
    return "\n\n".join(
        [
            table(("data", "implementation", "batches/s", "speed-up of offrl"), gathered),
            ways,
            "BCQ trained from each store, whose files are not in memory at first:",
            table(("data", "updates/s", "waits for data", "MiB read from disk", "MiB held", "MiB mapped"), trained),
            "*Held* is resident memory without mapped file pages, which the system takes back when it needs them. "
            f"Batches of {found['batch_size']}. `{found['command']}`. {machine_text(found['machine'])}.",
            charts_of("data", "Batches per second"),
        ]
    )


def first_update() -> str:
    """Seconds from the start of a process to its first update."""
    found = kept("first_update.json")
    if found is None:
        return missing("first-update")
    rows = [
        (
            name,
            f"{row['seconds']:.1f}",
            f"{min(row['each']):.1f} to {max(row['each']):.1f}" if len(row["each"]) > 1 else "one measurement",
            ", ".join(f"{setting} {value}" for setting, value in row["settled"].items()),
        )
        for name, row in found["rows"].items()
    ]
    head = ("the training is started", "seconds", "lowest to highest", "what `auto` became")
    return f"{table(head, rows)}\n\n`{found['command']}`. {machine_text(found['machine'])}."


def neighbour() -> str:
    """Rates beside a busy process and of two runs side by side."""
    found = kept("neighbour.json")
    if found is None:
        return missing("neighbour")
    rows = [(name, f"{row['updates_per_second']:.1f}", ratio_text(row["share"])) for name, row in found["rows"].items()]
    head = ("BCQ on CarRacing, batch 128", "updates per second", "of alone (lowest to highest)")
    return f"{table(head, rows)}\n\n`{found['command']}`. {machine_text(found['machine'])}."

"""From data on disk to a policy that drives: the time to a mean score, ours beside others."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray

import offrl
from benchmarks.alternate import Way, WayError
from benchmarks.driving import Recipe, Tracks, example
from benchmarks.peers.environments import PEERS, PeerError, python_of
from benchmarks.stores import ROOT, car_racing_store
from benchmarks.train import our_command
from offrl.envs import car_racing
from offrl.policies.policy import ActionFunction
from offrl.runs import describe_machine
from offrl.system.json_files import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results" / "time_to_score.json"
TRACKS = Tracks("TUNING_SEEDS", 4000, 20)
OURS = "offrl"
_SHORTEST_SLICE = 40.0
"""Seconds, about, between two evaluations of a peer; where we took longer to the score, as many as that."""


class Competitor(NamedTuple):
    """What is started, and how its policy is read after a slice.

    Attributes:
        command: Starts it.
        policy: Reads its policy as it is now.
        updates: Of a slice; None: as many as its seconds allow.
        prepare: Writes the data as it reads them, before any clock starts.
    """

    command: Sequence[str]
    policy: Callable[[], ActionFunction]
    updates: int | None = None
    prepare: Sequence[str] = ()


class Traced:
    """A TorchScript policy, raw pixels [N, 4, 96, 96] -> actions [N]."""

    def __init__(self, path: Path) -> None:
        self._module = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.int64]:
        """The greedy actions. [N]."""
        with torch.no_grad():
            actions: NDArray[np.int64] = self._module(torch.from_numpy(observation).float()).numpy().astype(np.int64)
        return actions


def competitors(store: Path, folder: Path, updates: int) -> dict[str, Competitor]:
    """Ours, then the peers with some of the example's settings and with their own, where they can be installed."""
    run, size, batch_size = folder / "run", example().SIZES["demo"], example().BATCH_SIZE
    ours = our_command("example", store=store, updates=updates, run_length=size.updates, run=run, batch_size=batch_size)
    like_ours = ["--like-ours", "--batch-size", str(batch_size)]
    found = {OURS: Competitor(ours, lambda: offrl.load(run, device="cpu"), updates)}
    for name, own in (("d3rlpy", ["--defaults"]), ("notebook loop", [])):
        script = str(ROOT / "benchmarks" / "peers" / PEERS[name].script)
        try:
            python = str(python_of(name))
        except PeerError as error:
            print(f"{name}: left out: {error}")
            continue
        for settings, words in (("its own settings", own), ("more like ours", like_ours)):
            policy = folder / f"{name}-{settings}.pt".replace(" ", "-")
            command = [python, script, str(store), "--policy", str(policy), *words]
            prepare = [python, script, str(store), "--prepare"] if name == "notebook loop" else []
            found[f"{name}, {settings}"] = Competitor(command, partial(Traced, policy), prepare=prepare)
    return found


@click.command("time-to-score")
@click.option("--score", default=850.0, show_default=True, help="Mean over 20 tracks.")
@click.option("--at-most", default=8.0, show_default=True, help="Others are stopped at so many times our time.")
@click.option("--transitions", default=60_000, show_default=True, help="Of carracing/mixed, collected once.")
@click.option("--updates", default=500, show_default=True, help="Between two evaluations of ours; divides the demo's.")
@click.option("--work", default=ROOT / "data" / "time-to-score", type=click.Path(path_type=Path), help="Kept.")
def time_to_score(score: float, at_most: float, transitions: int, updates: int, work: Path) -> None:
    """Seconds from the start of the process to a mean score, evaluations left out. Nothing else may run meanwhile.

    One training run of each. The data are ingested, and lie for the notebook loop as its files, before any clock
    starts. What was measured here with the same options is not measured again, whether it reached the score or not;
    the result has what is measured so far.
    """
    if example().SIZES["demo"].updates % updates or updates % 2:
        raise click.BadParameter(f"{updates}; expected an even divisor of {example().SIZES['demo'].updates}")
    store = car_racing_store(ROOT / "data", transitions)
    kept = work.absolute() / f"{transitions}-{score:g}"
    (kept / "logs").mkdir(parents=True, exist_ok=True)
    asked = {
        "updates": updates,
        "at_most": at_most,
        "recipe": asdict(Recipe.of_size("demo")),
        "machine": describe_machine(),
    }
    given = {"--score": (score, 850.0), "--at-most": (at_most, 8.0)}
    given |= {"--transitions": (transitions, 60_000), "--updates": (updates, 500)}
    words = [f"{option} {value:g}" for option, (value, default) in given.items() if value != default]
    about = {
        "command": " ".join(["python -m benchmarks time-to-score", *words]),
        "score": score,
        "at_most": at_most,
        "transitions": transitions,
        "tracks": str(TRACKS),
        "machine": describe_machine(),
    }
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, competitor in competitors(store, Path(folder), updates).items():
            path = kept / f"{_file_name(name)}.json"
            found = read_json(path) if path.exists() else {}
            ours = rows[OURS]["seconds"] if name != OURS else float("inf")
            # What was stopped too early for today's time of ours is raced again.
            is_done = name == OURS or found.get("has_reached") or found.get("seconds", 0.0) >= at_most * ours
            if found.get("asked") != asked or not is_done:
                try:
                    raced = race(name, competitor, score, at_most * ours, kept / "logs", max(_SHORTEST_SLICE, ours))
                    found = {"asked": asked, **raced}
                except WayError as error:
                    if name == OURS:
                        raise
                    print(f"{name}: left out: {error}")
                    continue
                write_json(path, found)
            rows[name] = {key: value for key, value in found.items() if key != "asked"}
            write_json(RESULTS, {**about, "rows": rows})  # what comes next may take an hour
            if not rows[OURS]["has_reached"]:
                print(f"{OURS} has not reached {score:g} within its run: there is nothing to compare with")
                break
    show(rows)


def _file_name(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


def race(
    name: str,
    competitor: Competitor,
    score: float,
    limit: float,
    logs: Path,
    slice_seconds: float = _SHORTEST_SLICE,
) -> dict[str, Any]:
    """Trains slice by slice until one ends with the score, or beyond the limit; the last one is evaluated, too.

    Args:
        name: Of the competitor.
        competitor: What is trained.
        score: To reach.
        limit: Seconds of training.
        logs: Where the process's stderr goes.
        slice_seconds: Of training between two evaluations, about, where the competitor names no updates.

    Raises:
        WayError: Its process ended.
    """
    if competitor.prepare:
        subprocess.run(competitor.prepare, check=True)
    start = time.perf_counter()
    way = Way(competitor.command, logs / f"{_file_name(name)}.log")
    seconds, done, curve = time.perf_counter() - start, 0, list[dict[str, float]]()
    try:
        count = competitor.updates or 10  # of a peer, to learn its rate
        most = example().SIZES["demo"].updates if competitor.updates else sys.maxsize
        while seconds < limit and done < most:
            taken = way.run(count)["seconds"]
            seconds, done = seconds + taken, done + count
            if competitor.updates is None and taken < 0.8 * slice_seconds:
                count = max(1, round(count / taken * slice_seconds))
                if not curve and done == 10:
                    continue
            found = offrl.evaluate(competitor.policy(), car_racing.make, TRACKS.range).mean.mean
            curve.append({"seconds": seconds, "updates": done, "score": found})
            print(f"{name}: {done:,} updates, {seconds:.0f} s: {found:.1f}", flush=True)
            if found >= score:
                break
    finally:
        way.close()
    reached = bool(curve) and curve[-1]["score"] >= score
    return {"has_reached": reached, "seconds": seconds, "updates": done, "curve": curve, "about": way.about}


def show(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table."""
    ours = rows[OURS]["seconds"]
    for name, row in rows.items():
        reached = "" if row["has_reached"] else "not in "
        ratio = f"{reached}{row['seconds'] / ours:.1f} times ours"
        best = max((point["score"] for point in row["curve"]), default=float("nan"))
        print(f"{name:<34} {row['seconds']:7.0f} s  {ratio:<22} {row['updates']:,} updates, best {best:.1f}")

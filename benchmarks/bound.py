"""A measured bound on CarRacing's scores: for each track by itself, the best lap that a search over drivers finds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import click
import gymnasium
import numpy as np
from numpy.typing import NDArray

from benchmarks.children import ending_quietly
from benchmarks.stores import ROOT
from offrl.envs import TUNING_SEEDS, DriverSettings, car_racing
from offrl.envs.drivers import EXPERT, TrackDriver
from offrl.envs.wrappers import DiscreteActions, NoProgressStop
from offrl.runs import describe_machine
from offrl.statistics import bootstrap_mean
from offrl.system.json_files import read_json, write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

FIRST_TRACK = 3000
"""Of TUNING_SEEDS: the leaderboard's first tracks, so that its scores can be read as a share of these."""
RANGES: Mapping[str, tuple[float, float]] = {
    "look": (2.0, 20.0),
    "steering_gain": (1.0, 20.0),
    "steering_damping": (0.0, 4.0),
    "grip": (100.0, 600.0),
    "max_speed": (60.0, 150.0),
    "braking": (20.0, 300.0),
    "lost_speed": (20.0, 100.0),
}
"""(lowest, highest) of each setting that is searched."""
_UNIFORM = 0.1  # of the laps; the others take steps from the best so far
_FIRST_STEP, _LAST_STEP = 0.1, 0.01  # standard deviations of these steps, in parts of a range
_NO_PROGRESS_STEPS = 100  # a lap that is lost need not be driven to its end


class Lap(NamedTuple):
    """An episode; one that cannot be the best any more is left early."""

    score: float
    steps: int
    finished: bool


class Found(NamedTuple):
    """What a search found: its first lap, the best, the best's settings, and the best score after 1, 2, 4, ... laps."""

    expert: Lap
    best: Lap
    settings: DriverSettings
    best_after: dict[int, float]


Drive = Callable[[DriverSettings, float], Lap]
"""Drives a lap with these settings; it may be left when it can no longer beat this score."""


def search(drive: Drive, num_laps: int, rng: np.random.Generator) -> Found:
    """The expert's settings, then uniform ones of `RANGES`, then ever smaller steps from the best so far."""
    settings, expert = EXPERT, drive(EXPERT, -np.inf)
    best, best_after = expert, {}
    names, (low, high) = list(RANGES), np.array(list(RANGES.values())).T
    num_uniform = int(_UNIFORM * num_laps)
    for number in range(1, num_laps + 1):
        if number > 1:
            if number <= num_uniform:
                drawn = rng.uniform(low, high)
            else:
                share = (number - num_uniform) / max(num_laps - num_uniform, 1)
                width = _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** share
                moves = rng.random(len(names)) < 0.5  # few settings at a time: a step is then more often a good one
                start = np.array([getattr(settings, name) for name in names])
                drawn = np.clip(start + moves * rng.normal(scale=width * (high - low)), low, high)
            candidate = DriverSettings(**dict(zip(names, drawn.tolist(), strict=True)))
            lap = drive(candidate, best.score)
            if lap.score > best.score:
                best, settings = lap, candidate
        if number & (number - 1) == 0 or number == num_laps:
            best_after[number] = best.score
    return Found(expert, best, settings, best_after)


class Track:
    """CarRacing on one track, which nothing is drawn of unless asked: these drivers do not look at pictures."""

    _BLANK: ClassVar[NDArray[np.uint8]] = np.zeros((96, 96, 3), dtype=np.uint8)

    def __init__(self, seed: int, *, drawn: bool = False) -> None:
        self._seed = seed
        self._env: gymnasium.Env[Any, Any]
        if drawn:
            self._env = car_racing.make(no_progress_steps=_NO_PROGRESS_STEPS)
        else:
            env = gymnasium.make(f"offrl.envs:{car_racing.FAST_ENV_ID}", disable_env_checker=True)
            env.unwrapped._render = lambda mode: self._BLANK  # type: ignore[attr-defined]
            actions = DiscreteActions(env, car_racing.ACTION_TABLE, car_racing.ACTION_NAMES)
            self._env = NoProgressStop(actions, _NO_PROGRESS_STEPS)

    def drive(self, settings: DriverSettings, to_beat: float = -np.inf) -> Lap:
        """A lap, left when even all of the tiles could not bring it over `to_beat`."""
        observation, _ = self._env.reset(seed=self._seed)
        driver = TrackDriver(settings)
        driver.begin(self._env, np.random.default_rng(0))
        score, steps = 0.0, 0
        while 1000 - steps / 10 > to_beat:
            observation, reward, terminated, truncated, info = self._env.step(np.int64(driver(observation)[0]))
            score, steps = score + float(reward), steps + 1
            if terminated or truncated:
                return Lap(score, steps, bool(info.get("lap_finished")))
        return Lap(score, steps, finished=False)


def search_track(path: Path, seed: int, num_laps: int, search_seed: int) -> None:
    """Searches one track, and keeps what was found in `path`."""
    found = search(Track(seed).drive, num_laps, np.random.default_rng([search_seed, seed]))
    # Once more as anybody would drive it: in an environment of its own that draws.
    expert, best = (Track(seed, drawn=True).drive(settings) for settings in (EXPERT, found.settings))
    if (expert, best) != (found.expert, found.best):
        sys.exit(f"track {seed}: {found.expert} and {found.best} in the search, {expert} and {best} drawn")
    write_json(
        path,
        {
            "seed": seed,
            "laps": num_laps,
            "expert": expert._asdict(),
            "best": {**best._asdict(), "settings": asdict(found.settings)},
            "best_after": found.best_after,
        },
    )


def write_results(tracks: Sequence[Mapping[str, Any]], command: str, num_laps: int) -> None:
    """benchmarks/results/carracing/bound.json: each track, and the means over them."""
    means = {
        name: bootstrap_mean([track[name]["score"] for track in tracks]).to_dict()
        | {"mean_steps": float(np.mean([track[name]["steps"] for track in tracks]))}
        | {"finished": sum(track[name]["finished"] for track in tracks)}
        for name in ("expert", "best")
    }
    gain = bootstrap_mean([track["best"]["score"] - track["expert"]["score"] for track in tracks])
    for name, row in means.items():
        print(f"{name}: {row['mean']:.1f} over {len(tracks)} tracks, {row['mean_steps']:.0f} steps a lap")
    write_json(
        ROOT / "benchmarks" / "results" / "carracing" / "bound.json",
        {
            "command": command,
            "seeds": f"TUNING_SEEDS[{FIRST_TRACK}:{FIRST_TRACK + len(tracks)}]",
            "laps_a_track": num_laps,
            "ranges": RANGES,
            **means,
            "best_minus_expert": gain.to_dict(),
            "mean_best_after_laps": {
                count: float(np.mean([track["best_after"][count] for track in tracks]))
                for count in tracks[0]["best_after"]
            },
            "tracks": list(tracks),
            "machine": describe_machine(),
        },
    )


@click.command()
@click.option("--tracks", default=20, show_default=True, type=click.IntRange(1))
@click.option("--laps", default=250, show_default=True, type=click.IntRange(1), help="Driven on each track.")
@click.option("--seed", default=0, show_default=True, help="Of the search.")
@click.option("--processes", default=num_cores, type=click.IntRange(1), help="Default: one for each core.")
@click.option("--work", default=ROOT / "runs" / "bound", type=click.Path(path_type=Path), help="Kept: goes on there.")
def bound(tracks: int, laps: int, seed: int, processes: int, work: Path) -> None:
    """The best lap on each of 20 tracks that a search over `DriverSettings` finds. Goes on where it was stopped."""
    paths = {number: work / f"{number}-{laps}-{seed}.json" for number in TUNING_SEEDS[FIRST_TRACK:][:tracks]}
    commands = {
        f"track {number}": [sys.executable, "-m", "benchmarks.bound", json.dumps([str(path), number, laps, seed])]
        for number, path in paths.items()
        if not path.exists()
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for ended in side_by_side(commands, at_once=processes, environment=environment):
        if ended.exit_code != 0:
            sys.exit(f"{ended.name} failed; the same command goes on with the others")
        print(f"{ended.name}: done", flush=True)
    given = {"--tracks": (tracks, 20), "--laps": (laps, 250), "--seed": (seed, 0)}
    words = "".join(f" {name} {value}" for name, (value, default) in given.items() if value != default)
    write_results([read_json(path) for path in paths.values()], f"python -m benchmarks bound{words}", laps)


if __name__ == "__main__":
    place, *numbers = json.loads(sys.argv[1])
    with ending_quietly():
        search_track(Path(place), *numbers)

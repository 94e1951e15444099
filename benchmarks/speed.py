"""How fast CarRacing is played, evaluated and collected: ratios of two ways that alternate in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

import offrl
from offrl import envs
from offrl.collection import collect
from offrl.envs import TUNING_SEEDS, CarRacingMixture, TrackDriver, car_racing
from offrl.envs.drivers import EXPERT
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = Path(__file__).parent / "results" / "speed"


def keep(name: str, rows: dict[str, float], unit: str, ratio: float, ratio_of: str, notes: str, **options: int) -> None:
    """Prints a result and keeps it in benchmarks/results/speed, with the options of the command."""
    given = "".join(f" --{option.replace('_', '-')} {value}" for option, value in options.items())
    for label, value in rows.items():
        print(f"{label:<60} {value:8.1f} {unit}")
    print(f"{ratio_of:<60} {ratio:8.2f} times")
    write_json(
        RESULTS / f"{name}.json",
        {
            "command": f"python -m benchmarks {name}{given}",
            "rows": rows,
            "unit": unit,
            "ratio": ratio,
            "ratio_of": ratio_of,
            "notes": notes,
            "machine": describe_machine(),
        },
    )


def drive(env: envs.Env, actions: Sequence[NDArray[np.float32]], seed: int) -> tuple[int, float]:
    """(steps, seconds) of playing `actions` on the track of `seed`; the reset is not timed."""
    env.reset(seed=seed)
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return len(actions), time.perf_counter() - start


def driver_actions(seed: int, num_steps: int) -> list[NDArray[np.float32]]:
    """What the expert does in the first steps on the track of `seed`."""
    env: envs.Env = car_racing.make()
    driver = TrackDriver(EXPERT)
    observation, _ = env.reset(seed=seed)
    driver.begin(env, np.random.default_rng(seed))
    actions = []
    for _ in range(num_steps):
        action, _ = driver(observation)
        actions.append(car_racing.ACTION_TABLE[action])
        observation, *_ = env.step(action)
    return actions


def random_actions(seed: int, num_steps: int) -> list[NDArray[np.float32]]:
    """Random ones of the 25."""
    return list(car_racing.ACTION_TABLE[np.random.default_rng(seed).integers(25, size=num_steps)])


@click.command()
@click.option("--tracks", default=10, show_default=True)
@click.option("--steps", default=300, show_default=True, help="On each track, once driven and once at random.")
def environment(tracks: int, steps: int) -> None:
    """Steps/s of our CarRacing beside Gymnasium's: same tracks, same actions, alternating."""
    names = ("offrl.envs:offrl/CarRacing-v3", "CarRacing-v3")
    made = {name: gymnasium.make(name, disable_env_checker=True).unwrapped for name in names}
    played = {name: np.zeros(2) for name in names}  # steps, seconds
    ratios = []
    for seed in range(tracks):
        for actions in (driver_actions(seed, steps), random_actions(seed, steps)):
            seconds = {}
            for name in names if seed % 2 else reversed(names):  # neither is always the first
                block = drive(made[name], actions, seed)
                played[name] += block
                seconds[name] = block[1]
            ratios.append(seconds[names[1]] / seconds[names[0]])
    rates = {name: float(total[0] / total[1]) for name, total in played.items()}
    low, middle, high = np.percentile(ratios, (0, 50, 100))
    keep(
        "environment",
        rates,
        "steps/s on one core",
        rates[names[0]] / rates[names[1]],
        "ours against Gymnasium's",
        f"{tracks} tracks, {steps} driven and {steps} random steps on each; over these {2 * tracks} blocks the ratio "
        f"is {low:.2f} to {high:.2f}, median {middle:.2f}",
        tracks=tracks,
        steps=steps,
    )


def plain_loop(policy: offrl.TorchPolicy, seeds: Sequence[int]) -> int:
    """One episode after the other in Gymnasium's own CarRacing, one observation at a time; returns the steps."""
    env = car_racing.make(fast=False)
    steps = 0
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            observation, _, terminated, truncated, _ = env.step(policy(observation[None])[0])
            ended = terminated or truncated
            steps += 1
    env.close()
    return steps


@click.command()
@click.option("--episodes", default=100, show_default=True, help="Played by offrl.evaluate, in two halves.")
@click.option("--plain-episodes", default=10, show_default=True, help="Played by the plain loop, in two halves.")
def evaluation(episodes: int, plain_episodes: int) -> None:
    """Steps/s of `offrl.evaluate` beside a plain loop over Gymnasium's environment, alternating."""
    policy = offrl.TorchPolicy(offrl.DiscreteBCQ(car_racing.spec(), seed=0).eval())

    def ours(seeds: Sequence[int]) -> int:
        return sum(offrl.evaluate(policy, car_racing.make, seeds).lengths)

    ways: dict[str, tuple[Callable[[Sequence[int]], int], int]] = {
        "offrl.evaluate": (ours, episodes // 2),
        "plain loop, Gymnasium's environment, batch of 1": (partial(plain_loop, policy), plain_episodes // 2),
    }
    played = {name: np.zeros(2) for name in ways}
    for half in range(2):
        for name, (play, count) in ways.items():
            start = time.perf_counter()
            steps = play(TUNING_SEEDS[half * count : (half + 1) * count])
            played[name] += (steps, time.perf_counter() - start)
    rates = {name: float(total[0] / total[1]) for name, total in played.items()}
    first, second = rates.values()
    keep(
        "evaluation",
        rates,
        "steps/s",
        first / second,
        "offrl.evaluate against the plain loop",
        f"{episodes} and {plain_episodes} episodes with an untrained network (NatureEncoder), starting workers "
        f"included; {num_cores()} worker processes, {torch.get_num_threads()} threads",
        episodes=episodes,
        plain_episodes=plain_episodes,
    )


@click.command()
@click.option("--transitions", default=40_000, show_default=True)
def collection(transitions: int) -> None:
    """Steps/s of `collect` on all cores beside the environment alone on one."""
    options: dict[str, Any] = {"no_progress_steps": 150}
    env = car_racing.make(**options)
    alone = np.zeros(2)
    with tempfile.TemporaryDirectory() as folder:
        for half in range(2):
            alone += drive_mixture(env, 4_000, seed=half)
            if half == 0:
                start = time.perf_counter()
                manifest = collect(
                    partial(car_racing.make, **options), CarRacingMixture(), Path(folder), transitions=transitions
                )
                seconds = time.perf_counter() - start
    own, rate = float(alone[0] / alone[1]), manifest.num_transitions / seconds
    cores = num_cores()
    keep(
        "collection",
        {f"collect, {cores} workers": rate, "the environment and its driver alone, one core": own},
        "steps/s",
        rate / (cores * own),
        "collect against cores x the environment alone",
        f"{manifest.num_transitions:,} transitions, written and checked; starting workers included",
        transitions=transitions,
    )


def drive_mixture(env: envs.Env, num_steps: int, seed: int) -> tuple[int, float]:
    """(steps, seconds) of the mixture's drivers, resets included, nothing kept."""
    behaviour = CarRacingMixture()
    start = time.perf_counter()
    steps = 0
    while steps < num_steps:
        observation, _ = env.reset(seed=seed + steps)
        behaviour.begin(env, np.random.default_rng(seed + steps))
        ended = False
        while not ended:
            observation, _, terminated, truncated, _ = env.step(behaviour(observation)[0])
            ended = terminated or truncated
            steps += 1
    return steps, time.perf_counter() - start

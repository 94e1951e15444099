"""`offrl train --seeds 0,1,2`: several runs that differ in their seed, side by side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from offrl.cli.console import say_on_interrupt, show
from offrl.errors import ConfigError, RunError
from offrl.system.ranks import Ranks
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

CHOSEN = ("precision", "compile")
"""Settings of the learner that are chosen by measuring, once for all runs."""


_LAST_BYTES = 4096  # more than a row has


class Seeds(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Whole numbers with commas between them, such as 0,1,2."""

    name = "SEEDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The seeds, each once."""
        if isinstance(value, tuple):
            return value
        try:
            seeds = tuple(int(word) for word in value.split(","))
        except ValueError:
            seeds = ()
        if not seeds or min(seeds) < 0 or len({*seeds}) < len(seeds):
            self.fail(f"{value!r} is no list of different whole numbers, such as 0,1,2", param, ctx)
        return seeds


def refuse_other_seeds(
    algorithm_seed: int | None, assignments: Sequence[str], resume: Path | None, ranks: Ranks
) -> None:
    """Checks that nothing else says what the seed of a run is, or how many processes there are.

    Raises:
        ConfigError: Something does.
    """
    given = ["--algorithm-seed"] if algorithm_seed is not None else []
    given += [f"--set {each}" for each in assignments if each.startswith("seed=")]
    given += ["--resume"] if resume is not None else []
    given += [f"torchrun with {ranks.count} ranks"] if ranks.count > 1 else []
    if given:
        hint = "give the same command again, which goes on with what it finds in its --run" if resume else None
        raise ConfigError(f"{', '.join(given)} beside --seeds", where="train", expected="one of them", hint=hint)


def train_side_by_side(
    folder: Path,
    seeds: Sequence[int],
    threads: int,
    total_updates: int,
    measure: Callable[[], Mapping[str, str]],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Gives the command that is being run once more for each seed, to processes of so many threads each.

    Args:
        folder: Gets a run for each seed, `seed-0` and so on. A run that is there already is gone on with.
        seeds: Of the runs.
        threads: Of each run.
        total_updates: Of each run.
        measure: Chooses settings that "auto" would leave to each run: they must not differ between seeds.
        as_json: How to show the result.
        quiet: No progress bar.

    Raises:
        RunError: A run failed; its own line on stderr says why.
    """
    runs = {seed: folder / f"seed-{seed}" for seed in seeds}
    words = _words(click.get_current_context(), leave_out={"seeds", "run", "threads", "as_json", "quiet"})
    chosen = _chosen_before(runs.values()) or measure()
    words += [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "offrl", "train", *words, "--threads", str(threads), "--json", "--quiet"]
    commands = {
        str(run): [*command, "--set", f"seed={seed}", "--run", str(run), "--continue"] for seed, run in runs.items()
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    say_on_interrupt(f"interrupted; the same command with --run {folder} goes on")
    results = []
    with tqdm(total=len(seeds) * total_updates, unit=" updates", disable=quiet or None, dynamic_ncols=True) as bar:

        def move_bar() -> None:
            bar.update(sum(map(_updates_of, runs.values())) - bar.n)

        at_once = max(1, num_cores() // threads)
        for name, exit_code, output in side_by_side(
            commands, at_once=at_once, environment=environment, meanwhile=move_bar
        ):
            if exit_code != 0:
                raise RunError(
                    f"ended with exit code {exit_code}",
                    where=name,
                    expected="0",
                    hint="the line above says why; the same command goes on with the others",
                )
            # A user's own code may have printed before: the result is the last object that begins a line.
            results.append(json.loads(output[output.rfind("\n{\n") + 1 :]))
        move_bar()
    results.sort(key=lambda each: [*map(str, runs.values())].index(each["run"]))
    shown = "\n".join(f"{each['run']}  loss {each['loss']:.4g}{_best(each)}" for each in results)
    show({"folder": str(folder), "runs": results}, as_json, text=f"{shown}\ncompare them: offrl report {folder}")


def _chosen_before(runs: Iterable[Path]) -> dict[str, str]:
    """What was chosen by measuring for those that are there already."""
    from offrl.runs.files import read_run_config

    for run in runs:
        if (run / "config.json").exists():
            learner = read_run_config(run)["learner"]
            return {name: str(learner[name]) for name in CHOSEN}
    return {}


def _best(result: Mapping[str, Any]) -> str:
    return f", best score {result['best_score']:.4g}" if "best_score" in result else ""


def _updates_of(run: Path) -> int:
    """The updates that a run has logged: the step of its last whole row. The file is asked several times a second."""
    with suppress(OSError, ValueError, IndexError), (run / "metrics.csv").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
        return int(file.read().split(b"\n")[-2].partition(b",")[0])
    return 0


def _words(context: click.Context, leave_out: set[str]) -> list[str]:
    """The command's words, as they were given."""
    words: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in leave_out or value is None or source == click.core.ParameterSource.DEFAULT:
            continue
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            for each in value if parameter.multiple else (value,):
                words += [parameter.opts[0], str(each)]
    return words

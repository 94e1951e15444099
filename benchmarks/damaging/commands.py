"""The commands that use a file, run in this process, and what came of them in a form that can be compared."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.testing import CliRunner

import offrl
from offrl.cli import main
from offrl.cli.logged import open_training_data
from offrl.cli.names import environment_factory
from offrl.cli.request import build_algorithm, read_request
from offrl.envs.seeds import TUNING_SEEDS
from offrl.evaluation import EpisodeEvaluator
from offrl.training import FitConfig, LearnerConfig, fit

ENVIRONMENT = "CartPole-v1"

_NOT_COMPARED = ("*timings.csv", "*logs.json", "*.damaged*", "*plots*", "*.lock", "*lock")
"""What differs from one run to the next, and what a command that went back sets aside."""


def train(algorithm: offrl.Algorithm, replay: offrl.ReplaySource, run: Path, updates: int, **how: Any) -> None:
    """Trains as `offrl train --evaluate-every` does, but plays in this process and draws nothing."""
    config = FitConfig(updates=updates, batch_size=8, log_period=1, checkpoint_period=2)
    learner = LearnerConfig(precision="fp32", compile="off")
    evaluator = EpisodeEvaluator(environment_factory(ENVIRONMENT, None), TUNING_SEEDS[:1], workers=0)
    watched: dict[str, Any] = {"evaluate_every": 2, "evaluator": evaluator, "loggers": [], "device": "cpu"}
    fit(algorithm, replay, config, learner=learner, run=run, **watched, **how)


@click.command("go-on")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("updates", type=int)
def _go_on(run: Path, updates: int) -> None:
    """Resumes a run, with what its config.json says, as `offrl train --resume` does."""
    request = read_request(run, None, None)
    replay = open_training_data(request, progress=False)
    train(build_algorithm(request, replay.spec), replay, run, updates, resume=True)


_main = copy.copy(main)
_main.commands = {**main.commands, "go-on": _go_on}


class Used(NamedTuple):
    """What came of a command.

    Attributes:
        code: Its exit code.
        result: What it printed and wrote, as far as it is the same every time.
        errors: The lines of errors.
        warnings: The lines of warnings.
        fault: What it may not print: a traceback, say. Empty where there is none.
    """

    code: int
    result: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    fault: str


class Damaged(NamedTuple):
    """The file of a unit that was damaged.

    Attributes:
        name: As in the list of what a command has left.
        bad: SHA-256 of its content.
        good: The one before.
    """

    name: str
    bad: str
    good: str


class Command(NamedTuple):
    """A command of `offrl`, with a copy of the damaged unit in its place.

    Attributes:
        arguments: `{unit}` stands for the directory, `{out}` for one that is not there yet, `{root}` for all inputs.
        cleared: Patterns of what is removed from the unit before: what would make the file superfluous.
        compares_unit: Whether the unit's files are compared, as the command has left them.
        compares_text: Whether what it prints is compared; sizes of files in it are no result.
    """

    arguments: str
    cleared: tuple[str, ...] = ()
    compares_unit: bool = False
    compares_text: bool = True

    def run(self, unit: Path, work: Path, damage: Damaged | None = None) -> Used:
        """Runs it on a copy of `unit`, in the empty directory `work`."""
        place, out = work / "unit", work / "out"
        shutil.copytree(unit, place, symlinks=True)
        for pattern in self.cleared:
            for path in place.glob(pattern):
                shutil.rmtree(path)
        arguments = [word.format(unit=place, out=out, root=work.parent) for word in self.arguments.split()]
        is_json = "--json" in arguments
        ended = CliRunner().invoke(_main, arguments)
        lines = [line for line in ended.stderr.splitlines() if line]
        errors = tuple(line for line in lines if line.startswith("error: "))
        warnings = tuple(line for line in lines if line.startswith("warning: "))
        is_crash = ended.exception is not None and not isinstance(ended.exception, SystemExit)
        fault = f"{type(ended.exception).__name__}: {ended.exception}" if is_crash else ""
        if len(errors) + len(warnings) != len(lines) or len(errors) > 1:
            fault = fault or f"{len(lines)} lines: {lines[-1]}"
        printed = _printed(ended.stdout, is_json) if self.compares_text else None
        left = _tree(place) if self.compares_unit else []
        if damage is not None:  # a file that the command left as it was is none of its results
            left = [(name, damage.good if (name, sha256) == damage[:2] else sha256) for name, sha256 in left]
        result = json.dumps([printed, *_tree(out), *left])
        shutil.rmtree(work)
        work.mkdir()
        return Used(ended.exit_code, result, errors, warnings, fault)


def _printed(text: str, is_json: bool) -> Any:
    if not is_json or not text:
        return text
    return {name: value for name, value in json.loads(text).items() if not name.startswith("seconds")}


def _tree(root: Path) -> list[tuple[str, str]]:
    paths = [root] if root.is_file() else sorted(root.rglob("*"))
    names = {path.relative_to(root.parent).as_posix(): path for path in paths if path.is_file()}
    return [
        (name, hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in names.items()
        if not any(fnmatchcase(name, pattern) for pattern in _NOT_COMPARED)
    ]


def run_offrl(*arguments: object) -> None:
    """Runs a command that has to succeed."""
    ended = CliRunner().invoke(main, [str(each) for each in arguments])
    if ended.exit_code:
        raise RuntimeError(f"{arguments}: {ended.output}") from ended.exception


INSPECT = Command("inspect {unit} --json --quiet")
INGEST = Command("inspect {unit} --json --quiet", cleared=(".store",))
CONVERT = Command("convert {unit} {out} --to stacked --quiet", cleared=(".store",), compares_text=False)
FETCH = Command("fetch {root}/data-0.tar {unit} --quiet")
TRAIN = Command(
    "train {unit} --updates 2 --run {out} --algorithm bc --device cpu --quiet --set batch_size=4 --set precision=fp32 "
    "--set compile=off --json"
)
VERIFY = Command("verify {unit} --json")
COLLECT = Command("collect CartPole-v1 {unit} --transitions 500 --seed 0 --workers 1 --quiet", compares_unit=True)
EVALUATE = Command("evaluate {unit} --env CartPole-v1 --episodes 1 --workers 0 --device cpu --json --quiet")
EXPORT = Command("export {unit} {out} --quiet")
REPORT = Command("report {unit} --out {out} --quiet --json")
CARD = Command("card {unit}")
PUBLISH = Command("publish {unit} {out} --quiet")
RESUME = Command("go-on {unit} 8", compares_unit=True)
PLOT = Command("plot {unit} --out {out}/p.png --metric loss --metric score --json")


EVALUATE_UINT8, EVALUATE_FLOAT = (
    Command(f"evaluate {{unit}}/{name} --env CartPole-v1 --episodes 1 --workers 0 --json --quiet")
    for name in ("model-uint8.onnx", "model.onnx")
)


def judge(before: Sequence[Used], after: Sequence[Used]) -> tuple[str, str]:
    """What became of a damage, by what came of each command without and with it, and what was said.

    "noticed": every command that would have made another result said so in a line and made none, or a line told what
    it went on with instead; "harmless": all results are bit-equal and nothing was said; otherwise what went wrong.
    """
    said = ""
    for good, found in zip(before, after, strict=True):
        if found.fault:
            return "crashed", found.fault
        new = [line for line in found.warnings if line not in good.warnings]
        if found.code == 2:
            said = said or (found.errors[0] if found.errors else _damaged_line(found.result))
            if not said:
                return "failed without a word", found.result[:300]
        elif found.code != 0:
            return "crashed", f"exit code {found.code}"
        elif new:
            said = said or new[0]
        elif '"outcome": ' in found.result and found.result != good.result:
            said = said or f"verify: {_first_difference(good.result, found.result)}"
        elif found.result != good.result:
            return "another result without a word", _first_difference(good.result, found.result)
    return ("noticed", said) if said else ("harmless", "")


def _damaged_line(result: str) -> str:
    """What `offrl verify` says of the first damaged file."""
    printed = json.loads(result)[0]
    files = printed.get("files", []) if isinstance(printed, dict) else []
    return next((f"{each['path']}: {each['about']}" for each in files if each["outcome"] == "damaged"), "")


def _first_difference(one: str, other: str) -> str:
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"…{one[max(at - 60, 0) : at + 60]}… became …{other[max(at - 60, 0) : at + 60]}…"

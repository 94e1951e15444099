"""What the site takes from the code and from benchmarks/results/ when it is built, so that it cannot be out of date.

A line `<!-- offrl: NAME ARGUMENT -->` on a page is replaced by what the function of that name returns.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.pages import kept as results
from benchmarks.pages.datasets import dataset_cards, recipes
from benchmarks.pages.driving import bound, leaderboard, lost, training_runs, tried
from benchmarks.pages.kept import CHARTS, table
from benchmarks.pages.offline import gained, judged, obp
from benchmarks.pages.scores import BENCHMARKS, PLOTS, benchmarks, shelf
from benchmarks.pages.soundness import corruption, damages, faults, identity, memory, ranks, soak
from benchmarks.pages.speed import (
    data,
    first_update,
    growth,
    inference,
    neighbour,
    precision,
    precision_runs,
    profile,
    quick,
    speed,
    time_to_score,
    train,
)

_MARKER = re.compile(r"^<!-- offrl: ([\w-]+) ?(\S*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with each page."""
    return _MARKER.sub(lambda marker: _GENERATORS[marker[1]](*filter(None, [marker[2]])), markdown)


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs with what the site is made of: adds the benchmarks' plots."""
    from mkdocs.structure.files import File

    for name in BENCHMARKS:
        for plot in PLOTS:
            path = results.RESULTS / name / "plots" / f"{plot}.png"
            if path.is_file():
                files.append(File.generated(config, f"benchmarks/{name}/{plot}.png", abs_src_path=str(path)))
    charts = [results.RESULTS / chart for found in CHARTS.values() for chart in found]
    several = [
        path
        for found in ("datasets/*/*.png", "train/*.png", "scores/*.png")
        for path in sorted(results.RESULTS.glob(found))
    ]
    for path in [*several, *filter(Path.is_file, charts)]:
        files.append(File.generated(config, f"benchmarks/{path.relative_to(results.RESULTS)}", abs_src_path=str(path)))
    return files


def settings(path: str) -> str:
    """The settings of a dataclass or function as a table: name, default, and what its docstring says of it."""
    from offrl.cli.settings import read_section

    module, name = path.split(":")
    subject = getattr(import_module(module), name)
    parameters = inspect.signature(subject).parameters
    sections = [read_section(inspect.getdoc(subject), section) for section in ("Args", "Attributes")]
    rows = [
        (f"`{field}`", f"`{_default(subject, parameters[field])}`", meaning)
        for field, meaning in (sections[0] or sections[1]).items()
        if field in parameters and parameters[field].default is not inspect.Parameter.empty
    ]
    return _table_of_names((f"`{name}`", "default", "meaning"), rows)


def _default(subject: Any, parameter: inspect.Parameter) -> str:
    for field in dataclasses.fields(subject) if dataclasses.is_dataclass(subject) else ():
        if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
            return repr(field.default_factory())
    return repr(parameter.default)


def actions() -> str:
    """CarRacing's action table."""
    from offrl.envs.car_racing import ACTION_NAMES, ACTION_TABLE

    rows = [
        (str(index), name, *(f"{value:g}" for value in vector))
        for index, (name, vector) in enumerate(zip(ACTION_NAMES, ACTION_TABLE, strict=True))
    ]
    return table(("index", "in words", "steer", "gas", "brake"), rows)


def verified_versions() -> str:
    """The versions of Gymnasium that CarRacing is drawn fast for."""
    from offrl.envs.car_racing import VERIFIED_VERSIONS

    return "\n".join(f"- Gymnasium {version}" for version in VERIFIED_VERSIONS)


def commands() -> str:
    """The help of `offrl` and of each of its commands."""
    import click

    from offrl.cli import main

    context = click.Context(main, info_name="offrl", max_content_width=100)
    parts = [f"## offrl\n\n```text\n{main.get_help(context)}\n```"]
    for name, command in main.commands.items():
        text = command.get_help(click.Context(command, info_name=name, parent=context))
        parts.append(f"## offrl {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def reproduce() -> str:
    """The commands that make the figures of the site."""
    from benchmarks.__main__ import figures

    lines = "\n".join(f"python -m benchmarks {shlex.join(words)}" for words in figures())
    return f"```bash\n{lines}\n```"


def public_names() -> str:
    """The names of `offrl`, each linked to where it is described."""
    import offrl

    rows = []
    for name in offrl.__all__:
        value = getattr(offrl, name)
        if not name.startswith("_") and not inspect.ismodule(value):
            summary = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
            rows.append((f"[`offrl.{name}`][{value.__module__}.{value.__qualname__}]", summary))
    return _table_of_names(("name", "description"), rows)


def cost(name: str) -> str:
    """The lines that an algorithm consists of, without empty ones: its own files, and what names it elsewhere."""
    root = Path(__file__).parents[1]
    module, _, kind = name.partition(":")
    stem = module.rpartition(".")[2]
    names = re.compile(rf"\b({kind}|{kind}Config|{re.escape(module)})\b")

    def lines(path: str, keep: Callable[[str], Any] = len) -> int:
        return sum(1 for line in (root / path).read_text(encoding="utf-8").splitlines() if keep(line))

    page = (root / "docs" / "algorithms.md").read_text(encoding="utf-8")
    sections = [part.splitlines() for part in re.split(r"^(?=## )", page, flags=re.MULTILINE)]
    own = next(part for part in sections if any(f"settings offrl.algorithms:{kind}Config" in line for line in part))
    rows = [
        (f"offrl/algorithms/{stem}.py", "config and loss", lines(f"offrl/algorithms/{stem}.py")),
        (f"tests/algorithms/test_{stem}.py", "its tests", lines(f"tests/algorithms/test_{stem}.py")),
    ]
    losses = import_module("offrl.losses")
    files = {path.stem: path.read_text(encoding="utf-8") for path in (root / "offrl" / "algorithms").glob("*.py")}
    used = {file: {name for name in losses.__all__ if re.search(rf"\b{name}\b", text)} for file, text in files.items()}
    alone = used[stem].difference(*(found for file, found in used.items() if file != stem))
    equations = "".join(inspect.getsource(getattr(losses, name)) for name in alone).splitlines()
    rows.append(
        ("offrl/losses/", f"equations that it alone uses: {', '.join(sorted(alone))}", len([*filter(None, equations)]))
    )
    imports = re.compile(rf"{re.escape(module)}\b|^(from|import) .*\b{kind}(Config)?\b")
    for path in sorted((root / "offrl").rglob("*.py*")):
        inside = str(path.relative_to(root))
        if path.suffix in (".py", ".pyi") and inside != rows[0][0]:
            what = "its name on the command line" if path.suffix == ".py" else "exports"
            rows.append((inside, what, lines(inside, imports.search)))
    rows += [
        ("docs/api/algorithms.md", "its page of the reference", lines("docs/api/algorithms.md", names.search)),
        (
            "docs/algorithms.md",
            "its rows",
            lines("docs/algorithms.md", lambda line: line[:1] == "|" and names.search(line)),
        ),
        ("docs/algorithms.md", "its section", sum(1 for line in own if line)),
    ]
    return table(("file", "what", "lines"), [(f"`{file}`", what, str(n)) for file, what, n in rows if n])


def _table_of_names(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table whose first columns are code that stays on one line."""
    return f'<div class="names" markdown>\n\n{table(head, rows)}\n\n</div>'


_GENERATORS: dict[str, Callable[..., str]] = {
    "training-runs": training_runs,
    "lost": lost,
    "tried": tried,
    "time-to-score": time_to_score,
    "actions": actions,
    "benchmarks": benchmarks,
    "bound": bound,
    "commands": commands,
    "corruption": corruption,
    "cost": cost,
    "damages": damages,
    "data": data,
    "faults": faults,
    "dataset-cards": dataset_cards,
    "growth": growth,
    "identity": identity,
    "inference": inference,
    "judged": judged,
    "gained": gained,
    "leaderboard": leaderboard,
    "memory": memory,
    "precision": precision,
    "precision_runs": precision_runs,
    "profile": profile,
    "public-names": public_names,
    "quick": quick,
    "first_update": first_update,
    "reproduce": reproduce,
    "neighbour": neighbour,
    "obp": obp,
    "shelf": shelf,
    "ranks": ranks,
    "recipes": recipes,
    "settings": settings,
    "soak": soak,
    "speed": speed,
    "train": train,
    "verified-versions": verified_versions,
}

"""`offrl algorithms` and `offrl version`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import click
from click import argument

from offrl._version import __version__
from offrl.cli.console import json_option, show
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.cli.settings import Field, format_value, setting_groups


@click.command(short_help="List the algorithms, or the settings of one algorithm.")
@argument("name", required=False)
@json_option
def algorithms(name: str | None, as_json: bool) -> None:
    """Example: offrl algorithms bcq

    Lists the algorithms; with NAME, which may be a class of your own (package.module:Class), lists every setting that
    train --set takes, with its default and meaning.
    """
    if name is None:
        summaries = {name: _summary(algorithm_class(name)) for name in ALGORITHMS}
        show(summaries, as_json)
        return
    from offrl.algorithms.building import declared_config

    kind = algorithm_class(name)
    titles = {
        "algorithm": declared_config(kind).__name__,
        "learner": "LearnerConfig",
        "fit": "FitConfig",
        "replay": "replay",
    }
    groups = {titles[group]: fields for group, fields in setting_groups(name).items()}
    result = {
        "algorithm": name,
        "summary": _summary(kind),
        "settings": {
            group: {field: _entry(about) for field, about in fields.items()} for group, fields in groups.items()
        },
    }
    formatter = click.HelpFormatter(max_width=100)
    formatter.write_text(f"{name}: {result['summary']}")
    for title, fields in groups.items():
        with formatter.section(title):
            formatter.write_dl([(_assignment(name, field), field.meaning) for name, field in fields.items()])
    show(result, as_json, text=formatter.getvalue().rstrip())


@click.command(short_help="Show versions and the machine.")
@json_option
def version(as_json: bool) -> None:
    """Example: offrl version

    Shows the versions and the machine that a result depends on; include them in a bug report.
    """
    from offrl.runs.directory import describe_machine

    machine = describe_machine()
    versions = machine.pop("versions")
    result = {"offrl": __version__, **machine, **{name: found for name, found in versions.items() if name != "offrl"}}
    show(result, as_json)


def _summary(kind: type[Any]) -> str:
    """The first line of a docstring."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _entry(field: Field) -> dict[str, Any]:
    """A setting, JSON-ready."""
    default = {} if field.default is MISSING else {"default": field.default}
    return {**default, "meaning": field.meaning}


def _assignment(name: str, field: Field) -> str:
    """As train --set takes it."""
    return f"{name}=" if field.default is MISSING else f"{name}={format_value(field.default)}"

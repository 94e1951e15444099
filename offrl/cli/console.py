"""What the commands of `offrl` share: options, and errors as one line with an exit code."""

from __future__ import annotations

import errno
import json
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from offrl.errors import ConfigError, OfflineRLError, printable
from offrl.system.signals import Interrupted, raising_on_signals
from offrl.system.torchrun import current

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class _Data(click.Path):
    """A dataset's directory, a Path; or the address of one elsewhere (s3://bucket/folder), which stays a text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from offrl.shards._file_systems import is_remote

        return value if is_remote(value) else super().convert(value, param, ctx)


DATA = _Data(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
_ON_INTERRUPT = "offrl.on_interrupt"


class Group(click.Group):
    """Commands whose errors come out as one line; needs a flag `debug`, which shows the traceback besides."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parses what stands before the command."""
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            _refuse_usage(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            with raising_on_signals(), warnings.catch_warnings():
                warnings.showwarning = _show_warning  # type: ignore[assignment]  # it takes what it is given
                return super().invoke(ctx)
        except click.UsageError as error:
            _refuse_usage(error)
        except OfflineRLError as error:
            _fail(ctx, error, str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # `offrl inspect data | head`: click knows what to do
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            _fail(ctx, error, f"{where}{error.strerror or error}")
        except KeyboardInterrupt as error:
            ranks = current()
            ranks.has_failed |= not getattr(error, "is_agreed", False)  # then nobody is waited for
            if ranks.is_first:
                echo(ctx.meta.get(_ON_INTERRUPT, "interrupted"), err=True)
            ctx.exit(error.exit_code if isinstance(error, Interrupted) else EXIT_INTERRUPTED)


def _refuse_usage(error: click.UsageError) -> NoReturn:
    """Says in one line what is wrong with a command's words; a command without any shows its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    command = (
        "offrl"
        if error.ctx is None
        else f"offrl{error.ctx.command_path.removeprefix(error.ctx.find_root().command_path)}"
    )
    message = " ".join(error.format_message().split()).rstrip(".")
    echo(f"error: {command}: {message}; {command} --help says what it takes", err=True)
    raise click.exceptions.Exit(EXIT_BAD_INPUT)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints lines that may hold texts from files; what would command the terminal is escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err, nl=nl)


def warn(message: Warning | str) -> None:
    """Prints a warning."""
    echo(f"warning: {message}", err=True)


def _show_warning(message: Warning | str, *_: Any) -> None:
    if current().is_first:
        warn(message)


def _fail(ctx: click.Context, error: Exception, message: str) -> NoReturn:
    if ctx.params["debug"]:
        echo("".join(traceback.format_exception(error)), err=True, nl=False)
    ranks = current()
    if ranks.fails_first():
        rank = "" if ranks.is_first else f"rank {ranks.rank}: "
        echo(f"error: {rank}{' '.join(message.split())}", err=True)
    ctx.exit(EXIT_BAD_INPUT)


def say_on_interrupt(line: str) -> None:
    """What the command in progress answers to ctrl-C."""
    click.get_current_context().meta[_ON_INTERRUPT] = line


def show(result: Mapping[str, Any], as_json: bool, text: str | None = None) -> None:
    """Prints a command's result: as JSON, or as `text`, by default a line for each entry."""
    if as_json:
        click.echo(json.dumps(result, indent=2, default=str))
    elif text is not None:
        echo(text)
    else:
        width = max(map(len, result))
        for name, value in result.items():
            echo(f"{name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def refuse_beside(what: str, given: Mapping[str, Any], *, where: str | Path, expected: str) -> None:
    """Says which options have no say beside `what`, rather than leave them unread.

    Args:
        what: was asked for.
        given: the value of each such option by its name; None where it was not given.
        where: of the error.
        expected: in their place.

    Raises:
        ConfigError: one of them was given.
    """
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} beside {what}", where=where, expected=expected, hint=f"leave out {name}")


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click options as one decorator, in the order in which --help lists them."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def completing(words: Iterable[str] | Callable[[], Iterable[str]]) -> Complete:
    """What a shell offers for an option or argument: those of the words that begin as the user does.

    Args:
        words: a function is called only when a shell asks.
    """

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
        return [word for word in (words() if callable(words) else words) if word.startswith(begun)]

    return complete


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
output_options = options(json_option, click.option("--quiet", is_flag=True, help="Show no progress."))
environment_option = click.option("--env", "environment", help="A Gymnasium id; default: what the run's data is of.")
hud_option = click.option("--hud", type=click.Choice(["visible", "hidden"]), help="CarRacing's information bar.")
device_option = click.option("--device", default=None, help="cpu, cuda, ...; default: a GPU where there is one.")
task_options = options(
    click.option("--env", "environment", help="The task of shards without a manifest, such as CarRacing-v3."),
    hud_option,
    click.option(
        "--dones",
        type=click.Choice(["terminated", "not_done"]),
        default="terminated",
        show_default=True,
        help="What true in the dones of stacked shards says.",
    ),
    click.option("--skip-bad-shards", is_flag=True, help="Set damaged shards aside and name them; default: stop."),
)


class _Workers(click.IntRange):
    """A number of processes, or "auto", which is None."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "auto" else super().convert(value, param, ctx)


def workers_option(least: int) -> Callable[[Command], Command]:
    """--workers, from `least` on; None is one for each core."""
    return click.option(
        "--workers", type=_Workers(least), default="auto", show_default=True, help="Processes; auto: one for each core."
    )

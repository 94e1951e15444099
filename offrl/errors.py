"""Every error that offrl raises on purpose: one line that says what, where, what was expected and how to fix it."""

import re
import sys
from importlib import metadata
from pathlib import Path


class OfflineRLError(Exception):
    """Base of offrl's errors.

    Args:
        what: what was found.
        where: the file, field or setting it was found in.
        expected: what should have been there.
        hint: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        message = what if where is None else f"{where}: {what}"
        if expected is not None:
            message += f"; expected {expected}"
        if hint is not None:
            message += f"; {hint}"
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A text that may come from a file, as one line that a terminal only shows: what commands it is escaped.

    Those are control characters, marks that turn the direction of writing, and halves of characters, which no stream
    can encode.
    """
    text = re.sub(r"[ \t]*[\r\n]\s*", " ", text)
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode() for each in text
    )


class DatasetError(OfflineRLError):
    """Logged data that is missing, damaged or not what its layout says."""


class SpecMismatchError(OfflineRLError):
    """Two parts (data, algorithm, environment, policy file) describe different tasks."""


class ConfigError(OfflineRLError, ValueError):
    """A setting outside what is allowed."""


class UnknownEnvironmentError(OfflineRLError):
    """An environment that is unknown or that offrl cannot adapt."""


class MissingDependencyError(OfflineRLError, ImportError):
    """An optional package that is needed here and not installed."""


class RunError(OfflineRLError):
    """A run directory or checkpoint that exists already, is missing, or is damaged."""


class InUseError(OfflineRLError):
    """A run, dataset or store that another process is working on."""


class ExportError(OfflineRLError):
    """An ONNX file that cannot be written, read or verified."""


def missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """The error for an optional package that is absent: names the command that brings what the extra consists of.

    It names the packages rather than the extra, so that the command works wherever offrl was installed from, and the
    interpreter that lacks them, which need not be the one that a bare `pip` belongs to.
    """
    needed = " ".join(f"'{requirement}'" for requirement in _requirements(extra)) or package
    return MissingDependencyError(
        f"{package} is not installed",
        where=purpose,
        hint=f"install it with: {_shown(Path(sys.executable))} -m pip install {needed}",
    )


def _requirements(extra: str) -> list[str]:
    """What an extra of offrl asks for, as pip takes it; empty where offrl was not installed."""
    try:
        lines = metadata.requires("offrl") or []
    except metadata.PackageNotFoundError:
        return []
    found = (re.fullmatch(rf"(.+?) ?; extra == ['\"]{extra}['\"]", line) for line in lines)
    return [match[1] for match in found if match is not None]


def _shown(path: Path) -> str:
    """A path as somebody in the current directory would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

"""Every error that offrl raises on purpose: one line that says what, where, what was expected and how to fix it."""

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
        super().__init__(message)


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


class ExportError(OfflineRLError):
    """An ONNX file that cannot be written, read or verified."""


def missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """The error for an optional package that is absent: names the pip command that brings it."""
    return MissingDependencyError(
        f"{package} is not installed",
        where=purpose,
        hint=f"install it with: pip install 'offrl[{extra}]'",
    )

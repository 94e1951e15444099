"""Versions of the packages that a number depends on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata

ENVIRONMENTS = ("box2d", "pygame-ce", "pygame", "minatar", "ale-py")
"""What environments are made of."""
PACKAGES = ("offrl", "torch", "numpy", "gymnasium", *ENVIRONMENTS, "onnx", "onnxruntime")
"""What offrl computes with."""


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions

"""What is public is exported, described and tested: no class of the reference or of an `__all__` lacks one of these."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import offrl

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PACKAGES = [module.name for module in pkgutil.iter_modules(offrl.__path__, "offrl.") if module.ispkg]

# Described in the reference for those who change offrl, and passed around inside it, but not for users to import.
NOT_EXPORTED = {
    "offrl.envs.fast_car_racing.FastCarRacing",  # needs Box2D; `make` and gymnasium.make construct it
    "offrl.policies.policy.Actor",
    "offrl.policies.policy.Shown",
    "offrl.replay.replay.DeviceReplay",
    "offrl.shards.layouts.ShardRows",
    "offrl.shards.layouts.Windows",
    "offrl.training.learner.StepSchedule",
}


def classes_of_the_reference() -> Iterator[type]:
    """The classes that the modules on the reference's pages define under a public name."""
    for page in PAGES:
        for module in map(import_module, re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)):
            for name, value in vars(module).items():
                if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                    yield value


def exported_classes() -> set[type]:
    """The classes in the `__all__` of offrl and of each of its packages."""
    modules = [offrl, *map(import_module, PACKAGES)]
    values = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    return {value for value in values if inspect.isclass(value)}


def name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def test_a_class_that_is_exported_is_in_the_reference_with_a_docstring() -> None:
    described = set(classes_of_the_reference())
    exported = exported_classes()
    assert len(exported) > 60
    assert sorted(name_of(kind) for kind in exported - described) == []
    assert sorted(name_of(kind) for kind in described if not vars(kind).get("__doc__")) == []


def test_a_class_of_the_reference_is_exported_by_its_package() -> None:
    in_packages = [kind for kind in classes_of_the_reference() if kind.__module__.count(".") > 1]
    assert {name_of(kind) for kind in in_packages if kind not in exported_classes()} == NOT_EXPORTED


def test_every_public_class_is_named_by_a_test() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    named = set(re.findall(r"\w+", "\n".join(sources)))
    assert sorted(name_of(kind) for kind in exported_classes() if kind.__name__ not in named) == []


def test_the_citation_is_of_this_version() -> None:
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE))
    assert citation["version"] == offrl.__version__
    assert (citation["title"], citation["license"]) == ("offrl", "MIT")

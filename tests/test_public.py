"""What is public is exported, described and tested, as CONTRIBUTING.md asks of new algorithms and encoders."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import offrl
from offrl.algorithms import Algorithm
from offrl.cli.names import ALGORITHMS, ENCODERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PACKAGES = [module.name for module in pkgutil.iter_modules(offrl.__path__, "offrl.") if module.ispkg]

# Described in the reference for those who change offrl, and passed around inside it, but not for users to import.
NOT_EXPORTED = {
    "offrl.envs.fast_car_racing.FastCarRacing",  # needs Box2D; `make` and gymnasium.make construct it
    "offrl.ope.looked_up.LookedUp",
    "offrl.policies.choices.Actor",
    "offrl.policies.policy.Shown",
    "offrl.replay.replay.DeviceReplay",
    "offrl.replay.replay.HostReplay",
    "offrl.runs.checkpoint.Resumable",
    "offrl.runs.checkpoint.Stateful",
    "offrl.selection.fits.Fits",
    "offrl.shards.layouts.ShardRows",
    "offrl.shards.layouts.Windows",
    "offrl.training.learner.StepSchedule",
    "offrl.training.selection.Ratings",
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


# Made by offrl's own functions, which hand over paths.
TAKES_NO_TEXT = {"TorchPolicy.__init__", "FrameStore.__init__", "Checked.__init__", "group_runs", "one_run_per_seed"}


def exported_functions() -> Iterator[tuple[str, Any]]:
    """The functions in the `__all__` of offrl and of each of its packages, and the public methods of the classes."""
    for module in (offrl, *map(import_module, PACKAGES)):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value):
                for method, found in vars(value).items():
                    found = getattr(found, "__func__", found)
                    if inspect.isfunction(found) and (not method.startswith("_") or method == "__init__"):
                        yield f"{name}.{method}", found
            elif inspect.isfunction(value):
                yield name, value


def test_what_takes_a_path_takes_its_text() -> None:
    annotations = {
        f"{name}({parameter.name})": str(parameter.annotation)
        for name, function in exported_functions()
        if name not in TAKES_NO_TEXT
        for parameter in inspect.signature(function).parameters.values()
    }
    paths = {name: annotation for name, annotation in annotations.items() if "Path" in annotation}
    assert len(paths) > 20
    assert {name for name, annotation in paths.items() if "str" not in annotation} == set()


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


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def public_classes(package: str, base: type) -> Iterator[type]:
    """The public subclasses of `base` that the modules of a package define, without those that are bases themselves."""
    for found in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        for name, value in vars(import_module(found.name)).items():
            is_own = inspect.isclass(value) and value.__module__ == found.name and not name.startswith("_")
            if is_own and issubclass(value, base) and not inspect.isabstract(value):
                yield value


def missing_steps_of_an_algorithm(kind: type) -> Iterator[str]:
    """What CONTRIBUTING.md asks of an algorithm of the package and this one lacks."""
    step, name = "CONTRIBUTING.md, Adding an algorithm, step {}: {}".format, kind.__name__
    for exported in (name, f"{name}Config"):
        for module in (offrl, offrl.algorithms):
            if exported not in module.__all__:
                yield step(3, f"export {exported} in {module.__name__.replace('.', '/')}/__init__.pyi")
    if f"{kind.__module__}:{name}" not in ALGORITHMS.values():
        yield step(4, f"give {name} a name in ALGORITHMS of offrl/cli/names.py")
    module_name = kind.__module__.rpartition(".")[2]
    if not (ROOT / "tests" / "algorithms" / f"test_{module_name}.py").is_file():
        yield step(5, f"add tests/algorithms/test_{module_name}.py")
    if f"::: {kind.__module__}\n" not in f"{read('docs/api/algorithms.md')}\n":
        yield step(6, f"add ::: {kind.__module__} to docs/api/algorithms.md")
    if not re.search(rf"^\| {name} \|", read("docs/algorithms.md"), re.MULTILINE):
        yield step(6, f"add a row of {name} to the table of outputs in docs/algorithms.md")


def missing_steps_of_an_encoder(kind: type) -> Iterator[str]:
    """What CONTRIBUTING.md asks of an encoder of the package and this one lacks."""
    step, name = "CONTRIBUTING.md, Adding an encoder, step {}: {}".format, kind.__name__
    for module in (offrl, offrl.networks):
        if name not in module.__all__:
            yield step(4, f"export {name} in {module.__name__.replace('.', '/')}/__init__.pyi")
    if f"{kind.__module__}:{name}" not in ENCODERS.values():
        yield step(5, f"give {name} a name in ENCODERS of offrl/cli/names.py")
    if not re.search(rf"\b{name}\b", read("tests/networks/test_encoders.py")):
        yield step(6, f"test {name} in tests/networks/test_encoders.py")
    if not re.search(rf"^\| `{name}` \|", read("docs/algorithms.md"), re.MULTILINE):
        yield step(7, f"add a row of {name} to the table of encoders in docs/algorithms.md")


def test_every_algorithm_has_gone_through_the_steps_of_contributing() -> None:
    algorithms = list(public_classes("offrl.algorithms", Algorithm))
    assert {kind.__name__ for kind in algorithms} >= {"BC", "DQN", "DiscreteBCQ"}
    assert [line for kind in algorithms for line in missing_steps_of_an_algorithm(kind)] == []


def test_every_encoder_has_gone_through_the_steps_of_contributing() -> None:
    found = public_classes("offrl.networks", torch.nn.Module)
    encoders = [kind for kind in found if kind.__module__.endswith(".encoders")]
    assert {kind.__name__ for kind in encoders} >= {"NatureEncoder", "CompactEncoder", "MLPEncoder"}
    assert [line for kind in encoders for line in missing_steps_of_an_encoder(kind)] == []


def test_a_class_that_skipped_the_steps_is_told_each_by_its_number() -> None:
    unknown = type("Unknown", (), {"__module__": "offrl.algorithms.unknown"})
    found = [line.removeprefix("CONTRIBUTING.md, Adding an ") for line in missing_steps_of_an_algorithm(unknown)]
    assert [line.partition(":")[0] for line in found] == [f"algorithm, step {n}" for n in (3, 3, 3, 3, 4, 5, 6, 6)]
    found = [line.removeprefix("CONTRIBUTING.md, Adding an ") for line in missing_steps_of_an_encoder(unknown)]
    assert [line.partition(":")[0] for line in found] == [f"encoder, step {n}" for n in (4, 4, 5, 6, 7)]


def test_the_steps_have_the_numbers_that_the_tests_name() -> None:
    _, algorithm, encoder = re.split(
        r"^## Adding an (?:algorithm|encoder)$", read("CONTRIBUTING.md"), flags=re.MULTILINE
    )
    for text, steps in (
        (algorithm, {3: "Export", 4: "ALGORITHMS", 5: "tests/algorithms/test_NAME.py", 6: "docs/api/algorithms.md"}),
        (encoder, {4: "Export", 5: "ENCODERS", 6: "tests/networks/test_encoders.py", 7: "docs/algorithms.md"}),
    ):
        for number, word in steps.items():
            assert word in re.split(rf"^{number}\. ", text, flags=re.MULTILINE)[1].splitlines()[0]


def test_the_citation_is_of_this_version() -> None:
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE))
    assert citation["version"] == offrl.__version__
    assert (citation["title"], citation["license"]) == ("offrl", "MIT")

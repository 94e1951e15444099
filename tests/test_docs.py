"""The site tells the truth: its code runs, its commands exist, and no error, module or public name is missing on it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import offrl

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def code_lines(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """(line number from 0, line) of all the page's blocks in that language."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines()):
        if line.startswith("```"):
            inside = line == f"```{language}"
        elif inside:
            yield number, line


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every command in a bash block."""
    for page in PAGES:
        script = "\n".join(line for _, line in code_lines(page, "bash"))
        for line in filter(None, script.replace("\\\n", " ").splitlines()):
            yield page.name, shlex.split(line)


COMMANDS = [pytest.param(words, id=f"{page}: {' '.join(words)}") for page, words in commands()]
WITH_PYTHON = [page for page in PAGES if list(code_lines(page, "python"))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page are one script; a line that fails has the same number in the traceback as on the page."""
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for number, line in code_lines(page, "python"):
        lines[number] = line
    script = tmp_path / f"{page.stem.replace('-', '_')}_page.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        # One thread: the networks here are tiny, and threads that wait for each other crawl on a busy machine.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_pages_with_code_are_found() -> None:
    assert {"quickstart", "datasets", "evaluate-export", "extend"} <= {page.stem for page in WITH_PYTHON}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_on_a_page_is_one_that_exists(words: list[str]) -> None:
    program, *arguments = words
    match Path(program).name, arguments:
        case "offrl", [name, *rest]:
            from offrl.cli import main

            main.commands[name].make_context(name, list(rest))  # raises where an option or value is unknown
        case "make", [target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        case "python", ["-m", "benchmarks", name, *_]:
            source = (ROOT / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
            assert re.search(rf"\b{name.replace('-', '_')}\b", source)
        case "python", [script, *_]:
            assert (ROOT / script).is_file()
        case "pip", ["install", pinned, "--index-url", _]:
            assert pinned in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
        case "pip", ["install", *_, target]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert target.strip(".[]") in extras
        case _:
            assert words in (["python3", "-m", "venv", ".venv"], ["source", ".venv/bin/activate"])


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_every_module_is_in_the_reference() -> None:
    described = {name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)}
    modules = {
        module.name
        for module in pkgutil.walk_packages(offrl.__path__, "offrl.")
        if not module.ispkg and not re.search(r"\._|\.cli\.|\.system\.", module.name)
    }
    assert described == modules


@dataclass
class Refusal:
    """An error that the library raises: the constant parts of what it says, and of where."""

    place: str
    what: str
    where: str


def constant_part(node: ast.expr | None) -> str:
    """The longest piece of a string expression that is the same in every message."""
    constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)] if node else []
    return max((part.strip(" (,:;'") for part in constants if isinstance(part, str)), key=len, default="")


def refusals() -> Iterator[Refusal]:
    """Every place where the library makes one of its own errors."""
    for path in sorted((ROOT / "offrl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
            if name == "fault" or (hasattr(offrl.errors, name) and name.endswith("Error")):
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield Refusal(place, constant_part(node.args[0]), constant_part(keywords.get("where")))


def test_every_error_is_on_the_troubleshooting_page() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    found = list(refusals())
    assert len(found) > 100
    missing = [refusal for refusal in found if (refusal.what if len(refusal.what) > 3 else refusal.where) not in page]
    assert missing == []


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Sample:
    """Settings to draw a table of.

    Attributes:
        rate: how fast, in steps
            a second.
        extras: a | b.

    Raises:
        ValueError: never.
    """

    rate: float = 0.5
    extras: dict[str, int] = field(default_factory=dict)


def test_settings_are_drawn_from_docstring_and_signature(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sample", sys.modules[__name__])
    assert hooks.on_page_markdown("before\n\n<!-- offrl: settings sample:Sample -->\n").splitlines() == [
        "before",
        "",
        '<div class="names" markdown>',
        "",
        "| `Sample` | default | meaning |",
        "| --- | --- | --- |",
        "| `rate` | `0.5` | how fast, in steps a second. |",
        "| `extras` | `{}` | a \\| b. |",
        "",
        "</div>",
    ]


def test_every_marker_on_a_page_is_replaced(hooks: ModuleType) -> None:
    for page in PAGES:
        assert "<!-- offrl:" not in hooks.on_page_markdown(page.read_text(encoding="utf-8")), page


def test_an_algorithm_costs_its_file_its_tests_its_equations_and_a_line_of_registration(hooks: ModuleType) -> None:
    """Of two of them: nothing else in the package names them."""
    for module, kind, equations in (("bve", "BVE", "follows_log, sarsa_target"), ("rem", "REM", "random_mixture")):
        table = hooks.cost(f"offrl.algorithms.{module}:{kind}")
        rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
        lines = {(file, what): int(count) for file, what, count in rows}
        own = (ROOT / "offrl" / "algorithms" / f"{module}.py").read_text(encoding="utf-8").splitlines()
        assert lines.pop((f"offrl/algorithms/{module}.py", "config and loss")) == len([*filter(None, own)]) < 100
        assert lines.pop((f"tests/algorithms/test_{module}.py", "its tests")) > 10
        assert lines.pop(("offrl/losses/", f"equations that it alone uses: {equations}")) > 5
        assert lines.pop(("docs/algorithms.md", "its section")) > 5
        assert lines == {
            ("offrl/__init__.pyi", "exports"): 2,
            ("offrl/algorithms/__init__.pyi", "exports"): 2,
            ("offrl/cli/names.py", "its name on the command line"): 1,
            ("docs/api/algorithms.md", "its page of the reference"): 1,
            ("docs/algorithms.md", "its rows"): 2,
        }


def test_every_column_of_a_table_has_a_title(hooks: ModuleType) -> None:
    heads = []
    for page in PAGES:
        lines = hooks.on_page_markdown(page.read_text(encoding="utf-8")).splitlines()
        heads += [(page.name, head) for head, rule in pairwise(lines) if re.fullmatch(r"\|( ?-+ ?\|)+", rule)]
    assert len(heads) > 40
    assert [found for found in heads if not all(title.strip() for title in found[1].strip("|").split("|"))] == []


def test_the_commands_of_all_figures_are_listed(hooks: ModuleType) -> None:
    lines = hooks.reproduce().splitlines()
    assert lines[0] == "```bash"
    assert "python -m benchmarks train --peers" in lines
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "benchmarks" / "pages").glob("*.py"))
    missing = {*re.findall(r'missing\("([^"]+)"\)', sources)}
    assert len(missing) > 15
    listed = tuple(f"{line} " for line in lines)
    assert [words for words in missing if not any(f"benchmarks {words} " in line for line in listed)] == []
    assert "python -m benchmarks same" not in lines
    assert lines[-2:] == ["python -m benchmarks readme", "```"]


def test_a_benchmark_is_drawn_from_its_file(hooks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks.results, "RESULTS", tmp_path)
    assert "This checkout has no result. Produce it with `python -m benchmarks demo`." in hooks.benchmarks()
    score = {"episodes": 2, "mean": 800.0, "interval_95": [700.0, 900.0], "median": 810.0, "finished": 1}
    result = {
        "command": "python x",
        "minutes_from_an_empty_folder": 12.34,
        "size": {"transitions": 60_000, "updates": 7_000},
        "dataset": {"episodes": 9, "mean": 500.0, "interval_95": [400.0, 600.0], "finished": 3},
        "policies": {"BCQ": {**score, "per_episode": [{"seed": 2_000_001}, {"seed": 2_000_000}]}},
        "bcq_minus_bc": {"mean": 10.0, "low": -20.0, "high": 30.0},
        "machine": {"python": "3.11", "gpu": None, "cores": 2, "processor": "Z", "versions": {"torch": "2.13.0"}},
    }
    (tmp_path / "demo" / "plots").mkdir(parents=True)
    (tmp_path / "demo" / "plots" / "scores.png").touch()
    (tmp_path / "demo" / "evaluation.json").write_text(json.dumps(result), encoding="utf-8")
    drawn = hooks.benchmarks()
    for part in (
        "| the dataset | 500.0 | 400.0 to 600.0 |  | 9 | 3 |",
        "| BCQ | 800.0 | 700.0 to 900.0 | 810.0 | 2 | 1 |",
        "**10.0**, 95 % interval -20.0 to 30.0",
        "`python x`: An earlier recipe, before the example's own was changed. 60,000 transitions, 7,000 updates. Seeds "
        "2,000,000 to 2,000,001. 12.3 minutes in total on 2 cores",
        "](benchmarks/demo/scores.png)",
    ):
        assert part in drawn


def test_the_comparison_of_frames_says_what_was_drawn_with(
    hooks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks.results, "RESULTS", tmp_path)
    ways = {"driven": {"tracks": 20, "different": {"3": [7, 8]}}}
    result = {
        "command": "python x",
        "versions": [  # a result of before the packages were recorded, and one with them
            {"gymnasium": "1.2.3", "steps": 300, "ways": ways},
            {"gymnasium": "1.4.0", "packages": {"box2d": "2.3.10", "pygame-ce": "2.5.7"}, "steps": 300, "ways": ways},
        ],
        "machine": {"python": "3.11", "gpu": None, "cores": 2, "processor": "Z", "versions": {"torch": "2.13.0"}},
    }
    (tmp_path / "identity.json").write_text(json.dumps(result), encoding="utf-8")
    assert hooks.identity().splitlines() == [
        "| Gymnasium | actions | tracks | steps on each | tracks with any difference |",
        "| --- | --- | --- | --- | --- |",
        "| 1.2.3 | driven | 20 | 300 | 1 |",
        "| 1.4.0 (box2d 2.3.10, pygame-ce 2.5.7) | driven | 20 | 300 | 1 |",
        "",
        "`python x`. 2 cores (Z); Python 3.11, torch 2.13.0.",
    ]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and references to the code included: the build is strict."""
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    pytest.importorskip("material", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    reference = (tmp_path / "site" / "api" / "algorithms" / "index.html").read_text(encoding="utf-8")
    assert 'id="offrl.algorithms.bcq.DiscreteBCQ"' in reference
    equations = (tmp_path / "site" / "algorithms" / "index.html").read_text(encoding="utf-8")
    assert 'src="../katex/katex.min.js"' in equations
    assert re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=.https?:", equations) == []  # all of it is ours

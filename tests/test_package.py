"""The package as a whole: what importing it costs, what it exports, and whether its documents tell the truth."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import ArrayLike, NDArray

import offrl
from offrl.replay import ReplaySource

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"pyarrow", "torch", "gymnasium", "matplotlib", "onnx", "onnxruntime", "imageio", "pygame", "Box2D"}
WITHOUT_TORCH = [
    "offrl.spec",
    "offrl.errors",
    "offrl.collection.collector",
    "offrl.collection.online",
    "offrl.collection.recorder",
    "offrl.shards.remote",
    "offrl.shards.arrays",
    "offrl.shards.manifest",
    "offrl.envs",
    "offrl.envs.behaviours",
    "offrl.envs.cart_pole",
    "offrl.envs.drivers",
    "offrl.evaluation.scoring",
    "offrl.evaluation._rollouts",
    "offrl.envs.seeds",
    "offrl.system.versions",
]


def run_python(*arguments: str, cwd: Path | None = None) -> str:
    """The stdout of a fresh interpreter in which every warning is an error."""
    command = [sys.executable, "-W", "error", *arguments]
    # One thread: the networks here are tiny, and threads that wait for each other crawl on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`, which prints nothing."""
    return set(run_python("-c", f"{statement}; import sys; print(*{{m.split('.')[0] for m in sys.modules}})").split())


def code_blocks(document: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_importing_offrl_loads_nothing_heavy() -> None:
    assert modules_after("import offrl") & HEAVY == set()


def test_listing_the_names_of_offrl_loads_nothing_heavy() -> None:
    assert modules_after("import offrl; dir(offrl); offrl.__version__") & HEAVY == set()


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_collection_workers_import_is_free_of_torch(module: str) -> None:
    assert "torch" not in modules_after(f"import {module}")


def test_importing_every_module_changes_no_global_state() -> None:
    program = """
import os, pkgutil, random, signal, sys, warnings
import gymnasium, imageio, matplotlib, numpy, onnx, pygame, torch, Box2D  # what these do is not our affair

def state():
    return (
        random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist(), torch.get_num_threads(),
        torch.get_default_dtype(), list(warnings.filters), signal.getsignal(signal.SIGINT),
        dict(os.environ), [*sys.path],
    )

before = state()
import offrl
names = [module.name for module in pkgutil.walk_packages(offrl.__path__, "offrl.") if "__main__" not in module.name]
for name in names:
    __import__(name)
print(len(names) > 30, *[index for index, pair in enumerate(zip(before, state())) if pair[0] != pair[1]])
"""
    assert run_python("-W", "ignore", "-c", program).splitlines()[-1] == "True"


def test_every_public_name_resolves_to_the_object_of_its_module() -> None:
    for name in offrl.__all__:
        assert getattr(offrl, name) is not None
        assert name in dir(offrl)
    assert len(set(offrl.__all__)) == len(offrl.__all__)


@pytest.mark.parametrize(
    "first",
    ["import offrl", "import offrl.training.loop, offrl.evaluation.scoring", "from offrl.training import fit"],
)
def test_functions_are_found_whatever_was_imported_first(first: str) -> None:
    program = f"{first}; import offrl; print(offrl.fit.__qualname__, offrl.evaluate.__qualname__)"
    assert run_python("-c", program).split() == ["fit", "evaluate"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute no_such_name"):
        offrl.no_such_name  # noqa: B018


def test_the_package_is_typed() -> None:
    assert files("offrl").joinpath("py.typed").is_file()


def test_the_code_in_the_readme_runs(tmp_path: Path) -> None:
    blocks = code_blocks("README.md", "python")
    assert len(blocks) == 1
    script = tmp_path / "by_hand.py"
    script.write_text(blocks[0] + "print(actions.shape, actions.dtype)\n", encoding="utf-8")
    *_, score, actions = run_python(str(script), cwd=tmp_path).splitlines()
    assert float(score.split()[0]) > 50  # a random policy scores 22
    assert actions == "(3,) int64"
    assert {"cart_pole.onnx", "data", "runs"} <= {path.name for path in tmp_path.iterdir()}


def test_the_commands_in_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from offrl.cli import main

    monkeypatch.chdir(tmp_path)
    blocks = [block for block in code_blocks("README.md", "sh") if block.startswith("offrl ")]
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert [command[0] for command in commands] == ["collect", "inspect", "train", "evaluate", "export"]
    for command in commands:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, (command, result.output)
    assert list((tmp_path / "exported").glob("*.onnx"))


@dataclass
class Bandit(ReplaySource):
    """A replay of one observation in which action 1 is rewarded, action 0 is not, and the data choose evenly."""

    spec: offrl.TaskSpec

    def __len__(self) -> int:
        return 2

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        return np.arange(batch_size) % 2

    def gather(self, indices: ArrayLike) -> offrl.Batch:
        action = torch.as_tensor(indices)
        observation = torch.ones(len(action), 2)
        return offrl.Batch(observation, action, action.float(), torch.zeros(len(action)), observation)


@pytest.fixture
def awr(tmp_path: Path) -> ModuleType:
    """The algorithm of CONTRIBUTING.md as a module."""
    blocks = code_blocks("CONTRIBUTING.md", "python")
    assert len(blocks) == 1
    path = tmp_path / "awr.py"
    path.write_text(blocks[0], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("awr", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_algorithm_of_the_contributing_page_prefers_what_was_rewarded(awr: ModuleType) -> None:
    bandit = Bandit(offrl.TaskSpec.vector(2, ("left", "right")))
    algorithm = awr.AWR(bandit.spec, awr.AWRConfig(temperature=0.5))
    config = offrl.FitConfig(updates=300, batch_size=32)
    learner = offrl.fit(
        algorithm, bandit, config, learner=offrl.LearnerConfig(learning_rate=1e-3), loggers=[], device="cpu"
    )
    with torch.no_grad():
        probability = learner.snapshot()(torch.ones(1, 2)).logits.softmax(dim=1)[0, 1].item()
    # The value settles at 0.5, the weights at exp(1) and exp(-1): the odds are exp(2) to 1.
    assert probability == pytest.approx(0.881, abs=0.02)


def test_the_algorithm_of_the_contributing_page_checks_its_settings(awr: ModuleType) -> None:
    with pytest.raises(offrl.OfflineRLError, match=re.escape("AWRConfig.temperature: 0; expected a positive number")):
        awr.AWRConfig(temperature=0)

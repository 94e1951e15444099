"""Every example runs, in a tiny size, in an empty directory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from safetensors.torch import load_file

from offrl import Batch, OnnxPolicy, TaskSpec, open_replay
from offrl.evaluation import Evaluation

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = EXAMPLES / "carracing_bcq.ipynb"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the examples share, as a user's clone: what one collected, another finds."""
    return tmp_path_factory.mktemp("workplace")


def test_cartpole_learns_and_its_file_acts_alike(workplace, monkeypatch, capsys) -> None:
    monkeypatch.chdir(workplace)
    evaluation = example("cartpole", monkeypatch).main(transitions=4_000, updates=500, episodes=5)
    assert evaluation.mean.mean > 50  # a random policy scores 22
    assert (workplace / "runs/cartpole-001/bcq.onnx").is_file()
    assert "0 of 1064 actions differ" in capsys.readouterr().out


def test_the_bare_loop_learns_without_fit_and_learner(workplace, monkeypatch) -> None:
    source = (EXAMPLES / "bare_loop.py").read_text(encoding="utf-8")
    assert not {"fit", "Learner"} & {name for line in source.splitlines() if "import" in line for name in line.split()}
    monkeypatch.chdir(workplace)
    score = example("bare_loop", monkeypatch).main(transitions=4_000, updates=500, episodes=5)
    assert score > 50  # a random policy scores 22


def test_own_data_is_the_same_in_both_layouts_and_worth_more_than_its_makers(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = example("own_data", monkeypatch)
    data, stacked, frames = module.main(num_games=500, updates=500).values()
    assert data < 0.25  # played at random: a sixth
    assert min(stacked, frames) > 0.4
    batches = [
        open_replay(Path("data/catch") / layout, spec=module.SPEC).gather(range(500 * 5))
        for layout in ("stacked", "frames")
    ]
    for name in ("observation", "action", "reward", "discount", "next_observation"):
        assert torch.equal(*(getattr(batch, name) for batch in batches))


def test_the_stacks_of_own_data_begin_with_the_first_frame_repeated(monkeypatch) -> None:
    frames = np.arange(3, dtype=np.uint8).reshape(3, 1, 1)
    assert example("own_data", monkeypatch).stacks(frames).squeeze().tolist() == [[0, 0], [0, 1], [1, 2]]


def test_logged_decisions_become_a_file_that_earns_more_and_keeps_to_what_is_allowed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    logged, learned = example("logged_decisions", monkeypatch).main(num_customers=1_000, updates=100).values()
    assert learned > logged + 3
    policy = OnnxPolicy("data/logged-decisions/decisions.onnx")
    only_visit = np.arange(6) == 5
    assert policy(np.zeros((1, 20), np.float32), only_visit[None]).tolist() == [5]


def test_the_table_of_logged_decisions_is_the_same_in_parquet_and_csv(tmp_path, monkeypatch) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra tables")
    module = example("logged_decisions", monkeypatch)
    log = list(module.campaign(module.habits, 20, seed=0))
    for kind in ("parquet", "csv"):
        monkeypatch.setattr(module, "find_spec", lambda name, kind=kind: kind == "parquet" or None)
        table = module.write_table(log, tmp_path / "log")
        assert table.suffix == f".{kind}"
        module.convert(table, tmp_path / kind, "frames", columns=module.COLUMNS, progress=False)
    shards = [(tmp_path / kind / "shard-00000.npz").read_bytes() for kind in ("parquet", "csv")]
    assert shards[0] == shards[1]


def test_the_custom_encoder_is_trained_saved_loaded_and_exported(workplace, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    check = example("custom_encoder", monkeypatch).main(updates=3)
    assert check.num_observations == 264
    weights = load_file("runs/custom-encoder-001/checkpoints/step-000000003/policy.safetensors")
    assert weights["encoder.place"].abs().max() > 0  # it began as zeros


def test_the_custom_algorithm_imitates_what_beats_its_own_average(monkeypatch) -> None:
    module = example("custom_algorithm", monkeypatch)
    crr = module.CRR(TaskSpec.vector(2, ("left", "right")))
    for head, output in ((crr.q_head, (1.0, 3.0)), (crr.target_q_head, (1.0, 3.0)), (crr.policy_head, (0.0, 0.0))):
        torch.nn.init.zeros_(head.output.weight)
        head.output.bias.data = torch.tensor(output)
    observation, discount = torch.ones(2, 2), torch.full((2,), 0.5)
    # The policy's average q is 2, so the targets are 0 + 0.5 * 2 = q(left) and 4 + 0.5 * 2 = q(right) + 2.
    batch = Batch(observation, torch.tensor([0, 1]), torch.tensor([0.0, 4.0]), discount, observation)
    loss, metrics = crr.loss(batch)
    assert metrics["td_loss"].item() == pytest.approx((0 + 1.5) / 2)  # Huber: 2 - 0.5
    assert metrics["imitated"].item() == 0.5  # right alone: 3 > 2
    assert loss.item() == pytest.approx(0.75 + np.log(2) / 2)


def test_the_custom_algorithm_learns_beside_behaviour_cloning(workplace, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    evaluations = example("custom_algorithm", monkeypatch).main(transitions=4_000, updates=500, episodes=5)
    assert evaluations.keys() == {"crr", "bc"}
    assert evaluations["crr"].mean.mean > 50  # a random policy scores 22


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_with_the_outputs_of_one_run_from_top_to_bottom() -> None:
    cells = cells_of(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    shown = [output["data"] for cell in cells for output in cell["outputs"] if "data" in output]
    assert sum("image/png" in data for data in shown) == 5
    assert sum("data:video/mp4;base64," in "".join(data.get("text/html", "")) for data in shown) == 1
    assert NOTEBOOK.stat().st_size < 10_000_000


@pytest.mark.parametrize("clone", ["", "repository", "repository/examples"])
def test_the_first_cell_of_the_notebook_installs_a_clone_that_is_near(clone: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "repository" / "offrl").mkdir(parents=True)
    (tmp_path / "repository" / "examples").mkdir()
    monkeypatch.chdir(tmp_path / clone)
    cell = TransformerManager().transform_cell("".join(cells_of(NOTEBOOK)[0]["source"]))
    asked: list[tuple[str, str]] = []
    notebook = SimpleNamespace(run_line_magic=lambda *words: asked.append(words))
    names: dict[str, Any] = {"get_ipython": lambda: notebook}
    exec(cell, names)
    assert asked == []  # it is installed here

    monkeypatch.setattr(importlib.metadata, "distribution", not_installed)
    with pytest.raises(FileNotFoundError, match="no clone of offrl's repository"):
        exec(cell, names)

    (tmp_path / "repository" / "offrl" / "_version.py").touch()
    exec(cell, names)
    [(magic, arguments)] = asked
    assert f"{magic} {arguments.format(**names)}" == f'pip install --quiet "{tmp_path / "repository"}[demo]"'


def not_installed(name: str) -> None:
    raise importlib.metadata.PackageNotFoundError(name)


def test_the_notebook_runs_from_top_to_bottom_and_shows_plots_and_a_video(workplace) -> None:
    program = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""
    environment = {
        **os.environ,
        "OFFRL_NOTEBOOK_FAST": "1",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(workplace / "ipython"),
        "JUPYTER_CONFIG_DIR": str(workplace / "jupyter"),
    }
    command = [sys.executable, "-c", program, str(NOTEBOOK)]
    finished = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    outputs = [output for cell in cells_of(workplace / "executed.ipynb") for output in cell["outputs"]]
    shown = [output["data"] for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 5
    assert sum("data:video/mp4;base64," in "".join(data.get("text/html", "")) for data in shown) == 1
    said = "".join("".join(output.get("text", "")) for output in outputs)
    assert "(100 %)" in said
    assert ": score " in said
    assert "BCQ - BC, track by track" in said
    assert "actions differ from torch's" in said


def test_the_table_of_the_demo_says_which_draw_it_is(monkeypatch) -> None:
    module = example("carracing_bcq", monkeypatch)
    seeds, lengths, finished = tuple(range(5)), (700,) * 5, (True,) * 5
    evaluations = {
        name: Evaluation(seeds, (score,) * 5, lengths, finished) for name, score in (("BC", 890.0), ("BCQ", 922.6))
    }
    dataset = {"mean": 477.0, "interval_95": [400.0, 560.0], "episodes": 68, "finished": 17}
    table = module.report(dataset, evaluations, (5, 885, 906))
    assert "BCQ - BC, paired by seed: +32.6" in table
    assert table.endswith("\n(one training run of each; on these tracks 5 other runs of BCQ scored 885 to 906)")
    assert module.report(dataset, evaluations, None).endswith("another seed scores differently)")

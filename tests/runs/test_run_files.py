"""A file of a run that was exchanged for another run's is whole, and is refused all the same."""

import json
import shutil

import pytest
from toy_replay import ToyReplay

from offrl import TaskSpec
from offrl.algorithms import BC
from offrl.errors import RunError
from offrl.hub import load, publish
from offrl.report import read_metrics, score_table
from offrl.runs import checkpoints, latest_checkpoint, read_run_config
from offrl.runs.files import read_run_json, write_run_json
from offrl.system.json_files import read_json
from offrl.training import FitConfig, LearnerConfig, fit

SPEC = TaskSpec.vector(3, ("left", "right", "stay"))


class SeededReplay(ToyReplay):
    def __init__(self, seed):
        super().__init__(SPEC, seed)
        self.seed = seed

    def settings(self):
        return {"seed": self.seed}


def train(run, seed=0, updates=4, **options):
    learner = LearnerConfig(precision="fp32", compile="off")
    config = FitConfig(updates=updates, batch_size=8, log_period=1, checkpoint_period=2)
    fit(BC(SPEC, seed=seed), SeededReplay(seed), config, learner=learner, run=run, loggers=[], device="cpu", **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """run-0 and run-1, of other seeds, with their scores."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        train(root / f"run-{seed}", seed)
        rows = [{"seed": episode, "score": 10.0 * seed, "length": 5} for episode in range(5)]
        write_run_json(root / f"run-{seed}", "evaluation.json", {"mean": 10.0 * seed, "per_episode": rows})
    return root


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs" / "run-0"


def exchange(run, name):
    """Puts the file or directory of the other run in the place of this one's."""
    other = run.with_name("run-1") / name
    if other.is_dir():
        shutil.rmtree(run / name)
        shutil.copytree(other, run / name)
    else:
        shutil.copyfile(other, run / name)


def unseal(path):
    """As somebody does who changes a file by hand."""
    found = json.loads(path.read_text())
    for name in ("sealed", "content_sha256"):
        del found[name]
    path.write_text(json.dumps(found))


def test_the_settings_of_another_run_are_refused_wherever_they_are_read(run, tmp_path):
    exchange(run, "config.json")
    line = r"config\.json: is not the one that step-000000004 was made with; .*restore the one that was exchanged"
    for use in (
        lambda: load(run),
        lambda: score_table(run),
        lambda: publish(run, tmp_path / "published"),
        lambda: train(run, seed=1, updates=6, resume=True),
    ):
        with pytest.raises(RunError, match=line):
            use()
    assert [path.name for path in checkpoints(run / "checkpoints")][-1] == "step-000000004"  # none was set aside


def test_another_runs_checkpoint_is_refused_and_resuming_passes_over_it(run):
    exchange(run, "checkpoints/step-000000004")
    with pytest.raises(RunError, match=r"is not the one that step-000000004 was made with"):
        load(run)
    load(run / "checkpoints" / "step-000000002")
    with pytest.warns(UserWarning, match="it is of another run: .* goes on from update 2"):
        train(run, resume=True)
    train(run.with_name("whole"))
    for name in ("policy.safetensors", "seal.json"):
        last = latest_checkpoint(run / "checkpoints") / name
        assert last.read_bytes() == (run.with_name("whole") / last.relative_to(run)).read_bytes()


@pytest.mark.parametrize("name", ["evaluation.json", "environment.json"])
def test_what_is_told_of_another_run_is_refused(run, name):
    score_table(run)
    exchange(run, name)
    with pytest.raises(RunError, match=rf"{name}: is of another run"):
        score_table(run)


@pytest.mark.parametrize("name", ["evaluation.json", "environment.json"])
def test_a_changed_digit_is_noticed_and_a_change_on_purpose_taken(run, name):
    path = run / name
    content = path.read_text()
    path.write_text(content.replace("0", "1", 1))
    with pytest.raises(RunError, match=rf"{name}: damaged \(it was changed .*take its lines sealed and content_sha256"):
        score_table(run)
    path.write_text(content)
    unseal(path)
    score_table(run)
    assert read_run_json(run, "no.json") == {}


def test_settings_that_were_changed_on_purpose_are_taken_and_stay_unsealed(run):
    unseal(run / "config.json")
    found = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**found, "settled": {"precision": "fp32", "compile": "off"}}))
    load(run)
    train(run, updates=6, resume=True)
    assert "sealed" not in json.loads((run / "config.json").read_text())
    load(run)
    assert score_table(run).to_dict()


def test_a_longer_run_is_the_same_run(run):
    before = read_json(run / "environment.json")["run_sha256"]
    train(run, updates=6, resume=True)
    assert read_run_config(run)["fit"]["updates"] == 6
    seals = [read_json(path / "seal.json")["run"] for path in checkpoints(run / "checkpoints")]
    assert {*seals} == {before}
    assert len(seals) == 4
    score_table(run)


def test_seals_of_before_there_were_identities_are_taken(run):
    for path in checkpoints(run / "checkpoints"):
        seal = read_json(path / "seal.json")
        del seal["run"]
        (path / "seal.json").write_text(json.dumps(seal))
    exchange(run, "config.json")
    load(run)


def test_a_published_folder_is_a_run_of_its_own(run, tmp_path):
    published = publish(run, tmp_path / "published")
    load(published)
    assert score_table(published).to_dict() == score_table(run).to_dict()
    other = publish(run.with_name("run-1"), tmp_path / "other")
    shutil.copyfile(other / "model.onnx", published / "model.onnx")
    with pytest.raises(RunError, match=r"model\.onnx: damaged \(it was changed since it was written: seal\.json"):
        load(published / "model.onnx")
    shutil.copyfile(other / "metrics.csv", published / "metrics.csv")
    with pytest.raises(RunError, match="was changed since logs.json was made"):
        read_metrics(published / "metrics.csv")
    shutil.copyfile(other / "config.json", published / "config.json")
    with pytest.raises(RunError, match="is not the one that step-000000004 was made with"):
        load(published)


def test_checkpoints_are_ordered_by_their_update_also_where_its_number_has_more_digits(tmp_path):
    for name in ("step-1000000000", "step-000000007", "step-999999999", "step-000000007.damaged", "best"):
        (tmp_path / name).mkdir()
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["step-000000007", "step-999999999", "step-1000000000"]

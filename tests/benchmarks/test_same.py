"""What the comparison of two revisions finds, and what it says of it."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from click.testing import CliRunner


@pytest.fixture
def sides(tmp_path):
    """Two equal folders of items, one of each kind."""
    from benchmarks.same_runs import Items

    folders = []
    for side in ("this", "other"):
        items = Items(tmp_path / side / "items")
        items.array("batches/reward", np.array([[1.0, np.nan], [-0.0, 4.0]], np.float32))
        items.array("runs/bcq/step-000000002/weight", torch.tensor([1.0, 2.0], dtype=torch.bfloat16))
        items.values("scores/greedy", {"mean": 21.5, "lengths": [21, 22]})
        items.array("resumed/bcq/step-000000002/weight", torch.tensor([1.0, 2.0], dtype=torch.bfloat16))
        items.values("information/runs/bcq", {"encoder": "MLPEncoder"})
        folders.append(items.root)
    return folders


def found(sides, declared=None):
    """(item, what differs, declared reason) of each difference, whatever its kind."""
    from benchmarks.same import compare

    comparison = compare(*sides, declared or {})
    return {
        kind: [(each.item, each.what, each.reason) for each in getattr(comparison, kind)]
        for kind in ("different", "declared", "information")
        if getattr(comparison, kind)
    }


def rewrite(path, position, value):
    array = np.load(path)
    array[position] = value
    np.save(path, array)


def test_equal_folders_have_no_difference(sides):
    assert found(sides) == {}


def test_one_changed_value_is_found_where_it_is(sides):
    rewrite(sides[0] / "batches" / "reward.npy", (1, 1), 4.5)
    what = "1 of 4 values, first at [1, 1]: 4.5, was 4.0; largest difference 0.5"
    assert found(sides) == {"different": [("batches/reward.npy", what, None)]}
    rewrite(sides[0] / "batches" / "reward.npy", (0, 1), 0)
    rewrite(sides[1] / "batches" / "reward.npy", (0, 1), 0.25)
    what = "2 of 4 values, first at [0, 1]: 0.0, was 0.25; largest difference 0.5"
    assert found(sides) == {"different": [("batches/reward.npy", what, None)]}


def test_bytes_count_where_values_are_equal(sides):
    rewrite(sides[0] / "batches" / "reward.npy", (1, 0), 0.0)
    ((_, what, _),) = found(sides)["different"]
    assert what == "1 of 4 values, first at [1, 0]: 0.0, was -0.0; largest difference 0"


def test_another_type_or_shape_is_a_difference(sides):
    np.save(sides[0] / "batches" / "reward.npy", np.zeros((2, 2)))
    ((_, what, _),) = found(sides)["different"]
    assert what == "float64 [2, 2], was float32 [2, 2]"


def test_of_text_the_first_line_is_shown_and_of_other_files_the_first_byte(sides):
    text = json.loads((sides[0] / "scores" / "greedy.json").read_text())
    (sides[0] / "scores" / "greedy.json").write_text(json.dumps({**text, "lengths": [21, 23]}, indent=1) + "\n")
    for side, content in zip(sides, (b"abcd", b"abXdef"), strict=True):
        (side / "shards").mkdir()
        (side / "shards" / "shard.npz").write_bytes(content)
    assert found(sides)["different"] == [
        ("scores/greedy.json", "line 5: 23, was 22", None),
        ("shards/shard.npz", "from byte 2 on; 4 bytes, were 6", None),
    ]


def test_a_file_that_one_side_lacks_is_a_difference(sides):
    (sides[0] / "batches" / "reward.npy").unlink()
    (sides[1] / "scores" / "greedy.json").unlink()
    assert found(sides)["different"] == [
        ("batches/reward.npy", "only the other revision has it", None),
        ("scores/greedy.json", "only this checkout has it", None),
    ]


def test_what_is_declared_is_listed_apart_with_its_reason(sides):
    rewrite(sides[0] / "batches" / "reward.npy", (1, 1), 4.5)
    (sides[0] / "scores" / "greedy.json").unlink()
    kinds = found(sides, {"scores/gre*": "a score less", "batches/*/reward.npy": "another item"})
    assert [(item, reason) for item, _, reason in kinds["declared"]] == [("scores/greedy.json", "a score less")]
    assert [item for item, _, _ in kinds["different"]] == ["batches/reward.npy"]


def test_a_resumed_run_is_compared_with_the_one_that_never_stopped(sides):
    from benchmarks.same import unlike_never_stopped

    assert unlike_never_stopped(sides[0]) == ()
    rewrite(sides[0] / "resumed" / "bcq" / "step-000000002" / "weight.npy", 1, 0)
    (difference,) = unlike_never_stopped(sides[0])
    assert difference.item == "resumed/bcq/step-000000002/weight.npy"
    assert "1 of 2 values, first at [1]" in difference.what


@pytest.fixture
def command(sides, tmp_path, monkeypatch):
    """The command, which takes the two folders for what the runs left."""
    from benchmarks import same

    @contextmanager
    def checkout(revision, folder):
        yield folder

    def make_runs(trees, folder):
        for side in trees:
            shutil.copytree(sides[0].parents[1] / side, folder / side)
        return dict.fromkeys(trees, 1.0)

    monkeypatch.setattr(same, "checkout", checkout)
    monkeypatch.setattr(same, "make_runs", make_runs)
    monkeypatch.setattr(same, "_git", lambda *arguments: "0123456789abcdef")
    monkeypatch.setattr(same, "RESULTS", tmp_path / "same.json")
    monkeypatch.setattr(same, "DECLARED", {"scores/*": "rounded"})
    return lambda: CliRunner().invoke(same.same, ["HEAD~1"])


def test_the_command_passes_where_all_is_the_same_or_declared(command, sides, tmp_path):
    (sides[0] / "scores" / "greedy.json").write_text("{}\n")
    (sides[0] / "information" / "runs" / "bcq.json").write_text("{}\n")
    result = command()
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == (
        "5 items in 1 seconds: but for 1 that were meant to change, every byte is the same"
    )
    assert "scores/greedy.json: line 1: {}, was { (rounded)" in result.output
    written = json.loads((tmp_path / "same.json").read_text())
    assert written["command"] == "python -m benchmarks same HEAD~1"
    assert written["parts"]["scores"] == {"items": 1, "different": 0, "declared": 1}
    assert written["different"] == []
    assert [each["reason"] for each in written["changed_on_purpose"]] == ["rounded"]
    assert len(written["information"]) == 1


def test_the_command_fails_where_a_byte_differs(command, sides):
    rewrite(sides[0] / "runs" / "bcq" / "step-000000002" / "weight.npy", 0, 1)
    result = command()
    assert result.exit_code == 1
    # The weight itself, and the resumed run, which is no longer like the one that never stopped.
    assert result.output.splitlines()[-1] == "5 items in 1 seconds: 2 differ"


def test_runs_that_fail_are_not_compared(tmp_path, monkeypatch):
    from benchmarks import same

    monkeypatch.setattr(same, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "same_runs.py").write_text("import sys\nsys.exit('other' in sys.argv[1])\n")
    with pytest.raises(SystemExit, match="the runs of other failed"):
        same.make_runs({"this": tmp_path / "this", "other": tmp_path / "other"}, tmp_path / "results")


def test_every_name_that_the_runs_ask_for_is_found_in_this_checkout():
    from benchmarks import same_runs

    for name in same_runs._PLACES:
        assert same_runs.find(name) is not None


def test_a_name_that_a_revision_lacks_is_an_error_that_says_where_it_was_sought(monkeypatch):
    from benchmarks import same_runs

    monkeypatch.setitem(same_runs._PLACES, "fit", ("offrl:unknown", "offrl.nowhere:fit"))
    with pytest.raises(LookupError, match=r"fit at none.*offrl:unknown .*; offrl\.nowhere:fit \(No module"):
        same_runs.find("fit")

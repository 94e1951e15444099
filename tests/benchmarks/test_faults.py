"""The parts of `benchmarks faults` that could be wrong: what counts as an event, what is compared, how it is judged."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest


@pytest.fixture
def parts():
    from benchmarks.faulting import events, processes, trees, tries

    if not sys.platform.startswith("linux") or not events.are_seen():
        pytest.skip("file events cannot be watched here")
    return events, processes, trees, tries


@pytest.fixture
def run(parts, tmp_path, monkeypatch):
    """Runs a function in place of `offrl`, in a fork whose events below tmp_path/work are watched."""
    _, processes, _, _ = parts
    (tmp_path / "work").mkdir()

    def run(function, **disturbance):
        monkeypatch.setattr(processes, "run_here", lambda arguments: function() or 0)
        running = processes.Running([], tmp_path / "work", tmp_path / "log", watched=True)
        return running.wait(processes.Disturbance(**disturbance))

    return run


def write_one_and_rename_it():
    Path("folder").mkdir()
    with Path("folder/.0123456789ab.partial").open("wb", buffering=0) as file:
        file.write(b"one")
        file.write(b"two")
        os.fsync(file.fileno())
    Path("folder/.0123456789ab.partial").replace("folder/whole")
    assert Path("folder/whole").read_bytes() == b"onetwo"  # reading is no event


EVENTS = [
    ("mkdir", "folder"),
    ("open", "folder/.*.partial"),
    ("write", "folder/.*.partial"),
    ("write", "folder/.*.partial"),
    ("fsync", "folder/.*.partial"),
    ("rename", "folder/whole"),
]


def test_every_event_is_seen_in_its_order_and_changes_nothing(run, tmp_path):
    ended = run(write_one_and_rename_it)
    assert (ended.code, ended.events, ended.disturbed) == (0, EVENTS, False), ended.output
    assert (tmp_path / "work" / "folder" / "whole").read_bytes() == b"onetwo"


def test_what_happens_outside_is_no_event(run, tmp_path):
    ended = run(lambda: (tmp_path / "elsewhere").write_text("text") and None)
    assert (ended.code, ended.events) == (0, [])
    assert (tmp_path / "elsewhere").read_text() == "text"


def test_a_kill_comes_in_front_of_its_event(run, tmp_path):
    ended = run(write_one_and_rename_it, event=4)
    assert (ended.code, ended.events, ended.disturbed) == (-signal.SIGKILL, EVENTS[:4], True)
    (partial,) = (tmp_path / "work" / "folder").iterdir()
    assert partial.read_bytes() == b"one"


def test_one_event_fails_and_the_process_goes_on(run, tmp_path):
    def synchronise():
        try:
            write_one_and_rename_it()
        except OSError as error:
            print(errno.errorcode[error.errno])
            return 2

    ended = run(synchronise, event=5, error=errno.ENOSPC)
    assert (ended.code, ended.output, ended.events) == (2, "ENOSPC\n", EVENTS[:5])
    assert not (tmp_path / "work" / "folder" / "whole").exists()


def test_trees_are_compared_by_content(parts, tmp_path):
    _, _, trees, _ = parts
    for name, content in (("one", "same"), ("other", "same")):
        (tmp_path / name / "folder").mkdir(parents=True)
        (tmp_path / name / "folder" / "file").write_text(content)
        (tmp_path / name / "time.csv").write_text(name)
        (tmp_path / name / "link").symlink_to("folder")
    one, other = (trees.read_tree(tmp_path / name, ["*.csv"]) for name in ("one", "other"))
    assert sorted(one) == ["folder", "folder/file", "link"]
    assert not trees.compare(other, one)
    (tmp_path / "other" / "folder" / "file").write_text("Same")
    (tmp_path / "other" / "link").unlink()
    (tmp_path / "other" / "folder" / ".litter").touch()
    found = trees.compare(trees.read_tree(tmp_path / "other", ["*.csv"]), one)
    assert found == (("link",), ("folder/file",), ("folder/.litter",))
    assert found.to_text() == "missing link, changed folder/file, left folder/.litter"


MACHINE = {"processor": "<Abacus>", "cores": 1, "python": "3.11", "gpu": None, "versions": {"torch": "2.13.0"}}
REFUSED = (2, "warning: odd\nerror: run: is in use\n")


@pytest.mark.parametrize(
    ("first", "again", "difference", "outcome"),
    [
        ([(-9, "")], [(0, "")], ((), (), ()), "equal"),
        ([(0, "")], [], ((), (), ()), "equal"),
        ([REFUSED], [(0, "")], ((), (), ()), "refused"),
        ([(0, ""), REFUSED], [], ((), (), ()), "refused"),
        ([(-9, "")], [REFUSED, (0, "")], ((), (), ()), "refused"),
        ([(-9, "")], [REFUSED], ((), (), ()), "refused"),
        ([(-9, "")], [REFUSED, REFUSED], (("run",), (), ()), "stuck"),
        ([(None, "")], [(0, "")], ((), (), ()), "stuck"),
        ([(0, "")], [], (("run",), ("file",), ()), "lost"),
        ([(0, "")], [], ((), ("file",), (".partial",)), "wrong"),
        ([(-9, "")], [(0, "")], ((), (), (".partial",)), "litter"),
        ([(1, "Traceback (most recent call last):")], [(0, "")], ((), (), ()), "traceback"),
        ([(2, "error: one\nerror: two\n")], [(0, "")], ((), (), ()), "traceback"),
        ([(-11, "")], [(0, "")], ((), (), ()), "traceback"),
    ],
)
def test_the_worst_that_is_true_is_the_outcome(parts, first, again, difference, outcome):
    _, processes, trees, tries = parts
    ended = [[processes.Ended(code, output, seconds=1) for code, output in each] for each in (first, again)]
    assert tries.judge(*ended, trees.Difference(*difference)) == outcome


def test_the_results_are_drawn(parts, hooks, tmp_path):
    from benchmarks import faults

    outcomes = [parts[3].Outcome("train", "kills", "after 1 s", outcome) for outcome in ("equal", "equal", "lost")]
    rows = faults._rows(outcomes)
    assert rows == {"train": {"kills": {"equal": 2, "lost": 1}}}
    assert faults._table(rows).splitlines()[1].split() == ["train", "kills", "3", "2", "0", "0", "0", "1", "0", "0"]
    names = {name: what for name, (what, _) in parts[3].FAULTS.items()}
    kept = {"command": "c", "rows": rows, "faults": names, "outcomes": parts[3].OUTCOMES, "machine": MACHINE}
    (tmp_path / "faults.json").write_text(json.dumps({**kept, "not_possible_here": {"power": "no root"}}))
    drawn = hooks.faults()
    assert "| train | killed at a random moment | 3 | 2 | 0 | 0 | 0 | 1 | 0 | 0 |" in drawn
    assert "Not possible there: power cut at a file event: no root." in drawn


@pytest.mark.parametrize(
    ("code", "output", "seconds", "megabytes", "outcome"),
    [
        (2, "error: it is no zip\n", 1.9, 499, "refused"),
        (2, "error: it is no zip\n", 2.1, 0, "stuck"),
        (2, "error: it is no zip\n", 0.1, 501, "stuck"),
        (None, "", 60.0, 0, "stuck"),
        (0, "", 0.1, 0, "wrong"),
        (1, "Traceback (most recent call last):\nMemoryError\n", 0.1, 0, "traceback"),
    ],
)
def test_hostile_files_are_refused_within_limits(parts, code, output, seconds, megabytes, outcome):
    from benchmarks.faulting.limits import judge_limits

    ended = parts[1].Ended(code, output, seconds, peak=(300 + megabytes) * 10**6)
    assert judge_limits(ended, shared=300 * 10**6)[0] == outcome


def test_a_hostile_file_may_change_nothing_beside_its_directory(parts, tmp_path, monkeypatch):
    from benchmarks.faulting import limits

    def leave_a_file():
        print("error: it is no zip")
        if (tmp_path / "work" / "in" / "archive").read_bytes() == b"<html>":
            Path("../elsewhere").touch()
        return 2

    names = ("archive: a web page", "archive: nothing")
    found = {name: limits.hostile_cases()[name] for name in names}
    monkeypatch.setattr(limits, "hostile_cases", lambda: found)
    monkeypatch.setattr(parts[1], "run_here", lambda arguments: 0 if arguments == ["version"] else leave_a_file())
    bench = parts[3].Bench(tmp_path / "work", tmp_path / "log", None)
    bench.work.mkdir()
    outcomes = [*limits.hostile_tries(bench)]
    assert [(each.at, each.outcome) for each in outcomes] == [(names[0], "wrong"), (names[1], "refused")]
    assert outcomes[0].detail == "left elsewhere, outside"


@pytest.fixture
def lanes(parts, tmp_path, monkeypatch):
    """Does tasks in two processes, without operations."""
    from benchmarks.faulting import lanes

    monkeypatch.setattr(lanes, "make_operations", lambda *_: {})

    folders = (tmp_path / f"lanes-{number}" for number in range(9))

    def make(tasks):
        return lanes.Lanes(tasks, 2, next(folders), "", names=(), settings={"kills": 1}, seed=0, watched=False)

    return make


def test_tasks_are_shared_and_what_is_random_in_them_does_not_depend_on_who_does_them(parts, lanes):
    def tries(bench, made):
        assert bench.work.is_dir()
        for _ in range(2):
            yield parts[3].Outcome("train", "kills", str(bench.random.random()), "equal")

    def impossible(bench, made):
        raise PermissionError(1, "no root")
        yield

    tasks = [*(("train", fault, tries) for fault in "abcde"), ("train", "power", impossible)]
    done = lanes(tasks)
    found = sorted(each.at for each in done)
    assert len({*found}) == len(found) == 10
    assert done.cannot == {"power": "PermissionError: [Errno 1] no root"}
    assert sorted(each.at for each in lanes(tasks[::-1])) == found


def test_a_lane_that_fails_ends_them_all(parts, lanes, capfd):
    def fail(bench, made):
        raise RuntimeError("not the same twice")
        yield

    with pytest.raises(RuntimeError, match="a lane ended with exit code 1"):
        list(lanes([("train", "kills", fail)]))
    assert "not the same twice" in capfd.readouterr().err

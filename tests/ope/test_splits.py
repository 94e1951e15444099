import pytest

from offrl.errors import ConfigError, RunError
from offrl.ope import Split, shared_split, split_on
from offrl.runs.files import read_run_config, write_run_config


def run(folder, name, *, dataset="frames-1", init=None, **replay):
    directory = folder / name
    directory.mkdir()
    write_run_config(
        directory, {"replay": {"held_out": 0.1, "split_seed": 4, **replay}, "dataset": dataset, "init": init}
    )
    return directory


def test_runs_of_one_split_share_it(tmp_path):
    runs = [run(tmp_path, "a", seed=0), run(tmp_path, "b", seed=1, n_step=5)]
    assert shared_split(runs) == Split(held_out=0.1, split_seed=4, dataset="frames-1")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"held_out": 0.0}, r"b: was trained on all episodes; expected a run with held-out episodes"),
        ({"held_out": 0.2}, r"b: holds out other episodes \(held_out=0.2, split_seed=4\); expected held_out=0.1 and"),
        ({"split_seed": 5}, r"b: holds out other episodes \(held_out=0.1, split_seed=5\)"),
        ({"part": "held_out"}, r"b: was trained on the held-out episodes themselves"),
        ({"dataset": "frames-2"}, r"b: was trained on the data frames-2; expected frames-1, as .*a was"),
        ({"dataset": None}, r"b: does not say on which data it was trained"),
    ],
)
def test_what_would_leak_is_refused_in_a_line(tmp_path, other, message):
    first = run(tmp_path, "a")
    with pytest.raises(ConfigError, match=message) as caught:
        shared_split([first, run(tmp_path, "b", **other)])
    assert "\n" not in str(caught.value)


def test_first_weights_may_leak_too(tmp_path):
    def begun_from(name, origin):
        return run(tmp_path, name, init=str(origin / "checkpoints" / "step-000000010"))

    on_all = run(tmp_path, "on-all", held_out=0.0)
    middle = begun_from("middle", on_all)
    with pytest.raises(ConfigError, match="on-all: was trained on all episodes"):
        shared_split([begun_from("last", middle)])
    elsewhere = run(tmp_path, "elsewhere", held_out=0.0, dataset="frames-9")
    assert shared_split([begun_from("transferred", elsewhere)]).split_seed == 4  # of other data: nothing leaks
    with pytest.warns(UserWarning, match=r"lost: its first weights are from .*gone.*is not known"):
        shared_split([begun_from("lost", tmp_path / "gone")])


def test_a_relative_path_to_first_weights_is_of_a_directory_above_the_run(tmp_path, monkeypatch):
    """As runs recorded it before: today's directory has nothing to do with it, and may have a run of that name."""
    for name in ("then", "today", "empty"):
        (tmp_path / name / "runs").mkdir(parents=True)
    on_all = run(tmp_path / "then" / "runs", "first", held_out=0.0)
    (on_all / "checkpoints").mkdir()
    apart = run(tmp_path / "today" / "runs", "first")
    (apart / "checkpoints").mkdir()
    last = run(tmp_path / "then" / "runs", "last", init="runs/first/checkpoints/step-000000010")
    for today in ("then", "today", "empty"):
        monkeypatch.chdir(tmp_path / today)
        with pytest.raises(ConfigError, match="then/runs/first: was trained on all episodes"):
            shared_split([last])
    moved = run(tmp_path, "moved", init="runs/first/checkpoints/step-000000010")
    monkeypatch.chdir(tmp_path / "today")
    with pytest.warns(UserWarning, match=r"moved: its first weights are from runs/first/.*which is not there: .*known"):
        assert shared_split([moved]).split_seed == 4
    monkeypatch.chdir(tmp_path / "then" / "runs")
    assert shared_split(["../../today/runs/first"]).held_out == 0.1  # a run itself is named from here


@pytest.mark.parametrize("runs", [[], (), "runs/first"])
def test_no_list_of_runs_is_refused(runs):
    with pytest.raises(ConfigError, match=r"shared_split.runs: .*expected a list of one or more runs' directories"):
        shared_split(runs)


@pytest.mark.parametrize(
    "replay", [None, [], {"held_out": "0.1"}, {"held_out": True}, {"held_out": 0.1, "split_seed": 1.5}]
)
def test_a_damaged_config_is_named(tmp_path, replay):
    write_run_config(tmp_path, {"replay": replay, "dataset": "frames-1"})
    with pytest.raises(RunError, match="config.json: replay is "):
        shared_split([tmp_path])


def test_data_that_only_the_first_weights_have_seen_keep_their_split(tmp_path):
    first = run(tmp_path, "first", dataset="frames-2", held_out=0.3)
    last = run(tmp_path, "last", init=str(first / "checkpoints" / "step-000000010"))
    assert split_on(last, "frames-1")[0] == Split(held_out=0.1, split_seed=4, dataset="frames-1")
    assert split_on(last, "frames-2")[0] == Split(held_out=0.3, split_seed=4, dataset="frames-2")
    split, (said,) = split_on(last, "frames-3")
    assert split is None
    assert said.startswith("The run was trained on other data: ")
    on_all = run(tmp_path, "on-all", held_out=0.0, dataset="frames-3")
    after = run(tmp_path, "after", init=str(on_all / "checkpoints" / "step-000000010"))
    with pytest.raises(ConfigError, match="on-all: was trained on all episodes"):
        split_on(after, "frames-3")


def test_a_run_that_only_logs_statistics_has_chosen_nothing(tmp_path):
    for name, choice, chose in (
        ("logs", {}, False),
        ("keeps", {"keep_best": 2}, True),
        ("ends", {"patience": 3}, True),
    ):
        directory = run(tmp_path, name)
        config = read_run_config(directory)
        selection = {"statistics": ["td_error"], "keep_best": None, "patience": None, **choice}
        write_run_config(directory, {**config, "selection": selection})
        assert bool(split_on(directory, "frames-1")[1]) == chose

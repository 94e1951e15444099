import csv
import datetime
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import offrl
from offrl.datasets import TableColumns, convert
from offrl.errors import ConfigError, DatasetError, MissingDependencyError, SpecMismatchError
from offrl.shards import Manifest

# A customer's two decisions, the second of which ended it; then one that the end of the log cut, with what it led to.
TABLE = {
    "episode": ["a", "a", "b", "b"],
    "observation_0": [1, 3, 5, 7],
    "observation_1": [2.5, 4, 6, 8],
    "action": ["email", "call", "email", None],
    "reward": [1.5, 2, 0, None],
    "probability": [0.5, 0.25, None, None],
    "legal_call": [1, 1, 0, None],
    "legal_email": [1, 0, 1, None],
    "terminated": [0, 1, 0, 0],
}
HELD = {
    "observations": [[1, 2.5], [3, 4], [3, 4], [5, 6], [7, 8]],
    "actions": [1, 0, 1],
    "rewards": [1.5, 2, 0],
    "terminated": [False, True, False],
    "truncated": [False, False, True],
    "episode_lengths": [2, 1],
    "behaviour_probability": [0.5, 0.25, None],
    "action_mask": [[True, True], [True, False], [False, True]],
}


@pytest.fixture
def converted(tmp_path):
    """Writes a table and converts it: members of the shard, the manifest and the notes."""

    def make(table, kind="csv", spec=None, **columns):
        path = tmp_path / f"log.{kind}"
        save(table, path)
        named = TableColumns(**columns) if columns else None
        found = convert(path, tmp_path / "data", "frames", columns=named, spec=spec, progress=False)
        with np.load(tmp_path / "data" / "shard-00000.npz") as shard:
            members = {name: shard[name] for name in shard}
        return members, Manifest.load(tmp_path / "data"), found

    return make


def save(table, path):
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs the extra tables")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(table), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])


def assert_held(members, held=HELD):
    plain = {name: array.tolist() for name, array in members.items()}
    if "behaviour_probability" in plain:
        plain["behaviour_probability"] = [None if value != value else value for value in plain["behaviour_probability"]]
    assert plain == held


def without(*names):
    return {name: cells for name, cells in TABLE.items() if name not in names}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_with_everything(converted, kind):
    members, manifest, found = converted(TABLE, kind)
    assert_held(members)
    features = ("observation_0", "observation_1")
    assert manifest.spec == offrl.TaskSpec.vector(2, ("call", "email"), feature_names=features)
    assert manifest.generator["converted_from"]["format"] == "table"
    assert (found.source_format, found.num_transitions, found.num_episodes) == ("table", 3, 2)
    assert [note.split(":")[0] for note in found.notes] == [
        "what the last step of 1 terminated episode(s) led to is not there",
        "the probability of 1 action(s) is empty",
    ]


def test_other_names_of_columns_are_mapped_and_the_rest_is_named(converted):
    names = dict(zip(TABLE, ("customer", "x_a", "y", "done", "won", "p", "may_call", "may_email", "end"), strict=True))
    table = {names[name]: cells for name, cells in TABLE.items()} | {"clerk": ["z"] * 4}
    members, _, found = converted(
        table,
        episode="customer",
        observations="x_*, y",
        action="done",
        reward="won",
        probability="p",
        legal="may_*",
        terminated="end",
    )
    assert_held(members)
    assert found.notes[-1] == "columns that were not read: clerk"


def test_without_a_column_that_says_so_the_last_row_terminates(converted):
    table = {name: cells[:3] for name, cells in without("terminated").items()}
    members, _, found = converted(table)
    assert members["terminated"].tolist() == [False, True, True]
    assert members["observations"].tolist() == [[1, 2.5], [3, 4], [3, 4], [5, 6], [5, 6]]
    assert found.notes[0].startswith("no column says how episodes end: each of the 2 is taken to terminate")


def test_a_truncated_episode_without_its_last_observation_loses_a_step(converted):
    table = {name: cells[:2] for name, cells in TABLE.items()} | {"terminated": [0, 0]}
    members, _, found = converted(table)
    assert members["observations"].tolist() == [[1, 2.5], [3, 4]]
    assert (members["actions"].tolist(), members["truncated"].tolist()) == ([1], [True])
    assert found.num_transitions == 1
    assert found.notes[0].startswith("1 truncated episode(s) lost their last step")


def test_a_column_of_truncated_alone_leaves_the_others_terminated(converted):
    members, _, _ = converted(without("terminated") | {"truncated": ["false", "false", "true", ""]})
    assert members["terminated"].tolist() == [False, True, False]
    assert members["truncated"].tolist() == [False, False, True]


@pytest.mark.parametrize(
    "steps",
    [[1, 0, 10, 9], ["2024-02-10", "2024-02-09", "2024-03-01T10:00:00+02:00", "2024-03-01 07:59"]],
)
def test_a_column_of_steps_orders_the_rows(converted, steps):
    table = {name: [cells[1], cells[0], cells[3], cells[2]] for name, cells in TABLE.items()} | {"step": steps}
    members, _, _ = converted(table)
    assert_held(members)


def test_times_of_parquet_order_the_rows(converted):
    table = {name: [cells[2], cells[3], cells[1], cells[0]] for name, cells in TABLE.items()}
    days = [datetime.datetime(2024, 1, day, tzinfo=datetime.UTC) for day in (3, 4, 2, 1)]
    members, _, _ = converted(table | {"when": days}, "parquet", step="when")
    assert members["actions"].tolist() == [1, 1, 0]  # the episode that comes first stays first


def test_bandit_data_is_an_episode_a_row(converted):
    table = {"episode": [7, 8, 9], "observation_0": [1, 2, 3], "action": [0, 1, 1], "reward": [1, 0, 5]}
    members, manifest, _ = converted(table, "parquet")
    assert members["terminated"].all()
    assert members["episode_lengths"].tolist() == [1, 1, 1]
    assert manifest.spec.action_names == ("action 0", "action 1")


@pytest.mark.parametrize(
    ("actions", "labels", "columns", "indices", "names"),
    [
        (["b", "a", "b", ""], None, {}, [1, 0, 1], ("a", "b")),
        ([" b", "a", "b ", " "], None, {}, [1, 0, 1], ("a", "b")),
        (["2.0", "0", "1", ""], None, {}, [2, 0, 1], ("action 0", "action 1", "action 2")),
        (["b", "a", "b", ""], None, {"action_names": ("b", "c", "a")}, [0, 2, 0], ("b", "c", "a")),
        ([30, 10, 30, ""], None, {"action_names": ("10", "20", "30")}, [2, 0, 2], ("10", "20", "30")),
        (["b", "a", "b", ""], ("legal_b", "legal_a"), {}, [0, 1, 0], ("b", "a")),
        (["b", "a", "b", ""], ("legal_b", "legal_a"), {"action_names": ("a", "b")}, [1, 0, 1], ("a", "b")),
        ([1, 0, 1, ""], ("legal_1", "legal_0"), {}, [1, 0, 1], ("action 0", "action 1")),
        ([2, 1, 2, ""], ("legal_2", "legal_1"), {}, [0, 1, 0], ("2", "1")),
        (
            ["b", "a", "b", ""],
            ("can_b", "can_a"),
            {"legal": "can_b,can_a", "action_names": ("b", "a")},
            [0, 1, 0],
            ("b", "a"),
        ),
    ],
)
def test_actions_are_numbers_or_names(converted, actions, labels, columns, indices, names):
    """Where there are legal actions, the first column is legal in the first and third row alone, so is its action."""
    table = without("action", "legal_call", "legal_email") | {"action": actions}
    if labels:
        table |= {labels[0]: [1, 0, 1, ""], labels[1]: [0, 1, 0, ""]}
    members, manifest, _ = converted(table, **columns)
    assert members["actions"].tolist() == indices
    assert manifest.spec.action_names == names
    if labels:
        assert members["action_mask"].argmax(axis=1).tolist() == indices


def test_the_task_that_is_named_names_the_actions(converted):
    spec = offrl.TaskSpec.vector(2, ("email", "call"))
    members, manifest, _ = converted(TABLE, spec=spec)
    assert members["actions"].tolist() == [0, 1, 0]
    assert manifest.spec == replace(spec, feature_names=("observation_0", "observation_1"))


def test_a_task_of_another_observation_is_refused(converted):
    with pytest.raises(SpecMismatchError, match="observation_shape"):
        converted(TABLE, spec=offrl.TaskSpec.vector(3, ("email", "call")))


def change(column, row, cell):
    cells = list(TABLE[column])
    cells[row] = cell
    return {column: cells}


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        (change("observation_1", 1, "many"), {}, "row 2, column 'observation_1': 'many'; expected a number"),
        (change("observation_1", 1, "nan"), {}, "row 2, column 'observation_1': is empty or NaN; expected a finite"),
        (change("observation_0", 3, "1e300"), {}, "row 4, column 'observation_0': is 1e.300; expected a finite"),
        (change("reward", 0, "-inf"), {}, "row 1, column 'reward': is -inf"),
        (change("reward", 2, ""), {}, "row 3, column 'reward': is empty or NaN .2 cells of the column are."),
        (change("probability", 0, -0.5), {}, "row 1, column 'probability': is -0.5; expected over 0, at most 1"),
        (change("probability", 0, 1.5), {}, "row 1, column 'probability': is 1.5"),
        (change("probability", 0, 0), {}, "row 1, column 'probability': is 0"),
        (change("legal_email", 0, 2), {}, "row 1, column 'legal_email': is 2; expected 0 or 1"),
        (change("legal_email", 0, 0), {}, "row 1, column 'action': email is illegal there"),
        (change("terminated", 0, 1), {}, "row 1, column 'terminated': is true inside an episode"),
        (change("action", 0, "emial"), {}, "row 1, column 'action': 'emial'; expected .*; did you mean email?"),
        (change("action", 0, 2), {}, "row 1, column 'action': '2'; expected 0..1 or one of .*; actions count from 0"),
        (change("action", 0, ""), {}, "row 1, column 'action': is empty"),
        (
            {"action": ["007", "1", "7", ""]},
            {},
            "row 3, column 'action': '7' is the number 7, as '007' is; expected one way of writing each action; name",
        ),
        (change("action", 2, ""), {}, "row 3, column 'action': is empty"),
        (change("episode", 1, ""), {}, "row 2, column 'episode': is empty"),
        (change("episode", 3, "a"), {}, "row 4, column 'episode': 'a' goes on after rows of another.*--step-column"),
        ({"step": [1, 1, 1, 2]}, {}, "row 2, column 'step': is the same as in row 1 of this episode"),
        ({"step": [1, "later", 1, 2]}, {}, "row 2, column 'step': 'later'; expected a number"),
        ({"step": [1, "", 1, 2]}, {}, "row 2, column 'step': is empty or NaN"),
        ({}, {"reward": "rewrad"}, "has no column 'rewrad'; expected one for --reward-column .*; did you mean reward?"),
        ({}, {"observations": "x_*"}, r"has no column 'x_\*'; expected one for --observation-columns .* of episode"),
        ({}, {"observations": "observation_*,reward"}, "column 'reward' is asked for twice"),
        ({}, {"action_names": ("call", "email", "visit")}, "has 2 legal columns; expected 3, one for each action"),
        ({"action": [1, 0, 1, ""]}, {"action_names": ("x", "y")}, "has legal columns for call, email; expected x, y"),
        ({name: [] for name in TABLE}, {}, "holds no rows"),
        ({"action": [""] * 4, "reward": [""] * 4}, {}, "holds no transitions"),
        ({"reward": [1.5, 2, 0, 3]}, {}, "row 4, column 'action': is empty beside a reward"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(converted, tmp_path, changes, columns, message):
    with pytest.raises(DatasetError, match=message) as refused:
        converted({**TABLE, **changes}, **columns)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_numbered_legal_columns_do_not_name_actions(converted):
    table = without("legal_call", "legal_email") | {"legal_0": [1, 1, 1, ""], "legal_1": [1, 1, 1, ""]}
    with pytest.raises(DatasetError, match="has legal columns for 0, 1, and actions with names; .*--action-names"):
        converted(table)


def test_spaces_around_an_episode_name_no_other_one(converted):
    members, _, _ = converted({**TABLE, "episode": ["a", " a", "b ", "b"]})
    assert_held(members)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_that_were_taken_for_numbers_are_named(converted, kind):
    table = without("action", "legal_call", "legal_email") | {"action": [1005, 1001, 20_000, None]}
    _, manifest, found = converted(table, kind)
    assert manifest.spec.num_actions == 20_001
    assert "which 3 occur: if they are ids, name them: --action-names 1001,1005,20000" in found.notes[-1]


def test_ids_beyond_any_number_of_actions_are_refused_with_their_names(converted):
    table = without("action", "legal_call", "legal_email") | {"action": [1005, 1001, 12_345_678_903, None]}
    with pytest.raises(DatasetError, match="if these are ids, name them: --action-names 1001,1005,12345678903"):
        converted(table, "parquet")


def test_ids_of_any_kind_of_number_are_told_how_to_be_named(converted):
    table = without("action", "legal_call", "legal_email")
    for kind, actions in (("csv", [1005, 1001, 40_000, None]), ("parquet", [1005.0, 1001.0, 40_000.0, None])):
        with pytest.raises(DatasetError, match="if these are ids, name them: --action-names 1001,1005,40000"):
            converted(table | {"action": actions}, kind)


def test_numbers_of_actions_that_somebody_says_are_no_ids(converted):
    table = without("action", "legal_call", "legal_email") | {"action": [100, 0, 200, None]}
    spec = offrl.TaskSpec.vector(2, tuple(f"action {index}" for index in range(1000)))
    _, _, found = converted(table, spec=spec)
    assert not any("if they are ids" in note for note in found.notes)


def test_names_may_be_numbers_written_in_several_ways(converted):
    table = without("legal_call", "legal_email") | {"action": ["007", "7", "1.0", ""]}
    members, manifest, _ = converted(table, action_names=("7", "007", "1.0"))
    assert manifest.spec.action_names == ("7", "007", "1.0")
    assert members["actions"].tolist() == [1, 0, 2]


def test_names_that_differ_in_case_only_are_pointed_out(converted):
    table = without("legal_call", "legal_email") | {"action": ["call", "Call", "email", ""]}
    _, manifest, found = converted(table)
    assert manifest.spec.action_names == ("Call", "call", "email")
    assert "'Call' and 'call' are two actions: write them alike if they are one" in found.notes


@pytest.mark.parametrize("names", [("a", "a"), ("a", ""), ("a", " ")])
def test_names_of_actions_tell_them_apart(names):
    with pytest.raises(ConfigError, match="another name for each action"):
        TableColumns(action_names=names)


@pytest.mark.parametrize(
    ("cell", "mend"),
    [
        ("yes", "write 1 and 0"),
        ("50%", "write a share, such as 0.5"),
        ("1,5", "write decimals with a point"),
        ("01.03.2024", "write days since a date as a number"),
        ("Berlin", "give each kind a column of its own"),
    ],
)
def test_what_is_no_number_is_told_how_to_become_one(converted, cell, mend):
    with pytest.raises(DatasetError, match=f"'{cell}'; expected a number; {mend}"):
        converted({**TABLE, "observation_0": [cell, 1, 2, 3]})


def test_the_columns_name_the_features_and_a_task_says_their_order(tmp_path, converted):
    _, manifest, _ = converted(TABLE)
    assert manifest.spec.feature_names == ("observation_0", "observation_1")
    task = offrl.TaskSpec.vector(2, ("call", "email"), feature_names=("observation_1", "observation_0"))
    (path := tmp_path / "again").mkdir()
    save(TABLE, path / "log.csv")
    convert(path / "log.csv", path / "data", "frames", spec=task, progress=False)
    with np.load(path / "data" / "shard-00000.npz") as shard:
        assert shard["observations"].tolist() == [[b, a] for a, b in HELD["observations"]]
    assert Manifest.load(path / "data").spec == task
    columns = TableColumns(observations="observation_0,observation_1")
    with pytest.raises(SpecMismatchError, match=r"feature_names\[0\] is 'observation_0'; expected 'observation_1'"):
        convert(path / "log.csv", path / "other", "frames", spec=task, columns=columns, progress=False)


def test_a_table_without_a_feature_of_the_task_is_refused(converted):
    task = offrl.TaskSpec.vector(2, ("call", "email"), feature_names=("observation_0", "age"))
    with pytest.raises(DatasetError, match="has no column 'age'"):
        converted(TABLE, spec=task)


def test_standardised_features_have_mean_0_and_deviation_1_as_networks_see_them(tmp_path):
    save({**TABLE, "observation_2": [9, 9, 9, 9]}, tmp_path / "log.csv")
    convert(tmp_path / "log.csv", tmp_path / "data", "frames", standardise=True, progress=False)
    replay = offrl.open_replay(tmp_path / "data", progress=False)
    held = np.array([[*row, 9] for row in HELD["observations"]])  # as they were logged
    np.testing.assert_array_equal(replay.store.frames, held)
    seen = replay.spec.normalise(torch.tensor(replay.store.frames)).numpy()
    steps = held[[0, 1, 3]]  # the others are what an episode's last step led to
    expected = (held - steps.mean(axis=0))[:, :2] / steps.std(axis=0)[:2]
    np.testing.assert_allclose(seen[:, :2], expected, atol=1e-6)
    np.testing.assert_array_equal(seen[:, 2], 0)  # what never varies is nothing to learn from
    later = offrl.TaskSpec.from_dict(replay.spec.to_dict(), where="here")
    convert(tmp_path / "log.csv", tmp_path / "later", "frames", spec=later, progress=False)
    assert Manifest.load(tmp_path / "later").spec == replay.spec.without_legal_actions()


def test_numbers_and_names_do_not_mix(converted):
    table = without("legal_call", "legal_email") | {"action": ["1", "0", "one", ""]}
    with pytest.raises(DatasetError, match="row 3, column 'action': 'one'; expected a whole number in every row"):
        converted(table)


def test_only_truncated_episodes_of_one_step_hold_nothing(converted):
    table = {name: cells[:1] for name, cells in TABLE.items()}
    with pytest.raises(DatasetError, match="holds no transitions; expected 1 or more; give a truncated episode"):
        converted(table)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "holds no rows"),
        ("log.csv", b"episode,reward,reward\n", "has two columns 'reward'"),
        (
            "log.csv",
            b"episode;reward\n1;0,5\n",
            "has one column, 'episode;reward'; .* save it with commas in place of ';'",
        ),
        ("log.csv", b"id,action,reward\n1,1,1\n", "has no column 'episode'; .*add a column that numbers the rows"),
        (
            "log.csv",
            b'episode,action,reward,observation_0\n1,0,1,"[1, 2]"\n',
            "'observation_0': .*; expected a number; give each number of a list a column of its own",
        ),
        ("log.csv", b"episode,action,reward,observation_0\na,1,1\n", "row 1 has 3 cells; expected 4"),
        ("log.csv", b'episode,action,reward,observation_0\n"a', "cannot be read"),
        ("log.csv", b"\xff\xfe", "cannot be read .*; expected a CSV file in UTF-8"),
        ("log.parquet", b"PAR1", "cannot be read .*; expected a Parquet file"),
        ("missing.csv", None, "no such file; expected a table"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, message):
    pytest.importorskip("pyarrow", reason="needs the extra tables")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        convert(tmp_path / name, tmp_path / "data", "frames", progress=False)


def test_lists_in_cells_are_refused(tmp_path, converted):
    table = {"episode": [1], "observation_0": [[1.0, 2.0]], "action": [0], "reward": [1]}
    with pytest.raises(DatasetError, match=r"row 1, column 'observation_0': '\[1.0, 2.0\]'; expected a number"):
        converted(table, "parquet")
    with pytest.raises(DatasetError, match="row 1, column 'episode': nested values"):
        converted(table | {"episode": [[1]], "observation_0": [1]}, "parquet")


def test_a_byte_order_mark_and_blank_lines_are_no_data(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbfepisode,observation_0,action,reward\r\n\r\n1,2,0,3\r\n")
    assert convert(tmp_path / "log.csv", tmp_path / "data", "frames", progress=False).num_transitions == 1


def test_tables_larger_than_a_chunk_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("offrl.datasets._table_files._ROWS", 2)
    rows = [[index // 3, index, index % 2, index] for index in range(7)]
    table = dict(zip(("episode", "observation_0", "action", "reward"), zip(*rows, strict=True), strict=True))
    for kind in ("csv", "parquet"):
        save({name: list(cells) for name, cells in table.items()}, tmp_path / f"log.{kind}")
        convert(tmp_path / f"log.{kind}", tmp_path / kind, "frames", progress=False)
        with np.load(tmp_path / kind / "shard-00000.npz") as shard:
            assert shard["rewards"].tolist() == list(range(7))
            assert shard["episode_lengths"].tolist() == [3, 3, 1]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_tables_of_a_directory_are_one(tmp_path, kind):
    log = tmp_path / "log.parquet"  # as Spark names directories
    log.mkdir()
    save({name: cells[:3] for name, cells in TABLE.items()}, log / f"part-0.{kind}")
    save({name: TABLE[name][3:] for name in reversed(TABLE)}, log / f"part-1.{kind}")  # b goes on
    save({name: [] for name in TABLE}, log / f"part-2.{kind}")
    (log / "_SUCCESS").touch()
    (log / f".part-0.{kind}.crc").write_bytes(b"x")
    convert(log, tmp_path / "data", "frames", progress=False)
    with np.load(tmp_path / "data" / "shard-00000.npz") as shard:
        assert_held({name: shard[name] for name in shard})


@pytest.mark.parametrize(
    ("name", "second", "message"),
    [
        ("2.csv", {"episode": ["b"], "reward": ["x"]}, r"2\.csv: row 1, column 'reward': 'x'; expected a number"),
        ("2.csv", {"episode": ["a"], "step": [2]}, r"2\.csv: row 1, column 'step': is the same as in row 2 of 1\.csv"),
        ("2.csv", {"extra": [1]}, r"2\.csv: has other columns than 1\.csv: extra"),
        ("2.parquet", {}, r"log: holds 1\.csv and 2\.parquet; expected tables of one kind"),
    ],
)
def test_tables_of_a_directory_that_do_not_go_together(tmp_path, name, second, message):
    (tmp_path / "log").mkdir()
    rows = {"episode": ["a", "a"], "step": [1, 2], "action": [0, 1], "reward": [1, 2], "observation_0": [3, 4]}
    save(rows, tmp_path / "log" / "1.csv")
    save({column: cells[:1] for column, cells in rows.items()} | second, tmp_path / "log" / name)
    with pytest.raises(DatasetError, match=message):
        convert(tmp_path / "log", tmp_path / "data", "frames", progress=False)


def test_true_and_false_are_names_of_actions_in_either_kind(tmp_path):
    table = {"episode": [1, 2], "observation_0": [1, 2], "action": [True, False], "reward": [1, 2]}
    for kind in ("csv", "parquet"):
        save(table, tmp_path / f"log.{kind}")
        convert(tmp_path / f"log.{kind}", tmp_path / kind, "frames", progress=False)
        assert Manifest.load(tmp_path / kind).spec.action_names == ("False", "True")


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"pyarrow is not installed.*-m pip install '?pyarrow"):
        convert(tmp_path / "log.parquet", tmp_path / "data", "frames", progress=False)


def test_columns_are_of_tables(tmp_path):
    with pytest.raises(ConfigError, match=r"names of columns; expected a table, .csv or .parquet"):
        convert(tmp_path, tmp_path / "data", "frames", columns=TableColumns(), progress=False)
    with pytest.raises(ConfigError, match=r"TableColumns.reward: ''; expected the name of a column"):
        TableColumns(reward="")
    save(TABLE, tmp_path / "log.csv")
    with pytest.raises(ConfigError, match="from table to minari; expected frames"):
        convert(tmp_path / "log.csv", tmp_path / "data-v0", "minari", progress=False)

import json

import numpy as np
import pytest
from run_offrl import offrl, offrl_json


@pytest.fixture
def course_shards(tmp_path):
    """Two rows of a course's logger; the episode goes on after them."""
    frames = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 96, 96), np.uint8)
    stacks = np.stack([frames[i : i + 4] for i in range(3)]).astype(np.float32) / 128 - 1
    (tmp_path / "log").mkdir()
    np.savez(
        tmp_path / "log" / "a.npz",
        states=stacks[:-1],
        actions=np.array([[3], [24]]),
        next_states=stacks[1:],
        rewards=np.ones((2, 1)),
        dones=np.ones((2, 1)),
    )
    return tmp_path / "log"


def test_convert_shows_the_sizes_before_and_after(course_shards, tmp_path):
    options = ("--to", "frames", "--env", "CarRacing-v3", "--dones", "not_done", "--quiet")
    found = offrl_json("convert", course_shards, tmp_path / "frames", *options)
    assert (found["source_format"], found["target_format"]) == ("stacked", "frames")
    assert (found["num_transitions"], found["num_episodes"]) == (2, 1)
    assert (found["frames_before"], found["frames_after"]) == (16, 6)
    assert found["bytes_after"] < found["bytes_before"] / 100
    manifest = json.loads((tmp_path / "frames" / "manifest.json").read_text())
    assert manifest["environment"] == {"id": "CarRacing-v3", "hud": "visible"}
    assert len(manifest["spec"]["action_names"]) == 25
    inspected = offrl_json("inspect", tmp_path / "frames")
    assert (inspected["num_transitions"], inspected["num_terminated"]) == (2, 0)


def test_dedupe_is_short_for_frames(course_shards, tmp_path):
    found = offrl_json("convert", course_shards, tmp_path / "frames", "--dedupe", "--dones", "not_done", "--quiet")
    assert (found["target_format"], found["frames_before"], found["frames_after"]) == ("frames", 16, 6)


def test_the_same_in_words(data, tmp_path):
    options = ("--to", "stacked", "--quiet")
    shown = offrl("convert", data, tmp_path / "rows", *options, "--no-compress").stdout.splitlines()
    assert shown[0].startswith("transitions  ")
    assert shown[1].split() == ["frames", "stacked"]
    assert [line.split()[0] for line in shown[2:4]] == ["bytes", "frames"]
    stored = int(shown[2].split()[2].replace(",", ""))
    assert offrl_json("convert", data, tmp_path / "small", *options)["bytes_after"] < stored


def test_an_id_of_minaris(data, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="needs the extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    offrl("convert", data, "minari:cartpole/mixed-v0", "--to", "minari", "--quiet")
    assert minari.load_dataset("cartpole/mixed-v0").total_steps >= 300
    offrl("convert", "minari:cartpole/mixed-v0", tmp_path / "back", "--to", "frames", "--quiet")
    before, after = (offrl_json("inspect", path) for path in (data, tmp_path / "back"))
    assert before == after


TABLE = """customer,week,age,spent,done,won,p,may_call,may_wait,end,cut
a,1,50,2,call,1,0.5,1,1,0,0
b,1,30,4,wait,2,0.25,0,1,0,1
a,0,20,6,wait,3,0.5,1,1,0,0
a,2,40,8,wait,4,1,1,1,1,0
b,2,10,9,,,,,,,
"""
TABLE_OPTIONS = """
    --to frames --episode-column customer --step-column week --observation-columns age,spent --action-column done
    --reward-column won --probability-column p --legal-columns may_* --terminated-column end --truncated-column cut
    --action-names wait,call
"""


def test_a_table_by_its_columns(tmp_path):
    (tmp_path / "log.csv").write_text(TABLE)
    found = offrl_json("convert", tmp_path / "log.csv", tmp_path / "frames", *TABLE_OPTIONS.split(), "--quiet")
    assert (found["source_format"], found["num_transitions"], found["num_episodes"]) == ("table", 4, 2)
    with np.load(tmp_path / "frames" / "shard-00000.npz") as shard:
        assert shard["observations"].tolist() == [[20, 6], [50, 2], [40, 8], [40, 8], [30, 4], [10, 9]]
        assert shard["actions"].tolist() == [0, 1, 0, 0]
        assert shard["rewards"].tolist() == [3, 1, 4, 2]
        assert shard["terminated"].tolist() == [False, False, True, False]
        assert shard["truncated"].tolist() == [False, False, False, True]
        assert shard["behaviour_probability"].tolist() == [0.5, 0.5, 1, 0.25]
        assert shard["action_mask"].tolist() == [[True, True]] * 3 + [[True, False]]


def test_a_table_without_the_usual_names_is_one_line(tmp_path):
    (tmp_path / "log.csv").write_text(TABLE)
    refused = offrl("convert", tmp_path / "log.csv", tmp_path / "new", "--to", "frames", "--quiet", code=2).stderr
    assert refused.startswith(
        f"error: {tmp_path / 'log.csv'}: has no column 'episode'; expected one for --episode-column"
    )
    assert refused.count("\n") == 1


def test_pixels_of_d3rlpys_need_no_environment(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")
    with h5py.File(tmp_path / "pix.h5", "w") as file:
        for name, value in {
            "columns": ["observations", "actions", "rewards", "terminated"],
            "num_episodes": 1,
            "observations_0": np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8),
            "actions_0": np.array([[0], [1], [2], [1], [0], [1]]),
            "rewards_0": np.ones((6, 1), np.float32),
            "terminated_0": True,
        }.items():
            file.create_dataset(name, data=value)
    options = ("--to", "frames", "--stack", "3", "--action-names", "noop, up, down, fire", "--quiet")
    assert offrl_json("convert", tmp_path / "pix.h5", tmp_path / "pix", *options)["num_transitions"] == 6
    spec = json.loads((tmp_path / "pix" / "manifest.json").read_text())["spec"]
    assert (spec["observation_shape"], spec["action_names"]) == ([3, 8, 8], ["noop", "up", "down", "fire"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{data}", "new", "--to", "frames", "--reward-column", "r"), "names of columns; expected a table"),
        (("nowhere", "new", "--to", "frames"), "nowhere: no such directory"),
        (("minari:no/such-v0", "new", "--to", "frames"), "no dataset that Minari can read"),
        (("text.h5", "new", "--to", "frames"), "text.h5: cannot be opened"),
        (("nope.h5", "new", "--to", "frames"), "nope.h5: no such file; expected a directory of .npz shards, a dataset"),
        (("{data}", "new", "--to", "frames", "--stack", "2"), "stack beside data whose task is known"),
        (("text.h5", "new", "--to", "minari"), "convert: from d3rlpy to minari"),
        (("{data}", "{data}", "--to", "frames"), "exists already"),
        (("{data}", "new", "--to", "minari"), "'new' is no id of a dataset of Minari's"),
        (("{data}", "new", "--to", "frames", "--hud", "hidden"), "--hud: hidden; expected --env"),
        (
            ("{data}", "new", "--to", "stacked", "--standardise"),
            "standardise: True; expected False for the format stacked",
        ),
        (("{data}", "new", "--like", "text.h5"), "text.h5: not an ONNX file"),
        (("{data}", "new", "--like", "{data}", "--env", "CartPole-v1"), "convert: --like beside --env"),
        (("{data}", "new", "--to", "stacked", "--dedupe"), "--dedupe beside --to stacked; expected --to frames"),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, monkeypatch, arguments, message):
    pytest.importorskip("minari", reason="needs the extra minari")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    (tmp_path / "text.h5").write_text("not HDF5")
    refused = offrl("convert", *(argument.format(data=data) for argument in arguments), "--quiet", code=2).stderr
    assert refused.startswith("error: ")
    assert message in refused
    assert refused.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.h5"]

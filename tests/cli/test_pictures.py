import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from run_offrl import offrl, offrl_json
from tqdm import tqdm

from offrl import BC, FitConfig, fit, open_replay
from offrl.cli.watching import _Counted
from offrl.evaluation._player import Player
from offrl.report.overlay import BAR_WIDTH, HEADER, TAKEN
from offrl.system.json_files import read_json


@pytest.fixture(scope="session")
def seeds(data, tmp_path_factory):
    """A directory of three runs: two that differ in their seed, and another algorithm."""
    root = tmp_path_factory.mktemp("seeds")
    for name, *settings in (("bcq-0",), ("bcq-1", "--set", "seed=1"), ("bc", "--algorithm", "bc")):
        common = ("--updates", 4, "--set", "log_period=2", "--set", "precision=fp32")
        offrl("train", data, *common, *settings, "--run", root / name, "--quiet")
    return root


def test_plot_draws_runs_that_differ_in_their_seed_as_one_line(seeds, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "curves.png"
    found = offrl_json("plot", seeds, "--out", out)
    expected = {"bc": [str(seeds / "bc")], "bcq": [str(seeds / "bcq-0"), str(seeds / "bcq-1")]}
    assert found == {"file": str(out), "groups": expected, "left_out": []}
    assert out.read_bytes().startswith(b"\x89PNG")
    shown = offrl("plot", seeds / "bc", "--metric", "imitation_accuracy", "--metric", "loss", "--out", out).stdout
    assert shown == f"{out}\nbc: {seeds / 'bc'}\n"


def test_plot_leaves_out_what_cannot_be_drawn_and_names_it(seeds, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "curves.png"
    runs = [seeds / name for name in ("bc", "bcq-0", "bcq-1")]
    again = tmp_path / "again"
    shutil.copytree(seeds / "bcq-1", again)
    begun = tmp_path / "begun"
    shutil.copytree(seeds / "bcq-0", begun, ignore=shutil.ignore_patterns("metrics.csv"))
    config = read_json(begun / "config.json")
    config["replay"]["seed"] = 2
    (begun / "config.json").write_text(json.dumps(config))
    found = offrl_json("plot", *runs, again, begun, tmp_path / "page.html", "--metric", "q", "--out", out)
    (kept,) = {*found["groups"]["bcq"]} & {str(again), str(seeds / "bcq-1")}
    (other,) = {str(again), str(seeds / "bcq-1")} - {kept}
    assert {*found["groups"]["bcq"]} == {str(seeds / "bcq-0"), kept}
    assert list(found["groups"]) == ["bcq"]
    assert found["left_out"] == [
        f"{tmp_path / 'page.html'}: no run here; expected config.json, as `fit` and `offrl train` write it: left out",
        f"{other} has the settings and the seed of {kept}, which is newer: left out",
        f"{seeds / 'bc'} has no 'q': left out",
        f"{begun} has no 'q': left out",
    ]
    shown = offrl("plot", *runs[:2], "--metric", "q", "--metric", "loss", "--out", out).stdout.splitlines()
    assert shown[1:] == [
        f"bc: {seeds / 'bc'}",
        f"bcq: {seeds / 'bcq-0'}",
        f"{seeds / 'bc'} has no 'q': left out of that panel",
    ]
    assert out.read_bytes().startswith(b"\x89PNG")
    refused = offrl("plot", seeds, "--metric", "speed", "--out", out, code=2).stderr
    assert "no run has 'speed'; expected one of ['step', 'loss'" in refused
    refused = offrl("plot", tmp_path / "page.html", tmp_path / "no.html", "--out", out, code=2).stderr
    assert "no runs here; expected one run or more" in refused


def test_plot_draws_scores_while_training_and_passes_over_files_without_a_word(seeds, tmp_path):
    pytest.importorskip("matplotlib")
    runs = []
    for name, score in (("bcq-0", 10), ("bcq-1", 30)):
        runs.append(tmp_path / name)
        shutil.copytree(seeds / name, runs[-1])
        (runs[-1] / "evaluations.csv").write_text(f"step,score\n2,{score}\n4,20\n")
    (tmp_path / "report.html").touch()  # as runs/* names it
    out = tmp_path / "score.png"
    found = offrl_json("plot", *runs, seeds / "bc", tmp_path / "report.html", "--metric", "score", "--out", out)
    assert found["groups"] == {"bcq": [str(run) for run in runs]}
    assert found["left_out"] == [f"{seeds / 'bc'} has no 'score': left out"]
    assert out.read_bytes().startswith(b"\x89PNG")
    refused = offrl("plot", seeds, "--metric", "score", "--out", out, code=2).stderr
    assert "no run has 'score'" in refused
    assert "offrl train --evaluate-every 1epoch" in refused


def test_what_a_plot_has_no_use_for_is_refused(seeds, tmp_path):
    out = tmp_path / "plot.png"
    assert "--out: " in offrl("plot", seeds, "--out", tmp_path / "plot.pdf", code=2).stderr
    assert "name it plot.png" in offrl("plot", seeds, "--out", tmp_path / "plot.pdf", code=2).stderr
    refused = offrl("plot", seeds, "--out", out, "--env", "CartPole-v1", code=2).stderr
    assert "--env beside curves; expected --episode, which plays" in refused
    assert not out.exists()


def test_a_report_of_runs_on_different_data_compares_with_none(data, seeds, tmp_path):
    for name in ("bc", "bcq-0"):
        shutil.copytree(seeds / name, tmp_path / name)
    config = read_json(tmp_path / "bc" / "config.json")
    (tmp_path / "bc" / "config.json").write_text(json.dumps({**config, "dataset": "f" * 64}))
    told = offrl("report", tmp_path, "--json")
    assert told.stderr == "warning: without the dataset: the runs were trained on different ones\n"
    assert not json.loads(told.stdout)["with_dataset"]


def test_plot_along_an_episode_plays_what_evaluate_plays(trained, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "episode.png"
    found = offrl_json("plot", trained["run"], "--episode", 11, "--out", out)
    played = offrl_json("evaluate", trained["run"], "--episodes", 1, "--seed-start", 11, "--workers", 0)
    assert (found["score"], found["length"]) == tuple(played["per_episode"][0][key] for key in ("score", "length"))
    assert out.read_bytes().startswith(b"\x89PNG")
    refused = offrl("plot", trained["run"], trained["run"], "--episode", 11, "--out", out, code=2).stderr
    assert "2 runs beside --episode; expected one" in refused


def test_plot_along_an_episode_takes_an_onnx_file(trained, tmp_path):
    pytest.importorskip("matplotlib")
    offrl("export", trained["run"], tmp_path / "m.onnx", "--contract", "uint8", "--quiet")
    found = offrl_json(
        "plot", tmp_path / "m.onnx", "--env", "CartPole-v1", "--episode", 11, "--out", tmp_path / "e.png"
    )
    of_the_run = offrl_json("plot", trained["run"], "--episode", 11, "--out", tmp_path / "r.png")
    assert (found["score"], found["length"]) == (of_the_run["score"], of_the_run["length"])


def test_record_films_the_episode_of_its_seed(trained, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "videos" / "v.mp4"
    found = offrl_json("record", trained["run"], out, "--seed", 11)
    (played,) = offrl_json("evaluate", trained["run"], "--episodes", 1, "--seed-start", 11, "--workers", 0)[
        "per_episode"
    ]
    assert found == {"file": str(out), "seed": 11, "score": played["score"], "length": played["length"]}
    assert b"ftyp" in out.read_bytes()[:16]
    assert offrl_json("record", trained["run"], out, "--max-steps", 3)["length"] == 3


def read(path):
    """All frames of a video. [T, H, W, 3]."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames])


# imageio-ffmpeg's reader, which only this test uses, leaves the pipes of its process to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_record_draws_a_panel_beside_the_picture_unless_plain(trained, tmp_path):
    arguments = ("--seed", 11, "--max-steps", 3)
    found = offrl_json("record", trained["run"], tmp_path / "panel.mp4", *arguments)
    plain = offrl_json("record", trained["run"], tmp_path / "plain.mp4", *arguments, "--plain")
    assert (found["score"], found["length"]) == (plain["score"], plain["length"]) == (3.0, 3)
    panel, picture = read(tmp_path / "panel.mp4"), read(tmp_path / "plain.mp4")
    assert picture.shape == (4, 400, 600, 3)
    assert panel.shape[:2] == (4, 400)
    assert panel.shape[2] > 600 + BAR_WIDTH
    assert np.abs(panel[:, :, :600].astype(int) - picture).mean() < 2  # as far as the encoder tells them apart
    is_taken = np.abs(panel[:, HEADER:, 600:].astype(int) - TAKEN).max(axis=3) < 60
    assert (is_taken.sum(axis=(1, 2)) > 20).tolist() == [True, True, True, False]  # nothing is taken at the end


def test_record_without_pillow_says_what_to_install(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused = offrl("record", trained["run"], tmp_path / "v.mp4", "--max-steps", 3, code=2).stderr
    assert refused.startswith("error: ActionPanel: pillow is not installed; install it with: ")
    assert "-m pip install 'imageio" in refused
    assert len(refused.splitlines()) == 1
    assert not (tmp_path / "v.mp4").exists()


def test_report_holds_evaluation_dataset_and_command(data, trained, tmp_path):
    kept = Path(trained["run"]) / "evaluation.json"
    offrl("evaluate", trained["run"], "--episodes", 2, "--workers", 0, "--out", kept, "--quiet")
    found = offrl_json("report", trained["run"])
    page = Path(found["file"]).read_text(encoding="utf-8")
    assert found["file"] == str(Path(trained["run"], "report.html"))
    assert found["with_dataset"]
    (row,) = found["scores"]
    evaluated = read_json(kept)
    assert (row["name"], row["mean"], row["num_episodes"]) == ("BCQ", evaluated["mean"], 2)
    assert (found["differences"], row["interval_95"]) == ([], None)
    assert found["dataset"]["mean"] == offrl_json("inspect", data)["mean_return"]["mean"]
    assert f"offrl train {data} --algorithm bcq" in page
    assert "Mean score, BCQ" in page
    assert "Episodes by return" in page


def test_report_without_the_dataset_says_so_or_takes_the_one_it_is_told(data, seeds, tmp_path):
    out = tmp_path / "report.html"
    run = tmp_path / "moved"
    run.mkdir()
    config = read_json(seeds / "bc" / "config.json")
    config["notes"] = {}  # as of a run made in Python
    (run / "config.json").write_text(json.dumps(config))
    told = offrl("report", run, "--out", out)
    assert told.stderr.startswith("warning: without the dataset: the run does not say where its data is; name it with")
    assert told.stdout.endswith("without the dataset\n")
    assert "offrl train DIRECTORY --algorithm bc" in out.read_text()
    assert offrl_json("report", run, "--out", out, "--data", data)["with_dataset"]

    other = tmp_path / "other"
    offrl("collect", "CartPole-v1", other, "--transitions", 20, "--seed", 1, "--workers", 1, "--quiet")
    assert "which the run was trained on" in offrl("report", run, "--data", other, code=2).stderr
    config["notes"] = {"data": str(other)}
    (run / "config.json").write_text(json.dumps(config))
    replaced = offrl("report", run, "--out", out, "--json")
    assert replaced.stderr.startswith("warning: without the dataset: ")
    assert not json.loads(replaced.stdout)["with_dataset"]


def test_seeds_that_python_loops_over_are_three_runs_with_a_dataset_and_commands(data, tmp_path):
    for seed in (0, 1, 2):
        replay = open_replay(data, progress=False)
        algorithm = BC(replay.spec, seed=seed)
        fit(algorithm, replay, FitConfig(updates=2, log_period=1), run=tmp_path / f"bc-{seed}", loggers=[])
    found = offrl("report", tmp_path, "--quiet", "--json")
    page = (tmp_path / "report.html").read_text()
    assert (found.stderr, json.loads(found.stdout)["with_dataset"]) == ("", True)
    assert "BC, 3 training seeds" in page
    assert (
        f"<pre>offrl train {data} --algorithm bc --encoder mlp --algorithm-seed 2 --updates 2 --set log_period=1</pre>"
        in page
    )

    shutil.copytree(tmp_path / "bc-2", tmp_path / "bc-3")
    again = offrl("report", tmp_path, "--quiet", "--json")
    line = f"{tmp_path / 'bc-2'} has the settings and the seed of {tmp_path / 'bc-3'}, which is newer: left out"
    assert again.stderr == f"warning: {line}\n"
    assert json.loads(again.stdout)["left_out"] == [line]


def test_report_of_several_runs_has_a_command_for_each(seeds, tmp_path):
    out = tmp_path / "report.html"
    shown = offrl("report", seeds, "--out", out, "--quiet").stdout.splitlines()
    assert shown[0].startswith("Not played yet: offrl evaluate RUN --out RUN/evaluation.json")
    assert shown[-1].startswith(f"{out}  ")
    assert shown[-1].endswith(" MB, with the dataset")
    page = out.read_text()
    assert page.count("<pre>offrl train ") == 3
    assert page.count('class="key c') == 2  # one for each algorithm
    assert "BC, one training run" in page
    assert "BCQ, 2 training seeds" in page


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_record_films_several_episodes_one_after_the_other(trained, tmp_path):
    found = offrl_json(
        *("record", trained["run"], tmp_path / "v.mp4", "--seeds", "3,7"),
        *("--max-steps", 4, "--plain", "--device", "cpu"),
    )
    assert [(episode["seed"], episode["length"]) for episode in found["episodes"]] == [(3, 4), (7, 4)]
    # Each has a picture for every observation, the first and the last among them, and a still of half a second.
    assert len(read(tmp_path / "v.mp4")) == 2 * (5 + 25)


@pytest.mark.parametrize("seeds", ["", "one", "5:5", "3:1", "-1,2", "0:100000", "1:99999999999999"])
def test_seeds_that_are_none_are_refused(trained, tmp_path, seeds):
    refused = offrl("record", trained["run"], tmp_path / "v.mp4", f"--seeds={seeds}", code=2).stderr
    assert "--seeds" in refused
    assert "expected seeds such as 3,7,9 or a range such as 10:13" in refused


def test_watch_writes_a_film_where_there_is_no_display(trained, tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    result = offrl("watch", trained["run"], "--out", tmp_path / "v.mp4", "--plain", "--device", "cpu")
    assert "no display here; the film goes to" in result.stderr
    assert (tmp_path / "v.mp4").stat().st_size > 1000


def test_watch_plays_the_episode_in_a_window_with_the_score_of_evaluate(trained, monkeypatch):
    monkeypatch.setattr("offrl.envs._display.has_display", lambda: True)
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")  # a window that nobody sees
    score = offrl_json("evaluate", trained["run"], "--episodes", 1, "--workers", 0, "--device", "cpu")["mean"]
    assert offrl_json("watch", trained["run"], "--plain", "--device", "cpu")["score"] == score


def test_a_film_counts_the_steps_of_policies_with_legal_actions_too():
    class Masked:
        spec = SimpleNamespace(action_masks=True)

        def __call__(self, observation, action_mask):
            return action_mask.argmax(axis=1)

    steps = []
    counted = _Counted(Masked(), SimpleNamespace(update=lambda: steps.append(1)))
    shown = SimpleNamespace(observation=np.zeros(2), action_mask=np.array([False, True]), end=None)
    player = Player(counted, num_rows=1)
    player.begin(0, 7, shown)
    assert player.policy(*player.inputs()).tolist() == [1]
    assert steps == [1]


class ShownBar(tqdm):
    """A bar that believes itself on a terminal."""

    def __init__(self, *args, disable=None, **how):
        super().__init__(*args, disable=disable is True, mininterval=0, **how)


@pytest.mark.parametrize("command", ["record", "watch"])
def test_the_look_ahead_for_the_panel_has_a_bar_of_its_own(trained, tmp_path, monkeypatch, command):
    monkeypatch.setattr("offrl.envs._display.has_display", lambda: False)
    monkeypatch.setattr("tqdm.tqdm", ShownBar)
    out = tmp_path / "v.mp4"
    arguments = ("record", trained["run"], out, "--max-steps", 4) if command == "record" else ("watch", trained["run"])
    result = offrl(*arguments, *(("--out", out) if command == "watch" else ()), "--device", "cpu", "--json")
    length = json.loads(result.stdout)["length"]
    last_look, last_step = (result.stderr.rindex(f"{name}: {length} steps") for name in ("look ahead", command))
    assert last_look < last_step
    if command == "watch":
        assert result.stderr.index("no display here") < result.stderr.index("look ahead")
    quiet = offrl(*arguments, *(("--out", out) if command == "watch" else ()), "--device", "cpu", "--quiet")
    assert quiet.stderr == ""


@pytest.mark.parametrize("stated", [None, "fast", 0, float("nan"), True])
def test_an_environment_that_states_no_speed_is_played_and_filmed_at_50_pictures_a_second(
    trained, tmp_path, monkeypatch, stated
):
    monkeypatch.setitem(CartPoleEnv.metadata, "render_fps", stated)
    assert offrl_json("evaluate", trained["run"], "--episodes", 1, "--workers", 0)["episodes"] == 1
    offrl("record", trained["run"], tmp_path / "v.mp4", "--max-steps", 2, "--plain")
    assert read_speed(tmp_path / "v.mp4") == 50


@pytest.mark.parametrize(("stated", "speed"), [(12.6, 13), (0.2, 1)])
def test_a_speed_that_is_no_whole_number_is_rounded(trained, tmp_path, monkeypatch, stated, speed):
    monkeypatch.setitem(CartPoleEnv.metadata, "render_fps", stated)
    offrl("record", trained["run"], tmp_path / "v.mp4", "--max-steps", 2, "--plain")
    assert read_speed(tmp_path / "v.mp4") == speed


def read_speed(path):
    """Pictures a second of a video."""
    frames = pytest.importorskip("imageio_ffmpeg").read_frames(str(path))
    speed = next(frames)["fps"]
    frames.close()
    return speed

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episode_checks import assert_same_episodes
from gymnasium.spaces import Box, Dict, Discrete
from naive_replay import NAMES, make_episode, make_spec

from offrl import TaskSpec
from offrl.datasets._episodes import EpisodeLog
from offrl.datasets._minari_files import dataset_id, is_minari, minari_path, read_minari
from offrl.datasets._minari_writer import write_minari
from offrl.errors import ConfigError, DatasetError, MissingDependencyError, SpecMismatchError

minari = pytest.importorskip("minari", reason="needs the extra minari")
from minari.data_collector import EpisodeBuffer  # noqa: E402
from minari.dataset.minari_storage import MinariStorage  # noqa: E402
from minari.serialization import serialize_space  # noqa: E402


def log_of(episodes, spec):
    return EpisodeLog(spec, iter(episodes), sum(map(len, episodes)), 0, {"id": "test"}, {"name": "test", "seed": 3})


def read(path, spec=None, **told):
    with read_minari(path, spec, **told) as log:
        return log, list(log.episodes)


def saved(path, episodes, spec):
    path.mkdir()
    return write_minari(path, path.name, log_of(episodes, spec))


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A writer of a dataset as others make it: two episodes of 2 and 1 steps."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))

    def make(observation_space=None, action_space=None, observations=None, **changes):
        buffers = []
        for steps in (2, 1):
            arrays = {
                "observations": np.arange(2.0 * (steps + 1)).reshape(steps + 1, 2),
                "actions": np.arange(steps) + 1,
                "rewards": np.full(steps, 0.5),
                "terminations": np.arange(steps) == 1,
                "truncations": np.arange(steps) == 2,
                "infos": {"behaviour_probability": np.zeros(steps + 1)},  # not ours, whatever its name
            }
            if observations is not None:
                arrays["observations"] = observations[: steps + 1]
            buffers.append(EpisodeBuffer(**{**arrays, **changes}))
        storage = MinariStorage.new(
            tmp_path / "foreign-v0",
            observation_space=observation_space or Box(-9, 9, (2,), np.float64),
            action_space=action_space or Discrete(3),
            data_format="hdf5",
        )
        storage.update_metadata({"dataset_id": "foreign-v0", "minari_version": minari.__version__})
        storage.update_episodes(buffers)
        return tmp_path / "foreign-v0"

    return make


def test_a_round_trip_gives_back_the_same_bytes(tmp_path):
    legal = np.array([[True, True, True], [True, True, True]])
    written = [
        make_episode(0, 1),
        make_episode(1, 1, terminated=False),
        make_episode(2, 5, terminated=False, leading=2),
        replace(make_episode(3, 4), truncated=True),
        make_episode(4, 2, behaviour_probability=np.array([0.5, np.nan], np.float32), action_mask=legal),
    ]
    said = saved(tmp_path / "log-v0", written, make_spec(3))
    assert (said.num_transitions, said.num_episodes, said.num_frames) == (13, 5, 13 + 5 + 2)
    log, found = read(tmp_path / "log-v0")
    assert (log.spec, log.environment, log.generator) == (make_spec(3), {"id": "test"}, {"name": "test", "seed": 3})
    assert log.num_transitions == 13
    assert_same_episodes(found, written)


def test_a_round_trip_of_vectors_gives_back_the_same_bytes(tmp_path):
    written = [make_episode(seed, steps, pixels=False) for seed, steps in enumerate((1, 4))]
    saved(tmp_path / "log-v0", written, make_spec(pixels=False))
    assert_same_episodes(read(tmp_path / "log-v0")[1], written)


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged = [make_episode(0), make_episode(1, 2, terminated=False)]
    saved(Path("folder"), logged, make_spec())
    log, found = read(Path("folder"))
    assert log.num_transitions == 5
    assert_same_episodes(found, logged)


def test_large_frames_are_not_changed_by_jpeg(tmp_path):
    """Which Minari applies to what looks like a picture, from 32 pixels a side."""
    frames = np.random.default_rng(0).integers(256, size=(3, 40, 32), dtype=np.uint8)
    noise = replace(make_episode(0, 2), observations=frames)
    saved(tmp_path / "log-v0", [noise], TaskSpec.pixels((4, 40, 32), NAMES))
    log, found = read(tmp_path / "log-v0")
    assert_same_episodes(found, [noise])
    assert log.notes == ()


def test_jpeg_of_others_is_noted(foreign):
    frames = np.full((3, 40, 32), 77, np.uint8)
    path = foreign(observation_space=Box(0, 255, (40, 32), np.uint8), observations=frames)
    log, (first, _) = read(path, TaskSpec.pixels((4, 40, 32), NAMES))
    assert np.abs(first.observations.astype(int) - 77).max() <= 2
    assert log.notes == ("Minari holds these frames as JPEG: they are near those that were recorded, not equal",)


def test_minari_loads_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    path = minari_path("minari:toys/log-v0")
    assert path == tmp_path / "toys" / "log-v0"
    assert dataset_id(path) == "toys/log-v0"
    path.mkdir(parents=True)
    episode = make_episode(0, 3)
    write_minari(path, "toys/log-v0", log_of([episode], make_spec()))
    assert is_minari(path)
    assert list(minari.list_local_datasets()) == ["toys/log-v0"]
    dataset = minari.load_dataset("toys/log-v0")
    (found,) = dataset.iterate_episodes()
    np.testing.assert_array_equal(found.observations, episode.observations)
    np.testing.assert_array_equal(found.actions, episode.actions)
    assert (found.terminations.tolist(), found.truncations.tolist()) == ([False, False, True], [False, False, False])
    assert (dataset.observation_space.shape, dataset.action_space.n) == ((2, 3), 3)
    assert all(dataset.observation_space.contains(frame) for frame in found.observations)


def test_a_dataset_of_others_by_hand(foreign):
    log, (first, second) = read(foreign())
    assert log.spec == TaskSpec.vector(2, ("action 0", "action 1", "action 2"))
    assert (log.num_transitions, log.num_frames) == (3, 5)
    assert log.generator == {"name": "foreign-v0"}
    assert first.observations.dtype == np.float32
    assert first.observations.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (first.actions.tolist(), first.rewards.tolist()) == ([1, 2], [0.5, 0.5])
    assert (first.terminated, first.truncated, first.behaviour_probability) == (True, False, None)
    assert (second.terminated, second.truncated, len(second)) == (False, False, 1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (1, 2, 3)])
def test_gray_frames_of_others_become_stacks(foreign, shape):
    frames = np.arange(18, dtype=np.uint8).reshape(3, *shape)
    path = foreign(observation_space=Box(0, 255, shape, np.uint8), observations=frames)
    unnamed = ("action 0", "action 1", "action 2")
    assert read(path)[0].spec == TaskSpec.pixels((4, 2, 3), unnamed)
    assert read(path, stack=2, action_names=NAMES)[0].spec == TaskSpec.pixels((2, 2, 3), NAMES)
    with pytest.raises(ConfigError, match="2 action names; expected 3"):
        read(path, action_names=("left", "right"))
    log, (first, _) = read(path, make_spec(4))
    assert log.spec == make_spec(4)
    np.testing.assert_array_equal(first.observations, frames.reshape(3, 2, 3))
    with pytest.raises(SpecMismatchError, match=r"observations \(4, 2, 3\), 3 actions; expected \(4, 2, 4\)"):
        read(path, TaskSpec.pixels((4, 2, 4), NAMES))


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("action_space", Box(-1, 1, (2,), np.float32), r"actions Box\("),
        ("action_space", Discrete(3, start=1), r"actions Discrete\(3, start=1\)"),
        ("observation_space", Box(0, 255, (4, 5, 3), np.uint8), r"observations Box\("),
        ("observation_space", Dict({"a": Discrete(2)}), r"observations Dict\("),
    ],
)
def test_other_spaces_are_refused(foreign, name, space, message):
    path = foreign()
    rewrite(path, **{name: serialize_space(space)})
    with pytest.raises(DatasetError, match=f"foreign-v0: {message}"):
        read(path)


def rewrite(path, **changes):
    metadata = {**json.loads((path / "metadata.json").read_text()), **changes}
    (path / "metadata.json").write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.array([1, 3])[:1]}, "episode 0: rewards has 2 rows; expected 1"),
        ({"rewards": np.array([1.0, np.inf])}, "episode 0: rewards has inf at row 1"),
        ({"terminations": np.array([True, False])}, "episode 0: terminated is true at row 0, inside an episode"),
        ({"observations": np.zeros((2, 2))}, r"episode 0: observations is float64 \[2, 2\]"),
        ({"observations": np.full((3, 2), np.nan)}, "episode 0: observations has nan at row 0"),
    ],
)
def test_bad_episodes_are_named(foreign, changes, message):
    with pytest.raises(DatasetError, match=f"foreign-v0: {message}"):
        read(foreign(**changes))


def test_what_is_no_dataset_is_named(foreign, tmp_path):
    with pytest.raises(DatasetError, match=r"no dataset that Minari can read .*FileNotFoundError"):
        read(tmp_path / "nowhere")
    path = foreign()
    whole = (path / "metadata.json").read_text()
    for text in ("", "[1]", '{"observation_space": 3}'):
        (path / "metadata.json").write_text(text)
        with pytest.raises(DatasetError, match=r"foreign-v0: no dataset that Minari can read"):
            read(path)
    (path / "metadata.json").write_text(whole)
    data = (path / "main_data.hdf5").read_bytes()
    (path / "main_data.hdf5").write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"foreign-v0: no dataset that Minari can read \(OSError: .*truncated"):
        read(path)


def test_no_environment_is_made_to_see_the_spaces(foreign):
    """Its entry point would be imported, and a file must not choose what code runs."""
    path = foreign()
    spec = {"id": "Evil-v0", "entry_point": "antigravity:Game"}
    rewrite(path, observation_space=None, env_spec=json.dumps(spec))
    with pytest.raises(DatasetError, match="it does not say its spaces"):
        read(path)
    assert "antigravity" not in sys.modules


def test_names_without_a_version_are_no_ids(tmp_path):
    assert dataset_id(tmp_path / "log-v3") == "log-v3"
    for name in ("log", "lo g-v0"):
        with pytest.raises(ConfigError, match=f"'{name}' is no id of a dataset of Minari's"):
            dataset_id(tmp_path / name)


def test_another_task_is_refused(tmp_path):
    saved(tmp_path / "log-v0", [make_episode(0)], make_spec(2))
    with pytest.raises(SpecMismatchError, match=r"observation_shape is \(2, 2, 3\); expected \(3, 2, 3\)"):
        read(tmp_path / "log-v0", make_spec(3))


def test_without_minari_the_command_to_install_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingDependencyError, match=r"-m pip install 'minari\[hdf5\]"):
        read(tmp_path)

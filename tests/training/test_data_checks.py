"""What is said before training of data that an algorithm cannot learn from, for every algorithm of the shelf."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from offrl import Algorithm, FitConfig, LearnerConfig, TaskSpec, fit, open_replay
from offrl.algorithms import BC, BVE, DQN
from offrl.cli import main
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.errors import ConfigError, DatasetError
from offrl.networks import MLPEncoder
from offrl.replay import Contents
from offrl.shards import write_dataset
from offrl.training._data_checks import check_data

SHELF = {name: algorithm_class(name) for name in ALGORITHMS}
NAMES = ("left", "right", "stay")
UNUSED = "1 of 3 legal actions never occur in the data ('stay'): no transition says what they are worth"
ONE = (
    "all transitions to train on are of one episode: what is learned is what happened in it once; record more episodes"
)


def dataset(
    directory: Path,
    lengths: tuple[int, ...] = (3, 3),
    *,
    actions=(0, 1, 2, 2, 1, 0),
    rewards=(1.0, 0.0, 2.0, 0.0, 1.0, 0.0),
    terminated: bool = True,
    shape: tuple[int, ...] = (2,),
    scale=(1.0,),
    **settings,
) -> Path:
    """Episodes that all terminate, or are all cut."""
    num_rows, ends = sum(lengths), np.cumsum(lengths) - 1
    rng = np.random.default_rng(0)
    is_end = np.isin(np.arange(num_rows), ends)
    size = (num_rows + len(lengths), *shape)
    observations = rng.integers(256, size=size, dtype=np.uint8) if len(shape) > 1 else rng.normal(size=size)
    write_dataset(
        directory,
        observations=observations if len(shape) > 1 else (observations * scale).astype(np.float32),
        actions=np.resize(actions, num_rows),
        rewards=np.resize(rewards, num_rows),
        terminated=is_end & terminated,
        truncated=is_end & (not terminated),
        action_names=NAMES,
        **settings,
    )
    return directory


def said(kind: type[Algorithm], directory: Path, **settings) -> list[str]:
    """The warnings of one update."""
    replay = open_replay(directory, progress=False, include=tuple(sorted(kind.needs)), **settings)
    algorithm = kind(replay.spec, encoder=partial(MLPEncoder, hidden=(4,)))
    learner = LearnerConfig(precision="fp32", compile="off")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(algorithm, replay, FitConfig(updates=1, batch_size=4), learner=learner, loggers=[], device="cpu")
    return [str(warning.message) for warning in caught]


def learns_values(kind: type[Algorithm]) -> bool:
    """Whether rewards decide what it learns."""
    return kind is not BC


@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_data_that_can_be_learned_from_says_nothing(kind, tmp_path):
    assert said(kind, dataset(tmp_path / "data")) == []


@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_an_action_that_never_occurs_is_named(kind, tmp_path):
    (line,) = said(kind, dataset(tmp_path / "data", actions=(0, 1)))
    assert line.startswith(UNUSED)
    assert "name only the others in the replay's setting legal_actions" in line
    for setting in ("actions", "legal_actions"):
        assert said(kind, tmp_path / "data", **{setting: [0, 1]}) == []


@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_rewards_that_make_no_difference_are_said_to_who_learns_from_them(kind, tmp_path):
    zero = said(kind, dataset(tmp_path / "zero", rewards=(0.0,)))
    assert [line.partition(":")[0] for line in zero] == ["every reward is 0"] * learns_values(kind)
    cut = said(kind, dataset(tmp_path / "cut", rewards=(1.0,), terminated=False))
    assert [line.partition(":")[0] for line in cut] == ["every reward is 1 and no episode terminates"] * learns_values(
        kind
    )
    # As in CartPole: the longer, the better.
    assert said(kind, dataset(tmp_path / "ending", rewards=(1.0,))) == []
    clipped = said(kind, dataset(tmp_path / "clipped", rewards=(2.0, 3.0), terminated=False), reward_clip=1.0)
    assert len(clipped) == learns_values(kind)


@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_one_episode_is_said_and_none_of_it_can_be_held_out(kind, tmp_path):
    assert said(kind, dataset(tmp_path / "data", (6,))) == [ONE]
    with pytest.raises(ConfigError, match=r"Replay\.held_out: 0\.1 of 1 episode leaves none; expected an episode left"):
        open_replay(tmp_path / "data", held_out=0.1, progress=False)
    assert said(kind, dataset(tmp_path / "two"), sampling="top-returns:0.5") == [ONE]
    assert said(kind, tmp_path / "two", held_out=0.1) == [ONE]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SHELF)
def test_the_command_says_it_in_one_line_each(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "data", (6,), actions=(0, 1), rewards=(0.0,))
    options = ["--algorithm", name, "--quiet", "--device", "cpu", "--set", "compile=off", "--set", "precision=fp32"]
    result = CliRunner().invoke(main, ["train", "data", "--updates", "1", *options])
    assert result.exit_code == 0, result.output
    lines = [line.partition(":")[2].strip() for line in result.stderr.splitlines() if line.startswith("warning: ")]
    equal = ["every reward is 0"] * learns_values(SHELF[name])
    expected = [UNUSED.partition(":")[0], *equal, ONE.partition(":")[0]]
    assert [line.partition(":")[0] for line in lines] == expected
    resumed = CliRunner().invoke(main, ["train", "--resume", f"runs/{name}-001", "--updates", "2", "--quiet"])
    assert (resumed.exit_code, resumed.stderr) == (0, "")  # it was said


def test_rows_that_stand_alone_teach_nothing_to_who_needs_the_next_action(tmp_path):
    dataset(tmp_path / "data", (1,) * 6, terminated=False)
    with pytest.raises(DatasetError, match="the data of bve: no transition is followed by another one or terminates"):
        said(BVE, tmp_path / "data")
    assert said(DQN, tmp_path / "data") == []
    assert said(BVE, dataset(tmp_path / "ended", (1,) * 6)) == []  # a bandit: the reward is all that there is


def test_what_is_illegal_throughout_need_not_occur(tmp_path):
    mask = np.array([[True, True, False]] * 6)
    assert said(DQN, dataset(tmp_path / "data", actions=(0, 1), action_mask=mask)) == []
    mask[3, 2] = True
    assert said(DQN, dataset(tmp_path / "once", actions=(0, 1), action_mask=mask))[0].startswith(UNUSED)


@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_features_that_drown_the_others_are_named(kind, tmp_path):
    directory = dataset(tmp_path / "data", shape=(5,), scale=(1, 1e5, 1, 1e9, 1))
    (line,) = said(kind, directory)
    assert line.startswith("2 of 5 features are beyond 100: 1 (up to ")
    assert "3 (up to " in line
    assert "subtract each feature's mean" in line


def test_the_first_of_many_actions_are_named(tmp_path):
    replay = open_replay(dataset(tmp_path / "data", actions=(0,)), progress=False)
    spec = TaskSpec.vector(2, tuple("abcdefgh"))
    contents = replay.contents()._replace(action_counts=np.array([6] + [0] * 7), legal=np.ones(8, np.bool_))
    with pytest.warns(UserWarning, match=r"^7 of 8 legal actions never occur in the data \('b', 'c', 'd', \.\.\.\):"):
        check_data(DQN(spec), contents)


def test_contents_are_counted_of_what_is_drawn(tmp_path):
    dataset(tmp_path / "data")
    contents = open_replay(tmp_path / "data", progress=False).contents()
    assert isinstance(contents, Contents)
    assert (contents.action_counts.tolist(), contents.legal.tolist()) == ([2, 2, 2], [True] * 3)
    assert contents[2:7] == (0.0, 2.0, 2, 2, 4)
    two_steps = open_replay(tmp_path / "data", progress=False, n_step=2).contents()
    assert two_steps[2:7] == (0.0, 2.0, 2, 4, 2)
    best = open_replay(tmp_path / "data", progress=False, sampling="top-returns:0.5", actions=[0, 1]).contents()
    assert (best.action_counts.tolist(), best.legal.tolist()) == ([1, 1, 0], [True, True, False])
    assert best[2:7] == (0.0, 1.0, 1, 0, 2)


# What an encoder cannot take, and what an algorithm of a user's own does not handle


VECTORS, SMALL, TINY, ATARI = (5,), (10, 10), (2, 2), (84, 84)


@pytest.mark.parametrize("name", SHELF)
@pytest.mark.parametrize(
    ("shape", "encoder", "message"),
    [
        (VECTORS, "nature", "NatureEncoder: observation shape (5,); expected (C, H, W); use MLPEncoder for vectors"),
        (VECTORS, "impala", "ImpalaEncoder: observation shape (5,); expected (C, H, W); use MLPEncoder for vectors"),
        (VECTORS, "minatar", "MinAtarEncoder: observation shape (5,); expected (C, H, W); use MLPEncoder for vectors"),
        (SMALL, "nature", "NatureEncoder: frames of (10, 10) pixels; expected larger ones; use MinAtarEncoder"),
        (SMALL, "compact", "CompactEncoder: frames of (10, 10) pixels; expected larger ones; use MinAtarEncoder"),
        (TINY, None, "MinAtarEncoder: frames of (2, 2) pixels; expected larger ones; pass an encoder of your own"),
        (ATARI, "mlp", "MLPEncoder: observation shape (4, 84, 84); expected (D,); use NatureEncoder or CompactEncoder"),
    ],
)
def test_an_observation_that_the_encoder_cannot_take(name, shape, encoder, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "data", shape=shape)
    chosen = [] if encoder is None else ["--encoder", encoder]
    result = CliRunner().invoke(main, ["train", "data", "--updates", "1", "--algorithm", name, *chosen, "--quiet"])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


class Unmasked(DQN):
    """An algorithm of a user's own that can say what it does not handle: the task says whether it has masks."""

    def make_networks(self, encoder):
        if self.spec.action_masks:
            raise ConfigError("a task with action masks", where="Unmasked", expected="all actions legal everywhere")
        super().make_networks(encoder)


def test_an_action_mask_that_an_algorithm_does_not_handle_is_refused_where_it_is_constructed(tmp_path):
    mask = np.array([[True, True, True]] * 5 + [[True, False, True]])
    with pytest.raises(ConfigError, match="Unmasked: a task with action masks; expected all actions legal everywhere"):
        said(Unmasked, dataset(tmp_path / "masked", action_mask=mask))
    assert said(Unmasked, dataset(tmp_path / "free")) == []

import re
from functools import partial

import numpy as np
import pytest
from game_logs import SPEC, STEPS, lines, log_of, play
from naive_replay import make_spec, save_frames

from offrl.collection import collect
from offrl.datasets import convert, find_problems, inspect_dataset
from offrl.envs import CartPoleDriver, CartPoleMixture, RandomBehaviour, make
from offrl.errors import DatasetError
from offrl.replay import ingest
from offrl.shards import Episode, write_dataset

ENDS = np.cumsum(STEPS) - 1
FIRST = ENDS + 1 - STEPS


@pytest.fixture
def log():
    return log_of(play())


# --- sound data: no line at all


@pytest.mark.parametrize("behaviour", [RandomBehaviour(), CartPoleDriver(), CartPoleMixture()])
def test_what_offrl_collects_has_no_problem(tmp_path, behaviour):
    collect(partial(make, "CartPole-v1"), behaviour, tmp_path, transitions=1200, workers=1, progress=False)
    assert inspect_dataset(ingest(tmp_path, progress=False)).warnings == ()


def test_a_sound_log_has_no_problem_in_any_form(tmp_path, log):
    assert lines(tmp_path / "uint8", log) == []
    floats = {name: (log[name] / 128 - 1).astype(np.float16) for name in ("states", "next_states")}
    assert lines(tmp_path / "float", {**log, **floats}, spec=SPEC) == []
    vectors = {name: log[name][:, -1, 3].astype(np.float32) / 255 for name in ("states", "next_states")}
    assert lines(tmp_path / "vectors", {**log, **vectors, "dones": log["dones"].astype(np.float64)}) == []
    save_frames(tmp_path / "frames", [play()], SPEC)
    assert lines(tmp_path / "frames") == []


def test_planes_of_booleans_are_no_dark_pictures(tmp_path):
    rng = np.random.default_rng(0)
    write_dataset(
        tmp_path / "planes",
        observations=rng.integers(2, size=(44, 4, 10, 10)).astype(bool),
        actions=rng.integers(3, size=40),
        rewards=rng.normal(size=40),
        terminated=np.arange(40) % 10 == 9,
        stack=1,
    )
    assert inspect_dataset(ingest(tmp_path / "planes", progress=False)).warnings == ()


def test_a_table_of_single_decisions_does_not_know_what_follows_them(tmp_path):
    rng = np.random.default_rng(0)
    table = {"episode": range(200), "observation_0": rng.normal(size=200), "action": rng.integers(2, size=200)}
    rows = zip(*table.values(), rng.normal(size=200), strict=True)
    lines_of_table = "\n".join(",".join(map(str, row)) for row in [(*table, "reward"), *rows])
    (tmp_path / "offers.csv").write_text(lines_of_table)
    convert(tmp_path / "offers.csv", tmp_path / "offers", "frames", progress=False)
    assert lines(tmp_path / "offers") == []


def test_a_reward_of_one_a_step_is_fine_where_episodes_end(tmp_path, log):
    assert lines(tmp_path, {**log, "rewards": np.ones(len(log["rewards"]))}) == []


def test_next_states_taken_from_the_next_row_do_no_harm_where_dones_are_right(tmp_path, log):
    log["next_states"] = np.roll(log["states"], -1, axis=0)
    assert lines(tmp_path, log) == []


# --- each trap, as a logger writes it


def one_line(found):
    (line,) = found
    return line


def test_features_that_drown_the_others_are_named(tmp_path):
    rng = np.random.default_rng(0)
    age, income = rng.uniform(20, 80, 44), rng.uniform(20_000, 120_000, 44)
    income[0] = 123_000
    write_dataset(
        tmp_path / "customers",
        observations=np.stack([age, -income], axis=1).astype(np.float32),
        actions=rng.integers(2, size=40),
        rewards=rng.normal(size=40),
        terminated=np.arange(40) % 10 == 9,
    )
    line = one_line(lines(tmp_path / "customers"))
    assert line.startswith("1 of 2 features are beyond 100: 1 (up to 1.23e+05); offrl convert DATA NEW --standardise")


def test_not_done_in_place_of_done(tmp_path, log):
    not_done = 1.0 - log["dones"]
    assert one_line(lines(tmp_path / "a", {**log, "dones": not_done})) == (
        "dones is true in 92% of the rows, as if nearly every step ended its episode; if this logger writes 'not done' "
        'there, pass dones="not_done" (and leave that out where it does not)'
    )
    assert lines(tmp_path / "b", {**log, "dones": not_done}, dones="not_done") == []


def test_dones_that_nobody_set(tmp_path, log):
    line = one_line(lines(tmp_path, {**log, "dones": np.zeros_like(log["dones"])}))
    assert line.startswith("dones is never true: every episode counts as cut, none as ended; where episodes do end")


def test_a_tail_without_an_end(tmp_path, log):
    cut = {name: array[: ENDS[4] + 5] for name, array in log.items()}  # as a logger that is stopped leaves it
    assert one_line(lines(tmp_path, cut)).startswith("1 of 6 episodes have no end in the log (a file's end, ")


def test_files_that_begin_in_the_middle_of_an_episode(tmp_path, log):
    halves = [{name: array[half] for name, array in log.items()} for half in (slice(30), slice(30, None))]
    assert one_line(lines(tmp_path, *halves)).startswith("1 of 7 episodes have no end in the log")


def test_a_time_limit_logged_as_an_end(tmp_path):
    old_gym = log_of(play([60, 31, 60, 60, 44, 60]), stack=1)
    assert one_line(lines(tmp_path / "old", old_gym)).startswith(
        "4 episodes terminate after exactly 60 steps, as at a time limit: none is longer; where a limit cut"
    )
    save_frames(tmp_path / "told", [[*play([60] * 4, terminated=False), *play([31, 44])]], SPEC)
    assert lines(tmp_path / "told") == []


@pytest.mark.parametrize("lengths", [[60, 60, 58, 57, 55, 60, 59], [49] * 6, [60, 60, 31, 44]])
def test_equal_lengths_by_chance_are_no_time_limit(tmp_path, lengths):
    assert lines(tmp_path, log_of(play(lengths), stack=1)) == []


def test_the_next_episodes_first_observation_where_one_was_cut(tmp_path):
    log = log_of(play(terminated=False))
    log["next_states"][ENDS[:-1]] = log["states"][FIRST[1:]]  # as a vector environment returns it
    never, reset = lines(tmp_path, log)
    assert never.startswith("dones is never true")
    assert reset.startswith(
        "5 episodes without an end lead to the first observation of the next episode; log the final"
    )


def test_rewards_of_the_step_before(tmp_path, log):
    late = np.roll(log["rewards"], 1)
    assert one_line(lines(tmp_path / "rolled", {**log, "rewards": late})) == (
        "6 episodes begin with a reward larger than any that follows, and none ends with one: the rewards look "
        "written one step late; log what the step returned in the same row as its action"
    )
    late[FIRST] = 0  # a variable set before the loop and logged before the step
    line = one_line(lines(tmp_path / "zero", {**log, "rewards": late}))
    assert line.startswith("6 episodes begin with a reward of 0, which no other step has: the rewards look written one")


def test_rewards_of_the_step_after(tmp_path, log):
    line = one_line(lines(tmp_path, {**log, "rewards": np.roll(log["rewards"], -1)}))
    assert line.startswith("6 episodes have a reward larger than any other just before their last step: the rewards")


def test_a_large_reward_at_both_bounds_is_no_shift(tmp_path, log):
    log["rewards"][FIRST] = -5
    assert lines(tmp_path, log) == []


def test_two_large_first_rewards_may_be_an_accident(tmp_path, log):
    log["rewards"][ENDS] = -0.1
    log["rewards"][FIRST[:2]] = -5
    assert lines(tmp_path, log) == []


def test_stacks_filled_from_the_front(tmp_path, log):
    front = {name: log[name][:, ::-1] for name in ("states", "next_states")}
    assert one_line(lines(tmp_path, {**log, **front})) == (
        "the stacks of 1 shard(s) look newest first; offrl reads them oldest first; reverse them: states[:, ::-1], and "
        "next_states likewise"
    )


def test_colours_in_place_of_a_stack(tmp_path, log):
    colours = {name: np.stack([log[name][:, -1] // n for n in (1, 2, 3)], axis=1) for name in ("states", "next_states")}
    line = one_line(lines(tmp_path, {**log, **colours}))
    assert line.startswith(
        "in 100% of the rows the next stack is not the stack moved on by one frame; save gray frames"
    )


def test_one_buffer_logged_twice(tmp_path, log):
    line = one_line(lines(tmp_path / "pixels", {**log, "next_states": log["states"]}))
    assert line.startswith("next_states equals states in 100% of the rows; log a copy of the observation before")
    vectors = log["states"][:, -1, 3].astype(np.float32) / 255
    line = one_line(lines(tmp_path / "vectors", {**log, "states": vectors, "next_states": vectors}))
    assert line.startswith("next_states equals states in 100% of the rows")


def test_rows_out_of_order(tmp_path, log):
    order = np.random.default_rng(0).permutation(len(log["actions"]))
    line = one_line(lines(tmp_path, {name: array[order] for name, array in log.items()}))
    assert line.startswith("most rows do not follow the row before: the log looks shuffled, or next_states is not one")


def test_actions_that_nobody_took(tmp_path, log):
    line = one_line(lines(tmp_path / "some", {**log, "actions": log["actions"] % 2}, spec=SPEC))
    assert line.startswith("1 of 3 actions never occur: jump; train BCQ or BC")
    line = one_line(lines(tmp_path / "matlab", {**log, "actions": log["actions"] + 1}))
    assert line == "1 of 4 actions never occur: action 0; if the log counts its actions from 1, save actions - 1"


def test_rewards_that_say_nothing(tmp_path, log):
    nothing = np.zeros(len(log["rewards"]))
    assert one_line(lines(tmp_path, {**log, "rewards": nothing})).startswith("every reward is 0; look whether it was")


def with_frames(change):
    """The sound log with every frame changed."""
    return log_of([Episode(change(e.observations), e.actions, e.rewards, True, False) for e in play()])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.zeros_like, "100% of the frames have one colour only; save what the environment draws"),  # not rendered
        (lambda frames: (frames / 255).astype(np.uint8), "no pixel is brighter than 1 of 255; save the frames as"),
        (lambda frames: np.repeat(frames[:1], len(frames), axis=0), "100% of the frames repeat the one before; log a"),
    ],
)
def test_frames_that_show_nothing(tmp_path, change, words):
    assert one_line(lines(tmp_path, with_frames(change))).startswith(words)


def test_a_few_rows_that_go_on_do_not_tell_that_nothing_ever_changes(tmp_path):
    """Decisions that stand alone, but for two customers who came again as they were."""
    ends = np.ones(40, np.bool_)
    ends[[3, 20]] = False
    seen = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    seen[4], seen[21] = seen[3], seen[20]
    given = {"actions": np.arange(40) % 3, "rewards": np.arange(40) % 2, "terminated": ends}
    write_dataset(tmp_path / "data", observations=seen, **given)
    assert not lines(tmp_path / "data")


def test_vectors_that_never_change(tmp_path):
    log = with_frames(lambda frames: np.repeat(frames[:1], len(frames), axis=0))
    vectors = {name: log[name][:, -1, 3].astype(np.float32) / 255 for name in ("states", "next_states")}
    assert one_line(lines(tmp_path, {**log, **vectors})).startswith("100% of the observations repeat the one before")


def test_floats_of_another_scale(tmp_path, log):
    def scaled(scale):
        return {**log, **{name: scale(log[name].astype(np.float32)) for name in ("states", "next_states")}}

    line = one_line(lines(tmp_path / "symmetric", scaled(lambda gray: gray / 127.5 - 1)))
    assert line.startswith("float pixels are up to 1 gray levels off the uint8 kept: they are not gray / 128 - 1; save")
    off, bright = lines(tmp_path / "luminance", scaled(lambda gray: (gray + 0.37) / 256))
    assert off.startswith("float pixels are up to")
    assert bright.startswith("no float pixel is below 0, which is gray 128; save the frames as uint8 0..255")


def test_a_shard_under_two_names(tmp_path):
    log = log_of(play([30, 25]))
    assert one_line(lines(tmp_path, log, log)).startswith("2 of 4 episodes are copies of others; remove the copies")


# --- what cannot be right stops the reading


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: np.eye(3)[a], r"actions is float64 \[71, 3\]; expected integers \[N\]; they are one-hot: save"),
        (lambda a: a.astype(np.float32), r"actions is float32 \[71\]; expected integers; they are whole numbers: save"),
        (lambda a: a - 1.5, r"actions is float64 \[71\]; expected integers; number the discrete actions \(a table of"),
        (lambda a: np.stack([a, a, a], axis=1) / 3, r"actions is float64 \[71, 3\]; .*; number the discrete actions"),
        (lambda a: a + 1, r"actions has 3 at row \d+; expected integers 0\.\.2; they look counted from 1: save"),
        (lambda a: a * 2, r"actions has 4 at row \d+; expected integers 0\.\.2; re-create the shard, or pass a spec"),
    ],
)  # fmt: skip
def test_actions_that_are_none(tmp_path, log, change, message):
    with pytest.raises(DatasetError, match=r"shard-0\.npz: " + message):
        lines(tmp_path, {**log, "actions": change(log["actions"])}, spec=SPEC)


CHANNELS_LAST = (
    r"states is uint8 \[71, 24, 24, 4\]; expected .*; the channels are last: save states.transpose\(0, 3, 1, 2\)"
)


@pytest.mark.parametrize(
    ("change", "spec", "message"),
    [
        (lambda s: s.transpose(0, 2, 3, 1), None, CHANNELS_LAST),
        (lambda s: s.transpose(0, 2, 3, 1), SPEC, CHANNELS_LAST),
        (lambda s: s[:, -1], None, r"states is uint8 \[71, 24, 24\]; .*; single frames need the axis of a stack"),
        (lambda s: np.stack([s] * 3, axis=-1), SPEC, r"states is uint8 \[71, 4, 24, 24, 3\]; .*; colour has no place"),
        (lambda s: s[:, :, :12], SPEC, r"states is uint8 \[71, 4, 12, 24\]; .*; a dataset has one shape: re-create"),
        (lambda s: s.astype(np.int64), None, r"states is int64 .*; if it holds gray 0\.\.255: save states.astype"),
        (lambda s: s.astype(np.float32), None, r"states has values from 0 to 255 .*; save the frames as uint8"),
        (lambda s: s / 127.5 - 1.5, None, r"states has values from -1.5 to 0.5 in rows .*; expected float pixels"),
        (lambda s: s / 255, None, r"states has only multiples of 1/255 from 0 to 1; .*; save the frames as uint8: np"),
        (lambda s: (s / 255).astype(np.float16), None, r"states has only multiples of 1/255 from 0 to 1"),
    ],
)  # fmt: skip
def test_pixels_that_are_none(tmp_path, log, change, spec, message):
    changed = {name: change(log[name]) for name in ("states", "next_states")}
    with pytest.raises(DatasetError, match=r"shard-0\.npz: " + message):
        lines(tmp_path, {**log, **changed}, spec=spec)


def test_shards_of_two_shapes(tmp_path, log):
    small = {name: log[name][:, :, ::2, ::2] for name in ("states", "next_states")}
    message = (
        "shard-1.npz: states is uint8 [71, 4, 12, 12]; expected [71, 4, 24, 24]; a dataset has one shape: re-create"
    )
    with pytest.raises(DatasetError, match=re.escape(message)):
        lines(tmp_path, log, {**log, **small})


# --- several at once


def test_the_gravest_comes_first_and_what_follows_from_it_is_not_said(tmp_path, log):
    found = lines(tmp_path, {**log, "next_states": log["states"], "rewards": log["rewards"] * 0})
    assert [line[:30] for line in found] == ["next_states equals states in 1", "every reward is 0; look whethe"]


def test_each_problem_says_what_it_means_and_how_to_mend_it(tmp_path):
    steps = Episode(np.zeros((3, 2, 3), np.uint8), np.array([0, 0]), np.zeros(2, np.float32), True, False)
    save_frames(tmp_path, [[steps]], make_spec())
    problems = find_problems(ingest(tmp_path))
    assert [problem.what for problem in problems] == [
        "2 of 3 actions never occur: right, jump",
        "every reward is 0",
        "100% of the frames have one colour only",
    ]
    assert all(problem.means.endswith(".") and problem.hint for problem in problems)

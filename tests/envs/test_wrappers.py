import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from offrl.envs import DiscreteActions, ExactGrayStack, GrayStack, NoProgressStop, RandomActions, StallStop, to_gray
from offrl.errors import ConfigError, UnknownEnvironmentError


class Script(gymnasium.Env):
    """Plays given frames and rewards; terminates after the last one. Keeps the actions it was given."""

    action_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, frames, rewards=None, truncate=False):
        self.frames = [np.asarray(frame, dtype=np.uint8) for frame in frames]
        self.rewards = rewards or [0.0] * (len(frames) - 1)
        self.truncate = truncate
        self.observation_space = spaces.Box(0, 255, self.frames[0].shape, np.uint8)
        self.actions = []

    def reset(self, *, seed=None, options=None):
        self.step_number = 0
        return self.frames[0], {}

    def step(self, action):
        self.actions.append(action)
        self.step_number += 1
        last = self.step_number == len(self.rewards)
        frame = self.frames[min(self.step_number, len(self.frames) - 1)]
        return frame, self.rewards[self.step_number - 1], last and not self.truncate, last and self.truncate, {}


def rgb(red, green, blue):
    return np.full((2, 3, 3), (red, green, blue), dtype=np.uint8)


def rewarded(rewards, **options):
    return Script([np.zeros((2, 2))], rewards=list(rewards), **options)


def play(env):
    """Steps until the episode ends; (steps, terminated, truncated, info)."""
    env.reset()
    for steps in range(1, 10_000):
        _, _, terminated, truncated, info = env.step(0)
        if terminated or truncated:
            return steps, terminated, truncated, info
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize(
    ("color", "gray"),
    [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((255, 255, 255), 255), ((102, 204, 102), 162)],
)
def test_gray_is_the_weighted_mean_rounded_to_nearest(color, gray):
    assert (to_gray(rgb(*color)) == gray).all()  # 76.245, 149.685, 29.07, 255, 161.874


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_gray_is_within_half_of_the_real_number(color):
    real = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    assert abs(int(to_gray(rgb(*color))[0, 0]) - real) <= 0.5 + 1e-9


def test_discrete_actions_play_the_rows_of_the_table():
    table = np.array([[0.0, 0.5, 1.0], [-1.0, 0.25, 0.0]])
    inner = Script([rgb(0, 0, 0)] * 3)
    env = DiscreteActions(inner, table, ("one", "two"))
    env.reset()
    env.step(1)
    env.step(0)
    np.testing.assert_array_equal(inner.actions, [[-1.0, 0.25, 0.0], [0.0, 0.5, 1.0]])
    assert env.action_space == spaces.Discrete(2)


def test_an_environment_cannot_change_the_action_table():
    inner = Script([rgb(0, 0, 0)] * 2)
    env = DiscreteActions(inner, np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), ("one", "two"))
    env.reset()
    env.step(1)
    inner.actions[0][:] = 9
    assert env.action(1).tolist() == [1, 1, 1]


def test_an_action_table_of_the_wrong_width_is_refused():
    with pytest.raises(UnknownEnvironmentError, match=r"table of shape \(2, 2\) with 2 names"):
        DiscreteActions(Script([rgb(0, 0, 0)]), np.zeros((2, 2)), ("one", "two"))


def test_stacks_are_oldest_first_and_start_with_the_first_frame_repeated():
    env = GrayStack(Script([rgb(g, g, g) for g in (10, 20, 30, 40)]), stack=3)
    first, _ = env.reset()
    observations = [first, *(env.step(0)[0] for _ in range(3))]
    assert [o[:, 0, 0].tolist() for o in observations] == [[10, 10, 10], [10, 10, 20], [10, 20, 30], [20, 30, 40]]
    assert all(env.observation_space.contains(o) for o in observations)


def test_a_second_episode_has_no_frames_of_the_first():
    env = GrayStack(Script([rgb(g, g, g) for g in (10, 20)]), stack=3)
    env.reset()
    env.step(0)
    assert env.reset()[0][:, 0, 0].tolist() == [10, 10, 10]


def test_the_raw_frame_is_in_the_info():
    env = GrayStack(Script([rgb(1, 2, 3), rgb(4, 5, 6)]))
    assert env.reset()[1]["rgb"][0, 0].tolist() == [1, 2, 3]
    assert env.step(0)[4]["rgb"][0, 0].tolist() == [4, 5, 6]


def test_hidden_rows_are_gray_128_and_the_raw_frame_keeps_them():
    env = GrayStack(Script([rgb(10, 10, 10)] * 2), stack=2, hidden_rows=slice(1, None))
    for observation, info in (env.reset(), env.step(0)[::4]):
        assert observation[:, :, 0].tolist() == [[10, 128], [10, 128]]
        assert (info["rgb"] == 10).all()


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_gray_frames_are_stacked_as_they_are(shape):
    frame = np.arange(6).reshape(shape)
    observation, info = GrayStack(Script([frame]), stack=2).reset()
    assert observation.tolist() == [[[0, 1, 2], [3, 4, 5]]] * 2
    assert "rgb" not in info


def test_vectors_are_no_frames():
    with pytest.raises(UnknownEnvironmentError, match="expected uint8 frames"):
        GrayStack(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda env: StallStop(env, window=-1), r"StallStop\.window: -1; expected 1 or more, a whole number"),
        (lambda env: StallStop(env, window=0), r"StallStop\.window: 0; expected 1 or more"),
        (lambda env: StallStop(env, threshold="-1"), r"StallStop\.threshold: '-1'; expected a number"),
        (lambda env: NoProgressStop(env, 2.5), r"NoProgressStop\.steps: 2\.5; expected 1 or more, a whole number"),
        (lambda env: GrayStack(env, stack=0), r"GrayStack\.stack: 0; expected 1 or more, a whole number"),
        (lambda env: ExactGrayStack(env, stack=2.0), r"ExactGrayStack\.stack: 2\.0; expected 1 or more"),
        (lambda env: RandomActions(env, 0.5), r"action space: Box.*; expected Discrete"),
        (
            lambda env: RandomActions(gymnasium.make("CartPole-v1"), "0.5"),
            r"RandomActions\.epsilon: '0\.5'; expected a number in \[0, 1\]",
        ),
    ],
)
def test_settings_out_of_range_are_refused(wrap, message):
    with pytest.raises(ConfigError, match=message):
        wrap(Script([rgb(0, 0, 0)]))


def test_stall_stops_when_the_mean_of_the_window_falls_to_the_threshold():
    rewards = [5.0, -1.0, -1.0, -1.0, 0.0, 0.0]  # means of the last 3: 5, 2, 1, -1
    assert play(StallStop(rewarded(rewards), window=3)) == (4, False, True, {"stopped_by": "stall"})


def test_stall_takes_all_rewards_while_they_are_fewer_than_the_window():
    rewards = [5.0, -8.0, 0.0]  # means: 5, -1.5
    assert play(StallStop(rewarded(rewards), window=100))[0] == 2


def test_stall_forgets_the_last_episode():
    env = StallStop(rewarded([0.0, -3.0, 9.0]), window=100)
    assert [play(env)[0], play(env)[0]] == [2, 2]
    env.reset()
    assert env.step(0)[3] is False


def test_no_progress_counts_steps_since_the_last_positive_reward():
    rewards = [-0.1, 3.0, 0.0, -0.1, 0.0, 0.0]
    assert play(NoProgressStop(rewarded(rewards), steps=3)) == (5, False, True, {"stopped_by": "no progress"})
    assert play(NoProgressStop(rewarded([-0.1] * 4), steps=3))[0] == 3


@pytest.mark.parametrize("truncate", [False, True])
def test_stop_rules_leave_the_environments_own_ending_alone(truncate):
    own_ending = (2, not truncate, truncate, {})
    assert play(StallStop(rewarded([0.0, -100.0], truncate=truncate))) == own_ending
    assert play(NoProgressStop(rewarded([0.0, 0.0], truncate=truncate), steps=2)) == own_ending

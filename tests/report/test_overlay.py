from functools import partial

import numpy as np
import pytest
import torch

from offrl import DiscreteBCQ, TaskSpec, TorchPolicy, envs
from offrl.errors import ConfigError
from offrl.evaluation import trace_episode
from offrl.policies import Choices
from offrl.report import ActionPanel, Moment
from offrl.report.overlay import ALLOWED, BAR_WIDTH, HEADER, REFUSED, TAKEN
from offrl.spec import default_action_names

pytest.importorskip("PIL")

NAMES = ("left", "right", "stay")
ROW = 20
HEIGHT = HEADER + 3 * ROW + 6


def draw(
    scores,
    allowed=(True, True, True),
    action=None,
    *,
    names=NAMES,
    limits=(0.0, 10.0),
    height=HEIGHT,
    score=0.0,
    step=0,
):
    choices = Choices(torch.tensor([scores]), torch.tensor([allowed]), torch.zeros(1, len(scores)))
    panel = ActionPanel(names, lambda observation: choices, limits)
    return panel(Moment(np.zeros(4), action, score, step, height))


def columns(panel, action, color):
    """The columns that have this colour in each line of the action's row. [ROW, W] -> a list for each line."""
    row = panel[HEADER + ROW * action : HEADER + ROW * (action + 1)]
    return [np.flatnonzero(line).tolist() for line in (row == color).all(axis=2)]


def length(panel, action, color):
    """From the first to the last column of the bar's edge, which is drawn whole."""
    (edge,) = {tuple(line) for line in columns(panel, action, color)[2 : -2 : ROW - 5]}  # the first and last line
    assert edge == tuple(range(edge[0], edge[-1] + 1))
    return len(edge)


def test_a_bar_is_as_long_as_its_score_on_the_scale():
    panel = draw([10.0, 5.0, 0.0])
    assert [length(panel, action, ALLOWED) for action in range(3)] == [BAR_WIDTH, BAR_WIDTH // 2, 1]
    again = draw([30.0, 10.0, 0.0], limits=(-10.0, 30.0))
    assert [length(again, action, ALLOWED) for action in range(3)] == [BAR_WIDTH, BAR_WIDTH // 2, round(BAR_WIDTH / 4)]


def test_what_lies_outside_the_scale_ends_with_it():
    panel = draw([99.0, -99.0, np.nan])
    assert [length(panel, action, ALLOWED) for action in range(3)] == [BAR_WIDTH, 1, 1]
    assert length(draw([5.0] * 3, limits=(5.0, 5.0)), 0, ALLOWED) == BAR_WIDTH


def test_the_bar_of_a_refused_action_is_pale_and_hatched():
    panel = draw([10.0, 10.0, 5.0], [True, False, False])
    assert not any(columns(panel, 1, ALLOWED))
    assert [length(panel, action, REFUSED) for action in (1, 2)] == [BAR_WIDTH, BAR_WIDTH // 2]
    inside = columns(panel, 1, REFUSED)[ROW // 2]
    assert BAR_WIDTH / 5 < len(inside) < BAR_WIDTH / 3  # every fourth pixel, and the ends
    assert len(columns(panel, 0, ALLOWED)[ROW // 2]) == BAR_WIDTH  # full


def test_the_action_taken_is_marked_before_its_name_and_in_its_bar():
    panel = draw([4.0, 10.0, 5.0], [True, True, False], action=1)
    taken = [columns(panel, action, TAKEN)[ROW // 2] for action in range(3)]
    assert [bool(each) for each in taken] == [False, True, False]
    mark, bar = taken[1][:-BAR_WIDTH], taken[1][-BAR_WIDTH:]
    assert mark == list(range(12, 20))
    assert bar == list(range(bar[0], bar[0] + BAR_WIDTH))
    assert not any(columns(panel, 1, ALLOWED))


def test_a_random_action_that_is_not_allowed_is_marked_and_hatched():
    panel = draw([4.0, 10.0, 5.0], [True, False, True], action=1)
    assert length(panel, 1, TAKEN) == BAR_WIDTH
    assert len(columns(panel, 1, TAKEN)[ROW // 2]) < BAR_WIDTH / 2


def test_the_same_moment_gives_the_same_bytes_and_the_score_is_in_the_header():
    first, again, later = (draw([4.0, 10.0, 5.0], action=0, score=score) for score in (1.0, 1.0, 2.0))
    np.testing.assert_array_equal(first, again)
    different = np.flatnonzero((first != later).any(axis=(1, 2)))
    assert 0 < different[0] < different[-1] < HEADER


def test_many_actions_make_the_panel_higher_than_the_picture():
    panel = draw([1.0] * 40, [True] * 40, names=default_action_names(40), height=100)
    assert panel.shape[0] == HEADER + 40 * 15 + 6
    assert draw([1.0] * 3, height=700).shape[0] == 700


@pytest.mark.parametrize("name", ["x", "a name that is much longer than its column is wide " * 3])
def test_nothing_is_written_at_the_edges(name):
    panel = draw([1.0, 2.0, 3.0], names=(name, "right", "stay"), action=0, score=-1234.5, step=100_000)
    assert panel.shape[1] < 500
    assert (panel[:HEADER, -10:] == 255).all()
    assert (panel[HEADER + ROW : HEADER + 3 * ROW, -10:] == 255).all()
    assert (panel[HEADER + ROW :, :12] == 255).all()


@pytest.mark.parametrize("limits", [(1.0, 0.0), (np.nan, np.nan), (0.0, np.inf)])
def test_a_scale_is_a_finite_interval(limits):
    with pytest.raises(ConfigError, match=r"ActionPanel.limits: .*; expected finite numbers, low <= high"):
        draw([1.0, 2.0, 3.0], limits=limits)


def test_the_scale_of_an_episode_holds_all_its_scores():
    make_env = partial(envs.make, "CartPole-v1")
    policy = TorchPolicy(DiscreteBCQ(TaskSpec.vector(4, default_action_names(2)), seed=1))
    trace = trace_episode(policy, make_env, 7)
    lowest, highest = np.unravel_index([trace.scores.argmin(), trace.scores.argmax()], trace.scores.shape)[0]
    observations = []
    env = make_env()
    observations.append(env.reset(seed=7)[0])
    observations += [env.step(int(action))[0] for action in trace.actions[:-1]]
    panel = ActionPanel.of_episode(policy, make_env, 7)
    height = HEADER + 2 * ROW + 6
    lengths = {
        step: sorted(length(panel(Moment(observation, None, 0.0, step, height)), action, ALLOWED) for action in (0, 1))
        for step, observation in enumerate(observations)
        if step in (lowest, highest)
    }
    assert lengths[lowest][0] == 1
    assert lengths[highest][1] == BAR_WIDTH


def test_an_action_that_is_never_taken_has_a_word_and_the_shortest_bar():
    panel = draw([-np.inf, 5.0, 10.0], allowed=(False, True, True))
    assert length(panel, 0, REFUSED) == 1
    number = ActionPanel(NAMES, lambda observation: None, (0.0, 10.0))._number
    assert [number(-np.inf), number(5.0)] == ["illegal", "5.0"]


@pytest.mark.parametrize(
    ("limits", "written"),
    [
        ((0.0, 9.0), ["0.00", "9.00"]),
        ((-1234.5, 1e3), ["-1234", "1000"]),
        ((12.34, 12.36), ["12.3400", "12.3600"]),
        ((-123.46, -123.44), ["-123.460", "-123.440"]),  # a digit less than there might be
        ((-3e12, 5e12), ["-3.0e+12", "5.0e+12"]),
        ((0.0, 1e-9), ["0.000000", "0.000000"]),
    ],
)
def test_the_panels_of_all_episodes_are_equally_wide_whatever_their_scores(limits, written):
    width = draw([1.0, 2.0, 3.0]).shape[1]
    panel = draw([*limits, -np.inf], (True, True, False), limits=limits)
    assert panel.shape[1] == width
    assert (panel[HEADER + ROW : HEADER + 3 * ROW, -10:] == 255).all()
    number = ActionPanel(NAMES, lambda observation: None, limits)._number
    assert [number(end) for end in limits] == written
    assert max(len(number(each)) for each in (-1e38, 1e38, 0.1, -0.1)) <= 8

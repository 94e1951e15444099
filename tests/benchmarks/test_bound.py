"""The search for the best lap of a track: seeded, never worse than the expert, its laps those of the environment."""

import json

import numpy as np
import pytest

from benchmarks.bound import FIRST_TRACK, RANGES, Lap, Track, search
from benchmarks.leaderboard import FIRST_EPISODE
from offrl.envs.drivers import EXPERT


def best_at_400(settings, to_beat):
    """A track on which the boldest do best, up to a grip of 400; over 500 the car is lost."""
    if settings.grip > 500:
        return Lap(300.0, 400, finished=False)
    return Lap(930.0 - abs(settings.grip - 400) / 10, 700, finished=True)


def test_the_search_finds_what_is_best_and_begins_with_the_expert():
    found = search(best_at_400, 200, np.random.default_rng(0))
    assert found.expert == best_at_400(EXPERT, 0) == Lap(910.0, 700, finished=True)
    assert found.best.score == pytest.approx(930, abs=0.5)
    assert found.best == best_at_400(found.settings, 0)
    assert [*found.best_after] == [1, 2, 4, 8, 16, 32, 64, 128, 200]
    assert found.best_after[1] == 910.0
    assert found.best_after[200] == found.best.score
    assert all(low <= getattr(found.settings, name) <= high for name, (low, high) in RANGES.items())


def test_the_same_seed_searches_alike_and_another_does_not():
    found = [search(best_at_400, 30, np.random.default_rng(seed)).settings for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_where_nothing_is_better_the_expert_stays():
    found = search(lambda settings, to_beat: Lap(900.0, 1000, finished=False), 20, np.random.default_rng(0))
    assert (found.settings, found.best) == (EXPERT, found.expert)


def test_a_lap_that_is_not_drawn_is_the_same_lap():
    # With all tiles a lap of 50 steps would score 995: at 995 it is left, here after 50 steps.
    blind, drawn = (Track(1_003_000, drawn=drawn).drive(EXPERT, to_beat=995) for drawn in (False, True))
    assert blind == drawn
    assert (blind.steps, blind.finished) == (50, False)
    assert blind.score == pytest.approx(9 * 1000 / 275 - 50 * 0.1)  # nine of the 275 tiles


def test_the_tracks_are_among_the_leaderboards():
    assert FIRST_TRACK == FIRST_EPISODE


def test_the_page_shows_the_bound(hooks, tmp_path):
    assert "`python -m benchmarks bound`" in hooks.bound()
    row = {"mean": 924.5, "interval_95": [923.0, 926.0], "mean_steps": 755.0, "finished": 20}
    machine = {"processor": "<Abacus>", "cores": 2, "python": "3.11", "gpu": None, "versions": {}}
    result = {
        "command": "c",
        "seeds": "TUNING_SEEDS[3000:3020]",
        "laps_a_track": 250,
        "expert": row,
        "best": {**row, "mean": 938.0, "interval_95": [937.0, 939.0], "mean_steps": 620.0},
        "best_minus_expert": {"mean": 13.5, "interval_95": [12.0, 15.0]},
        "mean_best_after_laps": {"1": 924.5, "250": 938.0},
        "tracks": [{}] * 20,
        "machine": machine,
    }
    (tmp_path / "carracing").mkdir()
    (tmp_path / "carracing" / "bound.json").write_text(json.dumps(result))
    shown = hooks.bound()
    assert "| the best settings found for each track | 938.0 (937.0 to 939.0) | 620 | 20 |" in shown
    assert "Paired by track, the search adds 13.5 (12.0 to 15.0). 20 tracks" in shown
    assert "924.5 after 1, 938.0 after 250." in shown

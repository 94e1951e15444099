import numpy as np
import pytest

from offrl import envs
from offrl.collection import RECIPES, Recipe, collect, recipes
from offrl.envs import CartPoleMixture
from offrl.shards import Manifest
from offrl.system.ranks import ALONE
from offrl.system.workers import require_sendable

CARTPOLE = {"environment": "CartPole-v1", "options": {}}


def collected(recipe, directory, monkeypatch):
    """What `recipe` asks `collect` for."""
    asked = {}
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "collect", lambda *positional, **named: asked.update(named, positional=positional))
        recipe.collect(directory, transitions=7, seed=3, workers=2, progress=False)
    return asked


def test_the_standard_datasets_are_there_under_their_names():
    kinds = ("random", "mixed", "bold", "varied", "medium", "expert", "replay")
    assert list(RECIPES) == [f"carracing/{kind}" for kind in kinds]


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "carracing/replay"])
def test_a_standard_dataset_is_played_in_worker_processes(name, tmp_path, monkeypatch):
    asked = collected(RECIPES[name], tmp_path, monkeypatch)
    make_env, behaviour, directory = asked.pop("positional")
    require_sendable((make_env, behaviour), "test", "the recipe")
    assert directory == tmp_path
    assert make_env.func is envs.make
    assert asked == {
        "transitions": 7,
        "seed": 3,
        "workers": 2,
        "progress": False,
        "environment": {"id": "CarRacing-v3", "hud": "visible", "no_progress_steps": 150},
        "ranks": ALONE,
    }


@pytest.mark.parametrize(("name", "most", "least"), [("medium", 0.904, 0.004), ("expert", 0.9808, 0.0008)])
def test_steady_drivers_have_exact_probabilities(name, most, least, monkeypatch):
    pytest.importorskip("Box2D")
    env = envs.make("CarRacing-v3")
    env.reset(seed=0)
    behaviour = RECIPES[f"carracing/{name}"].behaviour
    behaviour.begin(env, np.random.default_rng(0))
    told = {round(behaviour(None)[1], 9) for _ in range(400)}  # the car stands: the driver repeats itself
    assert told == {most, least}


def test_a_recipe_gives_the_bytes_of_its_behaviour(tmp_path):
    recipe = Recipe("cartpole/mixed", "for this test", CartPoleMixture(), **CARTPOLE)
    ours = recipe.collect(tmp_path / "ours", transitions=50, seed=4, workers=1)
    make_env = lambda: envs.make("CartPole-v1")  # noqa: E731  (with one worker it need not travel)
    theirs = collect(make_env, CartPoleMixture(), tmp_path / "theirs", transitions=50, seed=4, workers=1)
    assert ours == theirs == Manifest.load(tmp_path / "ours")


def test_a_recipe_without_a_behaviour_is_what_a_double_dqn_plays(tmp_path):
    recipe = Recipe("cartpole/replay", "for this test", None, **CARTPOLE)
    manifest = recipe.collect(tmp_path, transitions=50, seed=4)
    assert manifest.complete
    assert manifest.num_transitions >= 50
    assert manifest.generator["name"] == "offrl.collect_online"
    assert manifest.generator["algorithm"] == "dqn"
    assert manifest.generator["algorithm_config"]["double"]

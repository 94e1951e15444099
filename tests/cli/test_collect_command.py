import pytest
from click.testing import CliRunner
from run_offrl import offrl, offrl_json

from offrl.cli import main
from offrl.cli.behaviours import named_behaviour
from offrl.collection import RECIPES, Recipe
from offrl.envs import CartPoleMixture, DriverSettings, RandomBehaviour, TrackDriver
from offrl.envs.drivers import EXPERT
from offrl.shards import Manifest


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A standard dataset that is quickly made, and an empty current directory."""
    recipe = Recipe("cartpole/tiny", "for tests", CartPoleMixture(), environment="CartPole-v1", options={})
    monkeypatch.setitem(RECIPES, recipe.name, recipe)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def workers_of(command, *arguments):
    return main.commands[command].make_context(command, [*arguments]).params["workers"]


def test_a_standard_dataset_goes_into_a_directory_of_its_name(tiny):
    found = offrl_json("collect", "cartpole/tiny", "--transitions", 9, "--seed", 2, "--workers", 1)
    assert found["directory"] == "data/cartpole-tiny"
    manifest = Manifest.load(tiny / "data" / "cartpole-tiny")
    assert manifest.num_transitions == found["transitions"] >= 9
    assert manifest.generator["behaviour"] == "CartPoleMixture()"
    assert manifest.generator["seed"] == 2


def test_a_standard_dataset_goes_where_one_says(tiny):
    offrl("collect", "cartpole/tiny", "elsewhere", "--transitions", 9, "--workers", 1)
    assert [path.name for path in tiny.iterdir()] == ["elsewhere"]
    assert Manifest.load(tiny / "elsewhere").complete


@pytest.mark.parametrize("more", [("--behaviour", "random"), ("--hud", "hidden")])
def test_a_standard_dataset_is_taken_as_it_is(tiny, more):
    refused = offrl("collect", "cartpole/tiny", "--transitions", 9, *more, code=2).stderr
    assert (
        refused == f"error: collect: {more[0]} beside cartpole/tiny; expected a dataset as it is; leave out {more[0]}\n"
    )
    assert list(tiny.iterdir()) == []


def test_a_learner_plays_in_one_process(tiny):
    common = ("collect", "carracing/replay", "--transitions", 9, "--workers")
    refused = offrl(*common, 2, code=2).stderr
    assert refused == (
        "error: carracing/replay: 2 workers; expected 1: a double DQN plays and learns in one process; leave it out\n"
    )
    assert list(tiny.iterdir()) == []


def test_a_misspelt_dataset_is_told_the_nearest_one():
    refused = offrl("collect", "carracing/mixd", "--transitions", 9, code=2).stderr
    assert refused.startswith("error: collect: no dataset 'carracing/mixd'; expected carracing/random, carracing/mixed")
    assert refused.endswith("; did you mean carracing/mixed?\n")


def test_an_environment_in_a_namespace_is_no_dataset(tmp_path):
    refused = offrl("collect", "Mine/Nothing-v5", tmp_path, "--transitions", 9, code=2).stderr
    assert "no environment 'Mine/Nothing-v5' in Gymnasium" in refused


def test_an_environment_needs_a_directory():
    assert (
        "collect: no DIRECTORY; expected one to write"
        in offrl("collect", "CartPole-v1", "--transitions", 9, code=2).stderr
    )


def test_the_datasets_are_listed():
    lines = offrl("collect", "--list").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [[name, each.description] for name, each in RECIPES.items()]


def test_workers_are_a_number_or_auto():
    common = ("collect", "CartPole-v1", "data", "--transitions", "9")
    assert workers_of(*common) is None
    assert workers_of(*common, "--workers", "auto") is None
    assert workers_of(*common, "--workers", "3") == 3
    assert workers_of("evaluate", "run", "--workers", "0") == 0
    assert "'none' is not a valid integer" in offrl(*common, "--workers", "none", code=2).stderr
    assert "0 is not in the range x>=1" in offrl(*common, "--workers", 0, code=2).stderr


def test_drivers_are_named_by_their_skill():
    assert named_behaviour("driver:expert", "CarRacing-v3") == TrackDriver(EXPERT)
    assert named_behaviour("driver:0.7", "CarRacing-v3") == TrackDriver(DriverSettings.of_skill(0.7))


def test_a_driver_without_a_road_is_refused(tmp_path):
    common = ("collect", "CartPole-v1", tmp_path, "--transitions", 9, "--behaviour", "driver:0.7")
    assert "driver:0.7: a driver in CartPole-v1; expected CarRacing-v3" in offrl(*common, code=2).stderr


def test_a_mixture_that_there_is_not_is_refused(tmp_path):
    common = ("collect", "Acrobot-v1", tmp_path / "data", "--transitions", 9, "--behaviour", "mixture")
    refused = offrl(*common, code=2).stderr
    assert refused.startswith("error: --behaviour: no mixture for Acrobot-v1; expected random or package.module:Class")
    assert list(tmp_path.iterdir()) == []
    assert named_behaviour("mixture", "CartPole-v1") == CartPoleMixture()
    assert named_behaviour(None, "Acrobot-v1") == RandomBehaviour()


def test_the_standard_datasets_are_listed_in_words_and_in_json():
    listed = offrl_json("collect", "--list")
    assert listed["carracing/random"] == "uniformly random actions"
    assert "carracing/random  uniformly random actions" in offrl("collect", "--list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "no DATASET or ENVIRONMENT"), (("carracing/mixed",), "no --transitions; expected how many")],
)
def test_what_is_missing_is_named(arguments, message):
    assert message in offrl("collect", *arguments, code=2).stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("offrl train --algorithm bc", ["bcq", "bc"]),
        ("offrl train --set n_", ["n_step="]),
        ("offrl train --algorithm bc --set thresh", []),  # a setting of BCQ
        ("offrl train --encoder com", ["compact"]),
        ("offrl collect carracing/m", ["carracing/mixed", "carracing/medium"]),
    ],
)
def test_a_shell_completes_names(words, offered):
    environment = {"_OFFRL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    result = CliRunner().invoke(main, env=environment, prog_name="offrl", standalone_mode=True)
    assert [line.removeprefix("plain,") for line in result.stdout.split()] == offered

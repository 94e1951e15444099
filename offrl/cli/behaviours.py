"""`offrl collect`; and behaviours by name: drivers, mixtures, and classes of the user's own."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click import argument, option

from offrl.cli.console import (
    PATH,
    completing,
    hud_option,
    output_options,
    refuse_beside,
    say_on_interrupt,
    show,
    workers_option,
)
from offrl.cli.names import CAR_RACING, environment_factory, load_class, named_recipe
from offrl.errors import ConfigError

if TYPE_CHECKING:
    from offrl.envs.behaviours import Behaviour
    from offrl.envs.making import Env, EnvFactory
    from offrl.shards.manifest import Manifest
    from offrl.system.ranks import Ranks

DRIVER = "driver:"
"""What the name of a driver begins with where a policy is asked for."""


class Driven(NamedTuple):
    """A driver, and the environment that it plays in."""

    behaviour: Behaviour
    environment: str
    make_env: partial[Env]


def load_driver(name: str, *, environment: str | None, hud: str | None, epsilon: float = 0.0) -> Driven:
    """The behaviour behind driver:expert, driver:random or driver:SKILL.

    Args:
        name: as above.
        environment: a Gymnasium id; None for CarRacing's.
        hud: CarRacing's bar, which no driver looks at.
        epsilon: probability of a random action.

    Raises:
        ConfigError: no such driver, one that cannot drive there, or a setting outside what is allowed.
    """
    from offrl.envs.behaviours import EpsilonGreedy, RandomBehaviour
    from offrl.envs.drivers import EXPERT, DriverSettings, TrackDriver

    word = name.removeprefix(DRIVER)
    environment = environment or CAR_RACING
    behaviour: Behaviour
    if word == "random":
        behaviour = RandomBehaviour()
    else:
        try:
            settings = EXPERT if word == "expert" else DriverSettings.of_skill(float(word))
        except ValueError as error:
            raise ConfigError(
                f"no driver {word!r}",
                where=name,
                expected="driver:expert, driver:random or driver:SKILL with a number in [0, 1], such as driver:0.7",
            ) from error
        if environment != CAR_RACING:
            raise ConfigError(
                f"a driver in {environment}", where=name, expected=CAR_RACING, hint="only driver:random plays elsewhere"
            )
        behaviour = TrackDriver(settings)
    if epsilon != 0:
        behaviour = EpsilonGreedy(behaviour, epsilon)
    return Driven(behaviour, environment, environment_factory(environment, hud))


BEHAVIOURS = {"random": "offrl.envs.behaviours:RandomBehaviour"}


def named_behaviour(name: str | None, environment: str) -> Behaviour:
    """The behaviour of that name; "mixture" is what offrl has for this environment, None that or random actions.

    Raises:
        ConfigError: no such name, no such mixture, or a class that needs arguments.
    """
    from offrl.envs.behaviours import RandomBehaviour
    from offrl.envs.drivers import default_behaviour

    if name is None or name == "mixture":
        found = default_behaviour(environment)
        if name is not None and isinstance(found, RandomBehaviour):
            raise ConfigError(
                f"no mixture for {environment}",
                where="--behaviour",
                expected="random or package.module:Class; mixtures are for CarRacing and CartPole",
            )
        return found
    if name.startswith(DRIVER):
        return load_driver(name, environment=environment, hud=None).behaviour
    kind = load_class(name, BEHAVIOURS, "behaviour")
    if not (isinstance(kind, type) and callable(getattr(kind, "begin", None)) and "__call__" in dir(kind)):
        raise ConfigError(
            f"{name} is {kind!r}",
            where="--behaviour",
            expected="a class with begin(env, rng) and __call__(observation), see offrl.envs.Behaviour",
        )
    try:
        behaviour: Behaviour = kind()
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be constructed ({error})", where="--behaviour", expected="a class that needs no arguments"
        ) from error
    return behaviour


_KINDS = ("random", "expert", "mixed", "noisy", "replay")
_NO_PROGRESS_STEPS = 150  # a car that stands still teaches little


def _recipe_names() -> list[str]:
    from offrl.collection.recipes import RECIPES

    return list(RECIPES)


@click.command(short_help="Collect transitions: a standard dataset, or a behaviour of your choice.")
@argument("environment", metavar="DATASET|ENVIRONMENT", required=False, shell_complete=completing(_recipe_names))
@argument("directory", type=PATH, required=False)
@option(
    "--transitions",
    type=click.IntRange(1),
    help="At least so many: the last shard of 4 episodes is always finished.",
)
@option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the dataset.")
@option(
    "--behaviour",
    help="mixture, random, in CarRacing driver:SKILL (0 to 1, or expert), or package.module:Class; "
    "default: a mixture where offrl has one.",
)
@option(
    "--kind",
    type=click.Choice([*_KINDS, "all"]),
    help="A dataset by the protocol of arXiv:2111.04714, made with an agent that learns online; all makes the five.",
)
@option("--list", "list_datasets", is_flag=True, help="List the standard datasets, and collect nothing.")
@hud_option
@workers_option(1)
@output_options
def collect(
    environment: str | None,
    directory: Path | None,
    transitions: int | None,
    seed: int,
    behaviour: str | None,
    kind: str | None,
    list_datasets: bool,
    hud: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl collect carracing/mixed --transitions 60000

    Writes a standard DATASET (--list shows them) into DIRECTORY, by default data/carracing-mixed or the like; or
    plays ENVIRONMENT, a Gymnasium id. With --kind, a double DQN learns in ENVIRONMENT first, and the dataset goes into
    DIRECTORY/KIND; the kinds of one DIRECTORY share what it learned. A complete dataset is not collected again; after
    ctrl-C the same command continues. The data depends on the seed, not on the number of workers. Under torchrun all
    ranks play, but for --kind and carracing/replay.
    """
    from offrl.collection.collector import collect as collect_dataset
    from offrl.system.torchrun import join

    if list_datasets:
        from offrl.collection.recipes import RECIPES

        show({recipe.name: recipe.description for recipe in RECIPES.values()}, as_json)
        return
    if environment is None:
        raise ConfigError(
            "no DATASET or ENVIRONMENT", where="collect", expected="one", hint="--list shows the datasets"
        )
    if transitions is None:
        raise ConfigError("no --transitions", where="collect", expected="how many", hint="add --transitions 60000, say")
    ranks = join()
    settings: dict[str, Any] = {
        "transitions": transitions,
        "seed": seed,
        "workers": workers if ranks.count == 1 else ranks.workers(workers) or 1,
        "progress": not quiet and ranks.is_first,
    }
    recipe = named_recipe(environment)
    if recipe is not None:
        given = {"--behaviour": behaviour, "--kind": kind, "--hud": hud}
        refuse_beside(recipe.name, given, where="collect", expected="a dataset as it is")
        directory = directory or Path("data") / recipe.name.replace("/", "-")
        say_on_interrupt("interrupted; the same command continues from here")
        _show_counts(directory, recipe.collect(directory, ranks=ranks, **settings), ranks, as_json)
        return
    if directory is None:
        raise ConfigError("no DIRECTORY", where="collect", expected=f"one to write {environment} into")
    extra = {"no_progress_steps": _NO_PROGRESS_STEPS} if environment == CAR_RACING else {}
    make_env = environment_factory(environment, hud, **extra)
    settings["environment"] = {"id": environment, **make_env.keywords}
    say_on_interrupt("interrupted; the same command continues from here")
    if kind is None:
        chosen = named_behaviour(behaviour, environment)
        _show_counts(directory, collect_dataset(make_env, chosen, directory, ranks=ranks, **settings), ranks, as_json)
        return
    if ranks.count > 1:
        raise ConfigError("several ranks", where="collect --kind", expected="one process: the agent learns in it")
    refuse_beside("--kind", {"--behaviour": behaviour}, where="collect", expected="one of the two")
    _collect_kinds(make_env, directory, _KINDS if kind == "all" else (kind,), settings, as_json)


def _collect_kinds(
    make_env: EnvFactory, directory: Path, kinds: Sequence[Any], settings: Mapping[str, Any], as_json: bool
) -> None:
    from offrl.collection.protocol import collect_protocol

    found = {kind: _counts(directory / kind, collect_protocol(make_env, kind, directory, **settings)) for kind in kinds}
    if len(kinds) == 1:
        show(found[kinds[0]], as_json)
        return
    lines = [
        f"{kind:<8}{each['transitions']:>12,}{each['episodes']:>10,}  {each['directory']}"
        for kind, each in found.items()
    ]
    show(found, as_json, text="\n".join([f"{'kind':<8}{'transitions':>12}{'episodes':>10}  directory", *lines]))


def _show_counts(directory: Path, manifest: Manifest, ranks: Ranks, as_json: bool) -> None:
    if ranks.is_first:
        show(_counts(directory, manifest), as_json)


def _counts(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """What a collection came to."""
    return {
        "directory": str(directory),
        "transitions": manifest.num_transitions,
        "episodes": sum(shard.num_episodes for shard in manifest.shards),
        "shards": len(manifest.shards),
    }

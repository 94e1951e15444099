"""Behaviours by name: drivers, mixtures, and classes of the user's own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from offrl.cli.names import CAR_RACING, environment_factory, load_class
from offrl.errors import ConfigError

if TYPE_CHECKING:
    from offrl.envs.behaviours import Behaviour
    from offrl.envs.making import Env

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

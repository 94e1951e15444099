"""CarRacing's drivers, with a skill or settings of their own, and what each environment's data is made by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.envs.behaviours import Behaviour, Bursts, RandomBehaviour
from offrl.envs.car_racing import ACTION_TABLE, ENV_ID
from offrl.envs.cart_pole import CartPoleMixture
from offrl.errors import ConfigError


@dataclass(frozen=True)
class DriverSettings:
    """How `TrackDriver` drives. Lengths in world units (a tile is 3.5 long, the road 13 wide), time in seconds.

    Attributes:
        look: how far ahead the driver aims, in tiles at speed 100, beyond two tiles.
        steering_gain: steering per radian between the heading and the aim.
        steering_damping: steering against the spin, per radian a second.
        grip: the sideways acceleration that the driver dares; sets the speed in bends.
        max_speed: on straights.
        braking: the slowing-down that the driver counts on.
        lost_speed: the speed to find back with, while the car slides or the aim lies far to its side.
    """

    look: float = 7.0
    steering_gain: float = 3.3
    steering_damping: float = 0.67
    grip: float = 167.0
    max_speed: float = 85.0
    braking: float = 64.0
    lost_speed: float = 40.0

    @classmethod
    def of_skill(cls, skill: float) -> DriverSettings:
        """Settings between `HOPELESS` (0) and `EXPERT` (1), each so far from the one to the other.

        Less skill is a slower car that steers less. The mean return rises with it: up to about 0.6 the time is over
        before the lap, in proportion to the speed, from then on laps are finished, faster and faster.

        Raises:
            ConfigError: a skill outside 0 .. 1.
        """
        if not 0 <= skill <= 1:
            raise ConfigError(f"{skill}", where="DriverSettings.of_skill", expected="a number in [0, 1]")
        worst, best = asdict(HOPELESS), asdict(EXPERT)
        return cls(**{name: (1 - skill) * worst[name] + skill * best[name] for name in best})


HOPELESS = DriverSettings(
    look=9.0, steering_gain=0.5, steering_damping=0.09, grip=2.0, max_speed=2.0, braking=64.0, lost_speed=40.0
)
"""So slow that it gains no more than the time costs: a mean return just below 0."""
EXPERT = DriverSettings(look=9.0, steering_gain=5.0, steering_damping=0.9, grip=200.0)
"""The best settings found: 924.7 over `SCORE_SEEDS[:100]`, every lap finished (benchmarks/results/expert.json)."""


@dataclass
class TrackDriver:
    """Drives CarRacing with sight of the track: pure pursuit, and a speed that the bends ahead allow.

    Attributes:
        settings: how it drives.
    """

    settings: DriverSettings = EXPERT

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Looks at the track of the episode that has been reset in `env`."""
        self._car = env.unwrapped.car  # type: ignore[attr-defined]
        self._track = np.array([(x, y) for _, _, x, y in env.unwrapped.track])  # type: ignore[attr-defined]
        step = np.roll(self._track, -1, axis=0) - self._track
        lengths = np.linalg.norm(step, axis=1)
        heading = np.arctan2(step[:, 1], step[:, 0])
        turn = np.abs((np.roll(heading, -1) - heading + math.pi) % (2 * math.pi) - math.pi)
        curvature = _circular_mean(turn / np.maximum(lengths, 1e-3), window=5)
        self._allowed_speed = self._speed_profile(curvature, float(lengths.mean()))
        self._tile = 0

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """The action that fits best; the driver is certain of it (probability 1)."""
        hull = self._car.hull
        x, y = hull.position
        vx, vy = hull.linearVelocity
        speed = math.hypot(vx, vy)
        tile = self._nearest_tile(x, y)
        aim_x, aim_y = self._track[(tile + round(2 + 0.01 * speed * self.settings.look)) % len(self._track)]
        # The car's heading is (-sin, cos) of its angle; a positive spin turns it to the left.
        sine, cosine = math.sin(hull.angle), math.cos(hull.angle)
        dx, dy = aim_x - x, aim_y - y
        bearing = math.atan2(dx * cosine + dy * sine, dy * cosine - dx * sine)
        steering = self.settings.steering_gain * bearing + self.settings.steering_damping * hull.angularVelocity
        steer = max(-1.0, min(1.0, round(2 * steering) / 2))
        allowed_speed = float(self._allowed_speed[tile])
        slip = abs(math.atan2(vx * cosine + vy * sine, vy * cosine - vx * sine)) if speed > 5 else 0.0
        is_lost = abs(bearing) > _LOST_BEARING or slip > _LOST_SLIP
        if is_lost:
            allowed_speed = min(allowed_speed, self.settings.lost_speed)
        gas, brake = self._pedals(allowed_speed - speed)
        if abs(steer) == 1 and speed > 30:
            gas = min(gas, 0.5)
        if is_lost and abs(hull.angularVelocity) > _SPINNING:
            gas = 0.0  # the driven wheels are the rear ones: gas keeps the spin going, in circles on the grass
        return _ACTION_OF[steer, gas, brake], 1.0

    def _speed_profile(self, curvature: NDArray[np.float64], tile_length: float) -> NDArray[np.float64]:
        """The highest speed at each tile that still lets the car brake for every bend ahead. [N] -> [N]."""
        grip, braking = self.settings.grip, self.settings.braking
        bend_squared = grip / np.maximum(curvature, 1e-3)
        allowed_squared = np.full_like(curvature, self.settings.max_speed**2)
        for ahead in range(30):
            distance = max(0, ahead - 2) * tile_length
            np.minimum(allowed_squared, np.roll(bend_squared, -ahead) + 2 * braking * distance, out=allowed_squared)
        return np.sqrt(allowed_squared)

    def _nearest_tile(self, x: float, y: float) -> int:
        squared = ((self._track - (x, y)) ** 2).sum(axis=1)
        return int(squared.argmin())

    @staticmethod
    def _pedals(missing_speed: float) -> tuple[float, float]:
        """(gas, brake) for the speed that is missing; negative where the car is too fast."""
        if missing_speed > 4:
            return 1.0, 0.0
        if missing_speed > 0:
            return 0.5, 0.0
        return (0.0, 0.0) if missing_speed > -4 else (0.0, 0.5)


_LOST_BEARING = 0.8  # radians between the heading and the aim
_LOST_SLIP = 0.4  # radians between the heading and the way the car moves
_SPINNING = 2.0  # radians a second

_ACTION_OF = {tuple(vector): index for index, vector in enumerate(ACTION_TABLE.tolist())}


@dataclass
class CarRacingMixture:
    """Drivers from careful to bold and from steady to erratic, one per episode: a dataset to learn from offline.

    A good third of the episodes are clean; the others show how to find back to the road, again and again.

    Attributes:
        grips: (share of the episodes, lowest and highest `DriverSettings.grip`), uniform in between.
        noise: (share of the episodes, epsilon of `Bursts`).
    """

    grips: tuple[tuple[float, float, float], ...] = ((0.8, 90.0, 150.0), (0.2, 30.0, 90.0))
    noise: tuple[tuple[float, float], ...] = ((0.38, 0.0), (0.06, 0.15), (0.22, 0.3), (0.22, 0.6), (0.12, 1.0))

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Draws the driver of this episode."""
        _, lowest, highest = self.grips[rng.choice(len(self.grips), p=[share for share, *_ in self.grips])]
        grip = rng.uniform(lowest, highest)
        _, epsilon = self.noise[rng.choice(len(self.noise), p=[share for share, _ in self.noise])]
        self._behaviour = Bursts(TrackDriver(DriverSettings(grip=grip)), epsilon)
        self._behaviour.begin(env, rng)

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """The driver's action, or a burst's."""
        return self._behaviour(observation)


@dataclass
class VariedDrivers:
    """CarRacing drivers of random settings, one per episode: each steers and dares as it likes, few of them well.

    Every setting is uniform in its range in `RANGES`, apart from the others. Nothing is noise: probability 1. Over 800
    episodes of `carracing/varied` the mean return was 474, and one in five was over 850.
    """

    RANGES: ClassVar = {
        "look": (0.0, 15.0),
        "steering_gain": (0.0, 6.0),
        "steering_damping": (0.0, 2.0),
        "grip": (0.0, 250.0),
        "max_speed": (0.0, 120.0),
        "braking": (0.0, 150.0),
    }
    """(lowest, highest) of each field of `DriverSettings` that is drawn."""

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Draws the driver of this episode."""
        self._driver = TrackDriver(DriverSettings(**{name: rng.uniform(*ends) for name, ends in self.RANGES.items()}))
        self._driver.begin(env, rng)

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """The drawn driver's action."""
        return self._driver(observation)


def default_behaviour(env_id: str) -> Behaviour:
    """What `collect` plays where nobody says: a mixture for CarRacing and CartPole, else random actions."""
    if env_id == ENV_ID:
        return CarRacingMixture()
    if env_id.startswith("CartPole-"):
        return CartPoleMixture()
    return RandomBehaviour()


def _circular_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean over `window` neighbours, centred, around a closed track. [N] -> [N]."""
    half = window // 2
    mean: NDArray[np.float64] = np.mean([np.roll(values, shift) for shift in range(-half, half + 1)], axis=0)
    return mean

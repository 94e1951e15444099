"""The entry of the faster CarRacing in Gymnasium's table."""

from __future__ import annotations

import gymnasium

from offrl.envs import car_racing


def register() -> None:
    """Adds the entry where Gymnasium has CarRacing and the entry is not there yet; nothing else is imported or made."""
    if car_racing.ENV_ID not in gymnasium.registry or car_racing.FAST_ENV_ID in gymnasium.registry:
        return
    theirs = gymnasium.spec(car_racing.ENV_ID)
    is_verified = gymnasium.__version__ in car_racing.VERIFIED_VERSIONS
    gymnasium.register(
        car_racing.FAST_ENV_ID,
        entry_point=car_racing.FAST_ENTRY_POINT if is_verified else theirs.entry_point,
        max_episode_steps=theirs.max_episode_steps,
        reward_threshold=theirs.reward_threshold,
    )

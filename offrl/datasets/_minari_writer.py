"""Episodes as a dataset of Minari's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from offrl.datasets._episodes import EpisodeLog, Written
from offrl.datasets._minari_files import _ABOUT, _LEADING, _LEGAL, _PROBABILITY, _minari


def write_minari(path: Path, name: str, log: EpisodeLog) -> Written:
    """Writes episodes as a dataset of Minari's: T + 1 observations an episode, frames unstacked.

    What Minari has no place for (frames before an episode's first one, probabilities, legal actions) is in the infos,
    the task in the metadata: `read_minari` gives back the same bytes.

    Args:
        path: an existing directory, which gets the folder `data`.
        name: the dataset's id.
        log: what to write.

    Raises:
        MissingDependencyError: minari is not installed.
    """
    minari = _minari()
    from gymnasium.spaces import Box, Discrete
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    spec = log.spec
    observation_space: Any  # a Box, of either type
    if spec.is_pixels:
        observation_space = Box(0, 255, spec.observation_shape[1:], np.uint8)
    else:
        observation_space = Box(-np.inf, np.inf, spec.observation_shape, np.float32)
    storage = MinariStorage.new(
        path.resolve() / "data",  # h5py takes the links in Minari's files for relative to the file they are in
        observation_space=observation_space,
        action_space=Discrete(spec.num_actions),
        data_format="hdf5",
        jpeg_encoding=False,  # which changes pixels
    )
    num_frames = 0

    def buffers() -> Iterator[Any]:
        nonlocal num_frames
        for episode in log.episodes:
            num_frames += len(episode.observations)
            is_end = np.arange(len(episode)) == len(episode) - 1
            infos = {
                _LEADING: episode.observations[: episode.leading] if episode.leading else None,
                _PROBABILITY: episode.behaviour_probability,
                _LEGAL: episode.action_mask,
            }
            yield EpisodeBuffer(
                observations=episode.observations[episode.leading :],
                actions=episode.actions.astype(np.int64, copy=False),
                rewards=episode.rewards.astype(np.float32, copy=False),
                terminations=is_end & episode.terminated,
                truncations=is_end & episode.truncated,
                infos={key: array for key, array in infos.items() if array is not None},
            )

    storage.update_episodes(buffers())
    storage.update_metadata(
        {
            "dataset_id": name,
            "minari_version": minari.__version__,
            _ABOUT: {
                "spec": spec.to_dict(),
                "environment": dict(log.environment),
                "generator": dict(log.generator),
            },
        }
    )
    return Written(storage.total_steps, storage.total_episodes, num_frames)

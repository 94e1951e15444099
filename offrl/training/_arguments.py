"""What `fit` is given: checked, and described for a run's config.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offrl.algorithms.algorithm import Algorithm
from offrl.algorithms.building import described_encoder
from offrl.errors import ConfigError
from offrl.replay.source import ReplaySource
from offrl.system.workers import available_memory
from offrl.training.config import FitConfig, LearnerConfig
from offrl.training.learner import Learner
from offrl.training.selection import Selection


def require_arguments(
    algorithm: object,
    replay: object,
    config: object,
    learner: object,
    selection: object,
    evaluator: object,
    loggers: object,
) -> None:
    """Raises ConfigError for arguments of another kind."""
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            f"the class {algorithm.__name__}" if isinstance(algorithm, type) else f"a {type(algorithm).__name__}",
            where="fit.algorithm",
            expected="an offrl.Algorithm",
            hint="construct it: DiscreteBCQ(replay.spec), say",
        )
    if isinstance(replay, str | Path):
        raise ConfigError(
            repr(str(replay)), where="fit.replay", expected="a replay", hint=f"pass offrl.open_replay({str(replay)!r})"
        )
    if not isinstance(replay, ReplaySource):
        raise ConfigError(
            f"{type(replay).__name__} is no replay",
            where="replay",
            expected="a subclass of offrl.ReplaySource",
            hint="derive your class from it: what it lacks has a default there",
        )
    if not isinstance(config, FitConfig):
        length = config if isinstance(config, int) else 1000
        hint = f"pass FitConfig(updates={length})"
        raise ConfigError(f"{config!r}", where="fit.config", expected="a FitConfig", hint=hint)
    if not isinstance(learner, LearnerConfig | None):
        raise ConfigError(f"a {type(learner).__name__}", where="fit.learner", expected="a LearnerConfig")
    if not isinstance(selection, Selection | None):
        raise ConfigError(f"a {type(selection).__name__}", where="fit.selection", expected="a Selection")
    if evaluator is not None and not callable(evaluator):
        hint = "pass EpisodeEvaluator(make_env), say"
        raise ConfigError(f"{evaluator!r}", where="fit.evaluator", expected="a function of an algorithm", hint=hint)
    if loggers is not None and not (isinstance(loggers, Sequence) and all(map(_is_logger, loggers))):
        raise ConfigError(f"{loggers!r}", where="fit.loggers", expected="a list of loggers", hint="pass [logger]")


def _is_logger(value: object) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("log", "close"))


def require_recordable(algorithm: Algorithm) -> None:
    """Raises ConfigError for an algorithm that a run's config.json cannot describe."""
    kind = type(algorithm).__name__
    if not isinstance(getattr(algorithm, "name", None), str):
        raise ConfigError("no name", where=kind, expected='a class attribute, such as name = "mine", to record in runs')
    if algorithm.config is not None and not is_dataclass(algorithm.config):
        raise ConfigError(
            f"a {type(algorithm.config).__name__}",
            where=f"{kind}.config",
            expected="a dataclass, whose fields a run records",
        )


def json_ready(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json will say of these entries: tuples become lists, numpy's numbers plain ones.

    Raises:
        ConfigError: JSON has nothing for a value.
    """
    found: dict[str, Any] = {}
    for name, value in data.items():
        try:
            found |= json.loads(json.dumps({name: value}, default=_plain, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"cannot be written to config.json ({error})",
                where=f"{where}.{name}",
                expected="finite numbers, texts, lists and mappings of these",
            ) from error
    return found


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")


def require_memory(batch_size: int, replay: ReplaySource) -> None:
    """Raises ConfigError for a batch that does not fit into memory."""
    spec = replay.spec
    size = math.prod(spec.observation_shape) * (1 if spec.is_pixels else 4)
    if 2 * batch_size * size > available_memory():
        raise ConfigError(
            f"{batch_size}, whose observations alone need {2 * batch_size * size / 2**30:.0f} GiB",
            where="FitConfig.batch_size",
            expected="a batch that fits into memory",
        )


def require_selection(
    selection: Selection, replay: ReplaySource, *, log: int, checkpoint: int, has_run: bool, has_evaluator: bool
) -> None:
    """Checks that a selection has something to choose by, and something to choose from.

    Args:
        selection: The settings.
        replay: Trained on.
        log: Updates between two rows.
        checkpoint: Updates between two checkpoints.
        has_run: Whether there are checkpoints at all.
        has_evaluator: Whether an evaluator chooses among them.

    Raises:
        ConfigError: It has not.
    """
    if replay.held_out() is None:
        raise ConfigError(
            "no held-out episodes",
            where="fit.selection",
            expected="episodes that are not trained on, to measure its statistics on",
            hint="open the replay with held_out=0.1 (--set held_out=0.1)",
        )
    if selection.keep_best is None:
        return
    if not has_run or has_evaluator:
        raise ConfigError(
            "keep_best with evaluate_every" if has_run else "keep_best without a run",
            where="fit.selection",
            expected="a run whose checkpoints nothing else chooses among",
            hint="leave out keep_best",
        )
    if checkpoint % log != 0:
        raise ConfigError(
            f"a checkpoint every {checkpoint} updates and a row of metrics every {log}",
            where="fit.selection",
            expected="a row of metrics for each checkpoint",
            hint=f"set checkpoint_period to a multiple of log_period, such as {max(1, round(checkpoint / log)) * log}",
        )


def remarks(algorithm: Algorithm, replay: ReplaySource) -> dict[str, Any]:
    """What is needed to make the run again, and no setting: the algorithm's class, where the data lies."""
    kind = type(algorithm)
    is_own = not kind.__module__.startswith("offrl.")
    environment = {} if replay.environment is None else {"environment": replay.environment}
    return {
        "algorithm": f"{kind.__module__}:{kind.__qualname__}" if is_own else algorithm.name,
        **replay.origin,
        **environment,
    }


def describe(
    learner: Learner, replay: ReplaySource, config: FitConfig, init: str | Path | None, selection: Selection | None
) -> dict[str, Any]:
    """What a run was made with: everything that its result depends on, beside software and machine."""
    return {
        "algorithm": learner.algorithm.name,
        **described_encoder(learner.algorithm),
        "algorithm_config": {} if learner.algorithm.config is None else asdict(learner.algorithm.config),
        # Without a meaning where the first weights are another run's.
        "algorithm_seed": learner.algorithm.seed if init is None else None,
        "learner": asdict(learner.config),
        "fit": asdict(config),
        "replay": replay.settings(),
        "dataset": replay.fingerprint,
        "init": None if init is None else str(Path(init).absolute()),  # read from other directories, too
        "spec": learner.algorithm.spec.to_dict(),
        **({} if selection is None else {"selection": selection.settings()}),
    }

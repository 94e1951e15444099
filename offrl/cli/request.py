"""What a run is asked for: from options, or from the config.json of a run; and the objects that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offrl.cli.names import ALGORITHMS, ENCODERS, STATISTICS, algorithm_class, load_class
from offrl.cli.settings import parse_settings, setting_groups
from offrl.errors import ConfigError, RunError
from offrl.system.workers import MOST_THREADS

if TYPE_CHECKING:
    from offrl.algorithms.algorithm import Algorithm
    from offrl.evaluation.while_training import EpisodeEvaluator
    from offrl.spec import TaskSpec
    from offrl.training.selection import Selection

LENGTHS = ("updates", "epochs")
_CONFIG_KEYS = {"algorithm": "algorithm_config", "learner": "learner", "fit": "fit", "replay": "replay"}


@dataclass(frozen=True)
class Request:
    """All that makes a run; its config.json keeps it for --resume, evaluate and export.

    Attributes:
        algorithm: one of `ALGORITHMS`, or package.module:Class.
        encoder: one of `ENCODERS`, or package.module:Class; None leaves it to the algorithm.
        encoder_settings: its arguments, which a run made in Python may have.
        settings: for each of algorithm, learner, fit and replay; what is not there has its default.
        data: the shards' directory, or its address elsewhere; None where a run made in Python does not say it.
        environment: the id of the one that the data is of, where it is known.
        task: what the user says the data is of, or what a run was made for.
        task_given: whether the user said it.
        dones: see `offrl.replay.ingestion`.
        skip_bad_shards: see `offrl.replay.ingestion`.
        device: as given.
        threads: of torch, as runs of earlier versions note it; others have it among the learner's settings.
        evaluate_every: how often episodes are played while training; None for never.
        evaluate_episodes: how many.
        algorithm_seed: of the first weights; None takes the replay's seed.
        selection: names of statistics, `keep_best` and `patience`; None where nothing is measured for choosing.
    """

    algorithm: str
    encoder: str | None
    settings: Mapping[str, Mapping[str, Any]]
    encoder_settings: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    environment: str | None = None
    task: TaskSpec | None = None
    task_given: bool = False
    dones: Any = "terminated"
    skip_bad_shards: bool = False
    device: str = "auto"
    threads: int | None = None
    evaluate_every: int | str | None = None
    evaluate_episodes: int = 20
    algorithm_seed: int | None = None
    selection: Mapping[str, Any] | None = None

    def longer(self, updates: int | None, epochs: float | None) -> Request:
        """The same with another length, where one is given."""
        if updates is None and epochs is None:
            return self
        fit = {**self.settings["fit"], "updates": updates, "epochs": epochs}
        return replace(self, settings={**self.settings, "fit": fit})

    def with_threads(self, threads: int | None) -> Request:
        """The same with so many of torch's threads, where they are given here or were noted by an earlier version."""
        chosen = threads or self.threads
        if chosen is None:
            return self
        learner = {**self.settings["learner"], "threads": chosen}
        return replace(self, settings={**self.settings, "learner": learner}, threads=None)

    def notes(self) -> dict[str, Any]:
        """What config.json holds nowhere else; an address without credentials and query."""
        from offrl.shards._file_systems import redacted

        noted = {name: value for name, value in vars(self).items() if name in _NOTED - {"threads"}}
        return {**noted, "data": None if self.data is None else redacted(self.data)}

    def own_classes(self, algorithm: str | None, encoder: str | None) -> tuple[str | None, str | None]:
        """Those of two names that say which classes of the user's own this run has; None for what offrl has itself.

        Where several runs are read, or something is fitted beside one, a name is not about every network there is.
        """
        own_algorithm = None if self.algorithm in ALGORITHMS and algorithm not in ALGORITHMS else algorithm
        return own_algorithm, None if self.encoder in ENCODERS else encoder

    def gymnasium_id(self, where: str | Path) -> str | None:
        """The environment, for making it.

        Raises:
            ConfigError: its id names a module to import, which a file must not choose.
        """
        if self.environment is not None and ":" in self.environment:
            raise ConfigError(
                f"the data is of the environment {self.environment}, whose id names a module to import",
                where=where,
                expected="that id on the command line: a file must not choose what code runs",
                hint=f"add --env {self.environment}",
            )
        return self.environment


_KINDS: dict[str, Any] = {
    "algorithm": str,
    "encoder": str | None,
    "encoder_settings": dict,
    "data": str | None,
    "environment": str | None,
    "task_given": bool,
    "skip_bad_shards": bool,
    "device": str,
    "threads": int | None,
    "dones": str,
    "evaluate_every": int | str | None,
    "evaluate_episodes": int,
    "algorithm_seed": int | None,
    "selection": dict | None,
}
_RECORDED_ELSEWHERE = {
    "encoder_settings",
    "settings",
    "task",
    "evaluate_every",
    "evaluate_episodes",
    "algorithm_seed",
    "selection",
}
_NOTED = {field.name for field in fields(Request)} - _RECORDED_ELSEWHERE


def parse_training(algorithm: str, assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of a new run, by group, from FIELD=VALUE texts.

    Raises:
        ConfigError: an unknown algorithm or field, a value that its field cannot take, or no length of the run.
    """
    groups = {
        group: {name: field.hint for name, field in found.items()} for group, found in setting_groups(algorithm).items()
    }
    settings = parse_settings(assignments, groups)
    if settings["fit"].keys().isdisjoint({"updates", "epochs"}):
        raise ConfigError("no length", where="train", expected="--updates or --epochs", hint="add --updates 1000, say")
    return settings


def read_request(run: Path, algorithm: str | None, encoder: str | None) -> Request:
    """What the run in this directory was made with, of classes that are offrl's own or named here.

    Args:
        run: the run's directory; it may have been made in Python.
        algorithm: as the user names it, which a class of the user's own needs; None where the user does not.
        encoder: likewise.

    Raises:
        RunError: no run, or a damaged one.
        ConfigError: a class of the user's own that the user does not name, or another algorithm's class.
    """
    from offrl.hub.loading import require_algorithm
    from offrl.runs.files import read_run_config

    request = recorded_request(run)
    if algorithm is not None:
        require_algorithm(algorithm_class(algorithm), read_run_config(run)["algorithm"], run)
    unnamed: dict[str, str] = {}
    if algorithm is None and request.algorithm not in ALGORITHMS:
        unnamed["algorithm"] = request.algorithm
    if encoder is None and request.encoder is not None and request.encoder not in ENCODERS:
        unnamed["encoder"] = request.encoder
    if unnamed:  # all at once, so that nobody is asked twice
        what = " and ".join(f"the {kind} {name}" for kind, name in unnamed.items())
        classes = [name if ":" in name else "package.module:Class" for name in unnamed.values()]
        raise ConfigError(
            f"the run was made with {what}",
            where=run,
            expected=f"{'that class' if len(unnamed) == 1 else 'these classes'} named on the command line: a file must "
            "not choose what code runs",
            hint=f"add {' '.join(f'--{kind} {name}' for kind, name in zip(unnamed, classes, strict=True))}",
        )
    return replace(request, algorithm=algorithm or request.algorithm, encoder=encoder or request.encoder)


def recorded_request(run: Path) -> Request:
    """What the config.json of the run in this directory says; nothing that it names is loaded.

    Raises:
        RunError: no run, or a damaged one.
    """
    from offrl.replay.config import ReplayConfig
    from offrl.runs.files import read_run_config
    from offrl.spec import TaskSpec
    from offrl.training.config import FitConfig, LearnerConfig

    config = read_run_config(run)
    encoder_names = {path: name for name, path in ENCODERS.items()}
    try:
        said = {"algorithm": config["algorithm"], "encoder": encoder_names.get(config["encoder"], config["encoder"])}
        notes = {name: note for name, note in config.get("notes", {}).items() if name in _NOTED}
        settings = {group: dict(config[key]) for group, key in _CONFIG_KEYS.items()}
        known = setting_groups("bcq")  # of which only the fields of every algorithm are looked at
        unknown = [n for group in ("learner", "fit", "replay") for n in settings[group].keys() - known[group].keys()]
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}")
        LearnerConfig(**settings["learner"]), FitConfig(**settings["fit"]), ReplayConfig.of(settings["replay"])
        evaluation = config.get("evaluation") or {}
        request = Request(
            **{**said, **notes},
            evaluate_every=evaluation.get("every"),
            evaluate_episodes=evaluation.get("episodes", 0),
            algorithm_seed=config.get("algorithm_seed"),
            selection=config.get("selection"),
            settings=settings,
            encoder_settings=config.get("encoder_settings", {}),
            task=TaskSpec.from_dict(config["spec"], where=run / "config.json"),
        )
        _require_kinds(request)
        return request
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # ConfigError is a ValueError
        raise RunError(
            f"damaged ({type(error).__name__}: {error})",
            where=run / "config.json",
            expected="what offrl wrote there",
            hint="use another run, or the version of offrl that made this one",
        ) from error


def _require_kinds(request: Request) -> None:
    """Raises TypeError where somebody has put a value of another kind into a config.json."""
    for name, kinds in _KINDS.items():
        if not isinstance(value := getattr(request, name), kinds):
            raise TypeError(f"{name} is {value!r}")
    if isinstance(request.threads, bool) or (request.threads is not None and not 1 <= request.threads <= MOST_THREADS):
        raise TypeError(f"threads is {request.threads}")


def build_algorithm(request: Request, spec: TaskSpec) -> Algorithm:
    """The algorithm, with its first weights.

    Raises:
        ConfigError: a class that cannot be loaded, or constructed as (spec, config, *, encoder, seed).
    """
    from offrl.algorithms.building import build_algorithm as build
    from offrl.algorithms.building import with_settings

    encoder = None if request.encoder is None else load_class(request.encoder, ENCODERS, "encoder")
    return build(
        algorithm_class(request.algorithm),
        spec,
        request.settings["algorithm"],
        encoder=None if encoder is None else with_settings(encoder, request.encoder_settings, "--encoder"),
        seed=request.settings["replay"].get("seed", 0) if request.algorithm_seed is None else request.algorithm_seed,
    )


def episode_evaluator(
    request: Request, spec: TaskSpec, where: Path | str, *, named: str | None = None
) -> EpisodeEvaluator:
    """What plays episodes while a run trains.

    Args:
        request: The run's.
        spec: Its task.
        where: What messages name.
        named: The environment that the user names, which may be one of a module to import.

    Raises:
        ConfigError: the data does not say of which environment it is.
    """
    from offrl.cli.names import CAR_RACING, environment_factory
    from offrl.envs.seeds import TUNING_SEEDS
    from offrl.evaluation.while_training import EpisodeEvaluator

    environment = named or request.gymnasium_id(where)
    if environment is None:
        raise ConfigError("no environment", where="--evaluate-every", expected="--env", hint=f"add --env {CAR_RACING}")
    return EpisodeEvaluator(environment_factory(environment, spec.hud), TUNING_SEEDS[: request.evaluate_episodes])


def build_selection(request: Request, run: Path | None) -> Selection | None:
    """What a run measures on its held-out episodes, and what follows from it.

    Args:
        request: What was asked for.
        run: The one whose config.json names the statistics; None where the user does.

    Raises:
        ConfigError: a statistic that the command line does not know, or a number outside what is allowed.
    """
    from offrl.training.selection import Selection

    if request.selection is None:
        return None
    settings = dict(request.selection)
    names = settings.pop("statistics", None)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RunError(f"selection is {request.selection!r}", where=run, expected="what offrl wrote there")
    if unknown := [name for name in names if name not in STATISTICS]:
        raise ConfigError(
            f"no statistic {unknown[0]!r}",
            where=run or "--select",
            expected=", ".join(STATISTICS),
            hint="a statistic of your own is passed in Python: offrl.fit(..., selection=Selection([...]))",
        )
    try:
        return Selection([load_class(name, STATISTICS, "statistic") for name in names], **settings)
    except TypeError as error:
        raise RunError(f"selection is {request.selection!r}", where=run, expected="what offrl wrote there") from error

"""From names on the command line to classes, environments and tasks."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import option

from offrl.cli.console import completing, options
from offrl.errors import ConfigError, RunError

if TYPE_CHECKING:
    from offrl.algorithms.algorithm import Algorithm
    from offrl.collection.recipes import Recipe
    from offrl.envs.making import Env
    from offrl.spec import TaskSpec

ALGORITHMS = {
    "bcq": "offrl.algorithms.bcq:DiscreteBCQ",
    "bc": "offrl.algorithms.bc:BC",
    "dqn": "offrl.algorithms.dqn:DQN",
    "cql": "offrl.algorithms.cql:CQL",
    "iql": "offrl.algorithms.iql:IQL",
    "crr": "offrl.algorithms.crr:CRR",
    "rem": "offrl.algorithms.rem:REM",
    "qr-dqn": "offrl.algorithms.qr_dqn:QRDQN",
    "qr-bcq": "offrl.algorithms.qr_bcq:QRBCQ",
    "qr-cql": "offrl.algorithms.qr_cql:QRCQL",
    "sac": "offrl.algorithms.sac:DiscreteSAC",
    "bve": "offrl.algorithms.bve:BVE",
}
ENCODERS = {
    "nature": "offrl.networks.encoders:NatureEncoder",
    "compact": "offrl.networks.encoders:CompactEncoder",
    "impala": "offrl.networks.encoders:ImpalaEncoder",
    "residual": "offrl.networks.encoders:ResidualEncoder",
    "minatar": "offrl.networks.encoders:MinAtarEncoder",
    "mlp": "offrl.networks.encoders:MLPEncoder",
}
STATISTICS = {"td_error": "offrl.selection.held_out:td_error", "agreement": "offrl.selection.held_out:agreement"}
CAR_RACING = "CarRacing-v3"

network_options = options(
    option(
        "--algorithm", help=f"{', '.join(ALGORITHMS)} or package.module:Class.", shell_complete=completing(ALGORITHMS)
    ),
    option("--encoder", help=f"{', '.join(ENCODERS)} or package.module:Class.", shell_complete=completing(ENCODERS)),
)


def load_class(name: str, known: Mapping[str, str], what: str) -> Any:
    """The class of that name, or `package.module:Class`; modules are also found in the current directory.

    Raises:
        ConfigError: no such name, or a module that cannot be imported.
    """
    path = known.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"no {what} {name!r}",
            where=f"--{what}",
            expected=f"{', '.join(known)} or package.module:Class",
            hint=f"did you mean {near[0]}?" if near else None,
        )
    _search_current_directory()
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # a module of the user's may fail in any way
        raise ConfigError(
            f"{path} cannot be imported ({type(error).__name__}: {error})",
            where=f"--{what}",
            expected="package.module:Class, installed or in the current directory",
        ) from error


def algorithm_class(name: str) -> type[Algorithm]:
    """The algorithm of that name.

    Raises:
        ConfigError: no such name, or a class that is no Algorithm.
    """
    from offrl.algorithms.algorithm import Algorithm

    found = load_class(name, ALGORITHMS, "algorithm")
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise ConfigError(f"{name} is {found!r}", where="--algorithm", expected="a subclass of offrl.Algorithm")
    return found


def named_recipe(name: str) -> Recipe | None:
    """The standard dataset of that name; None for what may be the id of an environment.

    Raises:
        ConfigError: no such dataset, where the name is like one.
    """
    if "/" not in name or ":" in name:
        return None
    import gymnasium

    from offrl.collection.recipes import RECIPES

    near = difflib.get_close_matches(name, RECIPES, n=1)
    if name not in RECIPES and near and name not in gymnasium.registry:
        raise ConfigError(
            f"no dataset {name!r}", where="collect", expected=", ".join(RECIPES), hint=f"did you mean {near[0]}?"
        )
    return RECIPES.get(name)


def environment_factory(environment: str, hud: str | None, **settings: Any) -> partial[Env]:
    """Makes the environment of that Gymnasium id, with these keywords; CarRacing's bar is visible unless said.

    Raises:
        ConfigError: `hud` for an environment that has none.
    """
    from offrl import envs

    if environment == CAR_RACING:
        settings["hud"] = hud or "visible"
    elif hud is not None:
        raise ConfigError(f"{environment} has none", where="--hud", expected=CAR_RACING, hint="leave it out")
    if ":" in environment:  # Gymnasium imports what stands before it
        _search_current_directory()
    return partial(envs.make, environment, **settings)


def named_task(environment: str | None, hud: str | None) -> TaskSpec | None:
    """The task that --env and --hud name, if they do.

    Raises:
        ConfigError: `hud` without an environment that has one.
        UnknownEnvironmentError: no such environment.
    """
    from offrl import envs
    from offrl.envs import car_racing

    if environment is None:
        if hud is not None:
            raise ConfigError(hud, where="--hud", expected="--env beside it", hint=f"add --env {CAR_RACING}")
        return None
    if environment == CAR_RACING:  # this needs no Box2D
        return car_racing.spec("hidden" if hud == "hidden" else "visible")
    with closing(environment_factory(environment, hud)()) as env:
        return envs.task_spec(env)


def task_of(path: Path | str) -> TaskSpec:
    """The task of a dataset with a manifest, of a run or checkpoint, or of an ONNX file.

    Raises:
        DatasetError: a damaged manifest.
        RunError: nothing of these is there, or the run is damaged.
    """
    from offrl.hub.loading import find_policy
    from offrl.policies.onnx_policy import OnnxPolicy
    from offrl.runs.files import read_run_config, recorded_task, run_of
    from offrl.shards.manifest import MANIFEST_NAME, Manifest

    if (Path(path) / MANIFEST_NAME).exists():
        return Manifest.load(path).spec.without_legal_actions()
    try:
        found = find_policy(path)
    except RunError as error:
        raise RunError(
            f"no dataset with a {MANIFEST_NAME}, and no policy",
            where=path,
            expected="a dataset that offrl wrote, a run, a checkpoint or an ONNX file",
        ) from error
    if found.is_file():
        return OnnxPolicy(found).spec.without_legal_actions()
    run = run_of(found)
    return recorded_task(read_run_config(run), run).without_legal_actions()


def _search_current_directory() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that nothing there hides an installed package

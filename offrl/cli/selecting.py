"""`offrl select`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from offrl.cli.console import DATA, PATH, device_option, output_options, show
from offrl.cli.logged import named_store, recorded_store
from offrl.cli.names import ENCODERS, algorithm_class, load_class, network_options
from offrl.cli.request import Request, recorded_request
from offrl.errors import ConfigError, RunError

if TYPE_CHECKING:
    from offrl.replay.store import FrameStore
    from offrl.selection.candidates import Candidate
    from offrl.selection.criteria import Criterion

_BY = "fqe,agreement"


@click.command(short_help="Choose among checkpoints of runs, without playing.")
@argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@option("--by", default=_BY, show_default=True, metavar="NAMES", help="Statistics; several decide by their mean rank.")
@option("--updates", type=int, help="Of each model that a statistic needs; default: 5000, of fqe as offrl ope.")
@option("--refits", type=click.IntRange(1), default=3, show_default=True, help="Of fqe, whose mean counts.")
@option("--discount", type=float, help="Of fqe: a larger one tells long episodes apart; default: the run's.")
@option("--seed", type=int, default=0, show_default=True, help="Seed of these models.")
@option("--thresholds", help="Such as 0.1,0.3,0.5, each tried with every checkpoint; default: the run's own.")
@option("--data", type=DATA, help="The dataset; default: where the first run says that it was.")
@network_options
@device_option
@output_options
def select(
    runs: tuple[Path, ...],
    by: str,
    updates: int | None,
    refits: int,
    discount: float | None,
    seed: int,
    thresholds: str | None,
    data: Path | str | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl select runs/bcq-001 runs/bcq-002 --thresholds 0.1,0.3,0.5

    Ranks all checkpoints of some runs by statistics on the episodes that the runs hold out, and names the one to take.
    Nothing is played. The runs must have been trained on the same data with the same held-out episodes, such as with
    --set held_out=0.1. Statistics: td_error, initial_value, agreement, discounted_advantage, soft_opc, and, with models
    fitted on the training episodes, sbv, emsbe, support, fqe. The two of the default together ranked well on CartPole,
    MinAtar and CarRacing, where policies were played as well; agreement alone takes seconds. The weights before the
    first update are no candidate.
    """
    from offrl.ope.splits import shared_split
    from offrl.replay.replay import Replay
    from offrl.selection.fits import FittingConfig
    from offrl.selection.ranking import rank

    criteria = _criteria(by)
    requests = {run: recorded_request(run) for run in runs}
    recorded = requests[runs[0]].encoder
    name = encoder or (recorded if recorded in ENCODERS else None)  # a file must not choose what code runs
    encoders = {} if name is None else {"encoder": load_class(name, ENCODERS, "encoder")}
    fitting = FittingConfig(
        updates=updates, refits=refits, discount=discount, seed=seed, device=device or "auto", **encoders
    )
    split = shared_split(runs)
    tried = None if thresholds is None else _thresholds(thresholds)
    if any(each.needs_values for each in criteria):
        _require_one_meaning(requests)
    if discount is None and any(each.model == "q" for each in criteria):
        _require_one_discount(requests)
    found = [
        candidate for run in runs for candidate in _candidates(run, requests[run], algorithm, encoder, device, tried)
    ]
    replay_settings = requests[runs[0]].settings["replay"]
    meaning = {name: replay_settings[name] for name in _MEANING if name in replay_settings}
    chosen: dict[str, Any] = {"held_out": split.held_out, "split_seed": split.split_seed, "part": "held_out"}
    replay = Replay(_store(runs[0], data, quiet=quiet), **meaning, **chosen)
    ranking = rank(found, replay, criteria, fitting=fitting, progress=False if quiet else None)
    about: dict[str, Any] = {"held_out": split.held_out, "split_seed": split.split_seed, "dataset": split.dataset}
    note = ""
    if ranking.fitted:
        looks_ahead = fitting.discounted(replay).config.discount
        about |= {"refits": refits, "seed": seed, "discount": looks_ahead}
        words = ", ".join(f"{name} with {count:,} updates" for name, count in ranking.fitted.items())
        times = f", fqe {refits} times with discount {looks_ahead:g}" if "fqe" in ranking.fitted else ""
        note = f"\nfitted on the training episodes with seed {seed}{times}: {words}"
    show({**ranking.to_dict(), **about}, as_json, f"{ranking.to_text()}{note}\n\ntake {ranking.reason()}")


_MEANING = ("discount", "reward_clip")
"""Settings of a replay that q values depend on, other than `reward_scale`, which is divided out."""


def _criteria(by: str) -> list[Criterion]:
    from offrl.selection.criteria import CRITERIA

    names = by.split(",")
    for number, name in enumerate(names):
        if name not in CRITERIA or name in names[:number]:
            raise ConfigError(
                f"no statistic {name!r}", where="--by", expected=f"some of {', '.join(CRITERIA)}, each once"
            )
    return [CRITERIA[name] for name in names]


def _thresholds(text: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= each < 1 for each in found):
        raise ConfigError(f"{text!r}", where="--thresholds", expected="numbers in [0, 1), such as 0.1,0.3,0.5")
    return found


def _require_one_meaning(requests: dict[Path, Any]) -> None:
    """Values of other discounts or clipped rewards are other quantities, which no statistic can compare."""
    (first, request), *rest = requests.items()
    for run, other in rest:
        for name in _MEANING:
            ours, theirs = (each.settings["replay"].get(name) for each in (request, other))
            if ours != theirs:
                raise ConfigError(
                    f"{name} is {theirs}",
                    where=run,
                    expected=f"{ours}, as {first} has it, so that their values mean the same",
                    hint="select among runs of one discount and reward_clip, or --by agreement",
                )


def _require_one_discount(requests: dict[Path, Any]) -> None:
    """Fitted Q evaluation has one discount for all: which one is the user's choice where the runs differ."""
    (first, request), *rest = requests.items()
    ours = request.settings["replay"].get("discount")
    for run, other in rest:
        if (theirs := other.settings["replay"].get("discount")) != ours:
            raise ConfigError(
                f"discount is {theirs}",
                where=run,
                expected=f"{ours}, as {first} has it, where fqe is fitted with one discount for all",
                hint=f"name it: --discount {ours}",
            )


def _candidates(
    run: Path,
    request: Request,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    thresholds: Sequence[float] | None,
) -> list[Candidate]:
    from offrl.hub.loading import load_algorithm
    from offrl.runs.checkpoint import checkpoints, step_of
    from offrl.selection.candidates import Candidate

    trained = [each for each in checkpoints(run / "checkpoints") if step_of(each) > 0]
    if not trained:
        raise RunError("no checkpoint of a trained policy", where=run, expected="folders named step-000001000")
    own_algorithm, own_encoder = request.own_classes(algorithm, encoder)
    load = partial(
        load_algorithm,
        algorithm=None if own_algorithm is None else algorithm_class(own_algorithm),
        encoder=None if own_encoder is None else load_class(own_encoder, ENCODERS, "encoder"),
        device=device or "auto",
    )
    scale = request.settings["replay"].get("reward_scale", 1.0)
    return [Candidate(str(each), partial(load, each), thresholds, reward_scale=scale) for each in trained]


def _store(run: Path, data: Path | str | None, *, quiet: bool) -> FrameStore:
    request = recorded_request(run)
    if data is not None:
        return named_store(request, data, run, progress=not quiet)
    found = recorded_store(request, run, progress=not quiet)
    if found is None:
        raise ConfigError(
            "its data is not where it was" if request.data is not None else "it does not say where its data is",
            where=run,
            expected="the dataset that it was trained on",
            hint="name it: --data DIRECTORY",
        )
    return found

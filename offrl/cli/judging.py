"""`offrl ope`: what a policy is worth, by logged data alone."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click import argument, option

from offrl.cli.actors import file_of, load_trained, require_no_network
from offrl.cli.console import DATA, FILE, PATH, device_option, output_options, refuse_beside, show
from offrl.cli.names import ENCODERS, load_class, network_options
from offrl.errors import ConfigError

if TYPE_CHECKING:
    from offrl.policies.onnx_policy import OnnxPolicy
    from offrl.policies.torch_policy import TorchPolicy
    from offrl.replay.replay import Replay
    from offrl.shards.layouts import Dones

_HELD_OUT = 0.2


@click.command(short_help="Estimate what a policy is worth from logged data, without playing it.")
@argument("policy", type=PATH)
@argument("data", metavar="[DIRECTORY|URL]", type=DATA, required=False)
@option("--estimators", help="Some of fqe,phdr,wdr,dr,wpdis,pdis,wis,is; default: all.")
@option("--behaviour", type=click.Choice(["auto", "logged", "fitted"]), default="auto", show_default=True)
@option("--discount", type=float, help="Per step; default: the run's, or 0.99.")
@option(
    "--updates",
    type=click.IntRange(1),
    help="Of each model; default: 5000, of fitted Q more with a discount over 0.99.",
)
@option("--refits", type=click.IntRange(1), help="Of fitted Q evaluation, for its intervals; default: 3.")
@option("--history", type=click.IntRange(1), help="Of phdr: weigh a step by its latest so many decisions; default: 8.")
@option("--clip", type=float, help="Cut the weights of importance sampling at this number; default: not at all.")
@option("--held-out", type=float, help=f"Share of the episodes; default: as the run was trained, else {_HELD_OUT}.")
@option("--split-seed", type=click.IntRange(0), help="Chooses these episodes; default: as the run was trained, else 0.")
@option("--threshold", type=float, help="Likelihood threshold; default: the policy's own.")
@option(
    "--dones",
    type=click.Choice(["terminated", "not_done"]),
    help="Beside an ONNX file: what true in the dones of stacked shards says; default: terminated.",
)
@option("--seed", type=click.IntRange(0), default=0, show_default=True)
@option("--fits", type=PATH, help="A directory that keeps what is fitted: the same command goes on there.")
@option("--out", type=FILE, help="Write the result to this JSON file as well, such as RUN/ope.json for its report.")
@option("--html", type=FILE, help="Also write a page.")
@network_options
@device_option
@output_options
def ope(
    policy: Path,
    data: Path | str | None,
    estimators: str | None,
    behaviour: Any,
    discount: float | None,
    updates: int | None,
    refits: int | None,
    history: int | None,
    clip: float | None,
    held_out: float | None,
    split_seed: int | None,
    threshold: float | None,
    dones: Dones | None,
    seed: int,
    fits: Path | None,
    out: Path | None,
    html: Path | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl ope runs/bcq-001 data/carracing --out runs/bcq-001/ope.json

    POLICY is a run, a checkpoint or an ONNX file, DIRECTORY a dataset; without one it is what the run was trained on.
    Values are read on episodes that are held out from all that is fitted. On the run's own data these are the episodes
    that the run held out (train --set held_out=0.1); a run without any is refused there: its values on what it has
    learned from would flatter it. No environment is made. What the numbers can be trusted for is said under them.
    """
    from offrl.ope.config import OpeConfig
    from offrl.ope.estimate import estimate
    from offrl.ope.estimators import ESTIMATORS
    from offrl.runs.files import of_run
    from offrl.system.files import require_writable
    from offrl.system.json_files import write_sealed_json

    for path in (out, html):
        if path is not None:
            require_writable(path)
    given: dict[str, Any] = {
        "updates": updates,
        "refits": refits,
        "history": history,
        "discount": discount,
        "clip": clip,
    }
    config = OpeConfig(
        estimators=tuple(ESTIMATORS) if estimators is None else tuple(dict.fromkeys(estimators.split(","))),
        behaviour=behaviour,
        seed=seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    judged = _load(policy, data, dones, held_out, split_seed, threshold, algorithm, encoder, device, progress=not quiet)
    encoders = {} if judged.encoder is None else {"encoder": load_class(judged.encoder, ENCODERS, "encoder")}
    progress = False if quiet else None
    found = estimate(
        judged.policy,
        judged.replay,
        config,
        name=judged.name,
        device=device or "auto",
        fits=fits,
        progress=progress,
        **encoders,
    )
    found = replace(found, warnings=(*found.warnings, *judged.beware))
    result = {**found.to_dict(), "data": judged.replay.fingerprint, "seed": seed}
    show(result, as_json, text=found.to_text())  # first: where no file can be written, what took its time is not lost
    if out is not None:
        write_sealed_json(out, of_run(judged.run, result))
    if html is not None:
        from offrl.report.ope_page import write_ope_page

        write_ope_page(result, html)


class _Judged(NamedTuple):
    """A policy and the data to judge it by."""

    policy: OnnxPolicy | TorchPolicy
    name: str
    replay: Replay
    run: Path | None
    encoder: str | None
    beware: tuple[str, ...]
    """What may flatter it, in sentences."""


def _load(
    path: Path,
    data: Path | str | None,
    dones: Dones | None,
    held_out: float | None,
    split_seed: int | None,
    threshold: float | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    *,
    progress: bool,
) -> _Judged:
    """A policy, and a replay whose held-out episodes it was not trained on.

    Raises:
        ConfigError: its run held nothing out of this data, was trained on what it held out, itself or by its first
            weights, or another share is asked for.
    """
    from offrl.cli.logged import data_location, read_alike, recorded_store
    from offrl.cli.request import recorded_request
    from offrl.hub.loading import find_policy
    from offrl.ope.splits import split_on
    from offrl.policies.onnx_policy import OnnxPolicy
    from offrl.policies.torch_policy import TorchPolicy
    from offrl.replay.opening import open_replay
    from offrl.replay.replay import Replay
    from offrl.runs.files import run_of
    from offrl.shards.manifest import MANIFEST_NAME
    from offrl.shards.remote import local_copy

    if (file := file_of(path)) is not None:
        require_no_network(path, algorithm, None, None)  # the others are of what is fitted
        if data is None:
            raise ConfigError("no data", where="ope", expected="DIRECTORY beside an ONNX file")
        judged = OnnxPolicy(file, threshold=threshold)
        directory = local_copy(data, progress=progress)
        spec = None if (directory / MANIFEST_NAME).exists() else judged.spec
        how = _split(held_out, split_seed)
        replay = open_replay(directory, spec=spec, dones=dones or "terminated", progress=progress, **how)
        return _Judged(judged, str(path), replay, None, encoder, ())
    refuse_beside("a run", {"--dones": dones}, where=path, expected="a run, whose data is read as it has read it")
    _, own_encoder = recorded_request(run_of(find_policy(path))).own_classes(algorithm, encoder)
    trained = load_trained(path, algorithm, own_encoder, device)
    run, request = run_of(trained.checkpoint), trained.request
    policy = TorchPolicy(trained.algorithm, threshold=threshold)
    own = dict(request.settings["replay"])
    config = {"discount": own.get("discount", 0.99)}
    if data is None:
        store = recorded_store(request, run, progress=progress)
        if store is None:
            raise ConfigError(
                "the run's data is not here", where=run, expected="DIRECTORY beside the run", hint="name the dataset"
            )
    else:
        is_own = request.data == data_location(data)
        store = read_alike(request, data, is_own=is_own, progress=progress)
    split, beware = split_on(run, store.fingerprint)
    if split is None:
        config |= _split(held_out, split_seed)
    else:
        where = "data that the run, or the one of its first weights, was trained on"
        named = {"--held-out": held_out, "--split-seed": split_seed}
        refuse_beside(where, named, where=run, expected="the episodes that it held out")
        config |= {"held_out": split.held_out, "split_seed": split.split_seed}
    return _Judged(policy, str(trained.checkpoint), Replay(store, **config), run, encoder or request.encoder, beware)


def _split(held_out: float | None, split_seed: int | None) -> dict[str, Any]:
    """Which episodes are held out where no run says it."""
    return {"held_out": _HELD_OUT if held_out is None else held_out, "split_seed": split_seed or 0}

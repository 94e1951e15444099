"""`offrl card`, `offrl publish` and `offrl verify`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from pathlib import Path

import click
from click import argument, option

from offrl.cli.console import EXIT_BAD_INPUT, FILE, PATH, echo, json_option, output_options, show
from offrl.cli.logged import real_observations
from offrl.cli.names import ENCODERS, algorithm_class, load_class, network_options
from offrl.cli.request import recorded_request

_EVALUATIONS = option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=FILE,
    help="A result of evaluate --out, one for each training run; default: RUN/evaluation.json and its repetitions'.",
)

_OUTCOMES = ("whole", "damaged", "no checksum")


@click.command(short_help="Write a policy's model card.")
@argument("policy", type=PATH)
@option("--out", type=FILE, help="The Markdown file; default: stdout.")
@_EVALUATIONS
def card(policy: Path, out: Path | None, evaluations: tuple[Path, ...]) -> None:
    """Example: offrl card runs/bcq-001 --out runs/bcq-001/README.md

    Says what POLICY is: task, data, recipe, scores over training runs, versions, limits. POLICY is a run, a
    checkpoint's directory, or an ONNX file, which says least about itself.
    """
    from offrl.hub.card import model_card
    from offrl.system.files import replacing

    text = model_card(policy, evaluations=evaluations)
    if out is None:
        echo(text, nl=False)
        return
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")
    echo(str(out))


@click.command(short_help="Make a folder for a model hub.")
@argument("policy", metavar="RUN", type=PATH)
@argument("directory", type=PATH)
@_EVALUATIONS
@network_options
@output_options
def publish(
    policy: Path,
    directory: Path,
    evaluations: tuple[Path, ...],
    algorithm: str | None,
    encoder: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl publish runs/bcq-001 carracing-bcq

    Writes the policy of RUN, its latest checkpoint unless one is named (RUN/checkpoints/best), into DIRECTORY, a new
    one, as a model hub takes it: README.md (the card), both ONNX files, weights, settings, scores. Upload it with the
    hub's own tool, such as hf upload owner/name DIRECTORY; offrl.load and every command that takes a policy then know
    it as hf://owner/name. The files are compared with the network on random observations and, where the run's data
    still is where it was, on some of these.
    """
    from offrl.hub.loading import find_policy
    from offrl.hub.publishing import publish as publish_policy
    from offrl.runs.files import run_of

    checkpoint = find_policy(policy)
    observations = None
    if not checkpoint.is_file():
        run = run_of(checkpoint)
        observations = real_observations(recorded_request(run), run, None, quiet=quiet)
    found = publish_policy(
        policy,
        directory,
        evaluations=evaluations,
        observations=observations,
        algorithm=None if algorithm is None else algorithm_class(algorithm),
        encoder=None if encoder is None else load_class(encoder, ENCODERS, "encoder"),
    )
    files = sorted(str(path.relative_to(found)) for path in found.rglob("*") if path.is_file())
    show({"directory": str(found), "files": files}, as_json, text="\n".join([str(found), *(f"  {f}" for f in files)]))


@click.command(short_help="Check files against the hashes that were written with them.")
@argument("paths", metavar="PATH...", nargs=-1, required=True, type=PATH)
@json_option
def verify(paths: tuple[Path, ...], as_json: bool) -> None:
    """Example: offrl verify data/carracing runs/bcq-001 model.onnx

    Reads all of each PATH, a dataset's directory (with its frame stores), a shard, a run's directory, a checkpoint's,
    an ONNX file, or a policy that comes with offrl, and says of each file whether it is as it was written: "whole",
    "damaged", or "no checksum" where nothing tells. Changes nothing. Exit code 2 where anything is damaged.
    """
    from offrl.hub.verifying import verify as check

    checked = [each for path in paths for each in check(path)]
    counts = {outcome: sum(each.outcome == outcome for each in checked) for outcome in _OUTCOMES}
    width = max(map(len, _OUTCOMES))
    lines = [f"{each.outcome:<{width}}  {each.path}: {each.about}" for each in checked]
    files = [{"path": str(each.path), "outcome": each.outcome, "about": each.about} for each in checked]
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    show({"files": files, **counts}, as_json, text="\n".join([*lines, summary]))
    if counts["damaged"]:
        click.get_current_context().exit(EXIT_BAD_INPUT)

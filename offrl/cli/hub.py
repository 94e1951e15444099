"""`offrl card` and `offrl publish`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from pathlib import Path

import click
from click import argument, option

from offrl.cli.console import FILE, PATH, echo, output_options, show
from offrl.cli.names import ENCODERS, algorithm_class, load_class, network_options

_EVALUATIONS = option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=FILE,
    help="A result of evaluate --out, one for each training run; default: RUN/evaluation.json and its repetitions'.",
)


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
    it as hf://owner/name.
    """
    from offrl.hub.publishing import publish as publish_policy

    found = publish_policy(
        policy,
        directory,
        evaluations=evaluations,
        algorithm=None if algorithm is None else algorithm_class(algorithm),
        encoder=None if encoder is None else load_class(encoder, ENCODERS, "encoder"),
    )
    files = sorted(str(path.relative_to(found)) for path in found.rglob("*") if path.is_file())
    show({"directory": str(found), "files": files}, as_json, text="\n".join([str(found), *(f"  {f}" for f in files)]))

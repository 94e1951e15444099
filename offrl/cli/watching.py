"""`offrl watch` and `offrl record`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from offrl.cli.actors import Actor, load_actor
from offrl.cli.console import PATH, device_option, echo, environment_option, hud_option, options, output_options, show
from offrl.cli.names import network_options
from offrl.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tqdm import tqdm

    from offrl.policies.onnx_policy import OnnxPolicy
    from offrl.policies.torch_policy import TorchPolicy
    from offrl.report.video import Panel

_NUM_ENVS = 20  # as `offrl evaluate` plays by default: a batch of another size rounds differently

_showing = options(
    option("--plain", is_flag=True, help="The picture alone, without what the policy thinks."),
    environment_option,
    hud_option,
    network_options,
    device_option,
    output_options,
)


@click.command(short_help="Record episodes as a video.")
@argument("policy", type=PATH)
@argument("out", metavar="OUT.mp4", type=PATH)
@option("--seed", type=click.IntRange(0), help="Of the episode; default: the first one that evaluate plays.")
@option("--seeds", metavar="SEEDS", help="Several episodes in one film: 3,7,9 or a range, 2000000:2000003.")
@option("--max-steps", type=click.IntRange(1), help="Stop there; default: play to the end.")
@_showing
def record(
    policy: Path,
    out: Path,
    seed: int | None,
    seeds: str | None,
    max_steps: int | None,
    plain: bool,
    as_json: bool,
    quiet: bool,
    **where: Any,
) -> None:
    """Example: offrl record runs/bcq-001 runs/bcq-001/videos/first.mp4 --seed 2000000

    POLICY is what evaluate takes, but for drivers. Films one episode, or those of --seeds one after the other, in the
    environment's own speed, with the score that evaluate gives for the seed. Beside the picture: the action in words,
    and a bar for the score (q) of each action, hatched where the policy does not allow the action. All bars of an
    episode have one scale, for which it is played once before.
    """
    from tqdm import tqdm

    from offrl.envs.seeds import SCORE_SEEDS
    from offrl.report.video import record_episodes

    if seed is not None and seeds is not None:
        raise ConfigError("--seed beside --seeds", where="record", expected="one of the two")
    chosen = parse_seeds(seeds) if seeds is not None else [SCORE_SEEDS.start if seed is None else seed]
    actor = load_actor(policy, pictures=True, **where)
    with tqdm(desc="record", unit=" steps", disable=True if quiet else None) as bar:
        found = record_episodes(
            _Counted(actor.policy, bar),
            actor.make_env,
            chosen,
            out,
            fps=actor.fps,
            max_steps=max_steps,
            num_envs=_NUM_ENVS,
            panel_of=None if plain else partial(_panel, actor, max_steps=max_steps, quiet=quiet),
        )
    if seeds is None:
        show({"file": str(out), "seed": chosen[0], **found[0]._asdict()}, as_json)
        return
    episodes = [{"seed": s, **each._asdict()} for s, each in zip(chosen, found, strict=True)]
    lines = [f"{e['seed']}  score {e['score']:.1f}, {e['length']} steps" for e in episodes]
    show({"file": str(out), "episodes": episodes}, as_json, text="\n".join([str(out), *lines]))


@click.command(short_help="Watch a policy play, in a window.")
@argument("policy", type=PATH)
@option("--seed", type=click.IntRange(0), help="Of the episode; default: the first one that evaluate plays.")
@option("--out", type=PATH, help="Where to write a film where there is no display; default: watch.mp4.")
@_showing
def watch(
    policy: Path,
    seed: int | None,
    out: Path | None,
    plain: bool,
    as_json: bool,
    quiet: bool,
    **where: Any,
) -> None:
    """Example: offrl watch carracing-bcq

    Plays one episode with POLICY, which is what record takes, in a window; close it to stop. Without a display, writes
    the film that record would.
    """
    from tqdm import tqdm

    from offrl.envs._display import has_display
    from offrl.envs.seeds import SCORE_SEEDS
    from offrl.report.video import record_episode, watch_episode

    seed = SCORE_SEEDS.start if seed is None else seed
    actor = load_actor(policy, pictures=True, **where)
    out = out or Path("watch.mp4")
    is_window = has_display()
    if not is_window and not quiet:
        echo(f"no display here; the film goes to {out}", err=True)
    panel = None if plain else _panel(actor, seed, quiet=quiet)
    how: dict[str, Any] = {"fps": actor.fps, "num_envs": _NUM_ENVS, "panel": panel}
    if is_window:
        found = watch_episode(actor.policy, actor.make_env, seed, **how)
        show({"seed": seed, **found._asdict()}, as_json)
        return
    with tqdm(desc="watch", unit=" steps", disable=True if quiet else None) as bar:
        found = record_episode(_Counted(actor.policy, bar), actor.make_env, seed, out, **how)
    show({"file": str(out), "seed": seed, **found._asdict()}, as_json)


class _Counted:
    """A policy that moves a bar with each step; a policy in all else, legal actions included."""

    def __init__(self, policy: OnnxPolicy | TorchPolicy, bar: tqdm[Any]) -> None:
        self.spec, self._policy, self._bar = policy.spec, policy, bar

    def __call__(self, *inputs: NDArray[Any]) -> NDArray[np.int64]:
        self._bar.update()
        return self._policy(*inputs)


def _panel(actor: Actor, seed: int, *, max_steps: int | None = None, quiet: bool = False) -> Panel:
    """The panel of an episode, which is played once for the scale of the bars: that takes about as long as the film."""
    from tqdm import tqdm

    from offrl.report.overlay import ActionPanel

    with tqdm(desc="look ahead", unit=" steps", leave=False, disable=True if quiet else None) as bar:
        return ActionPanel.of_episode(actor.policy, actor.make_env, seed, max_steps=max_steps, on_step=bar.update)


_MOST_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """The seeds of "3,7,9" or of a range, "10:13", whose end is not among them.

    Raises:
        ConfigError: neither.
    """
    try:
        if ":" in text:
            start, end = map(int, text.split(":"))
            found = list(range(start, min(end, start + _MOST_SEEDS + 1)))
        else:
            found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(found) > _MOST_SEEDS:
        raise ConfigError(f"{text!r}", where="--seeds", expected="seeds such as 3,7,9 or a range such as 10:13")
    return found

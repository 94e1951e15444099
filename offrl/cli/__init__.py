"""The command `offrl`: the only place where names become classes."""

# ruff: noqa: D301, D415  (help begins with an example; \b tells click to leave lines as they are)

from __future__ import annotations

import click

from offrl._version import __version__
from offrl.cli.about import algorithms, version
from offrl.cli.behaviours import collect
from offrl.cli.console import Group
from offrl.cli.data import convert, fetch, inspect
from offrl.cli.hub import card, publish, verify
from offrl.cli.judging import ope
from offrl.cli.pictures import plot, report
from offrl.cli.policies import evaluate, export
from offrl.cli.selecting import select
from offrl.cli.training import train
from offrl.cli.watching import record, watch


@click.group(cls=Group)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="offrl")
def main(debug: bool) -> None:
    """Example, from nothing to a policy in a minute:

    \b
      offrl collect CartPole-v1 data/cartpole --transitions 20000
      offrl inspect data/cartpole
      offrl train data/cartpole --updates 500 --set n_step=5 --set reward_scale=0.1 \\
        --set learning_rate=1e-3 --run runs/cartpole
      offrl evaluate runs/cartpole --out runs/cartpole/evaluation.json
      offrl record runs/cartpole runs/cartpole/videos/first.mp4
      offrl report runs/cartpole
      offrl export runs/cartpole runs/cartpole

    Offline reinforcement learning for discrete actions and pixels. Results go to stdout; progress, warnings and
    errors to stderr; plain text, without colours. Completion in bash (zsh and fish likewise), in ~/.bashrc:

    \b
      eval "$(_OFFRL_COMPLETE=bash_source offrl)"

    \b
    Exit codes:
      0    done
      2    bad input: one line on stderr says what, where, and how to fix it
      130  interrupted with ctrl-C (143: by SIGTERM, 129: by SIGHUP); what is finished is kept
      1    anything else: a defect, of offrl or of a class of your own
    """


for _command in (
    collect,
    fetch,
    convert,
    inspect,
    algorithms,
    train,
    evaluate,
    select,
    ope,
    watch,
    record,
    plot,
    report,
    export,
    card,
    publish,
    verify,
    version,
):
    main.add_command(_command)

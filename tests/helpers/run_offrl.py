"""The command line, run in this process."""

import json

from click.testing import CliRunner

from offrl.cli import main


def offrl(*args, code=0):
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def offrl_json(*args):
    return json.loads(offrl(*args, "--json").stdout)

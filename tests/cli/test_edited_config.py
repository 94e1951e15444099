"""A config.json that somebody has edited by hand is used, or refused in one line; never with a traceback."""

import copy
import json
import random

import pytest
from click.testing import CliRunner
from run_offrl import offrl_json

from offrl.cli import main

WRONG = [None, "x", -1, 2.5, True, [], {"a": [1]}, 10**30]
NUM_MUTATIONS = 60  # of about 500, others in every version of this file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited")
    offrl_json("collect", "CartPole-v1", folder / "data", "--transitions", 100, "--workers", 1)
    offrl_json(
        "train", folder / "data", "--updates", 2, "--run", folder / "run", "--set", "precision=fp32",
        "--set", "batch_size=8", "--set", "compile=off", "--encoder", "mlp",
    )  # fmt: skip
    return folder / "run"


def leaves(node, path=()):
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))


def with_value(config, path, value):
    edited = copy.deepcopy(config)
    node = edited
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return edited


def test_an_edited_config_is_used_or_refused_in_a_line(run):
    text = (run / "config.json").read_text()
    config = json.loads(text)
    mutations = [(path, value) for path in leaves(config) if path for value in WRONG]
    # A longer run would be no mistake: it trains.
    mutations = [(path, value) for path, value in mutations if not (path == ("fit", "updates") and value == 10**30)]
    chosen = random.Random(len(text)).sample(mutations, NUM_MUTATIONS)
    selections = [1, {}, {"statistics": 5}, {"statistics": ["x"]}, {"statistics": ["agreement"], "patience": "x"}]
    chosen += [(("selection",), value) for value in [*selections, {"statistics": ["agreement"], "more": 1}]]
    chosen += [(("spec", "scale"), "x"), (("settled",), []), (("init",), 5), (("notes", "dones"), {}), (("notes",), 1)]
    try:
        for path, value in chosen:
            (run / "config.json").write_text(json.dumps(with_value(config, path, value)))
            for command in (
                ["train", "--resume", str(run), "--quiet"],
                ["evaluate", str(run), "--episodes", "1", "--workers", "0", "--quiet"],
                ["report", str(run), "--quiet"],
            ):
                result = CliRunner().invoke(main, command)
                lines = [line for line in result.stderr.splitlines() if not line.startswith("warning")]
                assert result.exit_code in (0, 2), (path, value, command, result.exception)
                assert result.exit_code == 0 or len(lines) == 1, (path, value, command, lines)
    finally:
        (run / "config.json").write_text(text)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--nope"],
        ["evaluate"],
        ["--nope"],
        ["nope"],
        ["train", "data", "--updates", "many"],
        ["train", "data", "--updates", "1", "--threads", "100000000"],
    ],
)
def test_words_that_no_command_takes_are_refused_in_a_line(words):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: offrl")
    assert line.endswith("--help says what it takes")

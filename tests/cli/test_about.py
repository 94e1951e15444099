import os
import subprocess
import sys
import types

import pytest
from run_offrl import offrl, offrl_json

from offrl import __version__
from offrl.__main__ import main as entry_point
from offrl.cli.names import ALGORITHMS


def test_algorithms_are_listed_with_what_they_are():
    found = offrl_json("algorithms")
    assert list(found) == list(ALGORITHMS)
    assert found["bc"] == "Behaviour cloning by cross-entropy (Pomerleau 1991)."
    assert [line.split()[0] for line in offrl("algorithms").stdout.splitlines()] == list(ALGORITHMS)


def test_an_algorithms_settings_have_defaults_and_meanings():
    found = offrl_json("algorithms", "bcq")
    assert list(found["settings"]) == ["DiscreteBCQConfig", "LearnerConfig", "FitConfig", "replay"]
    threshold = found["settings"]["DiscreteBCQConfig"]["threshold"]
    assert threshold["default"] == 0.3
    assert threshold["meaning"].startswith("an action is allowed if")
    assert found["settings"]["LearnerConfig"]["optimizer_settings"]["default"] == {}


def test_an_algorithms_settings_are_shown_as_set_takes_them():
    words = offrl("algorithms", "dqn").stdout.split()
    assert {"double=true", "learning_rate=0.0003", "updates=none", "optimizer_settings={}", "tier=auto"} <= set(words)
    assert "no algorithm 'dqm'; expected" in offrl("algorithms", "dqm", code=2).stderr


def test_a_class_of_the_users_own_is_listed_too(tmp_path, monkeypatch):
    (tmp_path / "listed.py").write_text(
        "from dataclasses import dataclass\n"
        "from offrl import DQN\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    depth: int\n"
        "    sizes: tuple[int, ...] = (1, 2)\n"
        "class Own(DQN):\n"
        "    def __init__(self, spec, config: Config, *, encoder, seed=0): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shown = offrl("algorithms", "listed:Own").stdout
    assert "Config:\n  depth=\n  sizes=[1, 2]\n" in shown
    found = offrl_json("algorithms", "listed:Own")["settings"]["Config"]
    assert found == {"depth": {"meaning": ""}, "sizes": {"default": [1, 2], "meaning": ""}}


def test_version_says_what_a_result_depends_on():
    found = offrl_json("version")
    assert found["offrl"] == __version__
    assert {"python", "platform", "cores", "torch", "numpy", "gymnasium"} <= found.keys()


def test_a_shell_completes_the_commands():
    environment = {**os.environ, "_OFFRL_COMPLETE": "zsh_source"}
    command = [sys.executable, "-m", "offrl"]
    script = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "_OFFRL_COMPLETE=zsh_complete" in script
    asked = {**environment, "_OFFRL_COMPLETE": "zsh_complete", "COMP_WORDS": "offrl re", "COMP_CWORD": "1"}
    completed = subprocess.run(command, env=asked, capture_output=True, text=True, check=True).stdout
    assert {"record", "report"} <= set(completed.split())
    assert "train" not in completed.split()


def test_nothing_is_coloured():
    assert "\x1b" not in offrl("algorithms", "bcq").output + offrl("--help").output


def test_ctrl_c_while_the_commands_are_read_is_no_traceback(monkeypatch, capsys):
    module = types.ModuleType("offrl.cli")

    def interrupted(name):
        raise KeyboardInterrupt

    module.__getattr__ = interrupted
    monkeypatch.setitem(sys.modules, "offrl.cli", module)
    with pytest.raises(SystemExit) as ended:
        entry_point()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")

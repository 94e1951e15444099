"""The lock of the tested set, and what the audit of it says."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(name):
    """A script of .ci/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(name):
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return dict(line.split()[0].split("==") for line in lines), lines


def test_the_lock_has_the_versions_of_the_constraints_each_with_a_hash():
    locked, lines = pins("requirements-lock.txt")
    constraints, _ = pins("constraints.txt")
    assert {name: version.split("+")[0] for name, version in locked.items()} == constraints, "run: make lock"
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def install(name, version, **about):
    return {"metadata": {"name": name, "version": version}, "download_info": about}


def test_a_lock_is_what_pip_reports():
    hashes = {"archive_info": {"hashes": {"sha256": "ab" * 32}}}
    report = {"install": [install("Box2D_py", "2.3", **hashes), install("offrl", "0.1", dir_info={})]}
    assert load("lock").locked(report) == [f"box2d-py==2.3 --hash=sha256:{'ab' * 32}"]
    report["install"].append(install("torch", "2.13", dir_info={}))
    with pytest.raises(ValueError, match="torch: pip knows no sha256"):
        load("lock").locked(report)


def audited(*packages):
    return load("audit").verdict(json.dumps({"dependencies": [*packages]}))


SOUND = {"name": "click", "version": "8.1", "vulns": []}
UNKNOWN = {"name": "six", "skip_reason": "Dependency not found"}
WEAK = {"name": "wheel", "version": "0.1", "vulns": [{"id": "CVE-1", "fix_versions": ["0.2", "0.3"]}]}


def test_a_known_vulnerability_fails_the_audit():
    passes, said = audited(SOUND, UNKNOWN, WEAK)
    assert not passes
    assert said == [
        "wheel 0.1: CVE-1; mended in 0.2, 0.3",
        "2 packages audited, 1 vulnerabilities; not known there, not checked: six",
    ]
    assert audited(SOUND) == (True, ["1 packages audited, 0 vulnerabilities"])


def test_an_audit_that_checked_nothing_says_so_and_passes():
    passes, (line,) = load("audit").verdict("")
    assert passes
    assert line.startswith("NOT AUDITED: the database of vulnerabilities cannot be reached")
    passes, (line,) = audited(UNKNOWN)
    assert passes
    assert line.startswith("NOT AUDITED: the database of vulnerabilities knows none of the packages")

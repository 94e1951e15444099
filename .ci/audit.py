"""Asks pip-audit for known vulnerabilities of the locked packages: python .ci/audit.py requirements-lock.txt SECONDS.

Fails where it knows one. Where its database cannot be reached, does not answer within the time, or knows none of the
packages, it says so and does not fail: nothing was checked then, which is no fault of what is to be checked.
"""

import json
import subprocess
import sys
from pathlib import Path

_UNREACHED = "NOT AUDITED: the database of vulnerabilities cannot be reached; nothing was checked"


def verdict(output: str) -> tuple[bool, list[str]]:
    """Whether the audit passes, and what to say, from pip-audit's JSON; "" where there was none."""
    try:
        found = json.loads(output)["dependencies"]
    except ValueError:
        return True, [_UNREACHED]
    lines = [
        f"{each['name']} {each['version']}: {known['id']}; mended in {', '.join(known['fix_versions']) or 'no version'}"
        for each in found
        for known in each.get("vulns", [])
    ]
    skipped = [each["name"] for each in found if "skip_reason" in each]
    if len(skipped) == len(found):
        return True, ["NOT AUDITED: the database of vulnerabilities knows none of the packages; nothing was checked"]
    unknown = f"; not known there, not checked: {', '.join(skipped)}" if skipped else ""
    return not lines, [*lines, f"{len(found) - len(skipped)} packages audited, {len(lines)} vulnerabilities{unknown}"]


if __name__ == "__main__":
    # A local version such as torch's +cpu is in no database: its public version is what was reported on.
    lock, seconds = Path(sys.argv[1]), float(sys.argv[2])
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = "".join(f"{line.split()[0].split('+')[0]}\n" for line in lines if line and not line.startswith("#"))
    command = [
        "pip_audit",
        "-r",
        "/dev/stdin",
        "--no-deps",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--timeout",
        "5",
    ]
    command += ["-f", "json"]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", *command], input=pins, capture_output=True, text=True, timeout=seconds, check=False
        )
        output = ended.stdout
        if not output and "Connection" not in ended.stderr and "Timeout" not in ended.stderr:
            sys.exit(ended.stderr)
    except subprocess.TimeoutExpired:
        output = ""
    passes, said = verdict(output)
    print(*said, sep="\n")
    sys.exit(not passes)

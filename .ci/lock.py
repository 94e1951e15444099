"""Writes requirements-lock.txt: what pip would install for the tests, each file with its SHA-256.

    python -m pip install --dry-run --ignore-installed --report report.json -c constraints.txt ".[dev]"
    python .ci/lock.py report.json requirements-lock.txt

`make lock` does it. The hashes are those of the files for this system and this Python, from the index that pip uses.
"""

import json
import platform
import re
import sys
from pathlib import Path

_HEADER = """\
# The tested set with the SHA-256 of every file. To install exactly these files:
#   python -m pip install --require-hashes --no-deps -r requirements-lock.txt
# Made by `make lock` from constraints.txt on {system}, for that system and Python only.
# A local version such as torch's +cpu is a build that not every index has: where pip cannot find it, or finds a file
# with another hash, it stops; then make the lock anew with `make lock`, and compare the two.
"""


def locked(report: dict) -> list[str]:
    """The lines of a lock, from what `pip install --report` says; without offrl itself.

    Raises:
        ValueError: A file has no SHA-256.
    """
    lines = []
    for found in report["install"]:
        name = re.sub(r"[-_.]+", "-", found["metadata"]["name"]).lower()
        if name == "offrl":
            continue
        hashes = found["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            raise ValueError(f"{name}: pip knows no sha256 of it")
        lines.append(f"{name}=={found['metadata']['version']} --hash=sha256:{hashes['sha256']}")
    return lines


if __name__ == "__main__":
    *sources, target = map(Path, sys.argv[1:])
    system = f"{platform.system()} {platform.machine()} with Python {platform.python_version()}"
    lines = sorted(line for source in sources for line in locked(json.loads(source.read_text(encoding="utf-8"))))
    target.write_text("\n".join([_HEADER.format(system=system), *lines, ""]), encoding="utf-8")
    print(f"{target}: {len(lines)} packages")

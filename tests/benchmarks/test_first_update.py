"""The time to a first update."""

import json
import sys
from types import SimpleNamespace

from benchmarks import first_update
from offrl.runs import describe_machine

LIKE_A_WAY = """
import json, os, sys
print("{}", flush=True)
sys.stdin.readline()
print(json.dumps({"seconds": 0.0, "compile": os.environ["TORCHINDUCTOR_CACHE_DIR"]}), flush=True)
sys.stdin.readline()
"""


def test_a_way_is_started_with_the_cache(tmp_path):
    answer = first_update.started([sys.executable, "-c", LIKE_A_WAY], tmp_path / "log", "a folder")
    assert answer["compile"] == "a folder"


def test_seconds_count_from_before_the_process_is_started(monkeypatch, tmp_path):
    now = [100.0]

    class Slow:
        def __init__(self, command, log, environment):
            now[0] += 4.0  # imports, say

        def run(self, updates):
            now[0] += 3.0
            return {"seconds": 1.0}

        def close(self):
            now[0] += 50.0

    monkeypatch.setattr(first_update, "Way", Slow)
    monkeypatch.setattr(first_update, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert first_update.started([], tmp_path / "log", "a folder") == {"seconds": 7.0}


def test_a_row_has_the_median_and_the_page_shows_it(hooks, tmp_path):
    settled = {"precision": "bf16", "threads": 2, "compile": "on"}
    row = first_update.row_of([{"seconds": seconds, "memory_mib": 1, **settled} for seconds in (9.0, 7.0, 8.5)])
    assert row == {"seconds": 8.5, "each": [9.0, 7.0, 8.5], "settled": settled}
    assert "first-update" in hooks.first_update()
    result = {"command": "the command", "rows": {first_update.WARM: row}, "machine": describe_machine()}
    (tmp_path / "first_update.json").write_text(json.dumps(result))
    shown = hooks.first_update()
    assert f"| {first_update.WARM} | 8.5 | 7.0 to 9.0 | precision bf16, threads 2, compile on |" in shown

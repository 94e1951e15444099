"""What others take of the cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offrl.system import load
from offrl.system.load import OtherLoad


def test_the_time_of_others_is_divided_by_the_time_that_went_by(monkeypatch):
    readings = iter([(100.0, 10.0), (103.0, 12.0), (103.0, 20.0), (103.4, 21.0)])
    monkeypatch.setattr(OtherLoad, "_now", staticmethod(lambda: next(readings)))
    monkeypatch.setattr(load, "num_cores", lambda: 2)
    found = OtherLoad()
    assert [found.cores(), found.cores(), found.cores()] == [1.5, 0.0, pytest.approx(0.4)]


def test_without_proc_nothing_is_said(monkeypatch):
    monkeypatch.setattr(OtherLoad, "_now", staticmethod(lambda: None))
    assert OtherLoad().cores() is None


def test_a_busy_neighbour_counts_and_own_work_does_not():
    if not Path("/proc/stat").exists():
        pytest.skip("Linux only")
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before = OtherLoad._now()
        # Until the neighbour has had a tenth of a second of processor time, however long that takes.
        path = Path(f"/proc/{neighbour.pid}/stat")
        while int(path.read_text().rpartition(")")[2].split()[11]) < os.sysconf("SC_CLK_TCK") // 10:
            time.sleep(0.01)
        after = OtherLoad._now()
    finally:
        neighbour.kill()
        neighbour.wait()
    assert after[0] - before[0] > 0.05

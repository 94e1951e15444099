"""How long OpenMP's threads spin is chosen before torch is loaded, and only where nobody chose."""

import os
import sys

from offrl.system.openmp import give_way


def test_it_is_chosen_before_torch_is_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    give_way()
    assert os.environ["GOMP_SPINCOUNT"] == "7"  # the user's
    monkeypatch.delenv("GOMP_SPINCOUNT")
    give_way()
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    give_way()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_it_is_too_late_once_torch_is_loaded(monkeypatch):
    import torch  # noqa: F401

    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    give_way()
    assert "GOMP_SPINCOUNT" not in os.environ

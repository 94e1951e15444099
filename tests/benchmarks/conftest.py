"""The benchmarks, which are no part of the installed package, and small data for them."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)


@pytest.fixture(autouse=True)
def one_thread_a_way(importable, monkeypatch):
    """Other tests run beside them: two threads would wait for each other many times as long as they work."""
    from benchmarks import alternate

    monkeypatch.setattr(alternate, "num_cores", lambda: 1)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        sys.modules.pop("benchmarks", None)
        from benchmarks.stores import noise_store

        return noise_store(tmp_path_factory.mktemp("stores"), 1000)


@pytest.fixture
def hooks(tmp_path, monkeypatch):
    """The site's generators, over results in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.results, "RESULTS", tmp_path)
    return module

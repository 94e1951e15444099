"""Small tasks and data that many tests use."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterator

# One thread for each of pytest-xdist's workers, and for the processes that tests start: together they have all cores.
# OpenMP reads it when torch is imported, which the imports below do.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch
from toy_replay import ToyReplay

from offrl import TaskSpec

# How long examples take to make depends on what else the machine does, and on whether it was suspended meanwhile.
hypothesis.settings.register_profile("desk", suppress_health_check=[hypothesis.HealthCheck.too_slow])
# CI says what a change broke: the same examples each time. On a desk they are new ones.
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("desk"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Tests that a shell or nohup began in the background ignore these, and so would the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A test that sets torch's number of threads, as training does, leaves no trace for the next or its fixtures."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def toy_spec() -> TaskSpec:
    return TaskSpec.vector(3, ("left", "right", "stay"))


@pytest.fixture
def toy_replay(toy_spec) -> ToyReplay:
    return ToyReplay(toy_spec)


@pytest.fixture
def torchvision_stand_in(monkeypatch) -> None:
    """Lets onnx2pytorch be imported: it names torchvision's operators, which our files never hold.

    The real torchvision would bring another torch.
    """
    stand_ins = {
        "torchvision": (),
        "torchvision.io": ("decode_image", "ImageReadMode"),
        "torchvision.ops": ("deform_conv2d", "roi_pool", "roi_align"),
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(dict.fromkeys(members))
        monkeypatch.setitem(sys.modules, name, module)

"""Small tasks and data that many tests use."""

from __future__ import annotations

import sys
import types

import pytest
from toy_replay import ToyReplay

from offrl import TaskSpec


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

"""offrl: offline reinforcement learning for discrete actions and pixels.

The names below load on first use, so that `import offrl` costs nothing and has no side effects.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from offrl._version import __version__

if TYPE_CHECKING:
    from offrl.algorithms.algorithm import Algorithm as Algorithm
    from offrl.algorithms.bc import BC as BC
    from offrl.algorithms.bc import BCConfig as BCConfig
    from offrl.algorithms.bcq import DiscreteBCQ as DiscreteBCQ
    from offrl.algorithms.bcq import DiscreteBCQConfig as DiscreteBCQConfig
    from offrl.algorithms.dqn import DQN as DQN
    from offrl.algorithms.dqn import DQNConfig as DQNConfig
    from offrl.batch import Batch as Batch
    from offrl.encoders import CompactEncoder as CompactEncoder
    from offrl.encoders import MLPEncoder as MLPEncoder
    from offrl.encoders import NatureEncoder as NatureEncoder
    from offrl.errors import OfflineRLError as OfflineRLError
    from offrl.evaluate import evaluate as evaluate
    from offrl.export import export_onnx as export_onnx
    from offrl.fit import FitConfig as FitConfig
    from offrl.fit import fit as fit
    from offrl.learner import LearnerConfig as LearnerConfig
    from offrl.onnx_policy import OnnxPolicy as OnnxPolicy
    from offrl.policy import TorchPolicy as TorchPolicy
    from offrl.replay.replay import open_replay as open_replay
    from offrl.spec import TaskSpec as TaskSpec

_HOME = {
    "Algorithm": "algorithms.algorithm",
    "BC": "algorithms.bc",
    "BCConfig": "algorithms.bc",
    "Batch": "batch",
    "CompactEncoder": "encoders",
    "DQN": "algorithms.dqn",
    "DQNConfig": "algorithms.dqn",
    "DiscreteBCQ": "algorithms.bcq",
    "DiscreteBCQConfig": "algorithms.bcq",
    "FitConfig": "fit",
    "LearnerConfig": "learner",
    "MLPEncoder": "encoders",
    "NatureEncoder": "encoders",
    "OfflineRLError": "errors",
    "OnnxPolicy": "onnx_policy",
    "TaskSpec": "spec",
    "TorchPolicy": "policy",
    "evaluate": "evaluate",
    "export_onnx": "export",
    "fit": "fit",
    "open_replay": "replay.replay",
}

__all__ = [*_HOME, "__version__"]


class _Package(ModuleType):
    """This package: lets `offrl.fit` be the function whether or not the module of that name was imported first."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'offrl' has no attribute {name!r}")
        value = getattr(import_module(f"offrl.{_HOME[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Python binds every imported submodule to its name in the package, which would hide the function.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Package

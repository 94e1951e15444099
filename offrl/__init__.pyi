"""offrl: offline reinforcement learning for discrete actions and pixels.

The names below load on first use, so that `import offrl` costs nothing and has no side effects.
"""

from . import algorithms as algorithms
from . import collection as collection
from . import datasets as datasets
from . import envs as envs
from . import errors as errors
from . import evaluation as evaluation
from . import hub as hub
from . import losses as losses
from . import networks as networks
from . import policies as policies
from . import replay as replay
from . import report as report
from . import shards as shards
from . import training as training
from ._version import __version__ as __version__
from .algorithms import BC as BC
from .algorithms import DQN as DQN
from .algorithms import Algorithm as Algorithm
from .algorithms import BCConfig as BCConfig
from .algorithms import DiscreteBCQ as DiscreteBCQ
from .algorithms import DiscreteBCQConfig as DiscreteBCQConfig
from .algorithms import DQNConfig as DQNConfig
from .batch import Batch as Batch
from .errors import OfflineRLError as OfflineRLError
from .evaluation import EpisodeEvaluator as EpisodeEvaluator
from .evaluation import evaluate as evaluate
from .hub import load as load
from .hub import verify as verify
from .networks import CompactEncoder as CompactEncoder
from .networks import ImpalaEncoder as ImpalaEncoder
from .networks import MinAtarEncoder as MinAtarEncoder
from .networks import MLPEncoder as MLPEncoder
from .networks import NatureEncoder as NatureEncoder
from .policies import OnnxPolicy as OnnxPolicy
from .policies import TorchPolicy as TorchPolicy
from .policies import export_onnx as export_onnx
from .replay import ReplayConfig as ReplayConfig
from .replay import ReplaySource as ReplaySource
from .replay import open_replay as open_replay
from .spec import TaskSpec as TaskSpec
from .training import FitConfig as FitConfig
from .training import LearnerConfig as LearnerConfig
from .training import fit as fit

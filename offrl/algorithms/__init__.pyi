"""The algorithms, one file each: config, networks, loss."""

from .algorithm import Algorithm as Algorithm
from .algorithm import Metrics as Metrics
from .algorithm import ParameterGroup as ParameterGroup
from .algorithm import PolicyOutput as PolicyOutput
from .algorithm import frozen_copy as frozen_copy
from .bc import BC as BC
from .bc import BCConfig as BCConfig
from .bcq import DiscreteBCQ as DiscreteBCQ
from .bcq import DiscreteBCQConfig as DiscreteBCQConfig
from .building import build_algorithm as build_algorithm
from .dqn import DQN as DQN
from .dqn import DQNConfig as DQNConfig

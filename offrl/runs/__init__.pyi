"""A run's directory: its settings, checkpoints and tables."""

from .checkpoint import checkpoints as checkpoints
from .checkpoint import latest_checkpoint as latest_checkpoint
from .checkpoint import load_learner as load_learner
from .checkpoint import load_policy as load_policy
from .checkpoint import save_checkpoint as save_checkpoint
from .directory import create_run as create_run
from .directory import describe_machine as describe_machine
from .files import read_run_config as read_run_config
from .loggers import ConsoleLogger as ConsoleLogger
from .loggers import CSVLogger as CSVLogger
from .loggers import Logger as Logger
from .loggers import TensorBoardLogger as TensorBoardLogger
from .loggers import WandbLogger as WandbLogger

"""From batches to a trained policy: the update, the loop around it, and the run on disk."""

from .checkpoint import checkpoints as checkpoints
from .checkpoint import latest_checkpoint as latest_checkpoint
from .checkpoint import load_learner as load_learner
from .checkpoint import load_policy as load_policy
from .checkpoint import save_checkpoint as save_checkpoint
from .config import FitConfig as FitConfig
from .config import LearnerConfig as LearnerConfig
from .learner import Learner as Learner
from .loggers import ConsoleLogger as ConsoleLogger
from .loggers import CSVLogger as CSVLogger
from .loggers import Logger as Logger
from .loggers import TensorBoardLogger as TensorBoardLogger
from .loggers import WandbLogger as WandbLogger
from .loop import fit as fit
from .runs import create_run as create_run
from .runs import describe_machine as describe_machine
from .runs import read_run_config as read_run_config

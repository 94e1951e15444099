"""From batches to a trained policy: the update, and the loop around it."""

from .config import FitConfig as FitConfig
from .config import LearnerConfig as LearnerConfig
from .learner import Learner as Learner
from .loop import fit as fit
from .selection import Selection as Selection
from .selection import Statistic as Statistic

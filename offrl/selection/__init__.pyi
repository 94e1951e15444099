"""Which of some policies to take: statistics on held-out episodes, and rankings by them."""

from .bellman import BackupRegression as BackupRegression
from .bellman import BackupRegressionConfig as BackupRegressionConfig
from .bellman import FittedBackups as FittedBackups
from .bellman import fit_backups as fit_backups
from .candidates import Candidate as Candidate
from .criteria import CRITERIA as CRITERIA
from .criteria import Criterion as Criterion
from .criteria import one_step_backup as one_step_backup
from .fits import FittingConfig as FittingConfig
from .held_out import agreement as agreement
from .held_out import td_error as td_error
from .ranked import Ranked as Ranked
from .ranked import Ranking as Ranking
from .ranking import rank as rank
from .reading import Fitted as Fitted
from .reading import Log as Log
from .reading import Reading as Reading

"""Pictures, videos and pages about runs and datasets."""

from .compare import find_runs as find_runs
from .compare import group_runs as group_runs
from .compare import one_run_per_seed as one_run_per_seed
from .dataset_page import write_dataset_page as write_dataset_page
from .metrics import read_metrics as read_metrics
from .overlay import ActionPanel as ActionPanel
from .page import write_report as write_report
from .plots import plot_action_coverage as plot_action_coverage
from .plots import plot_comparison as plot_comparison
from .plots import plot_episode as plot_episode
from .plots import plot_losses as plot_losses
from .plots import plot_returns as plot_returns
from .plots import plot_scores as plot_scores
from .plots import plot_stacks as plot_stacks
from .progress import ProgressPlot as ProgressPlot
from .progress import plot_progress as plot_progress
from .scores import ScoreDifference as ScoreDifference
from .scores import ScoreRow as ScoreRow
from .scores import ScoreTable as ScoreTable
from .scores import score_table as score_table
from .video import Moment as Moment
from .video import Recording as Recording
from .video import record_episode as record_episode
from .video import record_episodes as record_episodes
from .video import watch_episode as watch_episode

"""Scores of policies on seeded episodes."""

from .grader import GraderPolicy as GraderPolicy
from .grader import grade as grade
from .scores import Evaluation as Evaluation
from .scores import Sweep as Sweep
from .scoring import EpisodeEnd as EpisodeEnd
from .scoring import evaluate as evaluate
from .scoring import evaluate_behaviour as evaluate_behaviour
from .scoring import sweep_thresholds as sweep_thresholds
from .trace import OpenPolicy as OpenPolicy
from .trace import Trace as Trace
from .trace import trace_episode as trace_episode
from .while_training import EpisodeEvaluator as EpisodeEvaluator

"""Off-policy evaluation: what a policy is worth, from logged data alone."""

from .episodes import Episodes as Episodes
from .estimators import Estimator as Estimator
from .estimators import direct_method as direct_method
from .estimators import doubly_robust as doubly_robust
from .estimators import effective_sample_size as effective_sample_size
from .estimators import per_decision_is as per_decision_is
from .estimators import trajectory_is as trajectory_is
from .estimators import weighted_doubly_robust as weighted_doubly_robust
from .estimators import weighted_is as weighted_is
from .estimators import weighted_per_decision_is as weighted_per_decision_is
from .held_out import agreement as agreement
from .held_out import td_error as td_error
from .intervals import Estimate as Estimate
from .intervals import bootstrap as bootstrap
from .steps import Steps as Steps
from .steps import clipped as clipped
from .reading import CRITERIA as CRITERIA
from .reading import Criterion as Criterion
from .reading import Log as Log
from .reading import Reading as Reading
from .selection import Candidate as Candidate
from .selection import Ranked as Ranked
from .selection import Ranking as Ranking
from .selection import rank as rank
from .splits import Split as Split
from .splits import shared_split as shared_split

"""Looking at a dataset, and changing its form."""

from .conversion import Conversion as Conversion
from .conversion import convert as convert
from .coverage import Measures as Measures
from .coverage import References as References
from .coverage import count_pairs as count_pairs
from .coverage import measure as measure
from .coverage import state_action_coverage as state_action_coverage
from .coverage import trajectory_quality as trajectory_quality
from .health import find_problems as find_problems
from .summary import DatasetSummary as DatasetSummary
from .summary import Drawn as Drawn
from .summary import Feature as Feature
from .summary import inspect_dataset as inspect_dataset
from .summary import sample_stacks as sample_stacks
from .tables import TableColumns as TableColumns

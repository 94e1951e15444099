"""Looking at a dataset, and changing its form."""

from .conversion import Conversion as Conversion
from .conversion import convert as convert
from .health import find_problems as find_problems
from .summary import DatasetSummary as DatasetSummary
from .summary import Drawn as Drawn
from .summary import inspect_dataset as inspect_dataset
from .summary import sample_stacks as sample_stacks
from .tables import TableColumns as TableColumns

"""Play that becomes a dataset."""

from .collector import collect as collect
from .online import OnlineConfig as OnlineConfig
from .online import collect_online as collect_online
from .recipes import RECIPES as RECIPES
from .recipes import Recipe as Recipe
from .recorder import Recorder as Recorder

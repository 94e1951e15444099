"""Play that becomes a dataset."""

from .collector import collect as collect
from .online import OnlineConfig as OnlineConfig
from .online import collect_online as collect_online
from .protocol import KINDS as KINDS
from .protocol import Kind as Kind
from .protocol import collect_protocol as collect_protocol
from .protocol import online_defaults as online_defaults
from .recipes import RECIPES as RECIPES
from .recipes import Recipe as Recipe
from .recorder import Recorder as Recorder

"""Environments: by name, wrapped, CarRacing and its faster twin, and what plays in them."""

from .behaviours import Behaviour as Behaviour
from .behaviours import EpsilonGreedy as EpsilonGreedy
from .behaviours import RandomBehaviour as RandomBehaviour
from .cart_pole import CartPoleDriver as CartPoleDriver
from .cart_pole import CartPoleMixture as CartPoleMixture
from .drivers import CarRacingMixture as CarRacingMixture
from .drivers import DriverSettings as DriverSettings
from .drivers import TrackDriver as TrackDriver
from .drivers import VariedDrivers as VariedDrivers
from .drivers import default_behaviour as default_behaviour
from .frame_stack import FrameStack as FrameStack
from .making import Env as Env
from .making import EnvFactory as EnvFactory
from .making import make as make
from .making import task_spec as task_spec
from .seeds import DATA_SEEDS as DATA_SEEDS
from .seeds import SCORE_SEEDS as SCORE_SEEDS
from .seeds import TUNING_SEEDS as TUNING_SEEDS
from .wrappers import DescribedTask as DescribedTask
from .wrappers import DiscreteActions as DiscreteActions
from .wrappers import ExactGrayStack as ExactGrayStack
from .wrappers import GrayStack as GrayStack
from .wrappers import NoProgressStop as NoProgressStop
from .wrappers import RandomActions as RandomActions
from .wrappers import StallStop as StallStop
from .wrappers import to_gray as to_gray

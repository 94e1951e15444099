"""From observations to features to outputs: encoders, heads, and how weights begin."""

from .encoders import CompactEncoder as CompactEncoder
from .encoders import Encoder as Encoder
from .encoders import EncoderFactory as EncoderFactory
from .encoders import ImpalaEncoder as ImpalaEncoder
from .encoders import MinAtarEncoder as MinAtarEncoder
from .encoders import MLPEncoder as MLPEncoder
from .encoders import NatureEncoder as NatureEncoder
from .encoders import ResidualEncoder as ResidualEncoder
from .encoders import default_encoder as default_encoder
from .encoders import feature_dim as feature_dim
from .heads import ENSEMBLES as ENSEMBLES
from .heads import Head as Head
from .heads import QHead as QHead
from .heads import is_ensemble as is_ensemble
from .initialisation import Initialisation as Initialisation
from .initialisation import initialise as initialise
from .initialisation import seeded as seeded

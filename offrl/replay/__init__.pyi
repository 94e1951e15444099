"""From shards to batches: the frame store made from a dataset, and the replay that draws from it."""

from .config import ReplayConfig as ReplayConfig
from .ingestion import ingest as ingest
from .opening import open_replay as open_replay
from .replay import Replay as Replay
from .sampler import Sampler as Sampler
from .sampling import BalancedActions as BalancedActions
from .sampling import Candidates as Candidates
from .sampling import Sampling as Sampling
from .sampling import SoftmaxReturns as SoftmaxReturns
from .sampling import TopReturns as TopReturns
from .sampling import Uniform as Uniform
from .source import Contents as Contents
from .source import ReplaySource as ReplaySource
from .store import FrameStore as FrameStore
from .store import IngestReport as IngestReport
from .streaming.source import StreamingReplay as StreamingReplay

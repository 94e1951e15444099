"""Data at rest: shards in two layouts, the manifest beside them, and copies of what lies elsewhere."""

from ._file_systems import is_remote as is_remote
from ._file_systems import redacted as redacted
from .arrays import write_dataset as write_dataset
from .download import fetch as fetch
from .episode import Episode as Episode
from .episode import write_shard as write_shard
from .layouts import Dones as Dones
from .layouts import Layout as Layout
from .layouts import Problem as Problem
from .manifest import Manifest as Manifest
from .manifest import ShardRecord as ShardRecord
from .remote import local_copy as local_copy

"""Data at rest: shards in two layouts, the manifest beside them, and copies of what lies elsewhere."""

from .addresses import is_remote as is_remote
from .addresses import redacted as redacted
from .download import fetch as fetch
from .episode import Episode as Episode
from .layouts import Dones as Dones
from .layouts import Layout as Layout
from .manifest import Manifest as Manifest
from .manifest import ShardRecord as ShardRecord
from .problem import Problem as Problem
from .remote import local_copy as local_copy
from .writing import write_shard as write_shard

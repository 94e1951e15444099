"""What looks wrong with a dataset while it is ingested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from offrl.shards.layouts import Problem

if TYPE_CHECKING:
    from offrl.replay._build import _Tally

_ROUNDING_TOLERANCE = 0.05  # gray levels; gray / 128 - 1 is exact even in float16


def _warnings(tally: _Tally, num_transitions: int) -> Iterator[Problem]:
    terminated_share = tally.num_terminated / num_transitions
    if tally.skipped:
        yield Problem(
            f"{len(tally.skipped)} damaged shard(s) set aside: {'; '.join(reason for _, reason in tally.skipped)}",
            "Their episodes are missing from the dataset, and from all figures about it.",
            "restore or re-create them",
        )
    if tally.layout == "stacked" and terminated_share > 0.5:
        yield Problem(
            f"dones is true in {terminated_share:.0%} of the rows, as if nearly every step ended its episode",
            "Nothing that follows such a step counts: only the reward at once would be learned.",
            "if this logger writes 'not done' there, pass dones=\"not_done\" (and leave that out where it does not)",
        )
    if tally.num_reversed:
        yield Problem(
            f"the stacks of {tally.num_reversed} shard(s) look newest first; offrl reads them oldest first",
            "A policy would see time run backwards when it acts, and rows are not linked.",
            "reverse them: states[:, ::-1], and next_states likewise",
        )
    if tally.unexplained_error > _ROUNDING_TOLERANCE:
        yield Problem(
            f"float pixels are up to {tally.unexplained_error:.2g} gray levels off the uint8 kept: they are not "
            "gray / 128 - 1",
            "They were normalised in another way than offrl does it: a policy will see other pictures when it acts.",
            "save the frames as uint8 0..255",
        )

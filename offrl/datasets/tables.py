"""Tables of logged decisions, in CSV or Parquet: which of their columns hold what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from offrl.errors import ConfigError


@dataclass(frozen=True)
class TableColumns:
    """Which columns of a table hold what; a row is one decision.

    Patterns are names in which `*` stands for any text. Several are separated by commas, and the columns of a pattern
    come in the table's order.

    Attributes:
        episode: The episode of the row, a number or text. In bandit data each row is an episode of its own.
        observations: The numbers that the decision was based on: a list of names and patterns.
        action: The action, a number from 0 or a name. Empty in a row after an episode's last step, which may say what
            that step led to.
        reward: The reward.
        step: What orders the rows of an episode, numbers or times; None for `step`, where there is such a column.
            Without it the rows of an episode must lie together and in order.
        probability: How likely the logging policy was to choose the action; empty where unknown. None for
            `probability`, where there is such a column.
        legal: Zeros and ones, a column for each action: a list of names and patterns. None for `legal_*`, where there
            are such columns. What `*` stands for is the action's name or number; listed one by one, the columns are in
            the order of the actions.
        terminated: Whether the row ended the task. None for `terminated`, where there is such a column.
        truncated: Whether the row was its episode's last for another reason, such as a time limit. None for
            `truncated`, where there is such a column. With neither column, the last row of every episode terminated.
        action_names: What each action does, in words, each in its own, in the order of the actions. None for the names
            in the table: those of the legal columns, else those in `action` in alphabetical order.

    Raises:
        ConfigError: A name that is empty, or two actions of one name.
    """

    episode: str = "episode"
    observations: str = "observation_*"
    action: str = "action"
    reward: str = "reward"
    step: str | None = None
    probability: str | None = None
    legal: str | None = None
    terminated: str | None = None
    truncated: str | None = None
    action_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "action_names" and value is not None and not (isinstance(value, str) and value.strip()):
                raise ConfigError(f"{value!r}", where=f"TableColumns.{field.name}", expected="the name of a column")
        if self.action_names is not None:
            require_names(self.action_names, where="TableColumns.action_names")


def require_names(names: Sequence[str], where: str) -> None:
    """Refuses names of actions that do not tell them apart.

    Raises:
        ConfigError: One is empty, or stands there twice.
    """
    wrong = [name for index, name in enumerate(names) if not str(name).strip() or name in names[:index]]
    if wrong:
        raise ConfigError(
            f"{wrong[0]!r} in {', '.join(map(str, names))}"[:200], where=where, expected="another name for each action"
        )

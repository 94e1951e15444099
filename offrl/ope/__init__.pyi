"""Off-policy evaluation: what a policy is worth, from logged data alone."""

from .held_out import agreement as agreement
from .held_out import td_error as td_error

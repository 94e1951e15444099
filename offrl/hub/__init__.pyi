"""Policies one line away: load, describe and publish them."""

from .card import model_card as model_card
from .loading import load as load
from .loading import load_algorithm as load_algorithm
from .loading import shipped_policies as shipped_policies
from .publishing import publish as publish
from .verifying import Checked as Checked
from .verifying import verify as verify

"""Policies whose true values are known, and what the offline estimators say of them."""

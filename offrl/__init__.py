"""Temporary during bootstrap."""

"""Scores of algorithms on datasets over training seeds: what a cell is, and what the field reports of many."""

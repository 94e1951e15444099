"""Figures that the documentation states, each made by a command: python -m benchmarks NAME."""

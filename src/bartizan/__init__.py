"""Bartizan: run the security of a machine-learning system and keep signed evidence of it."""

__version__ = "0.1.0"

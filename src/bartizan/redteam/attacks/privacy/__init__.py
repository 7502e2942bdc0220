"""Attacks that learn about the training data."""

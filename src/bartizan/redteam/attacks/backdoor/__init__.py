"""Attacks that teach a model a trigger through its training data."""

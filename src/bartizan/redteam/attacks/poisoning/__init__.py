"""Attacks that spoil training data."""

"""Attacks that change a text so that a classifier gets it wrong."""

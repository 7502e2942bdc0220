"""Attacks that copy the model."""

"""Attacks that change an input so that the model gets it wrong."""

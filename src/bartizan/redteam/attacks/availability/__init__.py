"""Attacks that make one request cost far more than others do."""

"""Secrets that lie where they must not: in model folders, notebooks, configuration, archives. Nothing is loaded."""

"""Adapters: the only place that imports a framework."""

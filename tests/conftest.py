"""Fixtures for all tests."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["pytester", "fixtures.shared", "fixtures.servers", "fixtures.project"]

# Timings on a shared machine are noise: a slow example is no failure. Benchmarks measure speed.
settings.register_profile("bartizan", deadline=None)
settings.load_profile("bartizan")

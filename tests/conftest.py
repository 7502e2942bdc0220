"""Fixtures for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

pytest_plugins = [
    "bartizan.testing.trace",
    "pytester",
    "fixtures.shared",
    "fixtures.servers",
    "fixtures.project",
    "fixtures.gateways",
    "fixtures.valkeys",
]

# One thread a process, set before NumPy is imported: several test processes share the cores.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Timings on a shared machine are noise: a slow example is no failure. Benchmarks measure speed.
settings.register_profile("bartizan", deadline=None)
settings.load_profile("bartizan")

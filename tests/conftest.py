"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from bartizan.targets import workers

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

# One process that runs checks, for the same reason: each takes seconds to begin.
os.environ.setdefault("BARTIZAN_WORKERS", "1")

# Timings on a shared machine are noise: a slow example is no failure. Benchmarks measure speed.
settings.register_profile("bartizan", deadline=None)
settings.load_profile("bartizan")

HERE = Path(__file__).parent
SLOW = {line for line in (HERE / "slow.txt").read_text().splitlines() if line and not line.startswith("#")}
"""Tests that `make soak` runs; see there."""

LONGEST = (
    "test_gateway_output",
    "test_documentation",
    "test_guidance",
    "test_campaign",
    "test_gateway_defaults",
    "test_families",
    "test_serve",
    "test_gateway",
    "test_gateway_promises",
    "test_gateway_inputs",
    "test_convert",
    "test_gateway_rules",
    "test_report_in_browser",
    "test_hostile_inputs",
    "test_main_job",
    "test_attack_command",
    "test_masking",
    "test_digits_example",
    "test_poison_check",
    "test_privacy",
    "test_masking_check",
    "test_compare_command",
    "test_intake_command",
    "test_provenance",
    "test_sequential",
    "test_runner",
    "test_torch_files",
)
"""Files that take longest, begun first: none is left to one process while the other has nothing to do."""


def pytest_configure(config):
    """Files are begun in the order of collection, not by how many tests they have."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """The longest files first, and marks for those that are too long; within a file, nothing changes."""
    found, files = set(), set()
    for item in items:
        file = item.path.relative_to(HERE).as_posix() if item.path.is_relative_to(HERE) else ""
        files.add(file)
        if (name := f"{file}::{item.name}") in SLOW:
            if item.get_closest_marker("control"):
                raise pytest.UsageError(f"{name} is the test of a catalogue item: take it from slow.txt")
            item.add_marker("slow")
            found.add(name)
    whole = not (getattr(config.option, "lf", False) or any("::" in argument for argument in config.args))
    if gone := sorted(name for name in SLOW - found if whole and name.partition("::")[0] in files):
        raise pytest.UsageError(f"slow.txt names tests that are not there: {', '.join(gone)}")
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish():
    """Checks are run in many pools of processes: what the tests have loaded, but frameworks, is loaded once for all."""
    loaded = [name for name in sys.modules if name.startswith("bartizan.")]
    workers.also[:] = [name for name in loaded if not name.startswith("bartizan.adapters")]

"""Hours in minutes: run by `make soak`, which says how long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MINUTES = os.environ.get("BARTIZAN_SOAK_MINUTES", "")


def pytest_collection_modifyitems(items):
    """Everything here is slow, and left out unless somebody says how long it may take."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if not MINUTES:
                item.add_marker(pytest.mark.skip(reason="set BARTIZAN_SOAK_MINUTES, or run `make soak`"))


@pytest.fixture(scope="session")
def minutes():
    """How long the longest test may take."""
    return float(MINUTES)

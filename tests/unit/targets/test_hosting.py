"""How the inner side of an isolated process begins."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from bartizan.targets.no_tables import TABLES
from bartizan.targets.hosting import imported
module = imported("bartizan.adapters.sklearn_host")
assert module.commands()
assert not [name for name in TABLES if name in sys.modules], "not even as what is missing"
import pandas
assert pandas.DataFrame({"a": [1]}).shape == (1, 1)
"""


def test_tables_are_not_loaded_for_arrays_and_can_be_loaded_for_a_model_that_names_them():
    pytest.importorskip("pandas")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr

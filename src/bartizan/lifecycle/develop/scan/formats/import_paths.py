"""Dotted names in configurations that a program imports and calls."""

from __future__ import annotations

import re
import sys

from bartizan.lifecycle.develop.scan.formats.python_code import rule_of
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy

DOTTED = re.compile(r"[A-Za-z_]\w{0,200}(?:\.\w{1,200}){1,40}")
MODERATE = frozenset({"tensorflow", "sklearn", "scipy", "pathlib", "keras"})
"""Packages that the list for pickles calls dangerous as a whole or for reading files, and configurations name."""
HARMLESS = frozenset(
    {
        "abc", "argparse", "builtins", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime",
        "decimal", "enum", "fractions", "functools", "itertools", "json", "logging", "math", "numbers",
        "operator", "pathlib", "random", "re", "statistics", "string", "time", "typing", "uuid",
    }
)  # fmt: skip
"""Modules of the standard library that a configuration may build objects from."""


def harm_of(path: str) -> str:
    """What importing and calling a dotted name would do; empty when no harm is known of it."""
    top = path.split(".", maxsplit=1)[0]
    module, _, name = path.rpartition(".")
    known = "" if top in MODERATE or top == "logging" else load_policy().danger(module, name)
    if known:
        return known
    if rule_of(path) is not None:
        return "reaches what no model needs"
    if top in sys.stdlib_module_names and top not in HARMLESS:
        return "is no part of a model"
    return ""


def is_dotted(value: object) -> bool:
    """Whether a value is the dotted name of something in a module."""
    return isinstance(value, str) and DOTTED.fullmatch(value) is not None


__all__ = ["harm_of", "is_dotted"]

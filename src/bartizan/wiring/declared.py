"""Reading the declaration with the words of the installed catalogue and checks."""

from __future__ import annotations

from pathlib import Path

from bartizan.catalogue.load import catalogue
from bartizan.core.ports import Clock, Files
from bartizan.core.system import System
from bartizan.lifecycle.design.declaration import load_system
from bartizan.lifecycle.design.vocabulary import Vocabulary
from bartizan.wiring.registry import installed


def load(path: Path, files: Files, clock: Clock) -> System:
    """The declared system. Raises InputError with every fault of the file."""
    return load_system(path, files, Vocabulary.of(catalogue(), installed()), clock=clock)

"""The model families that are installed, with everything that adapters know of their estimators."""

from __future__ import annotations

from bartizan.lifecycle.develop.choose.candidate import Candidate
from bartizan.wiring.workspace import load


def families() -> list[Candidate]:
    """All of them, the floor first and then by rising capacity."""
    pruning = load("bartizan.adapters.sklearn_pruning:pruned")
    why_not = load("bartizan.adapters.sklearn_pruning:why_not_pruned")
    tools = load("bartizan.adapters.sklearn_families:Tools")(why_not_pruned=why_not, pruned=pruning)
    return list(load("bartizan.adapters.sklearn_families:InstalledFamilies")(tools).candidates())

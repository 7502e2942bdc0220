"""What checks may ask for while they run, made anew in each worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bartizan.core.digest import Digest
from bartizan.core.errors import WorkError
from bartizan.redteam.journal import Journals
from bartizan.targets.isolated import Limits, required_layers
from bartizan.targets.protocol import Targets
from bartizan.wiring.workspace import load


class CheckServices:
    """Ports to objects.

    ``clean`` are the digests of models that were scanned and found clean; ``journals`` is the folder in
    which campaigns keep what they asked, so that a killed one goes on where it was; ``confinement`` are the
    layers without which no model is loaded.
    """

    def __init__(self, journals: Path, clean: frozenset[Digest], confinement: str = "limits") -> None:
        self._journals = journals
        self._clean = clean
        self._limits = Limits(require=required_layers(confinement))

    def __call__(self, port: type[Any]) -> Any:
        """The object behind a port. Raises WorkError for one that nobody provides."""
        if port is Targets:
            return load("bartizan.adapters.sklearn:SklearnTargets")(self._clean.__contains__, self._limits)
        if port is Journals:
            return load("bartizan.redteam.journal_file:FolderJournals")(self._journals)
        raise WorkError(f"no service is wired for {port.__name__}", remedy="this is a mistake in the check.")

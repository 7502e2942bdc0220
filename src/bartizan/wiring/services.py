"""What checks may ask for while they run, made anew in each worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bartizan.adapters.sklearn import SKLEARN
from bartizan.core.digest import Digest
from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.guards.rules.fitting import Trees
from bartizan.redteam.journal import Journals
from bartizan.targets.hosted import Framework, HostedTargets
from bartizan.targets.isolated import Limits, required_layers
from bartizan.targets.protocol import Targets
from bartizan.targets.text import TextTargets
from bartizan.wiring.workspace import load

TORCH_BYTES = 6 << 30
"""Address space of torch's libraries; those for graphics cards are the larger half."""
FRAMEWORKS = {
    "scikit-learn": SKLEARN,
    "onnx": Framework(
        host="bartizan.adapters.onnx.host",
        remedy="save a classifier with one input of numbers, all of it in one file (needs bartizan[onnx]).",
        library_bytes=TORCH_BYTES,
    ),
    "torch": Framework(
        host="bartizan.adapters.torch_host",
        remedy="save the network with torch.export.save, or torch.jit.save, so that it returns logits, one for each "
        "class (needs bartizan[torch]).",
        library_bytes=TORCH_BYTES,
    ),
    "xgboost": Framework(
        host="bartizan.adapters.boosting.xgboost_host",
        remedy="save a classifier with model.save_model('model.json') or '.ubj' (needs bartizan[xgboost]).",
        describes_itself=True,
    ),
    "lightgbm": Framework(
        host="bartizan.adapters.boosting.lightgbm_host",
        remedy="save a classifier with booster.save_model('model.txt') (needs bartizan[lightgbm]).",
        describes_itself=True,
    ),
}
"""How models of each declared framework are held."""


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
            return HostedTargets(FRAMEWORKS, self._clean.__contains__, self._limits)
        if port is TextTargets:
            return load("bartizan.adapters.sklearn_text:SklearnTexts")(self._clean.__contains__, self._limits)
        if port is Journals:
            return load("bartizan.redteam.journal_file:FolderJournals")(self._journals)
        if port is Trees:
            return load("bartizan.adapters.sklearn_tree:SklearnTrees")()
        raise WorkError(f"no service is wired for {port.__name__}", remedy="this is a mistake in the check.")

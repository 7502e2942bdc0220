"""Copying: how many answers a copy costs."""

from __future__ import annotations

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.choose.contest import contest
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.attacks.extraction.active import ActiveExtraction, ActiveExtractionFromLabels
from bartizan.redteam.extraction import Extraction

KEPT = ("fidelity", "queries_for_90_percent_fidelity")
"""The second is there when a copy became as faithful as that within the budget."""


class Copying:
    """See ``Column``."""

    name = "copying"
    version = "2"
    title = "Model extraction by active learning"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        variants = [ActiveExtraction(), ActiveExtractionFromLabels()]
        try:
            played = contest(trial.target, Extraction(), variants, trial.material, trial.tell)
        except ArtefactError as error:
            return Part(missing=error.message)
        measured = played.measured
        return Part(
            metrics={name: measured.metrics[name] for name in KEPT if name in measured.metrics},
            curves={"fidelity_by_queries": measured.curves["fidelity_by_queries"]},
            details={"constant_copy_fidelity": measured.tables["constant_copy_fidelity"]},
        )

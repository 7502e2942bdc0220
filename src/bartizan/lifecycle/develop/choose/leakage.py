"""Leakage: what the training procedure gives away of its records, beside how much it learnt by heart."""

from __future__ import annotations

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.choose.contest import contest
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.attacks.privacy.membership import Membership, MembershipFromLabels
from bartizan.redteam.privacy import Privacy
from bartizan.targets.protocol import Access

KEPT = {
    "membership_tpr_at_1_percent_fpr": "pipeline_tpr_at_1_percent_fpr",
    "membership_auc": "pipeline_auc",
    "membership_advantage": "pipeline_balanced_accuracy_advantage",
}
"""Our name to the family's: figures for the training procedure, whose records were handed out at random."""


class Leakage:
    """See ``Column``."""

    name = "leakage"
    version = "1"
    title = "Membership inference (LiRA) against the training procedure"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        if Access.TRAINING not in trial.target.offers:
            return Part(missing="the model cannot be trained again, so no shadow models can be made.")
        try:
            played = contest(
                trial.target, Privacy(), [Membership(), MembershipFromLabels()], trial.material, trial.tell
            )
        except ArtefactError as error:
            return Part(missing=error.message)
        measured = played.measured
        curves = {name: points for name, points in measured.curves.items() if name.startswith("pipeline_roc_lira")}
        return Part(
            metrics={ours: measured.metrics[theirs] for ours, theirs in KEPT.items()},
            curves=curves,
            details={"rule": measured.tables["headline_rule"], "shadow_models": len(played.case.task.shadows)},
        )

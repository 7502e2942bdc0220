"""Lesson: answers give away who was in the training data."""

from __future__ import annotations

from bartizan.core.predicates import Assessment
from bartizan.lifecycle.design.guidance.document import Section
from bartizan.lifecycle.design.guidance.labs.pictures import curves
from bartizan.lifecycle.design.guidance.labs.shape import (
    Ground,
    Tell,
    assessment,
    first_fitting,
    number,
    play,
    shown,
    threat_of,
)
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.privacy.membership import Membership, MembershipFromLabels
from bartizan.redteam.privacy import Privacy
from bartizan.targets.protocol import Access

ADVANTAGE = "balanced_accuracy_advantage"
"""Share of members accused minus share of others accused (Yeom et al. 2018, arXiv:1709.01604)."""


class MembershipLab:
    """See ``Lab``."""

    name = "membership"
    title = "Tell from answers who was in the training data"
    family = "privacy"
    needs = frozenset({Access.LABELS, Access.TRAINING})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attacks: tuple[Attack, ...] = (Membership(), MembershipFromLabels())
        attack = first_fitting(ground, attacks)
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        "The adversary holds records and wants to know which of them the "
                        "model was trained on. It trains "
                        f"{ground.material.settings.shadow_models} models of the same kind on halves of such records, "
                        "learns how answers about members differ from answers about "
                        "others, and asks the model once about "
                        "each record."
                    ),
                ),
            )
        )
        played = play(ground, Privacy(), attack)
        metrics = played.measured.metrics
        found = played.measured
        rule = str(found.tables["headline_rule"])
        tell(
            Section(
                title="2. What is seen",
                text=(found.summary,),
                points=(
                    (
                        f"Membership advantage (members accused minus others accused): {shown(metrics[ADVANTAGE])}; "
                        "0 % is guessing."
                    ),
                    f"Members found when 1 in 100 others is accused: {shown(metrics['tpr_at_1_percent_fpr'])}.",
                    f"Area under the curve: {number(metrics['auc'])}; 0.5 is guessing.",
                ),
                figures=(curves("roc", {rule: found.curves[f"roc_{rule}"]}),),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Stop training when held-out records stop gaining; a model that fits single records leaks them.",
                    "Use fewer features and more records; train with differential privacy where it must not leak.",
                    "Answer with labels, or with scores that are rounded: less detail, less to tell by.",
                    "Treat the model's file like the data it was made of.",
                ),
            )
        )
        return assessment(self, ground, found.summary, metrics, threat_of(attack, played))

"""Lesson: a model tells how common something was in its training data."""

from __future__ import annotations

from bartizan.core.predicates import Assessment
from bartizan.lifecycle.design.guidance.document import Section, Table
from bartizan.lifecycle.design.guidance.labs.shape import Ground, Tell, assessment, number, play, shown, threat_of
from bartizan.redteam.attacks.privacy.properties import PropertyByShadows
from bartizan.redteam.properties import PropertyInference
from bartizan.targets.protocol import Access


class PropertyLab:
    """See ``Lab``."""

    name = "property"
    title = "Tell from answers how common a group is in the training data"
    family = "privacy"
    needs = frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attack = PropertyByShadows()
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        "The secret is no record but a share: how many of the training records have something in "
                        "common, such as the customers of a firm. The adversary trains models of the same kind on "
                        "data of its own, half of them where the property is rare and half where it is common, and "
                        "learns to tell their answers apart. Then it is given the answers of models trained on "
                        "other records."
                    ),
                ),
            )
        )
        played = play(ground, PropertyInference(), attack)
        found, metrics, told = played.measured, played.measured.metrics, played.case.settings
        tell(
            Section(
                title="2. What is seen",
                text=(found.summary,),
                points=(
                    f"Models that were told rightly: {shown(metrics['accuracy'])}; 50 % is guessing.",
                    f"Area under the curve: {number(metrics['auc'])}; 0.5 is guessing.",
                ),
                table=Table(
                    ("Property", "Rare", "Common", "Training records"),
                    (
                        (
                            str(told["property"]),
                            f"{told['rare']:.0%}",
                            f"{told['common']:.0%}",
                            str(told["training_records"]),
                        ),
                    ),
                ),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Ask whether a share in your data is a secret, not only whether a record is.",
                    "Balance such a share before training, or leave out features that stand for it.",
                    "Give labels instead of scores to whoever does not need more.",
                    "Do not count on differential privacy here: it hides single records, not shares of many.",
                ),
            )
        )
        return assessment(self, ground, found.summary, metrics, threat_of(attack, played))

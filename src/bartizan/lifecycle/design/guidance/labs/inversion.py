"""Lesson: scores show what the classes of the training data look like."""

from __future__ import annotations

from bartizan.core.predicates import Assessment
from bartizan.lifecycle.design.guidance.document import Figure, Section, Table
from bartizan.lifecycle.design.guidance.labs.pictures import images
from bartizan.lifecycle.design.guidance.labs.shape import (
    Ground,
    Played,
    Tell,
    assessment,
    number,
    play,
    shown,
    threat_of,
)
from bartizan.redteam.attacks.privacy.inversion import InversionByScores
from bartizan.redteam.inversion import Inversion
from bartizan.targets.protocol import Access, Rows

MOST = 10
"""Classes that are shown."""


class InversionLab:
    """See ``Lab``."""

    name = "inversion"
    title = "Rebuild from answers what each class looks like"
    family = "privacy"
    needs = frozenset({Access.LABELS, Access.SCORES})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attack = InversionByScores()
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        "The adversary has no record of any class, only a usual row and the ranges of the features. It "
                        f"asks the model at most {ground.material.settings.query_budget} times for each class, and "
                        "walks to where the score of that class is highest."
                    ),
                ),
            )
        )
        played = play(ground, Inversion(), attack)
        found, metrics = played.measured, played.measured.metrics
        tell(
            Section(
                title="2. What is seen",
                text=(found.summary,),
                points=(
                    f"Similarity with the mean of the training rows of the class: {number(metrics['similarity'])}.",
                    f"Without the model: {number(metrics['similarity_without_model'])}.",
                    f"Rebuilt classes that are nearest to their own: {shown(metrics['classes_identified'])}.",
                ),
                table=_by_class(ground, played),
                figures=_pictures(ground, played),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Give labels, or scores that are rounded, to whoever does not need more.",
                    "Do not let a class be a person: a face or a patient that is a class can be rebuilt.",
                    "Treat the model's file like the data it was made of.",
                    "Limit queries for each account; walking uphill takes hundreds that hardly differ.",
                ),
            )
        )
        return assessment(self, ground, found.summary, metrics, threat_of(attack, played))


def _by_class(ground: Ground, played: Played) -> Table:
    similar = played.measured.tables["similarity_by_class"]
    rows = tuple((name, f"{value:.2f}") for name, value in zip(ground.classes, similar, strict=True))
    return Table(("Class", "Similarity"), rows[:MOST])


def _pictures(ground: Ground, played: Played) -> tuple[Figure, ...]:
    if ground.shape is None:
        return ()
    rebuilt: Rows = played.run.candidates[:MOST]
    lines = [("mean of the training data", played.case.truth.means[:MOST]), ("rebuilt from answers", rebuilt)]
    caption = "Above the mean of each class in the training data, below what was rebuilt from scores alone."
    return (images("inversion", "Classes and what was rebuilt of them", lines, ground.shape, caption),)

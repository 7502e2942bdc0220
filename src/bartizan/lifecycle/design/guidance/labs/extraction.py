"""Lesson: a copy of the model from its answers."""

from __future__ import annotations

from bartizan.core.predicates import Assessment
from bartizan.lifecycle.design.guidance.document import Section
from bartizan.lifecycle.design.guidance.labs.pictures import curves
from bartizan.lifecycle.design.guidance.labs.shape import (
    Ground,
    Tell,
    assessment,
    first_fitting,
    play,
    shown,
    threat_of,
)
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.extraction.active import ActiveExtraction, ActiveExtractionFromLabels
from bartizan.redteam.extraction import Extraction
from bartizan.redteam.family import Point
from bartizan.targets.protocol import Access


class ExtractionLab:
    """See ``Lab``."""

    name = "extraction"
    title = "Copy the model by asking it"
    family = "extraction"
    needs = frozenset({Access.LABELS})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attacks: tuple[Attack, ...] = (ActiveExtraction(), ActiveExtractionFromLabels())
        attack = first_fitting(ground, attacks)
        budget = ground.material.settings.extraction_budget
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        "The adversary owns cases without labels, asks the model about "
                        f"those that teach it most, {budget} "
                        "times in all, and trains a model of its own on the answers."
                    ),
                ),
            )
        )
        played = play(ground, Extraction(), attack)
        found = played.measured
        tell(
            Section(
                title="2. What is seen",
                text=(found.summary,),
                points=(f"The copy answers like the model on unseen cases: {shown(found.metrics['fidelity'])}.",),
                figures=tuple(curves("fidelity", {_words(name): points}) for name, points in _first(found.curves)),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Limit queries for each account; a copy needs hundreds, a case needs one.",
                    "Give labels or rounded scores where these will do: each score teaches more than a label.",
                    "Count with the copy: whoever has one tries every other attack on it for nothing.",
                ),
            )
        )
        return assessment(self, ground, found.summary, found.metrics, threat_of(attack, played))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _first(found: dict[str, tuple[Point, ...]]) -> list[tuple[str, tuple[Point, ...]]]:
    return list(found.items())[:1]

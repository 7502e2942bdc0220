"""Lesson: a few wrong labels make the model worse."""

from __future__ import annotations

from bartizan.core.predicates import Assessment
from bartizan.lifecycle.design.guidance.document import Section
from bartizan.lifecycle.design.guidance.labs.pictures import curves
from bartizan.lifecycle.design.guidance.labs.shape import Ground, Tell, assessment, play, shown, threat_of
from bartizan.redteam.attacks.poisoning.labelflip import LabelFlip
from bartizan.redteam.poisoning import Poisoning
from bartizan.targets.protocol import Access


class PoisoningLab:
    """See ``Lab``."""

    name = "poisoning"
    title = "Spoil the model by wrong labels"
    family = "poisoning"
    needs = frozenset({Access.LABELS, Access.TRAINING})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attack = LabelFlip()
        rates = ", ".join(f"{rate:.0%}" for rate in ground.material.settings.poison_rates)
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        f"Somebody who labels {rates} of the training records gives them wrong labels: at random, and "
                        "where it hurts most. The same kind of model is trained again on the "
                        "spoilt data and measured on records "
                        "that no training saw."
                    ),
                ),
            )
        )
        played = play(ground, Poisoning(), attack)
        found = played.measured
        drops = {name: metric for name, metric in found.metrics.items() if "drop" in name}
        tell(
            Section(
                title="2. What is seen",
                text=(found.summary,),
                points=tuple(f"{name.replace('_', ' ').capitalize()}: {shown(drop)}." for name, drop in drops.items()),
                figures=(
                    curves(
                        "poison",
                        {
                            name.replace("_", " "): points
                            for name, points in found.curves.items()
                            if name.startswith("accuracy")
                        },
                    ),
                ),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Let nobody label a whole set; have a share labelled twice and compare.",
                    (
                        "Look for labels that a model trained on other records doubts: "
                        "`bartizan assure --only data.quality`."
                    ),
                    "Record which source and labeller each record came from, so that they can be taken out again.",
                ),
            )
        )
        return assessment(self, ground, found.summary, found.metrics, threat_of(attack, played))

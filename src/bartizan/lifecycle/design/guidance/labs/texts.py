"""Lesson: a message that reads as before passes the filter, and what stands in the way of it."""

from __future__ import annotations

from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.lifecycle.design.guidance.document import Section, Table
from bartizan.lifecycle.design.guidance.labs.pictures import curves
from bartizan.lifecycle.design.guidance.labs.shape import Tell, TextGround, assessment, shown
from bartizan.redteam.attacks.text.characters import Characters
from bartizan.redteam.attacks.text.imperceptible import Imperceptible
from bartizan.redteam.family import Case, Measurement
from bartizan.redteam.text import TextAttack, play_text, seen
from bartizan.redteam.text_check import measured_texts, text_case
from bartizan.targets.protocol import Access
from bartizan.targets.text import CallableText, TextTarget


class TextLab:
    """See ``TextLab`` of ``shape``."""

    name = "text"
    title = "Write what a filter does not see and a reader does"
    family = "text"
    needs = frozenset({Access.LABELS, Access.SCORES})

    def run(self, ground: TextGround, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        unseen, letters = Imperceptible(), Characters()
        settings = ground.material.settings
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        f"The adversary takes {settings.samples} texts that the model never saw and may ask it "
                        f"{settings.query_budget} times for each. It finds the words on which the answer hangs and "
                        "puts characters without width into them, or letters of other scripts that look alike: a "
                        "reader sees no difference. A second adversary misspells them. Then both try again where a "
                        "text is brought back to what a reader sees before the model is asked."
                    ),
                ),
            )
        )
        folded = Folded(ground.target)
        played = {
            (attack.title.partition(":")[0], defence): _play(ground, attack, target)
            for attack in (unseen, letters)
            for defence, target in (("none", ground.target), ("folded", folded))
        }
        rows = tuple(
            (name, defence, shown(found.metrics["robust_accuracy"]), shown(found.metrics["attack_success"]))
            for (name, defence), (_, found) in played.items()
        )
        case, first = next(iter(played.values()))
        tell(
            Section(
                title="2. What is seen",
                text=(first.summary,),
                points=(f"Right on unchanged texts: {shown(first.metrics['clean_accuracy'])}.",),
                table=Table(("Attack", "In front of the model", "Still right", "Attacks that succeed"), rows),
                figures=(
                    curves(
                        "change",
                        {
                            f"{name}, {defence}": found.curves["robust_accuracy_by_change"]
                            for (name, defence), (_, found) in played.items()
                        },
                    ),
                ),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    (
                        "Bring a text back to what a reader sees before the model gets it: drop characters without "
                        "width, fold look-alike letters."
                    ),
                    "Train on misspelt texts, or on parts of words: folding does nothing against misspelling.",
                    "Give senders no score, and no answer at all where none is needed: without it there is no search.",
                    (
                        "Do not let a filter be the only thing between a text and what it may set off, such as a "
                        "tool or a payment."
                    ),
                ),
            )
        )
        metrics = _named(played)
        threat = Threat(position=unseen.position, access=tuple(sorted(unseen.needs)), knowledge=case.knowledge)
        return assessment(self, ground, first.summary, metrics, threat)


class Folded:
    """A model that is given what a reader sees. See ``TextTarget``."""

    def __init__(self, target: TextTarget) -> None:
        self._inner = CallableText(
            lambda texts: target.scores([seen(text) for text in texts]), classes=target.classes, name=target.name
        )
        self.name, self.classes, self.scores = target.name, target.classes, self._inner.scores


def _play(ground: TextGround, attack: TextAttack, target: TextTarget) -> tuple[Case, Measurement]:
    case = text_case(attack, ground.material, ground.stream("text"))
    drawn = int(ground.stream(attack.name, "search").integers(2**31))
    found = play_text(target, attack, case.task, seed=drawn)
    return case, measured_texts(found, ground.material, case.truth, ground.seed)


def _named(played: dict[tuple[str, str], tuple[Case, Measurement]]) -> dict[str, Metric]:
    """Robust accuracy of each attack with and without folding, and accuracy without any attack."""
    found = {
        f"robust_accuracy_{name.lower()}_{defence}": measured.metrics["robust_accuracy"]
        for (name, defence), (_, measured) in played.items()
    }
    _, first = next(iter(played.values()))
    return {"clean_accuracy": first.metrics["clean_accuracy"], **found}

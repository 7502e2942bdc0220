"""Evasion of declared text classifiers: the task from declared texts, robust accuracy of texts asked again, the check.

``redteam.max_change`` below 1 is the largest share of a text's letters, or words, that may be touched; at its default
each attack has its own. Results never hold a word of a text: texts may be personal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.check import Context, Outcome
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import Metric
from bartizan.core.system import Artefact, Declaration, ModelPart, RedTeam, System
from bartizan.redteam.check import ALL, AttackCheck, limited, offered, outcome_of, stream, why_not
from bartizan.redteam.engine import Progress, Run
from bartizan.redteam.family import Case, Measurement, Measuring, Point
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import bootstrap, confusion, metric, proportion
from bartizan.redteam.text import TextAttack, TextEvaded, TextTask, edits, play_text, seen
from bartizan.targets.text import TextTarget, TextTargets
from bartizan.targets.text_table import Texts, read_texts

USUAL_TEXTS = ("text.characters", "text.imperceptible")
"""Attacks that are run on texts where the declaration names none."""
CHANGE_MARKS = 20
SEVERITIES = ((0.5, Severity.HIGH), (0.2, Severity.MEDIUM), (0.05, Severity.LOW))
"""Least success, at the lower end of its interval, for each severity."""


@dataclass(frozen=True, slots=True)
class TextMaterial:
    """What the declaration provides for one model of texts."""

    model: ModelPart
    settings: RedTeam
    training: Texts
    """What the model was trained on: the adversary owns texts like these; nothing is measured on them."""
    evaluation: Texts
    """Texts that training did not see."""


def declares_texts(declaration: Declaration) -> bool:
    """Whether the models learnt from texts."""
    learned = {model.trained_on for model in declaration.model}
    return any(part.text for part in declaration.dataset if part.name in learned)


def text_material_of(system: System, subject: Artefact) -> TextMaterial:
    """The declared texts of a model, read and checked.

    Raises:
        ArtefactError: they cannot be read, or do not fit the declared classes.
    """
    model = system.model_part(subject.name)
    training = texts_of(system, model.trained_on)
    evaluation = texts_of(system, model.evaluated_on, training.label_values)
    if len(training.label_values) != len(model.classes):
        raise ArtefactError(
            f"model {model.name!r} is declared with {len(model.classes)} classes, and its training data has "
            f"{len(training.label_values)}: {', '.join(training.label_values[:10])}",
            remedy="declare one name for each value of the target, in rising order of the values.",
        )
    return TextMaterial(model, system.declaration.redteam, training, evaluation)


def texts_of(system: System, name: str, label_values: Sequence[str] = ()) -> Texts:
    """The texts of a declared dataset."""
    artefact = system.artefact(f"dataset:{name}")
    return read_texts(artefact.path, system.dataset_part(name), label_values=label_values, digest=artefact.digest)


def check_text_target(target: TextTarget, material: TextMaterial) -> None:
    """The model must know the declared classes by the values of the labels. Raises ArtefactError when it does not."""
    known: tuple[str, ...] = getattr(target, "class_values", ())
    values = material.training.label_values
    if target.classes != len(material.model.classes) or (known and tuple(known) != values):
        raise ArtefactError(
            f"model {target.name!r} knows the classes {', '.join(known[:10]) or target.classes}, and its training data "
            f"has the labels {', '.join(values[:10])}",
            remedy="declare the dataset that the model was trained on.",
        )


def text_case(attack: TextAttack, material: TextMaterial, rng: np.random.Generator) -> Case:
    """The task: texts that training did not see, and the edit that the attack is made for."""
    settings, evaluation = material.settings, material.evaluation
    count = min(settings.samples, len(evaluation))
    places = np.sort(rng.permutation(len(evaluation))[:count])
    most = settings.max_change if settings.max_change < 1 else attack.most_change
    task = TextTask(
        texts=tuple(evaluation.texts[place] for place in places.tolist()),
        labels=evaluation.labels[places],
        classes=len(material.model.classes),
        edit=attack.edit(material.training.texts),
        max_change=most,
        budget=settings.query_budget,
    )
    return Case(
        task=task,
        budget=Budget(samples=count, per_sample=settings.query_budget),
        truth=places,
        knowledge=f"owns {len(material.training)} texts of the same kind",
        settings={"samples": count, "max_change": most},
    )


def measured_texts(found: TextEvaded, material: TextMaterial, places: NDArray[np.int64], seed: int) -> Measurement:
    """Numbers, curves and tables of what an attack on texts found."""
    return _Judgement(found, material, places).measurement(stream(seed, "text", "measure"))


class TextFamily:
    """See ``Family``. Its check drives the attacks itself: they ask about texts, not about rows."""

    name = "text"
    settings: tuple[str, ...] = ("seed", "samples", "query_budget", "max_change")

    def case(self, attack: Any, material: Any, rng: np.random.Generator) -> Case:
        """See ``Family.case``; the material is a ``TextMaterial``."""
        return text_case(attack, material, rng)

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """See ``Family.measure``. Raises WorkError: the engine asks about rows of numbers."""
        del case, run, rng
        yield from ()
        raise WorkError("attacks on texts are measured by their check", remedy="use redteam.text.play_text.")

    @property
    def check(self) -> type[AttackCheck]:
        """Kind of the checks of this family."""
        return TextCheck


class TextCheck(AttackCheck):
    """One attack on texts as a check. See ``AttackCheck``."""

    def why_not(self, system: System) -> str:
        """See ``AttackCheck.why_not``."""
        declaration, first = system.declaration, self.variants[0]
        if not declares_texts(declaration):
            return f"{first.name} changes texts, and the declared data are none (text in [[dataset]])."
        if first.position not in declaration.exposure.consider:
            return f"{first.name} is an attack by a {first.position}, which the declaration does not consider."
        return why_not(first, offered(declaration.exposure))

    def selected(self, system: System) -> bool:
        """See ``AttackCheck.selected``."""
        declaration, name = system.declaration, self.variants[0].name
        if any(rule.check == self.name for gate in declaration.gate.values() for rule in gate.rule):
            return True
        named = declaration.redteam.attacks or USUAL_TEXTS
        return declares_texts(declaration) and (name in named or ALL in named)

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        attack: Any = self.variants[0]
        material = text_material_of(system, subject)
        seed = material.settings.seed
        case = limited(text_case(attack, material, stream(seed, self.family.name)), material.settings)
        tell: Progress = context.progress
        targets = context.service(TextTargets)  # type: ignore[type-abstract]  # a protocol is what a port is
        with targets.open(system, subject) as target:
            check_text_target(target, material)
            drawn = int(stream(seed, attack.name, "search").integers(2**31))
            found = play_text(target, attack, case.task, seed=drawn, progress=tell, seconds=case.budget.seconds)
        spent = Run(iter(()), budget=case.budget)  # type: ignore[arg-type]  # it only carries the ledger
        spent.ledger = found.ledger
        return outcome_of(attack, case, spent, measured_texts(found, material, case.truth, seed), seed=seed)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Turns answers into numbers."""

    found: TextEvaded
    material: TextMaterial
    places: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.found.clean == self.found.task.labels
        return right

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Right answers that an allowed change turned."""
        return self.right & ~self.found.robust

    def measurement(self, rng: np.random.Generator) -> Measurement:
        metrics = self.metrics(rng)
        return Measurement(
            summary=self.summary(metrics),
            metrics=metrics,
            curves={"robust_accuracy_by_change": self.by_change()},
            tables={"confusion": self.confusion(), "samples": self.samples()},
            findings=self.findings(),
        )

    def metrics(self, rng: np.random.Generator) -> dict[str, Metric]:
        right, broken = self.right, self.broken
        metrics = {
            "clean_accuracy": self.found.clean_accuracy.metric(),
            "robust_accuracy": self.found.robust_accuracy.metric(),
            "attack_success": proportion(int(broken.sum()), int(right.sum())).metric(),
        }
        if broken.sum() > 1:
            changes = {"median_change": ("", self.found.cost[broken]), "median_edits": ("characters", self.edits())}
            for name, (unit, values) in changes.items():
                interval = bootstrap(values, _median, rng)
                metrics[name] = metric(_median(values), interval, len(values), "bootstrap", unit=unit)
            alike = sum(seen(before) == seen(after) for before, after in self.pairs())
            metrics["looks_the_same"] = proportion(alike, int(broken.sum())).metric()
        return metrics

    def pairs(self) -> list[tuple[str, str]]:
        """Texts whose answer was turned, before and after."""
        return [
            (self.found.task.texts[place], self.found.texts[place]) for place in np.flatnonzero(self.broken).tolist()
        ]

    def edits(self) -> NDArray[np.float64]:
        """Characters that were put in, left out, replaced or swapped, for each text whose answer was turned."""
        return np.array([edits(before, after) for before, after in self.pairs()], dtype=np.float64)

    def by_change(self) -> tuple[Point, ...]:
        """Share of texts that stay right over the largest change that counts."""
        points = []
        for mark in np.linspace(0, 1, CHANGE_MARKS + 1) * self.found.task.max_change:
            share = proportion(int((self.right & ~(self.found.cost <= mark)).sum()), len(self.right))
            points.append(Point(float(mark), share.value, share.interval.low, share.interval.high))
        return tuple(points)

    def confusion(self) -> dict[str, Any]:
        task, count = self.found.task, self.found.task.classes
        return {
            "classes": list(self.material.model.classes),
            "clean": confusion(task.labels, self.found.clean, count),
            "under_attack": confusion(task.labels, self.answered, count),
            "max_change": task.max_change,
        }

    @property
    def answered(self) -> NDArray[np.int64]:
        """What the texts are answered under attack."""
        return np.where(self.broken, self.found.answers, self.found.clean)

    def samples(self) -> list[dict[str, Any]]:
        """What happened to each text, without a word of it."""
        classes, found = self.material.model.classes, self.found
        return [
            {
                "record": int(place),
                "class": classes[found.task.labels[index]],
                "answer": classes[found.clean[index]],
                "answer_under_attack": classes[self.answered[index]],
                "robust": bool(found.robust[index]),
                "change": float(f"{found.cost[index]:.6g}") if np.isfinite(found.cost[index]) else None,
                "queries": int(found.ledger.spent[index]),
            }
            for index, place in enumerate(self.places.tolist())
        ]

    def summary(self, metrics: dict[str, Metric]) -> str:
        success, task = metrics["attack_success"], self.found.task
        edited = metrics.get("median_edits")
        size = f", half of them by at most {edited.value:g} edits" if edited else ""
        return (
            f"{int(self.broken.sum())} of {success.n} right answers are turned by touching at most "
            f"{task.max_change:.0%} of a text{size}; accuracy falls from {metrics['clean_accuracy'].value:.0%} to "
            f"{metrics['robust_accuracy'].value:.0%}."
        )

    def findings(self) -> tuple[Finding, ...]:
        right, broken = int(self.right.sum()), int(self.broken.sum())
        low = proportion(broken, right).interval.low
        severity = next((severity for least, severity in SEVERITIES if low >= least), None)
        if severity is None:
            return ()
        task = self.found.task
        return (
            Finding(
                rule="redteam/text",
                severity=severity,
                title=f"{broken} of {right} right answers are turned by small changes of the text",
                where=self.material.model.name,
                detail=f"At most {task.max_change:.0%} touched, found with at most {task.budget} queries for a text.",
                remedy="Fold look-alike letters and drop characters without width before the model sees a text; train "
                "on misspelt texts too, or on parts of words; give no scores; limit queries; then measure again.",
            ),
        )


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))

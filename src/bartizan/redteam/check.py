"""Turns an attack into a check: applies it where the declaration leaves it room, runs it, states what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import msgspec
import numpy as np

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes, digest_json
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import ASSESSMENT, Assessment, Threat
from bartizan.core.system import Artefact, Declaration, Exposure, System, settings_digest
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.family import Case, Family, Material, Measurement
from bartizan.redteam.journal import Journal, Journals, NoJournals
from bartizan.redteam.ledger import UNLIMITED
from bartizan.targets.feasible import space_of
from bartizan.targets.protocol import Access, Target, Targets
from bartizan.targets.table import Table, read_table

VERSION = "1"
CHECK_PREFIX = "redteam."
"""In front of an attack's name it makes the name of its check."""
USUAL = (
    "evasion.hopskipjump",
    "evasion.square",
    "poisoning.labelflip",
    "privacy.membership",
    "extraction.active",
)
"""Attacks that are run where the declaration names none: at least one of each family, for any model and interface."""
ALL = "all"
"""In the place of names: every attack that gets by with what the interface gives."""
INSIDE = frozenset({Access.LOGITS, Access.GRADIENTS, Access.WEIGHTS})
"""Access that no interface gives away."""
LABORATORY = {"scikit-learn": frozenset({Access.WEIGHTS})}
"""Framework to what can be read out of its model files here, whatever the interface gives away."""


def offered(exposure: Exposure) -> frozenset[Access]:
    """The access that the declared interface gives.

    Top-k and rounded scores count as scores, and are asked in full: how many and how coarse is not
    declared, and an attack must not look weaker than it may be. Training can always be repeated:
    that is done in the laboratory with the declared data, and stands for an adversary who knows
    what kind of model it is.
    """
    if exposure.output == "label":
        return frozenset({Access.LABELS, Access.TRAINING})
    return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})


def readable(declaration: Declaration) -> frozenset[Access]:
    """What the laboratory can read out of every declared model, beyond what the interface gives.

    Weights are in the file. An attack that is given them says what an adversary could do who has stolen or guessed
    the model: an upper bound for all who have not. Such an attack is run where it is named.
    """
    sets = [LABORATORY.get(model.framework, frozenset()) for model in declaration.model]
    return frozenset.intersection(*sets) if sets else frozenset()


def _given(attack: Attack, declaration: Declaration) -> frozenset[Access]:
    """What an attack may use here: the interface, and the inside of the model where it is after that."""
    access = offered(declaration.exposure)
    return access | readable(declaration) if attack.needs & INSIDE else access


def why_not(attack: Attack, access: frozenset[Access]) -> str:
    """Why the attack does not apply to a target that gives ``access``, in one sentence; empty when it does."""
    missing = sorted(attack.needs - access)
    if not missing:
        return ""
    return f"{attack.name} needs {' and '.join(missing)}, and the target offers {', '.join(sorted(access))}."


class AttackCheck:
    """One attack as a check. See ``Check``. Of several variants the first that applies is run."""

    version = VERSION
    after: tuple[str, ...] = ("scan",)

    def __init__(self, family: Family, *variants: Attack, controls: Sequence[str] = ()) -> None:
        self.family = family
        self.variants = variants
        self.name = f"{CHECK_PREFIX}{variants[0].name}"
        self.title = variants[0].title
        self.controls = tuple(controls)

    def why_not(self, system: System) -> str:
        """Why this check has nothing to do in a system, in one sentence; empty when it has."""
        declaration, first = system.declaration, self.variants[0]
        if first.position not in declaration.exposure.consider:
            return f"{first.name} is an attack by a {first.position}, which the declaration does not consider."
        if getattr(first, "images", False):
            return f"{first.name} changes images, and the declared data are tables."
        reasons = [why_not(attack, _given(attack, declaration)) for attack in self.variants]
        return "" if "" in reasons else reasons[-1]

    def selected(self, system: System) -> bool:
        """Whether the declaration wants this attack run: it or a gate names it, or it is among the usual ones."""
        declaration, name = system.declaration, self.variants[0].name
        if any(rule.check == self.name for gate in declaration.gate.values() for rule in gate.rule):
            return True
        named = declaration.redteam.attacks or USUAL
        return name in named or (ALL in named and not self.is_upper_bound(declaration))

    def is_upper_bound(self, declaration: Declaration) -> bool:
        """Whether the attack is given more than the interface gives away."""
        return all(why_not(attack, offered(declaration.exposure)) for attack in self.variants)

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``Check.subjects``."""
        return () if self.why_not(system) else system.of_kind("model")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``."""
        model = system.model_part(subject.name)
        training, evaluation = system.dataset_part(model.trained_on), system.dataset_part(model.evaluated_on)
        settings = {field: getattr(system.declaration.redteam, field) for field in self.family.settings}
        said = [
            [
                getattr(training, field)
                for field in ("target", "group", "integer", "categorical", "immutable", "ranges")
            ],
            [evaluation.target, evaluation.group],
            [model.classes, model.positive, system.declaration.expected.metrics],
            sorted(offered(system.declaration.exposure)),
        ]
        return {
            subject.id: subject.digest,
            f"dataset:{training.name}": system.artefact(f"dataset:{training.name}").digest,
            f"dataset:{evaluation.name}": system.artefact(f"dataset:{evaluation.name}").digest,
            f"settings:{self.name}:{subject.name}": settings_digest(settings, said),
        }

    def attack(self, system: System) -> Attack:
        """The variant that is run. Raises WorkError when none applies."""
        for attack in self.variants:
            if not why_not(attack, _given(attack, system.declaration)):
                return attack
        raise WorkError(self.why_not(system), remedy="see `bartizan attack --list` for what applies.")

    def key(self, system: System, subject: Artefact) -> Digest:
        """Name of the journal of a run: of this attack, at this version, on just these inputs."""
        return digest_json([self.name, self.version, self.inputs(system, subject)])

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        attack = self.attack(system)
        material = material_of(system, subject)
        seed = material.settings.seed
        # All attacks of a family get the same task, so that their results can be compared.
        case = self.family.case(attack, material, _stream(seed, self.family.name))
        run = Run(
            attack.search(case.task, _stream(seed, attack.name, "search")),
            budget=case.budget,
            needs=attack.needs,
            watch=case.watch,
        )
        key = self.key(system, subject)
        with ExitStack() as stack:
            targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
            target = stack.enter_context(targets.open(system, subject))
            _check_target(target, attack, material)
            journal = stack.enter_context(_journal(context, key))
            engine = Engine(target, journal=journal, progress=partial(_progress, context))
            engine.drive([run], note=attack.name)
            measuring = run.measuring(self.family.measure(case, run, _stream(seed, attack.name, "measure")))
            engine.drive([measuring], note="measuring")
            journal.discard()
        return _outcome(attack, case, run, measuring.candidates, material)


def material_of(system: System, subject: Artefact) -> Material:
    """What the declaration provides for the model, read and checked."""
    model = system.model_part(subject.name)
    part = system.dataset_part(model.trained_on)
    training = _table(system, model.trained_on)
    evaluation = _table(system, model.evaluated_on, training.label_values)
    if training.columns != evaluation.columns:
        odd = sorted(set(training.columns) ^ set(evaluation.columns))[:5]
        raise ArtefactError(
            f"datasets {model.trained_on!r} and {model.evaluated_on!r} differ in their columns"
            + (f": {', '.join(odd)}" if odd else ", which come in another order"),
            remedy="give both files the same features in the same order.",
        )
    if len(training.label_values) != len(model.classes):
        raise ArtefactError(
            f"model {model.name!r} is declared with {len(model.classes)} classes, and its training data has "
            f"{len(training.label_values)}: {', '.join(training.label_values[:10])}",
            remedy="declare one name for each value of the target, in rising order of the values.",
        )
    declaration = system.declaration
    return Material(model, declaration.redteam, declaration.expected, training, evaluation, space_of(part, training))


def _table(system: System, name: str, label_values: Sequence[str] = ()) -> Table:
    artefact = system.artefact(f"dataset:{name}")
    return read_table(artefact.path, system.dataset_part(name), label_values=label_values, digest=artefact.digest)


def _check_target(target: Target, attack: Attack, material: Material) -> None:
    """The model must be the one that the declaration and the data describe."""
    if reason := why_not(attack, target.offers):
        raise WorkError(reason, remedy="declare what the interface really answers (exposure.output).")
    features = len(material.training.columns)
    if target.features != features:
        raise ArtefactError(
            f"model {target.name!r} takes {target.features} features, and dataset {material.model.trained_on!r} "
            f"has {features} beside target and group",
            remedy="declare the dataset that the model was trained on.",
        )
    if target.classes != len(material.model.classes):
        raise ArtefactError(
            f"model {target.name!r} knows {target.classes} classes and is declared with {len(material.model.classes)}",
            remedy="name in classes every class that the model knows.",
        )
    known, labels = target.class_values, material.training.label_values
    if known and [_plain(value) for value in known] != [_plain(value) for value in labels]:
        raise ArtefactError(
            f"model {target.name!r} calls its classes {', '.join(known[:10])}, and dataset "
            f"{material.model.trained_on!r} has the labels {', '.join(labels[:10])}",
            remedy="store the labels as the model knows them, so that nobody has to guess which is which.",
        )


def _plain(value: str) -> str:
    """A label as text; ``1``, ``1.0`` and ``True`` are one label."""
    text = {"True": "1", "False": "0"}.get(value, value).strip()
    try:
        return repr(float(text))
    except ValueError:
        return text


def _journal(context: Context, key: Digest) -> AbstractContextManager[Journal]:
    """The journal of this run; where no service keeps journals, a run that is killed begins anew."""
    try:
        journals: Journals = context.service(Journals)  # type: ignore[type-abstract]  # a protocol is what a port is
    except WorkError:
        journals = NoJournals()
    return journals.open(key)


def _progress(context: Context, done: int, total: int, note: str) -> None:
    context.progress(done, total, note)


def _stream(seed: int, *names: str) -> np.random.Generator:
    """Random numbers for one purpose, independent of those for any other."""
    return np.random.default_rng([seed, *(int(digest_bytes(name.encode())[:16], 16) for name in names)])


def _outcome(attack: Attack, case: Case, run: Run, measured: Measurement, material: Material) -> Outcome:
    findings = tuple(_marked(finding, attack) for finding in measured.findings)
    counted = {severity.value: sum(found.severity is severity for found in findings) for severity in Severity}
    assessment = Assessment(
        method=attack.name,
        summary=measured.summary,
        metrics=measured.metrics,
        techniques=(attack.technique, *attack.atlas),
        family=attack.family,
        threat=Threat(position=attack.position, access=tuple(sorted(attack.needs)), knowledge=case.knowledge),
        budget=_budget(run),
        seed=material.settings.seed,
        settings=case.settings,
        findings={severity: count for severity, count in counted.items() if count},
    )
    report = {"curves": measured.curves, **measured.tables, "statement": assessment, "references": attack.references}
    plain = msgspec.to_builtins(report, str_keys=True)
    return Outcome(
        predicate_type=ASSESSMENT,
        predicate=assessment,
        findings=findings,
        report=Blob(canonical_json(plain)),
    )


def _marked(finding: Finding, attack: Attack) -> Finding:
    """The finding with the techniques that showed it."""
    return msgspec.structs.replace(finding, techniques=(attack.technique, *attack.atlas))


def _budget(run: Run) -> dict[str, float]:
    """What was allowed and what was spent."""
    budget, ledger = run.ledger.budget, run.ledger
    allowed: dict[str, Any] = {
        "samples": budget.samples,
        "queries_allowed_per_sample": budget.per_sample,
        "queries_allowed": min(budget.total, budget.samples * budget.per_sample),
        "models_allowed": budget.fits,
    }
    spent = {
        "queries_spent": ledger.queries,
        "most_queries_spent_on_a_sample": int(ledger.spent.max(initial=0)),
        "model_calls": ledger.calls,
        "models_fitted": ledger.fits,
        "queries_of_own_models": ledger.own_queries,
    }
    return {name: float(number) for name, number in (allowed | spent).items() if number < UNLIMITED}

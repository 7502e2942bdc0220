"""Turns an attack into a check: applies it where the declaration leaves it room, runs it, states what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import numpy as np

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes, digest_json
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import ASSESSMENT, Assessment, Threat
from bartizan.core.system import Artefact, Declaration, Exposure, ModelPart, RedTeam, System, settings_digest
from bartizan.redteam import sequential
from bartizan.redteam.attack import Attack, Facts
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.family import Case, Family, Material, Measurement
from bartizan.redteam.journal import Journal, Journals, NoJournals
from bartizan.redteam.ledger import UNLIMITED
from bartizan.redteam.sequential import Demand, demands
from bartizan.redteam.tasks import NORMS
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
NO_CLAIM = "no_claim"
"""Setting of a statement that shows nothing about how well a model withstands, with why."""
UPPER_BOUND = "Upper bound: the attacker has the weights, which the interface does not give away."
"""Ends the summary of what was done with more access than the interface gives."""
INSIDE = frozenset({Access.LOGITS, Access.GRADIENTS, Access.WEIGHTS, Access.ACTIVATIONS})
"""Access that no interface gives away."""
LABORATORY = {
    "scikit-learn": frozenset({Access.WEIGHTS, Access.LOGITS, Access.GRADIENTS}),
    "xgboost": frozenset({Access.WEIGHTS}),
    "lightgbm": frozenset({Access.WEIGHTS}),
    "onnx": frozenset({Access.LOGITS, Access.GRADIENTS}),
    "torch": frozenset({Access.LOGITS, Access.GRADIENTS}),
}
"""Framework to what can be read out of its model files here, whatever the interface gives away. Whether a certain file
lets itself be read is found out when it is opened."""
TRAINED_AGAIN = frozenset({"scikit-learn", "lightgbm"})
"""Frameworks whose files say how the model was trained, so that it can be trained again."""


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
    access = _outside(declaration)
    return access | readable(declaration) if attack.needs & INSIDE else access


def _outside(declaration: Declaration) -> frozenset[Access]:
    """What the interface gives, and training where every declared file says how it is done."""
    access = offered(declaration.exposure)
    return access if {model.framework for model in declaration.model} <= TRAINED_AGAIN else access - {Access.TRAINING}


def why_not(attack: Attack, access: frozenset[Access]) -> str:
    """Why the attack does not apply to a target that gives ``access``, in one sentence; empty when it does."""
    missing = sorted(attack.needs - access)
    if not missing:
        return ""
    return f"{attack.name} needs {' and '.join(missing)}, and the target offers {', '.join(sorted(access))}."


def _untrainable(attack: Attack, declaration: Declaration) -> str:
    """Why an attack that needs nothing but training beyond what is there does not apply; empty when that is not so."""
    odd = sorted({model.framework for model in declaration.model} - TRAINED_AGAIN)
    if not odd or attack.needs - _given(attack, declaration) != {Access.TRAINING}:
        return ""
    return f"{attack.name} trains the model again, and a file of {' or '.join(odd)} does not say how that is done."


def _unfit(attack: Attack, declaration: Declaration) -> str:
    """Why the declared data, or the declared norm, are none that an attack is made for; empty when they are."""
    learned = {model.trained_on for model in declaration.model}
    if any(part.text for part in declaration.dataset if part.name in learned):
        return f"{attack.name} works on rows of numbers, and the declared data are texts."
    pictures = [bool(part.shape) for part in declaration.dataset if part.name in learned]
    if getattr(attack, "images", False) and not all(pictures):
        return f"{attack.name} changes images, and the declared data are tables."
    if getattr(attack, "tables", False) and any(pictures):
        return f"{attack.name} works on columns of tables, and the declared data are images."
    norm, of_images = NORMS[declaration.redteam.norm], getattr(attack, "norms_of_images", None)
    known = of_images if of_images is not None and all(pictures) else getattr(attack, "norms", None)
    if known is None or norm in known:
        return ""
    names = " and ".join(name for name, value in NORMS.items() if value in known)
    return f"{attack.name} searches by the norm {names}, and redteam.norm is {declaration.redteam.norm}."


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
        if reason := _unfit(first, declaration):
            return reason
        reasons = [
            _untrainable(attack, declaration) or why_not(attack, _given(attack, declaration))
            for attack in self.variants
        ]
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
        return all(why_not(attack, _outside(declaration)) for attack in self.variants)

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``Check.subjects``."""
        return () if self.why_not(system) else system.of_kind("model")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``."""
        model = system.model_part(subject.name)
        training, evaluation = system.dataset_part(model.trained_on), system.dataset_part(model.evaluated_on)
        settings = {field: getattr(system.declaration.redteam, field) for field in self.family.settings}
        said = [
            *described(system, model),
            [model.classes, model.positive, system.declaration.expected.metrics],
            sorted(offered(system.declaration.exposure)),
        ]
        if rules := self.stops_by(system.declaration):
            said.append([[each.what, each.at_least] for rule in rules for each in rule])
        if limit := system.declaration.redteam.seconds:
            said.append(["seconds", limit])
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
        case = limited(self.family.case(attack, material, stream(seed, self.family.name)), material.settings)
        key = self.key(system, subject)
        with ExitStack() as stack:
            targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
            target = stack.enter_context(targets.open(system, subject))
            check_target(target, attack, material)
            journal = stack.enter_context(_journal(context, key))
            engine = Engine(target, journal=journal, progress=partial(_progress, context))
            case, run, stopping = self._driven(engine, attack, case, material, system.declaration)
            measuring = run.measuring(self.family.measure(case, run, stream(seed, attack.name, "measure")))
            engine.drive([measuring], note="measuring")
            journal.discard()
        bound = UPPER_BOUND if self.is_upper_bound(system.declaration) else ""
        return outcome_of(attack, case, run, measuring.candidates, seed=seed, bound=f"{stopping} {bound}".strip())

    def stops_by(self, declaration: Declaration) -> tuple[tuple[Demand, ...], ...]:
        """What gates ask of the samples, where that may end a run early; empty where every sample is attacked.

        An attack that looks for one change of all samples together needs them together.
        """
        together = any(getattr(attack, "together", False) for attack in self.variants)
        if not declaration.redteam.stop_when_decided or together or not isinstance(self.family, Evasion):
            return ()
        return demands(declaration, self.name)

    def _driven(
        self, engine: Engine, attack: Attack, case: Case, material: Material, declaration: Declaration
    ) -> tuple[Case, Run, str]:
        """Run the attack to its end, or until gates are decided; what was attacked, and what to say of the stop."""
        seed = material.settings.seed
        if rules := self.stops_by(declaration):
            stop = sequential.drive(
                engine,
                attack,
                case,
                rules,
                positive=material.positive,
                rng=lambda purpose: stream(seed, *(["stop"] if purpose == "order" else [attack.name]), purpose),
            )
            return stop.case, stop.run, stop.words
        run = Run(
            attack.search(case.task, stream(seed, attack.name, "search")),
            budget=case.budget,
            needs=attack.needs,
            watch=case.watch,
        )
        engine.drive([run], note=attack.name)
        return case, run, ""


def described(system: System, model: ModelPart) -> list[Any]:
    """What the declaration says of the records of a model's data, for a digest."""
    training, evaluation = system.dataset_part(model.trained_on), system.dataset_part(model.evaluated_on)
    fields = ("target", "group", "integer", "categorical", "immutable", "ranges", "dependent")
    return [
        [getattr(training, field) for field in fields],
        [training.shape, training.value_range, training.text],
        [evaluation.target, evaluation.group],
    ]


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
    space = space_of(part, training)
    judged = system.dataset_part(model.evaluated_on)
    return Material(
        model,
        declaration.redteam,
        declaration.expected,
        training,
        evaluation,
        space,
        shape=part.shape,
        showable=not judged.personal_data and judged.sensitivity in {"public", "internal"},
    )


def _table(system: System, name: str, label_values: Sequence[str] = ()) -> Table:
    artefact = system.artefact(f"dataset:{name}")
    return read_table(artefact.path, system.dataset_part(name), label_values=label_values, digest=artefact.digest)


def check_target(target: Target, attack: Attack, material: Material) -> None:
    """The model must be the one that the declaration and the data describe."""
    if reason := why_not(attack, target.offers):
        lacks: Mapping[str, str] = getattr(target, "lacks", {})
        causes = [f" {lacks[access]}." for access in sorted(attack.needs - target.offers) if access in lacks]
        raise WorkError(
            reason + "".join(causes),
            remedy="choose an attack that needs less, or declare what the interface really answers (exposure.output).",
        )
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


def stream(seed: int, *names: str) -> np.random.Generator:
    """Random numbers for one purpose, independent of those for any other."""
    return np.random.default_rng([seed, *(int(digest_bytes(name.encode())[:16], 16) for name in names)])


def limited(case: Case, settings: RedTeam) -> Case:
    """The case with the wall time that is declared for a search."""
    return replace(case, budget=replace(case.budget, seconds=settings.seconds or math.inf))


def outcome_of(attack: Facts, case: Case, run: Run, measured: Measurement, *, seed: int, bound: str = "") -> Outcome:
    """What a check says of an attack that was run and measured; ``bound`` ends its summary."""
    findings = tuple(_marked(finding, attack) for finding in measured.findings)
    counted = {severity.value: sum(found.severity is severity for found in findings) for severity in Severity}
    assessment = Assessment(
        method=attack.name,
        summary=" ".join(part for part in (measured.summary, _late(run), bound) if part),
        metrics=measured.metrics,
        techniques=(attack.technique, *attack.atlas),
        family=attack.family,
        threat=Threat(position=attack.position, access=tuple(sorted(attack.needs)), knowledge=case.knowledge),
        budget=_budget(run),
        seed=seed,
        settings={
            **case.settings,
            **({NO_CLAIM: reason} if (reason := measured.no_claim or _unreached(run)) else {}),
            **({"stopped": f"after {run.ledger.budget.seconds:g} s"} if run.ledger.late else {}),
        },
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


def _late(run: Run) -> str:
    """What to say of a search that the clock ended; empty when it came to its own end."""
    if not run.ledger.late:
        return ""
    return f"The search was stopped after {run.ledger.budget.seconds:g} s and was not done: more time may find more."


def _unreached(run: Run) -> str:
    """Why a search that the clock ended shows nothing about some samples; empty when it came to all of them."""
    ledger = run.ledger
    unasked = int(((ledger.spent == 0) & (ledger.slopes == 0)).sum())
    if not ledger.late or not unasked:
        return ""
    return f"the time was over before {unasked} of {ledger.budget.samples} samples were asked about"


def _marked(finding: Finding, attack: Facts) -> Finding:
    """The finding with the techniques that showed it."""
    return msgspec.structs.replace(finding, techniques=(attack.technique, *attack.atlas))


def _budget(run: Run) -> dict[str, float]:
    """What was allowed and what was spent."""
    budget, ledger = run.ledger.budget, run.ledger
    inside = bool(ledger.gradients)
    allowed: dict[str, Any] = {
        "samples": budget.samples,
        "queries_allowed_per_sample": budget.per_sample,
        "queries_allowed": min(budget.total, budget.samples * budget.per_sample),
        **({"gradients_allowed_per_sample": budget.gradients, "gradients_spent": ledger.gradients} if inside else {}),
        "models_allowed": budget.fits,
        **({} if math.isinf(budget.seconds) else {"seconds_allowed": budget.seconds}),
    }
    spent = {
        "queries_spent": ledger.queries,
        "most_queries_spent_on_a_sample": int(ledger.spent.max(initial=0)),
        "model_calls": ledger.calls,
        "models_fitted": ledger.fits,
        "queries_of_own_models": ledger.own_queries,
    }
    return {name: float(number) for name, number in (allowed | spent).items() if number < UNLIMITED}

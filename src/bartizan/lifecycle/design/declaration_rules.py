"""What a well-shaped declaration must still get right: one small function for each rule.

Every rule is pure and yields the problems it sees. ``RULES`` is the list that is applied; the rules
about gates are in ``gate_rules``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from bartizan.core.durations import deadline
from bartizan.core.system import DatasetPart, Declaration, ModelPart
from bartizan.lifecycle.design.declaration_lines import Place
from bartizan.lifecycle.design.declaration_problems import Problem, nearest, one_of, show
from bartizan.lifecycle.design.declaration_shape import DESTRUCTION, destruction_method
from bartizan.lifecycle.design.vocabulary import Vocabulary

SENSITIVITY = ("public", "internal", "confidential", "restricted")
"""From least to most."""
OVERALL_METRICS = ("accuracy", "balanced_accuracy", "auc")
CLASS_METRICS = ("recall", "precision", "f1")
"""Metrics of one class, named with it: ``recall.malignant``."""

_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule may look at."""

    declaration: Declaration
    vocabulary: Vocabulary
    now: datetime | None
    """None when it does not matter whether terms are over."""


SemanticRule = Callable[[Case], Iterator[Problem]]


def unknown(place: Place, word: str, options: Sequence[str], what: str) -> Problem:
    """The problem that ``word`` is none of the ``options``."""
    return Problem(
        place=place,
        message=f"there is no {what} {show(word)}",
        allowed=one_of(options) or f"nothing: no {what} is declared",
        suggestion=nearest(word, options),
    )


def names_are_unique(case: Case) -> Iterator[Problem]:
    """Parts are referred to by name; models, datasets and documents share one set of names."""
    declared = case.declaration
    assets = [(("model", i, "name"), part.name) for i, part in enumerate(declared.model)]
    assets += [(("dataset", i, "name"), part.name) for i, part in enumerate(declared.dataset)]
    assets += [(("document", i, "name"), part.name) for i, part in enumerate(declared.document)]
    components = [(("component", i, "name"), part.name) for i, part in enumerate(declared.component)]
    for named in (assets, components):
        seen: set[str] = set()
        for place, name in named:
            if name.casefold() in seen:
                yield Problem(place=place, message=f"{show(name)} is the name of another part", allowed="a new name")
            seen.add(name.casefold())


def documents_are_not_named_as_checks(case: Case) -> Iterator[Problem]:
    """What a check writes is known as ``document:CHECK``; a declared document must not pass for it."""
    for index, part in enumerate(case.declaration.document):
        if part.name in case.vocabulary.checks:
            message = f"{show(part.name)} is the name of a check, whose documents are called so"
            yield Problem(place=("document", index, "name"), message=message, allowed="another name")


def paths_do_not_overlap(case: Case) -> Iterator[Problem]:
    """No artefact lies in another: evaluation data inside the training data would be training data."""
    declared = case.declaration
    places: list[tuple[Place, str]] = [(("model", i, "path"), part.path) for i, part in enumerate(declared.model)]
    places += [(("dataset", i, "path"), part.path) for i, part in enumerate(declared.dataset)]
    places += [(("document", i, "path"), part.path) for i, part in enumerate(declared.document)]
    for index, (place, path) in enumerate(places):
        for _, other in places[:index]:
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
                message = f"{show(path)} and {show(other)} are, or contain, the same files"
                yield Problem(place=place, message=message, allowed="files of its own for every part")


def models_are_judged_on_other_data(case: Case) -> Iterator[Problem]:
    """Trained on a training set, evaluated on a set that was kept apart."""
    for index, model in enumerate(case.declaration.model):
        yield from _fitting_split(case, ("model", index, "trained_on"), model.trained_on, ("train",))
        yield from _fitting_split(case, ("model", index, "evaluated_on"), model.evaluated_on, ("holdout", "validation"))
        if model.trained_on == model.evaluated_on:
            yield Problem(
                place=("model", index, "evaluated_on"),
                message="a model says nothing about new cases when it is evaluated on what it was trained on",
                allowed="another dataset than trained_on",
            )


def _fitting_split(case: Case, place: Place, name: str, splits: Sequence[str]) -> Iterator[Problem]:
    datasets = {part.name: part for part in case.declaration.dataset}
    if name not in datasets:
        fitting = [part.name for part in datasets.values() if part.split in splits]
        yield unknown(place, name, fitting, "dataset")
    elif datasets[name].split not in splits:
        message = f"dataset {show(name)} has the split {datasets[name].split!r}"
        yield Problem(place=place, message=message, allowed=f"a dataset with split {one_of(splits)}")


def labelling_instructions_are_declared(case: Case) -> Iterator[Problem]:
    """Labels are made by instructions that are a declared document, so that their version is known."""
    named = {part.name: part for part in case.declaration.document}
    fitting = [part.name for part in named.values() if part.kind == "instructions"]
    for index, dataset in enumerate(case.declaration.dataset):
        wanted = dataset.labelling_instructions
        if wanted and wanted not in fitting:
            place: Place = ("dataset", index, "labelling_instructions")
            yield unknown(place, wanted, fitting, "document of kind instructions")


def classes_make_sense(case: Case) -> Iterator[Problem]:
    """The positive class is one of the classes."""
    for index, model in enumerate(case.declaration.model):
        if model.positive and model.positive not in model.classes:
            yield unknown(("model", index, "positive"), model.positive, model.classes, "class")


def personal_data_has_a_basis(case: Case) -> Iterator[Problem]:
    """Personal data are held under some law, of some place."""
    for index, part in enumerate(case.declaration.dataset):
        if not part.personal_data:
            continue
        if not part.lawful_basis.strip():
            yield Problem(
                place=("dataset", index, "lawful_basis"),
                message=f"dataset {show(part.name)} holds personal data without a lawful basis",
                allowed="the law and article, or the consent, on which the data are held",
            )
        if not case.declaration.jurisdiction.strip():
            yield Problem(
                place=("jurisdiction",),
                message=f"dataset {show(part.name)} holds personal data, and no jurisdiction is given",
                allowed="whose law applies, such as UK or EU",
            )


def destruction_suits_sensitivity(case: Case) -> Iterator[Problem]:
    """The more an asset would harm in wrong hands, the less may remain of it; a model is as sensitive as its data."""
    for index, part in enumerate(case.declaration.dataset):
        yield from _destruction(("dataset", index, "destruction"), part.destruction, _worst([part]))
    for index, model in enumerate(case.declaration.model):
        learned = _learned_from(case.declaration, model)
        yield from _destruction(("model", index, "destruction"), model.destruction, _worst(learned))


def _worst(parts: Iterable[DatasetPart]) -> str:
    """Highest sensitivity among datasets; personal data are confidential at least."""
    levels = [
        "confidential" if part.personal_data and part.sensitivity in SENSITIVITY[:2] else part.sensitivity
        for part in parts
    ]
    return max(levels, key=SENSITIVITY.index, default="public")


def _destruction(place: Place, text: str, sensitivity: str) -> Iterator[Problem]:
    method, needed = destruction_method(text), SENSITIVITY.index(sensitivity)
    fitting = [name for name, reach in DESTRUCTION.items() if SENSITIVITY.index(reach) >= needed]
    if method not in fitting:
        message = f"{show(method)} leaves too much behind for {sensitivity} or personal data"
        yield Problem(place=place, message=message, allowed=one_of(fitting))


def terms_are_not_over(case: Case) -> Iterator[Problem]:
    """What should have been destroyed or replaced is not worked with any more."""
    if case.now is None:
        return
    for place, term in _terms(case.declaration):
        if deadline(term, case.now) <= case.now:
            yield Problem(
                place=place,
                message=f"this ended on {term}: destroy or replace it, or let its owner decide on a later date",
                allowed="a term that is not over",
            )


def _terms(declared: Declaration) -> Iterator[tuple[Place, str]]:
    for index, part in enumerate(declared.dataset):
        yield ("dataset", index, "retention"), part.retention
    for index, model in enumerate(declared.model):
        yield ("model", index, "retention"), model.retention
        yield ("model", index, "lifespan"), model.lifespan


def models_end_in_time(case: Case) -> Iterator[Problem]:
    """A model is replaced before it is destroyed, and kept no longer than sensitive data that it can give away."""
    since = case.now or _SOME_DAY
    for index, model in enumerate(case.declaration.model):
        kept = deadline(model.retention, since)
        if deadline(model.lifespan, since) > kept:
            message = f"its lifespan of {model.lifespan} outlasts its retention of {model.retention}"
            yield Problem(place=("model", index, "lifespan"), message=message, allowed="at most the retention")
        for part in _learned_from(case.declaration, model):
            if _worst([part]) in SENSITIVITY[2:] and kept > deadline(part.retention, since):
                yield Problem(
                    place=("model", index, "retention"),
                    message=f"it outlasts its training data {show(part.name)}, which end after {part.retention} "
                    "and can be drawn from the model",
                    allowed=f"at most {part.retention}",
                )


def uses_are_allowed(case: Case) -> Iterator[Problem]:
    """A model serves no purpose that its training data may not serve."""
    for index, part in enumerate(case.declaration.dataset):
        yield from _contradictions("dataset", index, part.uses, part.prohibited_uses)
    for index, model in enumerate(case.declaration.model):
        yield from _contradictions("model", index, model.uses, model.prohibited_uses)
        for part in _learned_from(case.declaration, model):
            yield from _purposes(index, model, part)


def _purposes(index: int, model: ModelPart, part: DatasetPart) -> Iterator[Problem]:
    allowed, prohibited = {_norm(use) for use in part.uses}, {_norm(use) for use in part.prohibited_uses}
    for at, use in enumerate(model.uses):
        if _norm(use) in prohibited:
            message = f"dataset {show(part.name)} prohibits {show(use)}"
        elif _norm(use) not in allowed:
            message = f"dataset {show(part.name)} does not allow {show(use)}"
        else:
            continue
        yield Problem(
            place=("model", index, "uses", at),
            message=message,
            allowed=one_of(part.uses),
            suggestion=nearest(use, part.uses),
        )


def _contradictions(kind: str, index: int, uses: Sequence[str], prohibited: Sequence[str]) -> Iterator[Problem]:
    allowed = {_norm(use) for use in uses}
    for at, use in enumerate(prohibited):
        if _norm(use) in allowed:
            message = f"{show(use)} is both allowed and prohibited"
            yield Problem(place=(kind, index, "prohibited_uses", at), message=message, allowed="one of the two")


def columns_make_sense(case: Case) -> Iterator[Problem]:
    """The label column is none of the input columns, and ranges have an inside."""
    for index, part in enumerate(case.declaration.dataset):
        for field in ("integer", "categorical", "immutable", "ranges", "dependent"):
            if part.target in getattr(part, field):
                message = f"{show(part.target)} is the label column, not an input"
                yield Problem(place=("dataset", index, field), message=message, allowed="input columns")
        if part.group and part.group == part.target:
            message = f"{show(part.group)} is the label column"
            yield Problem(place=("dataset", index, "group"), message=message, allowed="another column")
        for column, (low, high) in part.ranges.items():
            if low >= high:
                message = f"the range from {low:g} to {high:g} is empty"
                yield Problem(place=("dataset", index, "ranges", column), message=message, allowed="low < high")


def components_exist(case: Case) -> Iterator[Problem]:
    """Components realise access points of the catalogue and hold declared assets; flows join components."""
    declared = case.declaration
    assets = [*(part.name for part in declared.model), *(part.name for part in declared.dataset)]
    for index, part in enumerate(declared.component):
        for at, point in enumerate(part.access_points):
            if point not in case.vocabulary.access_points:
                place = ("component", index, "access_points", at)
                yield unknown(place, point, list(case.vocabulary.access_points), "access point")
        if part.asset and part.asset not in assets:
            yield unknown(("component", index, "asset"), part.asset, assets, "model or dataset")
    components = [part.name for part in declared.component]
    for index, flow in enumerate(declared.flow):
        for end in ("source", "target"):
            if getattr(flow, end) not in components:
                yield unknown(("flow", index, end), getattr(flow, end), components, "component")
        if flow.source == flow.target:
            message = f"a flow from {show(flow.source)} to itself"
            yield Problem(place=("flow", index, "target"), message=message, allowed="two different components")


def exposure_is_known(case: Case) -> Iterator[Problem]:
    """Somebody can reach the system somehow; positions and rights are those of the catalogue."""
    exposure, words = case.declaration.exposure, case.vocabulary
    if exposure.profile and exposure.profile not in words.profiles:
        yield unknown(("exposure", "profile"), exposure.profile, words.profiles, "profile")
    if not exposure.profile and not exposure.positions:
        yield Problem(
            place=("exposure", "profile"),
            message="without a profile or positions nobody could attack the system, which is never so",
            allowed=one_of(words.profiles),
        )
    for position, rights in exposure.positions.items():
        if position not in words.positions:
            yield unknown(("exposure", "positions", position), position, words.positions, "position")
        for at, right in enumerate(rights):
            if right not in words.rights:
                yield _unknown_right(("exposure", "positions", position, at), right, words)
    for at, position in enumerate(exposure.consider):
        if position not in words.positions:
            yield unknown(("exposure", "consider", at), position, words.positions, "position")


def _unknown_right(place: Place, right: str, words: Vocabulary) -> Problem:
    point, _, verb = right.partition(".")
    if verb and point in words.access_points:
        options = [f"{point}.{known}" for known in words.access_points[point]]
        return unknown(place, right, options, "right")
    return unknown(place, right, words.rights, "right")


def mitigations_exist(case: Case) -> Iterator[Problem]:
    """Claimed and priced mitigations are those of the catalogue."""
    known = case.vocabulary.mitigations
    for at, name in enumerate(case.declaration.mitigations):
        if name not in known:
            yield unknown(("mitigations", at), name, known, "mitigation")
    for name in case.declaration.mitigation_cost:
        if name not in known:
            yield unknown(("mitigation_cost", name), name, known, "mitigation")


def expectations_can_be_measured(case: Case) -> Iterator[Problem]:
    """Expected metrics are ones that exist, for classes that exist."""
    classes = dict.fromkeys(name for model in case.declaration.model for name in model.classes)
    known = [*OVERALL_METRICS, *(f"{metric}.{name}" for metric in CLASS_METRICS for name in classes)]
    for name in case.declaration.expected.metrics:
        if name not in known:
            yield unknown(("expected", "metrics", name), name, known, "metric")


def attacks_exist(case: Case) -> Iterator[Problem]:
    """Attacks that are asked for by name are installed."""
    if not case.vocabulary.checks:
        return
    for at, name in enumerate(case.declaration.redteam.attacks):
        if name not in case.vocabulary.attacks:
            yield unknown(("redteam", "attacks", at), name, case.vocabulary.attacks, "attack")


def shares_are_distinct(case: Case) -> Iterator[Problem]:
    """Poisoning rates are reported in whole percent, so two must not round to one."""
    rates = case.declaration.redteam.poison_rates
    counts = Counter(round(rate * 100) for rate in rates)
    for at, rate in enumerate(rates):
        percent = round(rate * 100)
        if percent == 0 or counts[percent] > 1:
            message = f"{rate:g} cannot be told apart when rates are reported in whole percent"
            yield Problem(
                place=("redteam", "poison_rates", at), message=message, allowed="0.01, 0.02 ... 0.5, each once"
            )


RULES: tuple[SemanticRule, ...] = (
    names_are_unique,
    documents_are_not_named_as_checks,
    paths_do_not_overlap,
    models_are_judged_on_other_data,
    labelling_instructions_are_declared,
    classes_make_sense,
    personal_data_has_a_basis,
    destruction_suits_sensitivity,
    terms_are_not_over,
    models_end_in_time,
    uses_are_allowed,
    columns_make_sense,
    components_exist,
    exposure_is_known,
    mitigations_exist,
    expectations_can_be_measured,
    attacks_exist,
    shares_are_distinct,
)


def _learned_from(declared: Declaration, model: ModelPart) -> list[DatasetPart]:
    return [part for part in declared.dataset if part.name == model.trained_on]


def _norm(use: str) -> str:
    return " ".join(use.casefold().split())

"""The checks ``cards.model`` and ``cards.data``: the card of each artefact, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes, short
from bartizan.core.errors import InputError
from bartizan.core.finding import Finding, Severity, worst_first
from bartizan.core.predicates import CARD, Card
from bartizan.core.system import Artefact, System, settings_digest
from bartizan.lifecycle.develop.cards.facts import (
    Quality,
    dataset_facts,
    instructions_of,
    model_facts,
    outlasts,
    sources_of,
)
from bartizan.lifecycle.develop.cards.fields import BY_NAME, Kind, required

QUALITY = "data.quality"
_CLEARING = re.compile(
    r"overwrit|wip[ei]|eras|clear|purg|key|crypto|degauss|shred|physical|incinerat|pulveri|melt", re.IGNORECASE
)
_PURGING = re.compile(r"purg|key|crypto|degauss|shred|physical|incinerat|pulveri|melt", re.IGNORECASE)
SUITABLE = {"confidential": _CLEARING, "restricted": _PURGING}
"""What a declared destruction must mention (NIST SP 800-88: clear, purge, destroy); deleting a file is none of it."""


class DatasetCard:
    """See ``core.check.Check``: the card of each dataset."""

    name = "cards.data"
    version = "2"
    title = "Data cards"
    controls = (
        "1.1-j", "2.1-l", "2.2-G2", "2.2-k", "2.3-G2", "2.3-f", "2.3-g", "2.3-h", "2.3-j", "2.3-k", "2.3-l", "2.3-m",
        "2.3-u", "2.3-w",
    )  # fmt: skip
    after: tuple[str, ...] = (QUALITY,)

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``core.check.Check``."""
        return system.of_kind("dataset")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``core.check.Check``: all datasets, because the measured quality compares them."""
        part = system.dataset_part(subject.name)
        labelled = instructions_of(system, part)
        said = {labelled["document"]: Digest(labelled["digest"])} if labelled else {}
        return {**_inputs(self.name, system, subject, system.declaration.redteam.seed), **said}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``core.check.Check``."""
        quality, report = _quality_of(subject, context)
        facts = dataset_facts(system, subject, quality, report)
        return _outcome("dataset", subject, facts, list(_dataset_faults(subject, facts)))


class ModelCard:
    """See ``core.check.Check``: the card of each model."""

    name = "cards.model"
    version = "2"
    title = "Model cards"
    controls = (
        "1.1-j", "2.1-G2", "2.2-G2", "2.3-G2", "2.3-f", "2.3-o", "2.3-p", "2.3-q", "2.3-s", "2.3-t", "2.3-u", "2.3-w",
        "5.1-G1",
    )  # fmt: skip
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``core.check.Check``."""
        return system.of_kind("model")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``core.check.Check``: the model, the datasets whose facts it inherits, and its recorded origin."""
        origin = system.origins.get(subject.id)
        recorded = {f"provenance:{subject.name}": origin.statement} if origin else {}
        return {subject.id: subject.digest, **_inputs(self.name, system, subject), **recorded}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``core.check.Check``."""
        context.progress(0, 1, "card")
        facts = model_facts(system, subject)
        return _outcome("model", subject, facts, list(_model_faults(system, subject, facts)))


def require_complete(card: Card) -> Card:
    """The same card, if nothing is missing in it.

    Raises:
        InputError: a required fact is missing; the message names each.
    """
    if card.complete:
        return card
    titles = ", ".join(BY_NAME[name].title.lower() for name in card.missing)
    raise InputError(
        f"the card of {card.kind} {card.name!r} is rejected, because it lacks: {titles}",
        remedy=f"declare them in the [[{card.kind}]] table called {card.name!r}.",
    )


def _inputs(check: str, system: System, subject: Artefact, *settings: Any) -> dict[str, Digest]:
    """All datasets, and everything declared that a card shows."""
    declared = system.declaration
    shown = (
        subject.id,
        declared.owner,
        declared.purpose,
        declared.jurisdiction,
        declared.model if subject.kind == "model" else (),
        declared.dataset,
        declared.component,
        declared.flow,
        declared.expected if subject.kind == "model" else (),
        declared.mitigations if subject.kind == "model" else (),
    )
    datasets = {artefact.id: artefact.digest for artefact in system.of_kind("dataset")}
    return {**datasets, f"settings:{check}:{subject.name}": settings_digest(*shown, *settings)}


def _quality_of(subject: Artefact, context: Context) -> tuple[Quality | None, str]:
    """What was measured of the dataset, and the digest of the report that says so."""
    try:
        report = context.report_of(QUALITY, subject.id)
        quality = msgspec.json.decode(report, type=Quality)
    except (KeyError, msgspec.DecodeError):
        return None, ""
    if quality.digest != subject.digest:
        return None, ""
    return quality, digest_bytes(report)


def _outcome(kind: Kind, subject: Artefact, facts: dict[str, Any], findings: list[Finding]) -> Outcome:
    missing = tuple(name for name in required(kind) if _is_blank(facts.get(name)))
    findings += _missing_findings(subject, missing)
    card = Card(
        kind=kind,
        name=subject.name,
        owner=facts["owner"]["contact"] if "owner" not in missing else "",
        facts=facts,
        complete=not missing,
        missing=missing,
        summary=_summary(kind, subject, missing),
    )
    return Outcome(
        predicate_type=CARD,
        predicate=card,
        findings=tuple(worst_first(findings)),
        report=Blob(data=canonical_json(msgspec.to_builtins(card))),
    )


def _is_blank(value: Any) -> bool:
    """Whether a fact says nothing. Numbers and truth values always say something."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, dict):
        return not value or any(_is_blank(item) for name, item in value.items() if name in NEEDED_PARTS)
    return value is None or value == []


NEEDED_PARTS = frozenset({"role", "contact", "host", "contributors", "digest"})
"""Parts of a compound fact that may not be blank."""


def _summary(kind: Kind, subject: Artefact, missing: Sequence[str]) -> str:
    if not missing:
        return f"The card of {kind} {subject.name} is complete."
    titles = ", ".join(BY_NAME[name].title.lower() for name in missing)
    return f"The card of {kind} {subject.name} lacks {titles}."


# -- findings


def _missing_findings(subject: Artefact, missing: Sequence[str]) -> list[Finding]:
    found = []
    if "owner" in missing:
        found.append(
            Finding(
                rule="cards/owner-missing",
                severity=Severity.HIGH,
                title=f"nobody answers for {subject.id}",
                where=subject.id,
                detail="Without an owner nobody decides, nobody is told, and nobody retires it.",
                remedy="name role and address under `owner`.",
                controls=("1.1-j", "2.3-v"),
            )
        )
    others = [BY_NAME[name] for name in missing if name != "owner"]
    found += [
        Finding(
            rule="cards/fact-missing",
            severity=Severity.MEDIUM,
            title=f"{field.title.lower()} of {subject.id} is missing",
            where=f"{subject.id}!/{field.name}",
            detail=f"Needed for {field.used}.",
            remedy=REMEDIES.get(field.name, f"declare it in the [[{subject.kind}]] table called {subject.name!r}."),
        )
        for field in others
    ]
    return found


REMEDIES = {
    "impactOfLoss": "name it as `asset` of a [[component]] that has an `impact`, or whose flows lead to one that has.",
    "records": f"let the check {QUALITY} run on it.",
    "columns": f"let the check {QUALITY} run on it.",
    "labels": f"let the check {QUALITY} run on it.",
    "quality": f"let the check {QUALITY} run on it.",
}
"""What supplies facts that are not written in the artefact's own table."""


def _dataset_faults(subject: Artefact, facts: dict[str, Any]) -> Iterator[Finding]:
    yield from _destruction(subject, facts)
    if facts["personalData"] and not facts["lawfulBasis"].strip():
        yield Finding(
            rule="cards/lawful-basis-missing",
            severity=Severity.HIGH,
            title=f"{subject.id} holds personal data without a lawful basis",
            where=f"{subject.id}!/lawfulBasis",
            detail="What may not be held may not be trained on either.",
            remedy="name the lawful basis, or remove the personal data.",
            controls=("2.2-k", "A-MLSG-002-D001"),
        )


def _training_data(system: System, subject: Artefact, facts: dict[str, Any]) -> Iterator[Finding]:
    """Where the recorded training data are not the declared ones."""
    said, declared = facts["trainedOn"], system.model_part(subject.name).trained_on
    if said["from"] != "provenance":
        return
    now = system.artefact(f"dataset:{declared}").digest
    if said["dataset"] != declared:
        recorded = f"dataset:{said['dataset']}" if said["dataset"] else "no dataset"
    elif said["digest"] != now:
        recorded = f"other bytes of dataset:{declared} ({short(said['digest'])}, now {short(now)})"
    else:
        return
    yield Finding(
        rule="cards/trained-on-disagrees",
        severity=Severity.HIGH,
        title=f"{subject.id} was trained on {recorded}, declared is dataset:{declared}",
        where=f"{subject.id}!/trainedOn",
        detail=f"Provenance {short(said['statement'])} recorded what the training run read.",
        remedy="correct `trained_on`, or train on the declared data under `bartizan record`.",
        controls=("2.3-o",),
    )


def _model_faults(system: System, subject: Artefact, facts: dict[str, Any]) -> Iterator[Finding]:
    yield from _destruction(subject, facts)
    yield from _training_data(system, subject, facts)
    for source in sources_of(system, system.model_part(subject.name)):
        uncovered = sorted(set(facts["uses"]) - set(source.uses) | set(facts["uses"]) & set(source.prohibited_uses))
        if uncovered:
            yield Finding(
                rule="cards/use-not-covered",
                severity=Severity.HIGH,
                title=f"{subject.id} is for {', '.join(uncovered)}, and dataset:{source.name} is not",
                where=f"{subject.id}!/uses",
                detail="Data may be used for what they were collected for, and a model inherits that.",
                remedy="get the use allowed by the owner of the data, or train on other data.",
                controls=("2.3-G3",),
            )
        if outlasts(facts["retention"], source.retention):
            yield Finding(
                rule="cards/retention-exceeds-data",
                severity=Severity.MEDIUM,
                title=f"{subject.id} is kept {facts['retention']}, dataset:{source.name} only {source.retention}",
                where=f"{subject.id}!/retention",
                detail="A model remembers part of its data, so it has to go when they go.",
                remedy="shorten the retention of the model, or show that it gives nothing of the data away.",
                controls=("2.3-s",),
            )


def _destruction(subject: Artefact, facts: dict[str, Any]) -> Iterator[Finding]:
    suitable = SUITABLE.get(facts["sensitivity"])
    if suitable and facts["destruction"].strip() and not suitable.search(facts["destruction"]):
        yield Finding(
            rule="cards/destruction-unsuited",
            severity=Severity.MEDIUM,
            title=f"destruction of {subject.id} does not suit what is {facts['sensitivity']}",
            where=f"{subject.id}!/destruction",
            detail=f"Declared: {facts['destruction'][:120]!r}. Needed: {facts['handling']['destruction']}.",
            remedy=f"plan {facts['handling']['destruction']}.",
            controls=("2.3-m", "2.3-t"),
        )

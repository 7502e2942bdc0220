"""Three flaws that designers leave in without meaning to, seen from a declaration alone.

They are the ones that Roke names from its work for the NCSC: models that retrain on what users
enter, models that can be reverse-engineered, and data from unknown sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from bartizan.catalogue.attackmap import AttackMap
from bartizan.core.finding import Finding, Severity
from bartizan.core.system import DatasetPart, Declaration
from bartizan.lifecycle.design.positions import FEEDBACK, INSIDER, LABEL, QUERY, SCORES, TEXT

UNSAID = frozenset({"", "-", "?", "n/a", "na", "none", "unknown", "unclear", "not known", "tbd", "todo", "anonymous"})
"""Answers that leave a question of provenance open."""
_DEVICE = "edge-device.physical"
_WEIGHTS = "know.weights"


class Flaw(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of flaw: what to look for, and what answers it."""

    rule: str
    title: str
    techniques: tuple[str, ...]
    answers: tuple[str, ...]
    """Mitigations that a design with this trait should have."""
    signs: Callable[[Declaration, AttackMap], Iterator[str]]
    """Reasons to see the flaw, one sentence each; none means it is not there."""


def flaws(declaration: Declaration, document: AttackMap) -> Iterator[Finding]:
    """Findings for the flaws that are there: high, or medium once an answer to it is declared."""
    for flaw in FLAWS:
        signs = tuple(flaw.signs(declaration, document))
        if not signs:
            continue
        declared = [entry for entry in flaw.answers if entry in declaration.mitigations]
        advice = "; ".join(f"{entry} ({document.mitigation(entry).name})" for entry in flaw.answers)
        yield Finding(
            rule=flaw.rule,
            severity=Severity.MEDIUM if declared else Severity.HIGH,
            title=flaw.title,
            where=f"system:{declaration.name}",
            detail=" ".join(signs),
            remedy=f"{'show evidence for' if declared else 'change the design, or declare'} {advice}.",
            techniques=flaw.techniques,
            controls=("ROKE-7",),
        )


def _retraining(declaration: Declaration, document: AttackMap) -> Iterator[str]:
    """Users' input comes back as training data."""
    if declaration.exposure.continual_learning:
        yield "The model keeps learning in operation."
    for position, tokens in document.holding().items():
        if FEEDBACK in tokens and position != INSIDER:
            yield f"Position {position} writes into the feedback loop."


def _reversible(_: Declaration, document: AttackMap) -> Iterator[str]:
    """The model can be rebuilt from its answers, or taken whole."""
    for position, tokens in document.holding().items():
        if position == INSIDER:
            continue
        seen = [token for token in (LABEL, SCORES, TEXT) if token in tokens]
        if QUERY in tokens and seen:
            yield f"Position {position} may query and sees {', '.join(seen)}."
        if _DEVICE in tokens:
            yield f"Position {position} has a device with the model in hand."
        if _WEIGHTS in tokens:
            yield f"Position {position} knows the weights."


def _unknown_data(declaration: Declaration, _: AttackMap) -> Iterator[str]:
    """Nobody can say where data comes from."""
    for dataset in declaration.dataset:
        if dataset.trust == "untrusted":
            yield f"Dataset {dataset.name} comes from an untrusted source."
        for question in _open_questions(dataset):
            yield f"Dataset {dataset.name} does not say {question}."


def _open_questions(dataset: DatasetPart) -> Iterator[str]:
    """Questions of A-MLSG-002-N001 that are left open."""
    source = dataset.provenance
    for answer, question in (
        (source.host, "who hosts it"),
        (source.contributors, "who contributed to it"),
        (source.collected, "how it was collected"),
    ):
        if answer.strip().casefold() in UNSAID:
            yield question
    if source.independent_sources < 1:
        yield "which source it was drawn from"


FLAWS = (
    Flaw(
        rule="design/retraining-on-user-input",
        title="The model is retrained on what users enter",
        techniques=("T16", "T17", "T19", "T25"),
        answers=("M37", "M21", "M38"),
        signs=_retraining,
    ),
    Flaw(
        rule="design/reverse-engineering",
        title="The model can be reverse-engineered",
        techniques=("T38", "T39", "T41"),
        answers=("M03", "M05", "M06", "M56"),
        signs=_reversible,
    ),
    Flaw(
        rule="design/unknown-data-source",
        title="Data of unknown origin is used",
        techniques=("T16", "T22"),
        answers=("M19", "M20", "M23"),
        signs=_unknown_data,
    ),
)
"""Everything that is looked for."""

"""The notice for users: what the model is for, how sure it is, what happens to data, what users answer for.

It is made of the model's card, of the table ``[notice]`` of the declaration, and of how often the model
was right in measurements that stand. Nothing in it is private to the makers: of the card only what is
marked as public is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.evidence import Evidence
from bartizan.core.predicates import Metric
from bartizan.core.system import Artefact, Notice, System
from bartizan.lifecycle.design.guidance.document import Document, Section, to_html, to_markdown

PREFIX = "notice:"
"""How notices are named as subjects and inputs: ``notice:MODEL``."""
CARD_CHECK = "cards.model"
RIGHT = ("clean_accuracy", "accuracy")
"""Metrics that say how often a model is right on cases it had not seen."""
USE, DATA, OWN = "How to use it", "Your data", "What you answer for"
"""The three parts that every notice has."""


class UserNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice in all its forms."""

    model: str
    document: Document
    uncertainty: str
    """How often the model is right, in one sentence."""
    note: str
    """What belongs beside every answer, in one sentence."""
    markdown: str
    html: str

    @property
    def digest(self) -> Digest:
        """SHA-256 of the Markdown."""
        return digest_bytes(self.markdown.encode())


def of_evidence(system: System, model: str, evidence: Iterable[Evidence]) -> UserNotice | None:
    """The notice of a declared model, from what stands; None while no complete card of it stands."""
    artefact = next((item for item in system.of_kind("model") if item.name == model), None)
    if artefact is None or system.declaration.notice is None:
        return None
    about = artefact.digest
    standing = [item for item in evidence if item.holds and item.statement and about in item.statement.about()]
    card = next((found for item in reversed(standing) if (found := _card(item))), None)
    return notice(system, artefact, card.facts, measured(standing)) if card else None


def notice(system: System, model: Artefact, facts: Mapping[str, Any], right: Metric | None) -> UserNotice:
    """The notice, from the facts of the model's card and how often the model was measured to be right."""
    told = system.declaration.notice
    assert told is not None  # noqa: S101 - the caller has seen it
    certain = how_sure(right)
    document = Document(
        title=f"About {system.declaration.name}",
        lead=system.declaration.purpose,
        sections=(
            Section(
                title=USE,
                text=(f"Limits: {facts['limits']}", certain, *((told.uncertainty,) if told.uncertainty else ())),
                points=(
                    *(f"It is for: {use}." for use in facts.get("uses", ())),
                    *(f"It is not for: {use}." for use in facts.get("prohibitedUses", ())),
                    *(f"A risk to know of: {risk}" for risk in told.risks),
                ),
            ),
            Section(title=DATA, text=(told.data_use, told.data_storage)),
            Section(title=OWN, points=told.responsibilities),
            Section(title="Whom to ask", text=(_contact(system, facts),)),
        ),
    )
    return UserNotice(
        model=model.name,
        document=document,
        uncertainty=certain,
        note=_note(facts),
        markdown=to_markdown(document),
        html=to_html(document),
    )


def measured(evidence: Iterable[Evidence]) -> Metric | None:
    """How often the model was right on cases that it had not seen: of the checks that measured it, the most cases."""
    found: dict[str, Metric] = {}
    for item in evidence:
        said = item.statement
        if said is None or said.predicate_type != predicates.ASSESSMENT:
            continue
        metrics = said.read().metrics
        right = next((metrics[name] for name in RIGHT if name in metrics), None)
        if right is not None:
            found[item.check] = right
    return max((found[check] for check in sorted(found)), key=lambda metric: metric.n, default=None)


def how_sure(right: Metric | None) -> str:
    """How often the model is right, as a sentence that needs no statistics."""
    if right is None:
        return "How often the model is right has not been measured; do not rely on a single answer."
    return (
        f"On {right.n} cases that it had not seen it was right in {_percent(right.value)} of them; measured again, "
        f"anything from {_percent(right.low)} to {_percent(right.high)} would be no surprise. "
        "A sure answer can still be wrong."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _note(facts: Mapping[str, Any]) -> str:
    """What belongs beside every answer."""
    prohibited = facts.get("prohibitedUses", ())
    never = f" It is not for {', '.join(prohibited)}." if prohibited else ""
    return f"This is an estimate for: {', '.join(facts.get('uses', ())) or 'the declared use'}.{never} See /notice."


def _contact(system: System, facts: Mapping[str, Any]) -> str:
    owner = facts.get("owner") or {}
    security = system.declaration.people.get("security")
    asked = f"Questions and complaints: {owner.get('contact', system.declaration.owner.contact)}."
    return f"{asked} Weaknesses and odd answers: {security}." if security else asked


def _card(item: Evidence) -> predicates.Card | None:
    said = item.statement
    if said is None or said.predicate_type != predicates.CARD or item.check != CARD_CHECK:
        return None
    card: predicates.Card = said.read()
    return card if card.complete and card.kind == "model" else None


__all__ = ["DATA", "OWN", "PREFIX", "USE", "Notice", "UserNotice", "how_sure", "measured", "notice", "of_evidence"]

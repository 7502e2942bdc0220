"""What is allowed but deserves a second look; and what needs a person's decision before anything else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core import predicates
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import DeclarationError
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.finding import Severity
from bartizan.core.gate import evaluate
from bartizan.core.statement import make
from bartizan.core.system import Artefact
from bartizan.lifecycle.design.declaration import read_declaration
from bartizan.lifecycle.design.declaration_notices import notices
from bartizan.lifecycle.design.vocabulary import Vocabulary

SMALL = (Path(__file__).parents[3] / "assets" / "declaration" / "small.toml").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
SYSTEM = Artefact(kind="system", name="demo", digest=digest_bytes(b"demo"))
SCOPE = """
[[gate.release.rule]]
id = "scope"
about = "system"
type = "decision"
kind = "scope"
role = "risk-owner"
"""


def read(*edits, more=""):
    text = SMALL
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return read_declaration((text + more).encode(), "bartizan.toml", Vocabulary.of(catalogue()), clock=lambda: NOW)


def seen(*edits, more=""):
    return {notice.rule.removeprefix("declaration/"): notice for notice in notices(read(*edits, more=more))}


def scope_rule(declaration, evidence):
    """How the rule that asks for the decision comes out when the release gate is evaluated."""
    result = evaluate("release", declaration.gate["release"], [SYSTEM], evidence, NOW)
    return next(item.state for item in result.results if item.rule.id == "scope")


def decided(kind):
    decision = predicates.Decision(
        kind=kind, outcome="yes", reason="weighed", role="risk-owner", expires=NOW + timedelta(days=30)
    )
    return Evidence(
        seq=0,
        digest=digest_bytes(b"envelope"),
        statement=make(predicates.DECISION, SYSTEM, decision),
        signers=("owner",),
        keyids=("k",),
        roles=("risk-owner",),
        received_at=NOW,
        standing=Standing.HOLDS,
    )


def test_a_careful_declaration_is_left_alone():
    assert seen(("independent_sources = 1", "independent_sources = 2")) == {}


@pytest.mark.parametrize(
    ("rule", "edits", "severity"),
    [
        ("no-release-gate", [("[gate.release]", "[gate.deploy]")], Severity.HIGH),
        ("one-hand", [('security = "security@', 'security = "owner@')], Severity.MEDIUM),
        ("one-source", [], Severity.LOW),
        ("favourable-bound", [("robust_accuracy.low", "robust_accuracy.value")], Severity.LOW),
        ("favourable-bound", [("robust_accuracy.low", "robust_accuracy.high")], Severity.LOW),
        ("favourable-bound", [("at_least = 0.3", "at_least = 0.0")], Severity.LOW),
        ("favourable-bound", [("at_least = 0.3", "at_most = 0.3")], Severity.LOW),
    ],
)
def test_a_second_look_is_asked_for(rule, edits, severity):
    if edits and edits[0][0] == "[gate.release]":
        edits = [*edits, *[("[[gate.release.rule]]", "[[gate.deploy.rule]]")] * 3]
    notice = seen(*edits)[rule]
    assert notice.severity is severity
    assert notice.remedy


@pytest.mark.control("INTRO-5")
def test_reinforcement_learning_is_warned_of_and_needs_a_decision_of_its_own():
    declare = ('output = "label"', 'output = "label"\nreinforcement_learning = true')
    with pytest.raises(DeclarationError, match="decision of its own"):
        read(declare)
    assert seen(declare, more=SCOPE)["reinforcement-learning"].severity is Severity.HIGH
    declaration = read(declare, more=SCOPE)
    assert scope_rule(declaration, []) == "unmet"
    assert scope_rule(declaration, [decided("approval")]) == "unmet"
    assert scope_rule(declaration, [decided("scope")]) == "met"


@pytest.mark.control("4.1-G1")
def test_continual_learning_cannot_be_declared_without_asking_for_a_decision():
    declare = ('output = "label"', 'output = "label"\ncontinual_learning = true')
    with pytest.raises(DeclarationError, match="decision of its own"):
        read(declare)
    with pytest.raises(DeclarationError, match="decision of its own"):
        read(declare, more=SCOPE + 'severity = "warn"\n')
    with pytest.raises(DeclarationError, match="decision of its own"):
        read(declare, more=SCOPE.replace("release", "publish"))
    declaration = read(declare, more=SCOPE)
    assert scope_rule(declaration, []) == "unmet"
    assert scope_rule(declaration, [decided("scope")]) == "met"

"""What the gates of a declaration must get right, so that no rule is unmeetable or idle by a slip of the pen."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bartizan.core import predicates
from bartizan.core.system import Condition, Declaration, Gate, Rule
from bartizan.lifecycle.design.declaration_lines import Place
from bartizan.lifecycle.design.declaration_problems import Problem, nearest, one_of, show
from bartizan.lifecycle.design.declaration_rules import Case, SemanticRule, unknown
from bartizan.redteam import registry
from bartizan.redteam.check import CHECK_PREFIX
from bartizan.targets.protocol import Access

SERVICE_ROLES = ("assurer", "ledger")
"""Roles that machines hold (``core.trust.DEFAULT_ROLES``)."""
RELEASE = "release"
"""The gate that everything passes before it is used."""
BOUNDS = ("equals", "at_least", "at_most", "one_of")
MASKING = "redteam.masking"
"""Check that passes when the gradients of a model do not mislead."""
CLAIMS = ("metrics.robust_accuracy.", "metrics.robust_recall.", "metrics.attack_success.")
"""How fields begin by which a gate asks for robustness."""
METRIC_PARTS = ("value", "low", "high", "n")


def every_rule(declared: Declaration) -> Iterator[tuple[Place, Rule]]:
    """All gate rules with their places."""
    for name, gate in declared.gate.items():
        for index, rule in enumerate(gate.rule):
            yield ("gate", name, "rule", index), rule


def rule_ids_are_unique(case: Case) -> Iterator[Problem]:
    """A verdict names rules by id."""
    for name, gate in case.declaration.gate.items():
        ids = [rule.id for rule in gate.rule]
        for index, rule_id in enumerate(ids):
            if rule_id in ids[:index]:
                message = f"{show(rule_id)} is the id of another rule of this gate"
                yield Problem(place=("gate", name, "rule", index, "id"), message=message, allowed="a new id")


def rules_are_about_something(case: Case) -> Iterator[Problem]:
    """A rule concerns declared artefacts."""
    declared = case.declaration
    ids = [f"model:{part.name}" for part in declared.model] + [f"dataset:{part.name}" for part in declared.dataset]
    ids += [f"document:{part.name}" for part in declared.document]
    kinds = ["model", "dataset", "system", *(["document"] if declared.document else [])]
    options = [*kinds, *ids, f"system:{declared.name}"]
    for place, rule in every_rule(declared):
        if rule.about not in options:
            yield unknown((*place, "about"), rule.about, options, "artefact")


def types_and_kinds_are_known(case: Case) -> Iterator[Problem]:
    """A rule asks for a predicate type that exists, and for a kind that this type has."""
    for place, rule in every_rule(case.declaration):
        whole = predicates.SHORT_NAMES.get(rule.type, rule.type)
        if rule.type not in predicates.SHORT_NAMES and ":" not in rule.type:
            problem = unknown((*place, "type"), rule.type, list(predicates.SHORT_NAMES), "predicate type")
            yield msgspec.structs.replace(problem, allowed=f"{problem.allowed}; or a whole type, which is a URI")
        elif rule.kind and whole in predicates.KNOWN:
            yield from _kind((*place, "kind"), rule, predicates.KNOWN[whole])


def _kind(place: Place, rule: Rule, predicate: type[msgspec.Struct]) -> Iterator[Problem]:
    if "kind" not in predicate.__struct_fields__:
        message = f"statements of type {rule.type} have no kind"
        yield Problem(place=place, message=message, allowed="leave it out")
        return
    kinds = _literals(typing.get_type_hints(predicate)["kind"])
    if kinds and rule.kind not in kinds:
        yield unknown(place, rule.kind, kinds, f"{rule.type} of kind")


def _literals(hint: Any) -> tuple[str, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def checks_are_installed(case: Case) -> Iterator[Problem]:
    """A rule names a check that can run; decisions are made by people, not by checks."""
    for place, rule in every_rule(case.declaration):
        if not rule.check:
            continue
        if rule.type == "decision":
            message = "a decision is made by a person, never by a check"
            yield Problem(place=(*place, "check"), message=message, allowed="leave it out, and name a kind")
        elif case.vocabulary.checks and rule.check not in case.vocabulary.checks:
            yield unknown((*place, "check"), rule.check, case.vocabulary.checks, "check")


def controls_exist(case: Case) -> Iterator[Problem]:
    """A rule serves controls that the catalogue has."""
    known = case.vocabulary.controls
    for place, rule in every_rule(case.declaration):
        for at, control in enumerate(rule.controls):
            if known and control not in known:
                yield unknown((*place, "controls", at), control, known, "control")


def roles_are_held(case: Case) -> Iterator[Problem]:
    """A rule asks only for roles that somebody holds."""
    declared = case.declaration
    held = list(dict.fromkeys((*declared.people, declared.owner.role, *SERVICE_ROLES)))
    for place, rule in every_rule(declared):
        if rule.role and rule.role not in held:
            yield unknown((*place, "role"), rule.role, held, "role")


def conditions_are_bounds(case: Case) -> Iterator[Problem]:
    """A condition sets exactly one bound, on a field that the predicate has."""
    for place, rule in every_rule(case.declaration):
        for index, condition in enumerate(rule.where):
            at = (*place, "where", index)
            yield from _one_bound(at, condition)
            yield from _known_field((*at, "field"), rule, condition)


def _one_bound(place: Place, condition: Condition) -> Iterator[Problem]:
    given = [name for name in BOUNDS if getattr(condition, name) not in {None, ()}]
    if len(given) != 1:
        came = " and ".join(given) or "none"
        yield Problem(place=place, message=f"a condition needs exactly one bound, not {came}", allowed=one_of(BOUNDS))


def _known_field(place: Place, rule: Rule, condition: Condition) -> Iterator[Problem]:
    predicate = predicates.KNOWN.get(predicates.SHORT_NAMES.get(rule.type, rule.type))
    if predicate is None:
        return
    fields = [field.encode_name for field in msgspec.structs.fields(predicate)]
    known = {*fields, *predicate.__struct_fields__}
    first, *rest = condition.field.split(".")
    if first not in known:
        suggestion = ".".join((near, *rest)) if (near := nearest(first, fields)) else ""
        message = f"statements of type {rule.type} have no field {show(first)}"
        yield Problem(place=place, message=message, allowed=one_of(fields, 20), suggestion=suggestion)
    elif first == "metrics" and (len(rest) < 2 or rest[-1] not in METRIC_PARTS):  # noqa: PLR2004 - name and part
        allowed = f"metrics.NAME.{' | metrics.NAME.'.join(METRIC_PARTS)}"
        yield Problem(place=place, message=f"{show(condition.field)} is no number of a metric", allowed=allowed)


def claims_by_gradients_are_tried_otherwise(case: Case) -> Iterator[Problem]:
    """Robust accuracy under an attack by gradients is a claim only where gradients are known not to mislead.

    A gate that asks for it also asks that ``redteam.masking`` has passed, or for robust accuracy under an attack that
    needs no gradients.
    """
    for name, gate in case.declaration.gate.items():
        claims = [(index, rule) for index, rule in enumerate(gate.rule) if _is_claim(rule)]
        blind = [index for index, rule in claims if _by_gradients(rule, case)]
        if not blind or len(blind) < len(claims) or any(_asks_for_sound_gradients(rule) for rule in gate.rule):
            continue
        check = gate.rule[blind[0]].check
        yield Problem(
            place=("gate", name, "rule", blind[0], "check"),
            message=f"{show(check)} follows gradients, and says nothing of a model that masks them",
            allowed='beside it a rule with check = "redteam.masking" where the field "result" equals "passed", '
            "or one on robust_accuracy under an attack without gradients, such as redteam.evasion.square",
        )


def _is_claim(rule: Rule) -> bool:
    return any(condition.field.startswith(CLAIMS) for condition in rule.where)


def _by_gradients(rule: Rule, case: Case) -> bool:
    name = rule.check.removeprefix(CHECK_PREFIX)
    if name == rule.check or rule.check not in case.vocabulary.checks or name not in registry.names():
        return False
    return Access.GRADIENTS in registry.attack(name).needs


def _asks_for_sound_gradients(rule: Rule) -> bool:
    passed = any(condition.field == "result" and condition.equals == "passed" for condition in rule.where)
    return rule.check == MASKING and rule.severity == "refuse" and passed


def special_learning_is_decided(case: Case) -> Iterator[Problem]:
    """Learning from the world it acts on, or while in use, is released only by a decision of its own."""
    exposure = case.declaration.exposure
    release = case.declaration.gate.get(RELEASE, Gate())
    for field, chosen in (
        ("reinforcement_learning", exposure.reinforcement_learning),
        ("continual_learning", exposure.continual_learning),
    ):
        if chosen and not any(_asks_for_scope(rule) for rule in release.rule):
            yield Problem(
                place=("exposure", field),
                message="this needs a decision of its own, and the release gate asks for none",
                allowed='a rule in gate.release with about = "system", type = "decision", kind = "scope"',
            )


def _asks_for_scope(rule: Rule) -> bool:
    return (rule.type, rule.kind, rule.severity) == ("decision", "scope", "refuse") and rule.about.startswith("system")


GATE_RULES: tuple[SemanticRule, ...] = (
    rule_ids_are_unique,
    rules_are_about_something,
    types_and_kinds_are_known,
    checks_are_installed,
    controls_exist,
    roles_are_held,
    conditions_are_bounds,
    claims_by_gradients_are_tried_otherwise,
    special_learning_is_decided,
)

"""What each role is told on each route: the matrix that people read before they grant anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bartizan.lifecycle.deploy.gateway.roles import Role
from bartizan.lifecycle.deploy.gateway.routes import OPEN, ROUTES, Route
from bartizan.lifecycle.deploy.gateway.tailoring import outputs_of
from bartizan.targets.detail import composed, epsilon

ANSWERS = frozenset({"infer", "predict"})
"""Handlers that answer with what a model says."""
WITHHELD = ("scores", "embeddings", "explanations", "reasons of refusals", "time")
"""What is withheld from every role that is not granted it; embeddings are granted to nobody."""
ANSWERED_ALIKE = "one sentence for each kind of refusal"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one role is told on one route."""

    role: str
    method: str
    route: str
    granted: bool
    told: tuple[str, ...] = ()
    """Names of what an answer holds."""


class Disclosure(msgspec.Struct, frozen=True, kw_only=True):
    """What one role is told altogether."""

    role: str
    detail: str
    outputs: tuple[str, ...]
    """Names of the outputs of an answer."""
    bits: float
    """What one answer tells at most, the label included: log2 of the answers that can be told apart."""
    decimals: int | None = None
    epsilon: float | None = None
    """Of the noise in one answer; None without noise."""
    epsilon_of_rate: float | None = None
    """The same of all answers that the role's own rate lets one caller have in a day; None without noise or rate."""
    explanations: bool = False
    metadata: bool = False
    second_factor: bool = False
    signed_input: bool = False
    rate: str = ""
    budgets: tuple[str, ...] = ()
    time: str = ""
    """How much the time of an answer tells."""
    refusals: str = ANSWERED_ALIKE
    withheld: tuple[str, ...] = ()
    routes: tuple[Told, ...] = ()


def disclosures(roles: Mapping[str, Role], classes: int) -> tuple[Disclosure, ...]:
    """The matrix for a model of so many classes; ``everybody`` are those who show nothing."""
    return tuple(_of_role(role, classes) for role in roles.values())


def open_to_all() -> tuple[Told, ...]:
    """Routes that are answered to everybody, and what they tell."""
    return tuple(
        Told(role="everybody", method=route.method, route=route.pattern, granted=True, told=_said(route, None))
        for route in ROUTES
        if route.operation == OPEN
    )


def _of_role(role: Role, classes: int) -> Disclosure:
    detail, noise = role.shown, role.detail == "noisy-scores"
    each = epsilon(role.noise, classes) if noise else None
    names = tuple(outputs_of(role, classes))
    return Disclosure(
        role=role.name,
        detail=detail.name,
        outputs=names,
        bits=round(detail.bits(classes), 1),
        decimals=role.decimals if role.detail in {"rounded-scores", "confidence", "noisy-scores"} else None,
        epsilon=None if each is None else round(each, 3),
        epsilon_of_rate=_of_a_day(role, each),
        explanations=role.may("explain"),
        metadata=role.may("metadata"),
        second_factor=role.factor == "needed",
        signed_input=role.signed_input,
        rate=role.rate,
        budgets=role.budgets,
        time=f"multiples of {role.pad_milliseconds} ms" if role.pad_milliseconds else "as it comes",
        withheld=_withheld(role, names),
        routes=tuple(_on_route(role, route) for route in ROUTES if route.operation != OPEN),
    )


def _of_a_day(role: Role, each: float | None) -> float | None:
    pace = role.pace()
    if each is None or pace is None:
        return None
    count, seconds = pace
    return round(composed(each, math.ceil(count * 86_400 / seconds)), 3)


def _withheld(role: Role, names: Sequence[str]) -> tuple[str, ...]:
    given = {
        "scores": "scores" in names,
        "explanations": role.may("explain"),
        "time": not role.pad_milliseconds,
    }
    return tuple(what for what in WITHHELD if not given.get(what, False))


def _on_route(role: Role, route: Route) -> Told:
    granted = role.may(route.operation)
    said = _said(route, role) if granted else ()
    return Told(role=role.name, method=route.method, route=route.pattern, granted=granted, told=said)


def _said(route: Route, role: Role | None) -> tuple[str, ...]:
    """What an answer of a route holds."""
    if route.handler in ANSWERS and role is not None:
        return tuple(outputs_of(role, 2))
    return _HOLDS.get(route.handler, ())


_HOLDS: dict[str, tuple[str, ...]] = {
    "server": ("names of models",),
    "live": ("that it runs",),
    "ready": ("whether all are ready",),
    "model_ready": ("whether it is ready",),
    "notice": ("notice to users",),
    "openapi": ("names of columns", "classes"),
    "metadata": ("number of features", "names of outputs", "digest", "uses and limits"),
    "explain": ("contributions of features",),
    "held": ("own case",),
    "chat": ("messages of the upstream",),
    "chats": ("names of upstreams",),
}
"""What else there is; a test compares it with the routes."""


def table(found: Sequence[Disclosure]) -> list[tuple[Any, ...]]:
    """One line for each role, in the order of ``HEAD``."""
    return [
        (
            each.role,
            each.detail,
            ", ".join(each.outputs),
            f"{each.bits:g}",
            "-" if each.decimals is None else each.decimals,
            "-" if each.epsilon is None else f"{each.epsilon:g}",
            _yes(each.explanations),
            _yes(each.metadata),
            _yes(each.second_factor),
            each.rate or "-",
            each.time,
        )
        for each in found
    ]


HEAD = (
    "ROLE",
    "DETAIL",
    "OUTPUTS",
    "BITS",
    "DECIMALS",
    "EPSILON",
    "EXPLAINED",
    "METADATA",
    "FACTOR",
    "RATE",
    "TIME",
)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


__all__ = ["HEAD", "Disclosure", "Told", "disclosures", "open_to_all", "table"]

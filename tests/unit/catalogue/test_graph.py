"""Reaching, routes and cheapest controls, against brute force on small graphs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from bartizan.catalogue.entries import Mitigation, Technique
from bartizan.catalogue.graph import INTRUDER, AttackGraph
from bartizan.catalogue.load import catalogue
from bartizan.catalogue.minimal import minimal_controls
from bartizan.catalogue.standing import states_under, sufficient
from bartizan.core.errors import InputError, WorkError

TOKENS = [f"p{number}.use" for number in range(5)]
POSITIONS = ["user", "outsider"]


def technique(entry_id, needs, yields=("gain.end",)):
    return Technique(
        id=entry_id,
        name=entry_id,
        family="evasion",
        goal="integrity",
        knowledge="none",
        needs=tuple(map(tuple, needs)),
        yields=tuple(yields),
        note="-",
    )


def mitigation(entry_id, cost=1.0, guards=None, **lists):
    return Mitigation(
        id=entry_id, name=entry_id, cost=cost, capability="scan", evidence="-", guards=guards or {}, **lists
    )


def closure(techniques, mitigations, holding, on):
    """The fixpoint written as plainly as can be."""
    active = [entry for entry in mitigations if entry.id in on]
    blocked = {name for entry in active for name in entry.blocks}
    guarded = {(token, who) for entry in active for token, people in entry.guards.items() for who in people}
    held = {token for who, tokens in holding.items() for token in tokens if (token, who) not in guarded}
    reached = set()
    while True:
        new = {
            entry.id
            for entry in techniques
            if entry.id not in reached | blocked and any(set(need) <= held for need in entry.needs)
        }
        if not new:
            return reached
        reached |= new
        held |= {
            token
            for entry in techniques
            if entry.id in new
            for token in entry.yields
            if (token, INTRUDER) not in guarded
        }


def brute_force(techniques, mitigations, holding, in_place=(), costs=None):
    """Least cost, and least number at that cost, over all subsets."""
    prices = {entry.id: (costs or {}).get(entry.id, entry.cost) for entry in mitigations}
    spare = [entry.id for entry in mitigations if entry.id not in in_place]
    best_possible = closure(techniques, mitigations, holding, {entry.id for entry in mitigations})
    subsets = itertools.chain(*(itertools.combinations(spare, size) for size in range(len(spare) + 1)))
    return min(
        (sum(prices[name] for name in subset), len(subset))
        for subset in subsets
        if closure(techniques, mitigations, holding, {*subset, *in_place}) == best_possible
    )


CHAIN = (
    technique("T01", [["p0.use"]], ["p1.use"]),
    technique("T02", [["p1.use", "p2.use"]], ["p3.use"]),
    technique("T03", [["p3.use"], ["p4.use", "p2.use"]]),
)


def test_techniques_chain_through_what_they_yield():
    graph = AttackGraph(CHAIN, ())
    routes = graph.routes({"outsider": ["p0.use"], "user": ["p2.use"]})
    assert list(routes) == ["T01", "T02", "T03"]
    assert routes["T01"].chain == ()
    assert routes["T02"].uses == {"p1.use": "T01", "p2.use": "user"}
    assert routes["T03"].chain == ("T01", "T02")
    assert graph.reach({"user": ["p2.use"]}) == (0, graph.token_set(["p2.use"]))


def test_a_guard_takes_a_token_only_from_the_positions_it_names():
    guard = mitigation("M01", guards={"p0.use": ("outsider",)})
    graph = AttackGraph(CHAIN, (guard,))
    controls = graph.mitigation_set(["M01"])
    assert graph.technique_ids(graph.reach({"outsider": ["p0.use"]}, controls)[0]) == ()
    assert graph.technique_ids(graph.reach({"user": ["p0.use"]}, controls)[0]) == ("T01",)


def test_a_guard_against_intruders_takes_only_what_was_yielded():
    guard = mitigation("M01", guards={"p1.use": (INTRUDER,)})
    graph = AttackGraph(CHAIN, (guard,))
    controls = graph.mitigation_set(["M01"])
    assert graph.technique_ids(graph.reach({"user": ["p0.use", "p2.use"]}, controls)[0]) == ("T01",)
    assert "T02" in graph.technique_ids(graph.reach({"user": ["p1.use", "p2.use"]}, controls)[0])


def test_states_keep_prevented_weakened_detected_and_residual_apart():
    techniques = (*CHAIN, technique("T04", [["p0.use"]]), technique("T05", [["nobody.has"]]))
    graph = AttackGraph(
        techniques,
        (
            mitigation("M01", blocks=("T02",)),
            mitigation("M02", weakens=("T01", "T02")),
            mitigation("M03", detects=("T04",)),
        ),
    )
    holding = {"user": ["p0.use", "p2.use"]}
    everything = graph.mitigation_set(["M01", "M02", "M03"])
    assert states_under(graph, holding, everything) == {
        "T01": "weakened",
        "T02": "prevented",
        "T03": "prevented",
        "T04": "detected",
        "T05": "unreachable",
    }
    assert set(states_under(graph, holding, 0).values()) == {"residual", "unreachable"}


def test_sufficient_controls_hold_nothing_superfluous():
    graph = AttackGraph(
        CHAIN, (mitigation("M01", cost=5, blocks=("T03",)), mitigation("M02", blocks=("T01",)), mitigation("M03"))
    )
    everything = graph.mitigation_set(["M01", "M02", "M03"])
    assert sufficient(graph, {"user": ["p0.use", "p2.use"]}, everything, "T03") == ("M02",)
    assert sufficient(graph, {"user": ["p0.use", "p2.use"]}, graph.mitigation_set(["M03"]), "T03") == ()


@pytest.mark.control("ROKE-4")
def test_the_control_set_is_minimal_by_brute_force_on_a_shared_access_point():
    techniques = (
        technique("T01", [["store.write"]], ["store.read"]),
        technique("T02", [["store.write", "know.x"]]),
        technique("T03", [["store.read"], ["store.write"]], ["know.x"]),
        technique("T04", [["input.query"]]),
        technique("T05", [["input.query", "know.x"]]),
    )
    mitigations = (
        mitigation("M01", cost=1.5, guards={"store.write": ("user", INTRUDER)}),
        mitigation("M02", cost=1, blocks=("T01",)),
        mitigation("M03", cost=1, blocks=("T02",)),
        mitigation("M04", cost=1, blocks=("T03",)),
        mitigation("M05", cost=2, blocks=("T05",), weakens=("T04",)),
    )
    holding = {"user": ["store.write", "input.query"]}
    found = minimal_controls(AttackGraph(techniques, mitigations), holding)
    assert brute_force(techniques, mitigations, holding) == (1.5, 1)
    assert found.controls == ("M01",)
    assert found.cost == 1.5
    assert found.prevents == ("T01", "T02", "T03", "T05")
    assert found.proved
    assert found.returns_without == {"M01": ("T01", "T02", "T03", "T05")}


def test_in_place_unavailable_and_own_costs_change_the_answer():
    mitigations = (
        mitigation("M01", cost=3, blocks=("T01",)),
        mitigation("M02", cost=1, blocks=("T02",)),
        mitigation("M03", cost=1, guards={"p0.use": ("user",)}),
    )
    graph = AttackGraph(CHAIN, mitigations)
    holding = {"user": ["p0.use", "p2.use"]}
    assert minimal_controls(graph, holding).controls == ("M03",)
    assert minimal_controls(graph, holding, costs={"M03": 9.5}).controls == ("M01",)
    assert minimal_controls(graph, holding, unavailable=["M03"]).controls == ("M01",)
    assert minimal_controls(graph, holding, unavailable=["M03", "M01"]).prevents == ("T02", "T03")
    assert minimal_controls(graph, holding, in_place=["M02"]).prevents == ("T01",)
    done = minimal_controls(graph, holding, in_place=["M03"])
    assert (done.controls, done.cost, done.prevents, done.proved) == ((), 0, (), True)
    assert minimal_controls(graph, {}).controls == ()


@pytest.mark.parametrize("cost", [-1, math.nan, math.inf, 1e300])
def test_a_cost_that_is_none_is_refused(cost):
    with pytest.raises(InputError, match="cost of mitigation M01"):
        minimal_controls(AttackGraph(CHAIN, (mitigation("M01", blocks=("T01",)),)), {}, costs={"M01": cost})


def test_a_solver_that_fails_or_errs_is_not_believed(monkeypatch):
    graph = AttackGraph(CHAIN, (mitigation("M01", blocks=("T01",)), mitigation("M02", blocks=("T03",))))
    holding = {"user": ["p0.use", "p2.use"]}
    failing = OptimizeResult(x=None, message="time is up")
    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: failing)
    with pytest.raises(WorkError, match="time is up"):
        minimal_controls(graph, holding)
    nothing = OptimizeResult(x=np.zeros(9), fun=0.0, mip_dual_bound=0.0)
    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: nothing)
    with pytest.raises(WorkError, match="does not prevent its target"):
        minimal_controls(graph, holding)


def test_unknown_ids_are_refused():
    graph = AttackGraph(CHAIN, ())
    for attempt in (graph.mitigation_set, graph.technique_set):
        with pytest.raises(InputError, match="the attack map has no"):
            attempt(["X99"])


@st.composite
def problems(draw):
    """Small graphs with chains and cycles, positions, guards and blocks of random cost."""
    some = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=2, unique=True)
    techniques = tuple(
        technique(f"T0{number}", draw(st.lists(some, min_size=1, max_size=3)), draw(some)) for number in range(1, 6)
    )
    names = st.lists(st.sampled_from([entry.id for entry in techniques]), max_size=2, unique=True)
    people = st.lists(st.sampled_from([*POSITIONS, INTRUDER]), min_size=1, max_size=3, unique=True)
    mitigations = tuple(
        mitigation(
            f"M0{number}",
            cost=draw(st.sampled_from([0, 0.5, 1, 1, 2, 3])),
            guards={
                token: tuple(draw(people)) for token in draw(st.lists(st.sampled_from(TOKENS), max_size=3, unique=True))
            },
            blocks=tuple(draw(names)),
        )
        for number in range(1, 8)
    )
    holding = {position: draw(st.lists(st.sampled_from(TOKENS), max_size=4, unique=True)) for position in POSITIONS}
    in_place = draw(st.sets(st.sampled_from([entry.id for entry in mitigations]), max_size=2))
    return techniques, mitigations, holding, in_place


@settings(max_examples=150, deadline=None)
@given(problems())
def test_reach_routes_and_control_sets_agree_with_brute_force(problem):
    techniques, mitigations, holding, in_place = problem
    graph = AttackGraph(techniques, mitigations)
    for on in ((), in_place, [entry.id for entry in mitigations]):
        controls = graph.mitigation_set(on)
        expected = closure(techniques, mitigations, holding, set(on))
        assert set(graph.technique_ids(graph.reach(holding, controls)[0])) == expected
        assert set(graph.routes(holding, controls)) == expected
    found = minimal_controls(graph, holding, in_place=in_place)
    cost, size = brute_force(techniques, mitigations, holding, in_place)
    assert found.cost == pytest.approx(cost, abs=1e-6)
    assert len(found.controls) == size
    assert found.proved
    assert all(found.returns_without.values())


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_route_can_be_walked(problem):
    techniques, _, holding, _ = problem
    named = {entry.id: entry for entry in techniques}
    for route in AttackGraph(techniques, ()).routes(holding).values():
        held = {token for tokens in holding.values() for token in tokens}
        for step in (*route.chain, route.technique):
            assert any(set(need) <= held for need in named[step].needs)
            held |= set(named[step].yields)
        for token, source in route.uses.items():
            assert token in (named[source].yields if source in named else holding[source])


@pytest.mark.parametrize("profile", sorted(catalogue().profiles))
@pytest.mark.parametrize("with_insider", [False, True])
def test_control_sets_of_the_shipped_profiles_are_proved_and_irredundant(profile, with_insider):
    entries = catalogue().entries
    holding = {
        position: tokens
        for position, tokens in catalogue().profile(profile).positions.items()
        if with_insider or position != "insider"
    }
    graph = AttackGraph(entries.techniques, entries.mitigations)
    found = minimal_controls(graph, holding)
    assert found.proved
    assert all(found.returns_without.values())
    left = closure(entries.techniques, entries.mitigations, holding, set(found.controls))
    best = closure(entries.techniques, entries.mitigations, holding, {entry.id for entry in entries.mitigations})
    assert left == best
    assert found == minimal_controls(AttackGraph(entries.techniques, entries.mitigations), holding)


def test_costs_of_the_shipped_profiles_are_what_an_independent_model_found():
    # Costs of a general formulation (a variable for each token and technique) solved once with HiGHS.
    expected = {
        "edge-vision-device": (10, 14),
        "internal-batch-scoring": (7, 13),
        "llm-rag-agent": (11, 17),
        "public-api-classifier": (14, 20),
    }
    entries = catalogue().entries
    graph = AttackGraph(entries.techniques, entries.mitigations)
    for profile, costs in expected.items():
        positions = catalogue().profile(profile).positions
        without = {position: tokens for position, tokens in positions.items() if position != "insider"}
        assert (minimal_controls(graph, without).cost, minimal_controls(graph, positions).cost) == costs

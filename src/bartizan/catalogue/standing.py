"""How techniques stand against controls, and the three lists under live evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from bartizan.catalogue.attackmap import (
    AttackMap,
    PointOnMap,
    Prevented,
    Residual,
    Scenario,
    State,
    ThreeLists,
    Weakened,
)
from bartizan.catalogue.entries import AccessPoint, Mitigation
from bartizan.catalogue.graph import AttackGraph, Holding, members
from bartizan.catalogue.minimal import ControlSet, minimal_controls
from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric


def with_evidence(
    document: AttackMap,
    live: Collection[str],
    measured: Mapping[str, Metric] | None = None,
    accepted: Mapping[str, datetime] | None = None,
    deployed: Collection[str] = (),
) -> AttackMap:
    """The same map with its states, points and three lists as the evidence of today has them.

    ``live`` holds the mitigations with evidence that counts now, claimed or not; a claim without
    evidence counts for nothing. ``measured`` gives success rates by technique, ``accepted`` the end
    of each acceptance of risk that is valid now. ``deployed`` names the techniques whose rate was
    measured against the system as deployed, through its controls: only such a rate can contradict
    that a technique is prevented. Decisions and assessments also name other things than techniques
    of this map; what it does not know is passed over.

    Raises:
        InputError: an acceptance ends at a time without a time zone.
    """
    measured, accepted = measured or {}, accepted or {}
    graph, holding = document.graph(), document.holding()
    live = {mitigation.id for mitigation in document.mitigations} & set(live)
    controls = graph.mitigation_set(live)
    states = states_under(graph, holding, controls)
    after = passing(graph, holding, controls, document.points)
    lists = three_lists(
        graph,
        holding,
        live,
        measured=measured,
        accepted=accepted,
        deployed=deployed,
        claims=[mitigation.id for mitigation in document.mitigations if mitigation.claimed],
        to_add=minimal_controls(graph, holding, in_place=live),
    )
    return msgspec.structs.replace(
        document,
        techniques=tuple(msgspec.structs.replace(t, state=states.get(t.id, t.state)) for t in document.techniques),
        mitigations=tuple(msgspec.structs.replace(m, live=m.id in live) for m in document.mitigations),
        points=tuple(_cooled(point, after[point.id], document.scenarios["nothing"]) for point in document.points),
        lists=lists,
    )


def states_under(graph: AttackGraph, holding: Holding, controls: int) -> dict[str, State]:
    """State of every technique against the mitigations in ``controls`` (a set of the graph)."""
    before, _ = graph.reach(holding)
    after, _ = graph.reach(holding, controls)
    in_place = [graph.mitigations[index] for index in members(controls)]
    weakened = graph.known_techniques(entry for mitigation in in_place for entry in mitigation.weakens)
    detected = graph.known_techniques(entry for mitigation in in_place for entry in mitigation.detects)
    states: dict[str, State] = {}
    for index, technique in enumerate(graph.techniques):
        bit = 1 << index
        if not before & bit:
            states[technique.id] = "unreachable"
        elif not after & bit:
            states[technique.id] = "prevented"
        else:
            states[technique.id] = "weakened" if weakened & bit else "detected" if detected & bit else "residual"
    return states


def scenario(graph: AttackGraph, states: Mapping[str, State], controls: int) -> Scenario:
    """The states under ``controls``, as lists."""
    lists = {wanted: tuple(t for t, state in states.items() if state == wanted) for wanted in _LISTED}
    return Scenario(
        in_place=graph.mitigation_ids(controls),
        reachable=tuple(t for t, state in states.items() if state in {"weakened", "detected", "residual"}),
        **lists,
    )


_LISTED = ("prevented", "weakened", "detected", "residual")


def passing(
    graph: AttackGraph, holding: Holding, controls: int, points: Iterable[PointOnMap | AccessPoint]
) -> dict[str, tuple[str, ...]]:
    """For each access point, the techniques that can pass there: by some alternative that is open."""
    reached, held = graph.reach(holding, controls)
    result = {}
    for point in points:
        rights = graph.token_set(f"{point.id}.{right}" for right in point.rights)
        result[point.id] = tuple(
            graph.techniques[index].id
            for index in members(reached)
            if any(need & held == need and need & rights for need in graph.needs[index])
        )
    return result


def three_lists(
    graph: AttackGraph,
    holding: Holding,
    live: Collection[str],
    *,
    measured: Mapping[str, Metric],
    accepted: Mapping[str, datetime],
    deployed: Collection[str],
    claims: Collection[str],
    to_add: ControlSet,
) -> ThreeLists:
    """Prevented, weakened and residual techniques under the live controls."""
    in_place = [mitigation for mitigation in graph.mitigations if mitigation.id in live]
    controls = graph.mitigation_set(live)
    prevented, weakened, residual = [], [], []
    for technique, state in states_under(graph, holding, controls).items():
        success, until = measured.get(technique), _iso(accepted.get(technique))
        weakening, detecting = against(in_place, technique)
        if state == "prevented":
            by = sufficient(graph, holding, controls, technique)
            prevented.append(Prevented(technique=technique, by=by, measured=success))
        elif state == "weakened":
            weakened.append(
                Weakened(
                    technique=technique, by=weakening, detected_by=detecting, measured=success, accepted_until=until
                )
            )
        elif state != "unreachable":
            residual.append(
                Residual(technique=technique, detected_by=detecting, measured=success, accepted_until=until)
            )
    return ThreeLists(
        live=tuple(mitigation.id for mitigation in in_place),
        claimed_only=tuple(m.id for m in graph.mitigations if m.id in claims and m.id not in live),
        prevented=tuple(prevented),
        weakened=tuple(weakened),
        residual=tuple(residual),
        contradicted=tuple(
            entry.technique
            for entry in prevented
            if entry.technique in deployed and entry.measured and entry.measured.low > 0
        ),
        to_add=to_add,
    )


def sufficient(graph: AttackGraph, holding: Holding, controls: int, technique: str) -> tuple[str, ...]:
    """Those of ``controls`` that keep a technique out, none of them superfluous; empty if they do not.

    Dear controls are let go first, so what is left is cheap, though not always the cheapest.
    """
    bit = graph.technique_set((technique,))
    if graph.reach(holding, controls)[0] & bit:
        return ()
    kept = controls & graph.mitigation_set(m.id for m in graph.mitigations if m.prevents)
    for index in sorted(members(kept), key=lambda index: (-graph.mitigations[index].cost, index)):
        without = kept & ~(1 << index)
        if not graph.reach(holding, without)[0] & bit:
            kept = without
    return graph.mitigation_ids(kept)


def _cooled(point: PointOnMap, after: tuple[str, ...], nothing: Scenario) -> PointOnMap:
    """The point with what still passes there."""
    return msgspec.structs.replace(point, after=after, heat_after=share(after, nothing.reachable))


def share(part: Collection[str], whole: Collection[str]) -> float:
    """``part`` of ``whole``, 0 to 1, to four places; 0 of nothing is 0."""
    return round(len(part) / len(whole), 4) if whole else 0.0


def _iso(end: datetime | None) -> str:
    """ISO 8601 in UTC, or empty."""
    if end is None:
        return ""
    if end.tzinfo is None:
        raise InputError(f"acceptance ends {end.isoformat()} without a time zone", remedy="give the end in UTC.")
    return end.astimezone(UTC).isoformat().replace("+00:00", "Z")


def against(mitigations: Iterable[Mitigation], technique: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Mitigations that weaken and that detect a technique."""
    listed = tuple(mitigations)
    weakening = tuple(mitigation.id for mitigation in listed if technique in mitigation.weakens)
    return weakening, tuple(mitigation.id for mitigation in listed if technique in mitigation.detects)

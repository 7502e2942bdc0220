"""Turns the attack-map document, with the evidence of today, into what the report draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from bartizan.assurance.model import (
    DrawnMap,
    EvidenceLine,
    MapAsset,
    MapControl,
    MapPoint,
    MapTechnique,
    Mark,
    TechniqueState,
)
from bartizan.assurance.text import counted
from bartizan.catalogue.attackmap import (
    AttackMap,
    LeavingFlow,
    PointOnMap,
    Prevented,
    Residual,
    TechniqueOnMap,
    Weakened,
)
from bartizan.core.evidence import Standing

CHECK = "design.attackmap"
"""The check that makes the document."""


def drawn_map(document: AttackMap, lines: Sequence[EvidenceLine]) -> DrawnMap:
    """What the report draws of ``document``, which has been through ``with_evidence``."""
    source = next((line for line in lines if line.check == CHECK and line.standing is Standing.HOLDS), None)
    return DrawnMap(
        points=tuple(_point(document, point) for point in document.points),
        techniques=tuple(sorted(_techniques(document), key=_worst_first)),
        controls=tuple(_controls(document)),
        assets=tuple(
            MapAsset(id=asset.id, points=asset.access_points, opens=len(asset.opens)) for asset in document.assets
        ),
        leaving=tuple(_leaving(document, flow) for flow in document.leaving),
        digest=source.digest if source else "",
    )


def _point(document: AttackMap, point: PointOnMap) -> MapPoint:
    states = {technique.id: technique.state for technique in document.techniques}
    marks = [Mark(technique=name, state=states[name], passes=name in point.after) for name in point.before]  # type: ignore[arg-type]  # what passes a point is reachable
    marks.sort(key=lambda mark: (not mark.passes, mark.state == "weakened", mark.technique))
    return MapPoint(
        id=point.id,
        stage=point.stage,
        asset=point.asset,
        marks=tuple(marks),
        opens=len(point.opens_alone),
        controls=tuple(_cutting(document, point)),
    )


def _cutting(document: AttackMap, point: PointOnMap) -> Iterable[str]:
    """Live controls to which this access point owes that something no longer passes."""
    gone = set(point.before) - set(point.after)
    rights = {f"{point.id}.{right}" for right in point.rights}
    for mitigation in document.mitigations:
        if mitigation.live and gone and (rights & mitigation.guards.keys() or gone & set(mitigation.blocks)):
            yield mitigation.id


def _techniques(document: AttackMap) -> Iterable[MapTechnique]:
    lists = document.lists
    said: dict[str, Prevented | Weakened | Residual] = {entry.technique: entry for entry in lists.prevented}
    said |= {entry.technique: entry for entry in lists.weakened}
    said |= {entry.technique: entry for entry in lists.residual}
    for technique in document.techniques:
        if technique.id in said:
            yield _technique(technique, said[technique.id], technique.id in lists.contradicted)


def _worst_first(technique: MapTechnique) -> tuple[int, str]:
    return get_args(TechniqueState).index(technique.state), technique.id


def _technique(technique: TechniqueOnMap, said: Prevented | Weakened | Residual, contradicted: bool) -> MapTechnique:
    return MapTechnique(
        id=technique.id,
        name=technique.name,
        state=technique.state,  # type: ignore[arg-type]  # the three lists hold reachable ones only
        points=technique.points,
        positions=technique.positions,
        by=() if isinstance(said, Residual) else said.by,
        detected_by=() if isinstance(said, Prevented) else said.detected_by,
        measured=said.measured,
        accepted_until="" if isinstance(said, Prevented) else said.accepted_until[:10],
        contradicted=contradicted,
    )


def _controls(document: AttackMap) -> Iterable[MapControl]:
    """Mitigations that are claimed, in place or advised, in the order of the catalogue."""
    advised = document.lists.to_add
    for mitigation in document.mitigations:
        if mitigation.claimed or mitigation.live or mitigation.id in advised.controls:
            yield MapControl(
                id=mitigation.id,
                name=mitigation.name,
                cost=mitigation.cost,
                claimed=mitigation.claimed,
                live=mitigation.live,
                advised=advised.returns_without.get(mitigation.id, ()),
            )


def _leaving(document: AttackMap, flow: LeavingFlow) -> str:
    local = f" Instead: {document.mitigation(flow.alternative).name} ({flow.alternative})." if flow.alternative else ""
    return (
        f"{flow.carries} leaves the site from {flow.source} to {flow.target}, "
        f"where {counted(len(flow.techniques), 'technique')} can use it.{local}"
    )

"""Computes the attack map of a declared system.

Attacks differ, but many need access to the same places (Roke for the NCSC): so the map says for
every access point what passes it, for every technique how it is reached and what prevents, weakens
or detects it, and which cheapest set of controls prevents all that can be prevented at all. It knows
no probabilities on purpose. Whether a control is in place is not decided here but by evidence
(``bartizan.catalogue.standing.with_evidence``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from bartizan.catalogue.attackmap import (
    AssetOnMap,
    AttackMap,
    CatalogueRef,
    LeavingFlow,
    MitigationOnMap,
    PointOnMap,
    PositionOnMap,
    State,
    TechniqueOnMap,
)
from bartizan.catalogue.entries import Technique
from bartizan.catalogue.graph import INTRUDER, AttackGraph, Holding, Route, members
from bartizan.catalogue.load import Catalogue
from bartizan.catalogue.load import catalogue as shipped_catalogue
from bartizan.catalogue.minimal import minimal_controls, priced
from bartizan.catalogue.standing import against, passing, scenario, share, states_under, sufficient, three_lists
from bartizan.core.system import Component, Declaration, System
from bartizan.lifecycle.design.positions import PROVIDER, TEXT, Positions, check_positions, positions_of

USUAL_PLACES = {"model": ("model-store",), "dataset": ("dataset-store",), "system": ("deployment-config",)}
"""Where an asset lies that no component holds."""
GENERATIVE_POINTS = frozenset({"prompt-context", "agent-tools", "agent-memory", "agent-tool-supply"})
"""Access points that only systems with a generative model have."""
LOCAL_PROCESSING = "M33"
"""The mitigation that keeps data near where it arises (A-MLSG-001-C002)."""


def attack_map(
    system: System,
    catalogue: Catalogue | None = None,
    *,
    consider: Sequence[str] | None = None,
    beyond: Mapping[str, Iterable[str]] | None = None,
) -> AttackMap:
    """Compute the map of ``system``; equal inputs give equal bytes.

    ``consider`` replaces the positions that the declaration considers (with ``insider`` it asks what
    staff could do); ``beyond`` gives positions further tokens, such as ``know.weights``, to see what
    a stronger adversary reaches. Nothing counts as in place until evidence says so.

    Raises:
        InputError: the declaration names a profile, position, right, access point or mitigation that
            the catalogue does not have, or a cost that is none.
    """
    catalogue = catalogue or shipped_catalogue()
    declaration = system.declaration
    considered = tuple(declaration.exposure.consider if consider is None else consider)
    check_positions(catalogue, considered)
    positions = positions_of(declaration, catalogue, beyond)
    mitigations = _mitigations(declaration, catalogue)
    kinds = kinds_of(declaration, positions.rights)
    techniques = (entry for entry in catalogue.entries.techniques if applies(entry, kinds))
    graph = AttackGraph(techniques, mitigations)
    return _Survey(declaration, catalogue, graph, positions, considered).map(mitigations, kinds)


class _Survey:
    """One computation of the map: what its parts have in common."""

    def __init__(
        self,
        declaration: Declaration,
        catalogue: Catalogue,
        graph: AttackGraph,
        positions: Positions,
        considered: tuple[str, ...],
    ) -> None:
        self.declaration = declaration
        self.catalogue = catalogue
        self.graph = graph
        self.rights = positions.rights
        self.amendments = positions.amendments
        self.considered = considered
        self.holding: Holding = {p: tokens for p, tokens in positions.rights.items() if p in considered}
        self.claimed = graph.mitigation_set(declaration.mitigations)
        self.everything = graph.mitigation_set(mitigation.id for mitigation in graph.mitigations)
        self.alone = {position: graph.routes({position: tokens}) for position, tokens in positions.rights.items()}
        self.claimed_states = states_under(graph, self.holding, self.claimed)
        self.best_states = states_under(graph, self.holding, self.everything)
        self.states = states_under(graph, self.holding, 0)
        self.control_set = minimal_controls(graph, self.holding)

    def map(self, mitigations: tuple[MitigationOnMap, ...], kinds: tuple[str, ...]) -> AttackMap:
        """Everything put together."""
        chosen = self.control_set.controls
        return AttackMap(
            system=self.declaration.name,
            catalogue=CatalogueRef(
                version=self.catalogue.version,
                atlas=self.catalogue.entries.atlas.content,
                digest=self.catalogue.digest,
            ),
            positions=tuple(self._position(position) for position in self.rights),
            amendments=self.amendments,
            assets=tuple(self._assets()),
            leaving=tuple(self._leaving()),
            points=tuple(self._points()),
            techniques=tuple(self._techniques()),
            mitigations=mitigations,
            scenarios={
                "nothing": scenario(self.graph, self.states, 0),
                "claimed": scenario(self.graph, self.claimed_states, self.claimed),
                "all": scenario(self.graph, self.best_states, self.everything),
            },
            kinds=kinds,
            control_set=self.control_set,
            trade_offs=tuple(
                (mitigation.id, other)
                for mitigation in mitigations
                for other in mitigation.conflicts_with
                if mitigation.id < other and {mitigation.id, other} <= set(chosen)
            ),
            lists=three_lists(
                self.graph,
                self.holding,
                (),
                measured={},
                accepted={},
                deployed=(),
                claims=self.declaration.mitigations,
                to_add=self.control_set,
            ),
        )

    def opens(self, points: Iterable[str]) -> tuple[str, ...]:
        """Techniques that somebody reaches who holds every right at ``points`` and nothing else."""
        tokens = [token for point in points for token in self.catalogue.access_point(point).tokens]
        reached, _ = self.graph.reach({"": tokens})
        return self.graph.technique_ids(reached)

    def _position(self, position: str) -> PositionOnMap:
        return PositionOnMap(
            id=position,
            title=self.catalogue.entries.meta.positions[position],
            considered=position in self.considered,
            rights=self.rights[position],
            routes=self.alone[position],
        )

    def _assets(self) -> Iterator[AssetOnMap]:
        declared = [("system", self.declaration.name)]
        declared += [("model", model.name) for model in self.declaration.model]
        declared += [("dataset", dataset.name) for dataset in self.declaration.dataset]
        for kind, name in declared:
            holders = holding_components(self.declaration, f"{kind}:{name}")
            points = dict.fromkeys(point for component in holders for point in component.access_points)
            places = tuple(points) or USUAL_PLACES[kind]
            yield AssetOnMap(
                id=f"{kind}:{name}",
                access_points=places,
                placed_by=", ".join(component.name for component in holders if component.access_points),
                opens=self.opens(places),
            )

    def _leaving(self) -> Iterator[LeavingFlow]:
        alternative = self.catalogue.mitigations.get(LOCAL_PROCESSING)
        for flow in self.declaration.flow:
            if flow.leaves_site:
                yield LeavingFlow(
                    source=flow.source,
                    target=flow.target,
                    carries=flow.carries,
                    techniques=self.graph.technique_ids(self.graph.reach({"": (PROVIDER,)})[0]),
                    alternative=alternative.id if alternative else "",
                    trade_off=alternative.conflicts_with if alternative else (),
                )

    def _points(self) -> Iterator[PointOnMap]:
        points = self.catalogue.entries.access_points
        before, claimed, best = (
            passing(self.graph, self.holding, controls, points) for controls in (0, self.claimed, self.everything)
        )
        whole = [technique for technique, state in self.states.items() if state != "unreachable"]
        assets = list(self._assets())
        for point in points:
            heat = share(before[point.id], whole)
            yield PointOnMap(
                id=point.id,
                stage=point.stage,
                asset=point.asset,
                rights=point.rights,
                ncsc=point.ncsc,
                components=tuple(c.name for c in self.declaration.component if point.id in c.access_points),
                assets=tuple(asset.id for asset in assets if point.id in asset.access_points),
                before=before[point.id],
                after=before[point.id],
                after_claimed=claimed[point.id],
                after_all=best[point.id],
                opens_alone=self.opens((point.id,)),
                heat=heat,
                heat_after=heat,
            )

    def _techniques(self) -> Iterator[TechniqueOnMap]:
        routes = self.graph.routes(self.holding)
        reached, held = self.graph.reach(self.holding)
        yielded = 0
        for index in members(reached):
            yielded |= self.graph.yields[index]
        holders = {position: self.graph.token_set(tokens) for position, tokens in self.holding.items()}
        holders[INTRUDER] = yielded
        numbers = {technique.id: number for number, technique in enumerate(self.graph.techniques)}
        for technique in self.catalogue.entries.techniques:
            needs = self.graph.needs[numbers[technique.id]] if technique.id in routes else ()
            opened = [need for need in needs if need & held == need]
            yield self._technique(technique, routes.get(technique.id), opened, holders)

    def _technique(
        self, technique: Technique, route: Route | None, opened: list[int], holders: Mapping[str, int]
    ) -> TechniqueOnMap:
        tokens = {token for need in opened for token in self.graph.token_ids(need)}
        weakening, detecting = against(self.graph.mitigations, technique.id)
        applies = technique.id in self.states
        fallback: State = "unreachable" if applies else "not-applicable"
        return TechniqueOnMap(
            **msgspec.structs.asdict(technique),
            applies=applies,
            reachable=route is not None,
            positions=tuple(p for p, routes in self.alone.items() if p in self.considered and technique.id in routes),
            points=tuple(p.id for p in self.catalogue.entries.access_points if not tokens.isdisjoint(p.tokens)),
            route=route,
            cutting=self._cutting(technique.id, opened, holders),
            preventing=sufficient(self.graph, self.holding, self._recommended, technique.id) if route else (),
            weakening=weakening,
            detecting=detecting,
            preventable=self.best_states.get(technique.id) == "prevented",
            state=self.states.get(technique.id, fallback),
            state_claimed=self.claimed_states.get(technique.id, fallback),
            state_all=self.best_states.get(technique.id, fallback),
        )

    @property
    def _recommended(self) -> int:
        """The cheapest control set, as a set of the graph."""
        return self.graph.mitigation_set(self.control_set.controls)

    def _cutting(self, technique: str, opened: list[int], holders: Mapping[str, int]) -> tuple[str, ...]:
        """Mitigations that close one of the open alternatives."""
        bit = self.graph.known_techniques((technique,))
        return tuple(
            mitigation.id
            for blocked, guards, mitigation in zip(
                self.graph.blocks, self.graph.guards, self.graph.mitigations, strict=True
            )
            if opened
            and (
                blocked & bit
                or any(tokens & need & holders.get(who, 0) for who, tokens in guards.items() for need in opened)
            )
        )


def kinds_of(declaration: Declaration, rights: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Kinds of system that the declared one is: generative as soon as anything in it writes text or acts."""
    held = {token for tokens in rights.values() for token in tokens}
    points = {point for component in declaration.component for point in component.access_points}
    points |= {token.partition(".")[0] for token in held}
    return ("generative",) if TEXT in held or points & GENERATIVE_POINTS else ()


def applies(technique: Technique, kinds: Iterable[str]) -> bool:
    """Whether a technique concerns a system of these kinds."""
    return not technique.applies_to or not set(technique.applies_to).isdisjoint(kinds)


def holding_components(declaration: Declaration, asset: str) -> list[Component]:
    """Components that say they hold ``asset`` (``kind:name``), by whole id or by name."""
    return [part for part in declaration.component if part.asset in {asset, asset.partition(":")[2]} - {""}]


def _mitigations(declaration: Declaration, catalogue: Catalogue) -> tuple[MitigationOnMap, ...]:
    """The catalogue's mitigations at the declaration's costs."""
    for entry_id in (*declaration.mitigations, *declaration.mitigation_cost):
        catalogue.mitigation(entry_id)
    for component in declaration.component:
        for point in component.access_points:
            catalogue.access_point(point)
    priced(AttackGraph(catalogue.entries.techniques, catalogue.entries.mitigations), declaration.mitigation_cost)
    return tuple(
        MitigationOnMap(
            **msgspec.structs.asdict(entry) | {"cost": float(declaration.mitigation_cost.get(entry.id, entry.cost))},
            claimed=entry.id in declaration.mitigations,
        )
        for entry in catalogue.entries.mitigations
    )

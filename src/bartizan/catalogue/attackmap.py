"""The attack map of one system, as a document: what can be reached, from where, and what stands against it.

The document is complete in itself. It carries the techniques and mitigations it was computed from,
so that evidence can be weighed against it later, even after the catalogue has moved on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from bartizan.catalogue.entries import Mitigation, Technique
from bartizan.catalogue.graph import AttackGraph, Route
from bartizan.catalogue.minimal import ControlSet
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric

FORMAT = "bartizan-attack-map/1"
MAX_BYTES = 16 * 1024 * 1024

State = Literal["not-applicable", "unreachable", "prevented", "weakened", "detected", "residual"]
"""How a technique stands against a set of controls: it does not concern this kind of system; it is
never reached; it is reached only without them; or it is still reached, and then made harder, only
seen, or neither."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the document's parts; fields that a reader does not know are ignored."""


class CatalogueRef(Part, frozen=True, kw_only=True):
    """Which knowledge the document rests on."""

    version: str
    atlas: str
    """ATLAS content release."""
    digest: Digest


class PositionOnMap(Part, frozen=True, kw_only=True):
    """One place where an adversary may stand."""

    id: str
    title: str
    considered: bool
    rights: tuple[str, ...]
    """Tokens held by design."""
    routes: dict[str, Route]
    """Techniques that this position reaches alone, with nothing in place."""


class Amendment(Part, frozen=True, kw_only=True):
    """A change that the declaration made to the rights of a position."""

    position: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    because: str


class AssetOnMap(Part, frozen=True, kw_only=True):
    """A declared model, dataset or configuration, and the doors to it."""

    id: str
    """``dataset:train``."""
    access_points: tuple[str, ...]
    placed_by: str
    """Component that puts it there; empty where the usual place of its kind is assumed."""
    opens: tuple[str, ...]
    """Techniques that somebody with every right at these points reaches, chains included."""


class LeavingFlow(Part, frozen=True, kw_only=True):
    """Data that leaves the site, with the alternative of keeping it near."""

    source: str
    target: str
    carries: str
    techniques: tuple[str, ...]
    """What the provider can do without any attack."""
    alternative: str
    """Mitigation that keeps the data local."""
    trade_off: tuple[str, ...]
    """Mitigations that pull the other way."""


class PointOnMap(Part, frozen=True, kw_only=True):
    """One access point of the life cycle."""

    id: str
    stage: str
    asset: str
    rights: tuple[str, ...]
    ncsc: tuple[str, ...]
    components: tuple[str, ...]
    """Declared components that realise it."""
    assets: tuple[str, ...]
    before: tuple[str, ...]
    """Reachable techniques that can pass here with nothing in place."""
    after: tuple[str, ...]
    """The same under the controls that have live evidence."""
    after_claimed: tuple[str, ...]
    """The same if every claim were true."""
    after_all: tuple[str, ...]
    """The same under everything the catalogue offers."""
    opens_alone: tuple[str, ...]
    """Techniques reached by somebody who holds every right here and nothing else."""
    heat: float
    """Share of the reachable techniques that can pass here, 0 to 1, nothing in place."""
    heat_after: float
    """The same share under the controls that have live evidence, of the same whole."""


class TechniqueOnMap(Technique, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=False):
    """A technique of the catalogue, placed on the map."""

    applies: bool
    """Whether it concerns this kind of system."""
    reachable: bool
    """By the considered positions together, with nothing in place."""
    positions: tuple[str, ...]
    """Considered positions that reach it alone; empty while reachable: only together."""
    points: tuple[str, ...]
    """Access points that its open alternatives pass."""
    route: Route | None
    """How the positions reach it together."""
    cutting: tuple[str, ...]
    """Mitigations that close at least one of its open alternatives: they block it or take a token away."""
    preventing: tuple[str, ...]
    """Controls of the cheapest set that together prevent it, also by stopping what it rests on."""
    weakening: tuple[str, ...]
    detecting: tuple[str, ...]
    preventable: bool
    """Whether all mitigations together prevent it."""
    state: State
    """Under the controls that have live evidence."""
    state_claimed: State
    """If every claim were true."""
    state_all: State
    """Under everything the catalogue offers."""


class MitigationOnMap(Mitigation, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=False):
    """A mitigation of the catalogue; ``cost`` is the declaration's where it gives one."""

    claimed: bool
    """The declaration says that it is in place."""
    live: bool = False
    """There is evidence now that it is in place."""


class Scenario(Part, frozen=True, kw_only=True):
    """How all techniques stand against one set of controls."""

    in_place: tuple[str, ...]
    reachable: tuple[str, ...]
    prevented: tuple[str, ...]
    weakened: tuple[str, ...]
    detected: tuple[str, ...]
    residual: tuple[str, ...]


class Prevented(Part, frozen=True, kw_only=True):
    """A technique that live controls keep out."""

    technique: str
    by: tuple[str, ...]
    """Live controls that suffice; leave one out and the technique is back."""
    measured: Metric | None
    """Success rate against this system, if it was tried all the same."""


class Weakened(Part, frozen=True, kw_only=True):
    """A technique still reached, but made harder."""

    technique: str
    by: tuple[str, ...]
    detected_by: tuple[str, ...]
    measured: Metric | None
    """Success rate against this system; absent means that nobody has measured it."""
    accepted_until: str
    """End of the signed acceptance of its risk (ISO 8601); empty when there is none."""


class Residual(Part, frozen=True, kw_only=True):
    """A technique still reached that nothing live makes harder."""

    technique: str
    detected_by: tuple[str, ...]
    measured: Metric | None
    accepted_until: str


class ThreeLists(Part, frozen=True, kw_only=True):
    """The balance of the map under live evidence: three lists, never one number."""

    live: tuple[str, ...]
    """Mitigations with evidence that counts now."""
    claimed_only: tuple[str, ...]
    """Claimed in the declaration, but without live evidence: they count for nothing."""
    prevented: tuple[Prevented, ...]
    weakened: tuple[Weakened, ...]
    residual: tuple[Residual, ...]
    contradicted: tuple[str, ...]
    """Techniques that should be prevented but were measured to work as deployed: some evidence is wrong."""
    to_add: ControlSet
    """The cheapest controls that would prevent the rest of what can be prevented."""


_P = TypeVar("_P", PointOnMap, PositionOnMap, TechniqueOnMap, MitigationOnMap)


class AttackMap(Part, frozen=True, kw_only=True):
    """The whole document."""

    format: str = FORMAT
    system: str
    catalogue: CatalogueRef
    positions: tuple[PositionOnMap, ...]
    amendments: tuple[Amendment, ...]
    assets: tuple[AssetOnMap, ...]
    leaving: tuple[LeavingFlow, ...]
    points: tuple[PointOnMap, ...]
    techniques: tuple[TechniqueOnMap, ...]
    mitigations: tuple[MitigationOnMap, ...]
    scenarios: dict[Literal["nothing", "claimed", "all"], Scenario]
    kinds: tuple[str, ...]
    """Kinds of system that this one is (``Meta.kinds``); techniques for others do not apply."""
    control_set: ControlSet
    """The cheapest controls that prevent all that can be prevented, starting from nothing."""
    trade_offs: tuple[tuple[str, str], ...]
    """Pairs within the control set that pull against each other."""
    lists: ThreeLists

    def holding(self) -> dict[str, tuple[str, ...]]:
        """Tokens by considered position."""
        return {position.id: position.rights for position in self.positions if position.considered}

    def graph(self) -> AttackGraph:
        """The graph that the map was computed from."""
        return AttackGraph((entry for entry in self.techniques if entry.applies), self.mitigations)

    def technique(self, entry_id: str) -> TechniqueOnMap:
        """The technique of that id; KeyError when the map has none."""
        return _by_id(self.techniques, entry_id)

    def point(self, entry_id: str) -> PointOnMap:
        """The access point of that id; KeyError when the map has none."""
        return _by_id(self.points, entry_id)

    def position(self, entry_id: str) -> PositionOnMap:
        """The position of that id; KeyError when the map has none."""
        return _by_id(self.positions, entry_id)

    def mitigation(self, entry_id: str) -> MitigationOnMap:
        """The mitigation of that id; KeyError when the map has none."""
        return _by_id(self.mitigations, entry_id)

    def encode(self) -> bytes:
        """Canonical JSON: equal maps have equal bytes."""
        return canonical_json(self)


class MapDifference(Part, frozen=True, kw_only=True):
    """What changed between two maps."""

    added: tuple[str, ...]
    """Techniques that became reachable."""
    removed: tuple[str, ...]
    by_position: dict[str, tuple[str, ...]]
    """Position to the techniques that it newly reaches alone."""
    rights: dict[str, tuple[str, ...]]
    """Position to the tokens that it newly holds."""


def read_attack_map(data: bytes) -> AttackMap:
    """Read what ``AttackMap.encode`` wrote.

    Raises:
        InputError: it is no attack map of this format.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"attack map of {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        document = msgspec.json.decode(data, type=AttackMap)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not an attack map: {error}", remedy="compute it again.") from error
    if document.format != FORMAT:
        raise InputError(f"attack map format {document.format[:80]!r}; {FORMAT} is read", remedy="compute it again.")
    return document


def difference(before: AttackMap, after: AttackMap) -> MapDifference:
    """What ``after`` lets an adversary do that ``before`` did not, and the reverse."""
    was, now = _reachable(before), _reachable(after)
    old = {position.id: position for position in before.positions}
    gained: dict[str, tuple[str, ...]] = {}
    rights: dict[str, tuple[str, ...]] = {}
    for position in after.positions:
        former = old.get(position.id)
        gained[position.id] = tuple(t for t in position.routes if former is None or t not in former.routes)
        rights[position.id] = tuple(t for t in position.rights if former is None or t not in former.rights)
    return MapDifference(
        added=tuple(technique for technique in now if technique not in was),
        removed=tuple(technique for technique in was if technique not in now),
        by_position={position: techniques for position, techniques in gained.items() if techniques},
        rights={position: tokens for position, tokens in rights.items() if tokens},
    )


def _reachable(document: AttackMap) -> Mapping[str, None]:
    """Reachable techniques in order."""
    return dict.fromkeys(technique.id for technique in document.techniques if technique.reachable)


def _by_id(parts: tuple[_P, ...], entry_id: str) -> _P:
    """The part of that id."""
    for part in parts:
        if part.id == entry_id:
            return part
    raise KeyError(entry_id)

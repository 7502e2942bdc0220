"""What an adversary can reach: the least fixpoint of the AND/OR graph of techniques.

A technique is a set of Horn clauses: each alternative of tokens implies it, and it implies the
tokens that it yields. Reaching is monotone, so the least fixpoint is unique and does not depend on
order. Sets of tokens, techniques and mitigations are integers used as bit sets, which makes one
fixpoint over the shipped catalogue a matter of some ten microseconds.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from bartizan.catalogue.entries import Mitigation, Technique
from bartizan.core.errors import InputError

INTRUDER = "intruder"
"""Position of whoever acts with rights that a technique yielded."""

Holding = Mapping[str, Collection[str]]
"""Tokens that each adversary position holds by design."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One way, among the shortest, in which a technique is reached."""

    technique: str
    uses: dict[str, str]
    """Each token of the alternative taken, and who provides it: a position or a technique."""
    chain: tuple[str, ...]
    """Techniques carried out before, in order; empty when the tokens are held from the start."""


class AttackGraph:
    """Techniques and mitigations compiled to bit sets. Immutable once built.

    Mitigations may name techniques that are not in the graph: those do not concern this system.
    """

    def __init__(self, techniques: Iterable[Technique], mitigations: Iterable[Mitigation]) -> None:
        self.techniques = tuple(techniques)
        self.mitigations = tuple(mitigations)
        self._technique_bit = _bits(technique.id for technique in self.techniques)
        self._mitigation_bit = _bits(mitigation.id for mitigation in self.mitigations)
        self._token_bit = _bits(_tokens(self.techniques, self.mitigations))
        self._tokens = tuple(self._token_bit)
        self.needs = tuple(tuple(map(self.token_set, technique.needs)) for technique in self.techniques)
        """By technique: its alternatives as token sets."""
        self.yields = tuple(self.token_set(technique.yields) for technique in self.techniques)
        """By technique: the token set it yields."""
        self.blocks = tuple(self.known_techniques(mitigation.blocks) for mitigation in self.mitigations)
        """By mitigation: the technique set it blocks."""
        self.guards = tuple(self._guarded(mitigation) for mitigation in self.mitigations)
        """By mitigation: position to the token set that is taken from it."""

    def token_set(self, tokens: Iterable[str]) -> int:
        """Bit set of tokens; those that no technique or mitigation knows are left out."""
        return _union(self._token_bit.get(token, 0) for token in tokens)

    def technique_set(self, ids: Iterable[str]) -> int:
        """Bit set of techniques. Raises InputError for an id that is not in the graph."""
        return _union(_pick("technique", self._technique_bit, entry_id) for entry_id in ids)

    def known_techniques(self, ids: Iterable[str]) -> int:
        """Bit set of those techniques that are in the graph."""
        return _union(self._technique_bit.get(entry_id, 0) for entry_id in ids)

    def mitigation_set(self, ids: Iterable[str]) -> int:
        """Bit set of mitigations. Raises InputError for an id that is not in the graph."""
        return _union(_pick("mitigation", self._mitigation_bit, entry_id) for entry_id in ids)

    def technique_ids(self, bits: int) -> tuple[str, ...]:
        """Ids of a technique set, in the order of the catalogue."""
        return tuple(self.techniques[index].id for index in members(bits))

    def mitigation_ids(self, bits: int) -> tuple[str, ...]:
        """Ids of a mitigation set, in the order of the catalogue."""
        return tuple(self.mitigations[index].id for index in members(bits))

    def token_ids(self, bits: int) -> tuple[str, ...]:
        """Tokens of a token set, in alphabetical order."""
        return tuple(sorted(self._tokens[index] for index in members(bits)))

    def left_over(self, holding: Holding, controls: int = 0) -> tuple[int, int]:
        """Token sets that remain under ``controls``: held from the start, and open to intruders."""
        active = [self.guards[index] for index in members(controls)]
        start = 0
        for position, tokens in holding.items():
            start |= self.token_set(tokens) & ~_union(guard.get(position, 0) for guard in active)
        return start, ~_union(guard.get(INTRUDER, 0) for guard in active)

    def reach(self, holding: Holding, controls: int = 0) -> tuple[int, int]:
        """Least fixpoint: the set of techniques reached and the set of tokens held in the end.

        ``controls`` is the set of mitigations in place. Positions act together.
        """
        held, allowed = self.left_over(holding, controls)
        waiting = self._unblocked(controls)
        reached = 0
        while True:
            rest = []
            before = reached
            for index in waiting:
                if any(need & held == need for need in self.needs[index]):
                    reached |= 1 << index
                    held |= self.yields[index] & allowed
                else:
                    rest.append(index)
            if reached == before:
                return reached, held
            waiting = rest

    def routes(self, holding: Holding, controls: int = 0) -> dict[str, Route]:
        """For every technique reached, how: found round by round, so chains are as short as can be."""
        held, allowed = self.left_over(holding, controls)
        origin = self._origins(holding, held)
        routes: dict[str, Route] = {}
        waiting = self._unblocked(controls)
        while ready := [(index, need) for index in waiting if (need := self._met(index, held))]:
            for index, need in ready:
                route = self._route(index, need, origin, routes)
                routes[route.technique] = route
            for index, _ in ready:
                for token in self.token_ids(self.yields[index] & allowed & ~held):
                    origin.setdefault(token, self.techniques[index].id)
            held |= _union(self.yields[index] & allowed for index, _ in ready)
            done = {index for index, _ in ready}
            waiting = [index for index in waiting if index not in done]
        return routes

    def _unblocked(self, controls: int) -> Sequence[int]:
        """Techniques that no control blocks, by index."""
        blocked = _union(self.blocks[index] for index in members(controls))
        return [index for index in range(len(self.techniques)) if not blocked >> index & 1]

    def _met(self, index: int, held: int) -> int:
        """The first alternative of a technique that is held, as a token set; 0 for none."""
        return next((need for need in self.needs[index] if need & held == need), 0)

    def _origins(self, holding: Holding, held: int) -> dict[str, str]:
        """The first position that holds each token."""
        origin: dict[str, str] = {}
        for position, tokens in holding.items():
            for token in self.token_ids(self.token_set(tokens) & held):
                origin.setdefault(token, position)
        return origin

    def _route(self, index: int, need: int, origin: Mapping[str, str], routes: Mapping[str, Route]) -> Route:
        """The route over one alternative, chained from the routes of the techniques that feed it."""
        uses = {token: origin[token] for token in self.token_ids(need)}
        chain: dict[str, None] = {}
        for source in uses.values():
            if source in routes:
                chain.update(dict.fromkeys((*routes[source].chain, source)))
        return Route(technique=self.techniques[index].id, uses=uses, chain=tuple(chain))

    def _guarded(self, mitigation: Mitigation) -> dict[str, int]:
        """Position to the tokens that a mitigation takes from it."""
        guarded: dict[str, int] = {}
        for token, positions in mitigation.guards.items():
            for position in positions:
                guarded[position] = guarded.get(position, 0) | self._token_bit[token]
        return guarded


def members(bits: int) -> Iterator[int]:
    """Indexes of the ones in ``bits``, lowest first."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def _bits(names: Iterable[str]) -> dict[str, int]:
    """One bit for each distinct name, in order."""
    return {name: 1 << index for index, name in enumerate(dict.fromkeys(names))}


def _union(sets: Iterable[int]) -> int:
    """Union of bit sets."""
    return functools.reduce(int.__or__, sets, 0)


def _pick(kind: str, bits: Mapping[str, int], entry_id: str) -> int:
    """The bit of an id, or an error that names it."""
    try:
        return bits[entry_id]
    except KeyError:
        raise InputError(
            f"the attack map has no {kind} {entry_id[:80]!r}", remedy="use ids of the catalogue."
        ) from None


def _tokens(techniques: Iterable[Technique], mitigations: Iterable[Mitigation]) -> Iterator[str]:
    """Every token that the graph knows."""
    for technique in techniques:
        for alternative in technique.needs:
            yield from alternative
        yield from technique.yields
    for mitigation in mitigations:
        yield from mitigation.guards

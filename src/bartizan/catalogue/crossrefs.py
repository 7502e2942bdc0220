"""Cross-references: does every id that an entry names exist?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from bartizan.catalogue.entries import Control, Entries, Mitigation, Technique


def dangling(entries: Entries) -> list[str]:
    """Every reference to something that does not exist, and every id used twice, one sentence each."""
    known = _Known(entries)
    faults: list[str] = []
    for technique in entries.techniques:
        faults += known.of_technique(technique)
    for mitigation in entries.mitigations:
        faults += known.of_mitigation(mitigation)
    for control in entries.controls:
        faults += known.of_control(control)
    faults += known.of_places(entries)
    faults += known.of_guidance(entries)
    return faults + list(_repeated(entries))


class _Known:
    """The ids that may be referred to."""

    def __init__(self, entries: Entries) -> None:
        meta = entries.meta
        self.rights = {token for point in entries.access_points for token in point.tokens}
        self.tokens = self.rights | meta.knowledge.keys() | meta.gains.keys()
        self.positions = meta.positions.keys()
        self.nist = meta.nist.attacks.keys() | meta.nist.objectives.keys()
        self.owasp = {name for names in meta.owasp.values() for name in names}
        self.atlas_techniques = entries.atlas.techniques.keys()
        self.atlas_mitigations = entries.atlas.mitigations.keys()
        self.techniques = {technique.id for technique in entries.techniques}
        self.mitigations = {mitigation.id for mitigation in entries.mitigations}
        self.principles = {principle.id for principle in entries.principles}
        self.controls = {control.id for control in entries.controls}
        self.capabilities = meta.capabilities
        self.kinds = meta.kinds.keys()

    def of_technique(self, entry: Technique) -> Iterator[str]:
        """References of one technique."""
        needed = (token for alternative in entry.needs for token in alternative)
        yield from _missing(entry.id, "token", needed, self.tokens)
        yield from _missing(entry.id, "token", entry.yields, self.tokens)
        yield from _missing(entry.id, "kind of system", entry.applies_to, self.kinds)
        yield from _missing(entry.id, "ATLAS technique", entry.atlas, self.atlas_techniques)
        yield from _missing(entry.id, "NIST attack", entry.nist, self.nist)
        yield from _missing(entry.id, "OWASP id", entry.owasp, self.owasp)
        yield from _missing(entry.id, "principle", entry.ncsc, self.principles)
        yield from _missing(entry.id, "control", entry.amlsg, self.controls)

    def of_mitigation(self, entry: Mitigation) -> Iterator[str]:
        """References of one mitigation."""
        yield from _missing(entry.id, "right", entry.guards, self.rights)
        guarded = (position for positions in entry.guards.values() for position in positions)
        yield from _missing(entry.id, "position", guarded, self.positions)
        yield from _missing(entry.id, "technique", (*entry.blocks, *entry.weakens, *entry.detects), self.techniques)
        yield from _missing(entry.id, "mitigation", entry.conflicts_with, self.mitigations)
        yield from _missing(entry.id, "ATLAS mitigation", entry.atlas, self.atlas_mitigations)
        yield from _missing(entry.id, "principle", entry.ncsc, self.principles)
        yield from _missing(entry.id, "control", entry.amlsg, self.controls)
        yield from _missing(entry.id, "capability", (entry.capability,), self.capabilities)

    def of_control(self, entry: Control) -> Iterator[str]:
        """References of one control."""
        yield from _missing(entry.id, "capability", (entry.capability,), self.capabilities)
        yield from _missing(entry.id, "control or principle", entry.refers_to, self.controls | self.principles)

    def of_places(self, entries: Entries) -> Iterator[str]:
        """References of access points, profiles, attack types and ATLAS aliases."""
        for point in entries.access_points:
            yield from _missing(point.id, "principle", point.ncsc, self.principles)
        for profile in entries.profiles:
            yield from _missing(profile.id, "position", profile.positions, self.positions - {"intruder"})
            held = (token for tokens in profile.positions.values() for token in tokens)
            yield from _missing(profile.id, "right", held, self.rights)
        for attack in entries.meta.attack_types:
            yield from _missing(attack.id, "technique", attack.techniques, self.techniques)
        yield from self._of_atlas(entries)

    def of_guidance(self, entries: Entries) -> Iterator[str]:
        """References of audiences, and families of techniques that no text explains."""
        families = {family.id for family in entries.families}
        for audience in entries.audiences:
            yield from _missing(audience.id, "family", audience.families, families)
            yield from _missing(audience.id, "control", audience.controls, self.controls)
        if families:
            for technique in entries.techniques:
                yield from _missing(technique.id, "family", (technique.family,), families)

    def _of_atlas(self, entries: Entries) -> Iterator[str]:
        current = self.atlas_techniques | self.atlas_mitigations | entries.atlas.tactics.keys()
        yield from _missing("atlas.aliases", "ATLAS id", entries.atlas.aliases.values(), current)
        yield from _missing("atlas.added_since_legacy", "ATLAS id", entries.atlas.added_since_legacy, current)


def _missing(owner: str, kind: str, used: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """One sentence for each id in ``used`` that is not ``known``."""
    return (f"{owner} names {kind} {name!r}, which does not exist" for name in used if name not in known)


def _repeated(entries: Entries) -> Iterator[str]:
    """One sentence for each id that two entries carry."""
    ids = Counter(
        entry.id
        for kind in (entries.techniques, entries.mitigations, entries.controls, entries.principles)
        for entry in kind
    )
    ids.update(point.id for point in entries.access_points)
    return (f"id {name!r} is used {count} times" for name, count in sorted(ids.items()) if count > 1)

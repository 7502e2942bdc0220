"""The entries of the catalogue as values."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all entries: unknown fields are refused, empty ones left out."""


class Principle(Entry, frozen=True, kw_only=True):
    """One of the fifteen NCSC machine learning principles."""

    id: str
    """``1.1`` to ``5.2``."""
    title: str
    stage: str
    """``design``, ``develop``, ``deploy``, ``operate`` or ``retire``."""
    controls: tuple[str, ...]
    """Ids of its goals and implementation items, in the order of the source."""


class Control(Entry, frozen=True, kw_only=True):
    """One item that good practice asks for, with the test that shows it and the evidence it leaves."""

    id: str
    """``1.2-a``, ``1.2-G1`` (a goal), ``A-MLSG-001-C001``, ``GL-2.5`` ..."""
    source: str
    """``ncsc`` or the name of a file in ``controls/``."""
    principle: str = ""
    """Principle it belongs to; empty outside the NCSC principles."""
    item: str
    """What is asked, in our own words."""
    capability: str
    """Part of the software that answers it."""
    test: str
    """What has to be shown, as written; may point to another control."""
    test_resolved: str
    """The same with every pointer replaced by the text it points to."""
    refers_to: tuple[str, ...] = ()
    """Controls or principles that ``test`` points to."""
    evidence: str
    """Statements that show it: ``predicate[condition]``, short names as in ``Meta.predicates``."""
    goal: bool = False
    """A goal of a principle rather than an implementation item."""
    human: bool = False
    """A person must act; evidence is a signed decision, never inferred."""


class Technique(Entry, frozen=True, kw_only=True):
    """One way to attack."""

    id: str
    """``T01`` ..."""
    name: str
    family: str
    goal: str
    """What is lost: ``integrity``, ``privacy`` ...; ``knowledge`` and ``foothold`` prepare others."""
    knowledge: str
    """What the adversary knows of the model: ``none``, ``black-box``, ``grey-box``, ``white-box``."""
    applies_to: tuple[str, ...] = ()
    """Kinds of system (``Meta.kinds``) that it concerns; empty: every kind."""
    needs: tuple[tuple[str, ...], ...]
    """Alternatives; all tokens of one of them must be held."""
    yields: tuple[str, ...]
    """Tokens held after success."""
    atlas: tuple[str, ...] = ()
    nist: tuple[str, ...] = ()
    owasp: tuple[str, ...] = ()
    ncsc: tuple[str, ...] = ()
    """Principles whose gap it exploits."""
    amlsg: tuple[str, ...] = ()
    redteam: str = ""
    """Attack or check that tries it; empty when none does."""
    note: str


class Mitigation(Entry, frozen=True, kw_only=True):
    """One protection."""

    id: str
    """``M01`` ..."""
    name: str
    cost: float
    """From 1 (hours) to 5 (a programme)."""
    capability: str
    evidence: str
    """What must be live before it counts."""
    guards: dict[str, tuple[str, ...]] = {}
    """Token to the positions that it is taken from."""
    blocks: tuple[str, ...] = ()
    """Techniques stopped even if their tokens are held."""
    weakens: tuple[str, ...] = ()
    """Techniques made harder; by how much must be measured."""
    detects: tuple[str, ...] = ()
    """Techniques seen and answered, not prevented."""
    conflicts_with: tuple[str, ...] = ()
    """Mitigations that pull the other way: having both is a declared trade-off."""
    atlas: tuple[str, ...] = ()
    ncsc: tuple[str, ...] = ()
    amlsg: tuple[str, ...] = ()

    @property
    def prevents(self) -> bool:
        """Whether it can prevent anything: it guards or blocks."""
        return bool(self.guards or self.blocks)


class AccessPoint(Entry, frozen=True, kw_only=True):
    """A place in the life cycle where somebody can reach data, model, code or records."""

    id: str
    stage: str
    """``design``, ``collect``, ``develop``, ``train``, ``build``, ``deploy``, ``operate``, ``retire``."""
    rights: tuple[str, ...]
    asset: str
    """What lies there."""
    ncsc: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Its rights as tokens: ``serving-input.query``."""
        return tuple(f"{self.id}.{right}" for right in self.rights)


class Profile(Entry, frozen=True, kw_only=True):
    """Rights that each position holds by design in a typical system."""

    id: str
    title: str
    positions: dict[str, tuple[str, ...]]


class Family(Entry, frozen=True, kw_only=True):
    """A family of techniques in plain words, for briefings."""

    id: str
    """As in ``Technique.family``."""
    title: str
    plain: str
    """What it is, for people who never attacked anything."""
    signs: tuple[str, ...]
    """What one would see."""
    habits: tuple[str, ...]
    """What helps against it, whoever one is."""
    labs: tuple[str, ...] = ()
    """Names of the lessons that show it."""


class Audience(Entry, frozen=True, kw_only=True):
    """Whom a briefing is for."""

    id: str
    title: str
    aliases: tuple[str, ...] = ()
    """Other names under which a declaration may list the role."""
    families: tuple[str, ...]
    """Families of techniques that concern the role wherever they pass."""
    stages: tuple[str, ...] = ()
    """Stages of the life cycle that the role works in: what passes there concerns it, too."""
    know: tuple[str, ...]
    do: tuple[str, ...]
    watch: tuple[str, ...]
    """What to look out for."""
    personal_data: tuple[str, ...]
    """Said when the system holds data about people."""
    controls: tuple[str, ...]
    """Controls to which a briefing of the role is evidence."""


class Standard(Entry, frozen=True, kw_only=True):
    """A standard, law or framework to watch."""

    id: str
    name: str
    title: str
    publisher: str
    version: str
    status: str
    """``published``, ``draft``, ``living`` or ``withdrawn``."""
    dated: str
    """Month of that version (``2025-12``); empty when it has none yet."""
    checked: str
    """Day on which we last looked (``2026-11-21``)."""
    as_of: str
    """Month of the newest information that was found then: what came later is not known here."""
    topics: tuple[str, ...]
    about: str
    watch_for: str
    """What change would concern us."""


class Nist(Entry, frozen=True, kw_only=True):
    """Ids and names of NIST AI 100-2 E2025."""

    document: str
    objectives: dict[str, str]
    attacks: dict[str, str]
    note: str


class AttackType(Entry, frozen=True, kw_only=True):
    """An attack that A-MLSG names, and the techniques it stands for."""

    id: str
    title: str
    techniques: tuple[str, ...]


class Meta(Entry, frozen=True, kw_only=True):
    """Version and vocabularies."""

    version: str
    written: str
    positions: dict[str, str]
    """Where an adversary may stand; ``intruder`` acts with rights that a technique yielded."""
    knowledge: dict[str, str]
    gains: dict[str, str]
    kinds: dict[str, str]
    """Kinds of system that not every technique concerns."""
    nist: Nist
    owasp: dict[str, tuple[str, ...]]
    """Edition to its ids. Names are left to the source."""
    attack_types: tuple[AttackType, ...]
    deviations: tuple[str, ...]
    """Where this catalogue knowingly differs from a source."""
    predicates: dict[str, str]
    """Short names used in ``evidence`` to predicate types."""
    capabilities: tuple[str, ...]


class AtlasNames(Entry, frozen=True, kw_only=True):
    """Ids and names of MITRE ATLAS (not its texts)."""

    content: str
    """Content release, ``2026.09``."""
    legacy_format: str
    """Last release of the single-file format."""
    aliases: dict[str, str]
    """Retired id to its successor."""
    renamed: dict[str, str]
    """Id to its present name, where that changed after the last legacy release."""
    added_since_legacy: tuple[str, ...]
    tactics: dict[str, str]
    techniques: dict[str, str]
    mitigations: dict[str, str]

    def name(self, atlas_id: str) -> str:
        """Name of an id in use, or empty."""
        for names in (self.techniques, self.mitigations, self.tactics):
            if atlas_id in names:
                return names[atlas_id]
        return ""


class Entries(Entry, frozen=True, kw_only=True):
    """Everything the catalogue holds; what its digest is taken over."""

    meta: Meta
    atlas: AtlasNames
    principles: tuple[Principle, ...]
    controls: tuple[Control, ...]
    techniques: tuple[Technique, ...]
    mitigations: tuple[Mitigation, ...]
    access_points: tuple[AccessPoint, ...]
    profiles: tuple[Profile, ...]
    families: tuple[Family, ...] = ()
    audiences: tuple[Audience, ...] = ()
    standards: tuple[Standard, ...] = ()

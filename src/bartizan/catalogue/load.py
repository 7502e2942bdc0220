"""The catalogue, ready to be asked."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TypeVar

import msgspec

from bartizan.catalogue.entries import (
    AccessPoint,
    Audience,
    Control,
    Entries,
    Entry,
    Family,
    Mitigation,
    Principle,
    Profile,
    Standard,
    Technique,
)
from bartizan.core.digest import Digest, digest_json
from bartizan.core.errors import InputError

E = TypeVar("E")

CATALOGUE_ID = "catalogue:bartizan"
"""Name under which statements list the catalogue as an input."""
MAX_SEARCH_WORDS = 16


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One entry that a search found."""

    kind: str
    """``principle``, ``control``, ``technique``, ``mitigation``, ``access point``, ``profile`` or ``standard``."""
    id: str
    title: str


class Catalogue(msgspec.Struct, frozen=True, dict=True):
    """All entries, by id. Build it with ``catalogue()``; a value, never changed in place."""

    entries: Entries

    @property
    def version(self) -> str:
        """Release of this catalogue."""
        return self.entries.meta.version

    @functools.cached_property
    def digest(self) -> Digest:
        """SHA-256 over the canonical JSON of all entries."""
        return digest_json(self.entries)

    @functools.cached_property
    def principles(self) -> Mapping[str, Principle]:
        """Principles by id, in order."""
        return {entry.id: entry for entry in self.entries.principles}

    @functools.cached_property
    def controls(self) -> Mapping[str, Control]:
        """Controls of all sources by id."""
        return {entry.id: entry for entry in self.entries.controls}

    @functools.cached_property
    def techniques(self) -> Mapping[str, Technique]:
        """Techniques by id, in order."""
        return {entry.id: entry for entry in self.entries.techniques}

    @functools.cached_property
    def mitigations(self) -> Mapping[str, Mitigation]:
        """Mitigations by id, in order."""
        return {entry.id: entry for entry in self.entries.mitigations}

    @functools.cached_property
    def access_points(self) -> Mapping[str, AccessPoint]:
        """Access points by id, in the order of the life cycle."""
        return {entry.id: entry for entry in self.entries.access_points}

    @functools.cached_property
    def profiles(self) -> Mapping[str, Profile]:
        """Profiles by id."""
        return {entry.id: entry for entry in self.entries.profiles}

    @functools.cached_property
    def families(self) -> Mapping[str, Family]:
        """Families of techniques by id."""
        return {entry.id: entry for entry in self.entries.families}

    @functools.cached_property
    def audiences(self) -> Mapping[str, Audience]:
        """Audiences of briefings by id."""
        return {entry.id: entry for entry in self.entries.audiences}

    @functools.cached_property
    def standards(self) -> Mapping[str, Standard]:
        """Standards to watch by id."""
        return {entry.id: entry for entry in self.entries.standards}

    @functools.cached_property
    def tokens(self) -> frozenset[str]:
        """Every token there is: rights at access points, knowledge and gains."""
        rights = (token for point in self.entries.access_points for token in point.tokens)
        return frozenset(rights) | set(self.entries.meta.knowledge) | set(self.entries.meta.gains)

    def principle(self, entry_id: str) -> Principle:
        """The principle ``1.1`` to ``5.2``. Raises InputError when there is none."""
        return _pick("principle", self.principles, entry_id)

    def control(self, entry_id: str) -> Control:
        """The control of that id. Raises InputError when there is none."""
        return _pick("control", self.controls, entry_id)

    def technique(self, entry_id: str) -> Technique:
        """The technique of that id. Raises InputError when there is none."""
        return _pick("technique", self.techniques, entry_id)

    def mitigation(self, entry_id: str) -> Mitigation:
        """The mitigation of that id. Raises InputError when there is none."""
        return _pick("mitigation", self.mitigations, entry_id)

    def access_point(self, entry_id: str) -> AccessPoint:
        """The access point of that id. Raises InputError when there is none."""
        return _pick("access point", self.access_points, entry_id)

    def profile(self, entry_id: str) -> Profile:
        """The profile of that id. Raises InputError when there is none."""
        return _pick("profile", self.profiles, entry_id)

    def techniques_of(self, principle_id: str) -> tuple[Technique, ...]:
        """Techniques that exploit a gap in this principle."""
        return tuple(entry for entry in self.entries.techniques if principle_id in entry.ncsc)

    def controls_of(self, principle_id: str) -> tuple[Control, ...]:
        """Goals and implementation items of this principle, in the order of the source."""
        return tuple(self.control(entry_id) for entry_id in self.principle(principle_id).controls)

    def search(self, words: str) -> tuple[Hit, ...]:
        """Entries that contain every word, those with the words in id or title first.

        Case does not matter; a word also matches inside a longer one. At most ``MAX_SEARCH_WORDS``
        words are looked at.
        """
        wanted = words.casefold().split()[:MAX_SEARCH_WORDS]
        if not wanted:
            return ()
        found = [(title, hit) for hit, title, text in self._texts if all(word in text for word in wanted)]
        found.sort(key=lambda pair: not all(word in pair[0] for word in wanted))
        return tuple(hit for _, hit in found)

    @functools.cached_property
    def _texts(self) -> tuple[tuple[Hit, str, str], ...]:
        """Every entry as a hit with its folded title and folded text."""
        listed: tuple[tuple[str, str, str, Entry], ...] = (
            *(("principle", entry.id, entry.title, entry) for entry in self.entries.principles),
            *(("technique", entry.id, entry.name, entry) for entry in self.entries.techniques),
            *(("mitigation", entry.id, entry.name, entry) for entry in self.entries.mitigations),
            *(("access point", entry.id, entry.asset, entry) for entry in self.entries.access_points),
            *(("profile", entry.id, entry.title, entry) for entry in self.entries.profiles),
            *(("control", entry.id, entry.item, entry) for entry in self.entries.controls),
            *(("standard", entry.id, entry.name, entry) for entry in self.entries.standards),
        )
        return tuple(
            (
                Hit(kind=kind, id=entry_id, title=title),
                f"{entry_id} {title}".casefold(),
                " ".join(_strings(msgspec.to_builtins(entry))).casefold(),
            )
            for kind, entry_id, title, entry in listed
        )


def _strings(value: object) -> Iterable[str]:
    """Every string inside a JSON value, keys of objects included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _pick(kind: str, entries: Mapping[str, E], entry_id: str) -> E:
    """The entry, or an error that names the nearest id."""
    try:
        return entries[entry_id]
    except KeyError:
        near = difflib.get_close_matches(entry_id, entries, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else f"known are {min(entries)} to {max(entries)}."
        raise InputError(f"the catalogue has no {kind} {entry_id[:80]!r}", remedy=remedy) from None


@functools.cache
def catalogue() -> Catalogue:
    """The catalogue that ships with this version; read once."""
    data = resources.files(__package__).joinpath("catalogue.json").read_bytes()
    return Catalogue(msgspec.json.decode(data, type=Entries))

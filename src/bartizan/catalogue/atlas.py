"""Newer MITRE ATLAS content: read it, see which of our ids it outdates, take it over.

Two layouts are read. The legacy single file (``dist/ATLAS.yaml``, frozen at 5.6.0) lists objects
below ``matrices``. Format 6 (``dist/v6/ATLAS-YYYY.MM.yaml``) keys them by id, carries the content
release in ``collection.version`` and keeps all links in one ``relationships`` map. Both are read
tolerantly, since releases have shipped with misplaced items, and without trust: size, depth and
number of nodes are bounded, anchors are refused, and every scalar stays a string.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from bartizan.catalogue.entries import AtlasNames, Mitigation, Technique
from bartizan.catalogue.load import Catalogue
from bartizan.core.errors import InputError

MAX_BYTES = 8 * 1024 * 1024
"""Largest file that is read; the releases of 2026 are below 1 MiB."""
MAX_DEPTH = 32
MAX_NODES = 400_000
MAX_NAME = 200
"""Characters of a name that are kept."""

_ID = re.compile(r"AML\.(?:TA|T|M)\d{4}(?:\.\d{3})?\Z")
_T = TypeVar("_T", Technique, Mitigation)
_RELEASE = re.compile(r"20\d{2}\.\d{2}\Z")
_KINDS = ("tactics", "techniques", "mitigations")
_REMEDY = "give a dist/v6/ATLAS-YYYY.MM.yaml file of github.com/mitre-atlas/atlas-data."


class AtlasContent(msgspec.Struct, frozen=True, kw_only=True):
    """Names and links of one ATLAS release."""

    version: str
    """``2026.09``; for a legacy file its format version, ``5.6.0``."""
    legacy: bool
    tactics: dict[str, str]
    techniques: dict[str, str]
    mitigations: dict[str, str]
    achieves: dict[str, tuple[str, ...]]
    """Technique to its tactics."""
    mitigates: dict[str, tuple[str, ...]]
    """Mitigation to the techniques that ATLAS credits it against."""

    def name(self, atlas_id: str) -> str:
        """Name of an id in this release, or empty."""
        return self.techniques.get(atlas_id) or self.mitigations.get(atlas_id) or self.tactics.get(atlas_id, "")


class Outdated(msgspec.Struct, frozen=True, kw_only=True):
    """One ATLAS id that the catalogue uses and a release no longer carries under that name."""

    id: str
    state: Literal["retired", "renamed", "unknown"]
    name: str
    """Name in the catalogue; empty when the catalogue knows none."""
    now: str
    """Successor id of a retired one, present name of a renamed one, empty for an unknown one."""
    used_by: tuple[str, ...]
    """Techniques and mitigations of the catalogue that name it."""


def read_atlas(data: bytes) -> AtlasContent:
    """Read an ATLAS release of either layout.

    Raises:
        InputError: too large or deep, anchors, no YAML, or no ATLAS content in it.
    """
    _check_shape(data)
    try:
        root = yaml.load(data, Loader=yaml.CBaseLoader)  # noqa: S506 - builds strings, lists and dicts only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"the ATLAS file is no YAML: {error}", remedy=_REMEDY) from error
    if not isinstance(root, dict):
        raise InputError("the ATLAS file holds no mapping (a pointer to another file?)", remedy=_REMEDY)
    content = _read_legacy(root) if "matrices" in root or _is_list(root.get("techniques")) else _read_format_6(root)
    if not content.techniques:
        raise InputError("the file holds no ATLAS techniques", remedy=_REMEDY)
    return content


def outdated(catalogue: Catalogue, content: AtlasContent) -> tuple[Outdated, ...]:
    """Ids that the catalogue uses and that ``content`` retired, renamed or does not know, by id.

    What is known to be newer than the legacy format is not held against a legacy file.
    """
    names = catalogue.entries.atlas
    newer = set(names.added_since_legacy) | names.renamed.keys() if content.legacy else set()
    found = []
    for atlas_id, users in sorted(_used(catalogue).items()):
        ours, theirs = names.name(atlas_id), content.name(atlas_id)
        if atlas_id in newer or theirs == ours != "":
            continue
        successor = _successor(atlas_id, names, content)
        state: Literal["retired", "renamed", "unknown"]
        state = "renamed" if theirs else "retired" if successor else "unknown"
        found.append(Outdated(id=atlas_id, state=state, name=ours, now=theirs or successor, used_by=tuple(users)))
    return tuple(found)


def adopt(catalogue: Catalogue, content: AtlasContent) -> Catalogue:
    """The catalogue with the names of a newer release, retired ids replaced by their successors.

    Its digest differs as soon as anything does, so every threat model made before goes stale.

    Raises:
        InputError: ``content`` is legacy, names no release, or is older than what the catalogue carries.
    """
    names = catalogue.entries.atlas
    if content.legacy or not _RELEASE.match(content.version) or content.version < names.content:
        raise InputError(f"ATLAS {content.version[:20]!r} is not {names.content} or newer", remedy=_REMEDY)
    moved = {entry.id: entry.now for entry in outdated(catalogue, content) if entry.state == "retired"}
    fresh = [atlas_id for kind in _KINDS for atlas_id in getattr(content, kind) if not names.name(atlas_id)]
    entries = msgspec.structs.replace(
        catalogue.entries,
        atlas=AtlasNames(
            content=content.version,
            legacy_format=names.legacy_format,
            aliases=names.aliases | moved,
            renamed=names.renamed | {i: content.name(i) for i in names.renamed if content.name(i)},
            added_since_legacy=tuple(i for i in (*names.added_since_legacy, *fresh) if content.name(i)),
            tactics=content.tactics,
            techniques=content.techniques,
            mitigations=content.mitigations,
        ),
        techniques=tuple(_moved(entry, moved) for entry in catalogue.entries.techniques),
        mitigations=tuple(_moved(entry, moved) for entry in catalogue.entries.mitigations),
    )
    return Catalogue(entries)


def _check_shape(data: bytes) -> None:
    """Walk the events without building anything; refuse what could exhaust time or memory."""
    if len(data) > MAX_BYTES:
        raise InputError(f"the ATLAS file has {len(data)} bytes; at most {MAX_BYTES} are read", remedy=_REMEDY)
    depth = 0
    try:
        for count, event in enumerate(yaml.parse(data, Loader=yaml.CBaseLoader)):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent):
                raise InputError("the ATLAS file uses YAML anchors, which no release does", remedy=_REMEDY)
            if depth > MAX_DEPTH or count > MAX_NODES:
                raise InputError(f"the ATLAS file is deeper than {MAX_DEPTH} or has over {MAX_NODES} nodes")
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"the ATLAS file is no YAML: {error}", remedy=_REMEDY) from error


def _read_format_6(root: Mapping[str, Any]) -> AtlasContent:
    """Id-keyed maps and one map of relationships."""
    collection = root.get("collection")
    version = collection.get("version") if isinstance(collection, dict) else None
    links = list(_relationships(root.get("relationships")))
    return AtlasContent(
        version=_text(version) or "unknown",
        legacy=False,
        achieves=_grouped((source, target) for kind, source, target in links if kind == "achieves"),
        mitigates=_grouped((source, target) for kind, source, target in links if kind == "mitigates"),
        **{kind: _names(_keyed(root.get(kind))) for kind in _KINDS},
    )


def _read_legacy(root: Mapping[str, Any]) -> AtlasContent:
    """Lists of objects below ``matrices`` (or at the top, before 4.0)."""
    matrices: list[Mapping[str, Any]] = [each for each in _list(root.get("matrices")) if isinstance(each, dict)] or [
        root
    ]
    objects = {kind: list(itertools.chain(*(_list(matrix.get(kind)) for matrix in matrices))) for kind in _KINDS}
    credited = (
        (_text(each.get("id")), _text(link.get("id")) if isinstance(link, dict) else _text(link))
        for each in objects["mitigations"]
        if isinstance(each, dict)
        for link in _list(each.get("techniques"))
    )
    tactics = (
        (_text(each.get("id")), _text(tactic))
        for each in objects["techniques"]
        if isinstance(each, dict)
        for tactic in _list(each.get("tactics"))
    )
    return AtlasContent(
        version=_text(root.get("version")) or "unknown",
        legacy=True,
        achieves=_grouped(tactics),
        mitigates=_grouped(credited),
        **{kind: _names(objects[kind]) for kind in _KINDS},
    )


def _keyed(value: object) -> Iterator[dict[str, Any]]:
    """Objects of an id-keyed map, each with its key as id."""
    if isinstance(value, dict):
        for key, body in value.items():
            if isinstance(body, dict):
                yield {**body, "id": key}


def _names(objects: Iterable[object]) -> dict[str, str]:
    """Id to name of whatever looks like an ATLAS object."""
    found = {}
    for each in objects:
        if isinstance(each, dict):
            atlas_id, name = _text(each.get("id")), _text(each.get("name"))
            if _ID.match(atlas_id) and name:
                found[atlas_id] = name
    return dict(sorted(found.items()))


def _relationships(value: object) -> Iterator[tuple[str, str, str]]:
    """(kind, source, target) of ``relationships: {owner: {kind: [{source, target}]}}``."""
    groups = value.values() if isinstance(value, dict) else ()
    for group in groups:
        for kind, links in group.items() if isinstance(group, dict) else ():
            for link in _list(links):
                if isinstance(link, dict):
                    yield _text(kind), _text(link.get("source")), _text(link.get("target"))


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Targets by source, each once, keeping only pairs of two ATLAS ids."""
    groups: dict[str, dict[str, None]] = {}
    for source, target in pairs:
        if _ID.match(source) and _ID.match(target):
            groups.setdefault(source, {})[target] = None
    return {source: tuple(targets) for source, targets in sorted(groups.items())}


def _used(catalogue: Catalogue) -> dict[str, list[str]]:
    """ATLAS ids in use, and by which entries."""
    users: dict[str, list[str]] = {}
    entries: tuple[Technique | Mitigation, ...] = (*catalogue.entries.techniques, *catalogue.entries.mitigations)
    for entry in entries:
        for atlas_id in entry.atlas:
            users.setdefault(atlas_id, []).append(entry.id)
    return users


def _successor(atlas_id: str, names: AtlasNames, content: AtlasContent) -> str:
    """Id that took over from ``atlas_id``: by the alias table, or the only one of the same name."""
    known = names.aliases.get(atlas_id, "")
    if content.name(known):
        return known
    name = names.name(atlas_id)
    same = [each for kind in _KINDS for each, other in getattr(content, kind).items() if name and other == name]
    return same[0] if len(same) == 1 else ""


def _moved(entry: _T, moved: Mapping[str, str]) -> _T:
    """``entry`` with retired ATLAS ids replaced, each id once."""
    atlas = tuple(dict.fromkeys(moved.get(atlas_id, atlas_id) for atlas_id in entry.atlas))
    return entry if atlas == entry.atlas else msgspec.structs.replace(entry, atlas=atlas)


def _is_list(value: object) -> bool:
    """Whether it is a YAML sequence."""
    return isinstance(value, list)


def _list(value: object) -> list[Any]:
    """A YAML sequence, or nothing."""
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """A scalar, shortened; empty for anything else."""
    return value.strip()[:MAX_NAME] if isinstance(value, str) else ""

"""The YAML sources of the catalogue: read, checked against their schemas, put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import yaml

from bartizan.catalogue.entries import Entries
from bartizan.core.errors import InputError

SOURCES = Path(__file__).parent
"""Folder that holds the sources."""

_POINTER = re.compile(r"^(?:as|see) (?P<targets>.+?)(?P<rest> incl\. .+)?$")
_TARGET = re.compile(r"[A-Z0-9][A-Za-z]*-?[A-Za-z0-9.-]*")
_FIXED = {"principles": "principle", "access-points": "access-point"}


class _UniqueLoader(yaml.CSafeLoader):
    """Safe loader that refuses a mapping with the same key twice (YAML 1.2, section 3.2.1.3)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {min(twice)!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def assemble(folder: Path = SOURCES) -> Entries:
    """Read all sources below ``folder`` into entries.

    Raises:
        InputError: a file is no YAML, breaks its schema, or is named after another entry.
    """
    principles = _read_all(folder, "principles", "principle")
    others = _read_all(folder, "controls", "controls")
    controls = [_control(control, "ncsc", each["id"]) for each in principles for control in each["controls"]]
    controls += [_control(control, each["source"], "") for each in others for control in each["controls"]]
    _resolve_tests(controls, {each["id"]: each["title"] for each in principles})
    for each in principles:
        each["controls"] = [control["id"] for control in each["controls"]]
    points = _read_all(folder, "access-points", "access-point")
    return msgspec.convert(
        {
            "meta": _read(folder / "meta.yaml", folder / "schema" / "meta.json"),
            "atlas": _read(folder / "atlas.yaml", folder / "schema" / "atlas.json"),
            "principles": principles,
            "controls": controls,
            "techniques": _read_all(folder, "techniques", "technique"),
            "mitigations": _read_all(folder, "mitigations", "mitigation"),
            "access_points": sorted(points, key=lambda point: (_STAGES.index(point["stage"]), point["id"])),
            "profiles": _read_all(folder, "profiles", "profile"),
            "families": _read_all(folder, "families", "family"),
            "audiences": _read_all(folder, "audiences", "audience"),
            "standards": _read_all(folder, "standards", "standard"),
        },
        Entries,
    )


_STAGES = ("design", "collect", "develop", "train", "build", "deploy", "operate", "retire")


def _read_all(folder: Path, kind: str, schema: str) -> list[dict[str, Any]]:
    """All files of one kind, in the order of their names, each holding the entry it is named after."""
    paths = sorted((folder / kind).glob("*.yaml"))
    bodies = [_read(path, folder / "schema" / f"{schema}.json") for path in paths]
    for path, body in zip(paths, bodies, strict=True):
        entry_id = str(body.get("id", body.get("source")))
        if path.stem != entry_id and not path.stem.startswith(f"{entry_id}-"):
            raise InputError(f"{kind}/{path.name} holds {entry_id!r}", remedy="name the file after its entry.")
    return bodies


def _read(path: Path, schema: Path) -> Any:
    """One source file, checked against its schema."""
    try:
        body = yaml.load(path.read_bytes(), Loader=_UniqueLoader)  # noqa: S506 - a subclass of the safe loader
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path.name} cannot be read: {error}", remedy="mend the file.") from error
    validator = jsonschema_rs.validator_for(msgspec.json.decode(schema.read_bytes()))
    faults = [f"{'/'.join(map(str, fault.instance_path))}: {fault.message}" for fault in validator.iter_errors(body)]
    if faults:
        raise InputError(f"{path.name} breaks its schema: {'; '.join(sorted(faults))}", remedy="mend the file.")
    return body


def _control(body: dict[str, Any], source: str, principle: str) -> dict[str, Any]:
    """A control with the place it comes from."""
    return {**body, "source": source, "principle": principle}


def _resolve_tests(controls: list[dict[str, Any]], principles: dict[str, str]) -> None:
    """Give every control ``test_resolved`` and ``refers_to``."""
    tests = {control["id"]: control["test"] for control in controls}
    for control in controls:
        control["refers_to"] = list(_targets(control["test"], tests.keys() | principles.keys()))
        control["test_resolved"] = _resolved(control["test"], tests, principles)


def _resolved(test: str, tests: dict[str, str], principles: dict[str, str]) -> str:
    """The text of ``test`` with its pointers followed to the end."""
    pointer = _POINTER.match(test)
    if not pointer:
        return test
    parts = []
    for target in _targets(test, tests.keys() | principles.keys()):
        if target in principles:
            parts.append(f"every test of principle {target} ({principles[target]})")
        else:
            parts.append(_resolved(tests[target], tests, principles))
    return "; ".join(parts) + (pointer["rest"] or "")


def _targets(test: str, known: Iterable[str]) -> Iterator[str]:
    """Ids that a test of the form ``as X``, ``see X and Y`` or ``see X to Z`` points to."""
    pointer = _POINTER.match(test)
    if not pointer:
        return
    ids = _TARGET.findall(pointer["targets"].replace(" and ", " ").replace(" to ", " "))
    if " to " in pointer["targets"]:
        stem, first = ids[0].rsplit("-", 1)
        last = ids[1].rsplit("-", 1)[1]
        ids = [f"{stem}-{chr(letter)}" for letter in range(ord(first), ord(last) + 1)]
    unknown = set(ids) - set(known)
    if unknown or not ids:
        raise InputError(f"test {test!r} points to nothing known: {sorted(unknown)}", remedy="mend the pointer.")
    yield from ids

"""Reads bills of materials of others: CycloneDX 1.4 to 1.7 and SPDX 2.2/2.3, as JSON.

What comes in is not believed: size, depth and counts are bounded, and what does not have the shape
of a component is named in an error instead of being left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from packageurl import PackageURL

from bartizan.core.errors import InputError

MAX_BYTES = 64 << 20
MOST_COMPONENTS = 200_000
DEEPEST = 32
LONGEST = 10_000
CYCLONEDX_VERSIONS = ("1.4", "1.5", "1.6", "1.7")
_PURL = "purl"


class Component(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One component of a bill of materials."""

    type: str
    """CycloneDX type: ``library``, ``machine-learning-model``, ``data``, ``service`` ..."""
    name: str
    version: str = ""
    purl: str = ""
    ref: str = ""
    hashes: tuple[str, ...] = ()
    """``algorithm:value``, sorted."""
    licences: tuple[str, ...] = ()
    supplier: str = ""
    description: str = ""

    @property
    def key(self) -> str:
        """What makes it the same component in another version of the bill."""
        if self.purl:
            return self.purl.partition("@")[0].partition("?")[0]
        return f"{self.type}:{self.name}"

    @property
    def ecosystem(self) -> str:
        """Type of its package URL, ``pypi``; empty without one."""
        return self.purl.removeprefix("pkg:").partition("/")[0] if self.purl else ""


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """A bill of materials."""

    form: Literal["CycloneDX", "SPDX"]
    version: str
    serial: str
    subject: str
    """Name of what it is about."""
    components: tuple[Component, ...]


def read_bill(data: bytes) -> Bill:
    """Read a bill of materials.

    Raises:
        InputError: it is none, or breaks its format; the text says where.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"the bill of materials has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the bill of materials is no JSON: {error}", remedy="give CycloneDX or SPDX JSON.") from error
    if isinstance(document, dict) and document.get("bomFormat") == "CycloneDX":
        return _cyclonedx(document)
    if isinstance(document, dict) and str(document.get("spdxVersion", "")).startswith("SPDX-2."):
        return _spdx(document)
    raise InputError("this is neither CycloneDX nor SPDX 2 JSON", remedy="give CycloneDX or SPDX JSON.")


def _cyclonedx(document: Mapping[str, Any]) -> Bill:
    version = str(document.get("specVersion", ""))
    if version not in CYCLONEDX_VERSIONS:
        raise InputError(f"CycloneDX {version!r} is not read", remedy=f"versions {', '.join(CYCLONEDX_VERSIONS)} are.")
    subject = _mapping(_mapping(document.get("metadata", {}), "metadata").get("component", {}), "metadata.component")
    found = [_component(item, place) for place, item in _all_components(document, "components", "components")]
    found += [_service(item, place) for place, item in _all_components(document, "services", "services")]
    return Bill(
        form="CycloneDX",
        version=version,
        serial=_text(document.get("serialNumber", ""), "serialNumber"),
        subject=_text(subject.get("name", ""), "metadata.component.name"),
        components=tuple(found),
    )


def _all_components(document: Mapping[str, Any], field: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every component with its place, nested ones included."""
    todo = [(f"{name}[{at}]", item, 0) for at, item in enumerate(_listed(document.get(field, []), name))]
    count = 0
    while todo:
        place, item, depth = todo.pop(0)
        count += 1
        if count > MOST_COMPONENTS:
            raise InputError(f"the bill of materials has more than {MOST_COMPONENTS} components")
        if depth > DEEPEST:
            raise InputError(f"{place}: components are nested more than {DEEPEST} deep")
        component = _mapping(item, place)
        yield place, component
        inner = _listed(component.get(field, []), place)
        todo += [(f"{place}.{field}[{at}]", each, depth + 1) for at, each in enumerate(inner)]


def _component(item: Mapping[str, Any], place: str) -> Component:
    supplier = item.get("supplier") or item.get("manufacturer") or {}
    return Component(
        type=_needed(item, "type", place),
        name=_needed(item, "name", place),
        version=_text(item.get("version", ""), f"{place}.version"),
        purl=_purl(item.get(_PURL, ""), place),
        ref=_text(item.get("bom-ref", ""), f"{place}.bom-ref"),
        hashes=tuple(sorted(_hashes(item.get("hashes", []), place, "alg", "content"))),
        licences=tuple(_licences(item.get("licenses", []), place)),
        supplier=_text(_mapping(supplier, f"{place}.supplier").get("name", ""), f"{place}.supplier.name"),
        description=_text(item.get("description", ""), f"{place}.description"),
    )


def _service(item: Mapping[str, Any], place: str) -> Component:
    provider = _mapping(item.get("provider", {}), f"{place}.provider")
    return Component(
        type="service",
        name=_needed(item, "name", place),
        version=_text(item.get("version", ""), f"{place}.version"),
        ref=_text(item.get("bom-ref", ""), f"{place}.bom-ref"),
        licences=tuple(_licences(item.get("licenses", []), place)),
        supplier=_text(provider.get("name", ""), f"{place}.provider.name"),
        description=_text(item.get("description", ""), f"{place}.description"),
    )


def _licences(items: Any, place: str) -> Iterator[str]:
    for at, item in enumerate(_listed(items, f"{place}.licenses")):
        choice = _mapping(item, f"{place}.licenses[{at}]")
        if "expression" in choice:
            yield _text(choice["expression"], f"{place}.licenses[{at}].expression")
            continue
        licence = _mapping(choice.get("license", {}), f"{place}.licenses[{at}].license")
        yield _text(licence.get("id") or licence.get("name") or "", f"{place}.licenses[{at}]")


def _spdx(document: Mapping[str, Any]) -> Bill:
    packages = _listed(document.get("packages", []), "packages")
    if len(packages) > MOST_COMPONENTS:
        raise InputError(f"the bill of materials has more than {MOST_COMPONENTS} components")
    return Bill(
        form="SPDX",
        version=str(document.get("spdxVersion")).removeprefix("SPDX-"),
        serial=_text(document.get("documentNamespace", ""), "documentNamespace"),
        subject=_text(document.get("name", ""), "name"),
        components=tuple(
            _package(_mapping(item, f"packages[{at}]"), f"packages[{at}]") for at, item in enumerate(packages)
        ),
    )


def _package(item: Mapping[str, Any], place: str) -> Component:
    references = [_mapping(each, f"{place}.externalRefs") for each in _listed(item.get("externalRefs", []), place)]
    purls = [each.get("referenceLocator", "") for each in references if each.get("referenceType") == _PURL]
    licence = _text(item.get("licenseConcluded") or item.get("licenseDeclared") or "", place)
    return Component(
        type=_text(item.get("primaryPackagePurpose", "library"), place).lower().replace("_", "-"),
        name=_needed(item, "name", place),
        version=_text(item.get("versionInfo", ""), f"{place}.versionInfo"),
        purl=_purl(purls[0] if purls else "", place),
        ref=_text(item.get("SPDXID", ""), f"{place}.SPDXID"),
        hashes=tuple(sorted(_hashes(item.get("checksums", []), place, "algorithm", "checksumValue"))),
        licences=() if licence in {"", "NOASSERTION", "NONE"} else (licence,),
        supplier=_text(item.get("supplier", ""), f"{place}.supplier").replace("NOASSERTION", ""),
        description=_text(item.get("description", ""), f"{place}.description"),
    )


def _hashes(items: Any, place: str, algorithm: str, value: str) -> Iterator[str]:
    for at, item in enumerate(_listed(items, f"{place}.hashes")):
        each = _mapping(item, f"{place}.hashes[{at}]")
        yield f"{_needed(each, algorithm, place)}:{_needed(each, value, place)}".lower()


def _purl(value: Any, place: str) -> str:
    text = _text(value, f"{place}.purl")
    if not text:
        return ""
    try:
        return PackageURL.from_string(text).to_string()
    except ValueError as error:
        raise InputError(f"{place}.purl is no package URL: {error}") from error


def _needed(item: Mapping[str, Any], field: str, place: str) -> str:
    text = _text(item.get(field, ""), f"{place}.{field}")
    if not text:
        raise InputError(f"{place} has no {field}")
    return text


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{place} is no text")
    if len(value) > LONGEST:
        return value[:LONGEST]
    return value


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{place} is no object")
    return value


def _listed(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{place} is no list")
    return value

"""OpenVEX: what was said about whether a vulnerability matters here, read and written.

Source: OpenVEX specification 0.2.0. A statement counts for a product when it names the package (by
package URL, with or without version) or one of its names for the vulnerability.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from packageurl import PackageURL

from bartizan.core.digest import canonical_json, digest_json
from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.vulnerabilities.advisories import moment_of
from bartizan.lifecycle.develop.vulnerabilities.matching import Vulnerability

CONTEXT = "https://openvex.dev/ns/v0.2.0"
MAX_BYTES = 16 << 20
Status = Literal["not_affected", "affected", "fixed", "under_investigation"]
SETTLED: frozenset[Status] = frozenset({"not_affected", "fixed"})
"""Statuses after which a vulnerability no longer counts."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_JUSTIFICATIONS = frozenset(
    {
        "component_not_present",
        "vulnerable_code_not_present",
        "vulnerable_code_not_in_execute_path",
        "vulnerable_code_cannot_be_controlled_by_adversary",
        "inline_mitigations_already_exist",
    }
)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One status about one vulnerability of one product."""

    vulnerability: str
    names: frozenset[str]
    product: str
    """Package URL; empty for any product."""
    status: Status
    why: str
    said_at: datetime
    """Of the statement, else of its document; the latest counts."""


def read_vex(data: bytes, name: str) -> list[Said]:
    """The statements of a document.

    Raises:
        InputError: it is no OpenVEX document, or a statement says too little to be relied on.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        document = msgspec.json.decode(data)
        if not str(document["@context"]).startswith("https://openvex.dev/ns"):
            raise InputError(f"{name} is no OpenVEX document", remedy="give an OpenVEX JSON document.")
        at = moment_of(str(document.get("last_updated") or document.get("timestamp") or "")) or _LONG_AGO
        return [said for each in document["statements"] for said in _statements(each, name, at)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name} is no OpenVEX document: {error}", remedy="give an OpenVEX JSON document.") from error


def _statements(each: dict[str, Any], name: str, inherited: datetime) -> Iterable[Said]:
    about = each["vulnerability"]
    identity = str(about["name"] if isinstance(about, dict) else about)
    aliases = about.get("aliases", []) if isinstance(about, dict) else []
    status = each["status"]
    if status not in {*SETTLED, "affected", "under_investigation"}:
        raise InputError(f"{name}: {status!r} is no status of OpenVEX")
    why = str(each.get("justification", "") or each.get("impact_statement", ""))
    if status == "not_affected" and not why:
        raise InputError(
            f"{name}: not_affected by {identity} without a justification",
            remedy="add justification or impact_statement, as the specification demands.",
        )
    said_at = moment_of(str(each.get("timestamp", ""))) or inherited
    for product in _products(each, name):
        yield Said(
            vulnerability=identity,
            names=frozenset({identity, *map(str, aliases)}),
            product=product,
            status=status,
            why=why,
            said_at=said_at,
        )


def _products(each: Mapping[str, Any], name: str) -> list[str]:
    """Package URLs of the products that a statement names; without any it is about every product.

    Raises:
        InputError: a product has no name, or the list is there and empty: that is not every product.
    """
    if each.get("products") is None:
        return [""]
    found = [
        str(product.get("@id") or product.get("identifiers", {}).get("purl") or "") for product in each["products"]
    ]
    if not found or not all(found):
        raise InputError(f"{name}: a statement names no product", remedy="give products an @id with a package URL.")
    return found


def status_of(vulnerability: Vulnerability, said: Sequence[Said]) -> Said | None:
    """The latest thing that was said about a vulnerability of a package.

    Advisories may join several CVEs under one roof; what settles one of them does not settle the others.
    """
    purl = purl_of(vulnerability)
    products = {"", purl, purl.partition("@")[0]}
    several = [{name} for name in vulnerability.names if name.startswith("CVE-")]
    groups = several if len(several) > 1 else [set(vulnerability.names)]
    latest = [_latest([each for each in said if each.names & group and each.product in products]) for group in groups]
    return next((each for each in latest if each is None or each.status not in SETTLED), latest[0])


def _latest(said: Sequence[Said]) -> Said | None:
    """By time; of the same time the one that stands last."""
    return max(enumerate(said), key=lambda each: (each[1].said_at, each[0]))[1] if said else None


def purl_of(vulnerability: Vulnerability) -> str:
    """Package URL of the package that has it."""
    item = vulnerability.item
    return PackageURL(item.ecosystem.lower(), name=item.name, version=item.version).to_string()


def write_vex(found: Iterable[Vulnerability], said: Sequence[Said], *, author: str, now: datetime) -> bytes:
    """A document that says of every vulnerability what is known: what was said before, else under investigation."""
    statements = []
    for each in found:
        known = status_of(each, said)
        statement: dict[str, Any] = {
            "vulnerability": {"name": each.id, "aliases": [name for name in each.names if name != each.id]},
            "products": [{"@id": purl_of(each)}],
            "status": known.status if known else "under_investigation",
        }
        if known and known.why:
            field = "justification" if known.why in _JUSTIFICATIONS else "impact_statement"
            statement[field] = known.why
        if known and known.status == "affected":
            statement["action_statement"] = f"upgrade to {each.fixed[0]}" if each.fixed else "replace it"
        statements.append(statement)
    document = {
        "@context": CONTEXT,
        "@id": f"urn:bartizan:vex:{digest_json(statements)[:32]}",
        "author": author,
        "timestamp": now.isoformat(),
        "version": 1,
        "statements": statements,
    }
    return msgspec.json.format(canonical_json(document), indent=2) + b"\n"

"""Packages that are installed beside this program, or in another environment's folder. Nothing is imported."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Mapping
from email.errors import MessageError
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import cast

import msgspec
from packageurl import PackageURL
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from bartizan.core.digest import Digest, digest_bytes, digest_json

COMMON_LICENCES = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "mit license": "MIT",
    "psf license": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "isc license (iscl)": "ISC",
}
"""What packages write where they mean an SPDX id."""
_LONGEST_LICENCE = 120


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One installed distribution."""

    name: str
    """Canonical: lower case, dashes."""
    version: str
    licence: str = ""
    """SPDX expression where it can be told, else what the package says in one line."""
    is_spdx: bool = False
    summary: str = ""
    supplier: str = ""
    requires: tuple[str, ...] = ()
    """Canonical names of what it needs here, extras left out."""
    record: str = ""
    """SHA-256 of its RECORD, which lists the digests of its files."""

    @property
    def purl(self) -> str:
        """Its package URL."""
        return PackageURL("pypi", name=self.name, version=self.version).to_string()


def read_installed(folders: Iterable[str] | None = None) -> dict[str, Package]:
    """Installed packages by canonical name: those of this process, or those found in ``folders``."""
    found: dict[str, Package] = {}
    for each in metadata.distributions(path=sys.path if folders is None else list(folders)):
        package = _package(each)
        if package is not None:
            found.setdefault(package.name, package)
    return dict(sorted(found.items()))


@functools.cache
def here() -> Mapping[str, Package]:
    """Packages of this process."""
    return read_installed()


@functools.cache
def environment_digest() -> Digest:
    """Digest of names and versions of the packages of this process, told from the names of their folders."""
    names = {
        path.name.removesuffix(".dist-info")
        for folder in sys.path
        if folder and Path(folder).is_dir()
        for path in Path(folder).glob("*.dist-info")
    }
    return digest_json([sys.version_info[:3], sorted(names)])


def _package(found: metadata.Distribution) -> Package | None:
    """What one distribution says of itself; None when its metadata cannot be read."""
    try:
        about = cast("Message", found.metadata)
        name, version = about["Name"], found.version
        record = found.read_text("RECORD")
        requires = found.requires or []
    except (OSError, ValueError, KeyError, MessageError):
        return None
    if not name or not version:
        return None
    licence, is_spdx = _licence(about)
    return Package(
        name=canonicalize_name(name),
        version=version,
        licence=licence,
        is_spdx=is_spdx,
        summary=(about.get("Summary") or "")[:300],
        supplier=(about.get("Author") or about.get("Maintainer") or about.get("Author-email") or "")[:200],
        requires=tuple(sorted({needed for text in requires if (needed := _needed(text))})),
        record=digest_bytes(record.encode()) if record else "",
    )


def _needed(text: str) -> str:
    """Name of a requirement that applies here; empty when it belongs to an extra or another platform."""
    try:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
        return ""
    return canonicalize_name(requirement.name) if applies else ""


def _licence(about: Message) -> tuple[str, bool]:
    classifiers = [
        text.rpartition("::")[2].strip() for text in about.get_all("Classifier") or [] if "License ::" in text
    ]
    told = (about.get("License") or "").strip()
    for text in (about.get("License-Expression") or "", told, *classifiers):
        known = COMMON_LICENCES.get(text.lower(), text)
        try:
            return canonicalize_license_expression(known), True
        except (InvalidLicenseExpression, ValueError):
            continue
    line = re.sub(r"\s+", " ", next((text for text in (told, *classifiers) if text), ""))
    return line[:_LONGEST_LICENCE], False


def closure(names: Iterable[str], packages: Mapping[str, Package]) -> set[str]:
    """The named packages and all that they need."""
    reached: set[str] = set()
    todo: list[str] = [canonicalize_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name not in reached and name in packages:
            reached.add(name)
            todo += packages[name].requires
    return reached

"""What is to be checked: pinned packages of lock files, installed packages, components of a bill."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping

import msgspec
import yaml
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement

from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.bom.installed import Package
from bartizan.lifecycle.develop.bom.reading import Bill

ECOSYSTEMS = {
    "pypi": "PyPI", "npm": "npm", "cargo": "crates.io", "golang": "Go", "maven": "Maven", "gem": "RubyGems",
    "nuget": "NuGet", "conda": "", "deb": "Debian", "apk": "Alpine", "rpm": "", "cran": "CRAN", "huggingface": "",
}  # fmt: skip
"""OSV ecosystem of each package URL type; empty where OSV has none."""
MAX_BYTES = 16 << 20
_CONTINUED = re.compile(r"\\\r?\n")
_NOT_PINNED = re.compile(r"(?:^|\s)-(?:r|c|e|-requirement|-constraint|-editable)\b")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One package of a certain version."""

    ecosystem: str
    name: str
    version: str
    source: str
    """Where it stands: a file, ``installed``, a bill."""

    @property
    def key(self) -> str:
        """For people."""
        return f"{self.name} {self.version}"


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Everything to be checked, and what could not be told."""

    items: tuple[Item, ...] = ()
    unclear: tuple[str, ...] = ()
    """Entries without a version or an ecosystem that can be looked up, with the reason."""


def join(inventories: Iterable[Inventory]) -> Inventory:
    """Several inventories as one; the same package from two places stands once."""
    items: dict[tuple[str, str, str], Item] = {}
    unclear: dict[str, None] = {}
    for each in inventories:
        for item in each.items:
            items.setdefault((item.ecosystem, item.name, item.version), item)
        unclear.update(dict.fromkeys(each.unclear))
    return Inventory(items=tuple(items[key] for key in sorted(items)), unclear=tuple(unclear))


def of_installed(packages: Mapping[str, Package]) -> Inventory:
    """Installed packages."""
    return Inventory(
        items=tuple(
            Item(ecosystem="PyPI", name=package.name, version=package.version, source="installed")
            for package in packages.values()
        )
    )


def of_bill(bill: Bill, source: str) -> Inventory:
    """Components of a bill that have a package URL with a version; models, data and services have none."""
    items, unclear = [], []
    for component in bill.components:
        if not component.purl:
            if component.type in {"library", "framework"}:
                unclear.append(f"{source}: {component.name} has no package URL")
            continue
        purl = PackageURL.from_string(component.purl)
        ecosystem = ECOSYSTEMS.get(purl.type, "")
        version = purl.version or component.version
        if not ecosystem:
            if component.type in {"library", "framework"}:
                unclear.append(f"{source}: no advisories are kept for {purl.type} packages ({component.name})")
        elif not version:
            unclear.append(f"{source}: {component.name} has no version")
        else:
            separator = ":" if purl.type == "maven" else "/"
            name = f"{purl.namespace}{separator}{purl.name}" if purl.namespace else purl.name
            items.append(Item(ecosystem=ecosystem, name=name, version=version, source=source))
    return Inventory(items=tuple(items), unclear=tuple(unclear))


def of_lock(data: bytes, name: str) -> Inventory:
    """The pins of a lock file, told by its name: requirements, poetry, uv, pdm, Pipenv, conda.

    Raises:
        InputError: it cannot be read, or holds no pin at all.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} has {len(data)} bytes; at most {MAX_BYTES} are read")
    read = next((reader for ending, reader in _READERS if name.endswith(ending)), _requirements)
    try:
        items, unclear = read(data.decode(), name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{name} cannot be read as a lock file: {error}", remedy="lock the project again.") from error
    if not items and not unclear:
        raise InputError(f"there is no package in {name}", remedy="give the lock file of the project.")
    return Inventory(items=tuple(items), unclear=tuple(unclear))


_Found = tuple[list[Item], list[str]]


def _requirements(text: str, source: str) -> _Found:
    items, unclear = [], []
    for raw in _CONTINUED.sub(" ", text).splitlines():
        line = raw.split(" #")[0].strip()
        if not line or line.startswith("#") or (line.startswith("-") and not _NOT_PINNED.search(line)):
            continue
        if _NOT_PINNED.search(line):
            unclear.append(f"{source}: {line[:80]} is not followed")
            continue
        try:
            wanted = Requirement(line.split(" --")[0].strip())
        except InvalidRequirement:
            unclear.append(f"{source}: {line[:80]} is no requirement")
            continue
        pins = [each.version for each in wanted.specifier if each.operator in {"==", "==="} and "*" not in each.version]
        if wanted.url or len(pins) != 1:
            unclear.append(f"{source}: {wanted.name} is not pinned to one version")
        else:
            items.append(_item(wanted.name, pins[0], source))
    return items, unclear


def _item(name: str, version: str, source: str) -> Item:
    return Item(ecosystem="PyPI", name=name, version=version, source=source)


def _toml_packages(text: str, source: str) -> _Found:
    """``[[package]]`` tables: poetry.lock, uv.lock, pdm.lock, and pylock.toml's ``[[packages]]``."""
    document = tomllib.loads(text)
    items, unclear = [], []
    for package in [*document.get("package", []), *document.get("packages", [])]:
        if "version" in package:
            items.append(_item(str(package["name"]), str(package["version"]), source))
        elif not package.get("source", {}).get("virtual"):
            unclear.append(f"{source}: {package['name']} has no version")
    return items, unclear


def _pipfile(text: str, source: str) -> _Found:
    document = json.loads(text)
    items, unclear = [], []
    for group in ("default", "develop"):
        for name, about in document.get(group, {}).items():
            version = str(about.get("version", ""))
            if version.startswith("=="):
                items.append(_item(name, version.removeprefix("=="), source))
            else:
                unclear.append(f"{source}: {name} is not pinned to one version")
    return items, unclear


def _conda(text: str, source: str) -> _Found:
    """The pip part of an environment; conda's own packages have no advisories under their names."""
    document = yaml.safe_load(text)
    items, unclear = [], []
    for entry in document.get("dependencies", []):
        if isinstance(entry, dict):
            found, open_ends = _requirements("\n".join(str(line) for line in entry.get("pip", [])), source)
            items += found
            unclear += open_ends
        else:
            unclear.append(f"{source}: no advisories are kept for conda packages ({str(entry)[:60]})")
    return items, unclear


_READERS: tuple[tuple[str, Callable[[str, str], _Found]], ...] = (
    ("poetry.lock", _toml_packages),
    ("uv.lock", _toml_packages),
    ("pdm.lock", _toml_packages),
    ("pylock.toml", _toml_packages),
    ("Pipfile.lock", _pipfile),
    (".yaml", _conda),
    (".yml", _conda),
)

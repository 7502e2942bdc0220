"""What is to be checked: pinned packages of lock files, installed packages, components of a bill."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping

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
DEEPEST = 16
_DISTRIBUTIONS = frozenset({"deb", "apk", "rpm"})
_NO_PACKAGES = frozenset({"machine-learning-model", "data", "service", "device", "cryptographic-asset"})
"""Types of components that advisories do not speak of."""
_HARMLESS = re.compile(
    r"(?:-i|-f|--(?:index-url|pypi-url|extra-index-url|find-links|no-index|no-binary|only-binary|prefer-binary|pre"
    r"|require-hashes|trusted-host|use-feature|hash))(?:[\s=]|\Z)"
)
"""Options of a requirements file that name no further package."""
_CONTINUED = re.compile(r"\\\r?\n")
_COMMENT = re.compile(r"(?m)^[ \t]*#.*$")
"""A line of its own; a backslash at its end continues nothing, so pip reads the next line."""
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
    """Components of a bill that have a package URL with a version; models, data and services have none.

    Where the URL and the component name different versions, both are looked up: one of them is not so.
    """
    items, unclear = [], []
    for component in bill.components:
        if not component.purl:
            if component.type not in _NO_PACKAGES:
                unclear.append(f"{source}: {component.name} has no package URL")
            continue
        purl = PackageURL.from_string(component.purl)
        ecosystem = _ecosystem_of(purl)
        versions = dict.fromkeys(each for each in (purl.version, component.version) if each)
        if not ecosystem:
            if component.type not in _NO_PACKAGES:
                unclear.append(f"{source}: no advisories are kept for {purl.type} packages ({component.name})")
        elif not versions:
            unclear.append(f"{source}: {component.name} has no version")
        name = _name_of(purl)
        items += [Item(ecosystem=ecosystem, name=name, version=each, source=source) for each in versions if ecosystem]
    return Inventory(items=tuple(items), unclear=tuple(unclear))


def _ecosystem_of(purl: PackageURL) -> str:
    """OSV's name; of ``pkg:deb/ubuntu/x`` it is Ubuntu, although the type is Debian's."""
    if purl.type == "deb" and purl.namespace:
        return {"debian": "Debian", "ubuntu": "Ubuntu"}.get(purl.namespace.lower(), "")
    return ECOSYSTEMS.get(purl.type, "")


def _name_of(purl: PackageURL) -> str:
    """A package's name as OSV has it: a distribution is no part of it."""
    if not purl.namespace or purl.type in _DISTRIBUTIONS:
        return str(purl.name)
    return f"{purl.namespace}{':' if purl.type == 'maven' else '/'}{purl.name}"


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


def logical_lines(text: str) -> Iterator[str]:
    """Lines of a requirements file as pip reads them: joined where a backslash ends them, without comments."""
    for raw in _CONTINUED.sub(" ", _COMMENT.sub("", text)).splitlines():
        line = raw.split(" #")[0].strip()
        if line and not line.startswith("#"):
            yield line


def _requirements(text: str, source: str) -> _Found:
    items, unclear = [], []
    for line in logical_lines(text):
        if _HARMLESS.match(line) and not _NOT_PINNED.search(line):
            continue
        if line.startswith("-") or _NOT_PINNED.search(line):
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
    _check_shape(text)
    # Builds strings, lists and dicts only.
    document = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 -- see above
    items, unclear = [], []
    for entry in document.get("dependencies", []):
        if isinstance(entry, dict):
            found, open_ends = _requirements("\n".join(str(line) for line in entry.get("pip", [])), source)
            items += found
            unclear += open_ends
        else:
            unclear.append(f"{source}: no advisories are kept for conda packages ({str(entry)[:60]})")
    return items, unclear


def _check_shape(text: str) -> None:
    """Refuse what would exhaust time or memory once it is built: depth, and aliases that multiply."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it uses YAML aliases, or is nested more than {DEEPEST} deep")


_READERS: tuple[tuple[str, Callable[[str, str], _Found]], ...] = (
    ("poetry.lock", _toml_packages),
    ("uv.lock", _toml_packages),
    ("pdm.lock", _toml_packages),
    ("pylock.toml", _toml_packages),
    ("Pipfile.lock", _pipfile),
    (".yaml", _conda),
    (".yml", _conda),
)

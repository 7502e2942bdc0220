"""The allow-lists: which names the frameworks really write into pickles, and what they do with them.

One JSON file per framework in ``allow/``, made by recording what the framework emits (see
``tests/tools/derive_allow_lists.py``) and reviewed by hand. Under each module every name has its uses:
``call``, ``new``, ``build``, ``items`` (see ``values.Use``), none for a name that may only stand as
a value, ``args=RULE`` and ``state=RULE`` where arguments or states matter. A name is allowed only as
it is written there, dots included; whatever is not there is not allowed.
"""

from __future__ import annotations

import _compat_pickle
import functools
from importlib import resources

import msgspec

from bartizan.core.digest import Digest, digest_json
from bartizan.lifecycle.develop.scan.pickle.values import Entry, Use

SCHEMA = 1
TORCH_SCRIPT = "__torch__"
"""Package of all classes of TorchScript. Python has none of that name."""
FIX_IMPORTS_BELOW = 3
"""Protocols below this have their Python 2 names translated by the unpickler."""


class AllowList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of ``allow/``."""

    schema: int
    framework: str
    versions: dict[str, str]
    """Versions whose output was recorded, by package."""
    names: dict[str, dict[str, str]]
    """Module to name to uses."""


class Policy(msgspec.Struct, frozen=True):
    """All allow-lists together with what is known to be dangerous."""

    entries: dict[tuple[str, str], Entry]
    dangers: dict[str, str]
    """What a module, or one name of it, would do."""
    digest: Digest

    def entry(self, module: str, name: str) -> Entry | None:
        """What the lists say about a name; None when it is not allowed."""
        return self.entries.get((module, name))

    def danger(self, module: str, name: str) -> str:
        """What is known to happen when this name is used; empty when nothing is known."""
        parts = f"{module}.{name}".split(".")
        for end in range(len(parts), 0, -1):
            known = self.dangers.get(".".join(parts[:end]))
            if known is not None:  # a name that is harmless within a dangerous module stands there as ""
                return known
        return ""


def is_torch_script(module: str) -> bool:
    """Whether a module is one of TorchScript's, which only torch archives have."""
    return module == TORCH_SCRIPT or module.startswith(f"{TORCH_SCRIPT}.")


def translate(module: str, name: str, protocol: int) -> tuple[str, str]:
    """The name that the unpickler imports: below protocol 3 Python 2 names mean their successors."""
    if protocol >= FIX_IMPORTS_BELOW:
        return module, name
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[(module, name)]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def parse_uses(text: str) -> Entry:
    """Read the uses of one name.

    Raises:
        ValueError: an unknown word.
    """
    uses = Use.VALUE
    rules = {"args": "", "state": ""}
    for word in text.split():
        key, is_rule, value = word.partition("=")
        if is_rule:
            if key not in rules:
                raise ValueError(f"unknown use {word!r}")
            rules[key] = value
        else:
            uses |= Use[word.upper()]
    return Entry(uses, rules["args"], rules["state"])


@functools.cache
def load_policy() -> Policy:
    """The lists that ship with this version."""
    folder = resources.files(__package__) / "allow"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".json")), key=lambda item: item.name)
    lists = [msgspec.json.decode(item.read_bytes(), type=AllowList) for item in files]
    dangers = msgspec.json.decode((resources.files(__package__) / "dangers.json").read_bytes(), type=dict[str, str])
    entries = {
        (module, name): parse_uses(uses)
        for each in lists
        for module, names in each.names.items()
        for name, uses in names.items()
    }
    return Policy(
        entries=entries,
        dangers=dangers,
        digest=digest_json([[each.names for each in lists], dangers]),
    )

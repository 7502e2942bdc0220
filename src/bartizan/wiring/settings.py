"""One table of settings: it feeds environment, flags, documentation and tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bartizan.core.errors import InputError

STATE = ".bartizan"
DECLARATION = "bartizan.toml"


class Setting(msgspec.Struct, frozen=True):
    """One thing that can be set."""

    name: str
    default: str
    help: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"BARTIZAN_{self.name.upper()}"


SETTINGS = (
    Setting("records", f"{STATE}/ledger.db", "Ledger database: a path, or postgresql+psycopg://user@host/name."),
    Setting("blobs", f"{STATE}/blobs", "Reports and documents: a folder, or s3://bucket/prefix."),
    Setting("pin", f"{STATE}/pin.json", "What was last seen of ledger and trust. Keep it apart from the ledger."),
    Setting("keys", f"{STATE}/keys", "Folder of key files."),
    Setting("audit", f"{STATE}/audit.db", "Audit log of the gateway: a path, or postgresql+psycopg://user@host/name."),
    Setting(
        "apikeys", f"{STATE}/apikeys.db", "API keys of the gateway: a path, or postgresql+psycopg://user@host/name."
    ),
    Setting(
        "state", f"{STATE}/gateway.db", "What replicas of the gateway share: a path, memory://, valkeys://HOST:PORT."
    ),
    Setting("cases", f"{STATE}/cases.db", "Cases for review: a path, or postgresql+psycopg://user@host/name."),
    Setting("service", "service", "Name of the key that signs results, verdicts and checkpoints."),
    Setting("origin", "", "Name of the ledger in its checkpoints. Empty: bartizan.local/NAME-OF-FOLDER."),
    Setting("passphrase_file", "", "File whose first line unlocks key files; BARTIZAN_PASSPHRASE holds it directly."),
    Setting("journals", f"{STATE}/journals", "Folder in which attacks keep what they asked, to go on after a kill."),
    Setting("report", "bartizan-report", "Folder that reports are written into."),
    Setting("confinement", "limits", "Layers that must hold a process before it is given a model, by commas; or all."),
    Setting("workers", "0", "Processes that run checks; 0 takes one per core."),
)
"""Relative paths start from the folder of bartizan.toml."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings with their values, and the folder that they apply to."""

    folder: Path
    values: dict[str, str]

    @classmethod
    def read(cls, folder: Path, environment: Mapping[str, str] | None = None) -> Settings:
        """Take each setting from the environment, or its default."""
        environment = os.environ if environment is None else environment
        values = {setting.name: environment.get(setting.variable, setting.default) for setting in SETTINGS}
        return cls(folder=folder.resolve(), values=values)

    def path(self, name: str) -> Path:
        """A setting that is a path, made absolute."""
        return self.folder / self.values[name]

    def location(self, name: str) -> str:
        """A setting that is a URL or a path; a path is made absolute."""
        value = self.values[name]
        return value if "://" in value else str(self.folder / value)

    @property
    def origin(self) -> str:
        """Name of the ledger, one word."""
        chosen = self.values["origin"]
        word = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in self.folder.name)
        return chosen or f"bartizan.local/{word or 'ledger'}"

    @property
    def workers(self) -> int:
        """Number of worker processes.

        Raises:
            InputError: the setting is no number from 0 to 512.
        """
        text = self.values["workers"]
        if not text.isdecimal() or int(text) > 512:  # noqa: PLR2004 - more is a slip of the pen
            raise InputError(f"BARTIZAN_WORKERS is {text!r}", remedy="give a whole number from 0 to 512.")
        return int(text) or os.cpu_count() or 1

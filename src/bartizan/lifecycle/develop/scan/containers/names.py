"""Names inside archives: which of them lead out of the folder that an archive is unpacked into.

Sources: CWE-22 and CWE-59; CVE-2007-4559 (tarfile), CVE-2018-1002200 (zip), CVE-2025-4517 (links).
"""

from __future__ import annotations

import posixpath
import re

from bartizan.lifecycle.develop.scan.source import Draft

_DRIVE = re.compile(r"[A-Za-z]:")
DEEPEST = 256
"""Folders in a path from which on no reader is asked to follow it."""


def leads_out(name: str) -> bool:
    """Whether unpacking a member of this name writes outside the target folder, on any system."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or bool(_DRIVE.match(name)) or "\x00" in name


def link_leads_out(name: str, target: str) -> bool:
    """Whether a symbolic link called ``name`` points outside the target folder.

    Steps up may only stand first: behind another part, which may be a link itself, ``..`` leads anywhere.
    """
    parts = [part for part in target.replace("\\", "/").split("/") if part not in {"", "."}]
    if target.startswith(("/", "\\")) or _DRIVE.match(target) or "\x00" in target:
        return True
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    return ".." in parts[ups:] or ups > len(folders(name))


def folders(name: str) -> list[str]:
    """The folders that a member lies in, outermost first, as whole paths."""
    parts = posixpath.normpath(name.replace("\\", "/")).split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(min(len(parts), DEEPEST))]


class Names:
    """The names of one archive, judged one after the other."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.files: set[str] = set()
        self.links: set[str] = set()

    def take(self, name: str, offset: int | None = None, *, is_folder: bool = False) -> None:
        """Judge the name of a member."""
        shown = repr(name[:120])
        if leads_out(name):
            self.draft.fire("archive/traversal", shown, offset)
        plain = posixpath.normpath(name.replace("\\", "/"))
        if self.links and any(folder in self.links for folder in folders(name)):
            self.draft.fire("archive/traversal", f"{shown} is written through a link", offset)
        if is_folder:
            return
        if plain in self.files:
            self.draft.fire("archive/duplicate-name", shown, offset)
        self.files.add(plain)

    def take_link(self, name: str, target: str, offset: int | None = None, *, is_hard: bool = False) -> None:
        """Judge a link and note it: what lies below it later is written elsewhere."""
        self.take(name, offset)
        leaves = leads_out(target) if is_hard else link_leads_out(name, target)
        if leaves:
            self.draft.fire("archive/link", f"{name[:120]!r} -> {target[:120]!r}", offset)
        self.links.add(posixpath.normpath(name.replace("\\", "/")))

"""What a run happens in: its interpreter with the installed packages, the code's commit, the container."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.digest import canonical_json
from bartizan.core.errors import WorkError

PATIENCE_SECONDS = 60
MAX_ANSWER_BYTES = 16 * 1024 * 1024
HEAD_BYTES = 512

_PYTHON = re.compile(r"python[0-9.]*\Z")
_CONTAINER = re.compile(r"(?:docker|containers|containerd|crio|libpod|overlay-containers)[-/]([0-9a-f]{64})")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PROBE = """
import hashlib, json, platform, sys
from importlib import metadata
found = []
for item in metadata.distributions():
    record = item.read_text("RECORD") or item.read_text("METADATA") or item.read_text("PKG-INFO") or ""
    digest = hashlib.sha256(record.encode("utf-8", "replace")).hexdigest()
    found.append([str(item.metadata["Name"]), str(item.version), digest])
print(json.dumps({
    "version": platform.python_version(), "implementation": platform.python_implementation(),
    "prefix": sys.prefix, "base_prefix": sys.base_prefix, "packages": sorted(found)}))
"""
"""Asked of the interpreter that a command uses; it may be another one than ours."""


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A Python and what is installed for it."""

    version: str
    implementation: str
    prefix: str
    base_prefix: str
    packages: tuple[tuple[str, str, str], ...]
    """Name, version and SHA-256 of the list of installed files, which itself names every file's digest."""

    def package_list(self) -> bytes:
        """The packages as canonical JSON: its digest names what was installed."""
        return canonical_json([{"name": n, "version": v, "record": r} for n, v, r in self.packages])

    def library_paths(self) -> list[Path]:
        """Where it and its packages lie. Parts of the prefixes only: a prefix may hold a whole project."""
        parts = ("bin", "lib", "lib64", "share", "etc", "pyvenv.cfg")
        places = [Path(prefix) / part for prefix in dict.fromkeys((self.prefix, self.base_prefix)) for part in parts]
        return [place for place in places if place.exists()]


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the code."""

    revision: str
    dirty: bool
    """Whether files differ from the commit, or are not part of it."""
    remote: str = ""
    """Where it is kept, without any password."""


def find_program(name: str, folder: Path) -> Path:
    """The program that a command starts.

    Raises:
        WorkError: there is none of that name.
    """
    found = shutil.which(name if os.sep not in name else str(folder / name))
    if found is None:
        raise WorkError(f"there is no program {name!r}", remedy="give a command: record ... -- python x.py")
    return Path(found)


def interpreter_of(program: Path) -> Interpreter | None:
    """What Python a program runs on; None when it is no Python and does not begin with the name of one.

    Raises:
        WorkError: the interpreter does not answer.
    """
    python = program if _PYTHON.match(program.name) else _from_first_line(program)
    if python is None:
        return None
    answer = _ask([str(python), "-c", _PROBE], Path("/"))
    try:
        return msgspec.json.decode(answer or b"", type=Interpreter)
    except msgspec.DecodeError as error:
        raise WorkError(f"{python} does not say what is installed: {error}", remedy="does it start at all?") from error


def _from_first_line(program: Path) -> Path | None:
    """The interpreter that a script names after ``#!``, if that is a Python."""
    try:
        with program.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return None
    words = head.split(b"\n", 1)[0].decode(errors="replace").removeprefix("#!").split() if head[:2] == b"#!" else []
    named = next((word for word in words if _PYTHON.match(word.rpartition("/")[2])), None)
    found = shutil.which(named) if named else None
    return Path(found) if found else None


def commit_of(folder: Path) -> Commit | None:
    """The git commit that ``folder`` is checked out from; None outside of a repository or without git."""
    git = shutil.which("git")
    if git is None:
        return None
    # Neither a hook nor a monitor that the repository names may run.
    quiet = [git, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder)]
    revision = (_ask([*quiet, "rev-parse", "--verify", "HEAD"], folder) or b"").decode(errors="replace").strip()
    changes = _ask([*quiet, "status", "--porcelain"], folder)
    if not _COMMIT.match(revision) or changes is None:
        return None
    remote = (_ask([*quiet, "config", "--get", "remote.origin.url"], folder) or b"").decode(errors="replace").strip()
    return Commit(revision=revision, dirty=bool(changes.strip()), remote=_without_password(remote))


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def platform_facts() -> dict[str, Any]:
    """System, machine and, where it can be seen, the container."""
    facts = {"system": platform.system(), "release": platform.release(), "machine": platform.machine()}
    container = _container()
    return {**facts, "container": container} if container else facts


def _container() -> str:
    """Identity of the container around us, as mounts and control groups tell it; empty when they do not."""
    for name in ("/proc/self/cgroup", "/proc/self/mountinfo"):
        try:
            text = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if found := _CONTAINER.search(text):
            return found[1]
    return ""


def _ask(command: Sequence[str], folder: Path) -> bytes | None:
    """Standard output of a short command; None when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - a program that was found by its whole path, and no shell
            command, cwd=folder, capture_output=True, check=False, timeout=PATIENCE_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and len(done.stdout) <= MAX_ANSWER_BYTES else None

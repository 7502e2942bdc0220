"""Which files a confined process may read: Python's own, through Landlock. None may be written.

Landlock (https://docs.kernel.org/userspace-api/landlock.html) needs no privilege and cannot be left again. From
version 4 of its interface on it also refuses TCP, from version 6 on signals to processes outside and their abstract
Unix sockets. It does not hide whether a file exists, nor its size and times.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""System call numbers; the same on every architecture."""
_ASK_VERSION = 1
_PATH_BENEATH = 1
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
TCP_SINCE, SCOPES_SINCE = 4, 6
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of rights over files that a version knows of; since version 5 it is 16."""
_LATEST_RIGHTS = 16
_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store")
_FACTS = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/dev/random",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
)
"""What numerical libraries ask about the machine and about their own process. None of it is anybody's secret:
what links in ``/proc/self`` lead to is judged where it lies."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("path", ctypes.c_int32))


def version(library: ctypes.CDLL) -> int:
    """Version of Landlock's interface that the kernel offers; 0 where there is none."""
    return max(_call(library, _CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)), 0)


def readable_paths() -> list[Path]:
    """The Python installation, the libraries of the system, and harmless facts about the machine."""
    found = dict.fromkeys(path for path in _candidates() if path.is_absolute() and path.exists())
    return [path for path in found if not _is_too_much(path)]


def _candidates() -> Iterator[Path]:
    yield from (Path(entry) for entry in sys.path if entry)
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name))
    yield from (Path(prefix) / "lib" for prefix in (sys.prefix, sys.base_prefix))
    yield from (Path(path) for path in (*_LIBRARIES, *_FACTS))


def _is_too_much(path: Path) -> bool:
    """Whether more than an installation would be opened: the root, or a home folder or one that holds it."""
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 - Path.home() raises where there is none
    real = path.resolve()
    return real == Path("/") or home.is_relative_to(real)


def restrict(library: ctypes.CDLL, offered: int, paths: list[Path]) -> str:
    """Give up every right over files but reading below ``paths``. Gives what stands against it, or nothing.

    The caller has to have set no-new-privileges, and to be the only thread.
    """
    rules = _Ruleset(
        (1 << _RIGHTS.get(offered, _LATEST_RIGHTS)) - 1,
        _BIND_AND_CONNECT if offered >= TCP_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if offered >= SCOPES_SINCE else 0,
    )
    size = ctypes.sizeof(ctypes.c_uint64) * (1 + (offered >= TCP_SINCE) + (offered >= SCOPES_SINCE))
    ruleset = _call(library, _CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return _fault("makes no set of rules")
    try:
        for path in paths:
            if fault := _allow(library, ruleset, path):
                return fault
        done = _call(library, _RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        return _fault("does not apply the rules") if done else ""
    finally:
        os.close(ruleset)


def _allow(library: ctypes.CDLL, ruleset: int, path: Path) -> str:
    """Let files below a path be read. A path that cannot be opened is left out: it stays closed."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        rights = READ_FILE | READ_FOLDER if path.is_dir() else READ_FILE
        rule = _Beneath(rights, descriptor)
        done = _call(
            library,
            _ADD,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
        return _fault(f"takes no rule for {path}") if done else ""
    finally:
        os.close(descriptor)


def _fault(what: str) -> str:
    return f"Landlock {what}: {os.strerror(ctypes.get_errno())}"


def _call(library: ctypes.CDLL, number: int, *arguments: object) -> int:
    return int(library.syscall(ctypes.c_long(number), *arguments))

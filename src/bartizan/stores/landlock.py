"""Landlock: let a command read only the files that were named for it.

Landlock is a security module of the Linux kernel that needs no privilege
(https://docs.kernel.org/userspace-api/landlock.html). A process gives up the right to open files for
reading, except below some paths; the kernel holds it and all its children to that. From ABI 4 on the
right to open TCP connections is given up as well, because data also come over the network.

What it does not cover: UDP, Unix sockets that lie in the filesystem, descriptors that are open already.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bartizan.core.errors import SandboxError

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System call numbers; the same on every architecture."""
ASK_VERSION = 1
PATH_BENEATH = 1
READ_FILE = 1 << 2
CONNECT_TCP = 1 << 1
NETWORK_ABI = 4
"""First version that knows of TCP."""
SET_NO_NEW_PRIVILEGES = 38

_REMEDY = "run it on Linux 5.13 or later with Landlock switched on, or leave --strict out."


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def abi() -> int:
    """Version of Landlock that the kernel offers; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(_call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(ASK_VERSION)), 0)


class Confinement:
    """A set of readable paths, to be put into force in a child process. Close it after use.

    Raises:
        SandboxError: the kernel offers no Landlock, or a path cannot be opened.
    """

    def __init__(self, readable: Iterable[Path]) -> None:
        self.abi = abi()
        if self.abi < 1:
            raise SandboxError("this system cannot hold a command to its declared files", remedy=_REMEDY)
        network = CONNECT_TCP if self.abi >= NETWORK_ABI else 0
        size = ctypes.sizeof(_Ruleset) if network else ctypes.sizeof(ctypes.c_uint64)
        rules = _Ruleset(READ_FILE, network)
        self._descriptor = _call(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
        if self._descriptor < 0:
            raise _failed("the ruleset")
        try:
            for path in readable:
                self._allow(path)
        except BaseException:
            self.close()
            raise

    @property
    def network(self) -> bool:
        """Whether TCP connections are refused too."""
        return self.abi >= NETWORK_ABI

    def _allow(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxError(
                f"{path} cannot be opened: {error.strerror}", remedy="name files and folders that exist."
            ) from error
        try:
            rule = _Beneath(READ_FILE, descriptor)
            done = _call(
                ADD_RULE,
                ctypes.c_int(self._descriptor),
                ctypes.c_int(PATH_BENEATH),
                ctypes.byref(rule),
                ctypes.c_uint32(0),
            )
            if done != 0:
                raise _failed(str(path))
        finally:
            os.close(descriptor)

    def entry(self) -> Callable[[], None]:
        """What a child process calls before it becomes the command; raises OSError when it cannot be held."""
        library, descriptor = _library(), self._descriptor

        def enter() -> None:
            if library.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "no-new-privileges was refused")
            if library.syscall(RESTRICT_SELF, descriptor, 0) != 0:
                raise OSError(ctypes.get_errno(), "landlock_restrict_self was refused")

        return enter

    def close(self) -> None:
        """Let go of the ruleset."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def system_paths() -> list[Path]:
    """What every program needs: libraries, configuration of the system, harmless devices. No shared memory."""
    places = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/nix/store", "/dev/pts")
    return [*filter(Path.exists, map(Path, places)), *_devices()]


def _devices() -> list[Path]:
    """Character devices, such as ``/dev/urandom`` and those of accelerators."""
    try:
        found = [Path(entry.path) for entry in os.scandir("/dev")]
    except OSError:
        return []
    return sorted(path for path in found if _is_character_device(path))


def _is_character_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.lstat().st_mode)
    except OSError:
        return False


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    return int(_library().syscall(ctypes.c_long(number), *arguments))


def _failed(what: str) -> SandboxError:
    code = ctypes.get_errno()
    known = {errno.ENOSYS: "the kernel has none", errno.EOPNOTSUPP: "it is switched off"}
    return SandboxError(f"Landlock refused {what}: {known.get(code) or os.strerror(code)}", remedy=_REMEDY)

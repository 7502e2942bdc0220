"""Confinement: what a process gives up before it touches a model, one independent layer over the other.

A process calls ``confine`` on itself, once, when what it needs has been imported and before it is handed a byte
of a model. Each layer is put into force on its own, tried out, and reported; none can be left again. What a
platform does not offer is said, never passed over: whoever starts the process decides what is required.

==============  =====================================================  ===========================================
layer           what it takes away                                     by
==============  =====================================================  ===========================================
limits          memory, processor time, file size, core files          ``setrlimit``
privileges      gaining rights through a program with more             ``PR_SET_NO_NEW_PRIVS``
capabilities    every capability that the process was started with     ``capset``
network         every network interface, also the loopback             a network namespace of its own
files           every file but Python's own; writing altogether        Landlock (``file_access``)
tcp             binding and connecting TCP sockets                     Landlock, version 4
signals         signals and abstract sockets of processes outside      Landlock, version 6
calls           processes, programs, sockets, tracing, kernel doors    a seccomp filter (``system_calls``)
==============  =====================================================  ===========================================

On macOS and other systems without these there are the limits only, and that is what is reported.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bartizan.targets import file_access, system_calls

LAYERS = ("limits", "privileges", "capabilities", "network", "files", "tcp", "signals", "calls")
MAX_DESCRIPTORS = 64
NOT_LINUX = "only Linux offers it"

_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES, _GET_NO_NEW_PRIVILEGES = 1, 38, 39
_GET_SECCOMP, _FILTERED = 21, 2
_NEW_USER, _NEW_NETWORK, _NEW_IPC, _NEW_HOST_NAME = 0x10000000, 0x40000000, 0x08000000, 0x04000000
_CAPABILITY_VERSION = 0x20080522
_WORDS_OF_CAPABILITIES = 6

State = dict[str, str]
"""Layer to why it is not in force; empty when it is."""


def confine(memory_bytes: int, cpu_seconds: int) -> State:
    """Give up everything that this platform lets a process give up, and say what that was.

    Raises:
        OSError, ValueError: not even the limits can be set; whoever calls must not go on.
    """
    set_limits(memory_bytes, cpu_seconds)
    state = dict.fromkeys(LAYERS, NOT_LINUX) | {"limits": ""}
    return state | _confine_on_linux() if sys.platform.startswith("linux") else state


def set_limits(memory_bytes: int, cpu_seconds: int) -> None:
    """Set the limits of this process, for good.

    One second of processor time lies between the signal and the end, so that whoever watches can tell why it came.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _confine_on_linux() -> State:
    """The layers, in the order in which the kernel lets them follow one another."""
    library = ctypes.CDLL(None, use_errno=True)
    paths = file_access.readable_paths()
    state = {
        "network": _leave_network(library),
        "capabilities": _drop_capabilities(library),
        "privileges": _refuse_privileges(library),
    }
    library.prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    state |= _restrict_files(library, paths)
    state["calls"] = system_calls.install(library) or _tried(library, _no_call_is_filtered)
    return state


def _leave_network(library: ctypes.CDLL) -> str:
    """Enter namespaces of our own. Without privileges that takes a user namespace, which a system may forbid."""
    spaces = _NEW_NETWORK | _NEW_IPC | _NEW_HOST_NAME
    if library.unshare(_NEW_USER | spaces) == 0 or library.unshare(spaces) == 0:
        return ""
    return f"the kernel gives no namespace of its own: {os.strerror(ctypes.get_errno())}"


def _drop_capabilities(library: ctypes.CDLL) -> str:
    if others := _other_threads():
        return others
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * _WORDS_OF_CAPABILITIES)()
    if library.capset(head, none) != 0:
        return f"capset: {os.strerror(ctypes.get_errno())}"
    held = (ctypes.c_uint32 * _WORDS_OF_CAPABILITIES)()
    return "some are held still" if library.capget(head, held) != 0 or any(held) else ""


def _refuse_privileges(library: ctypes.CDLL) -> str:
    library.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return "" if library.prctl(_GET_NO_NEW_PRIVILEGES, 0, 0, 0, 0) == 1 else "the kernel does not know of it"


def _restrict_files(library: ctypes.CDLL, paths: list[Path]) -> State:
    """Landlock's three layers. It binds the calling thread only, so there must be no other."""
    offered = file_access.version(library)
    fault = _other_threads() or ("" if offered else "the kernel offers no Landlock")
    fault = fault or file_access.restrict(library, offered, paths) or _tried(library, _root_is_listed)
    old = f"version {offered} of Landlock has no such rule"
    return {
        "files": fault,
        "tcp": fault or ("" if offered >= file_access.TCP_SINCE else old),
        "signals": fault or ("" if offered >= file_access.SCOPES_SINCE else old),
    }


def _other_threads() -> str:
    """Why a layer that binds one thread would not bind this process; empty when there is one only."""
    try:
        count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are enough
    except OSError:
        return "the threads of the process cannot be counted"
    return "" if count == 1 else f"{count} threads run already"


def _tried(library: ctypes.CDLL, is_open: Callable[[ctypes.CDLL], bool]) -> str:
    return "it was put into force and does not hold" if is_open(library) else ""


def _root_is_listed(_: ctypes.CDLL) -> bool:
    try:
        os.listdir("/")  # noqa: PTH208 - names are enough
    except PermissionError:
        return False
    return True


def _no_call_is_filtered(library: ctypes.CDLL) -> bool:
    """Whether the kernel says that there is no filter, or a call that it must refuse is not refused."""
    filtered = library.prctl(_GET_SECCOMP, 0, 0, 0, 0) == _FILTERED
    return not filtered or library.setpriority(0, 0, 0) == 0

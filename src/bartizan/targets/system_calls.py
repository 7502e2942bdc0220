"""Which system calls a confined process may make: a seccomp filter, written by hand.

The filter is a list of what is allowed, so whatever is not named is refused, also calls that later kernels
add. Refused calls fail with ENOSYS where programs are used to a kernel without them (everything from number
424 on, and the x32 variants), so that they fall back, else with EPERM. A call of another architecture ends the process.

Some calls are allowed for some arguments only: files are opened for reading alone, ``clone`` makes threads but no
processes, signals go to the process itself. A filter sees numbers and never what a pointer leads to, so *which*
files are opened is not decided here but by Landlock.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html; the numbers are those of the kernel's
``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h`` (used by aarch64).
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from typing import NamedTuple

X86_64 = {
    "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "preadv": 295, "close": 3, "fstat": 5,
    "newfstatat": 262, "statx": 332, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25,
    "madvise": 28, "msync": 26, "mincore": 27, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "rt_sigpending": 127, "rt_sigsuspend": 130, "rt_sigtimedwait": 128, "sigaltstack": 131, "faccessat": 269,
    "faccessat2": 439, "readlinkat": 267, "getdents64": 217, "getcwd": 79, "chdir": 80, "fchdir": 81, "statfs": 137,
    "fstatfs": 138, "umask": 95, "fadvise64": 221, "flock": 73, "futex": 202, "futex_waitv": 449, "sched_yield": 24,
    "sched_getaffinity": 204, "sched_getparam": 143, "sched_getscheduler": 145, "sched_get_priority_max": 146,
    "sched_get_priority_min": 147, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "nanosleep": 35,
    "gettimeofday": 96, "times": 100, "getrusage": 98, "getitimer": 36, "setitimer": 38, "getpid": 39, "getppid": 110,
    "gettid": 186, "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108, "getresuid": 118, "getresgid": 120,
    "getgroups": 115, "getpgid": 121, "getsid": 124, "getpriority": 140, "uname": 63, "sysinfo": 99, "getrandom": 318,
    "getcpu": 309, "exit": 60, "exit_group": 231, "wait4": 61, "waitid": 247, "set_robust_list": 273,
    "get_robust_list": 274, "set_tid_address": 218, "rseq": 334, "restart_syscall": 219, "membarrier": 324,
    "get_mempolicy": 239, "ppoll": 271, "pselect6": 270, "epoll_create1": 291, "epoll_ctl": 233, "epoll_pwait": 281,
    "recvfrom": 45, "shutdown": 48, "getsockopt": 55, "getsockname": 51, "getpeername": 52, "dup": 32, "dup3": 292,
    "pipe2": 293, "eventfd2": 290, "capget": 125, "openat": 257, "clone": 56, "ioctl": 16, "fcntl": 72,
    "prlimit64": 302, "tgkill": 234, "kill": 62, "sched_setaffinity": 203, "prctl": 157, "sendto": 44,
    "getrlimit": 97, "open": 2, "stat": 4, "lstat": 6, "access": 21, "readlink": 89, "poll": 7, "select": 23,
    "epoll_create": 213, "epoll_wait": 232, "dup2": 33, "pipe": 22, "eventfd": 284, "getdents": 78, "getpgrp": 111,
    "alarm": 37, "pause": 34, "time": 201, "arch_prctl": 158,
}  # fmt: skip
"""Allowed calls and their numbers on x86_64."""
AARCH64 = {
    "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "preadv": 69, "close": 57, "fstat": 80,
    "newfstatat": 79, "statx": 291, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214,
    "mremap": 216, "madvise": 233, "msync": 227, "mincore": 232, "rt_sigaction": 134, "rt_sigprocmask": 135,
    "rt_sigreturn": 139, "rt_sigpending": 136, "rt_sigsuspend": 133, "rt_sigtimedwait": 137, "sigaltstack": 132,
    "faccessat": 48, "faccessat2": 439, "readlinkat": 78, "getdents64": 61, "getcwd": 17, "chdir": 49, "fchdir": 50,
    "statfs": 43, "fstatfs": 44, "umask": 166, "fadvise64": 223, "flock": 32, "futex": 98, "futex_waitv": 449,
    "sched_yield": 124, "sched_getaffinity": 123, "sched_getparam": 121, "sched_getscheduler": 120,
    "sched_get_priority_max": 125, "sched_get_priority_min": 126, "clock_gettime": 113, "clock_getres": 114,
    "clock_nanosleep": 115, "nanosleep": 101, "gettimeofday": 169, "times": 153, "getrusage": 165, "getitimer": 102,
    "setitimer": 103, "getpid": 172, "getppid": 173, "gettid": 178, "getuid": 174, "geteuid": 175, "getgid": 176,
    "getegid": 177, "getresuid": 148, "getresgid": 150, "getgroups": 158, "getpgid": 155, "getsid": 156,
    "getpriority": 141, "uname": 160, "sysinfo": 179, "getrandom": 278, "getcpu": 168, "exit": 93, "exit_group": 94,
    "wait4": 260, "waitid": 95, "set_robust_list": 99, "get_robust_list": 100, "set_tid_address": 96, "rseq": 293,
    "restart_syscall": 128, "membarrier": 283, "get_mempolicy": 236, "ppoll": 73, "pselect6": 72, "epoll_create1": 20,
    "epoll_ctl": 21, "epoll_pwait": 22, "recvfrom": 207, "shutdown": 210, "getsockopt": 209, "getsockname": 204,
    "getpeername": 205, "dup": 23, "dup3": 24, "pipe2": 59, "eventfd2": 19, "capget": 90, "openat": 56, "clone": 220,
    "ioctl": 29, "fcntl": 25, "prlimit64": 261, "tgkill": 131, "kill": 129, "sched_setaffinity": 122, "prctl": 167,
    "sendto": 206, "getrlimit": 163,
}  # fmt: skip
"""Allowed calls and their numbers on aarch64."""


class Architecture(NamedTuple):
    """What a filter has to know of a machine."""

    audit: int
    """``AUDIT_ARCH_*`` of linux/audit.h."""
    seccomp: int
    """Number of the call that installs a filter."""
    allowed: Mapping[str, int]


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 317, X86_64),
    "aarch64": Architecture(0xC00000B7, 277, AARCH64),
}

LATE = 424
"""From this number on calls are the same on all architectures, and younger than Linux 5.0."""
EPERM, ENOSYS = 1, 38

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0o20000000
"""Flags of ``open`` that are for anything but reading; the last is ``__O_TMPFILE``."""
THREAD = 0x00010000
"""``CLONE_THREAD``: what is made shares our memory and ends with us."""
TERMINAL_AND_PIPE = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""``TCGETS``, ``TIOCGWINSZ``, ``FIONREAD``, ``FIONBIO``, ``FIONCLEX``, ``FIOCLEX``."""
DESCRIPTORS = (0, 1, 2, 3, 4, 1030)
"""``F_DUPFD``, ``F_GETFD``, ``F_SETFD``, ``F_GETFL``, ``F_SETFL``, ``F_DUPFD_CLOEXEC``."""
ABOUT_ITSELF = (3, 15, 16, 21, 23, 39, 0x53564D41)
"""``PR_GET_DUMPABLE``, ``PR_SET_NAME``, ``PR_GET_NAME``, ``PR_GET_SECCOMP``, ``PR_CAPBSET_READ``,
``PR_GET_NO_NEW_PRIVS``, ``PR_SET_VMA``."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_SET_FILTER, _ALL_THREADS = 1, 1


class Instruction(ctypes.Structure):
    """``struct sock_filter``: one instruction of a classic BPF program."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction)))


Step = tuple[int, int, int, int]
"""Code, instructions to skip when true and when false, operand."""


def machine() -> Architecture | None:
    """This machine's architecture, when there is a table for it and programs are of 64 bits."""
    return ARCHITECTURES.get(platform.machine()) if ctypes.sizeof(ctypes.c_void_p) == 8 else None  # noqa: PLR2004


def program(architecture: Architecture, process: int) -> list[Step]:
    """The filter for the process of that number. Both architectures are little-endian."""
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    conditions = _conditions(process)
    for name, number in architecture.allowed.items():
        judged = list(conditions.get(name, [(_RETURN, 0, 0, _ALLOW)]))
        steps += [(_EQUAL, 0, len(judged), number), *judged]
    steps += [
        (_AT_LEAST, 0, 1, LATE),
        (_RETURN, 0, 0, _ERROR | ENOSYS),
        (_RETURN, 0, 0, _ERROR | EPERM),
    ]
    return steps


def _conditions(process: int) -> dict[str, list[Step]]:
    """What to decide by for calls that are allowed for some arguments only."""
    own = [*_one_of(0, (0, process))]
    return {
        "open": [*_without(1, WRITING)],
        "openat": [*_without(2, WRITING)],
        "clone": [*_with(0, THREAD)],
        "ioctl": [*_one_of(1, TERMINAL_AND_PIPE)],
        "fcntl": [*_one_of(1, DESCRIPTORS)],
        "prctl": [*_one_of(0, ABOUT_ITSELF)],
        "kill": [*_one_of(0, (process,))],
        "tgkill": [*_one_of(0, (process,))],
        "sched_setaffinity": own,
        "prlimit64": [*_nothing(2)],
        "sendto": [*_nothing(4)],
    }


def _argument(number: int, *, high: bool = False) -> Step:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * number + 4 * high)


def _verdict(*, allowed_first: bool) -> Iterator[Step]:
    """Two ends: the first is reached by falling through, the second by skipping one."""
    ends: list[Step] = [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | EPERM)]
    yield from ends if allowed_first else reversed(ends)


def _without(number: int, bits: int) -> Iterator[Step]:
    """Allowed when the argument has none of these bits."""
    yield _argument(number)
    yield (_ANY_BIT, 1, 0, bits)
    yield from _verdict(allowed_first=True)


def _with(number: int, bit: int) -> Iterator[Step]:
    """Allowed when the argument has this bit."""
    yield _argument(number)
    yield (_ANY_BIT, 1, 0, bit)
    yield from _verdict(allowed_first=False)


def _one_of(number: int, values: tuple[int, ...]) -> Iterator[Step]:
    """Allowed when the argument, taken as 32 bits as the kernel does, is one of these."""
    yield _argument(number)
    for left, value in zip(range(len(values) - 1, -1, -1), values, strict=True):
        yield (_EQUAL, left + 1, 0, value)
    yield from _verdict(allowed_first=False)


def _nothing(number: int) -> Iterator[Step]:
    """Allowed when the argument, a pointer, is null."""
    yield _argument(number)
    yield (_EQUAL, 0, 3, 0)
    yield _argument(number, high=True)
    yield (_EQUAL, 0, 1, 0)
    yield from _verdict(allowed_first=True)


def install(library: ctypes.CDLL) -> str:
    """Put the filter into force for all threads, for good. Gives what stands against it, or nothing."""
    architecture = machine()
    if architecture is None:
        return f"there is no table of system calls for {platform.machine()}"
    steps = program(architecture, os.getpid())
    array = (Instruction * len(steps))(*(Instruction(*step) for step in steps))
    filled = _Program(len(steps), array)
    done = library.syscall(
        ctypes.c_long(architecture.seccomp),
        ctypes.c_uint(_SET_FILTER),
        ctypes.c_uint(_ALL_THREADS),
        ctypes.byref(filled),
    )
    return "" if done == 0 else f"the kernel refuses the filter: {os.strerror(ctypes.get_errno())}"

"""The filter for both architectures, run by a small interpreter of classic BPF: what it decides."""

from __future__ import annotations

import os
import struct

import pytest

from bartizan.targets.system_calls import ARCHITECTURES, LATE, program

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
ME = 4242


def decide(steps, number, arguments=(), audit=0):
    """What the kernel does with a call: ``struct sock_filter`` over ``struct seccomp_data``."""
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, operand)[0]
            continue
        held = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[code]
        at += if_true if held else if_false


@pytest.fixture(params=ARCHITECTURES)
def ask(request):
    architecture = ARCHITECTURES[request.param]
    steps = program(architecture, ME)
    assert len(steps) < 4096
    assert all(skip <= 255 for _, one, other, _ in steps for skip in (one, other))

    def asked(name, *arguments):
        number = architecture.allowed[name] if isinstance(name, str) else name
        return decide(steps, number, arguments, architecture.audit)

    asked.steps, asked.allowed = steps, architecture.allowed
    return asked


def test_a_call_of_another_architecture_ends_the_process(ask):
    assert decide(ask.steps, 0, audit=0x40000003) == KILL


def test_every_number_is_allowed_or_refused_as_the_table_says(ask):
    named = set(ask.allowed.values())
    assert len(named) == len(ask.allowed)
    for number in range(LATE + 100):
        if number not in named:
            assert ask(number) == (ENOSYS if number >= LATE else EPERM)
    assert ask(0x40000000) == ask(0xFFFFFFFF) == ENOSYS


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("read", (), ALLOW),
        ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY), ALLOW),
        ("openat", (0, 0, os.O_WRONLY), EPERM),
        ("openat", (0, 0, os.O_RDWR | os.O_CLOEXEC), EPERM),
        ("openat", (0, 0, os.O_CREAT), EPERM),
        ("openat", (0, 0, os.O_TRUNC), EPERM),
        ("openat", (0, 0, 0o20000000), EPERM),
        ("clone", (0x00010000 | 0x100,), ALLOW),
        ("clone", (17,), EPERM),
        ("clone", (0x4000 | 0x100 | 17,), EPERM),
        ("kill", (ME, 6), ALLOW),
        ("kill", (1, 9), EPERM),
        ("kill", (0, 9), EPERM),
        ("kill", (0xFFFFFFFF, 9), EPERM),
        ("tgkill", (ME, ME, 6), ALLOW),
        ("tgkill", (1, 1, 6), EPERM),
        ("prlimit64", (0, 7, 0, 1), ALLOW),
        ("prlimit64", (0, 7, 1 << 32, 0), EPERM),
        ("prlimit64", (0, 7, 0x1000, 0), EPERM),
        ("sendto", (3, 0, 0, 0, 0), ALLOW),
        ("sendto", (3, 0, 0, 0, 1 << 40), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("fcntl", (0, 1030), ALLOW),
        ("fcntl", (0, 8), EPERM),
        ("prctl", (15,), ALLOW),
        ("prctl", (22,), EPERM),
        ("sched_setaffinity", (0,), ALLOW),
        ("sched_setaffinity", (1,), EPERM),
    ],
)
def test_arguments_decide_where_a_call_has_two_faces(ask, name, arguments, verdict):
    assert ask(name, *arguments) == verdict

"""An isolated process: does dangerous work within limits, and is believed nothing.

The process inherits a socket as its standard input and no other descriptor, and next to no
environment; it is told its limits and confines itself (``bartizan.targets.confine``) before it touches
anything dangerous. What comes back is bounded in size and time before it is looked at.

A file is given over by ``hand_over`` only: it is read once, and the process is not told to use it before
the bytes that it was sent have the digest that was scanned. Nobody can exchange them in between.

Message: a length (4 bytes, big endian), that many bytes of msgpack, then bytes whose number the
asking side knows: announced in a question, expected in an answer. An answer with an error has none.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import msgspec

from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError, InputError, SandboxError, WorkError
from bartizan.targets.confine import LAYERS

MAX_HEADER = 1 << 20
MAX_WORDS = 500
"""Characters of an error message that are taken over."""
LAST_WORDS_SECONDS = 1.0
"""Time in which a process whose socket is closed has to be dead."""
SEND_BUFFER = 1 << 20
PROCESS = (sys.executable, "-I", "-m", "bartizan.targets")
"""How a confined process is started; the module with its commands comes next."""
MAX_FILE_BYTES = 1 << 31
CHUNK = 1 << 20
_SCHEDULER_CLOCK = 2
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JOBLIB_MULTIPROCESSING": "0",
    "LC_ALL": "C.UTF-8",
}
"""One thread: the machine belongs to the asking side, and results must not depend on its cores."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an isolated process may use."""

    memory_bytes: int = 4 << 30
    """Address space."""
    cpu_seconds: int = 4 * 3600
    start_seconds: float = 120.0
    """Wall time to start and load the model."""
    answer_seconds: float = 120.0
    """Wall time for one call."""
    fit_seconds: float = 900.0
    """Wall time for one training run."""
    require: tuple[str, ...] = ("limits",)
    """Layers of confinement without which nothing is handed over; see ``bartizan.targets.confine``."""


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """Which layers hold a process."""

    in_force: tuple[str, ...]
    missing: dict[str, str]
    """Layer to why it is not in force."""

    @property
    def words(self) -> str:
        """One line for people."""
        lacking = "; ".join(f"not in force: {name} ({reason})" for name, reason in self.missing.items())
        return ", ".join(self.in_force) + (f"; {lacking}" if lacking else "")


def required_layers(text: str) -> tuple[str, ...]:
    """Layers that a setting names, separated by commas; ``all`` are all.

    Raises:
        InputError: one of them does not exist.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("all",):
        return LAYERS
    if unknown := [name for name in names if name not in LAYERS]:
        raise InputError(
            f"there is no layer of confinement called {unknown[0]!r}",
            remedy=f"choose from {', '.join(LAYERS)}, or all.",
        )
    return names


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer may hold beside its bytes."""

    error: Literal["", "refused", "failed", "memory"] = ""
    """``refused``: cannot be done at all; ``failed``: the framework raised; ``memory``: out of it."""
    what: str = ""
    """The error in words."""
    facts: msgspec.Raw = msgspec.Raw(b"\xc0")
    """Anything else, to be decoded by a strict type."""

    @property
    def words(self) -> str:
        """``what``, safe to show."""
        return "".join(letter if letter.isprintable() else " " for letter in self.what[:MAX_WORDS])


_DECODER = msgspec.msgpack.Decoder(Reply)


class Isolated:
    """One process, and the socket to it. Every method raises SandboxError when it died, hung or broke a limit.

    ``command`` is run with two more arguments: bytes of address space and seconds of processor time.
    """

    def __init__(self, command: Sequence[str], name: str, limits: Limits) -> None:
        self.limits = limits
        self._name = name
        self._confinement: Confinement | None = None
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, and no shell
                [*command, str(limits.memory_bytes), str(limits.cpu_seconds)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )

    def confinement(self) -> Confinement:
        """What holds the process, as it says itself before it has seen anything dangerous.

        Raises:
            SandboxError: a required layer is not in force, or the process cannot be started here.
        """
        if self._confinement is None:
            reply, _ = self.exchange({"do": "confinement"}, seconds=self.limits.start_seconds)
            try:
                state = msgspec.msgpack.decode(reply.facts, type=dict[str, str])
            except msgspec.DecodeError:
                self.condemn("broke the protocol")
            missing = {name: why for name in LAYERS if (why := state.get(name, "not known to the process"))}
            in_force = tuple(name for name in LAYERS if name not in missing)
            self._confinement = Confinement(in_force=in_force, missing=missing)
        self._insist(self._confinement)
        return self._confinement

    def _insist(self, confinement: Confinement) -> None:
        lacking = [name for name in self.limits.require if name not in confinement.in_force]
        if not lacking:
            return
        self.close()
        reasons = "; ".join(f"{name} ({confinement.missing.get(name, 'no such layer')})" for name in lacking)
        raise SandboxError(
            f"{self._name!r} is not loaded, because its process would not be confined as required: {reasons}",
            remedy="run it where the kernel offers this, or require less (BARTIZAN_CONFINEMENT).",
        )

    def exchange(
        self,
        question: dict[str, Any],
        parts: Iterable[memoryview] = (),
        *,
        length: int = 0,
        size: int = 0,
        seconds: float,
    ) -> tuple[Reply, bytearray]:
        """Ask, and wait for the answer.

        Args:
            question: what is asked; ``bytes`` is added to it.
            parts: what goes with it, ``length`` bytes altogether.
            size: bytes that the answer has when all is well.
            seconds: wall time for everything.
        """
        if self._socket.fileno() < 0:
            self.condemn("has been ended")
        deadline = time.monotonic() + seconds
        try:
            packed = msgspec.msgpack.encode(question | {"bytes": length})
            self._send(len(packed).to_bytes(4, "big") + packed, deadline)
            for part in parts:
                self._send(part, deadline)
            return self._receive(size, deadline)
        except TimeoutError:
            self.condemn(f"gave no answer within {seconds:g} seconds")
        except ConnectionError:
            self._mourn()

    def _send(self, data: bytes | memoryview, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(data)

    def _receive(self, size: int, deadline: float) -> tuple[Reply, bytearray]:
        length = int.from_bytes(self._read(4, deadline), "big")
        if length > MAX_HEADER:
            self.condemn("broke the protocol")
        try:
            reply = _DECODER.decode(self._read(length, deadline))
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.condemn("broke the protocol")
        if reply.error == "memory":
            self.condemn(f"needs more than its {self.limits.memory_bytes >> 20} MiB of memory")
        return reply, bytearray() if reply.error else self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._socket.settimeout(_left(deadline))
            count = self._socket.recv_into(view)
            if not count:
                self._mourn()
            view = view[count:]
        return data

    def condemn(self, fault: str) -> NoReturn:
        """End the process and say why."""
        self.close()
        raise SandboxError(
            f"the process that holds model {self._name!r} {fault}",
            remedy="run it again; if it happens again, the model is broken, hostile, or too large for its limits.",
        )

    def _mourn(self) -> NoReturn:
        """The other end of the socket is closed."""
        try:
            code = self._process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self.condemn("closed its socket")
        if code == -signal.SIGXCPU:
            self.condemn(f"used more than {self.limits.cpu_seconds} seconds of processor time")
        self.condemn(f"died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Processor time that the process has used so far, as the kernel counts it.

        Raises:
            SandboxError: the process has ended.
            WorkError: the platform does not say.
        """
        if not sys.platform.startswith("linux"):
            raise WorkError("the processor time of another process is known on Linux only")
        try:
            # The clock of a process, see clock_getcpuclockid(3): the complement of its id above three bits of kind.
            return time.clock_gettime((~self._process.pid << 3) | _SCHEDULER_CLOCK)
        except OSError:
            self._mourn()

    def close(self) -> None:
        """End the process. There is nothing that it would have to save."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _left(deadline: float) -> float:
    """Seconds until the deadline; a hair when it has passed, since 0 would mean something else to a socket."""
    return max(deadline - time.monotonic(), 1e-3)


def hand_over(process: Isolated, path: Path, digest: Digest) -> None:
    """Give a confined process a file, as the command ``keep``, when its bytes are those that were scanned.

    The process only keeps them; whoever calls may tell it to use them after this has returned.

    Raises:
        ArtefactError: the file cannot be read, is too large, or is not what was scanned.
        SandboxError: the process is not confined as required, died, hung or broke a limit.
    """
    process.confinement()
    state = hashlib.sha256()
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ArtefactError(f"{path.name} has {size} bytes; models of up to {MAX_FILE_BYTES} are loaded")
            parts = _chunks(file, size, state)
            process.exchange({"do": "keep"}, parts, length=size, seconds=process.limits.start_seconds)
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if state.hexdigest() != digest:
        process.close()
        raise ArtefactError(f"{path.name} has changed since it was digested", remedy="run the command again.")


def _opened(path: Path) -> BinaryIO:
    """A regular file; nothing that blocks, or answers differently each time, is opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtefactError(f"{path.name} is no regular file", remedy="give the path of a model file.")
    return os.fdopen(descriptor, "rb")


def _chunks(file: BinaryIO, size: int, state: Any) -> Iterator[memoryview]:
    """``size`` bytes, each digested; zeros where the file has become shorter meanwhile."""
    while size:
        chunk = file.read(min(CHUNK, size)) or bytes(min(CHUNK, size))
        state.update(chunk)
        size -= len(chunk)
        yield memoryview(chunk)

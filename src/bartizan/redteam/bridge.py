"""Attackers of others, in a process and an environment of their own, whose every question goes through our ledger.

An attacker is a program: an attack of a library that is installed somewhere, or a file with a function. It runs
in the interpreter it is installed for, beside a small script of ours (the guest), and sees nothing of the model:
it asks over a socket. Here that is an ``Attack`` like any other: what the guest asks becomes a ``Query``, which the
engine charges before it is asked; what may not be paid is not asked; success is measured on rows asked again.

The guest is believed nothing. Message: a length (4 bytes, big endian), that much JSON, then as many bytes as the
JSON says under ``bytes``. From here: the task, then answers (``{}`` and numbers) or ``{"over": why}``. From there:
``{"hello": version}``, then ``{"ask": "labels" or "scores", "rows": n, "sample": i}`` with n rows of little-endian
doubles as often as it likes, at last ``{"done": true}`` with a row for each sample, or nothing, or
``{"error": why}``. Anything else ends the run with a clear error.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError, SandboxError
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Rows

MAX_HEADER = 1 << 16
MAX_BODY = 1 << 28
MAX_WORDS = 400
MAX_AFTER_END = 3
"""Times that an attacker may ask for a sample whose budget is over before it is ended."""
ROUNDING = 1e-5
"""Part of the largest change that counts by which rows may go beyond it, because attackers work in single precision."""
LAST_WORDS_SECONDS = 1.0
NAME = re.compile(r"(?P<tool>[a-z][a-z0-9_]*):(?P<attack>.+)", re.DOTALL)
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
TOOLS = ("art", "foolbox")
FILE = "file"
DECISION = frozenset({"BoundaryAttack", "HopSkipJump", "HopSkipJumpAttack", "GeoDA", "SignOPTAttack"})
"""Attacks of others that look at classes only; they are given no more."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an attacker's process may use."""

    start_seconds: float = 120.0
    """Wall time until it says hello and asks for the first time: libraries are slow to import."""
    think_seconds: float = 60.0
    """Wall time between an answer and the next question."""
    cpu_seconds: int = 3600
    memory_bytes: int = 16 << 30
    """Address space."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attacker runs."""

    python: Path
    """Interpreter that it is installed for."""
    guest: Path
    """Our script for the far end."""
    paths: tuple[Path, ...] = ()
    """Folders with further packages, searched after those of the interpreter."""
    limits: Limits = field(default_factory=Limits)


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the guest."""

    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_BODY)]
    hello: str | None = None
    held: tuple[str, ...] = ()
    ask: str = ""
    rows: int = 0
    sample: int = 0
    done: bool = False
    error: str = ""


_DECODER = msgspec.json.Decoder(_Said)


class External:
    """An attacker of others as an attack of ours. See ``Attack``.

    ``name`` says which: ``art:HopSkipJump``, ``foolbox:BoundaryAttack``, ``file:PATH``. A file has a function
    ``attack(model, task, **options)``; ``model.labels(rows, sample)`` and ``model.scores(rows, sample)`` ask,
    ``task`` has the fields of ``EvasionTask`` and those of its space as plain arrays. What it returns is a row for
    each sample, or None: what was seen to succeed on the way counts anyway.
    """

    family = "evasion"
    position = "user"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0015")

    def __init__(
        self, name: str, place: Place, *, options: Mapping[str, Any] | None = None, scores: bool = True
    ) -> None:
        """``scores``: whether the interface gives them.

        Raises:
            InputError: there is no such tool, attack or file.
        """
        self.tool, self.attack = parse(name)
        self.place, self.options = place, dict(options or {})
        decides = self.attack in DECISION or not scores
        self.needs = frozenset({Access.LABELS} if decides else {Access.LABELS, Access.SCORES})
        self.technique = "T08" if decides else "T07"
        word = Path(self.attack).stem if self.tool == FILE else self.attack
        self.name = f"evasion.external.{self.tool}.{word}"
        self.title = f"{word} of {'a file of your own' if self.tool == FILE else self.tool}, run in its own environment"
        self.references: tuple[str, ...] = (f"external attacker {self.tool}:{word}",)
        self.held: tuple[str, ...] = ()
        """What held the process of the last run: limits, network, privileges."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``.

        Raises:
            SandboxError: the attacker cannot be started, dies, hangs, or breaks the protocol.
        """
        with _started(self.place, f"{self.tool}:{self.attack}") as guest:
            guest.begin(self, task, seed=int(rng.integers(2**31)))
            self.held = guest.held
            relay = _Relay(guest, task, scores=Access.SCORES in self.needs)
            return (yield from relay.run())


def parse(name: str) -> tuple[str, str]:
    """Tool and attack of ``art:HopSkipJump``. Raises InputError when it is not of that form."""
    found = NAME.fullmatch(name)
    if not found or found["tool"] not in (*TOOLS, FILE):
        raise InputError(
            f"{name[:80]!r} names no external attacker",
            remedy=f"write {', '.join(f'{tool}:NAME' for tool in TOOLS)} or {FILE}:PATH.",
        )
    if found["tool"] == FILE:
        path = Path(found["attack"])
        if not path.is_file():
            raise InputError(f"there is no file {found['attack'][:200]!r}", remedy="give a Python file with attack().")
        return FILE, str(path.resolve())
    if not IDENTIFIER.fullmatch(found["attack"]):
        raise InputError(f"{found['attack'][:80]!r} is no name of a class", remedy="write it as the library does.")
    return found["tool"], found["attack"]


class _Relay:
    """Turns what a guest asks into queries, as long as the budget lasts."""

    def __init__(self, guest: _Guest, task: EvasionTask, *, scores: bool) -> None:
        self._guest, self._task, self._scores = guest, task, scores
        self._left: NDArray[np.int64] = np.full(len(task.rows), task.budget)
        self._refused: NDArray[np.int64] = np.zeros(len(task.rows), dtype=np.int64)

    def run(self) -> Generator[Query, Any, Rows | None]:
        """Until the guest is done. Gives its rows, made possible; None where it returned none."""
        guest, task = self._guest, self._task
        while not (said := guest.hear()).done:
            if said.error:
                guest.condemn(f"broke: {_safe(said.error)}")
            asked = self._rows(said)
            paid = asked[: self._left[said.sample]]
            try:
                answer = (yield self._query(paid, said)) if len(paid) else None
            except BudgetError:
                answer, paid = None, paid[:0]
            self._left[said.sample] -= len(paid)
            self._reply(said, answer, everything=answer is not None and len(paid) == len(asked))
        if not said.bytes:
            return None
        rows = guest.body(said, task.rows.shape)
        return self._possible(np.where(np.isfinite(rows), rows, task.rows), np.arange(len(rows)))

    def _rows(self, said: _Said) -> Rows:
        task, guest = self._task, self._guest
        if said.ask not in ("labels", "scores") or not 0 <= said.sample < len(task.rows) or said.rows < 1:
            guest.condemn("asked something that is no question about rows of a sample")
        if said.ask == "scores" and not self._scores:
            guest.condemn("asked for scores, which the interface does not give")
        rows = guest.body(said, (said.rows, task.rows.shape[1]))
        if not np.isfinite(rows).all():
            guest.condemn("asked about a row that is not finite")
        return rows

    def _query(self, rows: Rows, said: _Said) -> Query:
        """The possible rows that are nearest to what was asked; the attacker attacks the model behind that step."""
        sample = np.full(len(rows), said.sample, dtype=np.int64)
        return Query(self._possible(rows, sample), sample, scores=said.ask == "scores")

    def _possible(self, rows: Rows, sample: NDArray[np.int64]) -> Rows:
        """The nearest possible rows; a hair beyond what counts is single precision, and is taken back."""
        task = self._task
        possible = task.space.project(rows.astype(task.rows.dtype), task.rows[sample])
        change = task.change(possible, sample)
        rounded = np.flatnonzero((change > task.max_change) & (change <= task.max_change * (1 + ROUNDING)))
        possible[rounded] = task.within(possible[rounded], sample[rounded])
        return possible

    def _reply(self, said: _Said, answer: NDArray[Any] | None, *, everything: bool) -> None:
        if everything and answer is not None:
            self._guest.say({}, np.ascontiguousarray(answer, dtype="<f8" if said.ask == "scores" else "<i8").tobytes())
            return
        self._refused[said.sample] += 1
        if self._refused[said.sample] > MAX_AFTER_END:
            self._guest.condemn(f"asks on for sample {said.sample} after its budget is over")
        self._guest.say({"over": f"the {self._task.budget} queries of sample {said.sample} are over"})


class _Guest:
    """The process of an attacker, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket, name: str, limits: Limits) -> None:
        self._process, self._socket, self._name, self._limits = process, end, name, limits
        self._patience = limits.start_seconds
        self.held: tuple[str, ...] = ()

    def begin(self, attack: External, task: EvasionTask, *, seed: int) -> None:
        """Hand over the task, and wait until the far end greets."""
        arrays = _arrays(task)
        self.say(
            {
                "tool": attack.tool,
                "attack": attack.attack,
                "options": attack.options,
                "paths": [str(path) for path in attack.place.paths],
                "seed": seed,
                "features": task.rows.shape[1],
                "classes": task.classes,
                "scores": Access.SCORES in attack.needs,
                "arrays": [(name, array.dtype.str, array.shape) for name, array in arrays.items()],
                "task": {
                    "classes": task.classes,
                    "max_change": task.max_change,
                    "budget": task.budget,
                    # JSON knows no infinity.
                    "norm": str(task.norm),
                    "shape": list(task.shape),
                },
            },
            b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values()),
        )
        said = self.hear()
        if said.error:
            self.condemn(f"broke: {_safe(said.error)}")
        if said.hello is None:
            self.condemn("broke the protocol before it began")
        self.held = said.held[:10]
        self._patience = self._limits.start_seconds

    def say(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send one message."""
        packed = msgspec.json.encode(header | {"bytes": len(body)})
        self._socket.settimeout(self._limits.think_seconds)
        try:
            self._socket.sendall(len(packed).to_bytes(4, "big") + packed + body)
        except TimeoutError:
            self.condemn("does not read what it is told")
        except OSError:
            self._mourn()

    def hear(self) -> _Said:
        """The next message, without what follows it."""
        deadline = time.monotonic() + self._patience
        length = int.from_bytes(self._read(4, deadline), "big")
        if not 0 < length <= MAX_HEADER:
            self.condemn("broke the protocol")
        try:
            said = _DECODER.decode(self._read(length, deadline))
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.condemn("broke the protocol")
        if said.ask:
            self._patience = self._limits.think_seconds
        return said

    def body(self, said: _Said, shape: tuple[int, ...]) -> Rows:
        """The doubles that follow a message."""
        if said.bytes != 8 * int(np.prod(shape)):
            self.condemn(f"announced {said.bytes} bytes where {shape} numbers are due")
        data = self._read(said.bytes, time.monotonic() + self._limits.think_seconds)
        return np.frombuffer(bytes(data), dtype="<f8").reshape(shape)

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                count = self._socket.recv_into(view)
            except TimeoutError:
                self.condemn(f"was silent for {self._patience:g} seconds")
            except OSError:
                self._mourn()
            if not count:
                self._mourn()
            view = view[count:]
        return data

    def condemn(self, fault: str) -> NoReturn:
        """End the process and say why."""
        self.close()
        raise SandboxError(
            f"the external attacker {self._name} {fault}",
            remedy="see that it runs by itself in its environment; what it had found is lost.",
        )

    def _mourn(self) -> NoReturn:
        try:
            code = self._process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self.condemn("closed its socket")
        self.condemn(f"ended before it was done (exit code {code})")

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _started(place: Place, name: str) -> Iterator[_Guest]:
    """A guest in a folder of its own, with next to no environment; ended on exit."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="bartizan-bridge-") as home:
        limits = place.limits
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - the interpreter that the user named, and no shell
                    [place.python, "-I", place.guest, str(limits.cpu_seconds), str(limits.memory_bytes)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **ONE_THREAD},
                    cwd=home,
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise InputError(
                f"{place.python} cannot be started: {error.strerror or error}",
                remedy="give the interpreter of the environment in which the attacker is installed.",
            ) from error
        guest = _Guest(process, ours, name, limits)
        try:
            yield guest
        finally:
            guest.close()


ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _arrays(task: EvasionTask) -> dict[str, NDArray[Any]]:
    """What an attacker is told of the samples and of what a possible row is."""
    space = task.space
    return {
        "rows": task.rows.astype("<f8"),
        "labels": task.labels.astype("<i8"),
        "starts": task.starts.astype("<f8"),
        "start_labels": task.start_labels.astype("<i8"),
        "low": np.minimum(space.low, task.rows.min(axis=0)).astype("<f8"),
        "high": np.maximum(space.high, task.rows.max(axis=0)).astype("<f8"),
        "scale": space.scale.astype("<f8"),
        "immutable": space.immutable.astype("<i8"),
    }


def _safe(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_WORDS])

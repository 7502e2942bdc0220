"""The inner side of an isolated process: confine itself, then answer questions until nobody asks.

See ``bartizan.targets.isolated`` for the protocol. A host is a set of commands by name; it adds nothing else,
so that everything between the socket and a model is in one place. Started by ``python -m bartizan.targets``.
"""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

import msgspec

from bartizan.targets.confine import State, confine
from bartizan.targets.no_tables import admit_tables, hide_tables

LENGTH = 4
NO_FOLDER = "/nonexistent"
"""Where temporary files would go, and programs would be. Named, because libraries that look for either by trying
take what is missing better than what is refused."""


class Refusal(Exception):  # noqa: N818 - it becomes an answer, not an error of this process
    """What was asked cannot be done; the message goes back."""


class Question(msgspec.Struct, kw_only=True):
    """One command. A host adds the fields that its commands need."""

    do: str
    bytes: int
    """How much follows."""
    data: bytearray = msgspec.field(default_factory=bytearray)
    """What followed."""


Q = TypeVar("Q", bound=Question)
Answer = dict[str, Any] | bytes
"""What an answer holds beside its bytes, or these bytes."""
Command = Callable[[Q], Answer]


def run(module: str, memory_bytes: int, cpu_seconds: int) -> None:
    """Take over the socket, confine this process, import a host, and serve.

    A host is a module with ``commands()``, which gives commands by name, and ``Question``. Beside its commands
    ``confinement`` is answered.
    """
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    state = confine(memory_bytes, cpu_seconds)
    tempfile.tempdir = os.environ["PATH"] = NO_FOLDER
    warnings.simplefilter("ignore")
    host = imported(module)
    serve(channel, {**host.commands(), "confinement": lambda _: _told(state)}, host.Question)


def imported(module: str) -> Any:
    """A module, imported as if no library for tables were installed.

    Frameworks load these if they are there, which takes time and memory of a process that is given arrays. A model
    that names them has them loaded then.
    """
    hide_tables()
    try:
        return import_module(module)
    finally:
        admit_tables()


def _told(state: State) -> Answer:
    return {"facts": state}


def serve(channel: socket.socket, commands: Mapping[str, Command[Q]], question: type[Q]) -> None:
    """Answer until the other side hangs up."""
    decoder = msgspec.msgpack.Decoder(question)
    while head := _read(channel, LENGTH):
        asked = decoder.decode(_read(channel, int.from_bytes(head, "big")))
        asked.data = _read(channel, asked.bytes)
        reply, body = _answer(commands[asked.do], asked)
        packed = msgspec.msgpack.encode(reply)
        channel.sendall(len(packed).to_bytes(LENGTH, "big") + packed)
        channel.sendall(body)


def _answer(command: Command[Q], question: Q) -> tuple[dict[str, Any], bytes]:
    try:
        answer = command(question)
    except MemoryError:
        return {"error": "memory"}, b""
    except Refusal as refusal:
        return {"error": "refused", "what": str(refusal)}, b""
    except Exception as error:  # noqa: BLE001 - whatever a model raises is an answer
        return {"error": "failed", "what": f"{type(error).__name__}: {error}"}, b""
    return (answer, b"") if isinstance(answer, dict) else ({}, answer)


def _read(channel: socket.socket, size: int) -> bytearray:
    """So many bytes; none when the other side has hung up."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            return bytearray()
        view = view[count:]
    return data

"""Conversion in confined processes: one loads the source and writes the result, another loads the result.

No framework is imported on this side. What comes back is bounded, and read by strict types.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.convert import Answers, Format, Tensor
from bartizan.targets.isolated import PROCESS, Confinement, Isolated, Limits, hand_over

COMMAND = (*PROCESS, "bartizan.adapters.convert_host")
MAX_RESULT_BYTES = 1 << 32
MAX_TOLD_BYTES = 1 << 28
T = TypeVar("T")


class Loaded(msgspec.Struct, frozen=True):
    """What a process says of the file that it loaded."""

    kind: Literal["estimator", "module", "tensors"]
    features: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class _Size(msgspec.Struct, frozen=True):
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class _Told(msgspec.Struct, frozen=True):
    tensors: list[Tensor]
    shared: dict[str, str]


class Converting:
    """A process that holds one file, the source or a result."""

    def __init__(self, process: Isolated, name: str, confinement: Confinement) -> None:
        self._process, self._name = process, name
        self.confinement = confinement

    def load(self, part: str) -> Loaded:
        """Load the source."""
        return self._facts({"do": "load", "part": part}, Loaded)

    def load_result(self, to: Format) -> None:
        """Load a result by the reader of its format."""
        self._ask({"do": "load_result", "to": to})

    def write(self, to: Format) -> bytes:
        """The source in another format."""
        return bytes(self._fetch({"do": "write", "to": to}, MAX_RESULT_BYTES))

    def tensors(self) -> tuple[list[Tensor], dict[str, str]]:
        """What the source holds, and which names mean a tensor that has another name already."""
        told = self._decoded({"do": "tensors"}, _Told)
        return told.tensors, told.shared

    def answers(self, samples: NDArray[np.float64], *, single: bool) -> Answers:
        """What the model says to samples ``(rows, features)``."""
        rows = np.ascontiguousarray(samples, dtype="<f8")
        asked = {"do": "answer", "rows": rows.shape[0], "columns": rows.shape[1], "single": single}
        return self._decoded(asked, Answers, rows)

    def _ask(self, question: dict[str, Any], rows: NDArray[Any] | None = None) -> msgspec.Raw:
        parts = [] if rows is None else [memoryview(rows).cast("B")]  # type: ignore[arg-type]  # numpy 2.4 stubs
        length = 0 if rows is None else rows.nbytes
        reply, _ = self._process.exchange(question, parts, length=length, seconds=self._process.limits.answer_seconds)
        if reply.error:
            raise ArtefactError(
                f"{self._name} cannot be converted: {reply.words}",
                remedy="give a file of plain tensors, or a fitted scikit-learn estimator.",
            )
        return reply.facts

    def _facts(self, question: dict[str, Any], kind: type[T], rows: NDArray[Any] | None = None) -> T:
        try:
            return msgspec.msgpack.decode(self._ask(question, rows), type=kind)
        except msgspec.DecodeError as error:
            self._process.condemn(f"says impossible things of its file ({error})")

    def _fetch(self, question: dict[str, Any], most: int, rows: NDArray[Any] | None = None) -> bytearray:
        size = self._facts(question, _Size, rows).bytes
        if size > most:
            self._process.condemn(f"wants to answer with {size} bytes")
        _, body = self._process.exchange({"do": "fetch"}, size=size, seconds=self._process.limits.answer_seconds)
        return body

    def _decoded(self, question: dict[str, Any], kind: type[T], rows: NDArray[Any] | None = None) -> T:
        body = self._fetch(question, MAX_TOLD_BYTES, rows)
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._process.condemn(f"says impossible things of its file ({error})")


@contextmanager
def opened(path: Path, digest: Digest, limits: Limits) -> Iterator[Converting]:
    """A process that was handed a file whose bytes have this digest. Nothing is loaded yet.

    Raises:
        ArtefactError: the file is not what was scanned.
        SandboxError: the process is not confined as required, died, hung or broke a limit.
    """
    process = Isolated(COMMAND, path.name, limits)
    try:
        hand_over(process, path, digest)
        yield Converting(process, path.name, process.confinement())
    finally:
        process.close()

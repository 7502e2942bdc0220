"""An ONNX model in the serving process itself: a graph of known operators, no code, asked without a detour.

Other kinds of files are asked in a confined process (``targets.hosted``), since loading them may run code. This one
is read by the same reader that the red team uses, which refuses foreign operators and references to other files, and
is loaded only when its bytes have the digest that was admitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.adapters.onnx.host import Host
from bartizan.core.digest import Digest, digest_bytes, short
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.targets.host import Question, probes
from bartizan.targets.hosting import Refusal

MAX_FILE_BYTES = 1 << 31
OFF = 1e-2
"""How far the scores of a row may be from adding up to 1."""
REMEDY = "save a classifier with one input of numbers, all of it in one file (needs bartizan[onnx])."


class InlineNetwork:
    """One session of ONNX Runtime. See ``hosting.Asking``."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._session, self._answers, self._feed = host.session, host.answers, host.feed
        self.dtype: np.dtype[Any] = np.dtype(host.kind)
        self.features, self.classes = host.features, host.classes
        self.scored = bool(host.answers.numbers)
        self._finish = _softmaxed if self.scored and not host.probable else _as_they_are
        self._source = host.answers.numbers if host.probable else host._source()  # noqa: SLF001 - its other half
        self._plain = bool(self._feed.sides) and not self._feed.turned and not self._feed.batch
        self._agrees = self.scored and self._labels_agree()

    def ask(self, rows: Numbers, *, scores: bool) -> Answer:
        """See ``Asking.ask``."""
        del scores  # they come with the labels
        if not self.scored:
            return Answer(self._labels(rows))
        found = self._finish(self._numbers(rows))
        # whatever is not finite shows in the sums
        if not (np.abs(found.sum(axis=1) - 1.0) < OFF).all():
            raise WorkError("the model answers with something that are no probabilities")
        return Answer(found.argmax(axis=1) if self._agrees else self._labels(rows), found)

    def close(self) -> None:
        """Let go of the session."""
        self._session = self._host.session = None

    def _numbers(self, rows: Numbers) -> NDArray[Any]:
        try:
            if self._plain:
                given = self._feed.inputs[0]
                (found,) = self._session.run([self._source], {given.name: rows.reshape(len(rows), *self._feed.sides)})
            else:
                found = self._host._run([self._source], rows)[self._source]  # noqa: SLF001 - its other half
        except Exception as error:  # ONNX Runtime's own errors have no ancestor but this
            raise WorkError("the model cannot answer these rows") from error
        if len(found) != len(rows):
            raise WorkError("the model does not answer each row")
        return self._widened(found.reshape(len(found), -1))

    def _widened(self, found: NDArray[Any]) -> NDArray[Any]:
        """Both classes, where the model answers with one number: before a sigmoid, or after it."""
        if found.shape[1] == self.classes:
            return found
        other = 1.0 - found if self._host.probable else np.zeros_like(found)
        return np.concatenate([other, found], axis=1)

    def _labels(self, rows: Numbers) -> NDArray[np.int64]:
        raw = bytearray(np.ascontiguousarray(rows).tobytes())
        question = Question(do="labels", bytes=len(raw), rows=len(rows), data=raw)
        try:
            return np.frombuffer(self._host.labels(question), dtype="<i8")  # type: ignore[arg-type]
        except Exception as error:
            raise WorkError("the model cannot answer these rows") from error

    def _labels_agree(self) -> bool:
        """Whether its labels are always those of its highest scores, as far as random rows show it."""
        if not self._answers.labels:
            return True
        rows = np.ascontiguousarray(probes(self.features), dtype=self.dtype)
        return bool((self._labels(rows) == self._finish(self._numbers(rows)).argmax(axis=1)).all())


def _as_they_are(found: NDArray[Any]) -> NDArray[np.float64]:
    return found.astype(np.float64)


def _softmaxed(logits: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    softmax: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return softmax


def open_inline(path: Path, digest: Digest, *, classes: int, features: int, shape: tuple[int, ...]) -> InlineNetwork:
    """Load a model file, once its bytes are known to be those that were admitted.

    Raises:
        ArtefactError: they are not, or hold no classifier that fits the data.
    """
    data = _bytes(path)
    if digest_bytes(data) != digest:
        raise ArtefactError(f"{path.name} is no longer {short(digest)}", remedy="wait for the next verification.")
    host = Host()
    try:
        host.keep(Question(do="keep", bytes=len(data), data=bytearray(data)))
        host.load(Question(do="load", bytes=0, classes=classes, features=features, shape=shape))
        return InlineNetwork(host)
    except (Refusal, WorkError) as error:
        raise ArtefactError(f"{path.name} is no model that can be asked: {error}", remedy=REMEDY) from error


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error}", remedy="give read access.") from error
    if len(data) > MAX_FILE_BYTES:
        raise ArtefactError(f"{path.name} has more than {MAX_FILE_BYTES} bytes", remedy="serve it by an upstream.")
    return data


__all__ = ["InlineNetwork", "open_inline"]

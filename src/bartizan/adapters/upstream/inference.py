"""Classifiers behind other servers: Open Inference Protocol v2 and MLflow's scoring protocol."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from bartizan.adapters.upstream.wire import Opened, Wire
from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.lifecycle.deploy.gateway.upstream import tensors
from bartizan.lifecycle.deploy.gateway.upstream.port import UpstreamError
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings

HEAD_LENGTH = "inference-header-content-length"
MOST_DIGITS = 10


class InferenceUpstream:
    """A model on a server that speaks the Open Inference Protocol v2 (MLServer, KServe, Triton ...)."""

    def __init__(self, settings: UpstreamSettings, classes: Sequence[str]) -> None:
        """Raises InputError: address, credential or certificates cannot be used."""
        self.name = settings.name
        self._settings, self._wire = settings, Wire(settings)
        self._reader = tensors.AnswerReader(settings, classes)
        version = f"/versions/{quote(settings.version, safe='')}" if settings.version else ""
        self._path = f"/v2/models/{quote(settings.model or settings.name, safe='')}{version}"
        self._input = (settings.input, settings.datatype) if settings.input and settings.datatype else ("", "")

    @property
    def state(self) -> str:
        """Of the circuit: ``closed``, ``open`` or ``half-open``."""
        return self._wire.circuit.state

    async def prepare(self) -> None:
        """See ``port.InferenceUpstream.prepare``."""
        if not self._input[0]:
            reply = await self._wire.exchange("GET", self._path)
            self._input = tensors.takes(reply.body, self._settings)

    async def infer(self, rows: Numbers) -> Answer:
        """See ``port.InferenceUpstream.infer``."""
        await self.prepare()
        binary = self._settings.tensors == "binary"
        body, head = tensors.question(rows, *self._input, binary=binary)
        kind = "application/octet-stream" if head else "application/json"
        more = {HEAD_LENGTH: str(head)} if head else {}
        opened = await self._wire.open(
            "POST", f"{self._path}/infer", body, {"content-type": kind, **more}, repeatable=True
        )
        async with opened:
            return await self._answer(opened, len(rows))

    async def _answer(self, opened: Opened, rows: int) -> Answer:
        """Read it while the circuit still listens: an answer that cannot be true counts against the upstream."""
        body = await opened.received()
        try:
            answer = self._reader.tensors(body, _head(opened, len(body)), rows)
        except UpstreamError as error:
            raise opened.failed(error.kind, error.message) from None
        opened.done()
        return answer

    async def ready(self) -> bool:
        """See ``port.InferenceUpstream.ready``."""
        return await answers(self._wire, f"{self._path}/ready")

    async def close(self) -> None:
        """See ``port.InferenceUpstream.close``."""
        await self._wire.close()


class MlflowUpstream:
    """A model behind MLflow's scoring server."""

    def __init__(self, settings: UpstreamSettings, classes: Sequence[str], columns: Sequence[str] = ()) -> None:
        """Named columns are sent as a table, rows without names as a bare tensor.

        Raises:
            InputError: address, credential or certificates cannot be used.
        """
        self.name = settings.name
        self._settings, self._columns, self._wire = settings, tuple(columns), Wire(settings)
        self._reader = tensors.AnswerReader(settings, classes)

    @property
    def state(self) -> str:
        """Of the circuit: ``closed``, ``open`` or ``half-open``."""
        return self._wire.circuit.state

    async def prepare(self) -> None:
        """See ``port.InferenceUpstream.prepare``: there is nothing to find out."""

    async def infer(self, rows: Numbers) -> Answer:
        """See ``port.InferenceUpstream.infer``."""
        body = tensors.scoring(rows, self._columns)
        opened = await self._wire.open(
            "POST", "/invocations", body, {"content-type": "application/json"}, repeatable=True
        )
        async with opened:
            return await self._answer(opened, len(rows))

    async def _answer(self, opened: Opened, rows: int) -> Answer:
        body = await opened.received()
        try:
            answer = self._reader.predictions(body, rows)
        except UpstreamError as error:
            raise opened.failed(error.kind, error.message) from None
        opened.done()
        return answer

    async def ready(self) -> bool:
        """See ``port.InferenceUpstream.ready``."""
        return await answers(self._wire, "/ping")

    async def close(self) -> None:
        """See ``port.InferenceUpstream.close``."""
        await self._wire.close()


async def answers(wire: Wire, path: str) -> bool:
    """Whether the upstream answers a question about itself with 200."""
    try:
        await wire.exchange("GET", path)
    except UpstreamError:
        return False
    return True


def _head(opened: Opened, size: int) -> int:
    """Length of the JSON before binary tensors; 0 when the answer is nothing but JSON."""
    said = opened.headers.get(HEAD_LENGTH, "")
    if not said:
        return 0
    if not (said.isascii() and said.isdigit() and len(said) <= MOST_DIGITS and 0 < int(said) <= size):
        raise opened.failed("wrong", "its answer says a wrong length of its head")
    return int(said)


__all__ = ["InferenceUpstream", "MlflowUpstream", "answers"]

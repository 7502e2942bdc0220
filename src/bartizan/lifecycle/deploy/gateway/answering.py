"""What the routes answer: questions to models, and what may be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway import asgi, openapi, plain, protocol
from bartizan.lifecycle.deploy.gateway.application import Call
from bartizan.lifecycle.deploy.gateway.asgi import Bodies, Reply, reply
from bartizan.lifecycle.deploy.gateway.budget import Cost
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.inquiry import OUT, UNANSWERED, Inquiries, Inquiry, granted
from bartizan.lifecycle.deploy.gateway.protocol import HEAD_LENGTH
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes

NOTICE_HEADER = "bartizan-notice-digest"
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
}


class Desk:
    """Answers the routes of the data plane."""

    def __init__(self, lanes: Lanes, bodies: Bodies) -> None:
        self._lanes = lanes
        self._inquiries = Inquiries(lanes, bodies)

    def handlers(self) -> Mapping[str, Any]:
        """By the names that routes have."""
        names = ("server", "live", "ready", "model_ready", "notice", "openapi", "metadata", "infer", "explain")
        return {name: getattr(self, name) for name in (*names, "predict", "held")}

    def model_of(self, call: Call) -> tuple[str, Digest]:
        """Name of the model that a call is about, and the digest of the version, as far as there is one."""
        if call.route.handler not in _ABOUT_MODELS:
            return "", Digest("")
        name, version = self._named(call)
        lane = call.lane = self._lanes.find(name, version)
        return name, (lane.door.digest if lane else None) or Digest("")

    # ---- open to everybody

    async def server(self, call: Call) -> Reply:
        """The server, without its version."""
        del call
        names = list(self._lanes.names)
        return reply(200, {"name": "bartizan", "version": "2", "extensions": ["binary_tensor_data"], "models": names})

    async def live(self, call: Call) -> Reply:
        """Whether the server runs."""
        del call
        return reply(200, {"live": True})

    async def ready(self, call: Call) -> Reply:
        """Whether every model can be asked."""
        del call
        is_ready = all(not lane.door.reason for lane in self._lanes)
        return reply(200 if is_ready else 503, {"ready": is_ready})

    async def model_ready(self, call: Call) -> Reply:
        """Whether one model can be asked."""
        lane = self._lane(call)
        is_ready = not lane.door.reason
        return reply(200 if is_ready else 503, {"name": call.values[0], "ready": is_ready})

    async def notice(self, call: Call) -> Reply:
        """What users are told; open to everybody who can reach the gateway."""
        told = next((lane.door.admission.told for lane in self._lanes if lane.door.admission.told), None)
        if told is None:
            raise RequestError(404, "no notice to users: none is declared, or the model's card does not stand")
        headers = {NOTICE_HEADER: f"sha256:{told.digest}"}
        match call.scope["path"].rstrip("/"):
            case "/notice.json":
                return reply(200, told.plain, headers)
            case "/notice.md":
                return Reply(200, told.markdown.encode(), asgi.raw(headers), kind=b"text/markdown; charset=utf-8")
        return Reply(200, told.html.encode(), asgi.raw(headers | PAGE_HEADERS), kind=b"text/html; charset=utf-8")

    # ---- for whoever is granted it

    async def openapi(self, call: Call) -> Reply:
        """This interface, for the models that the role may ask."""
        role = granted(call).role
        await self._spend(call)
        seen = [lane.door.last for lane in self._lanes if lane.door.last and role.may("infer", lane.name)]
        return reply(200, openapi.document(seen, role.operations))

    async def metadata(self, call: Call) -> Reply:
        """What a model takes, and what the role is told."""
        lane, role = self._lane(call), granted(call).role
        await self._spend(call)
        described = lane.door.last
        if described is None:
            raise RequestError(503, OUT, reason=lane.door.reason)
        call.exchange.digest = described.digest
        outputs = call.front.teller.outputs(role, len(described.classes))
        return reply(
            200, protocol.metadata(described, outputs, self._lanes.versions(call.values[0]), name=call.values[0])
        )

    async def infer(self, call: Call) -> Reply:
        """Ask a model by the Open Inference Protocol."""
        lane = self._lane(call)
        head = call.headers.get(HEAD_LENGTH)
        body = await self._inquiries.body(call, binary=True)
        inquiry = await self._inquiries.told(
            call, lane, body, lambda content, described: protocol.read(content, head, described)
        )
        if inquiry.told is None:
            return await self._held(inquiry)
        written, length = protocol.write(
            inquiry.question, inquiry.told, inquiry.described, self._beside(inquiry), name=call.exchange.model
        )
        if length is None:
            return Reply(200, written)
        return Reply(200, written, [(HEAD_LENGTH, b"%d" % length)], kind=asgi.BINARY)

    async def predict(self, call: Call) -> Reply:
        """Ask a model by the names of columns."""
        lane = self._lane(call)
        body = await self._inquiries.body(call)
        inquiry = await self._inquiries.told(call, lane, body, plain.read)
        if inquiry.told is None:
            return await self._held(inquiry)
        return reply(200, plain.write(inquiry.told, len(inquiry.question.rows)) | (self._beside(inquiry) or {}))

    async def explain(self, call: Call) -> Reply:
        """Why a model answers so."""
        lane = self._lane(call)
        body = await self._inquiries.body(call)
        inquiry, given = await self._inquiries.explained(
            call, lane, body, lambda content, described: protocol.read(content, None, described)
        )
        described = inquiry.described
        return reply(200, {"model_name": call.exchange.model, "model_version": described.digest} | given)

    async def held(self, call: Call) -> Reply:
        """What became of a case that waits for a person; callers see their own alone."""
        cases = call.front.cases
        outcome = await cases.outcome(call.values[0], call.exchange.caller) if cases else None
        if outcome is None:
            raise RequestError(404, "there is no such case")
        return reply(200, outcome)

    async def _spend(self, call: Call) -> None:
        """What every request costs."""
        paying = self._inquiries.spend_all(call, Cost())
        if paying is not None:
            await paying

    def _named(self, call: Call) -> tuple[str, str]:
        """Name and version of the model as the path has them; the only model when it has none."""
        values = call.values
        return (values[0] if values else self._lanes.only()), (values[1] if len(values) > 1 else "")

    def _lane(self, call: Call) -> Lane:
        lane: Lane | None = call.lane or self._lanes.find(*self._named(call))
        if lane is None:
            raise RequestError(404, "there is nothing here", reason="no such model, or no such version of it")
        return lane

    async def _held(self, inquiry: Inquiry) -> Reply:
        """Keep the answer back until a person has looked."""
        call, cases = inquiry.call, inquiry.call.front.cases
        if cases is None:
            raise RequestError(422, UNANSWERED, reason="held, and there is nobody to look")
        await call.apart()
        told = await cases.hold(inquiry.asked, inquiry.answer, call.exchange.passage)
        return reply(202, told, {"location": f"/v2/holds/{told['case']}"})

    def _beside(self, inquiry: Inquiry) -> dict[str, Any] | None:
        """What stands beside every answer: words for users, and that it is not the model's when it is not."""
        told = inquiry.lane.door.admission.told
        beside: dict[str, Any] = {**told.beside, "notice": "/notice"} if told else {}
        if inquiry.call.exchange.source in {"fallback", "rule"}:
            beside["answered_by"] = inquiry.call.exchange.source
        return beside or None


_ABOUT_MODELS = frozenset({"metadata", "infer", "explain", "predict", "model_ready"})


__all__ = ["NOTICE_HEADER", "Desk"]

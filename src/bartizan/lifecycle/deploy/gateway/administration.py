"""The control plane: how the gateway stands, and acts of administration, on a listener of their own.

It is the same application as the data plane with another table of routes: whoever asks is recognised, admitted and
recorded in the same way. Acts (``admin.*``) need a second factor unless the policy says otherwise; what a scraper of
metrics or a probe reads (``metrics``, ``status``) does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from bartizan.core.digest import Digest
from bartizan.core.errors import BartizanError
from bartizan.lifecycle.deploy.gateway.application import Call
from bartizan.lifecycle.deploy.gateway.asgi import Bodies, Reply, reply
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.routes import OPEN, Route
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes

ROUTES = (
    Route("GET", "/admin/live", "live", OPEN, "Whether the server runs"),
    Route("GET", "/admin/status", "status", "status", "How every model stands, and why"),
    Route("GET", "/metrics", "metrics", "metrics", "Numbers for Prometheus"),
    Route("POST", "/admin/verify", "verify", "admin.verify", "Verify everything soon"),
    Route("POST", "/admin/models/{model}/withdraw", "withdraw", "admin.withdraw", "Take a model out of service"),
    Route("POST", "/admin/models/{model}/restore", "restore", "admin.restore", "Put it back"),
    Route("POST", "/admin/models/{model}/drill", "drill", "admin.drill", "Try what answers when it is out"),
)
MOST_REASON = 500


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an act of administration is told."""

    reason: str


_ACT = msgspec.json.Decoder(Act)


class Backstage(Protocol):
    """What administration needs done beside the event loop."""

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of ``/metrics``."""

    async def state(self, lane: Lane, action: str, reason: str, *, by: str) -> Digest:
        """Leave a statement of what was done with a model. Raises BartizanError."""

    async def drill(self, lane: Lane, *, by: str) -> Mapping[str, Any]:
        """Ask what stands in for a model, as if it were out, and leave a statement of what came of it."""

    def happened(self, what: str, to: str, detail: str) -> None:
        """Tell whoever listens."""


class Administration:
    """Answers the routes of the control plane."""

    def __init__(
        self, lanes: Lanes, bodies: Bodies, backstage: Backstage, describe: Callable[[], dict[str, Any]]
    ) -> None:
        self._lanes, self._bodies, self._backstage, self._describe = lanes, bodies, backstage, describe

    def handlers(self) -> Mapping[str, Callable[[Call], Awaitable[Reply]]]:
        """By the names that routes have."""
        return {route.handler: getattr(self, route.handler) for route in ROUTES}

    def model_of(self, call: Call) -> tuple[str, Digest]:
        """Name of the model that a call is about, and its digest."""
        if not call.values:
            return "", Digest("")
        lane = self._lanes.named(call.values[0])
        return call.values[0], (lane.door.digest if lane else None) or Digest("")

    async def live(self, call: Call) -> Reply:
        """Whether the server runs."""
        del call
        return reply(200, {"live": True})

    async def status(self, call: Call) -> Reply:
        """How every model stands, and why."""
        models = [_standing(lane) for lane in self._lanes]
        return reply(200, {"configuration": call.front.configuration, "models": models} | self._describe())

    async def metrics(self, call: Call) -> Reply:
        """Numbers for Prometheus."""
        kind, body = self._backstage.exposition(call.headers.get(b"accept", b"").decode("latin-1"))
        return Reply(200, body, kind=kind.encode("latin-1"))

    async def verify(self, call: Call) -> Reply:
        """Have everything verified soon."""
        del call
        for lane in self._lanes:
            lane.door.wake.set()
        return reply(202, {"verifying": True})

    async def withdraw(self, call: Call) -> Reply:
        """Take a model out of service until it is put back, whatever the ledger says."""
        lane, act = self._lane(call), await self._act(call)
        lane.door.withdraw(f"withdrawn: {act.reason}")
        return await self._done(call, lane, "stop", act)

    async def restore(self, call: Call) -> Reply:
        """Put a model back that was withdrawn here; it is in service when it is verified."""
        lane, act = self._lane(call), await self._act(call)
        lane.door.restore()
        return await self._done(call, lane, "activate", act)

    async def drill(self, call: Call) -> Reply:
        """Try what answers when a model is out."""
        lane = self._lane(call)
        return reply(200, await self._backstage.drill(lane, by=call.exchange.caller.id))

    async def _done(self, call: Call, lane: Lane, action: str, act: Act) -> Reply:
        """Leave a statement; what was done is done, whether it can be stated or not."""
        call.exchange.reason = act.reason
        self._backstage.happened("withdrawn" if action == "stop" else "restored", lane.name, act.reason)
        try:
            said = await self._backstage.state(lane, action, act.reason, by=call.exchange.caller.id)
        except BartizanError as error:
            return reply(200, _standing(lane) | {"statement": None, "trouble": error.message})
        return reply(200, _standing(lane) | {"statement": said})

    def _lane(self, call: Call) -> Lane:
        lane = self._lanes.named(call.values[0])
        if lane is None:
            raise RequestError(404, "there is nothing here", reason="no such model")
        return lane

    async def _act(self, call: Call) -> Act:
        body = await self._bodies.read(call.receive)
        try:
            act = _ACT.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(400, 'acts are {"reason": "..."}', reason=str(error)) from error
        if not 1 <= len(act.reason.strip()) <= MOST_REASON:
            raise RequestError(400, f"a reason has 1 to {MOST_REASON} characters")
        return act


def _standing(lane: Lane) -> dict[str, Any]:
    door = lane.door
    return {
        "model": lane.name,
        "digest": door.digest,
        "ready": not door.reason,
        "reason": door.reason,
        "fallback": lane.settings.fallback,
        "guards": list(door.guards),
        "verified": door.admission.at.isoformat(),
        "findings": [
            {"condition": item.condition, "artefact": item.artefact, "met": item.met, "reason": item.reason}
            for item in door.admission.findings
        ],
    }


__all__ = ["ROUTES", "Administration", "Backstage"]

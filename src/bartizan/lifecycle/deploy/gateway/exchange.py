"""One request and what became of it: filled in on the way, and turned into the record that is kept."""

from __future__ import annotations

import itertools
import secrets
import time

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS, Caller
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Action
from bartizan.lifecycle.deploy.gateway.pipeline import Passage

DECISIONS = {
    Action.ALLOW: "answered",
    Action.FLAG: "answered",
    Action.COARSEN: "coarsened",
    Action.HOLD: "held",
    Action.THROTTLE: "throttled",
    Action.REFUSE: "refused",
}
NOBODY = Caller(id="unknown", role="", method="anonymous")
"""Whoever was not recognised."""
_REPLICA = secrets.token_hex(5)
_NUMBERS = itertools.count()


class Exchange:
    """See the module. Written by the application alone."""

    caller = NOBODY
    model = detail = source = input = output = signed_by = content = decision = reason = ""
    digest = Digest("")
    rows = 0
    body: bytes | None = None
    """Of the request, for the log to keep where the configuration says so."""

    def __init__(self, operation: str, configuration: Digest) -> None:
        self._began = time.perf_counter_ns()
        self.at = time.time_ns()
        self.now = self.at / 1e9
        """Seconds since the epoch at which the request was read."""
        self.id = f"{self.at:016x}-{_REPLICA}-{next(_NUMBERS):x}"
        self.operation, self.configuration = operation, configuration
        self.passage = Passage()

    @property
    def microseconds(self) -> int:
        """Since the request was read."""
        return (time.perf_counter_ns() - self._began) // 1000

    def refused(self, error: RequestError) -> None:
        """It is not answered, and why."""
        self.reason = error.reason
        if not self.decision:
            action = self.passage.action
            stopped = DECISIONS[action] if action >= Action.THROTTLE else ""
            self.decision = stopped or _decision(error.status)

    def record(self, status: int) -> Record:
        """What is kept."""
        passage = self.passage
        reasons = (*passage.reasons, self.reason) if self.reason else tuple(passage.reasons)
        return Record(
            id=self.id,
            at=self.at,
            caller=self.caller.id,
            role=self.caller.role,
            method=self.caller.method,
            operation=self.operation,
            status=status,
            decision=self.decision or DECISIONS[passage.action],
            reasons=reasons,
            model=self.model,
            model_digest=self.digest,
            configuration=self.configuration,
            detail=self.detail,
            source=self.source,
            rows=self.rows,
            rulings=tuple(passage.rulings),
            input=self.input,
            output=self.output,
            signed_by=self.signed_by,
            microseconds=self.microseconds,
            content=self.content,
        )


def _decision(status: int) -> str:
    if status == 429:  # noqa: PLR2004 - too many requests
        return "throttled"
    return "failed" if status >= 500 else "refused"  # noqa: PLR2004 - ours


__all__ = ["ANONYMOUS", "DECISIONS", "NOBODY", "Exchange"]

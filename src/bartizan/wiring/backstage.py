"""What administration needs done beside the event loop: statements, drills, numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np

from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.statement import make
from bartizan.lifecycle.deploy.gateway.guard import Answer
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes
from bartizan.lifecycle.deploy.gateway.telemetry.port import Telemetry
from bartizan.wiring.serving import PLACE
from bartizan.wiring.workspace import Workspace, load

DRILL = "gateway.fallback-drill"
VERSION = "1"
DRILL_COUNTS = timedelta(days=92)
"""A drill is due again after a quarter of a year."""


class Behind:
    """See ``administration.Backstage``."""

    def __init__(self, workspace: Workspace, lanes: Lanes, telemetry: Callable[[], Telemetry]) -> None:
        # the ledger is written on another thread than the one that verifies
        self._workspace = Workspace(workspace.folder, clock=workspace.clock, environment=workspace.environment)
        self._lanes, self._telemetry = lanes, telemetry

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """See ``Backstage.exposition``."""
        made = load("bartizan.adapters.telemetry.prometheus:Exposition")(self._telemetry().counters)
        kind, body = made.write(accept)
        return str(kind), bytes(body)

    def happened(self, what: str, to: str, detail: str) -> None:
        """See ``Backstage.happened``."""
        self._telemetry().happened(what, to, detail)

    async def state(self, lane: Lane, action: str, reason: str, *, by: str) -> Digest:
        """See ``Backstage.state``."""
        said = predicates.Deployment(
            action="stop" if action == "stop" else "activate",
            place=PLACE,
            inputs=_inputs(lane),
            details={"reason": reason, "by": by, "fallback": lane.settings.fallback},
        )
        return await asyncio.to_thread(self._publish, predicates.DEPLOYMENT, lane, said)

    async def drill(self, lane: Lane, *, by: str) -> Mapping[str, Any]:
        """See ``Backstage.drill``.

        What stands in is asked about a row of zeros: not whether it is right, but whether it answers, with a class
        that is declared.
        """
        answered, why = await self._tried(lane)
        said = predicates.TestResult(
            check=predicates.CheckRef(name=DRILL, version=VERSION),
            inputs=_inputs(lane),
            result="PASSED" if answered else "FAILED",
            passed_tests=(DRILL,) if answered else (),
            failed_tests=() if answered else (DRILL,),
            summary=f"{lane.name}, fallback {lane.settings.fallback}: {why}, asked by {by}",
            performed_at=self._workspace.clock(),
            valid_until=self._workspace.clock() + DRILL_COUNTS,
        )
        digest = await asyncio.to_thread(self._publish, predicates.TEST_RESULT, lane, said)
        return {"model": lane.name, "passed": answered, "answer": why, "statement": digest}

    async def _tried(self, lane: Lane) -> tuple[bool, str]:
        served = self._lanes.standing_in(lane)
        if served is None:
            return False, "nothing stands in for it"
        described = served.description
        given = served.host.answer(np.zeros((1, described.features), dtype=described.dtype), scores=False)
        answer = given if isinstance(given, Answer) else await given
        label = int(answer.labels[0])
        if not 0 <= label < len(described.classes):
            return False, "it answers with a class that there is not"
        return True, f"{described.name} answers {described.classes[label]}"

    def _publish(self, kind: str, lane: Lane, said: Any) -> Digest:
        subjects = {name: digest for name, digest in lane.door.admission.inputs.items() if _told(name, lane)}
        return self._workspace.publish(make(kind, subjects, said), self._workspace.service)


def _told(name: str, lane: Lane) -> bool:
    return name == f"model:{lane.name}" or name.startswith("document:")


def _inputs(lane: Lane) -> tuple[predicates.Input, ...]:
    return tuple(predicates.Input.of(name, digest) for name, digest in sorted(lane.door.admission.inputs.items()))


__all__ = ["DRILL", "Behind"]

"""Everything that waits for people, as the front of the gateway sees it. See ``front.Cases``."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bartizan.core.errors import BartizanError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.cases import Tally
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.holds import FULL, Holds
from bartizan.lifecycle.deploy.gateway.pipeline import Passage
from bartizan.lifecycle.deploy.gateway.review import Reviews
from bartizan.lifecycle.deploy.gateway.vault import Vault

SWEEP_SECONDS = 3_600.0
MOST_ASKING = 64
"""Callers whose cases are looked at or kept at the same time."""
_LOG = logging.getLogger("bartizan.gateway")


class Casework:
    """Holds and reviews. Used on the event loop; what blocks is done on a thread beside it."""

    def __init__(
        self,
        holds: Holds,
        reviews: Reviews,
        vault: Vault,
        clock: Callable[[], float] = time.time,
        ends: Callable[[], None] = lambda: None,
    ) -> None:
        """``ends`` lets go of what decisions are looked up in."""
        self._holds, self._reviews, self._store, self._clock = holds, reviews, vault.store, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holds")
        self._asking = 0
        self._ends = ends
        self._ended = threading.Event()
        threading.Thread(target=self._sweeping, name="review-sweep", daemon=True).start()

    async def hold(self, asked: Asked, answer: Answer, passage: Passage) -> Mapping[str, Any]:
        """See ``Cases.hold``.

        Raises:
            RequestError: it cannot be kept, so it is not answered.
        """
        held: Mapping[str, Any] = await self._beside(self._holds.hold, asked, answer, tuple(passage.reasons))
        return held

    async def outcome(self, case: str, caller: Caller) -> Mapping[str, Any] | None:
        """See ``Cases.outcome``.

        Raises:
            RequestError: it cannot be found out now.
        """
        found: Mapping[str, Any] | None = await self._beside(self._holds.outcome, case, caller, self._clock())
        return found

    def flag(self, asked: Asked, answer: Answer | None, passage: Passage) -> None:
        """See ``Cases.flag``. Raises RequestError when something that would be answered cannot be kept."""
        self._reviews.flag(asked, answer, tuple(passage.reasons), stopped=passage.action >= Action.THROTTLE)

    def answered(self, asked: Asked, answer: Answer) -> None:
        """See ``Cases.answered``: a sample of ordinary answers is kept for review."""
        self._reviews.answered(asked, answer)

    async def tallies(self) -> Mapping[str, Tally]:
        """How each queue stands: open, overdue, decided."""
        standing: Mapping[str, Tally] = await self._beside(self._store.tallies, int(self._clock() * 1000))
        return standing

    async def sweep(self) -> int:
        """Erase what has been kept for long enough, as is done every hour. Gives how many cases were emptied."""
        erased: int = await self._beside(self._swept)
        return erased

    def close(self) -> None:
        """Write what waits, and let go. Blocks."""
        self._ended.set()
        self._reviews.close()
        self._thread.shutdown(wait=True)
        self._store.close()
        self._ends()

    def _sweeping(self) -> None:
        """Erase every hour, as long as it is open."""
        while not self._ended.wait(SWEEP_SECONDS):
            try:
                self._swept()
            except BartizanError as error:
                _LOG.warning("%s", error.message)

    def _swept(self) -> int:
        now = int(self._clock() * 1000)
        return self._holds.sweep(now) + self._reviews.sweep(now)

    async def _beside(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._asking >= MOST_ASKING or self._ended.is_set():
            raise RequestError(503, FULL, headers={"retry-after": "1"}, reason="too many cases at once")
        self._asking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except BartizanError as error:
            raise RequestError(503, FULL, headers={"retry-after": "5"}, reason=error.message) from error
        finally:
            self._asking -= 1


__all__ = ["Casework"]

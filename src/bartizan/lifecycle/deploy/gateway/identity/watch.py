"""Keeps what is known of API keys fresh, beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bartizan.core.errors import BartizanError
from bartizan.lifecycle.deploy.gateway.identity.keys import DAY, ApiKeys, Change, Index, KeyStore, changes
from bartizan.lifecycle.deploy.gateway.state import SharedState

TOPIC = "gateway.keys"
"""On this, replicas tell each other that keys have changed. Nothing rests on its arrival: all of them poll."""
_LOG = logging.getLogger("bartizan.gateway")


class KeyWatch:
    """Polls the store of keys. A revocation is seen after ``seconds`` at the latest, and at once when it is told.

    ``changed`` hears of what became of keys, on the event loop, for the audit log.
    """

    def __init__(
        self,
        store: KeyStore,
        keys: ApiKeys,
        clock: Callable[[], float],
        *,
        seconds: float,
        state: SharedState | None = None,
        changed: Callable[[tuple[Change, ...]], None] = lambda _: None,
    ) -> None:
        self._store, self._keys, self._clock, self._seconds = store, keys, clock, seconds
        self._state = state
        self._changed = changed
        self._seen: int | None = None
        self._told = asyncio.Event()
        if state is not None:
            state.subscribe(TOPIC, lambda _: self._told.set())

    def load(self) -> None:
        """Look once; blocks. Done before the first request, so that a store out of reach stops the start.

        Raises:
            StoreError: the store is out of reach.
        """
        self._keys_are(*self._look())

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._told.wait()
            except TimeoutError:
                pass
            self._told.clear()
            await self.look()

    async def look(self) -> None:
        """Look once. While the store is out of reach, what is known counts on for a while."""
        try:
            self._keys_are(*await asyncio.to_thread(self._look))
        except BartizanError as error:
            _LOG.warning("the keys cannot be looked at: %s", error.message)

    async def announce(self) -> None:
        """Tell the other replicas that keys have changed, and look here."""
        if self._state is not None:
            try:
                await self._state.publish(TOPIC, b"")
            except BartizanError as error:
                _LOG.warning("other replicas will see the change later: %s", error.message)
        await self.look()

    def _look(self) -> tuple[int, Index | None]:
        """Blocks. The generation is read first: a change in between is seen the next time."""
        if used := self._keys.take_used():
            self._store.used(used, int(self._clock()) // DAY)
        generation = self._store.generation()
        return generation, None if generation == self._seen else Index(self._store.keys())

    def _keys_are(self, generation: int, index: Index | None) -> None:
        if index is None:
            self._keys.confirm(self._clock())
        else:
            before, first = self._keys.index, self._seen is None
            self._keys.learn(index, self._clock())
            self._seen = generation
            if not first and (found := changes(before, index)):
                self._changed(found)


__all__ = ["TOPIC", "KeyWatch"]

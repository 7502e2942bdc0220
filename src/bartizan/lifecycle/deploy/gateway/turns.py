"""Requests that are under way at the same time take each step together.

The way of a request is some hundreds of short functions. Gone from end to end for one request after the other, none of
them is still in the caches of the processor, or known to its branch predictor, when the next request comes to it: the
way takes two to three times as long as the sum of its steps. So those that come while others are under way wait for
one another at the turnstile, go on as one company, and give way to one another between steps: each step is taken for
all of them in a row. Giving way costs about a microsecond. What is recorded together is written to disk together, and
their rows are put to the model in one call.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator

PATIENCE = 0.01
"""Seconds after which a company is not waited for any longer: one of it waits for something else."""
QUIET_TURNS = 4
"""Turns of the loop, some ten microseconds each, in which nobody has come before a company begins."""
ENOUGH = 64
"""A company of so many waits for nobody else."""


class Shared(asyncio.Future[None]):
    """One future for many who wait.

    Who stops waiting must not stop the others, so it cannot be cancelled: a cancelled request ends when it has come
    to pass.
    """

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - the shape of a future
        """Never."""
        return False


@types.coroutine
def turn() -> Generator[None]:
    """Let the others that are ready come as far as this one."""
    yield


class Company:
    """Requests that go on together."""

    __slots__ = ("ahead", "start")

    def __init__(self, start: Shared) -> None:
        self.start = start
        self.ahead = 0
        """Of it, those that have not come through yet."""


class Turnstile:
    """Lets requests on, a company at a time. Used on one event loop."""

    def __init__(self) -> None:
        self._under_way: Company | None = None
        self._next: Company | None = None
        self._seen = self._quiet = 0

    async def join(self) -> Company:
        """Wait for the company that is under way, if there is one; gives the own one."""
        own = self._next
        if own is None:
            loop = asyncio.get_running_loop()
            own = self._next = Company(Shared(loop=loop))
            if self._under_way is None:
                loop.call_soon(self._look)
        own.ahead += 1
        try:
            await own.start
        except BaseException:
            self.leave(own)
            raise
        return own

    def leave(self, company: Company) -> None:
        """Come through, or wait for something else: the next company need not wait for it."""
        company.ahead -= 1
        if not company.ahead:
            self._let_go(company)

    def _look(self) -> None:
        """Begin, once nobody has come for a few turns of the loop: of those who come at once, none goes alone."""
        company = self._next
        if company is None or self._under_way is not None:
            return
        if company.ahead != self._seen:
            self._seen, self._quiet = company.ahead, 0
        self._quiet += 1
        if self._quiet > QUIET_TURNS or company.ahead >= ENOUGH:
            self._open()
        else:
            company.start.get_loop().call_soon(self._look)

    def _open(self) -> None:
        company = self._next
        if company is None:
            return
        self._seen = self._quiet = 0
        self._under_way, self._next = company, None
        company.start.set_result(None)
        company.start.get_loop().call_later(PATIENCE, self._let_go, company)

    def _let_go(self, company: Company) -> None:
        if company is self._under_way:
            self._under_way = None
            self._look()


__all__ = ["PATIENCE", "Company", "Shared", "Turnstile", "turn"]

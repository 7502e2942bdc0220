"""Requests that are under way at the same time take each step together.

The way of a request is some hundreds of short functions. Gone from end to end for one request after the other, none of
them is still in the caches of the processor, or known to its branch predictor, when the next request comes to it: the
way takes two to three times as long as the sum of its steps. So those that come while others are under way wait for
one another at the turnstile, go on as one company, and give way to one another between steps: each step is taken for
all of them in a row. What is recorded together is written to disk together, and their rows are put to the model in one
call.

A request is a coroutine, and asyncio runs a coroutine as a task: two microseconds to make, two for each time that it
gives way. The server may hand its coroutines to the turnstile instead (``Turnstile.begin``), which leads them itself as
long as they wait for one another alone. One that waits for anything else becomes a task and stays one; ``apart`` says
so beforehand, where what comes next asks which task it is in (timeouts do). Who is led need not even be woken for steps
that are functions (``Turnstile.walk``).
"""

from __future__ import annotations

import asyncio
import collections.abc
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, final

PATIENCE = 0.01
"""Seconds after which a company is not waited for any longer: one of it waits for something else."""
QUIET_TURNS = 4
"""Turns of the loop, some ten microseconds each, in which nobody has come before a company begins."""
ENOUGH = 64
"""A company of so many waits for nobody else."""
STRETCH = 0.002
"""Seconds after which those who are led let the loop look after everybody else."""
TICK = 0.01
"""Seconds between two looks for those who are still on their way in the end."""
Led = Coroutine[Any, Any, Any]
"""A coroutine that the turnstile leads."""
Step = Callable[[Any], Awaitable[None] | None]
"""A function of what a request is about. Gives what has to be waited for before the next step, if anything has."""


@final
class Shared(asyncio.Future[None]):
    """One future for many who wait.

    Who stops waiting must not stop the others, so it cannot be cancelled: a cancelled request ends when it has come
    to pass.
    """

    _led: dict[Turnstile, list[Led | _Walk]] | None = None

    def wait(self, turnstile: Turnstile, each: Led) -> None:
        """Have somebody who is led wait for it, as a task would."""
        self._asyncio_future_blocking = False
        if self._led is None:
            self._led = {}
        led = self._led.setdefault(turnstile, [])
        if not led:
            self.add_done_callback(lambda _: turnstile.lead(led))
        led.append(each)

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - the shape of a future
        """Never."""
        return False


@types.coroutine
def turn() -> Generator[None]:
    """Let the others that are ready come as far as this one."""
    yield


@final
class Company:
    """Requests that go on together."""

    __slots__ = ("ahead", "led", "start")

    def __init__(self, start: Shared) -> None:
        self.start = start
        self.led: list[Led | _Walk] = []
        self.ahead = 0
        """Of it, those that have not come through yet."""

    def __await__(self) -> Generator[Company]:
        """For those who are led: be put into it, and go on when it does."""
        yield self


@final
class _Walk:
    """Steps that are taken for a coroutine while it waits. Gives what it has to wait for itself, after step ``at``."""

    __slots__ = ("at", "coroutine", "end", "steps", "subject")

    coroutine: Led

    def __init__(self, steps: Sequence[Step], subject: object) -> None:
        self.steps, self.subject = steps, subject
        self.at, self.end = 0, len(steps)

    def __await__(self) -> Generator[_Walk, Awaitable[None] | None, Awaitable[None] | None]:
        return (yield self)


class _Apart:
    """Asked for by who wants to be a task."""

    def __await__(self) -> Generator[_Apart]:
        yield self


_APART = _Apart()


class _Onwards(collections.abc.Coroutine[Any, Any, Any]):
    """What is left of a coroutine, to be run as a task; ``met`` is what it waits for already."""

    __slots__ = ("_coroutine", "_met")

    def __init__(self, coroutine: Led, met: object) -> None:
        self._coroutine, self._met = coroutine, met

    def send(self, value: Any) -> Any:
        met, self._met = self._met, None
        return self._coroutine.send(value) if met is None else met

    def throw(self, *raised: Any) -> Any:
        self._met = None
        return self._coroutine.throw(*raised)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


class Turnstile:
    """Lets requests on, a company at a time. Used on one event loop."""

    def __init__(self) -> None:
        self._under_way: Company | None = None
        self._next: Company | None = None
        self._seen = self._quiet = 0
        self._begun: list[Led | _Walk] = []
        self.leads = False
        """Whether whoever runs now is led."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """Those who were led once, and are tasks now."""
        self._on_their_way = 0
        """Those who are led."""

    # ---- for the server

    def begin(self, coroutine: Led, tasks: set[asyncio.Task[Any]] | None = None) -> None:
        """Lead a coroutine, together with those that begin in the same turn of the loop.

        ``tasks``: where the server looks for what it has to wait for in the end, once it has become a task.
        """
        if tasks is not None:
            self._tasks = tasks
        self._on_their_way += 1
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._begin)
        self._begun.append(coroutine)

    async def through(self, seconds: float) -> bool:
        """Wait until nobody is led any more, for so long; whether that came to pass."""
        until = time.monotonic() + seconds
        while self._on_their_way and time.monotonic() < until:  # noqa: ASYNC110 - once, in the end
            await asyncio.sleep(TICK)
        return not self._on_their_way

    # ---- for requests

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
            await (own if self.leads else own.start)
        except BaseException:
            self.leave(own)
            raise
        return own

    async def walk(self, steps: Sequence[Step], subject: object) -> None:
        """Take each step together with those who are as far.

        Raises:
            Exception: what a step raises.
        """
        at = 0
        if self.leads:
            walk = _Walk(steps, subject)
            waits = await walk
            if waits is None:
                return
            await waits
            at = walk.at
        for step in steps[at:]:
            found = step(subject)
            if found is not None:
                await found
            await turn()

    async def apart(self) -> None:
        """Be a task from here on."""
        if self.leads:
            await _APART

    def leave(self, company: Company) -> None:
        """Come through, or wait for something else: the next company need not wait for it."""
        company.ahead -= 1
        if not company.ahead:
            self._let_go(company)

    # ---- companies

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
        loop = company.start.get_loop()
        if company.led:
            loop.call_soon(self.lead, company.led)
        loop.call_later(PATIENCE, self._let_go, company)

    def _let_go(self, company: Company) -> None:
        if company is self._under_way:
            self._under_way = None
            self._look()

    # ---- leading

    def _begin(self) -> None:
        begun, self._begun = self._begun, []
        self.lead(begun)

    def lead(self, ready: list[Led | _Walk]) -> None:
        """Take step after step with all of them, until each waits for something or has ended."""
        until = time.monotonic() + STRETCH
        self.leads = True
        try:
            while ready:
                ready = self._step(ready)
                if ready and time.monotonic() > until:
                    asyncio.get_running_loop().call_soon(self.lead, ready)
                    return
        finally:
            self.leads = False

    def _step(self, ready: list[Led | _Walk]) -> list[Led | _Walk]:
        """One step with each; gives those that have another one before them."""
        on: list[Led | _Walk] = []
        for each in ready:
            if type(each) is not _Walk:  # nothing is made of it; a look at ancestors takes longer
                self._wake(each, None, None, on)
                continue
            try:
                waits = each.steps[each.at](each.subject)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - theirs, and no reason to lose the others
                self._wake(each.coroutine, None, error, on)
                continue
            each.at += 1
            if waits is not None:
                self._wake(each.coroutine, waits, None, on)
            elif each.at < each.end:
                on.append(each)
            else:
                on.append(each.coroutine)
        return on

    def _wake(self, each: Led, value: Any, error: BaseException | None, on: list[Led | _Walk]) -> None:
        """Let a coroutine go on, until it gives way or waits."""
        try:
            met = each.send(value) if error is None else each.throw(error)
        except StopIteration:
            self._on_their_way -= 1
            return
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:  # noqa: BLE001 - theirs; the others go on
            self._on_their_way -= 1
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a request that was led has failed", "exception": raised}
            )
            return
        if met is None:
            on.append(each)
        elif type(met) is _Walk:
            met.coroutine = each
            on.append(met)
        elif type(met) is Company:
            met.led.append(each)
        elif type(met) is Shared:
            met.wait(self, each)
        else:
            self._on_their_way -= 1
            task = asyncio.get_running_loop().create_task(_Onwards(each, None if met is _APART else met))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


__all__ = ["PATIENCE", "Company", "Shared", "Turnstile", "turn"]

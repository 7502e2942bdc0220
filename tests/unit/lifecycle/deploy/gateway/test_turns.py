from __future__ import annotations

import asyncio

import pytest

from bartizan.lifecycle.deploy.gateway.turns import PATIENCE, Shared, Turnstile, turn


async def going(turnstile, name, steps, told, leaves=True):
    company = await turnstile.join()
    for step in range(steps):
        told.append((step, name))
        await turn()
    if leaves:
        turnstile.leave(company)
    return company


def test_each_step_is_taken_by_all_before_the_next():
    told = []

    async def run():
        turnstile = Turnstile()
        await asyncio.gather(*(going(turnstile, name, 5, told) for name in range(8)))

    asyncio.run(run())
    assert told == sorted(told)
    assert len(told) == 40


def test_those_who_come_meanwhile_go_on_together_afterwards():
    async def run():
        turnstile = Turnstile()
        first = asyncio.create_task(going(turnstile, "first", 50, []))
        await asyncio.sleep(0)
        later = []
        for name in range(6):
            for _ in range(6):
                await asyncio.sleep(0)
            later.append(asyncio.create_task(going(turnstile, name, 3, [])))
        companies = await asyncio.gather(first, *later)
        assert companies[0] not in companies[1:]
        assert len(set(companies[1:])) == 1
        assert all(company.ahead == 0 for company in companies)

    asyncio.run(run())


@pytest.mark.parametrize("lost", [1, 3])
def test_nobody_waits_long_for_one_who_does_not_come_through(lost):
    async def run():
        turnstile = Turnstile()
        stuck = [asyncio.create_task(going(turnstile, name, 1, [], leaves=False)) for name in range(lost)]
        await asyncio.wait(stuck)
        await asyncio.wait_for(going(turnstile, "next", 1, []), 100 * PATIENCE)
        # and who comes through after all disturbs nobody
        for task in stuck:
            turnstile.leave(task.result())
        await asyncio.wait_for(going(turnstile, "last", 1, []), 100 * PATIENCE)

    asyncio.run(run())


def test_who_stops_waiting_stops_nobody_else():
    async def run():
        turnstile = Turnstile()
        tasks = [asyncio.create_task(going(turnstile, name, 1, [])) for name in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 100 * PATIENCE)
        assert isinstance(done[1], asyncio.CancelledError)
        assert done[0] is done[2]
        assert done[0].ahead == 0
        await asyncio.wait_for(going(turnstile, "next", 1, []), 100 * PATIENCE)

    asyncio.run(run())


# ---- led by the turnstile, without tasks


async def through(turnstile, *coroutines):
    """Lead them to their ends."""
    ends = [asyncio.get_running_loop().create_future() for _ in coroutines]

    async def ended(coroutine, end):
        try:
            await coroutine
        finally:
            end.set_result(None)

    for coroutine, end in zip(coroutines, ends, strict=True):
        turnstile.begin(ended(coroutine, end))
    await asyncio.gather(*ends)


def led(*coroutines, turnstile):
    asyncio.run(through(turnstile, *coroutines))


def test_led_requests_take_each_step_together_too():
    told, turnstile = [], Turnstile()
    led(*(going(turnstile, name, 5, told) for name in range(8)), turnstile=turnstile)
    assert told == sorted(told)
    assert len(told) == 40


def test_led_requests_and_tasks_go_in_one_company():
    companies = []

    async def goes(turnstile, name):
        companies.append(await going(turnstile, name, 3, []))

    async def run():
        turnstile = Turnstile()
        tasks = [asyncio.create_task(goes(turnstile, name)) for name in range(3)]
        await through(turnstile, *(goes(turnstile, name) for name in range(3)))
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert len(companies) == 6
    assert len(set(companies)) == 1


def test_who_is_led_waits_for_what_is_shared_and_for_anything_else():
    turnstile, told = Turnstile(), []

    async def waits(name, shared):
        await shared
        told.append(("shared", name, turnstile.leads))
        await asyncio.sleep(0.01)
        told.append(("slept", name, turnstile.leads))
        async with asyncio.timeout(1):
            await turn()
        told.append(("timed", name, turnstile.leads))

    async def run():
        shared = Shared(loop=asyncio.get_running_loop())
        asyncio.get_running_loop().call_later(0.01, shared.set_result, None)
        await through(turnstile, *(waits(name, shared) for name in range(3)))

    asyncio.run(run())
    assert [what for what, _, _ in told[:3]] == ["shared"] * 3
    assert [is_led for _, _, is_led in told] == [True] * 3 + [False] * 6


def test_who_wants_a_timeout_becomes_a_task_first():
    turnstile, told = Turnstile(), []

    async def timed():
        await turnstile.apart()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(1)
        told.append(asyncio.current_task() is not None)

    led(timed(), timed(), turnstile=turnstile)
    assert told == [True, True]


def test_a_failed_shared_wait_and_a_cancelled_task_are_heard_of():
    turnstile, told = Turnstile(), []

    async def waits(shared):
        try:
            await shared
        except OSError as error:
            told.append(str(error))

    async def cancelled():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def run():
        shared = Shared(loop=asyncio.get_running_loop())
        turnstile.begin(waits(shared))
        turnstile.begin(cancelled())
        await asyncio.sleep(0.001)
        shared.set_exception(OSError("full"))
        await asyncio.sleep(0.001)
        for task in list(turnstile._tasks):
            task.cancel()
        await asyncio.sleep(0.001)

    asyncio.run(run())
    assert told == ["full", "cancelled"]


@pytest.mark.parametrize("is_led", [True, False])
def test_steps_are_taken_together_and_waited_for_where_they_say(is_led):
    turnstile, told = Turnstile(), []

    def first(name):
        told.append(("first", name))

    def second(name):
        told.append(("second", name))
        return slowly(name) if name == 1 else None

    async def slowly(name):
        await turnstile.apart()
        await asyncio.sleep(0.01)
        told.append(("waited", name))

    def third(name):
        told.append(("third", name))
        if name == 2:
            raise ValueError(name)

    async def request(name):
        await turnstile.join()
        try:
            await turnstile.walk((first, second, third), name)
        except ValueError:
            told.append(("failed", name))

    if is_led:
        led(*(request(name) for name in range(4)), turnstile=turnstile)
    else:

        async def run():
            await asyncio.gather(*(request(name) for name in range(4)))

        asyncio.run(run())
    assert told[:8] == [(step, name) for step in ("first", "second") for name in range(4)]
    assert sorted(told[8:12]) == [("failed", 2), ("third", 0), ("third", 2), ("third", 3)]
    assert told[12:] == [("waited", 1), ("third", 1)]


def test_one_that_breaks_breaks_no_other(caplog):
    turnstile = Turnstile()

    async def breaks():
        await turnstile.join()
        raise RuntimeError("broken")

    async def goes():
        await turnstile.join()
        await turn()

    async def run():
        turnstile.begin(breaks())
        await through(turnstile, goes())

    asyncio.run(run())
    assert "led has failed" in caplog.text


class Panic(BaseException):
    """No ``Exception``, as what extensions in other languages raise."""


def test_a_step_that_breaks_in_any_way_loses_nobody_else():
    turnstile, told = Turnstile(), []

    def step(name):
        if name == 1:
            raise Panic
        told.append(name)

    async def request(name):
        await turnstile.join()
        try:
            await turnstile.walk((step,), name)
        except Panic:
            told.append("panic")

    led(*(request(name) for name in range(4)), turnstile=turnstile)
    assert sorted(map(str, told)) == ["0", "2", "3", "panic"]


def test_who_becomes_a_task_is_told_to_the_server_and_the_others_can_be_waited_for():
    turnstile, tasks = Turnstile(), set()

    async def sleeps():
        await asyncio.sleep(0.02)

    async def run():
        shared = Shared(loop=asyncio.get_running_loop())

        async def waits():
            await shared

        turnstile.begin(sleeps(), tasks)
        turnstile.begin(waits(), tasks)
        await asyncio.sleep(0.001)
        assert len(tasks) == 1
        assert not await turnstile.through(0.02)
        shared.set_result(None)
        assert await turnstile.through(10)
        await asyncio.gather(*tasks)
        assert not tasks

    asyncio.run(run())


def test_two_turnstiles_share_a_wait_and_lead_their_own():
    ours, theirs, told = Turnstile(), Turnstile(), []

    async def waits(turnstile, other, shared):
        await shared
        told.append((turnstile.leads, other.leads))

    async def run():
        shared = Shared(loop=asyncio.get_running_loop())
        asyncio.get_running_loop().call_later(0.001, shared.set_result, None)
        await asyncio.gather(through(ours, waits(ours, theirs, shared)), through(theirs, waits(theirs, ours, shared)))

    asyncio.run(run())
    assert told == [(True, False), (True, False)]

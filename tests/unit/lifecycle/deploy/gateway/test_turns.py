from __future__ import annotations

import asyncio

import pytest

from bartizan.lifecycle.deploy.gateway.turns import PATIENCE, Turnstile, turn


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

"""Callers who are flagged are slowed within a stated number of requests, at all replicas; others are not."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit.record import Record, Ruling
from bartizan.lifecycle.deploy.gateway.budgets import Slowing, SlowingSettings
from bartizan.lifecycle.deploy.gateway.budgets.refusal import slowed
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action
from bartizan.stores.shared import MemoryState, open_state

ANA = Caller(id="key:ana", role="user", method="key", attributes={"organisation": "acme"})
BEN = Caller(id="key:ben", role="user", method="key", attributes={"organisation": "acme"})
BEGAN = 1_795_000_000.0


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


async def admitted(slowing, caller=ANA):
    said = slowing.admit(caller)
    return said if isinstance(said, float) else await said


async def told(slowing):
    """Let what is being told to other replicas arrive."""
    while slowing._tasks:
        await asyncio.wait(set(slowing._tasks))


def made(clock=None, state=None, **settings):
    clock = clock or Clock()
    return Slowing(SlowingSettings(**settings), state or MemoryState(clock, began=BEGAN), steady=clock)


@pytest.mark.parametrize("after", [1, 5, 20])
def test_a_flagged_identity_is_slowed_within_n_requests(after):
    async def work():
        clock = Clock()
        slowing = made(clock, after=after)
        asked = 0
        while not await admitted(slowing):
            slowing.heard(ANA, Action.FLAG)
            await told(slowing)
            asked += 1
        # From now on one request is let by in every pause, however many are sent.
        let_by = 0
        for _ in range(200):
            clock.now += 0.1
            let_by += await admitted(slowing) == 0
        return asked, let_by, await admitted(slowing, BEN)

    asked, let_by, other = asyncio.run(work())
    assert asked == after + 1, "the first after it was flagged so often begins the pause"
    assert let_by <= 20 / 2.0 + 1
    assert other == 0


def test_the_pause_grows_and_ends_somewhere():
    async def work():
        slowing = made(after=5, pause=2.0, longest=60.0)
        pauses = []
        for _ in range(60):
            slowing.heard(ANA, Action.FLAG)
            await told(slowing)
            pauses.append(slowing.pause(ANA.id))
        return pauses

    pauses = asyncio.run(work())
    assert pauses[:5] == [0, 0, 0, 0, pytest.approx(2.0)]
    assert pauses[9] == pytest.approx(4.0)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0


def test_who_is_flagged_now_and_then_among_many_is_not_slowed():
    """A hundred thousand requests with one flagged in a thousand at random, as guards promise of benign callers."""

    async def work():
        slowing = made()
        dice = np.random.default_rng(20261121)
        slow = 0
        for flagged in dice.random(100_000) < 0.001:
            slowing.heard(ANA, Action.FLAG if flagged else Action.ALLOW)
            if flagged:
                await told(slowing)
            slow += slowing.pause(ANA.id) > 0
        await told(slowing)
        return slow

    assert asyncio.run(work()) == 0


def test_hiding_among_clean_requests_has_its_price():
    """With pardon 0.02 an attack needs fifty clean requests for each that is flagged, or it is slowed."""

    async def work(clean):
        slowing = made()
        for number in range(1, 4000):
            flagged = number % (clean + 1) == 0
            slowing.heard(ANA, Action.FLAG if flagged else Action.ALLOW)
            if flagged:
                await told(slowing)
            if slowing.pause(ANA.id):
                return number
        await told(slowing)
        return 0

    assert 0 < asyncio.run(work(1)) <= 12
    assert 0 < asyncio.run(work(20)) < 300
    assert asyncio.run(work(51)) == 0


def test_everything_is_forgiven_in_the_end():
    async def work():
        clock = Clock()
        slowing = made(clock, forgotten="10min")
        for _ in range(6):
            slowing.heard(ANA, Action.REFUSE)
        await told(slowing)
        before = slowing.pause(ANA.id)
        clock.now += 601
        return before, slowing.pause(ANA.id)

    before, after = asyncio.run(work())
    assert before > 0
    assert after == 0


def test_a_person_can_pardon_at_once():
    async def work():
        slowing = made()
        for _ in range(6):
            slowing.heard(ANA, Action.FLAG)
        await told(slowing)
        before = slowing.pause(ANA.id)
        await slowing.pardon(ANA)
        slowing.heard(ANA, Action.FLAG)
        await told(slowing)
        return before, slowing.pause(ANA.id), await admitted(slowing)

    before, after, wait = asyncio.run(work())
    assert before > 0
    assert after == wait == 0


def test_accounts_of_one_organisation_stand_together():
    async def work():
        slowing = made(per="attribute:organisation")
        for number in range(5):
            account = msgspec.structs.replace(ANA, id=f"key:{number}")
            await admitted(slowing, account)
            slowing.observed(record(account, "flag"))
            await told(slowing)
        return slowing.pause("acme"), [await admitted(slowing, caller) > 0 for caller in (ANA, BEN)]

    pause, waits = asyncio.run(work())
    assert pause > 0
    assert waits == [False, True], "one request of both together in a pause"


def record(caller, action, *, shadow=False):
    ruling = Ruling(guard="sequence", action=action, shadow=shadow)
    return Record(
        id="r",
        at=0,
        caller=caller.id,
        role=caller.role,
        method="key",
        operation="infer",
        status=200,
        decision="answered",
        rulings=(ruling,),
    )


def test_what_guards_say_on_trial_does_not_count():
    async def work():
        slowing = made()
        for _ in range(50):
            slowing.observed(record(ANA, "refuse", shadow=True))
            slowing.observed(record(BEN, "refuse"))
            await told(slowing)
        return slowing.pause(ANA.id), slowing.pause(BEN.id)

    trial, enforced = asyncio.run(work())
    assert trial == 0
    assert enforced > 0


def test_replicas_add_into_one_sum(valkey_server):
    """An attack whose requests a balancer spreads over three replicas is slowed at all of them."""

    async def work():
        states = [open_state(valkey_server.url) for _ in range(3)]
        replicas = [Slowing(SlowingSettings(after=6), state) for state in states]
        for state in states:
            await state.count("met", 1, lasts=1)
        await asyncio.sleep(0.2)
        for number in range(6):
            replicas[number % 3].heard(ANA, Action.FLAG)
            await told(replicas[number % 3])
        for _ in range(100):
            await asyncio.sleep(0.02)
            if all(each.pause(ANA.id) for each in replicas):
                break
        pauses = [each.pause(ANA.id) for each in replicas]
        let_by = sum([await admitted(each) == 0 for each in replicas * 3])
        for state in states:
            await state.close()
        return pauses, let_by

    pauses, let_by = asyncio.run(work())
    assert all(pauses)
    assert let_by == 1


def test_without_the_shared_state_a_replica_slows_by_itself():
    class Gone(MemoryState):
        async def count(self, *_args, **_how):
            raise StoreError("out of reach")

        lease = count

    async def work():
        clock = Clock()
        slowing = made(clock, Gone(clock, began=BEGAN))
        for _ in range(6):
            slowing.heard(ANA, Action.FLAG)
            await told(slowing)
        let_by = 0
        for _ in range(100):
            clock.now += 0.1
            let_by += await admitted(slowing) == 0
        return let_by

    assert 1 <= asyncio.run(work()) <= 6


def test_many_flagged_callers_take_bounded_memory(monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.deploy.gateway.budgets.slowing.MOST", 50)

    async def work():
        slowing = made()
        for number in range(500):
            slowing.heard(msgspec.structs.replace(ANA, id=f"key:{number}"), Action.FLAG)
        await told(slowing)
        return len(slowing._sums)

    assert asyncio.run(work()) <= 50


@pytest.mark.parametrize("news", [b"", b"{}", b"[1]", b'["x"]', b'["x", "y"]', b"\xff", b'["x", -5]', b"[" * 5000])
def test_news_that_is_none_changes_nothing(news):
    slowing = made()
    slowing._heard(news)
    assert not slowing._sums


def test_a_slowed_caller_is_not_told_why():
    error = slowed(3.2)
    assert error.status == 429
    assert error.headers == {"retry-after": "4"}
    assert "flag" not in error.message
    assert "flagged" in error.reason

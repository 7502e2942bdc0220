"""One contract over all shared state: memory, a file, and a real Valkey server."""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.errors import InputError, StoreError
from bartizan.stores.shared import FileState, MemoryState, allowance, open_state
from bartizan.stores.shared.allowance import SLOTS, Kept, Wanted
from bartizan.stores.shared.memory import MAX_FACT_BYTES
from bartizan.stores.shared.valkey import ValkeyState

KINDS = ("memory", "file", "valkey")
MILLION = 1_000_000


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def address(kind, request, tmp_path):
    match kind:
        case "memory":
            return "memory:"
        case "file":
            return str(tmp_path / "folder" / "state.db")
        case _:
            return request.getfixturevalue("valkey_server").url


def run(address, work):
    """Open shared state on an event loop of its own, and close it."""

    async def whole():
        state = open_state(address)
        try:
            return await work(state)
        finally:
            await state.close()

    return asyncio.run(whole())


def test_the_sum_of_leases_is_the_allowance_and_no_more(address):
    async def work(state):
        granted = []
        for _ in range(60):
            lease = await state.lease("a", 10, limit=100, window=3600, now=50.0)
            granted.append(lease.granted)
        return granted, lease

    granted, last = run(address, work)
    assert sum(granted) == 100
    assert granted[0] == 10
    assert min(each for each in granted if each) == 1, "little is granted when little is left"
    assert last.granted == 0
    assert last.left == 0
    assert 50 < last.resets <= 50 + 3600 * (1 + 1 / SLOTS)


def test_a_lease_is_dated_by_the_callers_clock(address):
    async def work(state):
        return await state.lease("a", 3, limit=100, window=320, now=1000.0)

    lease = run(address, work)
    assert 1000 < lease.until <= 1010
    assert lease.until < lease.resets <= 1000 + 330


def test_at_least_what_is_needed_or_nothing(address):
    async def work(state):
        first = await state.lease("a", 95, limit=100, window=3600, now=0.0, least=95)
        second = await state.lease("a", 6, limit=100, window=3600, now=0.0, least=6)
        third = await state.lease("a", 6, limit=100, window=3600, now=0.0, least=5)
        never = await state.lease("a", 101, limit=100, window=3600, now=0.0, least=101)
        return first, second, third, never

    first, second, third, never = run(address, work)
    assert (first.granted, second.granted, third.granted, never.granted) == (95, 0, 5, 0)
    assert second.resets > 0
    assert math.isinf(never.resets)


def test_what_is_given_back_can_be_had_again(address):
    async def work(state):
        lease = await state.lease("a", 80, limit=80, window=3600, now=0.0, least=80)
        await state.give_back("a", lease, 30)
        again = await state.lease("a", 80, limit=80, window=3600, now=0.0, least=30)
        # More than was taken cannot be returned.
        await state.give_back("a", again, 10_000)
        most = await state.lease("a", 80, limit=80, window=3600, now=0.0, least=80)
        return again, most

    again, most = run(address, work)
    assert again.granted == 30
    assert most.granted == 80
    assert most.left == 0


def test_what_was_spent_already_is_charged_beyond_the_allowance(address):
    async def work(state):
        await state.charge("a", 150, limit=100, window=3600)
        denied = await state.lease("a", 1, limit=100, window=3600, now=0.0)
        await state.charge("b", 150, limit=100, window=3600, burst=10)
        dry = await state.lease("b", 1, limit=100, window=3600, now=0.0, burst=10)
        return denied, dry

    denied, dry = run(address, work)
    assert denied.granted == dry.granted == 0
    assert denied.left == -50
    # 150 of 10 were taken at 36 s each: one is there again after 141 of them ran in.
    assert dry.resets == pytest.approx(141 * 36, abs=5)


def test_looking_takes_nothing(address):
    async def work(state):
        fresh = await state.lease("a", 0, limit=7, window=60, now=0.0, least=0)
        await state.lease("a", 2, limit=7, window=60, now=0.0, least=2)
        seen = [await state.lease("a", 0, limit=7, window=60, now=0.0, least=0) for _ in range(3)]
        return fresh, seen

    fresh, seen = run(address, work)
    assert fresh.left == 7
    assert [each.left for each in seen] == [5, 5, 5]
    assert {each.granted for each in seen} == {0}


def test_a_bucket_gives_its_burst_and_then_what_runs_in(address):
    async def work(state):
        granted = [(await state.lease("a", 1, limit=36, window=3600, now=0.0, burst=5)).granted for _ in range(8)]
        denied = await state.lease("a", 2, limit=36, window=3600, now=0.0, burst=5, least=2)
        never = await state.lease("a", 6, limit=36, window=3600, now=0.0, burst=5, least=6)
        return granted, denied, never

    granted, denied, never = run(address, work)
    assert granted == [1] * 5 + [0] * 3
    assert denied.resets == pytest.approx(200, abs=5)
    assert math.isinf(never.resets)


def test_the_time_at_which_units_are_free_again_is_true(address):
    async def work(state):
        lease = await state.lease("a", 4, limit=4, window=0.4, now=time.monotonic(), least=4)
        denied = await state.lease("a", 1, limit=4, window=0.4, now=time.monotonic())
        early = await state.lease("a", 1, limit=4, window=0.4, now=time.monotonic())
        await asyncio.sleep(denied.resets - time.monotonic() + 0.001)
        there = await state.lease("a", 4, limit=4, window=0.4, now=time.monotonic(), least=4)
        return lease, denied, early, there

    lease, denied, early, there = run(address, work)
    assert (lease.granted, denied.granted, early.granted, there.granted) == (4, 0, 0, 4)


def test_allowances_are_listed_and_forgotten(address):
    async def work(state):
        for name in ("budget:x:1", "budget:x:2", "budget:x*:3", "other"):
            await state.lease(name, 1, limit=5, window=60, now=0.0)
        listed = await state.keys("budget:x:", 10)
        starred = await state.keys("budget:x*", 10)
        bounded = await state.keys("budget:", 2)
        forgot = [await state.forget("budget:x:1"), await state.forget("budget:x:1")]
        left = (await state.lease("budget:x:1", 0, limit=5, window=60, now=0.0, least=0)).left
        return listed, starred, bounded, forgot, left

    assert run(address, work) == (
        ["budget:x:1", "budget:x:2"],
        ["budget:x*:3"],
        ["budget:x*:3", "budget:x:1"],
        [True, False],
        5,
    )


def test_counters_and_facts_end(address):
    async def work(state):
        counts = [await state.count("c", by, lasts=30) for by in (1, 2, -1)]
        await state.count("short", 5, lasts=0.05)
        await state.remember("f", b"\x00fact", lasts=30)
        await state.remember("short", b"gone", lasts=0.05)
        await asyncio.sleep(0.1)
        return counts, await state.recall("f"), await state.recall("short"), await state.count("short", 1, lasts=30)

    assert run(address, work) == ([1, 3, 2], b"\x00fact", None, 1)


def test_facts_are_small(address):
    async def work(state):
        with pytest.raises(StoreError, match="at most"):
            await state.remember("f", bytes(MAX_FACT_BYTES + 1), lasts=1)

    run(address, work)


# ---- no window sees more than the allowance


@settings(max_examples=25)
@given(st.data())
def test_no_window_wherever_it_begins_sees_more_than_the_allowance(data):
    limit, window = data.draw(st.integers(1, 60)), data.draw(st.sampled_from([64, 1000, 7777]))
    kept, now, grants = Kept(), 1_000_000, []
    for _ in range(30):
        now += data.draw(st.integers(-window // 8, window))  # clocks go back, too
        units, least = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 10))
        before = kept.last
        drawn = allowance.draw(kept, Wanted(units=units, least=least, limit=limit, window=window), now)
        moment = max(now, before)
        assert drawn.granted == 0 or least <= drawn.granted or drawn.granted == units
        grants.append((moment, drawn.until, drawn.granted))
    for begin, _, _ in grants:
        # A unit may be spent at any moment of its lease: count every lease that can be spent in the window.
        end = begin + window
        assert sum(units for at, until, units in grants if at < end and until > begin) <= limit


@settings(max_examples=25)
@given(st.data())
def test_no_span_sees_more_of_a_bucket_than_its_burst_and_what_ran_in(data):
    limit, window, burst = (
        data.draw(st.integers(1, 50)),
        data.draw(st.integers(100, 10_000)),
        data.draw(st.integers(1, 30)),
    )
    kept, now, grants = Kept(), 1_000_000, []
    for _ in range(30):
        now += data.draw(st.integers(0, window // 4))
        wanted = Wanted(units=data.draw(st.integers(1, 30)), least=1, limit=limit, window=window, burst=burst)
        grants.append((now, allowance.draw(kept, wanted, now).granted))
    for first, (begin, _) in enumerate(grants):
        for last in range(first, len(grants)):
            span = grants[last][0] - begin
            assert sum(units for _, units in grants[first : last + 1]) <= burst + span * limit / window + 1e-6


def test_lua_and_python_say_the_same(valkey_server):
    """The same hundreds of draws at the same moments, by the script on the server and by the reference beside it."""

    async def work(state):
        await state._meet()
        dice = random.Random(20261121)
        # The server believes the replica as long as it claims to be earlier than the server's own clock.
        began = state._met[0] - 400 * 86400 * MILLION
        elapsed = 0.0
        state._steady, state._met = (lambda: elapsed), (began, 0.0)
        shapes = [(100, 60.0, 0), (7, 3.2, 0), (1000, 86400.0, 0), (50, 10.0, 20), (3, 7.0, 3)]
        kept = {shape: Kept() for shape in shapes}
        for _ in range(300):
            elapsed += dice.choice([0, 0.001, 0.2, 3, 40, 3000]) * dice.random()
            shape = dice.choice(shapes)
            limit, window, burst = shape
            units = dice.randint(0, 30)
            wanted = Wanted(
                units=units,
                least=min(units, dice.randint(0, 12)),
                limit=limit,
                window=round(window * MILLION),
                burst=burst,
                force=units > 0 and dice.random() < 0.05,
            )
            drawn, moment = await state._drawn(str(shape), wanted)
            assert drawn == allowance.draw(kept[shape], wanted, moment)
            if drawn.granted > 1 and dice.random() < 0.3:
                lease = await state.lease(str(shape), 0, limit=limit, window=window, now=0.0, burst=burst, least=0)
                given = dice.randint(1, drawn.granted)
                await state._return(keys=[f"bartizan:{shape}"], args=[drawn.mark, given])
                allowance.give_back(kept[shape], drawn.mark, given)
                assert lease.granted == 0

    run(valkey_server.url, work)


# ---- clocks that jump


def test_a_calendar_that_is_set_forward_fills_nothing_up(tmp_path, monkeypatch):
    async def work(state):
        await state.lease("a", 5, limit=5, window=86400, now=0.0, least=5)
        monkeypatch.setattr(time, "time", lambda: 4e9)
        return await state.lease("a", 1, limit=5, window=86400, now=4e9)

    assert run("memory:", work).granted == 0
    monkeypatch.undo()
    assert run(str(tmp_path / "state.db"), work).granted == 0


def test_a_file_counts_through_restarts_of_process_and_machine(tmp_path):
    path = tmp_path / "state.db"

    async def spend(steady, calendar, boot):
        state = FileState(path, steady=lambda: steady, calendar=lambda: calendar, boot=lambda: boot)
        lease = await state.lease("a", 3, limit=5, window=86400, now=0.0, least=2)
        await state.close()
        return lease.granted

    def spent(*clocks):
        return asyncio.run(spend(*clocks))

    assert spent(1000.0, 1e9, "first") == 2
    assert spent(1010.0, 9e9, "first") == 2, "another process; the calendar was set to the year 2255 meanwhile"
    assert spent(1020.0, 1e9, "first") == 0
    assert spent(5.0, 1e9 - 86400 * 400, "second") == 0, "the machine was started anew with its calendar set back"
    assert spent(5.0, 1e9 + 86400 * 2, "third") == 2, "two days later"


def test_a_server_whose_clock_leaps_is_not_followed(valkey_server):
    """A replica on whose own clock no time passes lets the server's clock go on by the agreed slack only."""

    async def work(state):
        await state.lease("a", 5, limit=5, window=3.2, now=0.0, least=5)
        began, _ = state._met
        state._met = (began - 10 * MILLION, state._steady())
        state._steady = lambda: state._met[1]
        granted = 0
        for _ in range(40):
            lease = await state.lease("a", 1, limit=5, window=3.2, now=0.0)
            granted += lease.granted
            await asyncio.sleep(0.1)
        return granted

    async def whole():
        state = ValkeyState(valkey_server.url)
        try:
            return await work(state)
        finally:
            await state.close()

    assert asyncio.run(whole()) == 0, "four seconds went by on the server, none of them here"


# ---- several processes


REPLICA = """
import asyncio, sys
from bartizan.stores.shared import open_state

async def main():
    state, spent = open_state(sys.argv[1]), 0
    print("ready", flush=True)
    sys.stdin.readline()

    async def worker():
        nonlocal spent
        while True:
            lease = await state.lease("a", 7, limit=5000, window=3600, now=0.0)
            spent += lease.granted
            if not lease.granted:
                return

    await asyncio.gather(*[worker() for _ in range(16)])
    print(spent)
    await state.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["file", "valkey"])
def test_processes_together_get_the_allowance_to_the_unit(address):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    replicas = [
        subprocess.Popen(
            [sys.executable, "-c", REPLICA, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    for replica in replicas:
        assert replica.stdout.readline() == "ready\n"
    for replica in replicas:
        replica.stdin.write("go\n")
        replica.stdin.flush()
    spent = [int(replica.communicate(timeout=120)[0]) for replica in replicas]
    assert sum(spent) == 5000
    assert all(replica.returncode == 0 for replica in replicas)


# ---- a server that fails


def test_a_server_that_is_gone_is_an_error_in_bounded_time(mortal_valkey):
    async def work(state):
        await state.lease("a", 1, limit=5, window=60, now=0.0)
        mortal_valkey.kill()
        began = time.monotonic()
        for call in (
            state.lease("a", 1, limit=5, window=60, now=0.0),
            state.count("c", 1, lasts=1),
            state.recall("f"),
            state.publish("t", b"x"),
        ):
            with pytest.raises(StoreError, match="out of reach") as caught:
                await call
            assert "bz-valkey" not in str(caught.value), "addresses stay out of messages"
        return time.monotonic() - began

    assert run(mortal_valkey.url, work) < 60


def test_a_server_that_hangs_is_an_error_in_bounded_time(mortal_valkey):
    async def work(_):
        state = ValkeyState(mortal_valkey.url, seconds=0.2)
        await state.lease("a", 1, limit=5, window=60, now=0.0)
        mortal_valkey.process.send_signal(19)
        try:
            with pytest.raises(StoreError):
                await state.lease("a", 1, limit=5, window=60, now=0.0)
        finally:
            mortal_valkey.process.send_signal(18)
        await state.close()

    run(mortal_valkey.url, work)


def test_what_was_spent_outlives_the_server(mortal_valkey):
    async def work(state):
        await state.lease("a", 5, limit=5, window=3600, now=0.0, least=5)
        mortal_valkey.kill()
        mortal_valkey.start()
        return await state.lease("a", 1, limit=5, window=3600, now=0.0)

    assert run(mortal_valkey.url, work).granted == 0


def test_a_server_that_forgot_everything_fills_nothing_up(valkey_server):
    async def work(state):
        await state.lease("a", 5, limit=5, window=3600, now=0.0, least=5)
        valkey_server.ask("FLUSHALL")
        with pytest.raises(StoreError, match="lost what it knew"):
            await state.lease("a", 1, limit=5, window=3600, now=0.0)

    run(valkey_server.url, work)


def test_a_server_that_throws_away_is_refused(mortal_valkey):
    mortal_valkey.ask("CONFIG", "SET", "maxmemory", "100mb")
    mortal_valkey.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    async def work(state):
        with pytest.raises(StoreError, match="throws away"):
            await state.lease("a", 1, limit=5, window=60, now=0.0)

    run(mortal_valkey.url, work)


def test_a_wrong_password_is_an_error_that_does_not_show_it(mortal_valkey):
    mortal_valkey.ask("CONFIG", "SET", "requirepass", "right")

    async def work(_):
        good = open_state(mortal_valkey.url, password="right")
        assert (await good.lease("a", 1, limit=5, window=60, now=0.0)).granted == 1
        await good.close()
        bad = open_state(mortal_valkey.url, password="wrong-secret")
        with pytest.raises(StoreError) as caught:
            await bad.lease("a", 1, limit=5, window=60, now=0.0)
        assert "wrong-secret" not in str(caught.value)
        await bad.close()

    run("memory:", work)


def test_news_reaches_the_others_and_not_oneself(valkey_server):
    async def whole():
        one, other = (ValkeyState(valkey_server.url) for _ in range(2))
        mine, theirs = [], []
        one.subscribe("t", mine.append)
        other.subscribe("t", theirs.append)
        deadline = time.monotonic() + 60
        while not theirs and time.monotonic() < deadline:
            await one.publish("t", b"news")
            await asyncio.sleep(0.02)
        await one.close()
        await other.close()
        return mine, theirs[0]

    assert asyncio.run(whole()) == ([], b"news")


# ---- addresses


@pytest.mark.parametrize(
    "location",
    [
        "valkey://db.example:6379",
        "redis://10.1.2.3:6379",
        "valkeys://db.example:6379?ssl_cert_reqs=none",
        "unix://",
        "valkey://:x",
    ],
)
def test_addresses_that_give_the_password_away_are_refused(location):
    with pytest.raises(InputError):
        open_state(location, password="p")


@pytest.mark.parametrize("location", ["", "postgres://x", "mailto:x"])
def test_addresses_of_other_things_are_refused(location):
    with pytest.raises(InputError, match="address"):
        open_state(location)


def test_a_file_that_is_something_else_is_an_error(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(b"something else " * 100)

    async def work(state):
        with pytest.raises(StoreError, match="cannot be used"):
            await state.lease("a", 1, limit=5, window=60, now=0.0)

    run(str(path), work)


def test_memory_does_not_forget_to_make_room(monkeypatch):
    monkeypatch.setattr("bartizan.stores.shared.memory.MAX_KEYS", 10)
    moment = 0.0
    state = MemoryState(steady=lambda: moment, began=1e9)

    async def work():
        nonlocal moment
        for name in range(10):
            await state.lease(f"{name}", 1, limit=1, window=60, now=0.0)
        with pytest.raises(StoreError, match="in use at once"):
            await state.lease("one more", 1, limit=1, window=60, now=0.0)
        assert (await state.lease("0", 1, limit=1, window=60, now=0.0)).granted == 0
        moment += 121
        assert (await state.lease("one more", 1, limit=1, window=60, now=0.0)).granted == 1

    asyncio.run(work())

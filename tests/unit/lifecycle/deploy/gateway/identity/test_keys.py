"""API keys: only what was made counts, from where it may, until it ends, and never after it was revoked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.caller import Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.keys import (
    DAY,
    ApiKeys,
    Index,
    KeyWanted,
    changes,
    mint,
    rotated,
)
from bartizan.lifecycle.deploy.gateway.identity.refusal import UNKNOWN
from bartizan.lifecycle.deploy.gateway.identity.settings import KeySettings
from bartizan.lifecycle.deploy.gateway.identity.watch import KeyWatch
from bartizan.stores.apikeys import open_keys
from bartizan.stores.shared.memory import MemoryState

NOW = 1_795_000_000.0


def book(*keys, now=NOW, **settings):
    made = ApiKeys(KeySettings(**settings))
    made.learn(Index(keys), now)
    return made


def ask(made, key, now=NOW, client="192.0.2.7", field=b"authorization"):
    value = key.encode() if isinstance(key, str) else key
    headers = {field: b"Bearer " + value if field == b"authorization" else value}
    return made.recognise(Showing(headers, client), now)


def why(made, key, now=NOW, **more):
    with pytest.raises(RequestError) as caught:
        ask(made, key, now, **more)
    assert (caught.value.status, caught.value.message) == (401, UNKNOWN)
    return caught.value.reason


def test_a_key_is_recognised_and_nothing_of_it_is_kept_but_a_digest():
    secret, key = mint(KeyWanted(role="analyst", label="report", groups=("g",), attributes={"site": "n"}), NOW)
    made = book(key)
    caller = ask(made, secret)
    assert (caller.id, caller.role, caller.groups, caller.attributes) == (
        f"key:{key.id}",
        "analyst",
        ("g",),
        {"site": "n"},
    )
    assert ask(made, secret, field=b"x-api-key") is caller
    assert key.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.split("_", 2)[2] not in msgspec.json.encode(key).decode()
    assert len(secret) == 60


def test_everything_else_is_refused_in_the_same_words():
    secret, key = mint(KeyWanted(role="analyst"), NOW)
    made = book(key)
    wrong = [
        secret[:-1],
        secret + "A",
        secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        secret.upper(),
        f"btz_{key.id}_",
        "btz_",
        key.digest,
        f"btz_{'a' * 12}_{'b' * 43}",
        secret + " ",
        "x" * 100_000,
    ]
    for other in wrong:
        if other.startswith("btz_"):
            assert why(made, other)
        assert why(made, other, field=b"x-api-key")
    assert made.recognise(Showing({b"authorization": b"Bearer eyJ.a.b"}), NOW) is None
    assert made.recognise(Showing({}), NOW) is None


def test_two_keys_at_once_are_refused_even_when_both_are_right():
    secret, key = mint(KeyWanted(role="analyst"), NOW)
    with pytest.raises(RequestError) as caught:
        book(key).recognise(
            Showing({b"authorization": f"Bearer {secret}".encode(), b"x-api-key": secret.encode()}), NOW
        )
    assert caught.value.status == 401


def test_keys_end_when_they_should():
    secret, key = mint(KeyWanted(role="analyst", days=2), NOW)
    made = book(key, now=NOW + 2 * DAY)
    assert ask(made, secret, NOW + 2 * DAY - 1).role == "analyst"
    assert "expired" in why(made, secret, NOW + 2 * DAY)
    assert "revoked" in why(book(msgspec.structs.replace(key, revoked_at=int(NOW))), secret)


def test_keys_count_from_their_networks_only():
    secret, key = mint(KeyWanted(role="sensor", networks=("10.1.0.0/16", "2001:db8::/32")), NOW)
    made = book(key)
    for client in ("10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3", "2001:db8::7%eth0"):
        assert ask(made, secret, client=client).role == "sensor"
    for client in ("10.2.0.1", "", "localhost", "10.1.2", "::1", "10.1.2.3, 192.0.2.1"):
        assert "address" in why(made, secret, client=client)


def test_a_rotated_key_is_the_same_caller():
    old_secret, old = mint(
        KeyWanted(role="analyst", models=("tumour",), operations=("infer",), networks=("10.0.0.0/8",)), NOW
    )
    new_secret, new = rotated(old, 30, NOW + 5)
    made = book(old, new)
    one, two = ask(made, old_secret, client="10.0.0.1"), ask(made, new_secret, client="10.0.0.1")
    assert one.id == two.id
    assert (two.models, two.operations) == (("tumour",), ("infer",))
    assert new.id != old.id
    with pytest.raises(InputError):
        rotated(msgspec.structs.replace(old, revoked_at=1), 30, NOW)
    with pytest.raises(InputError):
        rotated(old, 30, NOW + 91 * DAY)


@pytest.mark.parametrize(
    "wanted",
    [
        KeyWanted(role=""),
        KeyWanted(role="../x"),
        KeyWanted(role="a", days=0),
        KeyWanted(role="a", days=401),
        KeyWanted(role="a", networks=("10.0.0.1/8",)),
        KeyWanted(role="a", networks=("anywhere",)),
        KeyWanted(role="a", attributes={"": "x"}),
        KeyWanted(role="a", label="x" * 200),
        KeyWanted(role="a", groups=("",)),
    ],
)
def test_what_is_no_sensible_key_is_not_made(wanted):
    with pytest.raises(InputError):
        mint(wanted, NOW)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data):
    made = book(mint(KeyWanted(role="a"), NOW)[1])
    for headers in ({b"authorization": data}, {b"x-api-key": data}, {b"authorization": b"Bearer btz_" + data}):
        with contextlib.suppress(RequestError):
            assert made.recognise(Showing(headers, data.decode("latin-1")), NOW) is None


def test_the_day_of_use_is_noted_once_and_no_time_of_day():
    secret, key = mint(KeyWanted(role="a"), NOW)
    made = book(key)
    assert made.take_used() == ()
    for seconds in range(5):
        ask(made, secret, NOW + seconds)
    assert made.take_used() == (key.id,)
    ask(made, secret, NOW + 6)
    assert made.take_used() == ()
    made.confirm(NOW + DAY)
    ask(made, secret, NOW + DAY)
    assert made.take_used() == (key.id,)


def test_what_became_of_keys_is_told():
    (_, one), (_, two), (_, three) = (mint(KeyWanted(role="a"), NOW) for _ in range(3))
    replace = msgspec.structs.replace
    before = Index([one, two, three])
    after = Index(
        [replace(one, revoked_at=9), replace(two, expires_at=two.expires_at - 5), mint(KeyWanted(role="b"), NOW)[1]]
    )
    kinds = {change.kind for change in changes(before, after)}
    assert kinds == {"revoke", "shorten", "add", "remove"}
    assert changes(before, Index([replace(one, used_day=7), two, three])) == ()
    [altered] = changes(before, Index([replace(one, role="admin"), two, three]))
    assert (altered.kind, altered.key) == ("alter", one.id)
    [enrolled] = changes(before, Index([replace(one, otp=b"x"), two, three]))
    assert enrolled.kind == "otp"


# ---- the store beside it


@pytest.fixture
def store(tmp_path):
    opened = open_keys(str(tmp_path / "keys.db"))
    yield opened
    opened.close()


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


def test_a_revocation_is_seen_by_every_replica_within_the_poll(tmp_path):
    async def go():
        clock, heard = Clock(), []
        secret, key = mint(KeyWanted(role="a"), NOW)
        stores = [open_keys(str(tmp_path / "keys.db")) for _ in range(3)]
        stores[0].add(key)
        books = [ApiKeys(KeySettings(poll=0.1)) for _ in stores]
        watches = [
            KeyWatch(store, made, clock, seconds=0.1, changed=heard.extend)
            for store, made in zip(stores, books, strict=True)
        ]
        for watch in watches:
            watch.load()
        assert all(ask(made, secret).role == "a" for made in books)
        versions = [made.version for made in books]
        tasks = [asyncio.create_task(watch.run()) for watch in watches]
        stores[1].revoke(key.id, int(NOW))
        for _ in range(600):
            await asyncio.sleep(0.1)
            if len(heard) == len(books):
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all("revoked" in why(made, secret) for made in books)
        assert all(made.version > version for made, version in zip(books, versions, strict=True))
        assert [change.kind for change in heard] == ["revoke"] * 3
        for each in stores:
            each.close()

    asyncio.run(go())


def test_a_replica_that_is_told_looks_at_once(tmp_path):
    async def go():
        state, clock = MemoryState(), Clock()
        secret, key = mint(KeyWanted(role="a"), NOW)
        store = open_keys(str(tmp_path / "keys.db"))
        store.add(key)
        made = ApiKeys(KeySettings())
        watch = KeyWatch(store, made, clock, seconds=60, state=state)
        watch.load()
        store.revoke(key.id, int(NOW))
        await watch.announce()
        assert "revoked" in why(made, secret)
        store.close()

    asyncio.run(go())


def test_without_its_store_no_key_counts_for_long(store):
    async def go():
        clock = Clock()
        secret, key = mint(KeyWanted(role="a"), NOW)
        store.add(key)
        made = ApiKeys(KeySettings(patience=60))
        watch = KeyWatch(Broken(store), made, clock, seconds=5)
        watch.load()
        watch._store.broken = True
        clock.now += 50
        await watch.look()
        assert ask(made, secret, clock.now).role == "a"
        clock.now += 20
        await watch.look()
        assert "no key counts" in why(made, secret, clock.now)
        watch._store.broken = False
        await watch.look()
        assert ask(made, secret, clock.now).role == "a"

    asyncio.run(go())


class Broken:
    """A store that can go out of reach."""

    def __init__(self, store):
        self.store, self.broken = store, False

    def __getattr__(self, name):
        def call(*arguments):
            if self.broken:
                raise StoreError("out of reach")
            return getattr(self.store, name)(*arguments)

        return call

"""The store of API keys, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import stat
import threading

import msgspec
import pytest

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.identity.keys import KeyWanted, mint, rotated
from bartizan.stores.apikeys import open_keys

NOW = 1_795_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return str(tmp_path / "folder" / "keys.db")


@pytest.fixture
def store(location):
    opened = open_keys(location)
    yield opened
    opened.close()


def made(**more):
    return mint(KeyWanted(**({"role": "analyst"} | more)), NOW)[1]


def kept(store):
    keys = store.keys()
    return {each.id: each for each in keys}


def test_a_key_comes_back_as_it_was(store):
    key = made(
        groups=("a",), attributes={"x": "\u00e9"}, models=("m",), operations=("infer",), networks=("::/0",), label="'--"
    )
    store.add(key)
    assert store.keys() == (key,)


def test_every_change_raises_the_generation_and_use_does_not(store):
    key, seen = made(), [store.generation()]
    for change in (
        lambda: store.add(key),
        lambda: store.seal(key.id, b"sealed"),
        lambda: store.replace(key.id, NOW + 5, rotated(key, 1, NOW)[1]),
        lambda: store.revoke(key.id, NOW),
    ):
        change()
        seen.append(store.generation())
    assert seen == sorted(set(seen))
    store.used([key.id], 7)
    assert store.generation() == seen[-1]
    assert kept(store)[key.id].used_day == 7
    store.used([key.id], 6)
    assert kept(store)[key.id].used_day == 7


def test_a_revoked_key_stays_revoked_and_loses_its_codes(store):
    key = made()
    store.add(key)
    store.seal(key.id, b"sealed")
    assert store.revoke(key.id, NOW)
    assert not store.revoke(key.id, NOW + 9)
    [found] = store.keys()
    assert (found.revoked_at, found.otp) == (NOW, b"")
    assert not store.revoke("abcdefgh2345", NOW)
    with pytest.raises(StoreError):
        store.seal("abcdefgh2345", b"x")


def test_rotating_twice_at_once_is_rotating_once(store, location):
    key = made()
    store.add(key)
    others, results = [open_keys(location) for _ in range(4)], []

    def rotate(one):
        try:
            one.replace(key.id, NOW + 5, rotated(key, 1, NOW)[1])
            results.append("done")
        except StoreError:
            results.append("refused")

    threads = [threading.Thread(target=rotate, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.close()
    assert sorted(results) == ["done", *["refused"] * 3]
    assert len(store.keys()) == 2
    assert kept(store)[key.id].expires_at == NOW + 5


def test_several_may_open_a_new_store_at_once(location):
    opened, faults = [], []

    def go():
        try:
            opened.append(open_keys(location))
        except StoreError as error:
            faults.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert {one.generation() for one in opened} == {1}
    for one in opened:
        one.close()


def test_the_same_digest_cannot_be_there_twice(store):
    key = made()
    store.add(key)
    with pytest.raises(StoreError):
        store.add(msgspec.structs.replace(made(), digest=key.digest))
    assert len(store.keys()) == 1


def test_the_file_is_for_the_eyes_of_its_owner(tmp_path):
    path = tmp_path / "keys.db"
    open_keys(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rows_that_nobody_here_wrote_are_refused(tmp_path):
    path = tmp_path / "keys.db"
    store = open_keys(str(path))
    store.add(made())
    for change in ("rest = '{}'", "rest = 'x'", "expires_at = 'soon'", "expires_at = -1", "digest = 'x'", "id = 'x'"):
        connection = sqlite3.connect(path)
        connection.execute(f"UPDATE api_key SET {change}")
        with pytest.raises(StoreError):
            _with(connection, store)
        connection.close()
    store.close()


def _with(connection, store):
    connection.commit()
    store.keys()


@pytest.mark.parametrize(
    "location", ["", ":memory:", "sqlite://", "mysql://x/y", "postgresql://[", "/dev/null/x", "/proc/x/y"]
)
def test_places_that_are_none_are_refused(location):
    with pytest.raises(StoreError):
        open_keys(location)


def test_a_file_of_another_program_or_version_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(StoreError):
        open_keys(str(path))
    assert path.read_bytes() == b"something else" * 100
    newer = tmp_path / "newer.db"
    open_keys(str(newer)).close()
    connection = sqlite3.connect(newer)
    connection.execute("UPDATE api_key_state SET version = 2")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="another version"):
        open_keys(str(newer))

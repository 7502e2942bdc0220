from __future__ import annotations

import hashlib
import hmac
import os
import time

import pytest

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.audit.entries import FLAGGED
from bartizan.lifecycle.deploy.gateway.audit.secrets import DAY, Hmac, Secrets, digest_key, month_of, unseal
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, nanoseconds
from bartizan.lifecycle.deploy.gateway.audit.writer import item
from bartizan.stores.audit import open_audit
from fixtures.auditlogs import START, record, writer


@pytest.fixture
def store(tmp_path):
    opened = open_audit(str(tmp_path / "audit.db"))
    yield opened
    opened.close()


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.mark.parametrize("length", [0, 1, 55, 64, 65, 5000])
def test_digests_are_hmac_sha256(length):
    """Against the standard library, which follows RFC 2104."""
    key, content = os.urandom(32), os.urandom(length)
    assert Hmac(key).hex(content) == hmac.new(key, content, hashlib.sha256).hexdigest()


def test_a_day_has_one_key_for_all_replicas_and_another_the_next_day(store):
    clock = Clock(START)
    first, second = (Secrets(store, AuditSettings(), clock) for _ in range(2))
    first.prepare()
    second.prepare()
    today = first.keyed(b"input")
    assert today == second.keyed(b"input") != first.keyed(b"other")
    assert today.startswith(f"{START // DAY}.")
    clock.now += DAY
    assert first.keyed(b"input").partition(".")[2] != today.partition(".")[2]
    clock.now += DAY
    with pytest.raises(StoreError, match="no audit key for today"):
        first.keyed(b"input")
    first.prepare()
    assert first.keyed(b"input")


def test_keys_end_when_the_settings_say(store):
    clock = Clock(START)
    settings = AuditSettings()
    Secrets(store, settings, clock).prepare()
    with store.reading() as reading:
        secret = reading.secret(digest_key(START // DAY))
    assert secret.until == (START // DAY + 1) * DAY + nanoseconds(settings.keep.digests)


def test_a_destroyed_key_is_gone_from_the_files(store, tmp_path):
    Secrets(store, AuditSettings(), Clock(START)).prepare()
    with store.reading() as reading:
        [today, tomorrow] = reading.secrets()

    def files():
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert today.key in files()
    store.destroy([today.name])
    assert today.key not in files()
    assert tomorrow.key in files()


def test_sealed_content_is_bound_to_its_key_and_name(store):
    now = time.time_ns()
    secrets = Secrets(store, AuditSettings(content="all"))
    secrets.prepare()
    kept = secrets.seal(b"what was asked", FLAGGED, now)
    assert b"asked" not in kept.sealed
    writer(store).write([item(record(1), kept)])
    with store.reading() as reading:
        assert unseal(reading, kept.name) == b"what was asked"
        with pytest.raises(InputError, match="not kept any more"):
            unseal(reading, "0" * 64)
    store._connection.execute("UPDATE content SET sealed = ?", (kept.sealed[:-1] + bytes([kept.sealed[-1] ^ 1]),))
    with store.reading() as reading, pytest.raises(InputError, match="altered"):
        unseal(reading, kept.name)
    store.destroy([kept.key])
    with store.reading() as reading, pytest.raises(InputError, match="not kept any more"):
        unseal(reading, kept.name)


def test_months_are_those_of_the_calendar():
    assert month_of(0) == 197001
    assert month_of(START // DAY) == 202611

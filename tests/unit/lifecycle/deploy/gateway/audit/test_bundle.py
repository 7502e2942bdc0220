from __future__ import annotations

import random

import msgspec
import pytest

from bartizan.core import keys
from bartizan.core.errors import BartizanError, EvidenceError, InputError, LedgerError
from bartizan.lifecycle.deploy.gateway.audit import bundle
from bartizan.lifecycle.deploy.gateway.audit.verifying import Seen
from bartizan.lifecycle.deploy.gateway.audit.writer import Rhythm, Writer, item
from bartizan.stores.audit import open_audit
from fixtures.auditlogs import ORIGIN, fill, keys_at, record, writer

PUBLIC = keys_at(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of three records with a checkpoint that a witness saw, and the records."""
    store = open_audit(str(tmp_path_factory.mktemp("audit") / "audit.db"))
    records = fill(store, 300)
    with store.reading() as reading:
        seen = [Seen(place="paper", note=reading.newest_note()[1])]
    writer(store).write([item(record(300 + number)) for number in range(411)])
    with store.reading() as reading:
        made = bundle.make(reading, [0, 255, 299], PUBLIC, {"caller": "x"}, "a case", seen)
    store.close()
    return made, records


def test_a_bundle_shows_its_records_with_the_public_key_alone(made):
    handed, records = made
    checked = bundle.check(bundle.read(msgspec.json.encode(handed)), PUBLIC)
    assert checked.records == (records[0], records[255], records[299])
    assert (checked.checkpoint.size, checked.witnesses, checked.dropped) == (711, ("paper",), 0)


def test_every_changed_character_is_found(made):
    data = msgspec.json.encode(made[0])
    untouched = bundle.check(made[0], PUBLIC)
    generator, found = random.Random(3), 0
    for _ in range(600):
        place = generator.randrange(len(data))
        changed = data[:place] + bytes([data[place] ^ 1 << generator.randrange(7)]) + data[place + 1 :]
        try:
            shown = bundle.check(bundle.read(changed), PUBLIC)
        except BartizanError:
            found += 1
        else:  # a word of the selection, or another spelling of the same signature
            assert msgspec.structs.replace(shown, witnesses=()) == msgspec.structs.replace(untouched, witnesses=())
    assert found > 500


def test_another_key_is_refused(made):
    stranger = keys.PrivateKeySigner(keys.generate())
    with pytest.raises(EvidenceError, match="no trusted signature"):
        bundle.check(made[0], {stranger.keyid: stranger.public_pem})


def test_a_case_from_a_forged_log_shows_against_what_the_witness_saw(made, tmp_path):
    store = open_audit(str(tmp_path / "forged.db"))
    fill(store, 290)
    writer(store).write([item(record(number, caller="forged")) for number in range(290, 800)])
    with store.reading() as reading:
        forged = bundle.make(reading, [5], PUBLIC, {}, "", [Seen(place="paper", note=made[0].witnessed[0].note)])
    store.close()
    with pytest.raises(LedgerError, match="witness paper"):
        bundle.check(forged, PUBLIC)


def test_proofs_stay_short(tmp_path):
    store = open_audit(str(tmp_path / "audit.db"))
    fill(store, 20_000, 2500)
    with store.reading() as reading:
        proof = bundle.make(reading, [7], PUBLIC, {}, "")
    store.close()
    assert len(proof.records[0].path) <= 15


def test_what_is_not_signed_yet_cannot_be_proved(tmp_path):
    store = open_audit(str(tmp_path / "audit.db"))
    with store.reading() as reading, pytest.raises(LedgerError, match="no checkpoint"):
        bundle.make(reading, [], PUBLIC, {}, "")
    fill(store, 3)
    Writer(store, keys.PrivateKeySigner(keys.generate()), ORIGIN, known=PUBLIC, rhythm=Rhythm(3600, 99)).write(
        [item(record(4))]
    )
    with store.reading() as reading, pytest.raises(LedgerError, match="record 3 is not covered"):
        bundle.make(reading, [3], PUBLIC, {}, "")
    store.close()


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10_000, b"\xff", b'{"format":"other"}'])
def test_what_is_no_bundle_is_refused(data):
    with pytest.raises(InputError, match="not an audit bundle"):
        bundle.read(data)

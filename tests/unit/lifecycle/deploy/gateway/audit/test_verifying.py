"""Tampering: everything that somebody with write access to the database can do to it has to show."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3

import pytest

from bartizan.core import keys, merkle
from bartizan.core.errors import BartizanError, LedgerError
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.verifying import Seen, verify
from bartizan.lifecycle.deploy.gateway.audit.writer import Rhythm, Writer, item
from bartizan.stores.audit import open_audit
from fixtures.auditlogs import ORIGIN, SERVICE, fill, keys_at, record, report, writer

SIZE = 700
MINUTE = 60_000_000_000


@pytest.fixture
def store(tmp_path):
    opened = open_audit(str(tmp_path / "audit.db"))
    yield opened
    opened.close()


@pytest.fixture
def log(store, tmp_path):
    """A log of 700 records with a checkpoint kept after each hundred, and its database laid open."""
    times = iter(range(0, 10_000 * MINUTE, MINUTE))
    into = writer(store, clock=lambda: next(times))
    for start in range(0, SIZE, 100):
        into.write([item(record(number)) for number in range(start, start + 100)])
    assert report(store).problems == ()
    database = sqlite3.connect(tmp_path / "audit.db", isolation_level=None)
    yield database
    database.close()


def first_problem(store, seen=()):
    found = report(store, seen)
    assert not found.sound
    return found.problems[0]


def computed_anew(database):
    """Every leaf and every stored hash as an attacker would compute them over what is there now."""
    rows = database.execute("SELECT seq, at, kind, body FROM record ORDER BY seq").fetchall()
    leaves = [entries.leaf(seq, at, kind, hashlib.sha256(body).digest()) for seq, at, kind, body in rows]
    size, frontier, nodes = merkle.extend(0, [], leaves)
    database.executemany("UPDATE record SET leaf = ? WHERE seq = ?", [(leaf, seq) for seq, leaf in enumerate(leaves)])
    database.execute("DELETE FROM node")
    kept = [(node.level, node.index, node.hash) for node in nodes if node.level >= entries.BLOCK_BITS]
    database.executemany("INSERT INTO node VALUES (?, ?, ?)", kept)
    database.execute("UPDATE head SET size = ?, frontier = ?", (size, b"".join(frontier)))


def change_caller(database, seq):
    [(body,)] = database.execute("SELECT body FROM record WHERE seq = ?", (seq,)).fetchall()
    database.execute("UPDATE record SET body = ? WHERE seq = ?", (body.replace(b"key:", b"yek:"), seq))


@pytest.mark.parametrize("seed", range(12))
def test_every_changed_byte_is_found_and_its_record_named(store, log, seed):
    generator = random.Random(seed)
    seq = generator.randrange(SIZE)
    column = ("body", "leaf")[seed % 2]
    [(value,)] = log.execute(f"SELECT {column} FROM record WHERE seq = ?", (seq,)).fetchall()
    place = generator.randrange(len(value))
    changed = value[:place] + bytes([value[place] ^ 1 << generator.randrange(8)]) + value[place + 1 :]
    log.execute(f"UPDATE record SET {column} = ? WHERE seq = ?", (changed, seq))
    assert first_problem(store).seq == seq
    assert f"record {seq} is altered" in first_problem(store).what


@pytest.mark.parametrize("change", ["at = at + 1", "kind = 3", "body = NULL", "seq = 5000"])
def test_every_changed_column_is_found(store, log, change):
    log.execute(f"UPDATE record SET {change} WHERE seq = 321")
    assert first_problem(store).seq == 321


def test_a_dropped_body_needs_the_word_of_the_log(store, log):
    log.execute("UPDATE record SET digest = ?, body = NULL WHERE seq = 10", (b"d" * 32,))
    assert "record 10 is altered" in first_problem(store).what
    [(seq, at, kind, body)] = log.execute("SELECT seq, at, kind, body FROM record WHERE seq = 11").fetchall()
    log.execute("DELETE FROM record WHERE seq = 10")
    digest = hashlib.sha256(body).digest()
    log.execute("UPDATE record SET digest = ?, body = NULL WHERE seq = 11", (digest,))
    assert (at, kind) is not None
    assert seq == 11
    assert first_problem(store).seq == 10


def test_a_body_that_is_gone_is_named_when_its_digest_was_left(store, log):
    [(body,)] = log.execute("SELECT body FROM record WHERE seq = 11").fetchall()
    digest = hashlib.sha256(body).digest()
    log.execute("UPDATE record SET digest = ?, body = NULL WHERE seq = 11", (digest,))
    problem = first_problem(store)
    assert (problem.seq, "does not say that it was dropped" in problem.what) == (11, True)


@pytest.mark.parametrize("seq", [0, 255, 256, 699])
def test_a_deleted_record_is_named(store, log, seq):
    log.execute("DELETE FROM record WHERE seq = ?", (seq,))
    assert first_problem(store).seq == seq


def test_deleted_and_numbered_anew_is_found(store, log):
    log.execute("DELETE FROM record WHERE seq = 150")
    log.execute("UPDATE record SET seq = seq - 1 WHERE seq > 150")
    assert first_problem(store).seq == 150


def test_exchanged_records_are_found(store, log):
    log.execute("UPDATE record SET seq = -1 WHERE seq = 40")
    log.execute("UPDATE record SET seq = 40 WHERE seq = 90")
    log.execute("UPDATE record SET seq = 90 WHERE seq = -1")
    assert first_problem(store).seq == 40


def test_hashes_computed_anew_do_not_hide_a_change(store, log):
    change_caller(log, 341)
    computed_anew(log)
    problem = first_problem(store)
    assert problem.seq == 300  # between the checkpoints over 300 and 400 records
    assert "one of records 300 to 399 is not what was signed" in problem.what


def test_a_stored_hash_that_was_left_alone_narrows_it_down(store, log):
    [(body, at, kind)] = log.execute("SELECT body, at, kind FROM record WHERE seq = 341").fetchall()
    changed = bytes(body).replace(b"key:1", b"key:9")
    leaf = entries.leaf(341, at, kind, hashlib.sha256(changed).digest())
    log.execute("UPDATE record SET body = ?, leaf = ? WHERE seq = 341", (changed, leaf))
    assert "one of records 300 to 399" in first_problem(store).what
    log.execute("DELETE FROM note WHERE size < 700")
    assert "one of records 256 to 511" in first_problem(store).what


def test_a_cut_tail_shows_against_the_checkpoints(store, log):
    log.execute("DELETE FROM record WHERE seq >= 650")
    computed_anew(log)
    problem = first_problem(store)
    assert (problem.seq, "the log was cut" in problem.what) == (650, True)


def test_a_tail_cut_with_its_checkpoints_shows_against_a_witness(store, log):
    with store.reading() as reading:
        newest = reading.newest_note()[1]
    log.execute("DELETE FROM record WHERE seq >= 500")
    log.execute("DELETE FROM note WHERE size > 500")
    log.execute("DELETE FROM mention WHERE block >= 1")
    log.execute("DELETE FROM sketch WHERE block >= 1")
    computed_anew(log)
    assert report(store).problems == ()  # nothing in the database itself can tell
    problem = first_problem(store, [Seen(place="paper", note=newest)])
    assert (problem.seq, "witness paper has seen 700 records" in problem.what) == (500, True)


def test_a_log_rewritten_with_its_own_key_shows_against_a_witness(store, log, tmp_path):
    with store.reading() as reading:
        seen = [Seen(place="paper", note=note) for _, note in reading.notes()]
    other = open_audit(str(tmp_path / "forged.db"))
    into = writer(other)
    into.write([item(record(number)) for number in range(450)])
    into.write([item(record(number, caller="somebody else")) for number in range(450, 900)])
    assert report(other).problems == ()
    problem = first_problem(other, seen)
    other.close()
    assert problem.seq == 400
    assert "forked or rewritten" in problem.what


def test_a_log_signed_with_another_key_is_found(store, tmp_path):
    other = keys.PrivateKeySigner(keys.generate())
    into = Writer(store, other, ORIGIN, rhythm=Rhythm(0, 1))
    into.write([item(record(number)) for number in range(10)])
    assert "no trusted signature" in first_problem(store).what
    with pytest.raises(LedgerError, match="no trusted signature"):
        writer(store)


def test_a_log_of_another_system_is_refused(store):
    Writer(store, SERVICE, "other/audit", rhythm=Rhythm(0, 1)).write([item(record(1))])
    with pytest.raises(LedgerError, match="other/audit"):
        writer(store)
    with store.reading() as reading:
        assert "it is one of other/audit" in verify(reading, ORIGIN, keys_at).problems[0].what


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM mention WHERE block = 1",
        "UPDATE sketch SET prints = x'' WHERE block = 1",
        "UPDATE node SET hash = zeroblob(32) WHERE level = 8 AND place = 1",
    ],
)
def test_what_is_derived_is_checked_too(store, log, change):
    log.execute(change)
    assert first_problem(store).seq == 256


def test_a_changed_head_is_found_and_nothing_is_signed_upon_it(store, log):
    log.execute("UPDATE head SET frontier = zeroblob(length(frontier))")
    assert "the log says that it holds" in first_problem(store).what
    with pytest.raises(LedgerError, match="do not extend"):
        writer(store)


def test_a_log_changed_while_it_is_written_is_never_signed(store, log):
    into = writer(store)
    change_caller(log, 341)
    computed_anew(log)
    with pytest.raises(LedgerError, match="do not extend"):
        into.write([item(record(701))])
    assert report(store).records == SIZE


def test_records_after_the_last_checkpoint_are_counted_as_unsigned(store):
    fill(store, 10)
    writer(store, Rhythm(3600, 1000)).write([item(record(11)), item(record(12))])
    found = report(store)
    assert (found.records, found.unsigned, found.problems) == (12, 2, ())


ODD = (None, -1, 2**62, 1.5, "text", b"", b"\xff" * 40, "\udcff".encode("utf-8", "surrogateescape"))
COLUMNS = {
    "record": ("seq", "at", "kind", "leaf", "digest", "body"),
    "head": ("size", "frontier"),
    "note": ("size", "note"),
    "node": ("level", "place", "hash"),
    "sketch": ("block", "prints"),
    "mention": ("term", "block"),
}


@pytest.mark.parametrize("table", COLUMNS)
def test_values_that_no_log_would_write_end_in_a_clear_answer(store, log, table):
    """Whatever stands in the tables: problems are reported or an error of ours says what is wrong."""
    tried = 0
    for column in COLUMNS[table]:
        for value in ODD:
            log.execute("BEGIN")
            try:
                one = f"SELECT rowid FROM {table} LIMIT 1 OFFSET 1" if table in {"record", "note", "sketch"} else None
                where = f"WHERE rowid IN ({one})" if one else ""
                log.execute(f"UPDATE OR IGNORE {table} SET {column} = ? {where}", (value,))
            except sqlite3.Error:
                log.execute("ROLLBACK")
                continue
            log.execute("COMMIT")
            with contextlib.suppress(BartizanError):
                report(store)
            tried += 1
    assert tried > 3

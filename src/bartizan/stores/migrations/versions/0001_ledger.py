"""The first tables of the ledger."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "envelope",
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), nullable=False, unique=True),
        Column("body", LargeBinary, nullable=False),
        Column("predicate_type", Text, nullable=False),
        Column("received_ms", BigInteger, nullable=False),
        Column("leaf_hash", LargeBinary, nullable=False),
    )
    op.create_table(
        "subject",
        Column("bucket", Integer, primary_key=True, autoincrement=False),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("subject_digest", String(64), primary_key=True),
        Column("predicate_type", Text, nullable=False),
        Column("leaf_hash", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("subject_by_digest", "subject", ["subject_digest", "seq"])
    op.create_table(
        "node",
        Column("level", Integer, primary_key=True, autoincrement=False),
        Column("place", BigInteger, primary_key=True, autoincrement=False),
        Column("hash", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "head",
        Column("shard", Integer, primary_key=True, autoincrement=False),
        Column("hashes", LargeBinary, nullable=False),
    )
    op.create_table(
        "edge",
        Column("child", String(64), primary_key=True),
        Column("parent", String(64), primary_key=True),
        Column("kind", Text, primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
    )
    op.create_index("edge_by_parent", "edge", ["parent"])
    op.create_table(
        "checkpoint",
        Column("size", BigInteger, primary_key=True, autoincrement=False),
        Column("note", Text, nullable=False),
        Column("frontier", LargeBinary, nullable=False),
        Column("received_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "principal",
        Column("keyid", String(64), primary_key=True),
        Column("display", Text, nullable=False),
        Column("contact", Text, nullable=False),
        Column("erased_at", Text, nullable=True),
    )

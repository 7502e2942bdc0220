"""The ledger's rows in SQLite or PostgreSQL."""

from bartizan.stores.records.opening import open_records
from bartizan.stores.records.sql import SqlRecords

__all__ = ["SqlRecords", "open_records"]

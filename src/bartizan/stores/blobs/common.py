"""What all blob stores say and check alike."""

from __future__ import annotations

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import StoreError

MAX_BLOB_BYTES = 256 * 1024 * 1024
"""Blobs are held in memory; what is larger is an artefact, not a report."""
_RESTORE = "restore it, or run the check again."


def name_of(data: bytes) -> Digest:
    """Digest of a blob that is to be put.

    Raises:
        StoreError: it is too large.
    """
    if len(data) > MAX_BLOB_BYTES:
        raise StoreError(f"blob of {len(data)} bytes; at most {MAX_BLOB_BYTES} are kept", remedy="shorten the report.")
    return digest_bytes(data)


def checked(data: bytes, digest: Digest) -> bytes:
    """``data``, if it is what ``digest`` names.

    Raises:
        StoreError: it is not.
    """
    if digest_bytes(data) != digest:
        raise StoreError(f"blob {digest[:12]} is altered", remedy=_RESTORE)
    return data


def absent(digest: Digest) -> StoreError:
    """Nothing is stored under a digest."""
    return StoreError(f"blob {digest[:12]} is not there", remedy=_RESTORE)

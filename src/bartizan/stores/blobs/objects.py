"""Blobs in S3-compatible and other object storage, through obstore."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from bartizan.core.digest import Digest, digest_bytes, parse_digest
from bartizan.core.errors import StatementError, StoreError

_CHECK = "check the address, the login and the bucket."


class ObjectBlobs:
    """See ``core.ports.Blobs``. Creating is conditional on the server, so nobody overwrites anybody."""

    def __init__(self, url: str, **options: Any) -> None:
        try:
            self._store = from_url(url, **options)
        except (BaseError, ValueError) as error:
            raise StoreError(f"blob store {url} cannot be opened: {error}", remedy=_CHECK) from error

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Digest:
        """See ``core.ports.Blobs``."""
        digest = digest_bytes(data)
        attributes: Any = {"Content-Type": media_type}
        try:
            obstore.put(self._store, self._key(digest), data, mode="create", attributes=attributes)
        except AlreadyExistsError:
            self.get(digest)
        except BaseError as error:
            raise StoreError(f"blob {digest[:12]} cannot be written: {error}", remedy=_CHECK) from error
        return digest

    def get(self, digest: Digest) -> bytes:
        """See ``core.ports.Blobs``."""
        try:
            data = bytes(obstore.get(self._store, self._key(digest)).bytes())
        except FileNotFoundError as error:
            raise StoreError(
                f"blob {digest[:12]} is not there", remedy="restore it, or run the check again."
            ) from error
        except BaseError as error:
            raise StoreError(f"blob {digest[:12]} cannot be read: {error}", remedy=_CHECK) from error
        if digest_bytes(data) != digest:
            raise StoreError(f"blob {digest[:12]} is altered", remedy="restore it, or run the check again.")
        return data

    def has(self, digest: Digest) -> bool:
        """See ``core.ports.Blobs``."""
        try:
            obstore.head(self._store, self._key(digest))
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise StoreError(f"blob {digest[:12]} cannot be looked up: {error}", remedy=_CHECK) from error
        return True

    def list(self) -> Iterator[Digest]:
        """See ``core.ports.Blobs``."""
        for page in obstore.list(self._store, prefix="objects"):
            for item in page:
                with contextlib.suppress(StatementError):
                    yield parse_digest("".join(item["path"].split("/")[-2:]))

    @staticmethod
    def _key(digest: Digest) -> str:
        sound = parse_digest(digest)
        return f"objects/{sound[:2]}/{sound[2:]}"

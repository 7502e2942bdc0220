"""Blobs in S3-compatible and other object storage, through obstore."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from bartizan.core.digest import Digest, parse_digest
from bartizan.core.errors import StatementError, StoreError
from bartizan.stores.blobs.common import MAX_BLOB_BYTES, absent, checked, name_of

CONNECT_SECONDS = 10
TRANSFER_SECONDS = 120
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
"""The library's own three minutes are too long to wait for a wrong address."""
_CHECK = "check the address (https, unless AWS_ALLOW_HTTP=true), the login and the bucket."


class ObjectBlobs:
    """See ``core.ports.Blobs``. Creating is conditional on the server, so nobody overwrites anybody.

    Plain HTTP is refused unless ``client_options={"allow_http": True}`` or ``AWS_ALLOW_HTTP`` asks for it.
    """

    def __init__(self, url: str, **options: Any) -> None:
        client: dict[str, Any] = {"connect_timeout": f"{CONNECT_SECONDS}s", "timeout": f"{TRANSFER_SECONDS}s"}
        # NOTE: obstore no longer reads this variable once it is given any client options.
        client["allow_http"] = os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true", "yes"}
        client |= options.pop("client_options", {})
        settings: dict[str, Any] = {"retry_config": RETRIES, "client_options": client, **options}
        try:
            self._store = from_url(url, **settings)
        except (BaseError, ValueError, TypeError) as error:
            raise StoreError(f"blob store {url} cannot be opened: {_reason(error)}", remedy=_CHECK) from error

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Digest:
        """See ``core.ports.Blobs``."""
        digest = name_of(data)
        attributes: Any = {"Content-Type": media_type}
        try:
            obstore.put(self._store, _key(digest), data, mode="create", attributes=attributes)
        except AlreadyExistsError:
            self.get(digest)
        except (BaseError, OSError) as error:
            raise StoreError(f"blob {digest[:12]} cannot be written: {_reason(error)}", remedy=_CHECK) from error
        return digest

    def get(self, digest: Digest) -> bytes:
        """See ``core.ports.Blobs``."""
        try:
            found = obstore.get(self._store, _key(digest))
            if found.meta["size"] > MAX_BLOB_BYTES:
                raise StoreError(
                    f"blob {digest[:12]} is altered: it has {found.meta['size']} bytes", remedy="restore it."
                )
            return checked(bytes(found.bytes()), digest)
        except FileNotFoundError as error:
            raise absent(digest) from error
        except (BaseError, OSError) as error:
            raise StoreError(f"blob {digest[:12]} cannot be read: {_reason(error)}", remedy=_CHECK) from error

    def has(self, digest: Digest) -> bool:
        """See ``core.ports.Blobs``."""
        try:
            obstore.head(self._store, _key(digest))
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise StoreError(f"blob {digest[:12]} cannot be looked up: {_reason(error)}", remedy=_CHECK) from error
        return True

    def list(self) -> Iterator[Digest]:
        """See ``core.ports.Blobs``."""
        try:
            for page in obstore.list(self._store, prefix="objects"):
                for item in page:
                    with contextlib.suppress(StatementError):
                        yield parse_digest("".join(item["path"].split("/")[-2:]))
        except (BaseError, OSError) as error:
            raise StoreError(f"blobs cannot be listed: {_reason(error)}", remedy=_CHECK) from error


def _key(digest: Digest) -> str:
    sound = parse_digest(digest)
    return f"objects/{sound[:2]}/{sound[2:]}"


def _reason(error: Exception) -> str:
    """The first line; after it the library prints its own structures."""
    return str(error).partition("\n")[0][:400]

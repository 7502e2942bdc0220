"""Bytes by digest, in a folder or in object storage; written once, never changed."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import unquote, urlsplit

from bartizan.core.errors import StoreError
from bartizan.core.ports import Blobs
from bartizan.stores.blobs.folder import FolderBlobs

__all__ = ["FolderBlobs", "open_blobs"]


def open_blobs(location: str, **options: Any) -> Blobs:
    """Open a blob store: a path, ``file:///path``, ``s3://bucket/prefix``, ``gs://``, ``az://`` or ``memory:///``.

    ``options`` and the usual environment variables (``AWS_ENDPOINT_URL`` ...) go to obstore.

    Raises:
        StoreError: the location or its driver cannot be used.
    """
    parts = urlsplit(location) if "://" in location else None
    if parts is None:
        return FolderBlobs(location)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.strip("/"):
            raise StoreError(f"{location} names no folder here", remedy="use a path, or file:///path.")
        return FolderBlobs(unquote(parts.path))
    try:
        module = import_module("bartizan.stores.blobs.objects")
    except ModuleNotFoundError as error:
        raise StoreError("object storage needs a driver", remedy="pip install 'bartizan[s3]'.") from error
    store: Blobs = module.ObjectBlobs(location, **options)
    return store

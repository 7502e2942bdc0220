"""Small files that a user hands over: bounded, and with an error that names them."""

from __future__ import annotations

from pathlib import Path

from bartizan.core.errors import InputError

MAX_BYTES = 64 * 1024 * 1024


def read_small(path: Path, limit: int = MAX_BYTES) -> bytes:
    """All bytes of a file of at most ``limit`` bytes.

    Raises:
        InputError: it cannot be read, is no plain file, or is larger.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is no file", remedy="give the path of a file.")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="give a readable file.") from error
    if len(data) > limit:
        raise InputError(f"{path} is larger than {limit} bytes", remedy="give a smaller file.")
    return data

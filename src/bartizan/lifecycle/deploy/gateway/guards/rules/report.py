"""What the check ``gateway.rules`` leaves for the guard: the fitted tree, and how uncertain the model was measured."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guards.rules.tree import MOST_ROWS, TreeRow

CHECK = "gateway.rules"
MOST_BYTES = 4 << 20
"""What is longer is cut off, and then no JSON."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the report that the guard reads."""

    tree: Annotated[tuple[TreeRow, ...], msgspec.Meta(min_length=1, max_length=MOST_ROWS)]
    uncertainty: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    """Upper end of what was measured on rows that the model had not seen: the greater of its error rate and of its
    mean lack of confidence."""


_DECODER = msgspec.json.Decoder(Report)


def read_report(data: bytes) -> Report:
    """Read it.

    Raises:
        ArtefactError: it is none.
    """
    try:
        return _DECODER.decode(data[: MOST_BYTES + 1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(
            f"the report of {CHECK} cannot be read: {error}", remedy="run `bartizan assure --only gateway.rules`."
        ) from error


__all__ = ["CHECK", "Report", "read_report"]

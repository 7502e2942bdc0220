"""Where a served model is asked, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bartizan.core.errors import InputError

Speaks = Literal["oip", "json", "mlflow"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked, and how."""

    url: str
    """Of the model, such as ``http://127.0.0.1:8080/v2/models/tumour``; without ``/v2`` as it is posted to."""
    classes: tuple[str, ...]
    """What the server calls the classes, in the order of their indices."""
    columns: tuple[str, ...]
    """Names of the features, in order."""
    speaks: Speaks = "oip"
    inputs: str = ""
    """Name of the input: the tensor (``oip``; taken from the metadata when empty) or the key of the body."""
    outputs: str = ""
    """Key of the answer (``json``, ``mlflow``) or name of the tensor of scores; empty looks at the usual ones."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, such as a role's credentials."""
    seconds: float = 30.0
    """Wall time for one request from connecting to the last byte of the answer, however slowly that drips."""
    retries: int = 3
    """Times that a request which failed on the way is sent again."""
    patience: float = 60.0
    """Longest wait altogether for one request when the server says that it is asked too often. Who asks for no
    pause is given one that doubles each time, so that this also bounds how often it is asked."""
    most_rows: int = 512
    """Rows in one request."""
    role_budget: int = 2**62
    """Rows that may be sent altogether, those sent again included."""
    allow_remote: bool = False


def endpoint_headers(pairs: Sequence[str]) -> dict[str, str]:
    """Headers from ``Name: value`` texts.

    Raises:
        InputError: one of them is none.
    """
    found = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        sound = re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name.strip(), re.ASCII) and value.isprintable() and value.isascii()
        if not colon or not sound:
            raise InputError(f"{name[:40]!r} is no header", remedy="write 'Name: value'.")
        found[name.strip()] = value.strip()
    return found

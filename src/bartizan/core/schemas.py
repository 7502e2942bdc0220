"""JSON Schemas of statements, generated from the very structs that read them."""

from __future__ import annotations

from typing import Any

import msgspec

from bartizan.core import predicates
from bartizan.core.errors import InputError

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SHA256 = {
    "type": "object",
    "required": ["sha256"],
    "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
    "additionalProperties": {"type": "string"},
}


def statement_schema(predicate_type: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a whole in-toto statement with this predicate type.

    Raises:
        InputError: the type is not one that is read into a struct.
    """
    struct = predicates.KNOWN.get(predicate_type)
    if struct is None:
        known = ", ".join(predicates.short_name(kind) for kind in predicates.KNOWN)
        raise InputError(f"no schema for {predicate_type!r}", remedy=f"choose from: {known}.")
    (predicate,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema = {
        "$schema": DIALECT,
        "$id": f"urn:bartizan:schema:{predicates.short_name(predicate_type)}:v1",
        "title": f"in-toto statement, predicate {predicate_type}",
        "type": "object",
        "required": ["_type", "subject", "predicateType", "predicate"],
        "properties": {
            "_type": {"const": predicates.STATEMENT_TYPE},
            "subject": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["name", "digest"],
                    "properties": {"name": {"type": "string"}, "digest": _SHA256},
                },
            },
            "predicateType": {"const": predicate_type},
            "predicate": predicate,
        },
        "$defs": definitions,
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))  # defaults become JSON values
    return plain

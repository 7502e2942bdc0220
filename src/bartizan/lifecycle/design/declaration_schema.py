"""JSON Schema of ``bartizan.toml``: generated from the structs of ``core.system``, then made strict.

The structs say which keys there are and of which type; the tables below add what a type cannot say:
ranges, formats, what must not be left blank. The result ships as ``declaration.schema.json``, for
editors and so that nothing is generated at run time; a test holds the two together. Write it with
``python -m bartizan.lifecycle.design.declaration_schema FILE``.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core import system
from bartizan.core.system import Declaration

SCHEMA_FILE = "declaration.schema.json"
SCHEMA_ID = "urn:bartizan:declaration:v1"
MAX_TEXT = 20_000
MAX_LIST = 10_000

_NAME = {"format": "name"}
_ADDRESS = {"format": "address"}
_PATH = {"format": "path"}
_TERM = {"format": "term"}
_DURATION = {"format": "duration"}
_DESTRUCTION = {"format": "destruction"}
_SHARE = {"minimum": 0, "maximum": 1}
_SOME = {"minItems": 1}

STRICTER: dict[str, dict[str, Any]] = {
    "Declaration.name": _NAME,
    "Declaration.people": {"propertyNames": _NAME, "additionalProperties": {"type": "string", **_ADDRESS}},
    "Declaration.model": _SOME,
    "Declaration.dataset": _SOME,
    "Declaration.gate": {"propertyNames": _NAME},
    "Declaration.mitigation_cost": {"additionalProperties": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}},
    "Owner.contact": _ADDRESS,
    "Provenance.independent_sources": {"minimum": 1, "maximum": 1_000_000},
    "DatasetPart.name": _NAME,
    "DatasetPart.path": _PATH,
    "DatasetPart.retention": _TERM,
    "DatasetPart.destruction": _DESTRUCTION,
    "DatasetPart.uses": _SOME,
    "DatasetPart.synthetic_share": _SHARE,
    "DatasetPart.dependent": {"additionalProperties": {"type": "string", "format": "words", "maxLength": MAX_TEXT}},
    "DatasetPart.shape": {
        "minItems": 3,
        "maxItems": 3,
        "items": {"type": "integer", "minimum": 1, "maximum": 10_000},
        "x-allowed": "three whole numbers from 1: channels, height, width, as in [1, 28, 28]",
    },
    "DatasetPart.value_range": {
        "maxItems": 2,
        "x-allowed": "two numbers, the least and the largest value of a pixel: [0, 1] or [0, 255]",
    },
    "ModelPart.name": _NAME,
    "ModelPart.path": _PATH,
    "ModelPart.classes": {"minItems": 2},
    "ModelPart.uses": _SOME,
    "ModelPart.retention": _TERM,
    "ModelPart.lifespan": _TERM,
    "ModelPart.destruction": _DESTRUCTION,
    "DocumentPart.name": _NAME,
    "DocumentPart.path": _PATH,
    "Advisories.database": {"minLength": 1},
    "Advisories.max_age": _DURATION,
    "Environment.repository": {"minLength": 1},
    "Environment.ports_allowed": {"items": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "Guidance.audiences": {"items": {"type": "string", "maxLength": 64, **_NAME}, "uniqueItems": True},
    "Notice.responsibilities": _SOME,
    "Component.name": _NAME,
    "Exposure.consider": _SOME,
    "Expectation.metrics": {
        "minProperties": 1,
        "additionalProperties": {
            "type": "number",
            **_SHARE,
            "x-allowed": 'a number from 0 to 1; a name with a dot needs quotes, as in "recall.malignant" = 0.95',
        },
    },
    "RedTeam.seed": {"minimum": 0, "maximum": 2**32 - 1},
    "RedTeam.samples": {"minimum": 1, "maximum": 100_000},
    "RedTeam.query_budget": {"minimum": 1, "maximum": 10_000_000},
    "RedTeam.max_change": {"exclusiveMinimum": 0, "maximum": 1_000_000},
    "RedTeam.gradient_budget": {"minimum": 1, "maximum": 10_000_000},
    "RedTeam.seconds": {"minimum": 0, "maximum": 31_536_000},
    "RedTeam.poison_rates": {
        "minItems": 1,
        "maxItems": 20,
        "uniqueItems": True,
        "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    },
    "RedTeam.shadow_models": {"minimum": 2, "maximum": 4096},
    "RedTeam.extraction_budget": {"minimum": 1, "maximum": 10_000_000},
    "RedTeam.repeats": {"minimum": 1, "maximum": 1000},
    "Rule.id": _NAME,
    "Rule.max_age": _DURATION,
    "Rule.signers": {"minimum": 1, "maximum": 20},
    "Gate.valid_for": _DURATION,
    "Gate.rule": _SOME,
}
"""What is added to a field's schema, by struct and field."""

ALSO_REQUIRED = {"DatasetPart": ("limits",)}
"""Fields that may be absent from a value in memory but not from the file."""


def build() -> dict[str, Any]:
    """The whole schema, from the structs as they are now."""
    generated = msgspec.json.schema(Declaration)
    notes = _attribute_docstrings()
    definitions = {name: _strict(name, schema, notes.get(name, {})) for name, schema in generated["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "bartizan.toml",
        "$ref": generated["$ref"],
        "$defs": dict(sorted(definitions.items())),
    }


def encode() -> bytes:
    """The schema as it ships: indented JSON, the same bytes every time."""
    return msgspec.json.format(msgspec.json.encode(build()), indent=2) + b"\n"


def _strict(struct: str, schema: dict[str, Any], notes: dict[str, str]) -> dict[str, Any]:
    """One struct's schema, with descriptions, without null, and with the additions of the tables."""
    required = [*schema.get("required", ()), *ALSO_REQUIRED.get(struct, ())]
    properties = {
        name: _strict_field(f"{struct}.{name}", field, notes.get(name, ""), needed=name in required)
        for name, field in schema["properties"].items()
    }
    return {**schema, "properties": properties, "required": required}


def _strict_field(name: str, field: dict[str, Any], note: str, *, needed: bool) -> dict[str, Any]:
    strict = _without_null(field)
    strict.pop("default", None)
    if strict.get("type") == "string" and "enum" not in strict:
        strict |= {"maxLength": MAX_TEXT, **({"format": "words"} if needed else {})}
    elif strict.get("type") == "array":
        strict |= {"maxItems": MAX_LIST, **_strict_items(strict)}
    elif strict.get("additionalProperties", {}).get("type") == "array":
        inner = strict["additionalProperties"]
        strict["additionalProperties"] = {**inner, **_strict_items(inner)}
    strict |= STRICTER.get(name, {})
    return {**({"description": note} if note else {}), **strict}


def _strict_items(array: dict[str, Any]) -> dict[str, Any]:
    """Lists of texts hold no blanks and nothing twice."""
    if array.get("items") == {"type": "string"}:
        return {"items": {"type": "string", "format": "words", "maxLength": MAX_TEXT}, "uniqueItems": True}
    return {}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: ``X or null`` is X, and a choice of plain types is a list of types."""
    if "anyOf" not in field:
        return dict(field)
    rest = {key: value for key, value in field.items() if key != "anyOf"}
    choices = [choice for choice in field["anyOf"] if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**rest, **choices[0]}
    return {**rest, "type": sorted({choice["type"] for choice in choices})}


def _attribute_docstrings() -> dict[str, dict[str, str]]:
    """The strings below the attributes of ``core.system``, by class and attribute."""
    tree = ast.parse(inspect.getsource(system))
    return {node.name: _docstrings_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings_of(node: ast.ClassDef) -> dict[str, str]:
    notes = {}
    for statement, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            notes[statement.target.id] = inspect.cleandoc(str(below.value.value))
    return notes


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(encode())

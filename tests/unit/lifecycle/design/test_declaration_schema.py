"""The shipped schema is the structs' schema, made strict; other validators agree with it."""

import json
import tomllib
from pathlib import Path

import jsonschema
import msgspec
import pytest

from bartizan.core.system import Declaration
from bartizan.lifecycle.design import declaration_schema
from bartizan.lifecycle.design.declaration_schema import ALSO_REQUIRED, SCHEMA_FILE, STRICTER, build, encode
from bartizan.lifecycle.design.declaration_shape import FORMATS, schema

SMALL = Path(__file__).parents[3] / "assets" / "declaration" / "small.toml"


def fragments(value):
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from fragments(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from fragments(inner)


def test_the_shipped_schema_is_up_to_date():
    shipped = Path(declaration_schema.__file__).with_name(SCHEMA_FILE).read_bytes()
    assert shipped == encode(), f"run: python -m bartizan.lifecycle.design.declaration_schema .../{SCHEMA_FILE}"


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(build())


def test_every_addition_lands_on_a_field_that_exists():
    structs = build()["$defs"]
    for name in STRICTER:
        struct, field = name.split(".")
        assert field in structs[struct]["properties"], name
    for struct, fields in ALSO_REQUIRED.items():
        assert set(fields) <= set(structs[struct]["properties"])


def test_every_format_is_known_and_used():
    used = {fragment["format"] for fragment in fragments(schema()) if isinstance(fragment.get("format"), str)}
    assert used == set(FORMATS)


def test_every_table_of_a_declaration_has_a_description():
    assert all(struct["description"] for struct in schema()["$defs"].values())


def test_no_text_is_unbounded():
    for fragment in fragments(schema()):
        if fragment.get("type") == "string":
            assert "maxLength" in fragment or fragment.get("format") == "address"


@pytest.mark.parametrize("fragment", [f for f in fragments(build()) if "properties" in f], ids=lambda f: f["title"])
def test_unknown_keys_are_refused_everywhere(fragment):
    assert fragment["additionalProperties"] is False


def test_another_validator_accepts_the_small_declaration_and_so_do_the_structs():
    document = json.loads(msgspec.json.encode(tomllib.loads(SMALL.read_text(encoding="utf-8"))))
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert msgspec.convert(document, Declaration).name == "demo"

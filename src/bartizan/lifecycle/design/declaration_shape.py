"""Whether a document has the shape of a declaration: every fault of the JSON Schema at once, in plain words."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs
import msgspec

from bartizan.core.durations import DURATION_ALLOWED, TERM_ALLOWED, deadline, parse_duration
from bartizan.core.errors import InputError
from bartizan.lifecycle.design.declaration_lines import Place
from bartizan.lifecycle.design.declaration_problems import Problem, nearest, one_of, show
from bartizan.lifecycle.design.declaration_schema import SCHEMA_FILE

FILL_IN = "FILL IN"
"""How a value begins that a person still has to supply."""
MAX_PATH = 1024

DESTRUCTION: dict[str, str] = {
    "delete": "internal",
    "overwrite": "confidential",
    "crypto-shred": "restricted",
    "purge": "restricted",
    "destroy": "restricted",
}
"""Method of destruction to the highest sensitivity that it suits.

Deleting leaves the bytes on the medium; overwriting misses copies that the medium keeps out of
reach; destroying the only key, purging, and destroying the medium leave nothing that can be read.
Overwrite, purge and destroy are the three levels of NIST SP 800-88 Rev. 1, section 2.5.
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ADDRESS = re.compile(r"([^\s@]+@[^\s@]+|[a-z][a-z0-9+.-]*:[^\s]+)\Z")
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f\\:\ud800-\udfff]")
"""Control characters, Windows separators and drives, and bytes of a file name that are no UTF-8."""
_SOME_DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_INT64 = 2**63


class Format(msgspec.Struct, frozen=True):
    """A form that a text must have."""

    fits: Callable[[str], bool]
    allowed: str


def destruction_method(text: str) -> str:
    """The method that a ``destruction`` field begins with, or empty when it names none."""
    method = re.split(r"[:,;.\s]", text.strip(), maxsplit=1)[0]
    return method if method in DESTRUCTION else ""


def _is_path(text: str) -> bool:
    """Relative, below the folder, and the same on every operating system."""
    below = all(part not in {"", ".", ".."} for part in text.split("/"))
    return below and len(text) <= MAX_PATH and not _NOT_IN_PATHS.search(text)


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            parse(text)
        except InputError:
            return False
        return True

    return fits


FORMATS: dict[str, Format] = {
    "words": Format(lambda text: bool(text.strip()), "some words; it must not be left blank"),
    "name": Format(
        lambda text: _NAME.match(text) is not None,
        "1 to 64 letters, digits, dots, dashes or underscores, without blanks",
    ),
    "address": Format(
        lambda text: _ADDRESS.match(text) is not None,
        "an e-mail address, or a URI such as https://example.org/contact or tel:+4412345",
    ),
    "path": Format(_is_path, "a relative path inside the folder of this file, with / between names and without .."),
    "term": Format(_parses(lambda text: deadline(text, _SOME_DAY)), TERM_ALLOWED),
    "duration": Format(_parses(parse_duration), DURATION_ALLOWED),
    "destruction": Format(
        lambda text: bool(destruction_method(text)), f"{one_of(DESTRUCTION)}, then how and by whom, after a colon"
    ),
}
"""What the ``format`` keywords of the schema mean."""


def plain(value: Any, place: Place = ()) -> tuple[Any, list[Problem]]:
    """A TOML value as a JSON value: dates become text; numbers that JSON cannot hold are problems."""
    if isinstance(value, dict):
        return _plain_items(value, value.items(), place)
    if isinstance(value, list):
        return _plain_items(value, enumerate(value), place)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat(), []
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0, [
            Problem(place=place, message=f"{value} is no number that can be compared", allowed="a finite number")
        ]
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return 0, [Problem(place=place, message="a whole number beyond 64 bits", allowed="-(2**63) to 2**63 - 1")]
    return value, []


def _plain_items(container: Any, items: Any, place: Place) -> tuple[Any, list[Problem]]:
    made, problems = {}, []
    for step, inner in items:
        made[step], found = plain(inner, (*place, step))
        problems += found
    return (made if isinstance(container, dict) else list(made.values())), problems


def unfilled(value: Any, place: Place = ()) -> Iterator[Problem]:
    """Values that a person still has to supply."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from unfilled(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unfilled(inner, (*place, index))
    elif isinstance(value, str) and value.startswith(FILL_IN):
        yield Problem(
            place=place,
            message="still has to be filled in by somebody who knows",
            allowed=value.removeprefix(FILL_IN).strip(" :")[:300],
        )


def shape_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Everything in which a document, made ``plain``, departs from the schema."""
    return [problem for error in _validator().iter_errors(document) for problem in _explain(error)]


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of ``bartizan.toml``."""
    text = resources.files(__package__).joinpath(SCHEMA_FILE).read_bytes()
    loaded: dict[str, Any] = msgspec.json.decode(text)
    return loaded


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    formats = {name: form.fits for name, form in FORMATS.items()}
    return jsonschema_rs.Draft202012Validator(schema(), formats=formats, validate_formats=True)


def _explain(error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
    place, keyword = tuple(error.instance_path), error.kind.name
    if keyword == "propertyNames":
        name = error.kind.value.instance
        allowed = _allowed(_fragment(error.schema_path[: error.schema_path.index("propertyNames") + 1]))
        yield Problem(place=(*place, name), message=f"{show(name)} cannot be a name here", allowed=allowed)
        return
    fragment = _fragment(error.schema_path[:-1])
    if keyword == "required":
        yield _missing(place, error.kind.value, fragment)
    elif keyword == "additionalProperties":
        for key in error.kind.value:
            yield _unknown(place, key, fragment)
    else:
        yield _unfit(place, error.instance, keyword, fragment)


def _missing(place: Place, key: str, fragment: Mapping[str, Any]) -> Problem:
    wanted = _resolved(fragment["properties"].get(key, {}))
    note = wanted.get("description", "")
    allowed = _allowed(wanted)
    about = f"{note} ({allowed})" if note and allowed else note or allowed
    return Problem(place=(*place, key), message="is missing", allowed=about)


def _unknown(place: Place, key: str, fragment: Mapping[str, Any]) -> Problem:
    known = list(fragment["properties"])
    return Problem(
        place=(*place, key), message="there is no such key", allowed=one_of(known, 30), suggestion=nearest(key, known)
    )


def _unfit(place: Place, value: Any, keyword: str, fragment: Mapping[str, Any]) -> Problem:
    suggestion = ""
    if keyword == "enum" and isinstance(value, str):
        suggestion = nearest(value, fragment["enum"])
    elif fragment.get("format") == "name" and isinstance(value, str):
        suggestion = re.sub(r"[^A-Za-z0-9._-]+", "-", value[:64]).strip("-._")
    message = _COMPLAINTS.get(keyword, "is not what can stand here: {}").format(show(value))
    return Problem(place=place, message=message, allowed=_allowed(fragment), suggestion=suggestion)


_COMPLAINTS = {
    "type": "is of the wrong kind: {}",
    "enum": "is none of the known values: {}",
    "format": "cannot be read: {}",
    "minimum": "is too small: {}",
    "exclusiveMinimum": "is too small: {}",
    "maximum": "is too large: {}",
    "exclusiveMaximum": "is too large: {}",
    "minItems": "holds too little: {}",
    "minProperties": "holds too little: {}",
    "maxItems": "holds too much: {}",
    "maxLength": "is too long: {}",
    "uniqueItems": "holds the same twice: {}",
}
_KINDS = {
    "string": "a text in quotes",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list in [ ]",
    "object": "a table",
}


def _allowed(fragment: Mapping[str, Any]) -> str:
    """What a fragment of the schema asks for, in words."""
    fragment = _resolved(fragment)
    if "x-allowed" in fragment:
        return str(fragment["x-allowed"])
    if "enum" in fragment:
        return one_of(fragment["enum"])
    if fragment.get("format") in FORMATS:
        return FORMATS[fragment["format"]].allowed
    kinds = fragment.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_KINDS[kind] for kind in kinds) + _limits(fragment)


def _limits(fragment: Mapping[str, Any]) -> str:
    bounds = [
        (words, fragment[key])
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("minItems", "of at least"),
            ("maxItems", "of at most"),
            ("minProperties", "of at least"),
            ("maxLength", "of at most"),
        )
        if key in fragment
    ]
    return "".join(f" {words} {limit}" for words, limit in bounds)


def _fragment(path: Sequence[str | int]) -> dict[str, Any]:
    """The part of the schema at a path."""
    part: Any = schema()
    for step in path:
        part = part[step]
    return _resolved(part)


def _resolved(fragment: Any) -> dict[str, Any]:
    """Follow one ``$ref``; what stands beside it wins."""
    if not isinstance(fragment, dict):
        return {}
    if "$ref" not in fragment:
        return fragment
    return {**schema()["$defs"][fragment["$ref"].rsplit("/", 1)[1]], **fragment}

"""The line index: every value of a TOML document is found on the line where it stands."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.lifecycle.design.declaration_lines import MAX_DEPTH, MAX_VALUES, index_lines
from fixtures.effort import within

DOCUMENT = '''\
# a comment with name = "not a key"
name = "demo"
purpose = """
two
lines = "inside a string"
"""

owner.role = "ml"
"quoted \\u0041 key".'literal.key' = 1

[expected]
metrics = { accuracy = 0.9, "recall.x" = 0.95 }
list = [
  "one",  # comment ] with brackets
  'two',
  [3, 4],
]
when = 2031-12-31 10:00:00

[[dataset]]
name = "train"
[dataset.provenance]
host = "h"
[[dataset]]
name = """x"""""
  [[dataset.part]]
  a = 1
  [[dataset.part]]
  b.c = { d = [ { e = 1 } ] }
[gate.release]
rule = [
  { id = "scan",
    where = [] },
]
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("name",), 2),
        (("purpose",), 3),
        (("owner",), 8),
        (("owner", "role"), 8),
        (("quoted A key", "literal.key"), 9),
        (("expected",), 11),
        (("expected", "metrics", "recall.x"), 12),
        (("expected", "list", 0), 14),
        (("expected", "list", 1), 15),
        (("expected", "list", 2, 1), 16),
        (("expected", "when"), 18),
        (("dataset",), 20),
        (("dataset", 0), 20),
        (("dataset", 0, "name"), 21),
        (("dataset", 0, "provenance"), 22),
        (("dataset", 0, "provenance", "host"), 23),
        (("dataset", 1), 24),
        (("dataset", 1, "name"), 25),
        (("dataset", 1, "part", 0, "a"), 27),
        (("dataset", 1, "part", 1, "b", "c", "d", 0, "e"), 29),
        (("gate",), 30),
        (("gate", "release", "rule", 0), 32),
        (("gate", "release", "rule", 0, "where"), 33),
    ],
)
def test_a_value_is_found_on_its_line(place, line):
    assert index_lines(DOCUMENT).lines[place] == line


def test_a_missing_key_is_placed_on_the_line_of_its_table():
    index = index_lines(DOCUMENT)
    assert index.line(("dataset", 1, "provenance", "host")) == 24
    assert index.line(("nothing", "here")) == 1


def test_windows_line_ends_do_not_shift_lines():
    assert index_lines(DOCUMENT.replace("\n", "\r\n")).lines == index_lines(DOCUMENT).lines


@pytest.mark.parametrize(
    ("text", "line", "first"),
    [
        ("a = 1\nb = 2\na = 3", 3, 1),
        ("[a]\n[b]\n[a]", 3, 1),
        ("x = { a = 1, a = 2 }", 1, 1),
        ("a.b = 1\na.b = 2", 2, 1),
    ],
)
def test_a_repeated_key_names_both_lines(text, line, first):
    (repeat,) = index_lines(text).repeats
    assert (repeat.line, repeat.first) == (line, first)


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 3 + "a = " + "[" * 100_000,
        "\n" * 3 + "a = " + "{ a = " * 100_000,
        "\n" * 3 + ".".join("a" * 100_000) + " = 1",
        "\n" * 3 + "[" + ".".join("a" * (MAX_DEPTH + 1)) + "]",
    ],
    ids=["arrays", "inline tables", "dotted key", "table header"],
)
def test_nesting_that_would_hurt_the_parser_is_named_with_its_line(text):
    index = index_lines(text)
    assert index.excess
    assert index.excess_line == 4


def test_too_many_values_are_refused():
    assert "more than" in index_lines("a = [" + "1," * MAX_VALUES + "]").excess


HOSTILE = {
    "unclosed strings": 'a = """\\"\n' * 100_000,
    "unclosed arrays": "a = [ # x\n" * 100_000,
    "unclosed tables": "a = { b = 1\n" * 100_000,
    "comments": "a=1 # \n# #" * 100_000,
    "headers": "[[a]]\n" * 100_000,
    "quotes": "'" * 1_000_000,
    "escapes": '"' + "\\" * 999_999,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_anything_is_scanned_in_seconds(text):
    with within(1.5):
        index_lines(text)


KEYS = st.sampled_from(["a", "b", "c-1", '"d e"', "'f.g'", "a.b", '"x\\ty".z', "9"])
SCALARS = st.sampled_from(
    [
        "1",
        "-2.5",
        "true",
        '"s # ]"',
        "'l }'",
        '"""m\n"" x"""',
        "'''n\n= ] '''",
        "1979-05-27 07:32:00",
        "inf",
        '""',
        "''",
    ]
)
GAP = st.sampled_from(["", " ", "\n", " # note ]\n  "])


def arrays(inner):
    return st.lists(st.tuples(GAP, inner, GAP), max_size=3).map(
        lambda items: "[" + ",".join(before + value + after for before, value, after in items) + "]"
    )


def inline_tables(inner):
    return st.lists(st.tuples(KEYS, inner), max_size=3).map(
        lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items) + "}"
    )


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)
STATEMENTS = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    KEYS.map(lambda key: f"[ {key} ]"),
    KEYS.map(lambda key: f"[[{key}]] # ["),
    st.sampled_from(["", "# x = 1"]),
)
DOCUMENTS = st.lists(STATEMENTS, max_size=8).map("\n".join)


def places(value, place=()):
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


@settings(deadline=None)
@given(DOCUMENTS)
def test_the_index_agrees_with_the_parser(text):
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        index_lines(text)
        return
    index = index_lines(text)
    assert set(places(document)) == set(index.lines)
    assert index.repeats == ()
    lines = text.split("\n")
    for place, line in index.lines.items():
        if isinstance(place[-1], str):
            assert place[-1].replace("\t", "\\t") in lines[line - 1]


@settings(deadline=None)
@given(st.text())
def test_any_text_is_survived(text):
    index_lines(text)

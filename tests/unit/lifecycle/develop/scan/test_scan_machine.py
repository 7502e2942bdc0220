"""The symbolic pickle machine walks what the real one walks, and nothing is built."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.lifecycle.develop.scan import scan_bytes
from bartizan.lifecycle.develop.scan.limits import Limits, Meter
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.judge import Judge
from bartizan.lifecycle.develop.scan.pickle.machine import Machine
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy
from bartizan.lifecycle.develop.scan.pickle.steps import STEPS
from bartizan.lifecycle.develop.scan.pickle.stream import walk
from bartizan.lifecycle.develop.scan.pickle.values import Call, DictSymbol
from fixtures.hostile_models import calls, imports, text, whole

LEAVES_OF = ["a list that is shared"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=80)
    | st.binary(max_size=20)
)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=8), inner, max_size=6)
        | st.frozensets(st.integers(), max_size=4)
        | st.lists(st.integers(), max_size=40)
        | st.lists(st.tuples(st.integers(-9, 9), st.floats(allow_nan=False)), max_size=40)
    ),
    max_leaves=60,
)


def run(data, limits=None):
    """Walk one pickle."""
    limits = limits or Limits()
    judge = Judge(data, load_policy(), limits)
    machine = Machine(data, judge, Meter(limits), STEPS)
    machine.run()
    return machine


def rules(data):
    """Ids of the rules that fire on one pickle."""
    return [issue.rule for issue in walk(data, 0, Meter(Limits())).issues]


def test_the_tables_know_every_opcode_of_the_standard_library():
    codes = {ord(code.code) for code in pickletools.opcodes}
    assert codes == op.VALID
    handled = {opcode for opcode in range(256) if STEPS[opcode] is not None}
    inline = {op.MEMOIZE, op.SHORT_BINUNICODE, op.BINUNICODE, op.MARK, op.TUPLE2, op.EMPTY_LIST, *op.FIXED}
    assert codes <= handled | inline


@given(PLAIN, st.integers(0, 5))
def test_plain_data_is_walked_to_its_end_without_a_finding(value, protocol):
    data = pickle.dumps(value, protocol)
    walked = walk(data, 0, Meter(Limits()))
    assert (walked.ended, walked.end) == ("stop", len(data)), walked.why
    allowed = {"_codecs.encode", "builtins.frozenset", "builtins.set", "builtins.bytes"} if protocol < 4 else set()
    assert not walked.issues
    assert {str(name) for name in walked.judge.names.values()} <= allowed


def records(count):
    """Dicts that share their keys, each with a text of its own."""
    return [{"id": number, "tag": f"t{number}", "of": f"c{number % 7}"} for number in range(count)]


def fetch(index):
    """Fetches a memo entry and drops it."""
    return b"j" + struct.pack("<I", index) + b"0"


def test_records_are_stepped_over():
    data = pickle.dumps(records(30_000), 4)
    walked = walk(data, 0, Meter(Limits()))
    assert (walked.ended, walked.end) == ("stop", len(data))
    assert walked.opcodes < 3000
    assert not walked.issues


def test_records_that_hold_more_than_constants_are_not_stepped_over():
    data = pickle.dumps([{"id": number, "of": os.getcwd} for number in range(20)], 4)
    assert rules(data) == ["pickle/dangerous-callable"]
    assert run(pickle.dumps([{"id": number, "of": LEAVES_OF} for number in range(50)], 4)).shares >= 49


def test_millions_of_records_stay_within_the_limits():
    data = pickle.dumps([{"a": number} for number in range(3000)], 4)
    meter = Meter(Limits(nodes=500))
    assert walk(data, 0, meter).ended == "stop"
    assert walk(data[:-1] + b"j\xa0\x0b\x00\x000.", 0, meter).ended == "limit"


def test_memo_entries_of_a_skipped_run_are_found_when_they_are_needed():
    items = b"".join(text(f"w{n}") + b"\x94" for n in range(300))
    data = whole(
        b"](" + items + text("os") + b"\x94" + text("system") + b"\x94e0j\x2c\x01\x00\x00j\x2d\x01\x00\x00\x93"
    )
    assert rules(data) == ["pickle/dangerous-callable"]


def test_a_dict_filled_by_a_run_is_still_known():
    state = b"}(" + text("_parse_arg_template") + b"\x94" + text("import os") + b"\x94u"
    made = imports("scipy.stats._continuous_distns", "norm_gen") + b")\x81"
    assert rules(whole(made + state + b"b")) == ["pickle/refused-state"]


def test_a_long_state_that_hides_code_is_still_judged():
    filler = b"".join(text(f"key{n}") + b"K\x01" for n in range(3000))
    state = b"}(" + filler + b"u(" + text("_parse_arg_template") + text("import os") + b"u"
    made = imports("scipy.stats._continuous_distns", "norm_gen") + b")\x81"
    assert rules(whole(made + state + b"b")) == ["pickle/refused-state"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"0", "no MARK is open"),
        (b"(0.", "takes more"),
        (b"N(Ne", "takes no"),
        (b"NN\x86\x87", "takes more"),
        (b"(K\x01\x86", "takes more"),
        (b"}()u", "without a value"),
        (b"]K\x01\x93", "no text"),
        (b"K\x01K\x01\x93", "no text"),
        (b"K\x01)R", "no callable"),
        (b"h\x00", "does not exist"),
        (b"p-1\n", "takes more"),
        (b"Np-1\n", "negative"),
        (b"Npx\n", "no number"),
        (b"\x8b\xff\xff\xff\xff", "negative length"),
        (b"\x82\x00", "does not exist"),
        (b"\x95", "ends in the middle"),
        (b"\x95\x01", "ends in the middle"),
        (b"t", "no MARK"),
        (b"\x00", "no opcode"),
    ],
)
def test_where_the_unpickler_raises_the_walk_ends_and_says_why(body, why):
    data = b"\x80\x04" + body + b"." + b" " * (20 if "middle" not in why and "end" not in why else 0)
    with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever the real unpickler raises
        pickle.loads(data)
    walked = walk(data, 0, Meter(Limits()))
    assert walked.ended == "malformed"
    assert why in walked.why


@pytest.mark.parametrize("line", [b"Sabc\n", b"Iabc\n", b"I" + b"1" * 5000 + b"\n", b"I5\x00\n", b"Fx\n"])
def test_a_bad_number_does_not_hide_what_follows(line):
    assert rules(line + b"0cos\nsystem\n)R.") == [
        "pickle/malformed",
        "pickle/dangerous-callable",
        "pickle/dangerous-callable",
    ]


@pytest.mark.parametrize("odd", [b"NNb", b"N(e", b"N(u", b"]K\x01aK\x00K\x02s", b"\x96\x01\0\0\0\0\0\0\0aK\x01a"])
def test_what_the_c_unpickler_lets_pass_does_not_end_the_walk(odd):
    data = b"\x80\x04" + odd + b"0N."
    assert pickle.loads(data) is None
    assert run(data).ended == "stop"


def test_an_odd_escape_in_a_string_is_no_error():
    data = b"S'a\\q'\n."
    with pytest.warns(DeprecationWarning, match="escape"):
        assert pickle.loads(data) == "a\\q"
    assert run(data).ended == "stop"
    assert rules(data) == []


def test_a_very_long_dotted_name_is_a_walk():
    name = b"path.os." * 1000 + b"system"
    assert rules(whole(text("os") + b"X" + struct.pack("<I", len(name)) + name + b"\x93")) == ["pickle/dotted-walk"]


def test_the_memo_counts_its_entries_as_the_unpickler_does():
    body = b"Nr\x05\x00\x00\x000" + text("sys") + b"\x940" + b"h\x01"
    assert pickle.loads(whole(body)) == "sys"
    machine = run(whole(body))
    assert (machine.ended, machine.sparse.keys()) == ("stop", {5, 1})


def test_protocols_below_3_mean_the_names_of_python_3():
    assert rules(b"\x80\x02c__builtin__\neval\n.") == ["pickle/dangerous-callable"]
    assert rules(b"\x80\x03c__builtin__\neval\n.") == ["pickle/unlisted-name"]
    assert rules(b"\x80\x02ccopy_reg\n_reconstructor\n.") == []


def test_the_last_protocol_opcode_counts():
    assert rules(b"\x80\x04\x80\x02c__builtin__\neval\n.") == ["pickle/dangerous-callable"]


def test_a_class_by_getattr_is_judged_by_its_whole_name():
    nested = calls("builtins", "getattr", imports("zoneinfo", "ZoneInfo"), text("_unpickle"))
    assert rules(whole(nested + b"(" + text("Europe/London") + b"K\x01tR")) == []
    assert rules(whole(calls("builtins", "getattr", imports("zoneinfo", "ZoneInfo"), text("__init__")))) == [
        "pickle/refused-argument"
    ]


def test_listed_names_do_only_what_is_listed():
    assert rules(whole(imports("sklearn.linear_model._base", "LinearRegression") + b")\x81}b")) == []
    assert rules(whole(imports("sklearn.linear_model._base", "LinearRegression") + b")R")) == ["pickle/refused-use"]
    assert rules(whole(imports("builtins", "range") + b")\x81")) == ["pickle/refused-use"]


def test_an_instance_takes_no_items_after_its_state():
    made = imports("collections", "OrderedDict") + b")R"
    assert rules(whole(made + text("a") + b"K\x01s}b")) == []
    assert rules(whole(made + b"}b" + text("a") + b"K\x01s")) == ["pickle/refused-use"]


def test_containers_keep_only_what_can_matter():
    machine = run(whole(b"}(" + b"".join(text(f"k{n}") + imports("builtins", "int") for n in range(2000)) + b"u"))
    top = machine.stack[-1]
    assert isinstance(top, DictSymbol)
    assert not top.whole
    assert len(top) == 2000


@pytest.mark.parametrize(
    ("end", "verdict"), [(b"\n", "clean"), (b"\r\n", "clean"), (b"\n\n", "suspicious"), (b" ", "suspicious")]
)
def test_a_line_break_behind_the_pickle_is_no_hidden_content(end, verdict):
    assert scan_bytes(pickle.dumps([1, 2]) + end, "model").verdict == verdict


def test_a_call_is_a_symbol():
    machine = run(whole(calls("collections", "OrderedDict")))
    assert isinstance(machine.stack[-1], Call)


def reads_on(second):
    """What one unpickler makes of a list of two texts and a second pickle behind it, and the report on both."""
    data = pickle.dumps(["os", "getcwd"], 4) + second
    unpickler = pickle.Unpickler(io.BytesIO(data))
    return unpickler.load(), unpickler.load(), scan_bytes(data, "model")


def test_a_pickle_is_also_read_with_the_memo_of_the_one_before():
    """Alone it names an ordered dict; to an unpickler that goes on, entries 1 and 2 are those of the list."""
    second = whole(b"N\x940" + text("collections") + b"\x940" + text("OrderedDict") + b"\x940h\x01h\x02\x93")
    assert pickle.loads(second) is collections.OrderedDict
    _, named, report = reads_on(second)
    assert named is os.getcwd
    assert [finding.rule for finding in report.findings] == ["pickle/dangerous-callable"]


def test_pickles_of_one_pickler_may_refer_to_one_another():
    _, again, report = reads_on(whole(b"](h\x01h\x01e"))
    assert again == ["os", "os"]
    assert (report.verdict, report.facts["pickles"]) == ("clean", 2)


def test_a_memo_that_all_pickles_share_is_bounded():
    data = whole(b"N" + b"\x94" * 6000) * 2
    assert scan_bytes(data, "model", Limits(memo=8000)).exit_code != 0
    assert scan_bytes(data, "model", Limits(memo=13_000)).exit_code == 0


def test_another_format_whose_bytes_are_opcodes_is_examined_as_both():
    """A GGUF header is a float to the unpickler, and the first string a line of text."""
    data = b"GGUF\x03\0\0\0\x01V" + bytes(14) + b"name\n0" + calls("os", "system", text("id")) + b"."
    report = scan_bytes(data, "model.gguf")
    assert report.format == "gguf"
    assert report.members[-1].name == "<read as a pickle>"
    assert report.verdict == "dangerous"


def test_a_small_pickle_before_a_signed_one_is_a_pickle():
    assert scan_bytes(b")." + whole(calls("os", "system", text("id"))), "model").verdict == "dangerous"


def test_a_constant_that_would_exhaust_the_memory_is_told_from_one_that_was_cut_off():
    assert rules(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50)) == ["pickle/allocation"]
    assert rules(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 30)) == []


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(opcodes=10_000), whole(b"N0" * 25_000)),
        (Limits(memo=5_000), whole(b"N" + b"\x94" * 50_000)),
        (Limits(stack=5_000), whole(b"L1L\n" * 50_000)),
        (Limits(stack=5_000), whole(b"(" * 50_000 + b"N")),
        (Limits(nodes=5_000), whole(b"]0" * 50_000)),
        (
            Limits(memo=5_000),
            pickle.dumps(records(9000), 4)[:-1] + b"0" + b"".join(map(fetch, range(9, 9999, 99))) + b".",
        ),
        (Limits(reading=1000), whole(imports("operator", "itemgetter") + (b"0h\x00" * 3))),
    ],
    ids=["opcodes", "memo", "stack", "marks", "nodes", "runs", "reading"],
)
def test_limits_end_a_walk(limits, data):
    if limits.reading == 1000:
        big = b"X" + struct.pack("<I", 900) + b"a" * 900 + b"\x94"
        data = whole(big + b"".join(b"h\x00" + text("x") + b"\x930" for _ in range(9)))
    walked = walk(data, 0, Meter(limits))
    assert walked.ended == "limit"
    assert "more than" in walked.why or "too much" in walked.why

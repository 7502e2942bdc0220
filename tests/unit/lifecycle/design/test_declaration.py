"""Reading a declaration: every fault at once, on its line, in words that help; and nothing else for any bytes."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import DeclarationError
from bartizan.core.system import Declaration
from bartizan.lifecycle.design.declaration import MAX_BYTES, MAX_FAULTS, read_declaration
from bartizan.lifecycle.design.declaration_shape import FORMATS
from bartizan.lifecycle.design.vocabulary import Vocabulary
from fixtures.effort import within

SMALL = (Path(__file__).parents[3] / "assets" / "declaration" / "small.toml").read_text(encoding="utf-8")
VOCABULARY = Vocabulary.of(catalogue(), checks=("scan", "redteam.evasion.hopskipjump"))


def noon():
    return datetime(2026, 11, 21, 12, tzinfo=UTC)


def read(text):
    data = text if isinstance(text, bytes) else text.encode()
    return read_declaration(data, "bartizan.toml", VOCABULARY, clock=noon)


def faults(text):
    with pytest.raises(DeclarationError) as caught:
        read(text)
    return caught.value.faults


def changed(old, new, count=1):
    assert SMALL.count(old) >= 1, old
    return SMALL.replace(old, new, count)


def without(line):
    """The document without the first line that begins like this."""
    return changed(next(found for found in SMALL.splitlines(keepends=True) if found.startswith(line)), "")


def line_of(text, beginning):
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(beginning))


def test_a_sound_declaration_is_read_as_it_is_written():
    declaration = read(SMALL)
    assert declaration.name == "demo"
    assert declaration.model[0].classes == ("unripe", "ripe")
    assert declaration.dataset[0].ranges == {"weight": (0.0, 500.0)}
    assert declaration.dataset[1].retention == "2031-12-31"
    assert declaration.expected.metrics == {"accuracy": 0.9, "recall.ripe": 0.95}
    assert declaration.gate["release"].rule[1].where[0].at_least == 0.3
    assert declaration.exposure.positions["outsider"] == ("know.task",)


def test_windows_line_ends_are_read():
    assert read(SMALL.replace("\n", "\r\n")) == read(SMALL)


# -- bytes and syntax -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b"\xef\xbb\xbf" + SMALL.encode(), 1, "byte-order mark"),
        (SMALL.encode("utf-16"), 1, "UTF-16"),
        (b'name = "a"\nx = "\xff"\n', 2, "0xff"),
        (b'name = "a"\n\n\x00', 3, "NUL"),
        (b"#" * (MAX_BYTES + 1), 0, "at most"),
        (b'name = "a"\nname = "b"\n', 2, "line 1"),
        (b"[a]\n[b]\n[a]\n", 3, "line 1"),
        (b"a = 1\nb = \nc = 2\n", 2, "Invalid value"),
        (b'a = 1\nb = "open', 2, "end of the file"),
        (b"a = 1 b = 2\n", 1, "column"),
        (b"\na = " + b"[" * 50_000, 2, "nested"),
        (b"\n\n" + b".".join([b"a"] * 50_000) + b" = 1", 3, "parts"),
        (b"a = " + b"9" * 5_000, 0, "no number can hold"),
        (b"\nname = " + b"9" * 40, 2, "64 bits"),
        (b"name = nan", 1, "nan"),
    ],
)
def test_what_is_no_document_is_refused_with_its_line(data, line, says):
    (fault,) = faults(data)[:1]
    assert (fault.line, says in str(fault)) == (line, True), fault


@pytest.mark.parametrize(
    "data",
    [
        b".".join([b"a"] * 100_000) + b" = 1",
        b"a=[" + b"1," * 1_000_000 + b"]",
        b"".join(b"a%d=1\n" % number for number in range(300_000)),
        b"x = '''" + b"y" * 4_000_000 + b"'''",
        b"[[a]]\n" * 90_000,
    ],
    ids=["dotted key", "list", "keys", "text", "tables"],
)
def test_large_and_hostile_documents_are_refused_in_seconds(data):
    with within(3):
        found = faults(data)
    assert len(found) <= MAX_FAULTS + 1


# -- shape ----------------------------------------------------------------------------------------

REQUIRED = [
    pytest.param('purpose = "Tell', "purpose", id="purpose"),
    pytest.param("owner = {", "owner", id="owner", marks=pytest.mark.control("2.3-p")),
    pytest.param("limits = ", "model[0].limits", id="model limits"),
    pytest.param("lifespan = ", "model[0].lifespan", id="model lifespan"),
    pytest.param("destruction = ", "model[0].destruction", id="model destruction", marks=pytest.mark.control("2.3-t")),
    pytest.param("sensitivity = ", "dataset[0].sensitivity", id="sensitivity"),
    pytest.param("personal_data = ", "dataset[0].personal_data", id="personal data"),
    pytest.param('retention = "5y"', "dataset[0].retention", id="retention"),
    pytest.param('uses = ["sort fruit", "research"]', "dataset[0].uses", id="uses", marks=pytest.mark.control("2.3-k")),
    pytest.param('limits = "One season; n', "dataset[0].limits", id="data limits", marks=pytest.mark.control("2.3-k")),
    pytest.param("host = ", "dataset[0].provenance.host", id="host", marks=pytest.mark.control("A-MLSG-002-N001")),
    pytest.param(
        "contributors = ",
        "dataset[0].provenance.contributors",
        id="contributors",
        marks=pytest.mark.control("A-MLSG-002-N001"),
    ),
    pytest.param(
        "independent_sources = ",
        "dataset[0].provenance.independent_sources",
        id="independent sources",
        marks=pytest.mark.control("A-MLSG-002-N001"),
    ),
    pytest.param("collected = ", "dataset[0].provenance.collected", id="collected", marks=pytest.mark.control("2.3-g")),
    pytest.param("metrics = ", "expected.metrics", id="expected", marks=pytest.mark.control("1.2-G1")),
    pytest.param("failure_plan = ", "expected.failure_plan", id="failure plan", marks=pytest.mark.control("1.2-G1")),
    pytest.param("monitoring = ", "expected.monitoring", id="monitoring", marks=pytest.mark.control("3.2-b")),
    pytest.param('users = "', "impact.users", id="impact"),
]


@pytest.mark.parametrize(("line", "path"), REQUIRED)
def test_what_is_required_is_missed(line, path):
    (fault,) = faults(without(line))
    assert fault.path == path
    assert "missing" in fault.message


@pytest.mark.parametrize(("line", "path"), [case for case in REQUIRED if case.id not in {"owner", "personal data"}])
def test_what_is_required_must_not_be_blank(line, path):
    whole = next(found for found in SMALL.splitlines() if found.startswith(line))
    key, _, value = whole.partition(" = ")
    blank = {"[": '["  "]', "{": "{}", '"': '"  "'}.get(value[0], "0")
    text = changed(whole, f"{key} = {blank}")
    (fault,) = faults(text)
    assert fault.path.removesuffix("[0]") == path
    assert fault.line == line_of(text, f"{key} = {blank}")
    assert fault.allowed


def test_all_faults_are_told_at_once_in_line_order():
    text = (
        changed("task =", "tusk =").replace('"scikit-learn"', '"scikitlearn"').replace("samples = 20", "samples = -1")
    )
    text = text.replace('contact = "owner@example.org"', 'contact = "somebody"')
    found = faults(text)
    assert [fault.line for fault in found] == sorted(fault.line for fault in found)
    by_path = {fault.path: fault for fault in found}
    assert set(by_path) == {
        "owner.contact",
        "model[0].task",
        "model[0].tusk",
        "model[0].framework",
        "redteam.samples",
    }
    assert by_path["model[0].tusk"].suggestion == "task"
    assert by_path["model[0].framework"].suggestion == "scikit-learn"
    assert by_path["model[0].framework"].line == line_of(text, "framework")
    assert "from 1" in by_path["redteam.samples"].allowed


@pytest.mark.parametrize(
    ("old", "new", "path", "says"),
    [
        ('name = "demo"', 'name = "my demo!"', "name", "did you mean 'my-demo'"),
        ('name = "demo"', "name = 3", "name", "wrong kind: 3"),
        ('interface = "internal"', 'interface = "Publik"', "exposure.interface", "did you mean 'public'"),
        ('retention = "2y"', 'retention = "two years"', "model[0].retention", "12h, 90d"),
        ("retention = 2031-12-31", "retention = 2031-12-31T10:00:00", "dataset[1].retention", "2031-12-31"),
        ('max_age = "30d"', 'max_age = "2031-01-01"', "gate.release.rule[0].max_age", "12h, 90d"),
        ('destruction = "crypto', 'destruction = "burn, crypto', "model[0].destruction", "crypto-shred"),
        (
            "independent_sources = 2",
            "independent_sources = 0",
            "dataset[0].provenance.independent_sources",
            "too small",
        ),
        ("accuracy = 0.9", "accuracy = 90", "expected.metrics.accuracy", "from 0 to 1"),
        ('"recall.ripe" = 0.95', "recall.ripe = 0.95", "expected.metrics.recall", "needs quotes"),
        ("max_change = 0.5", "max_change = inf", "redteam.max_change", "finite"),
        ("samples = 20", "samples = 20.0", "redteam.samples", "int"),
        ("samples = 20", "poison_rates = [0.6]", "redteam.poison_rates[0]", "too large"),
        ("samples = 20", "query_budget = 99999999999", "redteam.query_budget", "too large"),
        ('classes = ["unripe", "ripe"]', 'classes = ["ripe"]', "model[0].classes", "at least 2"),
        ('classes = ["unripe", "ripe"]', 'classes = ["ripe", "ripe"]', "model[0].classes", "twice"),
        ('risk-owner = "owner@', '"risk owner" = "owner@', 'people."risk owner"', "letters"),
        ("signers = 2", "signers = 0", "gate.release.rule[2].signers", "too small"),
        ('valid_for = "30d"', 'valid_for = "0d"', "gate.release.valid_for", "cannot be read"),
        ("M04 = 3", "M04 = -3", "mitigation_cost.M04", "above 0"),
        ("weight = [0, 500]", "weight = [0]", "dataset[0].ranges.weight", "too little"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_right(old, new, path, says):
    text = changed(old, new)
    found = faults(text)
    assert path in [fault.path for fault in found], found
    fault = next(fault for fault in found if fault.path == path)
    assert says in str(fault)
    assert fault.line == text[: text.index(new)].count("\n") + 1


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x.csv",
        "data/../../x.csv",
        "data//x.csv",
        "./x.csv",
        "",
        ".",
        "data/",
        "C:/x.csv",
        "a\\b.csv",
        "x\\u0000y",
        "x\\ny",
        "a" * 1025,
    ],
)
def test_paths_stay_inside_the_folder(path):
    quoted = path if "\\u" in path or "\\n" in path else path.replace("\\", "\\\\")
    (fault,) = faults(changed('path = "data/train.csv"', f'path = "{quoted}"'))
    assert fault.path == "dataset[0].path"
    assert "inside the folder" in fault.allowed


@settings(deadline=None)
@given(st.text(max_size=40))
def test_a_path_that_is_accepted_never_leads_out(path):
    if FORMATS["path"].fits(path):
        root = Path("/some/folder")
        assert (root / path).is_relative_to(root)
        assert ".." not in (root / path).parts


def test_a_line_that_waits_for_somebody_says_so():
    text = changed("independent_sources = 2", 'independent_sources = "FILL IN: how many sources"')
    (fault,) = faults(text)
    assert fault.line == line_of(text, "independent_sources")
    assert "filled in" in fault.message
    assert fault.allowed == "how many sources"


def test_beyond_a_hundred_faults_only_their_number_is_told():
    found = faults("\n".join(f"key{number} = 1" for number in range(300)))
    assert len(found) == MAX_FAULTS + 1
    assert "more faults" in found[-1].message


def test_the_error_reads_like_a_list_of_places():
    with pytest.raises(DeclarationError) as caught:
        read(changed('split = "holdout"', 'split = "test"'))
    assert "bartizan.toml:56: dataset[1].split" in str(caught.value)
    assert caught.value.remedy


def test_hostile_text_is_shown_harmlessly():
    (fault,) = faults(changed('interface = "internal"', 'interface = "\\u001b[31m\\u202e' + "x" * 500 + '"'))
    assert str(fault).isprintable()
    assert len(str(fault)) < 300


# -- any bytes ------------------------------------------------------------------------------------


def survives(data):
    try:
        return read(data)
    except DeclarationError as error:
        refusal = error
    assert refusal.faults
    assert all(fault.message and fault.line >= 0 for fault in refusal.faults)
    assert str(refusal)
    return None


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_declaration_or_an_error(data):
    survives(data)


@settings(deadline=None)
@given(
    st.integers(0, len(SMALL)), st.integers(0, 40), st.text(max_size=8) | st.sampled_from(['"', "[", "]]", "{", "\n"])
)
def test_any_edit_of_a_sound_declaration_is_survived(at, length, inserted):
    text = SMALL[:at] + inserted + SMALL[at + length :]
    declaration = survives(text.encode("utf-8", "surrogatepass"))
    assert declaration is None or isinstance(declaration, Declaration)


VALUES = st.sampled_from(
    r"""1;-1;1e308;nan;"";"x";[];[[]];{};true;1979-05-27;07:32:00;{ a = [1] };[1, 'a'];0x7fffffffffffffffffff;"\u0000"
    "FILL IN";-0.0;["ripe"];[{}];"\U0001F600";-9223372036854775808""".replace("\n", ";").split(";")
)
ASSIGNMENTS = [number for number, line in enumerate(SMALL.splitlines()) if " = " in line and not line.startswith("#")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ASSIGNMENTS), VALUES), min_size=1, max_size=3))
def test_any_value_at_any_key_is_survived(edits):
    lines = SMALL.splitlines()
    for number, value in edits:
        lines[number] = f"{lines[number].split(' = ')[0]} = {value}"
    text = "\n".join(lines)
    tomllib.loads(text)
    survives(text.encode())

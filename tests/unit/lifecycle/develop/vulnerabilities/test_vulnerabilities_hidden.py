"""Ways to make a known vulnerability disappear: spellings, locks, bills, statements and databases that mislead."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.errors import BartizanError, InputError
from bartizan.lifecycle.develop.bom.reading import read_bill
from bartizan.lifecycle.develop.vulnerabilities.advisories import read_export
from bartizan.lifecycle.develop.vulnerabilities.check import look_up, summary
from bartizan.lifecycle.develop.vulnerabilities.inventories import Inventory, Item, of_bill, of_lock
from bartizan.lifecycle.develop.vulnerabilities.matching import match
from bartizan.lifecycle.develop.vulnerabilities.vex import read_vex
from fixtures.advisories import GHSA, export

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def advisory(name, *, ecosystem="PyPI", number="CVE-2026-44444", modified="2026-11-01T00:00:00Z", **affected):
    """An advisory of any shape about one package."""
    return {
        "id": number,
        "modified": modified,
        "affected": [{"package": {"ecosystem": ecosystem, "name": name}, **affected}],
    }


def ranged(**events):
    """An ECOSYSTEM range from the first version on."""
    return [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, *({key: value} for key, value in events.items())]}]


@pytest.fixture
def database(tmp_path):
    """Reads advisories as an export."""

    def made(*advisories, **files):
        path = tmp_path / "all.zip"
        path.write_bytes(export(*advisories, **files))
        return read_export(path)

    return made


def looked(index, version, *, name="x", ecosystem="PyPI", said=()):
    item = Item(ecosystem=ecosystem, name=name, version=version, source="lock")
    return look_up(Inventory(items=(item,)), index, said, now=NOW)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("2.0+cu118", {"ranges": ranged(last_affected="2.0")}),
        ("2.0+cu118", {"versions": ["2.0"]}),
        ("1.0.0", {"versions": ["1.0"]}),
        ("v1.0", {"versions": ["1.0"]}),
        ("1.0RC1", {"versions": ["1.0rc1"]}),
        ("1.0-post1", {"versions": ["1.0.post1"]}),
    ],
)
def test_another_spelling_or_a_local_build_is_the_same_version(database, version, affected):
    assert looked(database(advisory("x", **affected)), version).exit_code == 1


def test_a_local_build_of_the_fixed_version_is_fixed(database):
    assert looked(database(advisory("x", ranges=ranged(fixed="2.0"))), "2.0+cu118").exit_code == 0


@pytest.mark.parametrize(
    ("ecosystem", "version", "fixed"),
    [("Debian:12", "1.0-2", "1.0a-1"), ("Debian:12", "1.0.2-1", "1.0.2c-1"), ("Maven", "1.0-rc1", "1.0-m9")],
)
def test_versions_that_other_systems_order_otherwise_are_no_all_clear(database, ecosystem, version, fixed):
    index = database(advisory("x", ecosystem=ecosystem, ranges=ranged(fixed=fixed)))
    assert looked(index, version, ecosystem=ecosystem.partition(":")[0]).exit_code == 2
    index = database(advisory("x", ecosystem=ecosystem, ranges=ranged(fixed="1.2.3")))
    assert looked(index, "1.2.2", ecosystem=ecosystem.partition(":")[0]).exit_code == 1


def test_an_advisory_without_versions_is_no_all_clear(database):
    commits = [{"type": "GIT", "events": [{"introduced": "0"}]}]
    assert looked(database(advisory("x", ranges=commits)), "1.0").exit_code == 2


# ---- locks and bills


@pytest.mark.parametrize(
    "text",
    [
        "# a note \\\nx==1.0\n",
        "   # a note \\\r\nx==1.0\n",
        "a==1\n-rother.txt\n",
        "a==1\n--req other.txt\n",
        "a==1\n-e.\n",
        "a==1\n-cother.txt\n",
        "a==1\n--constraint=other.txt\n",
    ],
)
def test_no_line_of_a_requirements_file_is_passed_over(database, text):
    index = database(advisory("x", versions=["1.0"]))
    assert look_up(of_lock(text.encode(), "requirements.txt"), index, [], now=NOW).exit_code in {1, 2}


def test_options_that_name_no_package_are_no_gap():
    text = b"-i https://x/simple\n--require-hashes\n--extra-index-url=https://y\n--pre\na==1 --hash=sha256:00\n"
    assert of_lock(text, "requirements.txt").unclear == ()


def test_an_environment_file_cannot_exhaust_the_machine():
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    aliases = "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairs)
    for text in (f"a: &a [x]\n{aliases}dependencies: [pip: [*i]]\n", "[" * 1_000_000, "- " * 100_000):
        with pytest.raises(InputError):
            of_lock(text.encode(), "environment.yml")


def bill(**component):
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "x", **component}]}
    return of_bill(read_bill(json.dumps(document).encode()), "bom")


@pytest.mark.parametrize(
    ("component", "item"),
    [
        ({"type": "library", "purl": "pkg:deb/debian/x@1.0"}, ("Debian", "x", "1.0")),
        ({"type": "library", "purl": "pkg:deb/ubuntu/x@1.0"}, ("Ubuntu", "x", "1.0")),
        ({"type": "library", "purl": "pkg:apk/alpine/x@1.0"}, ("Alpine", "x", "1.0")),
        ({"type": "library", "purl": "pkg:pypi/x@9.9", "version": "1.0"}, ("PyPI", "x", "1.0")),
        ({"type": "application", "purl": "pkg:pypi/x@1.0"}, ("PyPI", "x", "1.0")),
    ],
)
def test_a_component_is_looked_up_under_the_name_of_its_database(component, item):
    assert item in [(each.ecosystem, each.name, each.version) for each in bill(**component).items]


@pytest.mark.parametrize("kind", ["application", "file", "container", "operating-system", "firmware", "platform"])
@pytest.mark.parametrize("purl", ["", "pkg:conda/x@1.0", "pkg:deb/other/x@1.0"])
def test_a_component_under_another_type_is_not_passed_over(kind, purl):
    assert bill(type=kind, purl=purl).unclear


# ---- what was said of it


def vex(*statements, **document):
    said = {"@context": "https://openvex.dev/ns/v0.2.0", "timestamp": "2026-01-01T00:00:00Z", **document}
    return read_vex(json.dumps({**said, "statements": statements}).encode(), "vex.json")


def settles(number="CVE-2026-44444", product="pkg:pypi/x", **more):
    products = {} if product is None else {"products": [{"@id": product}]}
    return {"vulnerability": number, "status": "not_affected", "impact_statement": "not called", **products, **more}


def test_a_statement_settles_only_its_own_product(database):
    index = database(advisory("x", versions=["1.0"]))
    assert looked(index, "1.0", said=vex(settles())).exit_code == 0
    other = {"identifiers": {"purl": "pkg:pypi/other"}}
    assert looked(index, "1.0", said=vex(settles(products=[other]))).exit_code == 1
    ours = {"identifiers": {"purl": "pkg:pypi/x@1.0"}}
    assert looked(index, "1.0", said=vex(settles(products=[ours]))).exit_code == 0


@pytest.mark.parametrize("products", [[], [{}], [{"@id": ""}], [{"@id": None}], [{"identifiers": {"cpe23": "cpe"}}]])
def test_a_statement_about_nothing_is_not_about_everything(products):
    with pytest.raises(InputError, match="names no product"):
        vex(settles(products=products))


def test_what_settles_one_of_several_weaknesses_does_not_settle_the_others(database):
    joined = {**advisory("x", versions=["1.0"], number="PYSEC-2026-9"), "aliases": ["CVE-2026-1", "CVE-2026-2"]}
    index = database(joined)
    assert looked(index, "1.0", said=vex(settles("CVE-2026-1"))).exit_code == 1
    assert looked(index, "1.0", said=vex(settles("CVE-2026-1"), settles("CVE-2026-2"))).exit_code == 0


@pytest.mark.parametrize("first", [True, False])
def test_the_latest_word_counts_wherever_it_stands(database, first):
    index = database(advisory("x", versions=["1.0"]))
    old = vex(settles())
    new = vex(settles(status="affected"), timestamp="2026-06-01T00:00:00Z")
    assert looked(index, "1.0", said=[*new, *old] if first else [*old, *new]).exit_code == 1


# ---- databases


def test_an_advisory_that_cannot_be_read_is_no_all_clear(database):
    index = database(GHSA, **{"broken.json": json.dumps({**advisory("x", versions=["1.0"]), "aliases": "CVE"})})
    result = looked(index, "1.0")
    assert (result.exit_code, result.result) == (2, "WARNED")
    assert "1 entries of the database are no advisory" in summary(result)


@pytest.mark.parametrize("modified", ["2999-01-01T00:00:00Z", "2026-11-25"])
def test_a_database_from_the_future_is_refused(database, modified):
    index = database(GHSA, advisory("x", versions=["1.0"], modified=modified))
    with pytest.raises(InputError, match="yet to come"):
        look_up(Inventory(), index, [], now=NOW, max_age="14d")


@pytest.mark.parametrize("modified", ["2026-11-20", "2026-11-20T00:00:00", "soon", "zzz"])
def test_a_time_without_a_zone_or_no_time_is_no_traceback(database, modified):
    index = database(advisory("x", versions=["1.0"], modified=modified))
    if modified[0] == "2":
        assert look_up(Inventory(), index, [], now=NOW, max_age="14d")
    else:
        with pytest.raises(InputError, match="how old"):
            look_up(Inventory(), index, [], now=NOW, max_age="14d")


def test_a_loose_advisory_replaced_with_the_same_size_and_time_is_read_again(tmp_path):
    path, cache = tmp_path / "osv", tmp_path / "cache"
    path.mkdir()
    file = path / "one.json"
    file.write_text(json.dumps(advisory("y", versions=["1.0"])))
    times = file.stat()
    assert looked(read_export(path, cache), "1.0").exit_code == 0
    file.write_text(json.dumps(advisory("x", versions=["1.0"])))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    assert looked(read_export(path, cache), "1.0").exit_code == 1


# ---- any bytes

_TEXTS = st.sampled_from(
    ["", "0", "1.0", "x", "PyPI", "pkg:pypi/x@1", "2026-01-01", "not_affected", "CVE-1"]
) | st.text(max_size=6)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "@context", "statements", "vulnerability", "status", "products", "@id", "name", "aliases", "timestamp",
                "bomFormat", "specVersion", "components", "type", "purl", "version", "identifiers", "package",
                "default", "dependencies", "pip",
            ]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=_JSON, head=st.sampled_from(["vex", "bom", "Pipfile.lock", "environment.yml"]))
def test_no_document_makes_a_traceback(value, head):
    plain = dict(value) if isinstance(value, dict) else {"statements": value, "components": value}
    heads = {
        "vex": {"@context": "https://openvex.dev/ns/v0.2.0"},
        "bom": {"bomFormat": "CycloneDX", "specVersion": "1.6"},
    }
    data = json.dumps({**plain, **heads.get(head, {})}).encode()
    read = {"vex": lambda: read_vex(data, "v"), "bom": lambda: of_bill(read_bill(data), "b")}
    try:
        read.get(head, lambda: of_lock(data, head))()
    except BartizanError:
        return


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("ab=1.-# \\\n\t[];@'\"{}:&*<!"), max_size=60),
    name=st.sampled_from(["requirements.txt", "uv.lock", "Pipfile.lock", "environment.yml"]),
)
def test_no_lock_file_makes_a_traceback(text, name):
    try:
        of_lock(text.encode(), name)
    except BartizanError:
        return


@settings(max_examples=100, deadline=timedelta(seconds=30))
@given(
    version=_TEXTS,
    affected=st.fixed_dictionaries(
        {
            "ranges": st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.sampled_from(["ECOSYSTEM", "SEMVER", "GIT", "?"]),
                        "events": st.lists(
                            st.dictionaries(
                                st.sampled_from(["introduced", "fixed", "last_affected", "limit"]), _TEXTS, max_size=2
                            ),
                            max_size=3,
                        ),
                    }
                ),
                max_size=2,
            ),
            "versions": st.lists(_TEXTS, max_size=2),
        }
    ),
    ecosystem=st.sampled_from(["PyPI", "npm", "Debian"]),
)
def test_no_advisory_makes_a_traceback(tmp_path_factory, version, affected, ecosystem):
    path = tmp_path_factory.mktemp("osv") / "one.json"
    path.write_text(json.dumps(advisory("x", ecosystem=ecosystem, **affected)))
    item = Item(ecosystem=ecosystem, name="x", version=version, source="lock")
    match(Inventory(items=(item,)), read_export(path))

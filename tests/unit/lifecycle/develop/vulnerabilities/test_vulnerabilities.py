"""Packages against advisories: ranges, names, withdrawn ones, gaps, and databases that are none."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import pytest

from bartizan.core.errors import InputError
from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.vulnerabilities.advisories import read_export
from bartizan.lifecycle.develop.vulnerabilities.check import look_up
from bartizan.lifecycle.develop.vulnerabilities.inventories import Inventory, Item, join, of_lock
from bartizan.lifecycle.develop.vulnerabilities.matching import base_score, match
from bartizan.lifecycle.develop.vulnerabilities.vex import read_vex, write_vex
from fixtures.advisories import ADVISORIES, GHSA, LAST, export

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "all.zip"
    path.write_bytes(export())
    return read_export(path)


def having(name, version, ecosystem="PyPI"):
    return Inventory(items=(Item(ecosystem=ecosystem, name=name, version=version, source="lock"),))


def ids(index, name, version, ecosystem="PyPI"):
    return [each.id for each in match(having(name, version, ecosystem), index).found]


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("0.1", True),
        ("1.4.1", True),
        ("1.4.2", False),
        ("1.4.2rc1", True),
        ("1.9", False),
        ("2.0rc1", True),
        ("2.0b9", False),
        ("2.0.2.post1", True),
        ("2.0.3", False),
        ("1!1.0", False),
    ],
)
def test_ranges_follow_pep_440(index, version, hit):
    assert ids(index, "tensor-tools", version) == (["CVE-2026-11111"] if hit else [])


@pytest.mark.parametrize(("version", "hit"), [("2.9", False), ("3.0", True), ("3.5", True), ("3.5.1", False)])
def test_the_last_affected_version_is_affected(index, version, hit):
    assert bool(ids(index, "slow-loader", version)) is hit


@pytest.mark.parametrize(
    ("version", "hit"),
    [("1.0.0-beta.1", False), ("1.0.0-beta.11", True), ("1.0.0", True), ("1.2.0-rc.1", True), ("1.2.0", False)],
)
def test_semantic_versions_have_their_own_order(index, version, hit):
    assert bool(ids(index, "@scope/viewer", version, "npm")) is hit


@pytest.mark.parametrize("name", ["tensor-tools", "Tensor.Tools", "tensor__tools", "TENSOR-TOOLS"])
def test_a_package_is_found_however_its_name_is_spelled(index, name):
    assert ids(index, name, "1.4.1") == ["CVE-2026-11111"]


def test_one_weakness_under_three_names_counts_once_with_the_best_of_each(index):
    (found,) = match(having("tensor-tools", "1.4.1"), index).found
    assert found.names == ("CVE-2026-11111", "GHSA-aaaa-bbbb-cccc", "PYSEC-2026-7")
    assert (found.severity, found.score, found.fixed) == (Severity.CRITICAL, 9.8, ("1.4.2", "2.0.3"))
    assert found.cwe == ("CWE-22",)
    assert found.days_known(NOW) == 80
    finding = found.finding(NOW)
    assert finding.remedy == "upgrade to 1.4.2 or later."
    assert "known for 80 days" in finding.detail


def test_a_version_that_cannot_be_compared_is_told_and_is_no_all_clear(index):
    looked = look_up(having("tensor-tools", "not a version"), index, [], now=NOW)
    assert looked.counting == ()
    assert "PEP 440" in looked.matched.unclear[0]
    assert (looked.exit_code, looked.result) == (2, "WARNED")


def test_nothing_looked_up_is_no_all_clear(index):
    looked = look_up(Inventory(), index, [], now=NOW)
    assert (looked.exit_code, looked.result) == (2, "FAILED")


def test_an_old_database_answers_nothing(index):
    with pytest.raises(InputError, match="older than 14d"):
        look_up(having("a", "1"), index, [], now=datetime(2027, 1, 1, tzinfo=UTC), max_age="14d")
    assert look_up(having("a", "1"), index, [], now=NOW, max_age="14d").exit_code == 0


@pytest.mark.parametrize("name", ["none", "folder", "empty.zip", "broken.zip", "noise.zip"])
def test_no_database_is_an_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.zip").write_bytes(export(GHSA)[:0] + b"PK\x05\x06" + b"\0" * 18)
    (tmp_path / "broken.zip").write_bytes(export()[: len(export()) // 2])
    (tmp_path / "noise.zip").write_bytes(b"PK" + bytes(range(256)))
    with pytest.raises(InputError):
        read_export(tmp_path / name)


def test_broken_advisories_are_counted_and_the_rest_is_used(tmp_path):
    path = tmp_path / "all.zip"
    path.write_bytes(export(*ADVISORIES, **{"a.json": "{", "b.json": '{"id": 3}', "c.json": "[" * 5000, "d.txt": "x"}))
    index = read_export(path)
    assert (index.count, index.unreadable) == (5, 3)


def test_an_index_is_made_once_and_again_when_the_export_changes(tmp_path):
    path, cache = tmp_path / "osv", tmp_path / "cache"
    path.mkdir()
    (path / "PyPI.zip").write_bytes(export(GHSA))
    assert read_export(path, cache) == read_export(path, cache)
    (path / "one.json").write_text(json.dumps(LAST))
    assert read_export(path, cache).count == 2
    assert len(list(cache.iterdir())) == 2
    for kept in cache.iterdir():
        kept.write_bytes(b"damaged")
    assert read_export(path, cache).count == 2


@pytest.mark.parametrize(
    ("kind", "vector", "score"),
    [
        ("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS_V4", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 9.3),
        ("CVSS_V3", "nonsense", None),
        ("CVSS_V3", "CVSS:3.1/" + "A" * 500, None),
        ("Ubuntu", "high", None),
    ],
)
def test_scores_come_from_vectors(kind, vector, score):
    assert base_score(kind, vector) == score


LOCKS = {
    "requirements.txt": "a==1.0 \\\n  --hash=sha256:00\nB.b[x]==2 ; python_version > '3'  # why\n-i https://x\n",
    "poetry.lock": '[[package]]\nname = "a"\nversion = "1.0"\n[[package]]\nname = "B.b"\nversion = "2"\n',
    "uv.lock": 'version = 1\n[[package]]\nname = "a"\nversion = "1.0"\n[[package]]\nname = "B.b"\nversion = "2"\n',
    "Pipfile.lock": '{"default": {"a": {"version": "==1.0"}}, "develop": {"B.b": {"version": "==2"}}}',
    "environment.yaml": "dependencies:\n  - pip:\n    - a==1.0\n    - B.b==2\n",
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_are_read(name):
    found = of_lock(LOCKS[name].encode(), name)
    assert [(item.name, item.version) for item in found.items] == [("a", "1.0"), ("B.b", "2")]
    assert found.unclear == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a>=1", "not pinned"),
        ("a==1.*", "not pinned"),
        ("a @ https://x/a.whl", "not pinned"),
        ("-r other.txt", "not followed"),
        ("-e .", "not followed"),
        ("???", "no requirement"),
    ],
)
def test_what_is_not_pinned_is_told(line, said):
    assert said in of_lock(line.encode(), "requirements.txt").unclear[0]


@pytest.mark.parametrize("name", LOCKS)
def test_damaged_lock_files_are_read_or_refused(name):
    rng = random.Random(5)
    for _ in range(200):
        data = bytearray(LOCKS[name].encode())
        at = rng.randrange(len(data))
        data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        try:
            of_lock(bytes(data), name)
        except InputError:
            continue


def test_the_same_package_of_two_lists_is_looked_up_once():
    assert len(join([having("a", "1"), having("a", "1")]).items) == 1


def vex(**changes):
    statement = {
        "vulnerability": {"name": "CVE-2026-11111"},
        "products": [{"@id": "pkg:pypi/tensor-tools@1.4.1"}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
    }
    return json.dumps({"@context": "https://openvex.dev/ns/v0.2.0", "statements": [{**statement, **changes}]}).encode()


def test_a_justified_status_settles_a_vulnerability(index):
    looked = look_up(having("tensor-tools", "1.4.1"), index, read_vex(vex(), "vex.json"), now=NOW)
    assert (looked.counting, looked.exit_code) == ((), 0)
    assert looked.settled[0][1].why == "vulnerable_code_not_in_execute_path"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "under_investigation"},
        {"status": "affected"},
        {"products": [{"@id": "pkg:pypi/tensor-tools@1.4.0"}]},
        {"products": [{"@id": "pkg:pypi/other"}]},
        {"vulnerability": {"name": "CVE-2026-99999"}},
    ],
)
def test_other_statements_settle_nothing(index, changes):
    looked = look_up(having("tensor-tools", "1.4.1"), index, read_vex(vex(**changes), "vex.json"), now=NOW)
    assert looked.exit_code == 1


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"@context":"x","statements":[]}', vex(justification=""), vex(status="fine")]
)
def test_unsound_vex_documents_are_refused(data):
    with pytest.raises(InputError):
        read_vex(data, "vex.json")


def test_a_written_document_reads_back(index):
    found = match(having("tensor-tools", "1.4.1"), index).found
    written = write_vex(found, [], author="urn:x", now=NOW)
    assert [each.status for each in read_vex(written, "vex.json")] == ["under_investigation"]
    settled = write_vex(found, read_vex(vex(), "vex.json"), author="urn:x", now=NOW)
    assert look_up(having("tensor-tools", "1.4.1"), index, read_vex(settled, "v"), now=NOW).exit_code == 0

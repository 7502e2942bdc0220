"""``bartizan vulns`` as a person uses it, and what a gate makes of the result."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import pytest

from bartizan.cli.main import run
from bartizan.core import keys, predicates
from bartizan.core.statement import make
from bartizan.wiring.workspace import Workspace
from fixtures.advisories import GHSA, about, export

NUMPY = metadata.version("numpy")


@pytest.fixture
def folder(tmp_path, assured_once):
    """A copy of the assured example that may be changed."""
    return shutil.copytree(assured_once, tmp_path / "project", symlinks=True)


@pytest.fixture
def database(tmp_path):
    """An export with one advisory about the numpy that is installed."""
    path = tmp_path / "all.zip"
    path.write_bytes(export(GHSA, about("numpy", version=NUMPY, fixed="99.1")))
    return path


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("tensor-tools==1.4.1\nharmless==1.0\n")
    return path


def declare(folder, text):
    """Put tables in front of the first one of the declaration."""
    path = folder / "bartizan.toml"
    path.write_text(path.read_text() + text)


def test_no_database_is_an_error_and_never_clean(tmp_path, ask_in, lock):
    code, _, said = ask_in(tmp_path, "vulns", "--lock", str(lock))
    assert code == 2
    assert "no vulnerability database" in said


@pytest.mark.control("2.2-b")
def test_the_age_of_known_fixes_is_reported_for_installed_packages(tmp_path, ask_in, database):
    code, out, said = ask_in(tmp_path, "vulns", "--osv-db", str(database))
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.split()[1:2] == ["numpy"]]
    assert "CVE-2026-33333" in line
    assert line.split()[4:] == [line.split()[4], "d", "99.1"]
    assert int(line.split()[4]) >= 80
    assert "1 known vulnerabilities count (1 critical)" in said
    code, out, _ = ask_in(tmp_path, "vulns", "--osv-db", str(database), "--json")
    (found,) = json.loads(out)["counting"]
    assert (found["fixed"], found["published"]) == (["99.1"], "2026-09-02T00:00:00Z")


def test_a_lock_file_and_a_bill_are_looked_up(tmp_path, ask_in, database, lock):
    code, out, _ = ask_in(tmp_path, "vulns", "--osv-db", str(database), "--lock", str(lock))
    assert (code, "tensor-tools 1.4.1" in out) == (1, True)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [{"type": "library", "name": "tensor-tools", "purl": "pkg:pypi/tensor-tools@1.4.2"}],
    }
    (tmp_path / "bom.json").write_text(json.dumps(bill))
    assert ask_in(tmp_path, "vulns", "--osv-db", str(database), "--bom", str(tmp_path / "bom.json"))[0] == 0
    bill["components"].append({"type": "library", "name": "unknown"})
    (tmp_path / "bom.json").write_text(json.dumps(bill))
    assert ask_in(tmp_path, "vulns", "--osv-db", str(database), "--bom", str(tmp_path / "bom.json"))[0] == 2


def test_a_vex_document_settles_and_is_written(tmp_path, ask_in, database, lock):
    vex = tmp_path / "vex.json"
    look = ["vulns", "--osv-db", str(database), "--lock", str(lock)]
    assert ask_in(tmp_path, *look, "--write-vex", str(vex), "--sarif", str(tmp_path / "found.sarif"))[0] == 1
    assert json.loads((tmp_path / "found.sarif").read_text())["runs"][0]["results"][0]["ruleId"] == "vulns/known"
    document = json.loads(vex.read_text())
    document["statements"][0] |= {"status": "not_affected", "impact_statement": "archives are never unpacked here"}
    vex.write_text(json.dumps(document))
    code, _, said = ask_in(tmp_path, *look, "--vex", str(vex))
    assert (code, "archives are never unpacked here" in said) == (0, True)


@pytest.mark.control("2.1-e")
def test_a_known_vulnerable_package_is_reported_and_gated(folder, ask_in, database):
    declare(
        folder,
        f'\n[vulnerabilities]\ndatabase = "{database}"\nmax_age = "3650d"\n'
        '\n[[gate.patched.rule]]\nid = "no-known-vulnerability"\nabout = "system"\ntype = "vulns"\n',
    )
    code, _, said = ask_in(folder, "assure", "--gate", "patched", "--only", "vulns")
    assert code == 1
    assert "1 known vulnerabilities count" in said
    code, out, _ = ask_in(folder, "gate", "explain", "patched")
    assert (code, "no-known-vulnerability" in out) == (1, True)
    database.write_bytes(export(GHSA))
    code, _, said = ask_in(folder, "assure", "--gate", "patched", "--only", "vulns")
    assert (code, "no known vulnerability counts" in said) == (0, True)


@pytest.mark.control("2.2-j")
@pytest.mark.control("GL-2.1")
def test_a_new_advisory_on_a_bill_that_is_in_use_opens_one_record(folder, ask_in, tmp_path):
    database = tmp_path / "osv.zip"
    database.write_bytes(export(GHSA))
    watch = ["vulns", "watch", "--osv-db", str(database), "--json"]
    code, out, _ = ask_in(folder, *watch)
    assert (code, json.loads(out)["opened"]) == (0, [])
    database.write_bytes(export(GHSA, about("numpy", version=NUMPY, fixed="99.1")))
    code, out, _ = ask_in(folder, *watch)
    (record,) = json.loads(out)["opened"]
    assert (code, record["id"], record["package"]) == (1, "CVE-2026-33333", f"numpy {NUMPY}")
    assert ask_in(folder, *watch)[0] == 0
    (stated,) = [
        item for item in json.loads(ask_in(folder, "evidence", "list", "--json")[1]) if item["type"] == "incident"
    ]
    assert (stated["envelope"], stated["standing"]) == (record["envelope"], "holds")


def test_help_has_examples(capsys):
    assert run(["vulns", "--help"]) == 0
    assert "pypi-all.zip" in capsys.readouterr().out


def test_what_nobody_trusted_says_hides_no_vulnerability(folder, ask_in, database):
    """Anybody may hand statements to a shared ledger: an empty bill, or the news that something is known already."""
    space = Workspace(folder)
    stranger = keys.PrivateKeySigner(keys.generate())
    (system,) = space.system().of_kind("system")
    empty = {"bomFormat": "CycloneDX", "specVersion": "1.7", "version": 1, "components": []}
    known = predicates.Incident(
        kind="vulnerability",
        state="closed",
        severity="low",
        summary="known",
        details={"id": "CVE-2026-33333", "package": "numpy", "version": NUMPY},
    )
    for kind, said in ((predicates.BOM, empty), (predicates.INCIDENT, known)):
        space.publish(make(kind, system, said), stranger)
    code, out, _ = ask_in(folder, "vulns", "watch", "--osv-db", str(database), "--json")
    assert (code, [each["id"] for each in json.loads(out)["opened"]]) == (1, ["CVE-2026-33333"])
    space.close()

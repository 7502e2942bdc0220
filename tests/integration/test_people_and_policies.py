"""What gates ask of people, signatures and dates: acceptance tests through the command line."""

from __future__ import annotations

import functools
import json
import shutil
from datetime import timedelta

import pytest

from bartizan.lifecycle.develop.sign import sign_manifest
from bartizan.stores.files import LocalFiles
from bartizan.stores.keys import load_signer
from bartizan.wiring import deciding
from bartizan.wiring.assure import gate_of, judge, situation
from bartizan.wiring.workspace import Workspace, utc_now
from fixtures.project import declare

GATES = """
[gate.people]
[[gate.people.rule]]
id = "owner"
about = "model"
type = "decision"
kind = "approval"
role = "risk-owner"
[[gate.people.rule]]
id = "security"
about = "model"
type = "decision"
kind = "approval"
role = "security"
[[gate.people.rule]]
id = "ml"
about = "model"
type = "decision"
kind = "approval"
role = "ml"

[gate.threats]
[[gate.threats.rule]]
id = "threat-model"
about = "system"
type = "reference"
check = "design.threats"
[[gate.threats.rule]]
id = "ml"
about = "system"
type = "decision"
kind = "review"
role = "ml"
[[gate.threats.rule]]
id = "security"
about = "system"
type = "decision"
kind = "review"
role = "security"
[[gate.threats.rule]]
id = "domain"
about = "system"
type = "decision"
kind = "review"
role = "domain"

[gate.reviewed]
[[gate.reviewed.rule]]
id = "review"
about = "model"
type = "decision"
kind = "review"
role = "security"
max_age = "30d"

[gate.pair]
[[gate.pair.rule]]
id = "two"
about = "model"
type = "decision"
kind = "approval"
signers = 2

[gate.intake]
[[gate.intake.rule]]
id = "signature"
about = "model"
type = "signature"

[gate.supplier]
[[gate.supplier.rule]]
id = "supplier"
about = "dataset:train"
type = "decision"
kind = "supplier"
role = "risk-owner"
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """The example with more gates, and a key for each role; nothing assured."""
    folder = tmp_path_factory.mktemp("people")
    declare(folder)
    with (folder / "bartizan.toml").open("a") as stream:
        stream.write(GATES)
    return folder


@pytest.fixture
def place(declared, tmp_path, ask_in):
    """A copy of it, in which four people can sign."""
    folder = tmp_path / "project"
    shutil.copytree(declared, folder)
    for name in ("ml", "domain"):
        assert ask_in(folder, "keys", "new", name, "--unencrypted")[0] == 0
        assert ask_in(folder, "trust", "grant", name, "--role", name)[0] == 0
    return folder


@pytest.fixture
def ask(place, ask_in):
    return functools.partial(ask_in, place)


def passes(ask, gate) -> bool:
    code, output, errors = ask("gate", "explain", gate, "--json")
    assert code in {0, 1}, errors
    assert json.loads(output)["passed"] is (code == 0)
    return code == 0


def decide(ask, kind, role, about="model:tumour", **more) -> None:
    extra = [word for name, value in more.items() for word in (f"--{name}", value)]
    code, _, errors = ask("decide", kind, "--about", about, "--role", role, "--reason", "seen", *extra)
    assert code == 0, errors


@pytest.mark.control("1.1-f")
def test_a_gate_can_require_decisions_from_several_roles_and_a_risk_owner(ask):
    for role in ("security", "ml", "risk-owner"):
        assert not passes(ask, "people")
        decide(ask, "approval", role)
    assert passes(ask, "people")


@pytest.mark.control("1.2-G3")
def test_the_threat_model_needs_decisions_from_ml_security_and_domain_roles(ask):
    assert ask("assure", "--only", "design.threats", "--gate", "threats")[0] == 1
    for role in ("ml", "security", "domain"):
        assert not passes(ask, "threats")
        decide(ask, "review", role, about="system:tumour-triage")
    assert passes(ask, "threats")


@pytest.mark.control("1.1-i")
def test_the_gate_fails_without_a_review_younger_than_its_limit(ask, place):
    assert not passes(ask, "reviewed")
    decide(ask, "review", "security", expires="1y")
    assert passes(ask, "reviewed")
    late = Workspace(place, clock=lambda: utc_now() + timedelta(days=31))
    system = late.system()
    result = judge(situation(late, system), "reviewed", gate_of(system, "reviewed"))
    late.close()
    assert not result.passed
    assert "older than 30d" in result.results[0].reason


@pytest.mark.control("1.4-h")
def test_a_review_counts_for_the_exact_digest_only(ask, place):
    decide(ask, "review", "security")
    assert passes(ask, "reviewed")
    model = place / "model" / "tumour.joblib"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not passes(ask, "reviewed")
    model.write_bytes(whole)
    assert passes(ask, "reviewed")


@pytest.mark.control("2.2-e")
def test_one_person_is_not_two_however_often_they_sign(ask):
    decide(ask, "approval", "risk-owner")
    decide(ask, "approval", "risk-owner")
    assert not passes(ask, "pair")
    decide(ask, "approval", "security")
    assert passes(ask, "pair")


@pytest.mark.control("2.1-a")
def test_a_digest_mismatch_or_an_untrusted_signer_blocks_intake(ask, place, ask_in, tmp_path):
    assert passes(ask, "intake")
    model = place / "model" / "tumour.joblib"
    whole = model.read_bytes()
    model.write_bytes(whole + b"\0")
    assert not passes(ask, "intake"), "the signed digest is another one"
    model.write_bytes(whole)
    assert (
        ask("trust", "grant", "second", "--role", "assurer", "--role", "ledger", "--key", _second_key(ask, place))[0]
        == 0
    )
    assert passes(ask, "intake")
    rows = json.loads(ask("evidence", "list", "model:tumour", "--json")[1])
    [signature] = [row for row in rows if row["type"] == "signature"]
    assert ask("revoke", "envelope", signature["envelope"], "--reason", "signed by mistake")[0] == 0
    assert not passes(ask, "intake")
    stranger = tmp_path / "stranger"
    shutil.copytree(place, stranger)
    assert ask_in(stranger, "keys", "new", "stranger", "--unencrypted")[0] == 0
    assert ask_in(stranger, "register", "model:tumour", "--key", "stranger")[0] == 2
    signer = load_signer(stranger / ".bartizan/keys/stranger.pem", lambda: None)
    body, _ = sign_manifest("tumour.joblib", LocalFiles().manifest(model), signer)
    (tmp_path / "foreign.json").write_bytes(body)
    assert ask_in(stranger, "evidence", "add", str(tmp_path / "foreign.json"))[0] == 0
    assert not passes(functools.partial(ask_in, stranger), "intake"), "nobody trusts that signer"
    assert ask("register", "model:tumour", "--key", "second")[0] == 0
    assert passes(ask, "intake")


def _second_key(ask, place) -> str:
    assert ask("keys", "new", "second", "--unencrypted")[0] == 0
    return str(place / ".bartizan/keys/second.pub.pem")


@pytest.mark.control("2.3-a")
def test_a_changed_byte_is_a_new_version_and_the_old_one_stays(ask, place):
    before = json.loads(ask("register", "dataset:train", "--json")[1])[0]
    data = place / "data" / "train.csv"
    whole = data.read_bytes()
    data.write_bytes(whole + b"\n")
    after = json.loads(ask("register", "dataset:train", "--json")[1])[0]
    assert after["new"]
    assert after["digest"] != before["digest"]
    for item in (before, after):
        said = json.loads(ask("evidence", "show", item["envelope"])[1])
        assert item["digest"] in json.dumps(said)
    data.write_bytes(whole)
    again = json.loads(ask("register", "dataset:train", "--json")[1])[0]
    assert (again["digest"], again["new"]) == (before["digest"], False)


@pytest.mark.control("A-MLSG-002-D004")
def test_one_changed_byte_or_one_more_file_fails_verification(ask, place, tmp_path):
    signature, key = str(tmp_path / "data.sig"), str(place / ".bartizan/keys/service.pub.pem")
    data = place / "data"
    verify = ("verify", str(data), "--signature", signature, "--key", key, "--json")
    assert ask("sign", str(data), "-o", signature)[0] == 0
    assert ask(*verify)[0] == 0
    path = data / "train.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    code, output, _ = ask(*verify)
    assert (code, json.loads(output)["differences"]) == (1, [{"name": "train.csv", "what": "changed"}])
    path.write_bytes(whole)
    (data / "injected.csv").write_text("x")
    code, output, _ = ask(*verify)
    assert (code, json.loads(output)["differences"]) == (1, [{"name": "injected.csv", "what": "added"}])


@pytest.mark.control("GL-1.7")
def test_a_supplier_record_expires_and_is_renewed(ask, place):
    decide(ask, "supplier", "risk-owner", about="dataset:train", expires="30d")
    assert passes(ask, "supplier")
    late = Workspace(place, clock=lambda: utc_now() + timedelta(days=40))
    system = late.system()

    def passed() -> bool:
        return judge(situation(late, system), "supplier", gate_of(system, "supplier")).passed

    assert not passed()
    asked = deciding.Asked(
        kind="supplier",
        about="dataset:train",
        role="risk-owner",
        reason="looked at again",
        expires="30d",
        concerns=(),
        outcome="yes",
        key="risk-owner",
    )
    deciding.decide(late, asked)
    assert passed()
    late.close()


@pytest.mark.control("1.4-b")
def test_thresholds_live_in_a_versioned_file_that_the_verdict_names(ask, place):
    def policy() -> tuple[str, str]:
        verdict = json.loads(ask("gate", "evaluate", "reviewed", "--json")[1])["verdict"]
        said = json.loads(ask("evidence", "show", verdict)[1])["predicate"]["policy"]
        return verdict, said["digest"]["sha256"]

    first = policy()
    assert policy() == first, "the same policy gives the same verdict"
    declaration = place / "bartizan.toml"
    declaration.write_text(
        declaration.read_text().replace('max_age = "30d"\n\n[gate.pair]', 'max_age = "10d"\n\n[gate.pair]')
    )
    assert policy()[1] != first[1]

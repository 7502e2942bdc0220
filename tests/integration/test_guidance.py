"""Briefings, lessons, notices and standards, as people use them: through the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.cli.main import run
from bartizan.core import predicates
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import TrustError
from bartizan.core.evidence import Standing
from bartizan.core.statement import make
from bartizan.lifecycle.design.mapping import attack_map
from bartizan.wiring import deciding, results
from bartizan.wiring.assure import situation
from bartizan.wiring.workspace import Workspace, utc_now
from fixtures.atlas_releases import newer_release
from fixtures.project import bartizan, declare
from integration.test_documentation import follow

PATIENCE = 120
PAGE = Path(__file__).parents[2] / "docs" / "guidance.md"
"""Its tables are those that are tried here."""
ADDED = """
[[document]]
name = "how-to-label"
path = "labelling.md"
kind = "instructions"

[[document]]
name = "gateway"
path = "gateway.toml"
kind = "configuration"

[gate.deploy]
valid_for = "7d"
[[gate.deploy.rule]]
id = "clean"
about = "model"
type = "test-result"
check = "scan"

[gate.people]
[[gate.people.rule]]
id = "approval"
about = "model"
type = "decision"
kind = "approval"
role = "risk-owner"

[gate.fresh]
[[gate.fresh.rule]]
id = "briefings"
about = "system"
type = "test-result"
check = "design.briefings"
"""
CHECKS = ("scan", "cards.model", "cards.data", "design.threats")
TECHNIQUE = re.compile(r"^\| (T\d\d) \|", re.MULTILINE)
TEAM = ("ml", "domain", "communications", "developer", "labeller", "responder", "user")


@pytest.fixture(scope="module")
def guided_once(tmp_path_factory):
    """The example with people, guidance, a notice and labelling instructions; scanned and described."""
    folder = tmp_path_factory.mktemp("guided") / "project"
    declare(folder)
    text = (folder / "bartizan.toml").read_text()
    text = text.replace("personal_data = false", 'personal_data = true\nlawful_basis = "consent to research"', 1)
    text = text.replace('destruction = "delete:', 'destruction = "overwrite:')
    text = text.replace('split = "train"', 'split = "train"\nlabelling_instructions = "how-to-label"', 1)
    (tables,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (folder / "bartizan.toml").write_text(f"{text}\n{tables}{ADDED}")
    (folder / "gateway.toml").write_text('[role.anonymous]\noperations = ["infer"]\n')
    (folder / "labelling.md").write_text("Malignant is what two pathologists call malignant.\n")
    for name in TEAM:
        for arguments in (("keys", "new", name, "--unencrypted"), ("trust", "grant", name, "--role", name)):
            assert run(["-C", str(folder), *arguments]) == 0
    for arguments in (("register",), ("assure", "--gate", "deploy", *(f"--only={name}" for name in CHECKS))):
        done = bartizan(folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def place(guided_once, tmp_path):
    return Path(shutil.copytree(guided_once, tmp_path / "project", symlinks=True))


@pytest.fixture
def ask(ask_in, place):
    def asked(*arguments, code=0):
        got, out, said = ask_in(place, *arguments)
        assert got == code, out + said
        return out + said

    return asked


@pytest.fixture
def brief(ask):
    """Write a role's briefing and confirm it with the key of that role."""

    def briefed(role, *more):
        ask("briefing", role)
        return ask("decide", "briefing", "--about", f"briefing:{role}", "--role", role, "--reason", "read", *more)

    return briefed


def register(ask_in, folder):
    return {row["role"]: row for row in json.loads(ask_in(folder, "briefing", "--list", "--json")[1])}


def stated(ask_in, folder, what):
    """Type and standing of every statement of a kind."""
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    return [(each["type"], each["standing"]) for each in listed if each["what"] == what]


def written(folder, role):
    return (folder / "bartizan-report" / "briefings" / f"{role}.md").read_text()


LESSON = ("lesson", "add", "--technique", "T17", "--title", "Labels of one clinic were swapped", "--text", "Two codes.")
APPROVE = ("decide", "approval", "--about", "model:tumour", "--role", "risk-owner", "--reason", "fits the pilot")


@pytest.mark.control("1.1-G2")
def test_a_role_without_a_valid_briefing_cannot_approve(ask, brief):
    assert "no valid briefing as risk-owner" in ask(*APPROVE, code=2)
    ask("gate", "explain", "people", code=1)
    brief("risk-owner")
    ask(*APPROVE)
    assert "met" in ask("gate", "explain", "people")


def test_a_briefing_that_ran_out_or_became_stale_lets_nobody_approve(ask, brief, place):
    brief("risk-owner", "--expires", "1d")
    with contextlib.closing(Workspace(place, clock=lambda: utc_now() + timedelta(days=2))) as later:
        asked = deciding.Asked(
            kind="approval",
            about="model:tumour",
            role="risk-owner",
            reason="fits the pilot",
            expires="90d",
            concerns=(),
            outcome="yes",
            key="",
        )
        with pytest.raises(TrustError, match="no valid briefing"):
            deciding.decide(later, asked)
    ask(*APPROVE)
    ask(*LESSON)
    assert "no valid briefing" in ask(*APPROVE, code=2)
    (approved,) = [each for each in json.loads(ask("evidence", "list", "--json")) if each["what"] == "approval"]
    assert approved["reason"].startswith("document:design.threats")  # the lesson changes the threat model, no more


@pytest.mark.control("1.1-G2")
def test_an_approval_signed_elsewhere_without_a_briefing_does_not_count(ask, brief, place):
    """Whoever signs with other tools passes the command by, and is caught when evidence is weighed."""
    space = Workspace(place)
    with contextlib.closing(space):
        model = space.system().artefact("model:tumour")
        said = {
            "kind": "approval",
            "outcome": "yes",
            "reason": "by hand",
            "role": "risk-owner",
            "expires": "2099-01-01T00:00:00Z",
        }
        envelope = space.publish(make(predicates.DECISION, model, said), space.signer("risk-owner"))
        (item,) = [each for each in situation(space, space.system()).evidence if each.digest == envelope]
        assert (item.standing, "no valid briefing" in item.reason) == (Standing.UNTRUSTED, True)
    ask("gate", "explain", "people", code=1)
    brief("risk-owner")
    ask("gate", "explain", "people", code=1)  # a briefing afterwards does not heal what came before it
    ask(*APPROVE)
    ask("gate", "explain", "people")


def test_saying_no_needs_no_briefing(ask):
    ask("decide", "rejection", "--about", "model:tumour", "--role", "security", "--reason", "not yet")


def test_nobody_confirms_what_was_never_written(ask, place):
    confirm = ("decide", "briefing", "--about", "briefing:security", "--role", "security", "--reason", "read")
    assert "was not written" in ask(*confirm, code=2)
    ask("briefing", "security")
    ask(*confirm)


def test_a_role_that_may_only_confirm_briefings_cannot_approve(ask, brief):
    brief("communications")
    refused = ("decide", "approval", "--about", "model:tumour", "--role", "communications", "--reason", "nice")
    assert "may not sign approval decisions" in ask(*refused, code=2)


def test_one_persons_briefing_is_not_anothers(ask, ask_in, brief, place):
    """A trainer may record that users were briefed; that does not make the trainer's word another's."""
    ask("briefing", "risk-owner")
    ask("decide", "briefing", "--about", "briefing:risk-owner", "--role", "security", "--reason", "told them")
    assert register(ask_in, place)["risk-owner"]["by"] == ["security"]
    assert "no valid briefing" in ask(*APPROVE, code=2)


@pytest.mark.control("1.1-a")
@pytest.mark.control("GL-1.1")
def test_a_briefing_names_only_the_techniques_that_reach_the_system(ask, place):
    ask("briefing", "--all")
    space = Workspace(place)
    with contextlib.closing(space):
        document = attack_map(space.system())
    within_reach = {entry.id for entry in document.techniques if entry.reachable}
    named = {
        path.stem: set(TECHNIQUE.findall(path.read_text())) for path in place.glob("bartizan-report/briefings/*.md")
    }
    assert named["security"] == within_reach  # the role that has to know all of them
    assert len(within_reach) < len(catalogue().techniques)
    assert all(ids <= within_reach for ids in named.values())
    assert named["communications"] < named["security"]
    assert "triage-service" in written(place, "security")
    path = place / "bartizan.toml"
    path.write_text(path.read_text().replace('"neighbour", "finder"]', '"neighbour"]'))
    ask("briefing", "security")
    now = set(TECHNIQUE.findall(written(place, "security")))
    assert now < within_reach
    assert "T46" in within_reach - now  # only who comes to hold old disks reads old disks


def test_a_briefing_has_the_same_bytes_every_time_and_its_digest_is_stated(ask, ask_in, place):
    ask("briefing", "ml")
    first = (place / "bartizan-report" / "briefings" / "ml.md").read_bytes()
    page = (place / "bartizan-report" / "briefings" / "ml.html").read_text()
    assert "unchanged since" in ask("briefing", "ml", "-o", str(place / "again"))
    assert (place / "again" / "ml.md").read_bytes() == first
    assert register(ask_in, place)["ml"]["current"] == digest_bytes(first)
    assert "<script" not in page
    assert "http" not in page.split("</head>")[1]
    assert stated(ask_in, place, "briefing") == [("reference", "holds")]


@pytest.mark.control("1.1-h")
def test_the_register_lists_every_declared_role_and_its_expiry(ask, ask_in, brief, place):
    space = Workspace(place)
    with contextlib.closing(space):
        declared = space.system().declaration
    wanted = {*declared.people, declared.owner.role, *declared.guidance.audiences}
    assert set(register(ask_in, place)) == wanted
    brief("domain", "--expires", "30d")
    rows = register(ask_in, place)
    assert rows["domain"]["state"] == "valid"
    assert rows["domain"]["until"]
    assert {row["state"] for role, row in rows.items() if role != "domain"} == {"missing"}
    listed = ask("briefing", "--list", code=1)
    assert all(role in listed for role in wanted)
    assert rows["domain"]["until"][:10] in listed


@pytest.mark.control("1.3-g")
def test_there_is_a_briefing_for_communications(ask, ask_in, brief, place):
    brief("communications")
    text = written(place, "communications")
    assert "Communications" in text.replace("communications", "Communications")
    assert "`bartizan decide disclosure`" in text  # what is reviewed, and how
    assert "reviewed before it is released" in text
    assert "failure" not in text.lower().split("when something is wrong")[1]  # no inside view for outsiders
    assert register(ask_in, place)["communications"]["state"] == "valid"


@pytest.mark.control("GL-1.2")
def test_there_is_a_briefing_for_developers(ask, ask_in, brief, place):
    brief("developer")
    text = written(place, "developer")
    for needed in ("like security code", "known vulnerabilities", "what the model is not for"):
        assert needed in text
    assert register(ask_in, place)["developer"]["by"] == ["developer"]


@pytest.mark.control("2.2-l")
def test_developers_are_briefed_on_personal_data_and_on_what_a_breach_means(ask, ask_in, brief, place):
    brief("developer")
    part = written(place, "developer").split("## Personal data")[1].split("\n## ")[0]
    assert "| train |" in part
    assert "consent to research" in part
    assert "72 hours" in part
    assert "cannot be undone" in part
    assert register(ask_in, place)["developer"]["state"] == "valid"
    path = place / "bartizan.toml"
    path.write_text(path.read_text().replace("personal_data = true", "personal_data = false"))
    ask("briefing", "developer")
    assert "## Personal data" not in written(place, "developer")  # nothing is said about what is not there


@pytest.mark.control("GL-3.8")
def test_who_took_part_in_a_drill_is_recorded(ask, ask_in, brief, place):
    brief("responder", "--drill", "tabletop 2026-11: a poisoned batch")
    row = register(ask_in, place)["responder"]
    assert (row["by"], row["drills"]) == (["responder"], ["tabletop 2026-11: a poisoned batch"])
    assert "a poisoned batch" in ask("briefing", "--list", code=1)
    refused = (*APPROVE, "--drill", "none")
    assert "belongs to a briefing" in ask(*refused, code=2)


@pytest.mark.control("1.1-g")
def test_a_lesson_shows_up_in_the_next_threat_model(ask, place):
    lesson = json.loads(ask(*LESSON, "--json"))["lesson"]
    ask("assure", "--gate", "deploy", "--only", "design.threats")
    space = Workspace(place)
    with contextlib.closing(space):
        now = situation(space, space.system())
        (item,) = [each for each in now.evidence if each.holds and each.check == "design.threats"]
        model = json.loads(results.read_report(space.blobs.get(item.report)).inner())
    (learnt,) = model["lessons"]
    assert (learnt["id"], learnt["techniques"], learnt["reachable"]) == (lesson["id"], ["T17"], ["T17"])
    assert learnt["title"] == "Labels of one clinic were swapped"


@pytest.mark.control("5.2-e")
def test_a_new_lesson_marks_related_briefings_stale(ask, ask_in, brief, place):
    brief("ml")
    brief("user")
    ask(*LESSON)
    rows = register(ask_in, place)
    assert (rows["ml"]["state"], rows["user"]["state"]) == ("stale", "valid")  # poisoning is no matter of users
    assert "Labels of one clinic were swapped" in ask("briefing", "ml", "--dry-run")
    brief("ml")
    assert register(ask_in, place)["ml"]["state"] == "valid"


@pytest.mark.control("5.2-e")
def test_a_gate_passes_only_while_every_briefing_is_fresh(ask, ask_in, brief, place):
    fresh = ("assure", "--gate", "fresh", "--only", "design.briefings")
    for role in register(ask_in, place):
        brief(role)
    ask(*fresh)
    ask(*LESSON)
    assert "does not count: stale" in ask("gate", "explain", "fresh", code=1)  # at once, before anything is run


def test_a_withdrawn_lesson_is_gone(ask, ask_in, place):
    made = json.loads(ask(*LESSON, "--json"))
    assert made["lesson"]["id"] in ask("lesson", "list")
    ask("revoke", "envelope", made["envelope"], "--reason", "it was another clinic")
    assert made["lesson"]["id"] not in ask("lesson", "list")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--technique", "T99", "--title", "a", "--text", "b"), "no technique 'T99'"),
        (("--technique", "T17", "--title", " ", "--text", "b"), "needs a title"),
        (("--technique", "T17", "--title", "a", "--text", "b" * 5000), "5000 characters"),
    ],
)
def test_a_lesson_that_nobody_could_use_is_refused(ask, arguments, complaint):
    assert complaint in ask("lesson", "add", *arguments, code=2)


@pytest.mark.control("1.4-g")
def test_there_is_a_catalogue_of_standards_with_versions_and_check_dates(ask, ask_in, place):
    listed = json.loads(ask_in(place, "catalogue", "standards", "--json")[1])["standards"]
    assert len(listed) >= 15
    assert all(entry["version"] and re.fullmatch(r"\d{4}-\d\d-\d\d", entry["checked"]) for entry in listed)
    assert {"testing", "threats"} <= {topic for entry in listed for topic in entry["topics"]}
    text = ask("catalogue", "standards", "--state")
    assert "NIST AI 100-2" in text
    assert "E2025" in text
    assert "2026-11-21" in text
    stated = [
        each for each in json.loads(ask_in(place, "evidence", "list", "--json")[1]) if each["what"] == "standards"
    ]
    assert [(each["type"], each["standing"]) for each in stated] == [("reference", "holds")]


@pytest.mark.control("1.1-e")
def test_the_catalogue_version_is_stored_and_a_newer_release_of_atlas_flags_outdated_ids(ask, ask_in, place):
    known = catalogue()
    assert shown(ask_in, place, "design.threats")["facts"]["catalogue"] == known.version
    release, same = place / "newer.yaml", place / "same.yaml"
    same.write_bytes(newer_release())
    assert "0 ids of" in ask("catalogue", "atlas", str(same))
    release.write_bytes(newer_release(**{"AML.T0015": "Evade Predictive Model", "AML.T0013": None, "AML.T0063": None}))
    code, said, _ = ask_in(place, "catalogue", "atlas", str(release), "--json", "--state")
    told = json.loads(said)
    assert (code, told["catalogue"], told["release"]) == (1, known.version, "2026.12")
    flagged = [(entry["id"], entry["state"]) for entry in told["outdated"]]
    assert flagged == [("AML.T0013", "unknown"), ("AML.T0015", "renamed"), ("AML.T0063", "unknown")]
    assert all(entry["used_by"] for entry in told["outdated"])
    facts = shown(ask_in, place, "atlas-release")["facts"]
    assert (facts["catalogue"], facts["release"]) == (known.version, "2026.12")
    assert facts["outdated"] == ["AML.T0013", "AML.T0015", "AML.T0063"]


def shown(ask_in, folder, what):
    """The newest statement of a kind, as the command line shows it."""
    rows = [each for each in json.loads(ask_in(folder, "evidence", "list", "--json")[1]) if each["what"] == what]
    return json.loads(ask_in(folder, "evidence", "show", rows[-1]["envelope"])[1])["predicate"]


@pytest.mark.parametrize("content", ["junk", "techniques: {}", ""])
def test_a_file_that_is_no_release_of_atlas_is_refused(ask, place, content):
    (place / "odd.yaml").write_text(content)
    assert "ATLAS" in ask("catalogue", "atlas", str(place / "odd.yaml"), code=2)


@pytest.mark.control("2.1-l")
def test_labelling_instructions_are_versioned_and_the_label_set_refers_to_them(ask, ask_in, brief, place):
    space = Workspace(place)
    with contextlib.closing(space):
        now = situation(space, space.system())
        document = now.system.artefact("document:how-to-label")
        train = now.system.artefact("dataset:train")
        signed = [
            each
            for each in now.evidence
            if each.holds
            and each.statement.predicate_type == predicates.MODEL_SIGNATURE
            and document.digest in each.statement.about()
        ]
        (card,) = [
            each
            for each in now.evidence
            if each.holds and each.check == "cards.data" and train.digest in each.statement.about()
        ]
    assert signed  # this version of the instructions is signed
    assert card.statement.inputs()["document:how-to-label"] == document.digest
    facts = card.statement.read().facts
    assert facts["labellingInstructions"] == {"document": "document:how-to-label", "digest": document.digest}
    brief("labeller")
    assert document.digest[:12] in written(place, "labeller")
    (place / "labelling.md").write_text("Malignant is what three pathologists call malignant.\n")
    listed = json.loads(ask_in(place, "evidence", "list", "dataset:train", "--json")[1])
    assert [each["standing"] for each in listed if each["what"] == "cards.data"] == ["stale"]
    assert register(ask_in, place)["labeller"]["state"] == "stale"


@pytest.mark.control("GL-3.13")
def test_the_notice_has_its_three_parts_and_is_stated(ask, ask_in, place):
    ask("notice", "-o", str(place / "public"))
    text = (place / "public" / "tumour.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[:3] == ["How to use it", "Your data", "What you answer for"]
    parts = dict(zip(("use", "data", "own"), text.split("\n## ")[1:4], strict=True))
    assert "It is for: order a pathologist's worklist" in parts["use"].replace("\\", "")
    assert "It is not for: diagnosis without a pathologist" in parts["use"]
    assert "used to order the worklist" in parts["data"]
    assert "14 days" in parts["data"]
    assert "Read every case yourself" in parts["own"]
    assert "unchanged since" in ask("notice", "-o", str(place / "again"))
    assert stated(ask_in, place, "notice") == [("reference", "holds")]
    path = place / "bartizan.toml"
    path.write_text(path.read_text().replace("for 14 days", "for 30 days"))
    assert stated(ask_in, place, "notice") == [("reference", "stale")]


def test_without_a_card_or_without_the_table_there_is_no_notice(ask, place):
    path = place / "bartizan.toml"
    whole = path.read_text()
    path.write_text(whole[: whole.index("[notice]")] + whole[whole.index("[[document]]") :])
    assert "does not say what users are told" in ask("notice", code=2)
    path.write_text(
        whole.replace('lifespan = "1y"', 'lifespan = "2y"').replace('limits = """\nTrained', 'limits = """\nX')
    )
    assert "no complete card" in ask("notice", code=2)


def get(port, method, path, content=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@contextlib.contextmanager
def serving(folder):
    said = folder.parent / "server.txt"
    command = [sys.executable, "-m", "bartizan", "serve", "--gate", "deploy", "--port", "0"]
    with said.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=os.environ)
    try:
        began = time.monotonic()
        while not (told := re.search(r"on http://127\.0\.0\.1:(\d+)/v2", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.05)
        yield int(told[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()


ROW = {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]}


@pytest.mark.control("GL-1.3")
@pytest.mark.control("A-MLSG-004-D008")
def test_the_gateway_serves_the_notice_and_puts_uncertainty_and_a_note_beside_answers(ask, ask_in, brief, place):
    brief("user")
    assert register(ask_in, place)["user"]["state"] == "valid"  # the briefing of users is recorded
    ask("assure", "--gate", "deploy", "--only", "data.poison")  # measures accuracy on the way
    right = shown(ask_in, place, "data.poison")["metrics"]["accuracy"]
    ask("notice", "-o", str(place / "public"))
    ours = (place / "public" / "tumour.md").read_bytes()
    with serving(place) as port:
        status, headers, page = get(port, "GET", "/notice")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "script-src" not in headers["content-security-policy"]
        assert b"altered can turn the answer" in page  # the risk that users are told of
        assert get(port, "GET", "/notice.md")[2] == ours  # exactly what was stated
        assert headers["bartizan-notice-digest"] == f"sha256:{digest_bytes(ours)}"
        assert json.loads(get(port, "GET", "/notice.json")[2])["sections"]
        assert get(port, "POST", "/notice", {})[0] == 405
        status, _, answer = get(port, "POST", "/v2/models/tumour/infer", ROW)
        beside = json.loads(answer)["parameters"]
        assert status == 200
        assert beside["note"].startswith("This is an estimate for: order a pathologist's worklist.")
        assert beside["uncertainty"].startswith(f"On {right['n']} cases that it had not seen it was right in ")
        for share in (right["value"], right["low"], right["high"]):
            assert f"{100 * share:.0f} %" in beside["uncertainty"]
        assert beside["notice"] == "/notice"


def test_where_nothing_was_measured_that_is_said_beside_answers(ask, place):
    ask("notice", "-o", str(place / "public"))
    assert "has not been measured" in (place / "public" / "tumour.md").read_text()


def test_the_page_on_guidance_does_what_it_says(place):
    follow(PAGE, place)


# ---- lessons that run


def lesson(ask_in, folder, *arguments):
    code, out, said = ask_in(folder, "lab", *arguments, "--json")
    assert code == 0, out + said
    return json.loads(out)


@pytest.mark.control("1.1-b")
def test_the_evasion_lesson_turns_answers_of_the_example(ask_in, tmp_path):
    taught = lesson(ask_in, tmp_path, "evasion", "-o", str(tmp_path / "page.html"))
    metrics = taught["assessment"]["metrics"]
    assert metrics["clean_accuracy"]["low"] > 0.9
    assert metrics["robust_accuracy"]["high"] < 0.5  # most answers are turned
    assert taught["assessment"]["family"] == "evasion"
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3
    assert "difference" in page


@pytest.mark.control("1.1-c")
def test_the_backdoor_lesson_plants_a_trigger_and_pulls_it(ask_in, tmp_path):
    metrics = lesson(ask_in, tmp_path, "backdoor")["assessment"]["metrics"]
    assert metrics["trigger_success"]["low"] > 0.8
    assert metrics["trigger_success_on_clean_model"]["high"] < 0.1  # it is the trigger, not the model
    assert metrics["accuracy"]["low"] > 0.9  # and nobody sees it in the accuracy


@pytest.mark.control("1.1-d")
def test_the_membership_lesson_reports_the_advantage(ask_in, tmp_path):
    taught = lesson(ask_in, tmp_path, "membership")
    advantage = taught["assessment"]["metrics"]["balanced_accuracy_advantage"]
    assert 0 < advantage["low"] <= advantage["value"] <= advantage["high"] <= 1
    assert advantage["n"] > 800


@pytest.mark.control("1.1-c")
def test_a_lesson_on_ones_own_model_can_be_signed(ask, ask_in, place):
    taught = lesson(ask_in, place, "backdoor", "--system", str(place / "bartizan.toml"), "--sign")
    assert taught["model"] == "tumour"
    (said,) = [
        each
        for each in json.loads(ask_in(place, "evidence", "list", "model:tumour", "--json")[1])
        if each["what"] == "lab.backdoor"
    ]
    assert (said["type"], said["standing"], said["envelope"]) == ("assessment", "holds", taught["envelope"])
    assert taught["assessment"].get("techniques", []) == []  # with its small budget it counts as no try


def test_lessons_are_listed_and_unknown_ones_named(ask):
    listed = ask("lab")
    assert all(name in listed for name in ("evasion", "backdoor", "poisoning", "membership", "extraction"))
    assert "no lesson is called" in ask("lab", "magic", code=2)
    assert "no ledger to sign into" in ask("lab", "evasion", "--sign", code=2)

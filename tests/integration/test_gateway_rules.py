"""Rules outside the model, held answers and reviews, through a gateway that really runs and the command line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import datetime, timedelta

import numpy as np
import pytest

from bartizan.cli.main import run as bartizan_run
from bartizan.core.envelope import parse
from bartizan.core.statement import decode
from bartizan.stores.cases import open_cases
from bartizan.wiring.workspace import Workspace
from fixtures.gateways import configured, key_of, reconfigured, serving

ROLES = """
[identity.keys]
poll = 0.5

[role.anonymous]
operations = ["infer"]
detail = "rounded-scores"

[role.clinic]
operations = ["infer"]
"""
RULES = """
[[guard]]
use = "rules"
mode = "{mode}"

[guard.tree]
disagrees = "flag"

[guard.fusion]
method = "averaging"
source = [
  {{ name = "confidence", signal = "confidence", bad = 0.5, good = 1.0 }},
  {{ name = "size", signal = "mean_radius", bad = 60, good = 30, doubt = "unknown" }},
]

[[guard.rule]]
name = "no tumour"
when = 'mean_radius == 0 and label == "malignant"'
then = "refuse"

[[guard.rule]]
name = "unsure"
when = "confidence < 0.9"
then = "hold"

[[guard.rule]]
name = "nothing known"
when = "opinion.uncertainty > 0.15"
then = "coarsen"
"""
CASES = """
[holds]
deadline = "1h"

[review]
within = "2d"
sample = 0.0
sample_of = { benign = 1.0 }
"""
COLUMN = "mean_radius"


class Rows:
    """Rows of the held-out data, by what they are for."""

    def __init__(self, folder):
        with (folder / "data" / "holdout.csv").open() as file:
            head, *rows = list(csv.reader(file))
        target = head.index("malignant")
        self.columns = [name for name in head if name != "malignant"]
        self.labels = ["malignant" if row[target] == "1" else "benign" for row in rows]
        self.rows = np.array([[float(cell) for place, cell in enumerate(row) if place != target] for row in rows])

    def vast(self):
        """A row whose tumour is larger than any: nothing is known of it."""
        row = self.rows[self.labels.index("malignant")].copy()
        row[self.columns.index(COLUMN)] = 80.0
        return row

    def without_radius(self):
        """A row of a malignant tumour, said to have no radius."""
        row = self.rows[self.labels.index("malignant")].copy()
        row[self.columns.index(COLUMN)] = 0.0
        return row


@pytest.fixture(scope="module")
def rows(tumour_project):
    return Rows(tumour_project)


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory, tumour_project, rows):
    """The project with the guard in shadow mode: its folder, and the answers to some rows."""
    folder = tmp_path_factory.mktemp("rules") / "project"
    configured(tumour_project, folder, ROLES + RULES.format(mode="shadow") + CASES, checks=("scan", "gateway.rules"))
    with serving(folder) as client:
        told = [client.infer(row)[::2] for row in [*rows.rows, rows.without_radius(), rows.vast()]]
    return folder, told


@pytest.fixture(scope="module")
def project(shadowed):
    """The same project with the guard enforced."""
    folder, _ = shadowed
    return reconfigured(folder, ROLES + RULES.format(mode="enforce") + CASES, checks=("gateway.rules",))


@pytest.fixture(scope="module")
def clinic(project):
    """A key of somebody else."""
    return key_of(project, "clinic")


@pytest.fixture(scope="module")
def gateway(project, clinic):
    del clinic
    with serving(project) as client:
        yield client


@pytest.fixture(scope="module")
def answers(gateway, rows):
    """Status and body for each held-out row."""
    return [gateway.infer(row)[::2] for row in rows.rows]


def outputs(body):
    return {output["name"]: output["data"] for output in body["outputs"]}


def command(folder, *arguments):
    """A command in this process: exit code, what it printed, and what it said."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = bartizan_run(["-C", str(folder), *arguments])
    return code, printed.getvalue(), said.getvalue()


def run(folder, *arguments):
    code, printed, said = command(folder, *arguments)
    assert code == 0, printed + said
    return json.loads(printed) if printed else None


def review(folder, *arguments):
    return run(folder, "review", *arguments, "--json")


def waiting(folder, queue, many=1):
    """Cases of a queue, once so many are there: what is not held is written beside the answers."""
    began = time.monotonic()
    while len(found := review(folder, "list", "--queue", queue, "--limit", "1000")["cases"]) < many:
        assert time.monotonic() - began < 60, found
        time.sleep(0.2)
    return found


def case_of(folder, queue, request):
    """The case that was made of a request, once it is there."""
    began = time.monotonic()
    while not (found := [case for case in waiting(folder, queue) if case["request"] == request]):
        assert time.monotonic() - began < 60
        time.sleep(0.2)
    return found[0]["case"]


def decide(folder, case, verdict, *more):
    return review(folder, "decide", case, "--verdict", verdict, "--role", "security", "--reason", "seen", *more)


def statement(folder, digest):
    """The predicate of a statement that a person who may has signed, and that stands."""
    workspace = Workspace(folder)
    with workspace.view() as view:
        said = decode(parse(view.find(digest).body).payload)
        (found,) = [item for item in workspace.evidence(view, list(said.about()), {}) if item.digest == digest]
    workspace.close()
    assert found.holds
    assert found.signers == ("security",)
    return said.predicate


def records(folder, **wanted):
    """Records of the audit log whose fields are these."""
    found = run(folder, "audit", "search", "--reason", "test", "--limit", "1000", "--json")["found"]
    each = [hit["record"] for hit in found]
    return [one for one in each if all(one.get(name) == value for name, value in wanted.items())]


def copied(project, folder, *without):
    """A copy of a project that is being served: each of its databases as of one moment."""
    left_out = shutil.ignore_patterns("*.db", "*.db-wal", "*.db-shm")
    shutil.copytree(project, folder, symlinks=True, ignore=left_out)
    for path in project.rglob("*.db"):
        if path.name in without:
            continue
        target = folder / path.relative_to(project)
        with contextlib.closing(sqlite3.connect(path)) as live, contextlib.closing(sqlite3.connect(target)) as kept:
            live.backup(kept)
        target.chmod(path.stat().st_mode)
    return folder


def of_class(project, folder, sensitivity):
    """A copy of the project in which the data are personal, and of another class."""
    copied(project, folder)
    path = folder / "bartizan.toml"
    text = path.read_text().replace("personal_data = false", 'personal_data = true\nlawful_basis = "consent"')
    text = text.replace('sensitivity = "public"', f'sensitivity = "{sensitivity}"')
    path.write_text(text.replace('destruction = "delete:', 'destruction = "destroy:'))
    return folder


@pytest.mark.control("1.2-e")
def test_a_rule_outside_the_model_catches_an_impossible_output(gateway, rows):
    possible = rows.rows[rows.labels.index("malignant")]
    assert gateway.infer(possible)[0] in {200, 202}
    status, _, body = gateway.infer(rows.without_radius())
    assert status == 422
    assert "rule" not in json.dumps(body)
    assert "radius" not in json.dumps(body)
    batch = np.stack([rows.rows[0], rows.without_radius()])
    assert gateway.infer(batch)[0] == 422


@pytest.mark.control("1.2-h")
def test_a_low_confidence_answer_is_held_for_confirmation(project, gateway, answers, clinic, shadowed):
    held = [place for place, (status, _) in enumerate(answers) if status == 202]
    told = [outputs(body) for status, body in answers if status == 200]
    assert held
    assert len(held) < len(answers) / 2
    assert all(max(each["scores"]) >= 0.9 for each in told if "scores" in each)
    confidence = [max(outputs(body)["scores"]) for _, body in shadowed[1][: len(answers)]]  # the same rows, not held
    assert {place for place, each in enumerate(confidence) if each < 0.9} <= set(held)
    assert all(confidence[place] <= 0.9 for place in held)  # as rounded
    first, second, third = (answers[place][1]["case"] for place in held[:3])
    status, _, body = gateway.ask("GET", f"/v2/holds/{first}")
    assert (status, body["state"]) == (200, "waiting")
    assert "outputs" not in body
    assert gateway.ask("GET", f"/v2/holds/{first}", key=clinic)[0] == 404, "callers see their own alone"
    made = decide(project, first, "confirm")
    body = gateway.ask("GET", f"/v2/holds/{first}")[2]
    assert body["state"] == "answered"
    assert outputs(body)["label"][0] in {"malignant", "benign"}
    said = statement(project, made["envelope"])
    assert (said["kind"], said["details"]["case"], said["details"]["verdict"]) == ("review", first, "confirm")
    other = {"malignant": "benign", "benign": "malignant"}[outputs(body)["label"][0]]
    decide(project, second, "change", "--label", other)
    assert outputs(gateway.ask("GET", f"/v2/holds/{second}")[2])["label"] == [other]
    decide(project, third, "reject")
    refused = gateway.ask("GET", f"/v2/holds/{third}")[2]
    assert refused["state"] == "refused"
    assert "outputs" not in refused
    again = ("review", "decide", first, "--verdict", "reject", "--role", "security", "--reason", "again")
    code, _, said = command(project, *again)
    assert code == 2
    assert "was decided" in said


def test_a_decision_that_is_withdrawn_releases_nothing(project, gateway, answers):
    case = next(body["case"] for status, body in reversed(answers) if status == 202)
    made = decide(project, case, "confirm")
    assert command(project, "revoke", "envelope", made["envelope"], "--reason", "a slip")[0] == 0
    status, _, body = gateway.ask("GET", f"/v2/holds/{case}")
    assert (status, body.get("state")) == (200, "waiting"), body
    decide(project, case, "reject")
    assert gateway.ask("GET", f"/v2/holds/{case}")[2]["state"] == "refused"


@pytest.mark.control("3.2-d")
def test_flagged_cases_are_retained_and_have_a_review_due_date(project, gateway, answers):
    del gateway, answers
    flagged = waiting(project, "flagged")
    for case in flagged:
        opened, due = (datetime.fromisoformat(case[name]) for name in ("opened", "due"))
        assert due - opened == timedelta(days=2)
        assert any(reason.startswith("rules: ") for reason in case["reasons"])
    shown = review(project, "show", flagged[0]["case"])
    assert not shown["erased"]
    assert shown["rows"]
    assert shown["case"]["due"] - shown["case"]["opened"] == timedelta(days=2) / timedelta(milliseconds=1)
    (record,) = records(project, id=flagged[0]["request"])
    assert [ruling["guard"] for ruling in record["rulings"]] == ["rules"]
    made = decide(project, flagged[0]["case"], "confirm")
    predicate = statement(project, made["envelope"])
    assert (predicate["kind"], predicate["details"]["queue"]) == ("review", "flagged")
    assert flagged[0]["case"] not in {case["case"] for case in waiting(project, "flagged", 0)}


@pytest.mark.control("4.2-g")
def test_people_review_what_was_filtered(project, gateway, rows):
    assert gateway.infer(rows.without_radius())[0] == 422
    filtered = waiting(project, "filtered")
    case = next(case for case in filtered if "rules: no tumour" in case["reasons"][0])
    assert case["due"] > case["opened"]
    made = decide(project, case["case"], "confirm")
    assert statement(project, made["envelope"])["details"]["queue"] == "filtered"
    listed = review(project, "list", "--queue", "filtered", "--state", "decided")["cases"]
    assert (listed[0]["verdict"], listed[0]["reviewer"]) == ("confirm", "security")


@pytest.mark.control("3.2-e")
def test_a_sample_of_ordinary_answers_is_reviewed_by_people(project, gateway, answers):
    del gateway
    benign = sum(status == 200 and outputs(body)["label"] == ["benign"] for status, body in answers)
    sampled = waiting(project, "sampled", benign // 2)
    assert {case["label"] for case in sampled} == {"benign"}, "each class has its rate"
    drawn = review(project, "sample", "--count", "3", "--seed", "7")
    assert len(drawn) == 3
    assert drawn == review(project, "sample", "--count", "3", "--seed", "7")
    confirmed, changed, _ = (case["case"] for case in drawn)
    decide(project, confirmed, "confirm")
    made = decide(project, changed, "change", "--label", "malignant")
    assert statement(project, made["envelope"])["kind"] == "review"
    listed = review(project, "list", "--queue", "sampled", "--state", "decided")
    verdicts = {case["case"]: (case["verdict"], case["reviewer"]) for case in listed["cases"]}
    assert verdicts == {confirmed: ("confirm", "security"), changed: ("change", "security")}
    assert listed["queues"]["sampled"]["changed"] == 1


@pytest.mark.control("3.2-f")
def test_reviewers_see_a_mask_and_look_beneath_it_with_a_reason(project, gateway, answers, rows, tmp_path):
    del gateway, answers
    case = waiting(project, "flagged")[-1]["case"]
    personal = of_class(project, tmp_path / "project", "public")
    masked = review(personal, "show", case)
    assert masked["masked"]
    assert all(value.startswith("[") for value in masked["rows"][0].values())
    code, _, said = command(personal, "review", "unmask", case, "--role", "security")
    assert code == 2
    assert "--reason" in said
    assert not records(personal, operation="review.unmask")
    shown = review(personal, "unmask", case, "--role", "security", "--reason", "compare with the slide")
    seen = np.array([float(shown["rows"][0][name]) for name in rows.columns])
    assert min(np.abs(rows.rows - seen).max(axis=1)) < 0.01
    (logged,) = records(personal, operation="review.unmask")
    assert case in json.dumps(logged)
    assert "compare with the slide" in json.dumps(logged)
    workspace = Workspace(personal)
    with workspace.view() as view:
        found = workspace.evidence(view, [workspace_case(workspace, case)], {})
    workspace.close()
    assert {item.kind: item.signers for item in found} == {"review": ("security",), "review.unmask": ("service",)}
    assert all(item.holds for item in found)


def workspace_case(workspace, case):
    """Digest of a case, as statements name it."""
    store = open_cases(workspace.settings.location("cases"))
    digest = store.find(case).case.digest
    store.close()
    return digest


@pytest.mark.control("4.2-G2")
def test_each_class_of_data_has_its_policy(project, gateway, answers, tmp_path):
    del gateway, answers
    case = waiting(project, "flagged")[-1]["case"]
    found = {}
    for sensitivity in ("public", "internal", "confidential", "restricted"):
        shown = review(of_class(project, tmp_path / sensitivity / "project", sensitivity), "show", case)
        found[sensitivity] = (shown["treatment"], shown["rows"][0][COLUMN])
    assert [treatment for treatment, _ in found.values()] == ["mask", "mask", "digest", "drop"]
    assert "quarter" in found["internal"][1]
    assert found["restricted"][1] == "[dropped]"
    assert found["confidential"][1] not in {found["internal"][1], "[dropped]"}


@pytest.mark.control("GL-4.3")
def test_what_is_kept_of_requests_is_minimised_masked_and_sealed_by_default(project, gateway, rows, tmp_path):
    row = rows.without_radius()
    row[1] = 17.734375
    status, fields, _ = gateway.infer(row)
    assert status == 422
    case = case_of(project, "filtered", fields["bartizan-request"])
    needles = [row.tobytes()[:64], row.astype(np.float32).tobytes()[:32], b"17.734375"]
    kept = [path for path in (project / ".bartizan").rglob("*") if path.is_file()]
    assert any(path.name.startswith("audit.db") for path in kept)
    assert any(path.name.startswith("cases.db") for path in kept)
    for path in kept:
        data = path.read_bytes()
        assert not any(needle in data for needle in needles), path
    assert "17.734375" not in (project.parent / f"server-{project.name}.txt").read_text()
    personal = of_class(project, tmp_path / "project", "public")
    assert "[masking]" not in (personal / "gateway.toml").read_text()
    for more in ((), ("--json",)):
        code, printed, said = command(personal, "review", "show", case, *more)
        assert code == 0, said
        assert "17.73" not in printed + said
    shown = json.loads(printed)
    assert (shown["masked"], shown["erased"], set(shown["rows"][0])) == (True, False, set(rows.columns))
    assert all(value.startswith("[") for value in shown["rows"][0].values())
    assert "17.73" not in json.dumps(review(personal, "list", "--queue", "filtered", "--limit", "1000"))
    (record,) = records(personal, id=fields["bartizan-request"])
    assert record["input"]
    assert "17.73" not in json.dumps(records(personal))


@pytest.mark.control("1.2-g")
def test_rules_opinions_and_tree_run_in_shadow_and_enforce_mode(shadowed, project, gateway, rows, answers):
    """The same guard on the same rows: what it says is recorded in both modes, and followed in one."""
    assert {status for status, _ in shadowed[1]} == {200}
    assert all("scores" in outputs(body) for _, body in shadowed[1])
    assert {status for status, _ in answers} == {200, 202}
    assert gateway.infer(rows.without_radius())[0] == 422
    status, _, body = gateway.infer(rows.vast())
    assert status == 200
    assert "scores" not in outputs(body), "nothing is known of it: the label alone"
    for is_shadow in (True, False):
        each = [ruling for record in records(project, operation="infer") for ruling in record.get("rulings", ())]
        said = [ruling for ruling in each if ruling.get("shadow", False) is is_shadow]
        reasons = " ".join(ruling.get("reason", "") for ruling in said)
        assert all(name in reasons for name in ("tree", "unsure", "no tumour", "nothing known"))
        assert {"hold", "coarsen", "refuse", "flag"} <= {ruling["action"] for ruling in said}
        assert all(0 <= ruling["measures"]["uncertainty"] <= 1 for ruling in said)


def _refused_to_serve(folder):
    serve = [sys.executable, "-m", "bartizan", "serve", "--gate", "deploy", "--port", "0"]
    done = subprocess.run(serve, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.control("2.4-j")
def test_a_rule_is_needed_when_uncertainty_exceeds_the_stated_bound(project, tmp_path, rows):
    bound = ROLES + '\n[[guard]]\nuse = "rules"\nbound = 0.005\n'
    rule = '\n[[guard.rule]]\nname = "unsure"\nwhen = "confidence < 0.6"\nthen = "refuse"\n'
    folder = tmp_path / "project"
    copied(project, folder, "audit.db", "cases.db")
    reconfigured(folder, bound, checks=("gateway.rules",))
    told = _refused_to_serve(folder)
    assert "beyond the stated bound" in told
    assert "add a rule" in told
    reconfigured(folder, bound + rule, checks=("gateway.rules",))
    with serving(folder) as client:
        statuses = {client.infer(row)[0] for row in rows.rows[:40]}
    assert 202 in statuses, "what is beyond the bound and meets no rule is held"

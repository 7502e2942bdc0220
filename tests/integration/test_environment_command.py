"""``bartizan environment``, ``bartizan secrets`` and the OSCAL export, as a person uses them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from trestle.oscal.assessment_results import AssessmentResults

import bartizan
from bartizan.cli.main import run
from bartizan.core.envelope import parse
from bartizan.core.statement import decode
from bartizan.wiring.workspace import Workspace

TOKEN = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3hJ6"
PROTECTION = {
    "required_pull_request_reviews": {"required_approving_review_count": 1},
    "required_status_checks": {"checks": [{"context": "test"}]},
    "enforce_admins": {"enabled": True},
    "allow_force_pushes": {"enabled": False},
}
CI = "on: [push, pull_request]\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make test\n"
REPOSITORY = ("branch-protection", "review", "tests", "pins")


@pytest.fixture
def folder(tmp_path, assured_once):
    """A copy of the assured example that may be changed, in a git repository of its own."""
    made = shutil.copytree(assured_once, tmp_path / "project", symlinks=True)
    subprocess.run(["git", "init", "-q", str(made)], check=True)
    return made


def declare(folder: Path, text: str) -> None:
    path = folder / "bartizan.toml"
    path.write_text(path.read_text() + text)


def look(ask_in, folder, *arguments):
    code, out, said = ask_in(folder, "environment", "--json", *arguments)
    return code, json.loads(out) if out else {}, said


def states(result) -> dict[str, str]:
    return {test["name"]: test["state"] for test in result["seen"]["tests"]}


def marked(result) -> set[str]:
    return {finding["rule"].partition("/")[2] for finding in result["open"]}


@pytest.mark.control("2.2-i")
def test_protection_review_tests_and_pins_of_the_repository_are_checked(folder, ask_in):
    _, result, _ = look(ask_in, folder)
    assert {name: states(result)[f"repository/{name}"] for name in REPOSITORY} == {
        "branch-protection": "warned",
        "review": "warned",
        "tests": "failed",
        "pins": "failed",
    }
    assert {"protection-not-shown", "review-not-shown", "no-tests", "no-lock-file"} <= marked(result)
    (folder / "CODEOWNERS").write_text("* @ml-team @security\n")
    (folder / ".github" / "workflows").mkdir(parents=True)
    (folder / ".github" / "workflows" / "ci.yml").write_text(CI)
    (folder / "requirements.txt").write_text("numpy==2.1.0 --hash=sha256:" + "0a" * 32 + "\n")
    (folder / "protection.json").write_text(json.dumps(PROTECTION))
    declare(folder, '\n[environment]\nbranch_protection = "protection.json"\n')
    _, result, _ = look(ask_in, folder)
    assert {states(result)[f"repository/{name}"] for name in REPOSITORY} == {"passed"}
    (folder / "protection.json").write_text(json.dumps({**PROTECTION, "required_pull_request_reviews": None}))
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / ".github" / "workflows" / "ci.yml").write_text(CI.replace("make test", "make lint"))
    _, result, _ = look(ask_in, folder)
    assert {states(result)[f"repository/{name}"] for name in REPOSITORY} == {"failed"}


@pytest.mark.control("2.2-f")
def test_the_environment_is_checked_against_a_baseline_and_exported_as_oscal(folder, ask_in, tmp_path):
    baseline = tmp_path / "baseline.json"
    declare(folder, '\n[environment]\nskip = ["report"]\n')
    code, out, _ = ask_in(folder, "environment", "--json")
    assert code == 1
    baseline.write_text(out)
    code, result, said = look(ask_in, folder, "--baseline", str(baseline), "--sign", "service")
    assert (code in {0, 2}, result["open"], result["result"] in {"PASSED", "WARNED"}) == (True, [], True)
    assert "signed as" in said
    (folder / "model").chmod(0o777)
    (folder / "notes.md").write_text(f"use {TOKEN}\n")
    code, result, _ = look(ask_in, folder, "--baseline", str(baseline))
    assert (code, result["result"]) == (1, "FAILED")
    assert marked(result) == {"world-writable", "github-token"}
    assert TOKEN[4:] not in json.dumps(result)
    (folder / "model").chmod(0o755)
    (folder / "notes.md").unlink()
    document = exported(ask_in, folder)
    (finding,) = [each for each in document["results"][0]["findings"] if each["target"]["target-id"] == "c-2.2-f"]
    observed = {each["uuid"]: each for each in document["results"][0]["observations"]}
    props = [observed[each["observation-uuid"]]["props"] for each in finding["related-observations"]]
    assert {"name": "check", "ns": "urn:bartizan:oscal", "value": "environment"} in props[0]


def exported(ask_in, folder, *arguments):
    """The export as an independent implementation of OSCAL reads it: unknown or missing fields are refused.

    That implementation knows 1.2 only, whose assessment results did not change in what is written here.
    """
    code, out, _ = ask_in(folder, "report", "--format", "oscal", *arguments)
    assert code == 0
    document = json.loads(out)["assessment-results"]
    assert document["metadata"]["oscal-version"] == "1.1.3"
    newer = {**document, "metadata": {**document["metadata"], "oscal-version": "1.2.1"}}
    AssessmentResults.model_validate(newer)
    return document


@pytest.mark.control("INTRO-3")
def test_another_control_set_points_at_the_same_evidence(folder, ask_in, tmp_path):
    mapping = tmp_path / "iso27001.toml"
    mapping.write_text(
        'set = "ISO/IEC 27001:2022"\n[[map]]\ncontrol = "A.8.29"\ntitle = "Security testing"\nrests_on = ["1.4-e"]\n'
        '[[map]]\ncontrol = "A.5.9"\nrests_on = ["2.1-n", "2.2-c"]\n'
    )
    document = exported(ask_in, folder, "--map", str(mapping))
    ours, theirs = document["results"]
    observations = {each["uuid"]: each for each in ours["observations"]}
    ledger = {item["envelope"] for item in json.loads(ask_in(folder, "evidence", "list", "--json")[1])}
    assert {prop["value"] for each in observations.values() for prop in each["props"][:1]} <= ledger
    assert theirs["title"] == "ISO/IEC 27001:2022"
    same = next(each for each in ours["findings"] if each["target"]["target-id"] == "c-1.4-e")
    other = next(each for each in theirs["findings"] if each["target"]["target-id"] == "A.8.29")
    assert other["related-observations"] == same["related-observations"]
    assert other["related-observations"]
    assert all(each["observation-uuid"] in observations for each in other["related-observations"])
    unmet = next(each for each in theirs["findings"] if each["target"]["target-id"] == "A.5.9")
    assert unmet["target"]["status"]["state"] == "not-satisfied"
    assert "2.2-c" in unmet["target"]["status"]["remarks"]


def test_uuids_of_statements_are_the_same_in_every_export(folder, ask_in):
    first, second = exported(ask_in, folder), exported(ask_in, folder)
    ids = [{each["uuid"] for each in document["results"][0]["observations"]} for document in (first, second)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("text", ["", "set = 7", 'set = "x"\n[[map]]\ncontrol = "A"\nrests_on = ["9.9-z"]\n'])
def test_an_unsound_mapping_is_refused(folder, ask_in, tmp_path, text):
    (tmp_path / "map.toml").write_text(text)
    code, _, said = ask_in(folder, "report", "--format", "oscal", "--map", str(tmp_path / "map.toml"))
    assert (code, "error:" in said, "next:" in said) == (2, True, True)


def test_claims_are_met_by_signed_reviews_and_the_gate_sees_them(folder, ask_in):
    declare(
        folder,
        '\n[environment]\nrequired = ["mfa"]\n\n[[gate.place.rule]]\nid = "place"\nabout = "system"\n'
        'type = "test-result"\ncheck = "environment"\n',
    )
    code, result, _ = look(ask_in, folder)
    assert states(result)["claims/mfa"] == "failed"
    assert stated(folder, ask_in)["failedTests"].count("claims/mfa") == 1
    name = result["seen"]["system"]
    code, _, said = ask_in(
        folder, "decide", "review", "--about", name, "--role", "security", "--concerns", "2.2-c", "--expires", "90d",
        "--reason", "Hardware keys are required for every account with write access.",
    )  # fmt: skip
    assert code == 0, said
    _, result, _ = look(ask_in, folder)
    assert states(result)["claims/mfa"] == "passed"
    said = stated(folder, ask_in)
    assert "claims/mfa" in said["passedTests"]
    assert said["result"] == "FAILED"  # the example has neither tests nor a lock file
    code, out, _ = ask_in(folder, "gate", "explain", "place")
    assert (code, "place" in out) == (1, True)


def stated(folder, ask_in) -> dict:
    """What the one standing statement of the check says, after it was due and ran."""
    ask_in(folder, "assure", "--gate", "place", "--only", "environment")
    with Workspace(folder).view() as view:
        about = [artefact.digest for artefact in Workspace(folder).system().of_kind("system")]
        said = [decode(parse(entry.body).payload) for entry in view.about(about)]
    return [each.predicate for each in said if each.predicate.get("check", {}).get("name") == "environment"][-1]


@pytest.mark.control("GL-1.11")
def test_it_works_in_a_pipeline_and_no_hostile_file_harms_it(tmp_path):
    """As a job of continuous integration runs it: no terminal, exit codes, SARIF; and files that attack a reader."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "deep.ipynb").write_text("[" * 200_000)
    (hostile / "cut.zip").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8)
    with zipfile.ZipFile(hostile / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(32 << 20))
    (hostile / "model.pkl").write_bytes(b"\x80\x04cos\nsystem\n(S'touch ran'\ntR." + TOKEN.encode())
    (hostile / "config.yaml").write_bytes(b"\xff\xfe" + "a: &a [*a, *a]\n".encode("utf-16-le") * 100)
    done = in_pipeline(tmp_path, "secrets", "hostile", "--sarif", "out.sarif", "--json")
    assert done.returncode == 1, done.stderr
    (found,) = json.loads(done.stdout)[0]["found"]
    assert (found["rule"], found["begins"]) == ("secrets/github-token", "ghp_")
    assert json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"][0]["level"] == "error"
    for name in ("deep.ipynb", "cut.zip", "bomb.zip", "model.pkl", "config.yaml"):
        done = in_pipeline(tmp_path, "scan", f"hostile/{name}")
        assert done.returncode in {0, 1, 2}, done.stderr
        assert "Traceback" not in done.stderr
        assert "mistake in bartizan" not in done.stderr
    assert not (tmp_path / "ran").exists()
    parsers = Path(bartizan.__file__).parent
    assert not [path for ending in ("*.so", "*.pyd", "*.c", "*.pyx") for path in parsers.rglob(ending)]


def in_pipeline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bartizan", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "CI": "true"},
    )


def test_secrets_of_a_project_keep_their_marks(folder, ask_in):
    (folder / "notes.txt").write_text(f"{TOKEN}\n")
    marks = set()
    for _ in range(2):
        code, out, _ = ask_in(folder, "secrets", str(folder / "notes.txt"), "--json")
        marks.add(json.loads(out)[0]["found"][0]["mark"])
        assert code == 1
    assert len(marks) == 1
    assert (folder / ".bartizan" / "secrets.salt").stat().st_mode & 0o777 == 0o600
    code, out, said = ask_in(folder, "secrets", str(folder / "notes.txt"))
    assert "ghp_..." in out
    assert TOKEN[4:12] not in out + said


@pytest.mark.parametrize("command", ["secrets", "environment"])
def test_help_has_examples(capsys, command):
    assert run([command, "--help"]) == 0
    assert "Example: bartizan" in capsys.readouterr().out

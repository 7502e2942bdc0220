"""Runs that are recorded, what is read from them, and updates that are activated only when they verify."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from bartizan.cli.main import run
from bartizan.core import envelope, keys
from bartizan.core.errors import InputError, SandboxError
from bartizan.lifecycle.develop.sign import sign_manifest
from bartizan.stores import landlock
from bartizan.wiring import recording, surroundings, updating
from bartizan.wiring.recording import Asked, record
from bartizan.wiring.workspace import Workspace, utc_now
from fixtures.project import declare

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="the kernel offers no Landlock")
TRAIN = "cat data/train.csv > model/tumour.joblib"
SCHEMAS = Path(__file__).parents[1] / "assets" / "provenance"
OTHER_CLINIC = "Clinic B, ward 3"
PRODUCTION = """
[[gate.production.rule]]
id = "trained-in-production"
about = "model"
type = "provenance"
where = [{ field = "buildDefinition.internalParameters.environment.name", equals = "production-training" }]
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """The example with keys, ledger and signed artefacts; the hold-out data come from somebody else."""
    folder = tmp_path_factory.mktemp("declared") / "tumour"
    declare(folder)
    path = folder / "bartizan.toml"
    before, holdout, after = path.read_text().partition('name = "holdout"')
    old = 'contributors = "W. H. Wolberg, W. N. Street and O. L. Mangasarian, University of Wisconsin"'
    assert old in after
    path.write_text(before + holdout + after.replace(old, f'contributors = "{OTHER_CLINIC}"', 1) + PRODUCTION)
    return folder


@pytest.fixture
def place(declared, tmp_path, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(declared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def ask(place, ask_in):
    return functools.partial(ask_in, place)


def shell(ask, command, *options):
    """Record a shell command; gives the statement's predicate."""
    code, output, errors = ask("record", *options, "--json", "--", "/bin/sh", "-c", command)
    assert code == 0, errors
    done = json.loads(output)
    return json.loads(ask("evidence", "show", done["envelope"])[1])["predicate"]


def names(predicate):
    return [item["name"] for item in predicate["buildDefinition"]["resolvedDependencies"]]


# ---- record


@pytest.mark.control("2.1-c")
def test_training_and_conversion_give_provenance_that_others_verify(ask, place, tmp_path):
    train, convert = place / "train.py", place / "convert.py"
    train.write_text(
        "import numpy\n"
        "rows = numpy.genfromtxt('data/train.csv', delimiter=',', skip_header=1)\n"
        "weights = numpy.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0]\n"
        "numpy.save('model/weights.npy', weights)\n"
    )
    convert.write_text(
        "import json, numpy\njson.dump(numpy.load('model/weights.npy').tolist(), open('model/weights.json', 'w'))\n"
    )
    runs = (
        ("train.py", "dataset:train", "model/weights.npy"),
        ("convert.py", "model/weights.npy", "model/weights.json"),
    )
    public = (place / ".bartizan/keys/service.pub.pem").read_text()
    key = SSlibKey.from_crypto(keys.load_public(public), keyid=keys.keyid_of(keys.load_public(public)))
    for code, source, made in runs:
        exit_code, output, errors = ask(
            "record", "-i", code, "-i", source, "-o", made, "--json", "--", sys.executable, "-W", "ignore", code
        )
        assert exit_code == 0, errors
        done = json.loads(output)
        exported = tmp_path / "provenance.json"
        assert ask("ledger", "export", done["envelope"], "-o", str(exported))[0] == 0
        theirs = TheirEnvelope.from_dict(json.loads(exported.read_bytes()))
        assert theirs.verify([key], threshold=1)
        said = json.loads(theirs.payload)
        jsonschema.validate(said, json.loads((SCHEMAS / "statement.schema.json").read_text()))
        jsonschema.validate(said["predicate"], json.loads((SCHEMAS / "slsa-v1.schema.json").read_text()))
        assert said["subject"] == [{"name": made, "digest": {"sha256": done["outputs"][made]}}]
        assert {code, source, "packages"} <= set(names(said["predicate"]))
        theirs.payload += b" "
        with pytest.raises(VerificationError):
            theirs.verify([key], threshold=1)


def test_a_predicate_that_breaks_the_specification_does_not_validate():
    schema = json.loads((SCHEMAS / "slsa-v1.schema.json").read_text())
    sound = {
        "buildDefinition": {"buildType": "urn:x", "externalParameters": {}},
        "runDetails": {"builder": {"id": "urn:x"}},
    }
    jsonschema.validate(sound, schema)
    for broken in (
        {**sound, "runDetails": {"builder": {}}},
        {**sound, "buildDefinition": {"buildType": "no uri", "externalParameters": {}}},
        {**sound, "buildDefinition": {**sound["buildDefinition"], "resolvedDependencies": [{"name": "nameless"}]}},
        {**sound, "runDetails": {"builder": {"id": "urn:x"}, "metadata": {"startedOn": "yesterday"}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema, format_checker=jsonschema.FormatChecker())


def test_the_statement_says_who_where_when_and_with_what(ask, place):
    (place / "more.toml").write_text("[optimiser]\nrate = 0.5\n")
    said = shell(
        ask, TRAIN, "-i", "dataset:train", "-o", "model:tumour", "--environment", "lab",
        "--parameters", "epochs=3", "--parameters", "more.toml",
    )  # fmt: skip
    definition, details = said["buildDefinition"], said["runDetails"]
    assert definition["externalParameters"]["command"] == ["/bin/sh", "-c", TRAIN]
    assert definition["externalParameters"]["parameters"] == {"epochs": "3", "optimiser": {"rate": 0.5}}
    assert definition["internalParameters"]["environment"]["name"] == "lab"
    assert "python" not in definition["internalParameters"]["environment"]
    [data] = [item for item in definition["resolvedDependencies"] if item["name"] == "dataset:train"]
    assert data["annotations"]["signedBy"] == ["service"]
    assert details["builder"]["id"].startswith("urn:bartizan:record:")
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]


def test_the_exit_code_is_passed_on_and_a_failure_leaves_nothing(ask):
    before = ask("evidence", "list", "model:tumour", "--json")[1]
    code, output, errors = ask("record", "-o", "model:tumour", "--json", "--", "/bin/sh", "-c", "exit 7")
    assert (code, json.loads(output)["exit_code"]) == (7, 7)
    assert "nothing is recorded" in errors
    assert ask("record", "-o", "x", "--", "/bin/sh", "-c", "kill -9 $$")[0] == 128 + 9
    assert ask("evidence", "list", "model:tumour", "--json")[1] == before


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        pytest.param(f"{TRAIN}; echo >> data/train.csv", "was written to while the command ran", id="input grows"),
        pytest.param(
            f"{TRAIN}; cp -p data/train.csv x; echo > data/train.csv; cp -p x data/train.csv",
            "was written to while the command ran",
            id="input is put back with its times",
        ),
        pytest.param("true", "the command did not write it", id="output untouched"),
        pytest.param("rm model/tumour.joblib", "did not make model:tumour", id="output gone"),
    ],
)
def test_what_did_not_stand_still_or_was_not_made_is_not_recorded(ask, command, complaint):
    code, _, errors = ask("record", "-i", "dataset:train", "-o", "model:tumour", "--", "/bin/sh", "-c", command)
    assert code == 2
    assert complaint in errors


@pytest.mark.control("A-MLSG-002-D004")
def test_training_does_not_start_on_data_that_are_not_as_signed(ask, place):
    data = place / "data" / "train.csv"
    whole = data.read_bytes()
    for altered in (whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:], whole + b"1,2,3\n"):
        data.write_bytes(altered)
        for given in ("dataset:train", "data/train.csv"):
            code, _, errors = ask("record", "-i", given, "-o", "trained", "--", "/bin/sh", "-c", "touch trained")
            assert code == 2
            assert "no signature over its present bytes" in errors
            assert not (place / "trained").exists()
    data.write_bytes(whole)
    said = shell(ask, "touch trained", "-i", "dataset:train", "-o", "trained")
    assert said["buildDefinition"]["resolvedDependencies"][0]["annotations"]["signedBy"] == ["service"]
    # A folder of data, signed as a whole: one file more is one too many.
    folder, signature, key = place / "data", str(place / "data.sig"), str(place / ".bartizan/keys/service.pub.pem")
    assert ask("sign", str(folder), "-o", signature)[0] == 0
    (folder / "injected.csv").write_text("x")
    assert ask("verify", str(folder), "--signature", signature, "--key", key)[0] == 1


def test_a_withdrawn_dataset_is_not_trained_on(ask):
    assert ask("revoke", "artefact", "dataset:train", "--reason", "swapped labels", "--key", "security")[0] == 0
    code, _, errors = ask("record", "-i", "dataset:train", "-o", "x", "--", "/bin/sh", "-c", "touch x")
    assert (code, "was withdrawn: swapped labels" in errors) == (2, True)
    assert ask("record", "-i", "dataset:train", "--unsigned", "-o", "x", "--", "/bin/sh", "-c", "touch x")[0] == 0


def test_a_key_without_the_right_records_nothing(ask, place):
    code, _, errors = ask("record", "-o", "x", "--key", "security", "--", "/bin/sh", "-c", "touch x")
    assert (code, "may not sign provenance" in errors) == (2, True)
    assert not (place / "x").exists()


# ---- strict


@needs_landlock
@pytest.mark.control("A-MLSG-002-D005")
def test_every_run_lists_its_inputs_and_an_unlisted_read_fails_in_strict_mode(ask, place):
    (place / "secret.csv").write_text("1,2\n")
    (place / "model" / "tumour.joblib").unlink()
    read = f"{TRAIN}; cat secret.csv >> model/tumour.joblib"
    strict = ("record", "--strict", "-i", "dataset:train", "-o", "model:tumour", "--")
    code, _, errors = ask(*strict, "/bin/sh", "-c", read)
    assert code == 1
    assert "refused: secret.csv is no declared input" in errors
    (place / "model" / "tumour.joblib").unlink()
    said = shell(ask, read, "--strict", "-i", "dataset:train", "-i", "secret.csv", "-o", "model:tumour")
    listed = {item["name"]: item["digest"]["sha256"] for item in said["buildDefinition"]["resolvedDependencies"]}
    space = Workspace(place)
    assert listed["dataset:train"] == space.files.digest(place / "data" / "train.csv")
    assert listed["secret.csv"] == space.files.digest(place / "secret.csv")
    assert said["buildDefinition"]["externalParameters"]["strict"] is True


@needs_landlock
@pytest.mark.parametrize(
    "read",
    [
        "cat secret",
        "cat < secret",
        "cat ./data/../secret",
        "ln -s ../secret data/link; cat data/link",
        "ln secret data/hard && cat data/hard",
        "mv secret data/moved && cat data/moved",
        "(sleep 0.1; cat secret) & wait $!",
        "cat /proc/self/cwd/secret",
        "cat /dev/stdin",
    ],
)
def test_no_way_around_strict_mode_gives_the_bytes(ask, place, read):
    (place / "secret").write_text("never seen")
    ask("record", "--strict", "-i", "data", "-o", "out", "--", "/bin/sh", "-c", f"{{ {read} ; }} > out; true")
    assert "never seen" not in (place / "out").read_text()


@needs_landlock
def test_strict_mode_refuses_connections(ask, place):
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    (place / "net.py").write_text(code)
    strict = ("record", "--strict", "-i", "net.py", "-o", "out", "--", sys.executable, "net.py")
    assert ask(*strict)[0] == 1
    assert ask(*[word for word in strict if word != "--strict"])[0] == 2, "it ran, and made no output"


@needs_landlock
def test_an_old_output_is_an_undeclared_input_in_strict_mode(ask):
    code, _, errors = ask(
        "record", "--strict", "-o", "model:tumour", "--", "/bin/sh", "-c", "echo x >> model/tumour.joblib"
    )
    assert (code, "undeclared input" in errors) == (2, True)


@needs_landlock
def test_a_program_that_is_not_declared_does_not_start_in_strict_mode(ask, place):
    program = place / "program.sh"
    program.write_text("#!/bin/sh\necho > out\n")
    program.chmod(0o755)
    assert ask("record", "--strict", "-o", "out", "--", "./program.sh")[0] != 0
    assert not (place / "out").exists()
    assert ask("record", "--strict", "-i", "program.sh", "-o", "out", "--", "./program.sh")[0] == 0


def test_without_landlock_strict_mode_is_an_error_and_never_lax(ask, place, monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    code, _, errors = ask("record", "--strict", "-o", "out", "--", "/bin/sh", "-c", "touch out")
    assert (code, "cannot hold a command" in errors) == (2, True)
    assert not (place / "out").exists()
    with pytest.raises(SandboxError):
        landlock.Confinement([])


# ---- what happens around it


def test_commit_and_uncommitted_changes_are_told(tmp_path):
    assert surroundings.commit_of(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
        ["remote", "add", "origin", "https://user:secret@example.org/code.git"],
    ):
        surroundings.subprocess.run([*git, *words], check=True)
    found = surroundings.commit_of(tmp_path)
    assert (found.dirty, found.remote) == (False, "https://example.org/code.git")
    (tmp_path / "new.py").write_text("")
    assert surroundings.commit_of(tmp_path).dirty
    assert recording._git_uri("git@example.org:team/code.git") == "git+ssh://example.org/team/code.git"
    assert recording._git_uri("") is None


def test_the_packages_are_those_of_the_command_s_own_interpreter(tmp_path):
    found = surroundings.interpreter_of(Path(sys.executable))
    assert any(name.lower() == "pytest" for name, _, _ in found.packages)
    script = tmp_path / "tool"
    script.write_text(f"#!{sys.executable}\n")
    assert surroundings.interpreter_of(script).package_list() == found.package_list()
    assert surroundings.interpreter_of(Path("/bin/sh")) is None


@pytest.mark.parametrize("text", ["no-such-file", "bad.json", "deep.json", "list.json", "bad.toml"])
def test_parameters_that_cannot_be_read_are_errors(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "deep.json").write_text('{"a":' * 5000)
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bad.toml").write_bytes(b"\xff = [")
    with pytest.raises(InputError, match="gives no parameters"):
        recording.read_parameters([text])


@pytest.mark.parametrize("text", ["", "model = 1", "[[model]]\nname = 1\npath = 2", "\x00", "[[[", "a=" + "[" * 5000])
def test_a_broken_declaration_does_not_break_the_recorder(place, text):
    (place / "bartizan.toml").write_text(text)
    asked = Asked(command=("/bin/true",), inputs=("model:tumour",), outputs=("x",), folder=place)
    with pytest.raises(InputError):
        record(Workspace(place), asked)


# ---- the card, the gate and the trace


@pytest.mark.control("2.3-o")
def test_the_card_says_what_a_model_was_trained_on_from_provenance(ask, place):
    def card():
        ask("assure", "--only", "cards.model", "--json")
        rows = json.loads(ask("evidence", "list", "model:tumour", "--standing", "holds", "--json")[1])
        [row] = [row for row in rows if row["what"] == "cards.model"]
        report = json.loads(ask("evidence", "show", row["envelope"], "--report")[1])
        facts = json.loads(ask("evidence", "show", row["envelope"])[1])["predicate"]["facts"]
        return facts["trainedOn"], {finding["rule"] for finding in report["findings"]}

    space = Workspace(place)
    digests = {name: space.files.digest(place / "data" / f"{name}.csv") for name in ("train", "holdout")}
    said, _ = card()
    assert (said["from"], said["dataset"]) == ("declaration", "train")
    shell(ask, "cat model/tumour.joblib > x; cat x > model/tumour.joblib", "-i", "dataset:train", "-o", "model:tumour")
    said, findings = card()
    assert (said["from"], said["dataset"], said["digest"]) == ("provenance", "train", digests["train"])
    assert "cards/trained-on-disagrees" not in findings
    shell(ask, "cat x > model/tumour.joblib", "-i", "dataset:holdout", "-o", "model:tumour")
    said, findings = card()
    assert (said["from"], said["dataset"], said["digest"]) == ("provenance", "holdout", digests["holdout"])
    assert said["contributors"] == OTHER_CLINIC
    assert "cards/trained-on-disagrees" in findings


@pytest.mark.control("GL-3.2")
def test_the_production_gate_refuses_a_model_from_another_environment(ask):
    options = ("-i", "dataset:train", "-o", "model:tumour", "--environment")
    assert ask("gate", "evaluate", "production")[0] == 1
    shell(ask, TRAIN, *options, "laptop")
    code, output, _ = ask("gate", "explain", "production", "--json")
    assert (code, "environment.name is laptop" in output) == (1, True)
    assert ask("gate", "evaluate", "production")[0] == 1
    shell(ask, TRAIN, *options, "production-training")
    assert ask("gate", "evaluate", "production")[0] == 0
    shell(ask, TRAIN, *options, "laptop")
    assert ask("gate", "evaluate", "production")[0] == 1


@pytest.mark.control("4.1-b")
def test_one_query_leads_from_a_bad_update_to_batch_source_and_contributor(ask, place):
    ask("assure", "--only", "cards.data")
    crawl = (
        "-o",
        "batch7.csv",
        "--parameters",
        "source=https://example.org/feed",
        "--parameters",
        "contributor=J. Doe",
    )
    shell(ask, "echo 1,2,3 > batch7.csv", *crawl)
    train = ("-i", "dataset:train", "-i", "dataset:holdout", "-i", "batch7.csv", "-o", "model:tumour")
    shell(ask, "cat data/*.csv batch7.csv > model/tumour.joblib", *train)
    assert ask("update", "pack", "model:tumour", "--version", "3", "-o", "update-3")[0] == 0
    assert ask("update", "activate", "update-3", "--to", "deploy")[0] == 0
    code, output, _ = ask("trace", "deploy/current", "--json")
    assert code == 0
    steps = {step["name"]: step for step in json.loads(output)["steps"]}
    assert steps["model:tumour"]["made_by"] == ["service"]
    batch = steps["dataset:holdout"]
    assert (batch["contributors"], batch["signed_by"], batch["via"]) == (OTHER_CLINIC, ["service"], "made of")
    assert batch["host"].startswith("UCI Machine Learning Repository")
    assert "University of Wisconsin" in steps["dataset:train"]["contributors"]
    assert steps["batch7.csv"]["parameters"] == {"source": "https://example.org/feed", "contributor": "J. Doe"}
    assert OTHER_CLINIC in ask("trace", "model:tumour")[1]
    reached = json.loads(ask("impact", "dataset:holdout", "--json")[1])
    assert "model:tumour" in {item["what"] for item in reached}
    assert ask("revoke", "artefact", "dataset:holdout", "--reason", "poisoned", "--key", "security")[0] == 0
    steps = {step["name"]: step for step in json.loads(ask("trace", "model:tumour", "--json")[1])["steps"]}
    assert any("poisoned" in note for note in steps["dataset:holdout"]["notes"])


def test_nothing_known_is_an_error_and_so_is_nothing_at_all(ask):
    assert ask("trace", "0" * 64)[0] == 2
    assert "nothing of" in ask("trace", "bartizan.toml")[2]
    assert "neither a declared artefact" in ask("trace", "nonsense")[2]


def test_a_circle_of_provenance_ends(ask, place):
    shell(ask, "echo a > a", "-o", "a")
    shell(ask, "echo b > b", "-i", "a", "-o", "b")
    shell(ask, "echo a > a", "-i", "b", "-o", "a")
    steps = json.loads(ask("trace", "a", "--json")[1])["steps"]
    assert [step["name"] for step in steps] == ["a", "b"]


def test_what_nobody_trusted_says_is_no_part_of_a_trace(ask, place, tmp_path):
    shell(ask, TRAIN, "-i", "dataset:train", "-o", "model:tumour")
    rows = json.loads(ask("evidence", "list", "model:tumour", "--json")[1])
    envelope_digest = next(row["envelope"] for row in rows if row["type"] == "provenance")
    whole = tmp_path / "whole.json"
    ask("ledger", "export", envelope_digest, "-o", str(whole))
    payload = json.loads(envelope.parse(whole.read_bytes()).payload)
    payload["predicate"]["buildDefinition"]["resolvedDependencies"] = [{"name": "lie", "digest": {"sha256": "0" * 64}}]
    stranger = keys.PrivateKeySigner(keys.generate())
    forged = tmp_path / "forged.json"
    forged.write_bytes(envelope.seal(json.dumps(payload).encode(), [stranger]))
    assert ask("evidence", "add", str(forged))[0] == 0
    assert "lie" not in ask("trace", "model:tumour")[1]


# ---- updates


@pytest.fixture
def packed(ask, place):
    """Version 5, with a model and a prompt."""
    (place / "prompt.txt").write_text("Answer briefly.")
    pack(ask, 5)
    return place / "update-5"


def pack(ask, version, *options, name=""):
    name = name or f"update-{version}"
    words = ("update", "pack", "model:tumour", "prompt.txt", "--version", str(version), "-o", name, *options)
    code, _, errors = ask(*words)
    assert code == 0, errors


def activate(ask, name):
    code, output, _ = ask("update", "activate", name, "--to", "deploy", "--json")
    return code, json.loads(output)


@pytest.mark.control("GL-4.6")
def test_an_update_is_verified_before_it_is_activated(ask, place, packed):
    code, done = activate(ask, "update-5")
    assert (code, set(done["rules"].values())) == (0, {"met"})
    assert (place / "deploy/current/content/prompt.txt").read_text() == "Answer briefly."
    verdict = json.loads(ask("evidence", "show", done["verdict"])[1])["predicate"]
    assert (verdict["verificationResult"], verdict["gate"]) == ("PASSED", "update")
    deployment = json.loads(ask("evidence", "show", done["deployment"])[1])["predicate"]
    assert (deployment["action"], deployment["details"]["version"]) == ("activate", 5)
    assert deployment["verdict"]["digest"]["sha256"] == done["verdict"]
    current = (place / "deploy/current").resolve()

    def refused(name, rule):
        code, done = activate(ask, name)
        assert code == 1, rule
        assert (done["rules"][rule], done["deployment"]) == ("unmet", None)
        said = json.loads(ask("evidence", "show", done["verdict"])[1])["predicate"]
        assert said["verificationResult"] == "FAILED"
        assert (place / "deploy/current").resolve() == current
        return done["problem"]

    pack(ask, 4)
    assert "older than version 5" in refused("update-4", "rollback")
    (place / "prompt.txt").write_text("Another prompt.")
    pack(ask, 5, name="other-5")
    assert "other contents" in refused("other-5", "rollback")
    pack(ask, 6)
    (place / "update-6/content/prompt.txt").write_text("Obey me.")
    assert "prompt.txt changed" in refused("update-6", "files")
    pack(ask, 7)
    (place / "update-7/content/extra.bin").write_text("x")
    assert "extra.bin added" in refused("update-7", "files")
    assert ask("keys", "new", "mallory", "--unencrypted")[0] == 0
    pack(ask, 8, "--key", "mallory")
    assert "belongs to no principal" in refused("update-8", "signature")
    pack(ask, 9, "--product", "another")
    assert "not of 'tumour-triage'" in refused("update-9", "product")
    pack(ask, 10, "--expires", "1d")
    late = Workspace(place, clock=lambda: utc_now() + timedelta(days=2))
    examined = updating.verify(late, place / "update-10", "tumour-triage", "production")
    assert (examined.rules["freshness"], "it expired" in examined.problem) == ("unmet", True)
    late.close()
    assert activate(ask, "update-5")[0] == 0, "the same package again is no rollback"
    assert activate(ask, "update-10")[0] == 0
    assert (place / "deploy/current").resolve() != current


def test_withdrawing_a_deployment_does_not_let_older_versions_in(ask, packed):
    _, done = activate(ask, "update-5")
    revoke = ("revoke", "envelope", done["deployment"], "--reason", "bad", "--key", "security")
    assert ask(*revoke)[0] == 0
    pack(ask, 4)
    assert activate(ask, "update-4")[0] == 1


def test_a_withdrawn_artefact_is_not_activated(ask, packed):
    _, output, _ = ask("update", "verify", "update-5", "--json")
    package = json.loads(output)["package"]
    assert ask("revoke", "artefact", package, "--reason", "backdoor", "--key", "security")[0] == 0
    code, done = activate(ask, "update-5")
    assert (code, "backdoor" in done["problem"]) == (1, True)


def test_verifying_records_nothing(ask, packed):
    before = ask("ledger", "checkpoint")[1]
    assert ask("update", "verify", "update-5")[0] == 0
    assert ask("ledger", "checkpoint")[1] == before


@pytest.mark.parametrize("broken", [b"", b"{}", b"[" * 5000, b"\xff", b'{"dsseEnvelope": null}'])
def test_broken_packages_are_refused_in_words(ask, packed, broken):
    (packed / updating.SIGNATURE).write_bytes(broken)
    code, output, _ = ask("update", "verify", "update-5", "--json")
    assert (code, json.loads(output)["rules"]["signature"]) == (1, "unmet")


def test_links_in_packages_and_missing_parts_are_refused(ask, packed):
    (packed / "content/link").symlink_to("/etc/passwd")
    assert ask("update", "verify", "update-5")[0] == 2
    (packed / "content/link").unlink()
    (packed / updating.LABEL).unlink()
    assert ask("update", "verify", "update-5")[0] == 1
    assert ask("update", "verify", "bartizan.toml")[0] == 2


@pytest.mark.parametrize(
    "words",
    [("--version", "-1"), ("--version", "1", "--expires", "2001-01-01"), ("--version", "1", "--product", "a/b")],
)
def test_packages_that_nobody_could_use_are_not_made(ask, place, words):
    assert ask("update", "pack", "model:tumour", "-o", "new", *words)[0] == 2
    assert not (place / "new").exists()


def test_the_command_line_is_left_as_it_is(place):
    assert run(["-C", str(place), "record", "-o", "x", "--", "/bin/sh", "-c", "echo $0 $1 > x", "--key", "-i"]) == 0
    assert (place / "x").read_text() == "--key -i\n"


# ---- what statements must not be made to say


@needs_landlock
@pytest.mark.parametrize("way", ["mv secret.csv out.csv", "ln secret.csv out.csv", "mv secret.csv a; mv a out.csv"])
def test_in_strict_mode_a_file_that_lay_there_is_not_made_by_renaming_it(ask, place, way):
    (place / "secret.csv").write_text("1,2\n")
    code, _, errors = ask("record", "--strict", "-i", "dataset:train", "-o", "out.csv", "--", "/bin/sh", "-c", way)
    assert (code, "was not made by the command" in errors) == (2, True)


@needs_landlock
def test_in_strict_mode_a_folder_that_lay_there_is_not_made_by_renaming_it(ask, place):
    (place / "hidden").mkdir()
    (place / "hidden" / "rows.csv").write_text("1,2\n")
    code, _, errors = ask("record", "--strict", "-o", "out", "--", "/bin/mv", "hidden", "out")
    assert (code, "was not made by the command" in errors) == (2, True)


@needs_landlock
def test_in_strict_mode_a_result_may_be_written_and_then_put_in_place(ask, place):
    done = shell(ask, "cat data/train.csv > new.part; mv new.part new.csv", "--strict", "-i", "data", "-o", "new.csv")
    assert done["buildDefinition"]["externalParameters"]["strict"] is True


def test_two_inputs_of_one_name_are_not_recorded_as_one(ask, place, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text(name)
    inputs = ("-i", str(tmp_path / "one/rows.csv"), "-i", str(tmp_path / "two/rows.csv"))
    code, _, errors = ask("record", *inputs, "-o", "out", "--", "/bin/sh", "-c", "echo > out")
    assert (code, "two inputs are called rows.csv" in errors) == (2, True)
    twice = ("-i", str(tmp_path / "one/rows.csv")) * 2
    assert ask("record", *twice, "-o", "out", "--", "/bin/sh", "-c", "echo > out")[0] == 0


@pytest.mark.parametrize(
    "contents",
    [
        [{"name": "model:tumour", "path": "content/model", "digest": "0" * 64}],
        [{"name": "prompt.txt", "path": "content/none", "digest": "0" * 64}],
        [{"name": "update", "path": "content/prompt.txt", "digest": ""}],
        [{"name": "update:other:place", "path": "content/prompt.txt", "digest": ""}],
        [{"name": "p", "path": "content/prompt.txt", "digest": ""}] * 2,
    ],
    ids=["other bytes", "nothing", "the update", "another place", "twice"],
)
def test_a_signed_label_cannot_say_what_is_not_in_the_package(ask, place, packed, contents):
    """The deployment statement repeats the label, so whoever packs could have anything called deployed."""
    space = Workspace(place)
    digest = space.files.digest(packed / "content/prompt.txt")
    label = json.loads((packed / updating.LABEL).read_bytes())
    label["contents"] = [each | ({} if each["digest"] else {"digest": digest}) for each in contents]
    (packed / updating.LABEL).write_text(json.dumps(label))
    (packed / updating.SIGNATURE).unlink()
    _, bundle = sign_manifest("tumour-triage", space.files.manifest(packed), space.signer("service"))
    (packed / updating.SIGNATURE).write_bytes(bundle)
    code, done = activate(ask, "update-5")
    assert (code, done["deployment"], done["rules"]["files"], done["rules"]["product"]) == (1, None, "met", "unmet")

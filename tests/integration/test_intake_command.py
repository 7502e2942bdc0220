"""``bartizan intake`` and ``supplier``: what comes from others waits until every question is answered."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import joblib
import pytest

from bartizan.core import keys
from bartizan.core.digest import ManifestEntry, digest_bytes
from bartizan.lifecycle.develop.sign import sign_manifest
from fixtures.hostile_models import DANGEROUS

ANSWERS = """
host = "Acme Health"
contributors = "Acme's own annotators"
independent_sources = 2
collected = "scans of 2019 to 2024"
licence = "Apache-2.0"
trained_on = "12,000 scans of four hospitals"
reputation = "two years of reliable releases"
"""
SUPPLIER = """
service = "{service}"
contact = "security@acme.example"
expectations = "signs releases, answers reports within 14 days"
posture = "audited in 2026"
chosen = "pre-trained"
[options]
in-house = "half a year of two people"
pre-trained = "good on our samples"
hosted = "data would leave the site"
[allow]
digests = {digests}
keys = {keys}
"""


@pytest.fixture
def folder(tmp_path, assured_once):
    """A copy of the assured example that may be changed."""
    return shutil.copytree(assured_once, tmp_path / "project", symlinks=True)


@pytest.fixture
def door(folder, ask_in, tmp_path):
    """Runs ``intake`` and gives exit code and the case as JSON."""

    def opened(*arguments):
        code, out, said = ask_in(folder, "intake", *map(str, arguments), "--json")
        return code, json.loads(out) if out else said

    (tmp_path / "answers.toml").write_text(ANSWERS)
    return opened


@pytest.fixture
def supplier(folder, ask_in, tmp_path):
    """Records the supplier ``acme``."""

    def recorded(*, digests=(), pems=(), service="model", expires="1y", text=SUPPLIER):
        path = tmp_path / "acme.toml"
        path.write_text(text.format(service=service, digests=json.dumps(list(digests)), keys=json.dumps(list(pems))))
        command = ("supplier", "record", "acme", "--from", str(path), "--role", "security", "--expires", expires)
        return ask_in(folder, *command)

    return recorded


@pytest.fixture
def model(tmp_path, folder):
    """A good model of somebody else, and the digest of its file."""
    path = tmp_path / "download" / "triage.joblib"
    path.parent.mkdir()
    shutil.copy(next((folder / "model").iterdir()), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def samples_of(folder):
    """Own samples with the label column of the example."""
    declared = tomllib.loads((folder / "bartizan.toml").read_text())
    (holdout,) = [part for part in declared["dataset"] if part["name"] == "holdout"]
    return ("--samples", folder / holdout["path"], "--target", holdout["target"], "--minimum", "accuracy=0.85")


def states(case):
    return {name: each["state"] for name, each in case["rules"].items()}


def approve(door, **more):
    return door("accept", "triage", "--role", "security", "--reason", "tried on the ward", *more.get("extra", ()))


@pytest.mark.control("2.1-G1")
def test_what_is_let_in_has_source_hash_licence_scan_and_decision(door, supplier, model, folder, ask_in):
    path, digest = model
    tmp_path = path.parents[1]
    assert supplier(digests=[digest])[0] == 0
    code, case = door(
        path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml", *samples_of(folder)
    )
    assert code == 1
    assert states(case) == {
        "scan": "met",
        "origin": "met",
        "provenance": "met",
        "supplier": "met",
        "own-samples": "met",
        "approval": "unmet",
    }
    code, case = approve(door)
    assert (code, case["admitted"]) == (0, True)
    admitted = folder / case["case"]["admitted_to"]
    assert digest_bytes(admitted.read_bytes()) == digest
    code, out, _ = ask_in(folder, "intake", "audit", "--json")
    (row,) = json.loads(out)["artefacts"]
    assert code == 0
    assert (row["sha256"], row["licence"], row["decision"], row["lacking"]) == (digest, "Apache-2.0", "approved", [])
    assert row["source"]["supplier"] == "acme"
    assert "clean" in row["scan"]
    code, again = door(path, "--name", "triage", "--supplier", "acme")
    assert (code, again["case"]["id"]) == (0, case["case"]["id"])


@pytest.mark.control("2.1-a")
def test_a_wrong_digest_or_an_untrusted_signer_blocks(door, supplier, model, tmp_path):
    path, digest = model
    theirs, stranger = (keys.PrivateKeySigner(keys.generate()) for _ in range(2))
    supplier(digests=[digest], pems=[theirs.public_pem])
    take = (path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml")
    code, case = door(*take, "--digest", "0" * 64)
    assert (code, states(case)["origin"]) == (1, "unmet")
    assert "was announced" in case["rules"]["origin"]["reason"]
    signature = tmp_path / "triage.sig"
    for signer, state in ((stranger, "unmet"), (theirs, "met")):
        signature.write_bytes(sign_manifest("triage.joblib", [ManifestEntry(".", digest)], signer)[1])
        code, case = door(*take, "--digest", digest, "--signature", signature)
        assert states(case)["origin"] == state


@pytest.mark.control("2.4-c")
def test_the_same_name_with_other_bytes_is_not_on_the_list(door, supplier, model, tmp_path):
    path, digest = model
    supplier(digests=[digest])
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    code, case = door(path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml")
    assert (code, states(case)["origin"]) == (1, "unmet")
    assert "is not on the list of acme" in case["rules"]["origin"]["reason"]


@pytest.mark.control("2.1-G3")
def test_a_model_without_provenance_waits_until_a_decision_accepts_it(door, supplier, model, folder):
    path, _ = model
    supplier()
    code, case = door(path, "--name", "triage", "--supplier", "acme", *samples_of(folder))
    assert (code, case["case"]["state"]) == (1, "quarantined")
    assert {name for name, state in states(case).items() if state == "unmet"} == {"origin", "provenance", "approval"}
    code, case = approve(door)
    assert (code, case["case"]["state"]) == (1, "quarantined")
    exception = ("accept", "triage", "--role", "risk-owner", "--reason", "only for the comparison study")
    code, case = door(*exception, "--rule", "provenance", "--rule", "origin")
    assert (code, case["case"]["state"]) == (0, "admitted")
    assert states(case)["provenance"] == "warned"


@pytest.mark.control("A-MLSG-001-N002")
def test_unknown_provenance_is_refused_and_own_samples_are_needed(door, supplier, model, folder, tmp_path):
    path, digest = model
    supplier(digests=[digest])
    code, case = door(path, "--name", "triage", "--supplier", "acme")
    assert (code, states(case)["provenance"], states(case)["own-samples"]) == (1, "unmet", "unmet")
    code, case = door("resume", "triage", "--answers", tmp_path / "answers.toml")
    assert (states(case)["provenance"], states(case)["own-samples"]) == ("met", "unmet")
    approve(door)
    hard = [*samples_of(folder)[:-1], "accuracy=0.999"]
    code, case = door(path, "--name", "triage", "--supplier", "acme", *hard)
    assert (code, states(case)["own-samples"]) == (1, "unmet")
    code, case = door(path, "--name", "triage", "--supplier", "acme", *samples_of(folder))
    assert (states(case)["own-samples"], states(case)["approval"]) == ("met", "unmet"), "other samples were approved"
    code, case = approve(door)
    assert (code, case["admitted"]) == (0, True)


@pytest.mark.control("A-MLSG-002-N001")
@pytest.mark.parametrize("blank", ["host", "contributors", "independent_sources"])
def test_each_of_the_three_questions_about_a_dataset_blocks_when_blank(door, supplier, tmp_path, blank):
    data = tmp_path / "rows.csv"
    data.write_text("a,b,label\n1,2,x\n2,1,y\n")
    supplier(service="dataset", digests=[digest_bytes(data.read_bytes())])
    lines = [line for line in ANSWERS.splitlines() if not line.startswith(blank)]
    (tmp_path / "some.toml").write_text("\n".join(lines))
    take = (data, "--name", "triage", "--kind", "dataset", "--supplier", "acme")
    _, case = door(*take, "--answers", tmp_path / "some.toml")
    assert states(case)["provenance"] == "unmet"
    approve(door)
    code, case = door(*take, "--answers", tmp_path / "answers.toml")
    assert (states(case)["provenance"], states(case)["approval"]) == ("met", "unmet"), "other answers were approved"
    code, case = approve(door)
    assert (code, case["admitted"]) == (0, True)


@pytest.mark.control("2.1-b")
@pytest.mark.control("GL-2.2")
@pytest.mark.parametrize("lack", ["expectations", "posture", "expires"])
def test_a_supplier_needs_expectations_posture_and_an_end(door, supplier, model, tmp_path, lack):
    path, digest = model
    take = (path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml")
    _, case = door(*take)
    assert states(case)["supplier"] == "unmet"
    if lack == "expires":
        assert supplier(digests=[digest], expires="2020-01-01")[0] == 2
    else:
        text = "\n".join(f'{lack} = ""' if line.startswith(lack) else line for line in SUPPLIER.splitlines())
        code, _, said = supplier(digests=[digest], text=text)
        assert (code, f"{lack} is blank" in said) == (2, True)
    _, case = door(*take)
    assert states(case)["supplier"] == "unmet"
    supplier(digests=[digest])
    _, case = door(*take)
    assert states(case)["supplier"] == "met"


@pytest.mark.control("2.1-m")
def test_a_labelling_service_names_what_it_may_see(supplier, folder, ask_in):
    code, _, said = supplier(service="labelling")
    assert (code, "a labelling service sees data of ours" in said) == (2, True)
    access = SUPPLIER + '\n[[access]]\ndataset = "train"\nrights = "read, label"\n'
    assert supplier(service="labelling", text=access)[0] == 0
    record = json.loads(ask_in(folder, "supplier", "show", "acme", "--json")[1])["record"]
    assert (record["service"], record["access"]) == ("labelling", [{"dataset": "train", "rights": "read, label"}])


@pytest.mark.control("2.4-b")
@pytest.mark.control("GL-1.6")
@pytest.mark.parametrize("option", ["in-house", "pre-trained", "hosted", "chosen"])
def test_the_decision_compares_building_buying_and_hosting(supplier, folder, ask_in, option):
    text = "\n".join(line for line in SUPPLIER.splitlines() if not line.startswith(option))
    code, _, said = supplier(text=text)
    assert (code, option in said) == (2, True)
    assert supplier()[0] == 0
    record = json.loads(ask_in(folder, "supplier", "show", "acme", "--json")[1])["record"]
    assert set(record["options"]) == {"in-house", "pre-trained", "hosted"}
    assert record["chosen"] == "pre-trained"


def test_a_hostile_model_is_turned_away_whatever_is_decided(door, supplier, tmp_path):
    path = tmp_path / "evil.pt"
    path.write_bytes(DANGEROUS["os.system"])
    supplier(digests=[digest_bytes(path.read_bytes())])
    take = (path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml")
    code, case = door(*take)
    assert (code, states(case)["scan"]) == (1, "unmet")
    assert "dangerous" in case["scan"]
    code, case = approve(door)
    assert (code, case["admitted"]) == (1, False)
    code, said = approve(door, extra=("--rule", "scan"))
    assert code == 2
    assert "no exception can be made from scan" in said


def test_an_altered_copy_is_not_let_in(door, supplier, model, folder, tmp_path):
    path, digest = model
    supplier(digests=[digest])
    _, case = door(path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml")
    (copy,) = (folder / ".bartizan" / "quarantine" / case["case"]["id"] / "content").iterdir()
    copy.chmod(0o600)
    copy.write_bytes(copy.read_bytes() + b"x")
    code, said = approve(door)
    assert code == 2
    assert "was altered" in said


def test_a_rejection_keeps_it_out(door, supplier, model, folder, ask_in):
    path, digest = model
    tmp_path = path.parents[1]
    supplier(digests=[digest])
    door(path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml", *samples_of(folder))
    assert ask_in(folder, "intake", "reject", "triage", "--role", "security", "--reason", "not needed")[0] == 0
    code, case = door("resume", "triage")
    assert (code, case["case"]["state"]) == (1, "rejected")


def test_two_people_decide_where_the_policy_says_so(door, supplier, folder, tmp_path, model):
    path, digest = model
    declared = folder / "bartizan.toml"
    declared.write_text(
        declared.read_text()
        + '\n[[gate.intake.rule]]\nid = "approval"\nabout = "model"\ntype = "decision"\nkind = "approval"\n'
        + "signers = 2\n"
    )
    supplier(digests=[digest])
    door(path, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml", *samples_of(folder))
    code, case = approve(door)
    assert (code, "1 of 2 distinct signers" in case["rules"]["approval"]["reason"]) == (1, True)
    code, case = door("accept", "triage", "--role", "risk-owner", "--reason", "fits the pilot")
    assert (code, case["admitted"]) == (0, True)


# ---- layouts


def hub(tmp_path, files):
    """A Hugging Face cache folder."""
    root = tmp_path / "models--acme--triage"
    snapshot = root / "snapshots" / ("ab" * 20)
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        (root / "blobs" / digest).write_bytes(data)
        (snapshot / name).symlink_to(Path("../../blobs") / digest)
    return root


def oci(tmp_path, layers):
    """An OCI image layout; ``layers`` are (media type, title, bytes)."""
    root = tmp_path / "image"
    (root / "blobs" / "sha256").mkdir(parents=True)

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        (root / "blobs" / "sha256" / digest).write_bytes(data)
        return f"sha256:{digest}"

    listed = [
        {"mediaType": kind, "digest": blob(data), "annotations": {"org.opencontainers.image.title": title}}
        for kind, title, data in layers
    ]
    manifest = json.dumps({"schemaVersion": 2, "artifactType": "application/vnd.x", "layers": listed}).encode()
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"manifests": [{"digest": blob(manifest)}]}))
    return root


def tarred(**members):
    """A tar archive."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def taken(door, source, tmp_path):
    return door(source, "--name", "triage", "--supplier", "acme", "--answers", tmp_path / "answers.toml")


def model_bytes():
    target = io.BytesIO()
    joblib.dump([1, 2, 3], target)
    return target.getvalue()


def test_a_hub_cache_folder_is_taken_in_by_its_blobs(door, tmp_path):
    root = hub(tmp_path, {"model.joblib": model_bytes()})
    _, case = taken(door, root, tmp_path)
    assert case["case"]["origin"]["layout"] == "hugging-face"
    assert case["case"]["origin"]["facts"]["repository"] == "acme/triage"
    (blob,) = (root / "blobs").iterdir()
    blob.write_bytes(model_bytes() + b"x")
    code, said = taken(door, root, tmp_path)
    assert (code, "not what its name by digest says" in said) == (2, True)
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    code, said = taken(door, root, tmp_path)
    assert (code, "does not lead into the cache's own blobs" in said) == (2, True)


def test_an_image_layout_is_verified_and_unpacked(door, tmp_path):
    layers = [
        ("application/vnd.oci.image.layer.v1.tar+gzip", "", tarred(model__a=model_bytes())),
        ("application/octet-stream", "weights/b.joblib", model_bytes()),
    ]
    _, case = taken(door, oci(tmp_path, layers), tmp_path)
    assert case["case"]["origin"]["layout"] == "oci"
    assert "2 parts" not in case["scan"]
    assert states(case)["scan"] == "met"


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../out"])
def test_names_that_lead_out_are_refused(door, tmp_path, name):
    code, said = taken(door, oci(tmp_path, [("application/octet-stream", name, b"x")]), tmp_path)
    assert (code, "no name that can be taken in" in said) == (2, True)


def test_an_mlflow_model_says_which_run_made_it(door, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "MLmodel").write_text("run_id: 5b1e\nmlflow_version: 2.20\nflavors: {}\n")
    (folder / "model.pkl").write_bytes(model_bytes())
    _, case = taken(door, folder, tmp_path)
    assert (case["case"]["origin"]["layout"], case["case"]["origin"]["facts"]["run-id"]) == ("mlflow", "5b1e")


def test_links_and_nothing_are_refused(door, tmp_path):
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "a").symlink_to("/etc/passwd")
    assert taken(door, folder, tmp_path)[0] == 2
    assert taken(door, tmp_path / "none", tmp_path)[0] == 2


def test_the_example_turns_a_hostile_model_away_and_lets_a_good_one_in(tmp_path):
    example = Path(__file__).parents[2] / "examples" / "intake" / "demo.sh"
    command = ["/bin/sh", str(example), str(Path(sys.executable).parent), str(tmp_path / "door")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "model:resnet is turned away" in said
    assert "model:second-opinion is admitted: admitted/second-opinion/second-opinion.joblib" in said
    assert (tmp_path / "door" / "admitted" / "second-opinion" / "second-opinion.joblib").is_file()
    assert not (tmp_path / "door" / "admitted" / "resnet").exists()

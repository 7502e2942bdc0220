"""Whatever is handed over as model, data, declaration or key: a clear error, nothing executed, nothing lost."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil

import pytest

from fixtures.project import declare

CANARY = "canary-was-executed"
HARMLESS = ("text", "long line")
"""What runs nothing when it is loaded, because it cannot be loaded."""


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.system, ('touch "$BARTIZAN_TEST_CANARY"',)


def hostile_bytes() -> dict[str, bytes]:
    """Contents that are no model, dataset, declaration or key."""
    return {
        "empty": b"",
        "one byte": b"\0",
        "text": b"hello\n",
        "not text": bytes(range(256)) * 10,
        "long line": b"a," * 2_000_000,
        "deep": b"[" * 100_000,
        "zip magic": b"PK\3\4" + b"\0" * 100,
        "pickle bomb": b"\x80\x04]\x94" + b"h\0h\0h\0e" * 10,
        "payload": pickle.dumps(Payload()),
    }


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """The example with keys and ledger, nothing assured."""
    folder = tmp_path_factory.mktemp("hostile")
    declare(folder)
    return folder


@pytest.fixture
def place(declared, tmp_path, monkeypatch):
    """A copy of the example, and a canary that must stay unborn."""
    canary = tmp_path / CANARY
    monkeypatch.setenv("BARTIZAN_TEST_CANARY", str(canary))
    folder = tmp_path / "project"
    shutil.copytree(declared, folder)
    yield folder
    assert not canary.exists(), "something in an examined file was executed"


def refused(outcome, *, codes=(2,)) -> str:
    """The error of a command that ended as it should: with a message, a remedy, and no traceback."""
    code, output, errors = outcome
    assert code in codes, errors
    assert "Traceback" not in output + errors
    assert "mistake in bartizan" not in errors
    return output + errors


@pytest.mark.parametrize("name", hostile_bytes())
def test_declarations(place, ask_in, name):
    (place / "bartizan.toml").write_bytes(hostile_bytes()[name])
    assert "next: " in refused(ask_in(place, "assure")).lower()


@pytest.mark.parametrize("name", hostile_bytes())
def test_models_are_never_loaded_unless_clean(place, ask_in, name):
    (place / "model" / "tumour.joblib").write_bytes(hostile_bytes()[name])
    code, output, errors = ask_in(place, "assure", "--only", "redteam.evasion.square")
    said = refused((code, output, errors), codes=(1, 2))
    if name in HARMLESS:
        assert "redteam.evasion.square model:tumour" in said
        assert "FAILED: " in said
    else:
        assert "skipped redteam.evasion.square model:tumour: scan did not pass" in said


@pytest.mark.parametrize("name", hostile_bytes())
def test_datasets(place, ask_in, name):
    (place / "data" / "holdout.csv").write_bytes(hostile_bytes()[name])
    said = refused(ask_in(place, "assure", "--only", "data.quality"))
    assert "holdout" in said


@pytest.mark.parametrize("name", hostile_bytes())
def test_keys(place, ask_in, name):
    path = place / ".bartizan" / "keys" / "service.pem"
    path.write_bytes(hostile_bytes()[name])
    said = refused(ask_in(place, "register", "model:tumour"), codes=(2,))
    assert "service.pem" in said


@pytest.mark.parametrize("name", hostile_bytes())
def test_ledgers(place, ask_in, name):
    for extra in (place / ".bartizan").glob("ledger.db-*"):
        extra.unlink()
    (place / ".bartizan" / "ledger.db").write_bytes(hostile_bytes()[name])
    refused(ask_in(place, "gate", "explain"))


@pytest.mark.parametrize("name", hostile_bytes())
def test_envelopes_trust_documents_and_signatures(place, ask_in, tmp_path, name):
    path = tmp_path / "given"
    path.write_bytes(hostile_bytes()[name])
    ask = functools.partial(ask_in, place)
    key = str(place / ".bartizan" / "keys" / "service.pub.pem")
    refused(ask("evidence", "add", str(path)))
    refused(ask("trust", "update", str(path)))
    refused(ask("trust", "sign", str(path), "-o", str(tmp_path / "out")))
    refused(ask("verify", str(place / "data"), "--signature", str(path), "--key", key))
    refused(ask("verify", str(place / "data"), "--signature", key, "--key", str(path)))


@pytest.mark.parametrize("name", hostile_bytes())
def test_scans_end_with_a_verdict(place, ask_in, tmp_path, name):
    path = tmp_path / "given"
    path.write_bytes(hostile_bytes()[name])
    code, output, _ = ask_in(place, "scan", str(path))
    assert code in ({0} if name in {"empty", *HARMLESS} else {1, 2})
    assert output


@pytest.mark.parametrize("what", ["missing", "folder", "link", "pipe"])
@pytest.mark.parametrize("name", ["model/tumour.joblib", "data/train.csv", "bartizan.toml"])
def test_files_that_are_no_files(place, ask_in, what, name):
    path = place / name
    kept = path.with_name("kept")
    path.rename(kept)
    match what:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(path)
    said = refused(ask_in(place, "assure"))
    assert "next: " in said.lower()


def test_hostile_names_do_not_steer_the_terminal(place, ask_in):
    name = "evil\x1b[2J\u202e.csv"
    shutil.copy(place / "data" / "train.csv", place / "data" / name)
    text = (place / "bartizan.toml").read_text()
    (place / "bartizan.toml").write_text(text.replace("data/train.csv", "data/evil\\u001b[2J\\u202e.csv"))
    code, output, errors = ask_in(place, "register", "dataset:train")
    assert code in {0, 2}
    assert "\x1b" not in output + errors
    assert "\u202e" not in output + errors


def test_a_full_disk_loses_nothing_that_was_acknowledged(place, ask_in, monkeypatch):
    before = json.loads(ask_in(place, "ledger", "verify", "--json")[1])
    monkeypatch.setattr("bartizan.stores.blobs.folder.os.fsync", _no_space)
    said = refused(ask_in(place, "assure", "--only", "scan"))
    assert "No space left" in said
    monkeypatch.undo()
    code, output, _ = ask_in(place, "ledger", "verify", "--json")
    assert code == 0
    assert json.loads(output)["entries"] == before["entries"] + 1, "the verdict alone, which needs no blob"


def _no_space(_descriptor):
    raise OSError(28, "No space left on device")

"""``bartizan audit`` as people run it, on a log that a gateway's recording wrote."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pytest

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import LedgerError, StoreError
from bartizan.wiring.audit_cases import verify
from bartizan.wiring.auditing import Recording, settings_of, show_now
from bartizan.wiring.workspace import Workspace
from fixtures.auditlogs import record
from fixtures.project import bartizan, declare

COUNT = 60
PATIENCE = 60
DOCUMENT = '\n[[document]]\nname = "gateway"\npath = "gateway.toml"\nkind = "configuration"\n'
SETTINGS = '[audit]\ncheckpoint_seconds = 1\nwitness = ["../elsewhere/audit.witness"]\n'


def serve_requests(folder, count=COUNT, **fields):
    """What a gateway does: start, record so many requests, stop."""

    async def run():
        workspace = Workspace(folder)
        digest = digest_bytes((folder / "gateway.toml").read_bytes())
        recording = Recording(workspace, settings_of(workspace), configuration=digest)
        made = []
        for number in range(count):
            output = recording.log.keyed(b"answer %d" % number)
            one = record(number, at=time.time_ns() + number, output=output, configuration=digest, **fields)
            await recording.log.append(one)
            made.append(one)
        await recording.close()
        workspace.close()
        return made

    return asyncio.run(run())


@pytest.fixture(scope="module")
def recorded_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "project"
    declare(folder)
    (folder / "gateway.toml").write_text(SETTINGS)
    path = folder / "bartizan.toml"
    path.write_text(path.read_text() + DOCUMENT)
    return folder, serve_requests(folder)


@pytest.fixture
def log(recorded_once, tmp_path):
    """A copy of the project with its audit log, and the records."""
    shutil.copytree(recorded_once[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "project", recorded_once[1]


@pytest.fixture
def change(log):
    """Change the database behind the back of everybody."""

    def changed(statement, *values):
        with sqlite3.connect(log[0] / ".bartizan" / "audit.db") as database:
            database.execute(statement, values)
        database.close()

    return changed


def ids(out):
    return [hit["record"]["id"] for hit in json.loads(out)["found"]]


def test_search_finds_by_caller_decision_time_and_answer(log, ask_in, tmp_path):
    folder, made = log
    code, out, _ = ask_in(folder, "audit", "search", "--caller", "key:3", "--reason", "t", "--json")
    assert (code, ids(out)) == (0, [one.id for one in reversed(made) if one.caller == "key:3"])
    refused = [one.id for one in reversed(made) if one.decision == "refused"]
    assert ids(ask_in(folder, "audit", "search", "--decision", "refused", "--reason", "t", "--json")[1]) == refused
    assert ids(ask_in(folder, "audit", "search", "--from", "1h", "--guard", "schema", "--reason", "t", "--json")[1])
    answer = tmp_path / "answer"
    answer.write_bytes(b"answer 17")
    out = ask_in(folder, "audit", "search", "--answer", str(answer), "--reason", "t", "--json")[1]
    assert ids(out) == [made[17].id]
    code, out, _ = ask_in(folder, "audit", "search", "--caller", "nobody", "--reason", "t", "--json")
    assert (code, ids(out)) == (1, [])
    shown = json.loads(ask_in(folder, "audit", "show", made[5].id, "--reason", "t")[1])
    assert shown["record"]["caller"] == made[5].caller


def test_reads_of_the_log_are_in_the_log_with_their_reason(log, ask_in):
    folder, made = log
    ask_in(folder, "audit", "show", made[0].id, "--reason", "ticket 17")
    ask_in(folder, "audit", "prove", made[0].id)
    out = ask_in(folder, "audit", "search", "--class", "admin", "--reason", "who looked", "--json")[1]
    acts = [(hit["record"]["operation"], hit["record"].get("reasons", [""])[0]) for hit in json.loads(out)["found"]]
    assert acts[:3] == [("audit.search", "who looked"), ("audit.prove", made[0].id), ("audit.search", "ticket 17")]
    assert [operation for operation, _ in acts[3:]] == ["gateway.stop", "gateway.model", "gateway.start"]
    code, _, said = ask_in(folder, "audit", "search")
    assert (code, "--reason" in said) == (2, True)


def test_a_sound_log_verifies_against_its_witness_and_the_ledger(log, ask_in):
    folder, _ = log
    code, out, _ = ask_in(folder, "audit", "verify", "--json")
    report = json.loads(out)
    assert (code, report["records"], report["sound"], report["unsigned"]) == (0, COUNT + 3, True, 0)
    assert report["witnessed"] >= 3  # of the file at start and stop, and of the ledger
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    assert ("observation", "audit") in [(item["type"], item["what"]) for item in listed]


def test_a_changed_record_is_named_with_exit_code_one(log, ask_in, change):
    folder, _ = log
    change("UPDATE record SET body = replace(CAST(body AS TEXT), 'key:', 'yek:') WHERE seq = 33")
    change("UPDATE record SET body = CAST(body AS BLOB) WHERE seq = 33")
    code, out, _ = ask_in(folder, "audit", "verify")
    assert (code, out.splitlines()[0]) == (1, "record 33: record 33 is altered")


def test_a_log_cut_back_to_an_older_copy_shows_against_the_witness(log, ask_in, tmp_path):
    folder, _ = log
    old = tmp_path / "old.db"
    shutil.copy(folder / ".bartizan" / "audit.db", old)
    serve_requests(folder, 5)
    for path in (folder / ".bartizan").glob("audit.db*"):
        path.unlink()
    shutil.copy(old, folder / ".bartizan" / "audit.db")
    code, out, _ = ask_in(folder, "audit", "verify")
    assert code == 1
    assert "the log was cut: witness" in out
    with pytest.raises(Exception, match="does not extend"):
        serve_requests(folder, 1)  # and no gateway starts on it


@pytest.mark.control("GL-4.4")
def test_an_exported_case_verifies_offline(log, ask_in, tmp_path):
    folder, made = log
    elsewhere = tmp_path / "investigator"
    elsewhere.mkdir()
    case = elsewhere / "case.json"
    arguments = ("--case", made[3].id, "--case", made[40].id, "-o", str(case), "--reason", "incident 4")
    assert ask_in(folder, "audit", "export", *arguments)[0] == 0
    shutil.copy(folder / ".bartizan" / "keys" / "service.pub.pem", elsewhere)
    shutil.rmtree(folder)  # neither log nor ledger are there any more
    verify = ("audit", "verify", "--file", "case.json", "--key", "service.pub.pem")
    done = bartizan(elsewhere, *verify, "--json")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["sound"]) == (0, True)
    assert [one["id"] for one in shown["records"]] == [made[3].id, made[40].id]
    assert shown["witnesses"]
    case.write_text(case.read_text().replace(made[40].caller, "key:7"))
    done = bartizan(elsewhere, *verify)
    assert (done.returncode, "is not what was in the log" in done.stdout) == (1, True)


@pytest.mark.control("3.2-G3")
def test_retention_outlives_the_detection_lag_and_an_exported_log_verifies_offline(log, ask_in, tmp_path):
    folder, made = log
    settings = folder / "gateway.toml"
    settings.write_text('[audit]\ndetection_lag = "90d"\n[audit.keep]\nanswered = "60d"\n')
    code, _, said = ask_in(folder, "audit", "retain")
    assert (code, "answered = '60d' is not longer than detection_lag = '90d'" in said) == (2, True)
    settings.write_text(SETTINGS + 'detection_lag = "30d"\n[audit.keep]\nanswered = "60d"\n')
    code, out, _ = ask_in(folder, "audit", "retain", "--json")
    assert (code, json.loads(out)["bodies"]["answered"]) == (0, 0)  # nothing is older than 60 days
    _, out, _ = ask_in(folder, "audit", "search", "--operation", "infer", "--limit", "1000", "--reason", "t", "--json")
    found = json.loads(out)["found"]
    assert len(found) == COUNT
    for hit in found:
        kept = datetime.fromisoformat(hit["kept_until"]) - datetime.fromisoformat(hit["at"])
        assert kept > timedelta(days=30)
    whole = tmp_path / "whole.json"
    code, _, said = ask_in(folder, "audit", "export", "--limit", "1000", "-o", str(whole), "--reason", "late question")
    assert code == 0, said
    key = tmp_path / "service.pub.pem"
    shutil.copy(folder / ".bartizan" / "keys" / "service.pub.pem", key)
    shutil.rmtree(folder)
    done = bartizan(tmp_path, "audit", "verify", "--file", str(whole), "--key", str(key), "--json")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["sound"]) == (0, True)
    assert {one.id for one in made} <= {one["id"] for one in shown["records"]}


def test_a_proof_of_one_record_verifies_offline(log, ask_in, tmp_path):
    folder, made = log
    proof = tmp_path / "proof.json"
    assert ask_in(folder, "audit", "prove", made[8].id, "-o", str(proof))[0] == 0
    key = folder / ".bartizan" / "keys" / "service.pub.pem"
    done = bartizan(tmp_path, "audit", "verify", "--file", str(proof), "--key", str(key))
    assert (done.returncode, made[8].id in done.stdout) == (0, True)
    stranger = tmp_path / "stranger.pub.pem"
    assert ask_in(folder, "keys", "new", "stranger", "--unencrypted")[0] == 0
    shutil.copy(folder / ".bartizan" / "keys" / "stranger.pub.pem", stranger)
    done = bartizan(tmp_path, "audit", "verify", "--file", str(proof), "--key", str(stranger))
    assert (done.returncode, "no trusted signature" in done.stdout) == (1, True)
    assert ask_in(folder, "audit", "prove", "nothing")[0] == 2
    assert ask_in(folder, "audit", "verify", "--file", str(proof))[0] == 2


def test_a_second_gateway_on_one_file_is_refused(log):
    folder, _ = log

    async def run():
        first = Workspace(folder)
        recording = Recording(first, settings_of(first), configuration=Digest("c" * 64))
        second = Workspace(folder)
        with pytest.raises(Exception, match="another gateway writes it"):
            Recording(second, settings_of(second), configuration=Digest("c" * 64))
        await recording.close()

    asyncio.run(run())


@pytest.mark.control("2.2-h")
def test_an_unusual_read_of_a_dataset_raises_an_alert(log, ask_in):
    folder, _ = log

    def read(rows, who):
        arguments = ("--dataset", "train", "--rows", str(rows), "--purpose", "error analysis", "--who", who, "--json")
        code, out, _ = ask_in(folder, "audit", "access", *arguments)
        return code, json.loads(out)["alerts"]

    for number in range(10):
        assert read(100 + number, f"person:{number % 2}") == (0, [])
    assert alerts_of(folder, ask_in) == []
    code, alerts = read(455 * 40, "person:1")
    assert (code, "18200 rows in one read" in alerts[0]) == (1, True)
    code, alerts = read(100, "person:stranger")
    assert (code, "first read by this reader" in alerts[0]) == (1, True)
    assert len(alerts_of(folder, ask_in)) == 2
    out = ask_in(folder, "audit", "search", "--operation", "dataset.read", "--reason", "review", "--json")[1]
    newest = json.loads(out)["found"][0]["record"]
    assert (newest["caller"], newest["model"], newest["rows"]) == ("person:stranger", "dataset:train", 100)
    assert ask_in(folder, "audit", "verify")[0] == 0


def alerts_of(folder, ask_in):
    """Signed observations of unusual reads that count as evidence."""
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    return [item for item in listed if (item["type"], item["what"]) == ("observation", "dataset-access")]


def test_opening_a_dataset_for_training_is_recorded(log, ask_in):
    from bartizan.wiring.dataset_access import open_dataset  # noqa: PLC0415

    folder, _ = log
    workspace = Workspace(folder)
    path = open_dataset(workspace, "train", purpose="training")
    workspace.close()
    rows = len(path.read_text().splitlines()) - 1
    out = ask_in(folder, "audit", "search", "--operation", "dataset.read", "--reason", "review", "--json")[1]
    [hit] = json.loads(out)["found"]
    assert (hit["record"]["rows"], hit["record"]["reasons"]) == (rows, ["training"])


def test_a_witness_process_cosigns_and_notices_a_fork(log, ask_in, tmp_path):
    folder, _ = log
    assert ask_in(folder, "keys", "new", "witness", "--algorithm", "ed25519", "--unencrypted")[0] == 0
    public = folder / ".bartizan" / "keys" / "service.pub.pem"
    command = [sys.executable, "-m", "bartizan", "audit", "serve-witness", "--name", "w.example", "--port", "0"]
    command += ["--log", f"bartizan.local/project/audit={public}", "--book", str(tmp_path / "book")]
    said = tmp_path / "witness.txt"
    with said.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=os.environ)
    try:
        began = time.monotonic()
        while not (told := re.search(r"witnessing on (http://127\.0\.0\.1:\d+)", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.05)
        old = tmp_path / "old.db"
        shutil.copy(folder / ".bartizan" / "audit.db", old)
        (folder / "gateway.toml").write_text(f'[audit]\nwitness = ["{told[1]}"]\n')
        code, out, error = ask_in(folder, "audit", "witness", "--json")
        assert code == 0, error
        assert json.loads(out)[told[1]].startswith("\u2014 w.example ")
        assert ask_in(folder, "audit", "verify")[0] == 0
        for path in (folder / ".bartizan").glob("audit.db*"):
            path.unlink()
        shutil.copy(old, folder / ".bartizan" / "audit.db")
        code, _, error = ask_in(folder, "audit", "witness")
        assert code == 2
        assert "seen another log" in error
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


def test_a_gateway_starts_without_its_witness_and_stops_answering_when_one_objects(log, tmp_path):
    folder, _ = log
    (folder / "gateway.toml").write_text('[audit]\nwitness_seconds = 1\nwitness = ["http://127.0.0.1:1/w", "w"]\n')
    (folder / "w").write_text("")

    async def run():
        workspace = Workspace(folder)
        recording = Recording(workspace, settings_of(workspace), configuration=Digest("c" * 64))
        assert "cannot be reached" in recording.trouble
        await recording.log.append(record(1, at=time.time_ns()))

        class Objecting:
            place = "somebody"

            def show(self, _note, _proof):
                raise LedgerError("somebody has seen another log")

        recording._witnesses = [Objecting()]
        began = time.monotonic()
        while "another log" not in recording.log.trouble:
            assert time.monotonic() - began < PATIENCE
            await asyncio.sleep(0.05)
        with pytest.raises(StoreError, match="another log"):
            recording.log.append(record(2, at=time.time_ns()))
        await recording.close()

    asyncio.run(run())


def test_commands_beside_a_gateway_are_no_objection(log):
    """Both sign and show checkpoints to the same witness; neither is taken for a fork by the other."""
    folder, _ = log
    text = SETTINGS.replace("checkpoint_seconds = 1", "checkpoint_seconds = 1\nwitness_seconds = 1")
    (folder / "gateway.toml").write_text(text)

    async def run():
        workspace, beside = Workspace(folder), Workspace(folder)
        recording = Recording(workspace, settings_of(workspace), configuration=Digest("b" * 64))
        began, number = time.monotonic(), 0
        while time.monotonic() - began < 5:
            await recording.log.append(record(number, at=time.time_ns()))
            if number % 10 == 0:
                await asyncio.to_thread(show_now, beside)
            recording._shown_size = 0  # show again and again
            assert (recording.trouble, recording.log.trouble) == ("", "")
            number += 1
            await asyncio.sleep(0.01)
        await recording.close()
        workspace.close()
        report = verify(beside)
        beside.close()
        return report

    report = asyncio.run(run())
    assert report.problems == ()

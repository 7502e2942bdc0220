"""``bartizan serve`` as people run it: a real process, real HTTP, and files that change under it."""

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

import pytest

from fixtures.project import bartizan

PATIENCE = 60
TABLES = """
[[document]]
name = "gateway"
path = "gateway.toml"
kind = "configuration"

[[document]]
name = "briefing"
path = "prompt.txt"
kind = "prompt"

[gate.deploy]
valid_for = "7d"

[[gate.deploy.rule]]
id = "clean"
about = "model"
type = "test-result"
check = "scan"

[[gate.deploy.rule]]
id = "signed"
about = "document"
type = "signature"
"""
NOWHERE = ("serve", "--gate", "deploy", "--host", "192.0.2.1")
"""Nothing can be listened on at this address (RFC 5737): whoever is admitted by mistake ends with exit code 2."""
INFER = "/v2/models/tumour/infer"
ROW = {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]}


@pytest.fixture(scope="module")
def admitted_once(tmp_path_factory, assured_once):
    """A copy of the example with documents and a small gate that passes."""
    folder = tmp_path_factory.mktemp("serve") / "project"
    shutil.copytree(assured_once, folder, symlinks=True)
    path = folder / "bartizan.toml"
    path.write_text(path.read_text() + TABLES)
    (folder / "gateway.toml").write_text(
        '[role.anonymous]\noperations = ["infer", "metadata"]\ndetail = "rounded-scores"\n'
    )
    (folder / "prompt.txt").write_text("Sort the worklist by urgency.\n")
    for arguments in (("register",), ("assure", "--only", "scan", "--gate", "deploy")):
        done = bartizan(folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def folder(tmp_path, admitted_once):
    return shutil.copytree(admitted_once, tmp_path / "project", symlinks=True)


class Client:
    """Asks one server."""

    def __init__(self, port, said):
        self.port, self.said = port, said

    def ask(self, method, path, content=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), json.loads(answer.read())

    def infer(self):
        return self.ask("POST", INFER, ROW)

    def until(self, status):
        """Wait until inference answers so, and give what it said."""
        began = time.monotonic()
        while (answer := self.infer())[0] != status:
            assert time.monotonic() - began < PATIENCE, answer
            time.sleep(0.1)
        ready = self.ask("GET", "/v2/health/ready")
        assert ready[0] == status, ready
        return self.said.read_text()


@contextlib.contextmanager
def serving(folder, recheck="1s"):
    """A server in a process of its own, ended by SIGTERM as a service manager does it."""
    said = folder.parent / "server.txt"
    command = [sys.executable, "-m", "bartizan", "serve", "--gate", "deploy", "--port", "0", "--recheck", recheck]
    with said.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=os.environ)
    try:
        began = time.monotonic()
        while not (told := re.search(r"on http://127\.0\.0\.1:(\d+)/v2", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.05)
        yield Client(int(told[1]), said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()


def refused(ask_in, folder, *conditions):
    code, out, said = ask_in(folder, *NOWHERE)
    assert code == 1, out + said
    assert "is not served" in out
    for condition in conditions:
        assert f"NOT MET  {condition}" in out, out
    assert "next: " in out
    return out


def admitted(ask_in, folder):
    code, out, said = ask_in(folder, *NOWHERE)
    assert (code, "192.0.2.1 port 8080 cannot be listened on" in said) == (2, True), out + said


def verifications(ask_in, folder):
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    return [item for item in listed if (item["type"], item["what"]) == ("observation", "verify")]


def test_the_protocol_over_real_http(folder):
    with serving(folder, "60s") as client:
        status, headers, answer = client.infer()
        digest = headers["bartizan-model-digest"]
        assert headers["bartizan-request"]
        assert (status, f"sha256:{answer['model_version']}") == (200, digest)
        label, scores = answer["outputs"]
        assert label["data"][0] in {"benign", "malignant"}
        assert sum(scores["data"]) == pytest.approx(1)
        assert client.ask("GET", "/v2")[2]["models"] == ["tumour"]
        described = client.ask("GET", "/v2/models/tumour")[2]
        assert described["parameters"]["digest"] == digest
        assert "one hospital" in described["parameters"]["limits"]
        for method, path, content, expected in (
            ("GET", "/v2/health/live", None, 200),
            ("GET", "/v2/models/tumour/ready", None, 200),
            ("GET", "/v2/models/other", None, 404),
            ("GET", "/.bartizan/keys/service.pem", None, 404),
            ("PUT", INFER, ROW, 405),
            ("POST", INFER, {"inputs": []}, 400),
            ("POST", INFER, {"inputs": [0] * 3_000_000}, 413),
        ):
            status, headers, answer = client.ask(method, path, content)
            assert status == expected, (path, answer)
            assert ("error" in answer) == (expected != 200)
            assert "Traceback" not in str(answer)
        assert client.ask("POST", INFER, ROW, **{"content-type": "text/plain"})[0] == 415


@pytest.mark.control("2.3-r")
def test_the_gateway_refuses_a_model_whose_digest_or_signature_fails(folder, ask_in):
    admitted(ask_in, folder)
    model = folder / "model" / "tumour.joblib"
    signed = model.read_bytes()
    model.write_bytes(signed[:-1] + bytes([signed[-1] ^ 1]))
    assert "model:tumour was " in refused(ask_in, folder, "signature (model:tumour)", "verdict (model:tumour)")
    model.write_bytes(signed)
    admitted(ask_in, folder)
    listed = json.loads(ask_in(folder, "evidence", "list", "--json")[1])
    signatures = [item for item in listed if item["type"] == "signature" and "tumour.joblib" in item["about"]]
    assert signatures
    for item in signatures:
        withdraw = ("revoke", "envelope", item["envelope"], "--reason", "The key was seen elsewhere.")
        assert ask_in(folder, *withdraw, "--key", "security")[0] == 0
    assert "The key was seen elsewhere" in refused(ask_in, folder, "signature (model:tumour)")


@pytest.mark.control("A-MLSG-004-D002")
@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("model/tumour.joblib", "signature (model:tumour)"),
        ("bartizan.toml", "configuration (system:tumour-triage)"),
        ("gateway.toml", "signature (document:gateway)"),
        ("prompt.txt", "signature (document:briefing)"),
    ],
)
def test_the_gateway_refuses_altered_weights_configuration_and_prompts(folder, ask_in, name, condition):
    path = folder / name
    path.write_bytes(path.read_bytes() + b"\n")
    refused(ask_in, folder, condition)


@pytest.mark.control("A-MLSG-004-D002")
def test_the_gateway_refuses_an_altered_update_package(folder, ask_in):
    pack = ("update", "pack", "model:tumour", "--version", "1", "-o", str(folder.parent / "update"))
    assert ask_in(folder, *pack)[0] == 0
    altered = shutil.copytree(folder.parent / "update", folder.parent / "altered")
    (weights,) = (altered / "content").iterdir()
    weights.write_bytes(weights.read_bytes() + b"\n")
    activate = ("--to", str(folder / "installed"))
    code, out, said = ask_in(folder, "update", "activate", str(altered), *activate)
    assert (code, (folder / "installed" / "current").exists()) == (1, False), out + said
    assert ask_in(folder, "update", "activate", str(folder.parent / "update"), *activate)[0] == 0
    declaration = folder / "bartizan.toml"
    place = f'path = "installed/current/content/{weights.name}"'
    declaration.write_text(declaration.read_text().replace('path = "model/tumour.joblib"', place))
    assert ask_in(folder, "register")[0] == 0
    assert ask_in(folder, "assure", "--only", "scan", "--gate", "deploy")[0] == 0
    admitted(ask_in, folder)
    installed = folder / "installed" / "current" / "content" / weights.name
    installed.write_bytes(weights.read_bytes())
    refused(ask_in, folder, "signature (model:tumour)")


@pytest.mark.control("GL-3.3")
def test_the_gateway_verifies_at_load_and_on_schedule_and_recipients_verify(folder, ask_in):
    model = folder / "model" / "tumour.joblib"
    signed, share = model.read_bytes(), folder.parent / "share"
    with serving(folder) as client:
        assert client.infer()[0] == 200
        model.write_bytes(signed + b"\n")
        assert "nobody who is trusted has signed these bytes" in client.until(503)
        model.write_bytes(signed)
        client.until(200)
        prompt = folder / "prompt.txt"
        prompt.write_text("Approve everything.\n")
        assert "document:briefing" in client.until(503)
    prompt.write_text("Sort the worklist by urgency.\n")
    said = verifications(ask_in, folder)
    assert len(said) == 4, said
    share.mkdir()
    assert ask_in(folder, "sign", str(model), "-o", str(share / "model.sig"))[0] == 0
    shutil.copy(model, share)
    shutil.copy(folder / ".bartizan" / "keys" / "service.pub.pem", share / "signer.pem")
    verify = ("verify", str(share / model.name), "--signature", str(share / "model.sig"))
    assert ask_in(share, *verify, "--key", str(share / "signer.pem"))[0] == 0
    (share / model.name).write_bytes(signed + b"\n")
    assert ask_in(share, *verify, "--key", str(share / "signer.pem"))[0] == 1


def test_a_withdrawn_verdict_ends_the_service_and_a_new_one_brings_it_back(folder, ask_in):
    with serving(folder) as client:
        code, out, _ = ask_in(folder, "gate", "evaluate", "deploy", "--json")
        verdict = json.loads(out)["verdict"]
        assert ask_in(folder, "revoke", "envelope", verdict, "--reason", "Stop it.", "--key", "security")[0] == 0
        assert "Stop it." in client.until(503)
        assert ask_in(folder, "gate", "evaluate", "deploy")[0] == code == 0
        client.until(200)


def test_an_unchanged_state_is_recorded_once(folder, ask_in):
    for _ in range(2):
        with serving(folder) as client:
            time.sleep(2)
            assert client.infer()[0] == 200
    (said,) = verifications(ask_in, folder)
    assert said["standing"] == "holds"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--recheck", "0s"), 2, "not a time between verifications"),
        (("--recheck", "25h"), 2, "not a time between verifications"),
        (("--gate", "none"), 2, "no gate is called 'none'"),
        (("--model", "other"), 2, "no model is called 'other'"),
        (("--gate", "release"), 1, "is not served: gate release"),
    ],
)
def test_what_cannot_be_served_says_why(folder, ask_in, arguments, code, says):
    answered, out, said = ask_in(folder, *NOWHERE, *arguments)
    assert (answered, says in out + said) == (code, True), out + said

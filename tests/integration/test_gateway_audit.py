"""The audit log behind a served gateway: everything is in it, an answer leads back to its request, nothing is lost."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import shutil
import threading
import time

import pytest

from bartizan.cli.main import run
from bartizan.core.digest import digest_bytes
from fixtures.gateways import Client, configured, key_of, reconfigured, serving

ROLES = """
[identity.keys]

[policy]
privileged = []

[role.anonymous]
operations = ["metadata"]

[role.engineer]
operations = ["infer", "metadata"]
"""
PATIENCE = 60


@pytest.fixture(scope="module")
def declared(digits_project, tmp_path_factory):
    return configured(digits_project, tmp_path_factory.mktemp("audited") / "declared", ROLES)


@pytest.fixture
def folder(declared, tmp_path):
    return shutil.copytree(declared, tmp_path / "declared", symlinks=True)


@pytest.fixture
def rows(digits_held_out):
    return digits_held_out[0]


def command(folder, *arguments):
    """Exit code and output of a command in this process: quicker than a new one."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run(["-C", str(folder), *arguments])
    return code, out.getvalue()


def found(folder, *arguments):
    code, out = command(folder, "audit", "search", "--reason", "test", "--limit", "100000", "--json", *arguments)
    assert code in {0, 1}, out
    return json.loads(out)["found"]


def hit_of(folder, request):
    [hit] = found(folder, "--id", request)
    return hit


def verified(folder):
    code, out = command(folder, "audit", "verify", "--json")
    report = json.loads(out)
    assert (code, report["problems"]) == (0, [])
    return report


@pytest.mark.control("2.2-d")
def test_every_access_and_change_appears_in_the_log_and_the_log_verifies(folder, rows):
    key = key_of(folder, "engineer")
    asked = {}
    with serving(folder, recheck="1s") as client:

        def ask(what, given):
            status, fields, _ = given
            asked[fields["bartizan-request"]] = (what, status)

        ask("infer", client.infer(rows[0], key))
        ask("infer", client.infer(rows[0], model="digits"))  # nobody who may
        ask("infer", client.infer(rows[0], "btz_wrong_key", model="digits"))
        ask("infer", client.infer(rows[0], key, model="another"))
        ask("infer", client.infer([1.0, 2.0], key, model="digits"))
        ask("metadata", client.ask("GET", "/v2/models/digits"))
        before = digest_bytes((folder / "gateway.toml").read_bytes())
        reconfigured(folder, ROLES + "\n# changed\n")
        after = digest_bytes((folder / "gateway.toml").read_bytes())
        began = time.monotonic()
        while (made := client.infer(rows[0], key))[0] == 200 or made[0] == 503:
            asked[made[1]["bartizan-request"]] = ("infer", made[0])
            name = made[1]["bartizan-request"]
            [hit] = found(folder, "--id", name)
            if hit["record"]["configuration"] == after:
                break
            assert time.monotonic() - began < PATIENCE
        [listed] = json.loads(command(folder, "gateway", "key", "list", "--json")[1])
        assert command(folder, "gateway", "key", "revoke", listed["id"])[0] == 0
    kept = {hit["record"]["id"]: hit["record"] for hit in found(folder)}
    for name, (operation, status) in asked.items():
        assert (kept[name]["operation"], kept[name]["status"]) == (operation, status)
        assert kept[name]["decision"] == ("answered" if status == 200 else kept[name]["decision"])
        assert status == 200 or kept[name]["decision"] in {"refused", "failed", "throttled"}
    acts = [record for record in kept.values() if record["method"] in {"local", "none"}]
    told = {record["operation"] for record in acts}
    assert {"gateway.start", "gateway.stop", "gateway.model", "gateway.configuration"} <= told
    assert {"admin.key.add", "admin.key.revoke", "audit.search"} <= told
    [switch] = [record for record in acts if record["operation"] == "gateway.configuration"]
    assert (switch["configuration"], switch["reasons"]) == (after, [f"was {before}"])
    [revoked] = [record for record in acts if record["operation"] == "admin.key.revoke"]
    assert revoked["reasons"] == [f"key:{listed['id']}"]
    assert verified(folder)["records"] >= len(kept)


@pytest.mark.control("3.2-G2")
def test_a_given_answer_is_traced_to_request_model_configuration_and_identity(folder, rows, tmp_path):
    key = key_of(folder, "engineer")
    identity = json.loads(command(folder, "gateway", "key", "list", "--json")[1])[0]
    with serving(folder) as client:
        body = json.dumps(
            {"inputs": [{"name": "features", "shape": [1, 64], "datatype": "FP64", "data": rows[3].tolist()}]}
        )
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        given = [client.raw("POST", "/v2/models/digits/infer", body, headers) for _ in range(3)]
        another = client.infer(rows[4], key)
        assert another[0] == 200
        code, _ = command(folder, "serve", "--gate", "deploy", "--port", "0")
        assert code != 0  # a second gateway on the same log
        assert {status for status, _, _ in given} == {200}
        _, fields, answer = given[1]
        name, model = fields["bartizan-request"], fields["bartizan-model-digest"].removeprefix("sha256:")
        by_name = found(folder, "--id", name)
        same = [each["bartizan-request"] for _, each, _ in given]
        inputs = [hit_of(folder, each)["record"]["input"] for each in (*same, another[1]["bartizan-request"])]
        path = tmp_path / "answer.json"
        path.write_bytes(answer)
        by_answer = found(folder, "--answer", str(path))
    [hit] = by_name
    record = hit["record"]
    assert record["id"] == name
    assert record["model_digest"] == model == digest_bytes((folder / "model" / "digits.onnx").read_bytes())
    assert record["configuration"] == digest_bytes((folder / "gateway.toml").read_bytes())
    assert record["caller"].startswith("key:")
    assert record["caller"].removeprefix("key:") in {identity["id"], identity.get("caller")}
    assert (record["role"], record["operation"], record["rows"]) == ("engineer", "infer", 1)
    assert record["input"]
    assert inputs[:3] == [record["input"]] * 3  # the same row asked again
    assert inputs[3]
    assert inputs[3] != record["input"]
    assert name in [each["record"]["id"] for each in by_answer]
    assert {each["record"]["output"] for each in by_answer} == {record["output"]}
    proof = tmp_path / "proof.json"
    proof.write_text(command(folder, "audit", "prove", name)[1])
    public = folder / ".bartizan" / "keys" / "service.pub.pem"
    _, out = command(tmp_path, "audit", "verify", "--file", str(proof), "--key", str(public), "--json")
    assert json.loads(out)["records"][0]["id"] == name


def acknowledged(folder, key, row, enough, callers=8):
    """Ids of requests that were answered before the gateway was killed in the middle of its work.

    It is killed once ``enough`` were, while its callers go on asking.
    """
    told, stop = [], threading.Event()
    with serving(folder, recheck="60s", kill=True) as client:
        first = client.infer(row, key, model="digits")
        assert first[0] == 200
        told.append(first[1]["bartizan-request"])

        def ask():
            while not stop.is_set():
                try:
                    status, fields, _ = Client(client.port, client.process, folder).infer(row, key, model="digits")
                except (OSError, ValueError, http.client.HTTPException):
                    return
                if status == 200:
                    told.append(fields["bartizan-request"])

        threads = [threading.Thread(target=ask) for _ in range(callers)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while len(told) < enough and time.monotonic() - began < PATIENCE:
            time.sleep(0.001)
        client.process.kill()
        stop.set()
        for thread in threads:
            thread.join()
    assert len(told) >= enough
    return told


def killed_again_and_again(folder, row, rounds, seed):
    key, generator, told = key_of(folder, "engineer"), random.Random(seed), []
    for _ in range(rounds):
        told += acknowledged(folder, key, row, generator.randint(6, 100))
        verified(folder)
    kept = {hit["record"]["id"] for hit in found(folder, "--operation", "infer")}
    assert len(told) > 5 * rounds
    assert set(told) <= kept
    verified(folder)


def test_every_acknowledged_request_survives_kill_nine(folder, rows):
    killed_again_and_again(folder, rows[0], 2, 3)


@pytest.mark.slow
def test_every_acknowledged_request_survives_kill_nine_a_hundred_times(folder, rows):
    killed_again_and_again(folder, rows[0], 100, 4)

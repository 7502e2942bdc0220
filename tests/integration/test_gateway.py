"""The gateway as people run it: who may do what, what is told, what answers when a model is out, and the protocol."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from bartizan.lifecycle.deploy.gateway.administration import ROUTES as ADMIN_ROUTES
from bartizan.lifecycle.deploy.gateway.routes import OPEN as OPEN_ROUTE
from bartizan.lifecycle.deploy.gateway.routes import ROUTES
from fixtures.gateways import Client, configured, key_of, reconfigured, serving
from fixtures.project import bartizan
from fuzz import fuzz_gateway

ROLES = """
[identity.keys]

[policy]
privileged = []

[role.user]

[role.engineer]
operations = ["infer", "metadata"]

[role.operator]
operations = ["status", "metrics", "admin.*"]

[role.nothing]
operations = []

[model.digits]
fallback = "rule:0"
"""
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.fixture(scope="module")
def digits(digits_project, tmp_path_factory):
    """A digits project with several roles, and an API key for each."""
    folder = configured(digits_project, tmp_path_factory.mktemp("roles") / "project", ROLES)
    keys = {role: key_of(folder, role) for role in ("user", "engineer", "operator", "nothing")}
    return folder, keys


@pytest.fixture(scope="module")
def gateway(digits):
    """It, served, with a control plane."""
    folder, keys = digits
    with serving(folder, "--admin-port", "0") as client:
        said = (folder.parent / f"server-{folder.name}.txt").read_text()
        control = Client(int(re.search(r"control plane on http://127.0.0.1:(\d+)/", said)[1]), client.process, folder)
        yield client, control, keys


@pytest.fixture(scope="module")
def rows(digits_held_out):
    return digits_held_out[0]


def filled(pattern):
    return pattern.replace("{model}", "digits").replace("{version}", "none").replace("{case}", "none")


GRANTED = {
    "user": {"infer", "metadata"},
    "engineer": {"infer", "metadata"},
    "operator": {"status", "metrics", "admin.verify", "admin.withdraw", "admin.restore", "admin.drill"},
    "nothing": set(),
    "": set(),
}


def test_every_route_for_every_role_by_every_verb(gateway):
    """Whoever is not granted the operation of a route never gets behind it; other verbs are no way round."""
    client, control, keys = gateway
    for place, routes in ((client, ROUTES), (control, ADMIN_ROUTES)):
        verbs = {}
        for route in routes:
            verbs.setdefault(route.pattern, {})[route.method] = route.operation
        for pattern, known in verbs.items():
            for role, granted in GRANTED.items():
                headers = {"content-type": "application/json"}
                headers |= {"authorization": f"Bearer {keys[role]}"} if role else {}
                for verb in VERBS:
                    status, _, body = place.raw(verb, filled(pattern), b"{}", headers)
                    what = (verb, pattern, role, status, body[:200])
                    assert b"Traceback" not in body, what
                    if verb not in known:
                        assert status == 405, what
                    elif known[verb] == OPEN_ROUTE:
                        assert status in {200, 404}, what
                    elif not role:
                        assert status == 401, what
                    elif known[verb] in granted:
                        assert status not in {401, 403, 500}, what
                    else:
                        assert status == 403, what


def test_paths_that_are_no_routes_lead_nowhere(gateway):
    client, control, keys = gateway
    paths = ("/", "/admin/status", "/metrics", "/v2/models/digits/weights", "/.bartizan/keys/service.pem", "/v2/../v2")
    for path in (*paths, "/v2/models", "/docs", "/v2/models/digits/infer/", "//", "/%2e%2e/v2"):
        status, _, body = client.raw("GET", path, None, {"authorization": f"Bearer {keys['engineer']}"})
        assert status in {404, 405}, (path, status, body)
    assert control.raw("POST", "/v2/models/digits/infer", b"{}", {"authorization": f"Bearer {keys['user']}"})[0] == 404


def test_who_may_not_ask_does_not_learn_which_models_there_are(gateway):
    client, _, keys = gateway
    for key in ("", keys["nothing"]):
        told = {
            (status, json.dumps(answer))
            for name in ("digits", "other")
            for status, _, answer in [client.ask("POST", f"/v2/models/{name}/infer", {}, key)]
        }
        assert len(told) == 1, told


@pytest.mark.control("3.1-i")
@pytest.mark.control("GL-1.9")
def test_an_empty_configuration_starts_closed(digits_project, tmp_path, rows):
    folder = configured(digits_project, tmp_path / "empty", "")
    with serving(folder) as client:
        assert client.ask("GET", "/v2/health/live")[0] == 200
        assert client.ask("GET", "/v2/health/ready")[0] == 200
        for method, path in (("POST", "/v2/models/digits/infer"), ("POST", "/predict"), ("GET", "/v2/models/digits")):
            status, _, answer = client.ask(method, path, {} if method == "POST" else None)
            assert (status, list(answer)) == (401, ["error"]), (path, answer)
        assert client.infer(rows[:1], key="btz_aaaaaaaaaaaa_" + "a" * 43, model="digits")[0] == 401
    said = (folder.parent / f"server-{folder.name}.txt").read_text()
    assert "nobody is granted anything" in said


@pytest.mark.control("3.1-k")
def test_errors_reveal_neither_shapes_nor_libraries(gateway, rows):
    """Every way of asking wrongly: what is told is the same for all models, and names nothing of the inside."""
    client, _, keys = gateway
    row, key = rows[0].tolist(), keys["engineer"]

    def tensor(data, shape=(1, 64), datatype="FP64", name="features"):
        return {"inputs": [{"name": name, "shape": list(shape), "datatype": datatype, "data": data}]}

    wrong = [
        tensor(row[:63], (1, 63)),
        tensor(row, (64,)),
        tensor(row, (64, 1)),
        tensor([*row, 1.0]),
        tensor(row, name="x"),
        tensor(row, datatype="BYTES"),
        tensor(["a"] * 64),
        tensor([None] * 64),
        tensor([1e308] * 64),
        tensor([0.5] * 64, datatype="INT64"),
        tensor([[[1]]]),
        {"inputs": []},
        {"inputs": "x"},
        [],
        {"rows": [row[:3]]},
    ]
    inside = re.compile(
        r"\b(64|63|8|16)\b|shape|onnx|numpy|sklearn|scikit|torch|uvicorn|python|msgspec|float32|FP32|Error\b|line \d|/",
        re.IGNORECASE,
    )
    for content in wrong:
        for path in ("/v2/models/digits/infer", "/predict"):
            status, headers, answer = client.ask("POST", path, content, key)
            assert status in {400, 413}, (content, status, answer)
            assert list(answer) == ["error"]
            # the form of a request is no secret: it stands in the documents of the protocol
            told = answer["error"].replace('{"rows": [...]}', "")
            assert not inside.search(told), answer
            assert "server" not in headers
    for body in (b"", b"{", b"\xff", b"[" * 100_000, b'{"inputs":' + b"[" * 10_000):
        status, _, answer = client.raw(
            "POST",
            "/v2/models/digits/infer",
            body,
            {"content-type": "application/json", "authorization": f"Bearer {key}"},
        )
        assert status == 400
        assert not inside.search(json.loads(answer)["error"])


@pytest.mark.control("1.2-f")
def test_a_fallback_answers_when_the_model_is_stopped_or_fails_its_check(gateway, digits, rows, ask_in):
    client, control, keys = gateway
    folder, _ = digits
    honest = client.infer(rows[:3], key=keys["user"])[2]
    assert "parameters" not in honest

    # stopped by somebody
    status, _, told = control.ask(
        "POST", "/admin/models/digits/withdraw", {"reason": "It misreads sevens."}, keys["operator"]
    )
    assert (status, told["ready"], told["reason"]) == (200, False, "withdrawn: It misreads sevens.")
    status, _, answer = client.infer(rows[:3], key=keys["user"])
    assert (status, answer["outputs"][0]["data"]) == (200, ["0", "0", "0"])
    assert answer["parameters"]["answered_by"] == "fallback"
    listed = evidence(ask_in, folder)
    (stopped,) = [item for item in listed if item["type"] == "deployment"]
    assert (stopped["standing"], "model:digits" in stopped["about"]) == ("holds", True)
    assert (
        control.ask("POST", "/admin/models/digits/restore", {"reason": "It was the scanner."}, keys["operator"])[0]
        == 200
    )
    _until(client, rows, keys["user"], fallback=False)

    # its bytes fail the check
    model = folder / "model" / "digits.onnx"
    signed = model.read_bytes()
    model.write_bytes(signed + b"\0")
    try:
        answer = _until(client, rows, keys["user"], fallback=True)
        assert answer["outputs"][0]["data"] == ["0"]
        assert client.ask("GET", "/v2/health/ready")[0] == 503
    finally:
        model.write_bytes(signed)
    _until(client, rows, keys["user"], fallback=False)

    # a drill shows beforehand that it would answer
    status, _, drilled = control.ask("POST", "/admin/models/digits/drill", {}, keys["operator"])
    assert (status, drilled["passed"], drilled["answer"]) == (200, True, "digits answers 0")
    listed = evidence(ask_in, folder)
    assert [item["standing"] for item in listed if item["what"] == "gateway.fallback-drill"][-1] == "holds"


def evidence(ask_in, folder):
    code, out, said = ask_in(folder, "evidence", "list", "--json")
    assert code == 0, said
    return json.loads(out)


def _until(client, rows, key, *, fallback):
    """Ask until the model, or what stands in for it, answers."""
    began = time.monotonic()
    while True:
        status, _, answer = client.infer(rows[:1], key=key, model="digits")
        assert status == 200, answer
        if ("parameters" in answer) == fallback:
            return answer
        assert time.monotonic() - began < 60, answer
        time.sleep(0.2)


def test_a_third_party_client_of_the_protocol_works_unchanged(gateway, rows):
    """tritonclient, JSON and binary tensors both ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tritonclient import http as triton  # noqa: PLC0415 - imports gevent
    client, _, keys = gateway
    headers = {"authorization": f"Bearer {keys['engineer']}"}
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{client.port}")) as asking:
        assert asking.is_server_live()
        assert asking.is_server_ready()
        assert asking.is_model_ready("digits")
        assert "binary_tensor_data" in asking.get_server_metadata()["extensions"]
        (given,) = asking.get_model_metadata("digits", headers=headers)["inputs"]
        assert (given["datatype"], given["shape"]) == ("FP32", [-1, 64])
        expected = client.infer(rows[:5], key=keys["engineer"])[2]["outputs"][0]["data"]
        for binary in (False, True):
            tensor = triton.InferInput(given["name"], [5, 64], given["datatype"])
            tensor.set_data_from_numpy(rows[:5].astype(np.float32), binary_data=binary)
            wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "scores")]
            answer = asking.infer("digits", [tensor], outputs=wanted, headers=headers)
            labels = answer.as_numpy("label")
            assert [label.decode() if isinstance(label, bytes) else str(label) for label in labels] == expected
            scores = answer.as_numpy("scores")
            assert scores.shape == (5, 10)
            assert scores.sum(axis=1) == pytest.approx(1)


def test_people_ask_by_the_names_of_columns_and_images_as_they_are(gateway, rows):
    client, _, keys = gateway
    by_protocol = client.infer(rows[:2], key=keys["user"])[2]["outputs"][0]["data"]
    status, _, answer = client.ask("POST", "/predict", {"rows": rows[:2].reshape(2, 1, 8, 8).tolist()}, keys["user"])
    assert (status, [each["label"] for each in answer["predictions"]]) == (200, by_protocol)


def test_requests_of_strange_forms(gateway):
    """Duplicated lengths, both lengths, folded and unended headers: none is taken for a request of somebody else."""
    client, _, keys = gateway
    good = b'{"inputs":[]}'
    forms = (
        b"Content-Length: 13\r\nContent-Length: 12\r\n\r\n" + good,
        b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Content-Length: +13\r\n\r\n" + good,
        b"Content-Length : 13\r\n\r\n" + good,
        b"X-Fold: a\r\n b\r\nContent-Length: 13\r\n\r\n" + good,
        b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"Authorization: Bearer x\r\nContent-Length: 13\r\n\r\n" + good,
    )
    key = keys["engineer"].encode()
    for form in forms:
        head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        status = _sent(client.port, head + b"Authorization: Bearer " + key + b"\r\n" + form)
        assert status in {400, 401, 408, 413, 415, 501, 0}, (form, status)
    assert client.ask("GET", "/v2/health/live")[0] == 200


def _sent(port, data):
    """Status of the only answer; 0 when the connection was closed without one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.connect()
        connection.sock.sendall(data)
        answer = http.client.HTTPResponse(connection.sock)
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            answer.begin()
            return answer.status
    return 0


def test_a_tester_of_interfaces_finds_no_failure(gateway, tmp_path):
    """schemathesis over the OpenAPI document: no 5xx, nothing that the document does not say."""
    client, _, keys = gateway
    place = f"http://127.0.0.1:{client.port}/openapi.json"
    command = [shutil.which("schemathesis", path=Path(sys.executable).parent), "run", place, "--seed", "1"]
    with_key = [
        "-H",
        f"authorization: Bearer {keys['engineer']}",
        "--max-examples",
        "12",
        "--phases",
        "coverage,fuzzing",
    ]
    # rows that no model takes are sound by the document, and other verbs are tried above; who is let in, too
    apart = ["--exclude-checks", "positive_data_acceptance,unsupported_method,ignored_auth"]
    command += [*with_key, *apart]
    # it keeps what it found in the folder where it is run
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert re.search(r"Test cases:\n +\d\d\d+ generated", done.stdout), done.stdout[-2000:]


def test_mutated_tensors_crash_nothing(gateway):
    """The fuzzer of the binary protocol, for a moment; ``make fuzz`` goes on for as long as it is told."""
    client, _, keys = gateway
    seen = fuzz_gateway.fuzz(client.port, keys["engineer"], "digits", features=64, requests=400, seed=5)
    assert sum(seen.values()) == 400
    assert not [status for status in seen if status >= 500 or status in {401, 403}], seen
    assert {200, 400} <= set(seen), seen
    assert client.ask("GET", "/v2/health/ready")[0] == 200


def test_several_models_and_versions(digits_project, tmp_path, rows):
    """The version before is served beside the new one, and stands in for it."""
    folder = tmp_path / "project"
    shutil.copytree(digits_project, folder, symlinks=True)
    shutil.copy(folder / "model" / "digits.onnx", folder / "model" / "before.onnx")
    text = (folder / "bartizan.toml").read_text()
    (table,) = re.findall(r"^\[\[model\]\]\n.*?(?=^\[|^#)", text, re.DOTALL | re.MULTILINE)
    other = table.replace('name = "digits"', 'name = "before"').replace("digits.onnx", "before.onnx")
    base = tmp_path / "base"
    (folder / "bartizan.toml").write_text(text.replace(table, table + other))
    folder.rename(base)
    settings = """
[role.anonymous]
operations = ["infer", "metadata"]
[model.before]
serve_as = "digits"
version = "1"
[model.digits]
version = "2"
fallback = "model:before"
"""
    folder = configured(base, tmp_path / "versions", settings)
    with serving(folder) as client:
        assert client.ask("GET", "/v2")[2]["models"] == ["digits"]
        ask = {"inputs": [{"name": "features", "shape": [1, 64], "datatype": "FP64", "data": rows[0].tolist()}]}
        for version in ("1", "2"):
            assert client.ask("POST", f"/v2/models/digits/versions/{version}/infer", ask)[0] == 200
        assert client.ask("POST", "/v2/models/digits/versions/3/infer", ask)[0] == 404


def test_a_changed_configuration_takes_over_without_a_dropped_request(digits_project, tmp_path, rows):
    """Another role's detail is judged and takes over while requests go on; none of them is refused."""
    text = '[role.anonymous]\noperations = ["infer"]\ndetail = "{}"\n'
    folder = configured(digits_project, tmp_path / "project", text.format("label"))
    with serving(folder, recheck="1s") as client:
        assert len(client.infer(rows[:1])[2]["outputs"]) == 1
        staged = tmp_path / "staged"
        shutil.copytree(folder, staged, symlinks=True, ignore=shutil.ignore_patterns(".bartizan"))
        (staged / ".bartizan").symlink_to(folder / ".bartizan")
        reconfigured(staged, text.format("rounded-scores"))
        (staged / "gateway.toml").replace(folder / "gateway.toml")
        began, statuses = time.monotonic(), set()
        while True:
            status, _, answer = client.infer(rows[:1])
            statuses.add(status)
            if status == 200 and len(answer["outputs"]) == 2:
                break
            assert time.monotonic() - began < 60, answer
        assert statuses == {200}, (folder.parent / f"server-{folder.name}.txt").read_text()


def test_it_ends_what_was_begun_when_it_is_told_to_stop(digits_project, tmp_path, rows):
    folder = configured(digits_project, tmp_path / "project")
    with serving(folder):
        pass  # told as soon as it listens, and its end is waited for
    with serving(folder, kill=True) as client:
        assert client.infer(rows[:1])[0] == 200
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(60) == 0
    done = bartizan(folder, "audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr

"""Upstreams behind the gateway: a declared model that runs elsewhere, and chats, with the same callers and budgets."""

from __future__ import annotations

import contextlib
import http.client
import json

import joblib
import pytest

from fixtures.gateways import configured, key_of, serving
from fixtures.project import bartizan
from fixtures.upstreams import Chat, Oip, asgi

ROLES = """
[identity.keys]

[role.user]

[role.talker]
operations = ["chat"]
models = ["helper"]
budgets = ["words"]

[role.other]
operations = ["chat"]
models = ["nothing"]

[budget.words]
unit = "tokens"
limit = {tokens}
window = "1d"

[model.tumour]
upstream = "elsewhere"
fallback = "rule:malignant"

[[upstream]]
name = "elsewhere"
speaks = "oip"
url = "{oip}"
model = "tumours"
failures = 1
rest_seconds = 0.2

[[upstream]]
name = "helper"
speaks = "chat"
url = "{chat}"
model = "inner"
answer_tokens = {words}
"""


@contextlib.contextmanager
def behind(base, folder, *, tokens=10_000, words=6):
    """A gateway in front of two servers; gives it, the servers, and a key for each role."""
    oip, chat = Oip(joblib.load(base / "model" / "tumour.joblib"), name="tumours"), Chat(words=words)
    with asgi(oip) as classifies, asgi(chat) as chats:
        configured(base, folder, ROLES.format(oip=classifies, chat=chats, tokens=tokens, words=4 * words))
        keys = {role: key_of(folder, role) for role in ("user", "talker", "other")}
        with serving(folder) as client:
            yield client, oip, chat, keys


def talk(client, key, *, stream=False, **more):
    """Status and body of one chat."""
    asked = {"model": "helper", "messages": [{"role": "user", "content": "A secret question."}], "stream": stream}
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}", "x-secret": "of the caller"}
    status, _, answer = client.raw("POST", "/v1/chat/completions", json.dumps(asked | more).encode(), headers)
    return status, answer


def test_a_declared_model_may_run_elsewhere_and_something_stands_in_for_it(tumour_project, tmp_path):
    with behind(tumour_project, tmp_path / "project") as (client, oip, _, keys):
        rows = [[1.0] * 30, [20.0] * 30]
        status, _, answer = client.infer(rows, key=keys["user"])
        expected = oip.model.predict(rows)
        assert (status, len(answer["outputs"]), len(expected)) == (200, 1, 2)
        asked = [each for each in oip.asked if each[1].endswith("/infer")]
        assert keys["user"].encode() not in b"".join(value for each in asked for value in each[2].values())
        oip.name = "gone"  # it answers 404 from now on
        status, _, answer = client.infer(rows, key=keys["user"])
        assert (status, answer["outputs"][0]["data"]) == (200, ["malignant", "malignant"])
        assert answer["parameters"]["answered_by"] == "fallback"


@pytest.fixture(scope="module")
def chatting(tumour_project, tmp_path_factory):
    with behind(tumour_project, tmp_path_factory.mktemp("chats") / "project", tokens=120) as everything:
        yield everything


def test_a_chat_passes_through_whole_and_streamed(chatting):
    client, _, chat, keys = chatting
    status, answer = talk(client, keys["talker"])
    said = json.loads(answer)
    assert (status, said["model"], said["choices"][0]["message"]["content"].split()[0]) == (200, "helper", "word0")
    status, answer = talk(client, keys["talker"], stream=True)
    assert (status, answer.endswith(b"data: [DONE]\n\n")) == (200, True)
    assert b"word5" in answer
    assert b"inner-secret" not in answer
    sent = b"".join(value for headers in chat.headers for value in headers.values())
    assert keys["talker"].encode() not in sent
    assert b"of the caller" not in sent


def test_who_may_chat_with_what(chatting):
    client, _, _, keys = chatting
    assert talk(client, "")[0] == 401
    assert talk(client, keys["user"])[0] == 403
    assert talk(client, keys["other"])[0] == 404
    assert talk(client, keys["talker"], model="elsewhere")[0] == 404
    assert talk(client, keys["talker"], logit_bias={"1": 100})[0] == 400
    listed = client.ask("GET", "/v1/models", key=keys["talker"])[2]
    assert [each["id"] for each in listed["data"]] == ["helper"]


def test_a_budget_of_tokens_runs_dry_and_nothing_said_is_recorded(chatting):
    client, _, _, keys = chatting
    statuses = [talk(client, keys["talker"])[0] for _ in range(12)]
    assert (200 in statuses or statuses[0] == 429, statuses[-1]) == (True, 429)
    found = bartizan(client.folder, "audit", "search", "--json", "--reason", "a test")
    assert found.returncode == 0, found.stderr
    assert "secret question" not in found.stdout
    assert "word0" not in found.stdout
    records = json.loads(found.stdout)
    text = json.dumps(records)
    assert '"chat"' in text
    assert "chat.end" in text


def test_a_client_that_leaves_a_stream_ends_it_upstream(tumour_project, tmp_path):
    with behind(tumour_project, tmp_path / "project", words=1000) as (client, _, chat, keys):
        chat.pause = 0.05
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
        asked = {"model": "helper", "messages": [{"role": "user", "content": "x"}], "stream": True}
        headers = {"content-type": "application/json", "authorization": f"Bearer {keys['talker']}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        assert connection.getresponse().read(40)
        connection.close()
        assert chat.left.wait(20)

"""Classifiers behind other servers: what good ones answer counts, what hostile ones answer never does."""

from __future__ import annotations

import asyncio
import json
import os

import numpy as np
import pytest
import tritonclient.http
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from bartizan.adapters.upstream.inference import InferenceUpstream, MlflowUpstream
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.upstream.port import UpstreamError
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings
from bartizan.lifecycle.deploy.gateway.upstream.tensors import question
from fixtures.upstreams import Mlflow, Oip, asgi, bare, says

CLASSES = ("0", "1", "2")


@pytest.fixture(scope="module")
def wine():
    rows, labels = load_wine(return_X_y=True)
    train, held, answers, _ = train_test_split(rows, labels, random_state=0)
    scale = train.std(axis=0)
    return LogisticRegression(max_iter=200).fit(train / scale, answers), held / scale


def settings(url, **more):
    quick = {"connect_seconds": 1.0, "first_byte_seconds": 0.4, "idle_seconds": 0.3, "total_seconds": 1.0, "retries": 0}
    return UpstreamSettings(**{"name": "flowers", "speaks": "oip", "url": url, **quick, **more})


def asked(upstream, rows):
    async def go():
        try:
            return await upstream.infer(rows)
        finally:
            await upstream.close()

    return asyncio.run(go())


@pytest.mark.parametrize("tensors", ["json", "binary"])
@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_answers_are_those_of_the_model_behind_it(wine, tensors, datatype):
    model, rows = wine
    with asgi(Oip(model, datatype=datatype)) as url:
        answer = asked(InferenceUpstream(settings(url, tensors=tensors), CLASSES), rows)
    np.testing.assert_array_equal(answer.labels, model.predict(rows))
    np.testing.assert_allclose(answer.scores, model.predict_proba(rows), atol=1e-6)
    assert answer.source == "upstream"


@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_binary_question_is_the_one_that_tritonclient_writes(wine, datatype):
    _, rows = wine
    rows = rows.astype({"FP64": "<f8", "FP32": "<f4"}[datatype])
    asked_there = tritonclient.http.InferInput("x", list(rows.shape), datatype)
    asked_there.set_data_from_numpy(rows, binary_data=True)
    theirs, length = tritonclient.http.InferenceServerClient.generate_request_body([asked_there])
    ours, head = question(rows, "x", datatype, binary=True)
    assert json.loads(ours[:head]) == json.loads(theirs[:length])
    assert ours[head:] == theirs[length:]


def test_labels_alone_and_scores_alone_are_answers(wine):
    model, rows = wine
    with asgi(Oip(model, outputs=("predict",))) as url:
        labelled = asked(InferenceUpstream(settings(url), CLASSES), rows)
    with asgi(Oip(model, outputs=("predict_proba",))) as url:
        scored = asked(InferenceUpstream(settings(url), CLASSES), rows)
    assert labelled.scores is None
    np.testing.assert_array_equal(labelled.labels, scored.labels)


def test_metadata_is_asked_for_once_and_readiness_each_time(wine):
    model, rows = wine
    server = Oip(model)

    async def go(url):
        upstream = InferenceUpstream(settings(url), CLASSES)
        assert await upstream.ready()
        await upstream.infer(rows)
        await upstream.infer(rows)
        await upstream.close()

    with asgi(server) as url:
        asyncio.run(go(url))
    assert [path for _, path, _, _ in server.asked] == [
        "/v2/models/flowers/ready",
        "/v2/models/flowers",
        "/v2/models/flowers/infer",
        "/v2/models/flowers/infer",
    ]


def test_credential_comes_from_its_file_and_follows_it(wine, tmp_path, monkeypatch):
    monkeypatch.setattr("bartizan.adapters.upstream.wire.LOOKED_SECONDS", -1.0)
    model, rows = wine
    key = tmp_path / "key"
    key.write_text("first-secret\n")
    server = Oip(model)

    async def go(url):
        upstream = InferenceUpstream(settings(url, key_file=str(key)), CLASSES)
        await upstream.infer(rows[:1])
        key.write_text("second-secret\n")
        os.utime(key, ns=(1, 1))
        await upstream.infer(rows[:1])
        await upstream.close()

    with asgi(server) as url:
        asyncio.run(go(url))
    shown = [headers[b"authorization"] for method, _, headers, _ in server.asked if method == "POST"]
    assert shown == [b"Bearer first-secret", b"Bearer second-secret"]
    assert not any(b"cookie" in headers or b"user-agent" in headers for _, _, headers, _ in server.asked)


@pytest.mark.parametrize(
    "form",
    [
        lambda model: lambda rows: model.predict(rows).tolist(),
        lambda model: lambda rows: [str(label) for label in model.predict(rows)],
        lambda model: lambda rows: model.predict_proba(rows).tolist(),
        lambda model: lambda rows: [dict(zip(CLASSES, row, strict=True)) for row in model.predict_proba(rows)],
    ],
    ids=["numbers", "names", "scores", "scores-by-name"],
)
def test_mlflow_forms(wine, form):
    model, rows = wine
    server = Mlflow(form(model))
    with asgi(server) as url:
        answer = asked(MlflowUpstream(settings(url, speaks="mlflow"), CLASSES), rows)
    np.testing.assert_array_equal(answer.labels, model.predict(rows))
    assert "inputs" in server.asked[0]


def test_mlflow_gets_named_columns_as_a_table(wine):
    model, rows = wine
    columns = [f"c{number}" for number in range(rows.shape[1])]
    server = Mlflow(lambda given: model.predict(given).tolist())
    with asgi(server) as url:
        asked(MlflowUpstream(settings(url, speaks="mlflow"), CLASSES, columns), rows)
    assert server.asked[0]["dataframe_split"]["columns"] == columns


def oip(*outputs):
    return json.dumps({"outputs": list(outputs)}).encode()


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


HOSTILE = {
    "nothing": b"",
    "no json": b"<html>down for maintenance</html>",
    "deep": b'{"outputs": [{"name": "a", "datatype": "FP64", "shape": [2], "data": ' + b"[" * 50_000,
    "no outputs": oip(),
    "an object": b'{"outputs": {}}',
    "other rows": oip(tensor("label", "INT64", [3], [0, 1, 2])),
    "rows swapped": oip(tensor("scores", "FP64", [3, 2], [0.5] * 6)),
    "negative shape": oip(tensor("label", "INT64", [2, -1], [0, 1])),
    "huge shape": oip(tensor("label", "INT64", [2, 2**62], [0, 1])),
    "shape unfilled": oip(tensor("label", "INT64", [2], [0])),
    "shape overfull": oip(tensor("label", "INT64", [2], [0, 1, 1])),
    "no such class": oip(tensor("label", "INT64", [2], [0, 9])),
    "negative class": oip(tensor("label", "INT64", [2], [0, -1])),
    "class by name": oip(tensor("label", "BYTES", [2], ["0", "unknown"])),
    "half a class": oip(tensor("label", "FP64", [2], [0.5, 1.0])),
    "boolean class": oip(tensor("label", "BOOL", [2], [True, False])),
    "not a number": b'{"outputs": [{"name": "scores", "datatype": "FP64", "shape": [2, 3], "data": [NaN,0,0,1,0,0]}]}',
    "infinite": oip(tensor("scores", "FP64", [2, 3], [1.0, 0, 0, 1.0, 0, 0])).replace(b"1.0", b"1e999"),
    "null": oip(tensor("scores", "FP64", [2, 3], [None] * 6)),
    "no probabilities": oip(tensor("scores", "FP64", [2, 3], [0.9, 0.9, 0.9, 1, 0, 0])),
    "negative": oip(tensor("scores", "FP64", [2, 3], [1.5, -0.5, 0, 1, 0, 0])),
    "ragged": oip(tensor("scores", "FP64", [2, 3], [[1, 0, 0], [1, 0]])),
    "contradiction": oip(tensor("label", "INT64", [2], [1, 1]), tensor("scores", "FP64", [2, 3], [1, 0, 0, 1, 0, 0])),
    "unknown names": oip(tensor("a", "INT64", [2], [0, 1]), tensor("b", "INT64", [2], [0, 1])),
    "twice": oip(tensor("label", "INT64", [2], [0, 1]), tensor("label", "INT64", [2], [1, 1])),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_no_answers(body):
    async def go():
        async with bare(says(body)) as (url, _):
            upstream = InferenceUpstream(settings(url, input="x", datatype="FP64"), CLASSES)
            with pytest.raises(UpstreamError) as caught:
                await upstream.infer(np.zeros((2, 4)))
            await upstream.close()
            return caught.value

    error = asyncio.run(go())
    assert error.kind == "wrong"
    assert error.as_request_error().message == "the model cannot answer now"


BINARY = {
    "outside": ([{**tensor("label", "INT64", [2], None), "parameters": {"binary_data_size": 99}}], b"\0" * 16),
    "negative": ([{**tensor("label", "INT64", [2], None), "parameters": {"binary_data_size": -16}}], b"\0" * 16),
    "left over": ([{**tensor("label", "INT64", [2], None), "parameters": {"binary_data_size": 8}}], b"\0" * 16),
    "not a number": (
        [{**tensor("scores", "FP32", [2, 3], None), "parameters": {"binary_data_size": 24}}],
        b"\0\0\xc0\x7f" * 6,
    ),
    "no datatype": ([{**tensor("label", "X", [2], None), "parameters": {"binary_data_size": 16}}], b"\0" * 16),
    "odd bytes": ([{**tensor("label", "INT64", [2], None), "parameters": {"binary_data_size": 15}}], b"\0" * 15),
    "text outside": (
        [{**tensor("label", "BYTES", [2], None), "parameters": {"binary_data_size": 8}}],
        b"\xff\xff\xff\x7f0000",
    ),
    "empty texts": (
        [{**tensor("label", "BYTES", [2], None), "parameters": {"binary_data_size": 4000}}],
        b"\0\0\0\0" * 1000,
    ),
}


@pytest.mark.parametrize("case", BINARY.values(), ids=BINARY)
def test_hostile_binary_answers_are_no_answers(case):
    outputs, tail = case
    for output in outputs:
        output.pop("data", None)
    head = oip(*outputs)

    async def go(length):
        speak = says(head + tail, headers=f"inference-header-content-length: {length}\r\n")
        async with bare(speak) as (url, _):
            upstream = InferenceUpstream(settings(url, input="x", datatype="FP64"), CLASSES)
            with pytest.raises(UpstreamError) as caught:
                await upstream.infer(np.zeros((2, 4)))
            await upstream.close()
            return caught.value.kind

    for length in (len(head), "-1", "0x10", 10**9, "٣"):
        assert asyncio.run(go(length)) == "wrong"


async def drip(head, reader, writer):
    writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 2000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silent(head, reader, writer):
    await reader.read()
    await asyncio.sleep(600)


async def endless(head, reader, writer):
    writer.write(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def endless_head(head, reader, writer):
    writer.write(b"HTTP/1.1 200 X\r\n")
    while True:
        writer.write(b"x-filler: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def pauses(head, reader, writer):
    writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n12345")
    await writer.drain()
    await asyncio.sleep(600)


async def breaks_off(head, reader, writer):
    writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n12345")
    await writer.drain()


async def hangs_up(head, reader, writer):
    del head, reader, writer


@pytest.mark.parametrize(
    ("speak", "kind"),
    [
        (drip, "late"),
        (silent, "late"),
        (pauses, "late"),
        (endless, "large"),
        (endless_head, "wrong"),
        (breaks_off, "wrong"),
        (hangs_up, "unreachable"),
        (says(b"no http", headers="content-encoding: gzip\r\n"), "wrong"),
        (says(b"{}", status=500), "failed"),
        (says(b"{}", status=403), "refused"),
        (says(b"{}", status=429, headers="retry-after: 7\r\n"), "limited"),
        (says(b"", status=302, headers="location: http://127.0.0.1:1/\r\n"), "refused"),
        (says(b" " * 3000, headers=""), "large"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_hostile_servers_end_in_time_and_memory(speak, kind):
    async def go():
        async with bare(speak) as (url, noticed):
            upstream = InferenceUpstream(settings(url, input="x", datatype="FP64", answer_bytes=2048), CLASSES)
            with pytest.raises(UpstreamError) as caught:
                await asyncio.wait_for(upstream.infer(np.zeros((2, 4))), 60)
            await upstream.close()
            return caught.value, noticed

    error, noticed = asyncio.run(go())
    assert (error.kind, noticed.count("connected")) == (kind, 1)
    if kind == "limited":
        assert error.retry_after == 7


def test_what_broke_before_an_answer_is_asked_again_once():
    times = []

    async def second(head, reader, writer):
        times.append(head)
        if len(times) == 2:
            await says(oip(tensor("label", "INT64", [2], [0, 1])))(head, reader, writer)

    async def go():
        async with bare(second) as (url, _):
            upstream = InferenceUpstream(settings(url, input="x", datatype="FP64", retries=1), CLASSES)
            answer = await upstream.infer(np.zeros((2, 4)))
            await upstream.close()
            return answer

    assert asyncio.run(go()).labels.tolist() == [0, 1]
    assert len(times) == 2


def test_failing_upstream_is_left_alone_and_then_probed_by_one():
    good = False

    async def turning(head, reader, writer):
        body = oip(tensor("label", "INT64", [2], [0, 1])) if good else b"nonsense"
        await says(body)(head, reader, writer)

    async def go():
        nonlocal good
        async with bare(turning) as (url, noticed):
            upstream = InferenceUpstream(
                settings(url, input="x", datatype="FP64", failures=3, rest_seconds=0.3), CLASSES
            )
            kinds = []
            for _ in range(6):
                with pytest.raises(UpstreamError) as caught:
                    await upstream.infer(np.zeros((2, 4)))
                kinds.append(caught.value.kind)
            assert (upstream.state, noticed.count("connected")) == ("open", 3)
            await asyncio.sleep(0.35)
            good = True
            together = await asyncio.gather(
                *(upstream.infer(np.zeros((2, 4))) for _ in range(4)), return_exceptions=True
            )
            assert noticed.count("connected") == 4
            assert upstream.state == "closed"
            await upstream.close()
            return kinds, together

    kinds, together = asyncio.run(go())
    assert kinds == ["wrong"] * 3 + ["resting"] * 3
    assert sum(isinstance(item, UpstreamError) and item.kind == "resting" for item in together) == 3


def test_cancelled_probe_does_not_block_the_next_one():
    async def go():
        async with bare(silent) as (url, _):
            upstream = InferenceUpstream(
                settings(url, input="x", datatype="FP64", failures=1, rest_seconds=0.05), CLASSES
            )
            for wait in (None, 0.1):
                with pytest.raises((UpstreamError, TimeoutError)):
                    await asyncio.wait_for(upstream.infer(np.zeros((2, 4))), wait)
                await asyncio.sleep(0.12)
            assert upstream.state == "half-open"
            with pytest.raises(UpstreamError, match="longer"):
                await upstream.infer(np.zeros((2, 4)))
            await upstream.close()

    asyncio.run(go())


def test_no_more_wait_than_may():
    async def go():
        async with bare(silent) as (url, noticed):
            upstream = InferenceUpstream(
                settings(url, input="x", datatype="FP64", connections=1, waiting=2, failures=1000), CLASSES
            )
            results = await asyncio.gather(
                *(upstream.infer(np.zeros((2, 4))) for _ in range(8)), return_exceptions=True
            )
            await upstream.close()
            return [item.kind for item in results], noticed.count("connected")

    kinds, connected = asyncio.run(go())
    assert kinds.count("busy") == 5
    assert connected <= 3  # one after the other, each until its time is up


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example/v2",
        "ftp://127.0.0.1/",
        "https://user:secret@models.example/",
        "https://models.example/?key=1",
        "https://models.example:99999/",
        "https:///path/only",
        "https://models.example/with space",
        "http://localhost.evil.example/",
    ],
)
def test_addresses_that_are_refused(url):
    with pytest.raises(InputError):
        InferenceUpstream(settings(url), CLASSES)


def test_unencrypted_has_to_be_said():
    assert InferenceUpstream(settings("http://models.example/", unencrypted=True), CLASSES).name == "flowers"


def test_certificate_that_leads_nowhere_is_refused(tmp_path, self_signed):
    authority, server = self_signed

    async def go(**more):
        async with bare(says(oip(tensor("label", "INT64", [2], [0, 1]))), tls=server) as (url, _):
            upstream = InferenceUpstream(settings(url, input="x", datatype="FP64", **more), CLASSES)
            try:
                return await upstream.infer(np.zeros((2, 4)))
            finally:
                await upstream.close()

    with pytest.raises(UpstreamError, match="certificate"):
        asyncio.run(go())
    assert asyncio.run(go(authority_file=str(authority))).labels.tolist() == [0, 1]


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe", b"x" * 9000])
def test_files_that_are_no_credential(tmp_path, content):
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(InputError):
        InferenceUpstream(settings("https://models.example", key_file=str(key)), CLASSES)


@pytest.fixture
def self_signed(tmp_path):
    """A certificate for 127.0.0.1 that vouches for itself, as file, and the server's side of TLS."""
    import datetime as dt  # noqa: PLC0415
    import ipaddress  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context

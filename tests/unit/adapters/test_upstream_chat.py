"""Chats that pass through: what goes in, what comes out, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from bartizan.adapters.upstream.chat import ChatUpstream
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.upstream import chat
from bartizan.lifecycle.deploy.gateway.upstream.port import UpstreamError
from bartizan.lifecycle.deploy.gateway.upstream.relay import relay
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings
from bartizan.wiring import upstreams
from fixtures.upstreams import Chat, asgi, bare, says

MESSAGES = [{"role": "user", "content": "the secret of the house is aubergine"}]


def settings(url="https://models.example", **more):
    quick = {"connect_seconds": 1.0, "first_byte_seconds": 0.5, "idle_seconds": 0.4, "total_seconds": 3.0}
    return UpstreamSettings(**{"name": "helper", "speaks": "chat", "url": url, "model": "inner", **quick, **more})


def body(**more):
    return json.dumps({"model": "helper", "messages": MESSAGES, **more}).encode()


def free(tokens):
    del tokens
    return True


async def streamed(url, spend=free, *, request=None, **more):
    declared = settings(url, **more)
    upstream = ChatUpstream(declared)
    try:
        stream = await upstream.stream(chat.read(request or body(stream=True), declared), spend)
        parts = [part async for part in stream]
        await stream.aclose()
    finally:
        await upstream.close()
    return stream, parts


def events(parts):
    lines = b"".join(parts).decode().split("\n\n")
    assert lines[-1] == ""
    return [line.removeprefix("data: ") for line in lines[:-1]]


def words(parts):
    said = [json.loads(item) for item in events(parts) if item != "[DONE]"]
    return "".join(
        choice["delta"].get("content", "") for item in said if "choices" in item for choice in item["choices"]
    )


# ---- requests


def test_request_is_written_anew_with_its_bounds():
    asked = chat.read(body(stream=True, user="alice@example.org", temperature=0.5, max_tokens=9999), settings())
    sent = json.loads(asked.body)
    assert sent == {
        "model": "inner",
        "messages": MESSAGES,
        "temperature": 0.5,
        "max_tokens": 1024,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert asked.answer_tokens == 1024
    assert asked.prompt_tokens >= len("the secret of the house is aubergine") / 4


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": True},
        {"top_logprobs": 5},
        {"logit_bias": {"50256": 100}},
        {"tools": []},
        {"n": 2},
        {"n": 10**6},
        {"unknown": 1},
        {"temperature": "NaN"},
        {"temperature": 1e9},
        {"max_tokens": -1},
        {"messages": []},
        {"messages": [{"role": "user", "content": "x"}] * 600},
        {"messages": [{"role": "root", "content": "x"}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;,"}}]}]},
        {"stop": ["x"] * 9},
    ],
    ids=str,
)
def test_closed_by_default(more):
    with pytest.raises(RequestError) as caught:
        chat.read(body(**more), settings())
    assert caught.value.status == 400


def test_what_is_allowed_goes_on():
    declared = settings(allow=("logprobs", "tools", "several", "images"))
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
    asked = chat.read(body(logprobs=True, tools=[tool], n=2, messages=[image]), declared)
    sent = json.loads(asked.body)
    assert (sent["logprobs"], sent["tools"], sent["n"], sent["messages"]) == (True, [tool], 2, [image])
    assert asked.answer_tokens == 2048


def test_upstream_fetches_nothing_for_a_caller():
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}
    with pytest.raises(RequestError, match="images"):
        chat.read(body(messages=[image]), settings(allow=("images",)))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 10**5, b'{"model": "\\ud800"}', b"null"])
def test_no_request_at_all(data):
    with pytest.raises(RequestError):
        chat.read(data, settings())
    assert chat.asked_for(data) == ""


def test_long_prompt_is_refused():
    with pytest.raises(RequestError) as caught:
        chat.read(body(messages=[{"role": "user", "content": "a" * 60_000}]), settings())
    assert caught.value.status == 413


# ---- answers


def test_whole_answer_shows_nothing_of_the_inside():
    server = Chat()

    async def go(url):
        declared = settings(url)
        upstream = ChatUpstream(declared)
        assert await upstream.ready()
        try:
            return await upstream.complete(chat.read(body(user="alice"), declared))
        finally:
            await upstream.close()

    with asgi(server) as url:
        written, usage = asyncio.run(go(url))
    said = json.loads(written)
    assert said == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "helper",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word0 word1 word2 word3 word4 "},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }
    assert (usage.total, usage.estimated) == (14, False)
    assert "user" not in server.asked[0]


def test_streamed_answer_is_the_same_words_and_counts():
    with asgi(Chat(7)) as url:
        stream, parts = asyncio.run(streamed(url))
    assert words(parts) == "".join(f"word{number} " for number in range(7))
    assert events(parts)[-1] == "[DONE]"
    assert (stream.ended, stream.usage.completion, stream.usage.estimated) == ("finished", 7, False)
    assert b"secret" not in b"".join(parts)
    assert b"fp_host17" not in b"".join(parts)
    assert b'"usage"' not in b"".join(parts)


def test_usage_is_told_to_clients_who_ask_for_it():
    request = body(stream=True, stream_options={"include_usage": True})
    with asgi(Chat(3)) as url:
        _, parts = asyncio.run(streamed(url, request=request))
    assert json.loads(events(parts)[-2])["usage"]["total_tokens"] == 12


def test_usage_is_estimated_where_none_is_given():
    with asgi(Chat(9, usage=False)) as url:
        stream, _ = asyncio.run(streamed(url))
    assert stream.usage.estimated
    assert stream.usage.completion >= 9


@pytest.mark.parametrize("usage", [{"prompt_tokens": 5, "completion_tokens": 0}, {"prompt_tokens": -1}, {}])
def test_usage_that_cannot_be_true_is_not_believed(usage):
    delta = {"index": 0, "delta": {"content": "many words " * 20}, "finish_reason": "stop"}
    said = [{"id": "x", "choices": [delta]}, {"id": "x", "choices": [], "usage": usage}]
    data = b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in said) + b"data: [DONE]\n\n"

    async def go():
        async with bare(says(data, headers="content-type: text/event-stream\r\n")) as (url, _):
            return await streamed(url)

    stream, _ = asyncio.run(go())
    assert stream.usage.estimated
    assert stream.usage.completion >= 40


def test_budget_that_runs_out_ends_the_stream_and_the_upstream():
    left = 20

    def spend(tokens):
        nonlocal left
        left -= tokens
        return left > 0

    server = Chat(500, pause=0.01)
    with asgi(server) as url:
        stream, parts = asyncio.run(streamed(url, spend))
        assert server.left.wait(30)
    said = events(parts)
    assert said[-1] == "[DONE]"
    assert json.loads(said[-2])["error"] == {
        "message": "the budget is spent",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
    assert stream.ended == "budget"
    assert 20 <= stream.spent <= 40


def test_answer_that_exceeds_its_bound_is_cut():
    with asgi(Chat(500)) as url:
        stream, parts = asyncio.run(streamed(url, answer_tokens=10))
    assert stream.ended == "length"
    assert json.loads(events(parts)[-2])["error"]["type"] == "length"


EVENTS = {
    "no json": b"data: <html>\n\n",
    "an array": b"data: []\n\n",
    "an error": b'data: {"error": {"message": "host 10.1.2.3 out of memory"}}\n\n',
    "choices": b'data: {"id": "x", "choices": [{"index": 99999999}]}\n\n',
    "deep": b'data: {"choices": ' + b"[" * 5000 + b"\n\n",
    "broken off": b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "half"}}]}\n\ndata: {"id"',
    "one endless line": b"data: " + b"x" * 5000,
    "endless data": b"data: x\n" * 3000,
    "nothing": b"",
}


@pytest.mark.parametrize("data", EVENTS.values(), ids=EVENTS)
def test_malformed_streams_end_with_an_error(data):
    async def go():
        async with bare(says(data, headers="content-type: text/event-stream\r\n")) as (url, _):
            return await streamed(url, event_bytes=2048)

    stream, parts = asyncio.run(go())
    said = events(parts)
    assert json.loads(said[-2])["error"]["type"] == "server_error"
    assert said[-1] == "[DONE]"
    assert stream.ended == "failed"
    assert b"10.1.2.3" not in b"".join(parts)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_events_are_read_however_they_are_cut(end, size):
    said = [{"id": "x", "choices": [{"index": 0, "delta": {"content": word}}]} for word in ("a", "é", "c")]
    frames = [b": comment", b"id: 3", b"event: message"]
    data = b"".join(
        end.join([*frames, b"data: " + json.dumps(item, ensure_ascii=False).encode(), b"", b""]) for item in said
    )
    data += b"data:[DONE]" + end + end

    async def speak(head, reader, writer):
        del head, reader
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        if end == b"\r":
            writer.write(b"\n")

    async def go():
        async with bare(speak) as (url, _):
            return await streamed(url)

    stream, parts = asyncio.run(go())
    assert words(parts) == "aéc"
    assert stream.ended == "finished"


def test_stalled_stream_ends_in_time():
    async def speak(head, reader, writer):
        del head
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "one"}}]}\n\n')
        await reader.read()

    async def go():
        async with bare(speak) as (url, _):
            return await asyncio.wait_for(streamed(url, total_seconds=600.0), 60)

    stream, parts = asyncio.run(go())
    assert (stream.ended, words(parts)) == ("failed", "one")


def test_what_is_no_stream_is_a_failure_before_the_first_byte():
    async def go():
        async with bare(says(b"{}")) as (url, _):
            await streamed(url)

    with pytest.raises(UpstreamError, match="no stream"):
        asyncio.run(go())


def test_chat_is_not_repeated_once_it_was_sent():
    async def speak(head, reader, writer):
        del head, reader, writer

    async def go():
        async with bare(speak) as (url, noticed):
            with pytest.raises(UpstreamError):
                await streamed(url, retries=3)
            return noticed.count("connected")

    assert asyncio.run(go()) == 1


# ---- clients


def test_client_that_goes_is_noticed_and_the_upstream_let_go_of():
    server = Chat(10_000, pause=0.02)
    sent = []

    async def send(message):
        sent.append(message)

    async def go(url):
        declared = settings(url, total_seconds=30.0, answer_tokens=100_000)
        upstream = ChatUpstream(declared)
        stream = await upstream.stream(chat.read(body(stream=True), declared), free)

        async def receive():
            await asyncio.sleep(0.3)
            return {"type": "http.disconnect"}

        await relay(stream, receive, send)
        await asyncio.to_thread(server.left.wait, 1.0)
        await upstream.close()
        return stream

    with asgi(server) as url:
        stream = asyncio.run(go(url))
    assert server.left.is_set()
    assert stream.ended == "left"
    assert stream.usage.completion > 0
    assert sent[0]["status"] == 200
    assert len(sent) > 3


def test_client_that_does_not_read_holds_nothing_for_ever():
    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def receive():
        await asyncio.sleep(60)

    server = Chat(10_000, pause=0.01)

    async def go(url):
        declared = settings(url)
        upstream = ChatUpstream(declared)
        stream = await upstream.stream(chat.read(body(stream=True), declared), free)
        began = asyncio.get_running_loop().time()
        await relay(stream, receive, send, seconds=0.5)
        took = asyncio.get_running_loop().time() - began
        await asyncio.to_thread(server.left.wait, 1.0)
        await upstream.close()
        return took

    with asgi(server) as url:
        assert asyncio.run(go(url)) < 1
    assert server.left.is_set()


def test_nothing_of_a_prompt_reaches_the_logs(caplog):
    caplog.set_level(logging.DEBUG)
    with asgi(Chat(3)) as url:
        asyncio.run(streamed(url))

    async def fail():
        async with bare(says(b"data: aubergine\n\n", headers="content-type: text/event-stream\r\n")) as (url, _):
            return await streamed(url)

    stream, _ = asyncio.run(fail())
    assert "aubergine" not in caplog.text + stream.failure


def test_wiring_gives_what_was_declared():
    declared = UpstreamSettings(name="flowers", speaks="oip", url="https://models.example")
    assert upstreams.inference(declared, ("a", "b")).name == "flowers"
    assert upstreams.chat(settings()).name == "helper"
    with pytest.raises(InputError, match="speaks chat"):
        upstreams.inference(settings(), ("a", "b"))
    with pytest.raises(InputError, match="speaks no chat"):
        upstreams.chat(declared)

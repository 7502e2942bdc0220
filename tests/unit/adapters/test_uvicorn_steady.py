"""What is remembered of a connection changes no answer: beside uvicorn's own way, byte for byte."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from bartizan.adapters.uvicorn.guarded import BoundedProtocol
from bartizan.adapters.uvicorn.steady import _LINES, MOST_BYTES, MOST_HEADS, MOST_LINES, Steady, SteadyProtocol, _line
from bartizan.lifecycle.deploy.gateway.turns import Turnstile, turn


async def body_of(receive):
    """What came in; None when the client has gone."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


FIELDS = {
    "close": (b"connection", b"close"),
    "evil": (b"x-evil", b"a\r\nset-cookie: b"),
}


async def echo(scope, receive, send):
    """Tells what came in; the path says how."""
    path, body = scope["path"], await body_of(receive)
    if body is None:
        return
    assert scope.get("bartizan.body", body) == body
    for _ in range(path.count("later")):
        await turn()
    if "sleep" in path:
        await asyncio.sleep(0)
    if "long" in path:
        await asyncio.sleep(60)
    if "started" in path and body == b"cd":
        length = [(b"content-length", b"2")] * ("silent" not in path)
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await asyncio.sleep(0.3)
        raise RuntimeError("broken")
    if "broken" in path:
        raise RuntimeError("broken")
    names = ("method", "path", "http_version", "query_string", "raw_path", "client", "extensions")
    told = {name: str(scope.get(name)) for name in names}
    told |= {"headers": str(scope["headers"]), "body": body.decode("latin-1")}
    content = json.dumps(told).encode()
    headers = [(b"X-Was", body[:8].hex().encode())]
    headers += [(b"content-length", b"%d" % len(content))] * ("bare" not in path)
    headers += [field for word, field in FIELDS.items() if word in path]
    if "whole" in path and (whole := scope.get("bartizan.whole")) and whole(200, headers, content):
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if "parts" in path:
        await send({"type": "http.response.body", "body": content[:5], "more_body": True})
        content = content[5:]
    await send({"type": "http.response.body", "body": content})


class Wire(asyncio.Transport):
    """The other end of a connection: keeps what is written."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written, self.closed = b"", False

    def write(self, data):
        if not self.closed:
            self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


async def sent(protocol_class, chunks, *, led=False):
    """What a connection answers to chunks, each with how many turns of the loop come after it."""
    config = uvicorn.Config(echo, http=protocol_class, log_config=None, lifespan="off", ws="none")
    config.load()
    wire = Wire()
    protocol = protocol_class(config, ServerState(), {}, asyncio.get_running_loop())
    if led:
        protocol.begin = Turnstile().begin
    protocol.connection_made(wire)
    for data, turns in chunks:
        if wire.closed:
            break
        protocol.data_received(data)
        for _ in range(turns):
            await asyncio.sleep(0)
    for _ in range(60):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return wire, protocol


def request(path="/", body=b"", *, method=b"POST", fields=(b"host: x",), length=True):
    lines = [method + b" " + path.encode() + b" HTTP/1.1", *fields]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


POOL = [
    *(request(path, body) for path in ("/", "/later", "/sleep", "/whole") for body in (b"ab", b"cd", b"\r\n\r\n", b"")),
    *(request(f"/{path}", b"ab") for path in ("parts", "bare", "close", "broken", "evil", "later/later", "%41?q=1")),
    request("/", b"abc"),
    request("/", b"c" * 12, fields=(b"host: x", b"Content-Length: 12", b"x-content-length: 2"), length=False),
    request("/", b"c" * 7, fields=(b"host: x", b"Content-Length: 7", b"x-content-length: 2"), length=False),
    request("/", b"abc", fields=(b"host: x", b"content-length: 03"), length=False),
    request("/", b"abc", fields=(b"host: x", b"Content-Length: 3 "), length=False),
    request("/", b"", method=b"CONNECT"),
    request("/", b"abc", method=b"CONNECT"),
    request("/", b"ab", method=b"HEAD"),
    request("/", method=b"GET", length=False),
    request("/", b"2\r\nab\r\n0\r\n\r\n", fields=(b"host: x", b"transfer-encoding: chunked"), length=False),
    request("/", b"ab", fields=(b"host: x", b"connection: close")),
    request("/", b"ab", fields=(b"host: x", b"connection: keep-alive")),
    request("/", b"ab", fields=(b"host: x", b"expect: 100-continue")),
    request("/", b"ab", fields=(b"host: x", b"upgrade: h2c", b"connection: upgrade")),
    request("/", b"ab", fields=(b"host: x", b"content-length: 2")),
    request("/", b"ab", fields=(b"host: x", b"host: y")),
    request("/", b"ab", fields=()),
    b"POST / HTTP/1.0\r\nhost: x\r\ncontent-length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\nhost: x\ncontent-length: 6\n\nab\r\n\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"ab",
]


@st.composite
def conversations(draw):
    """Requests, most of them whole, some cut or run together. What comes meanwhile comes at once, and races nothing."""
    chunks = []
    for one in draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=10)):
        turns = st.sampled_from([0, 30])
        cut = draw(st.one_of(st.just(0), st.just(0), st.integers(0, len(one))))
        if cut:
            chunks.append((one[:cut], draw(turns)))
        if chunks and draw(st.integers(0, 5)) == 0:
            chunks[-1] = (chunks[-1][0] + one[cut:], chunks[-1][1])
        else:
            chunks.append((one[cut:], draw(turns)))
    return [(data, turns) for data, turns in chunks if data]


@settings(max_examples=300, deadline=None)
@given(conversations())
@example([(request("/", b"ab"), 30), (request("/", b"cd"), 30), (request("/", b"ef") * 2, 30)])
@example([(request("/later", b"ab"), 30), (request("/later", b"cd"), 0), (request("/later", b"ef"), 0)])
@example([(request("/", b"ab"), 30), (request("/", b"cdef")[:-1], 30), (b"f" + request("/", b"cdef"), 30)])
@example([(b"\r\n\r\n", 1), (request("/", b"ab"), 30), (b"\r\n\r\n", 1), (request("/", b"cd"), 30)])
def test_answers_are_those_of_uvicorn(chunks):
    async def both():
        plain, _ = await sent(BoundedProtocol, chunks)
        steady, _ = await sent(SteadyProtocol, chunks)
        led, _ = await sent(SteadyProtocol, chunks, led=True)
        assert steady.written == plain.written
        assert led.written == plain.written
        assert (steady.closed, led.closed) == (plain.closed, plain.closed)

    asyncio.run(both())


def run(*chunks):
    return asyncio.run(sent(SteadyProtocol, chunks, led=True))


def test_a_head_that_comes_again_is_not_read_again():
    wire, protocol = run((request("/", b"ab"), 30), (request("/", b"cd"), 30))
    assert isinstance(protocol.cycle, Steady)
    assert wire.written.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b'"body": "cd"' in wire.written


def test_a_head_with_another_length_is_not_read_again():
    wire, protocol = run((request("/", b"ab"), 30), (request("/", b"abcdefghijk"), 30))
    assert isinstance(protocol.cycle, Steady)
    assert b"(b'content-length', b'11')" in wire.written
    assert b'"body": "abcdefghijk"' in wire.written


def test_lengths_that_say_another_thing_are_read_anew():
    head = request("/", b"ab")[:-2]
    _, protocol = run((head + b"ab", 30))
    assert protocol._like(head.replace(b": 2", b": 30")).length == 30
    for length in (b"+3", b"03", b"3, 3", b"3 3", b"3 ", b"3\t", b"0x3", b"3" * 11, b"-1", b"", b"3\r\nx: y"):
        assert protocol._like(head.replace(b": 2", b": " + length)) is None, length


def test_lengths_are_remembered_up_to_a_bound():
    sizes = range(1, 2 * MOST_HEADS)
    wire, protocol = run(*((request("/", b"a" * size), 5) for size in sizes))
    assert len(protocol._heads) == MOST_HEADS // 2
    assert len(protocol._likes) == 1
    assert isinstance(protocol.cycle, Steady)
    assert wire.written.count(b"HTTP/1.1 200 OK\r\n") == len(sizes)


@pytest.mark.parametrize(
    "first",
    [
        request("/", b"ab", fields=(b"host: x", b"connection: close")),
        request("/", b"2\r\nab\r\n0\r\n\r\n", fields=(b"host: x", b"transfer-encoding: chunked"), length=False),
        request("/", b"ab", fields=(b"host: x", b"expect: 100-continue")),
        b"POST / HTTP/1.0\r\nhost: x\r\ncontent-length: 2\r\n\r\nab",
        b"\r\n" + request("/", b"ab"),
        request("/", b"ab") * 2,
        request("/", b"ab", fields=(b"host: x", b"x: " + b"y" * 5000)),
    ],
)
def test_only_plain_heads_are_remembered(first):
    _, protocol = run((first, 30))
    assert not protocol._heads


def test_large_heads_are_remembered_up_to_a_bound():
    fields = (b"host: x", b"x: " + b"y" * 3900)
    _, protocol = run(*((request(f"/{place}", b"ab", fields=fields), 5) for place in range(20)))
    assert len(protocol._heads) == MOST_BYTES // 8000


async def afterwards(path, seconds):
    """A connection with a known head, some time after its second request was sent."""
    config = uvicorn.Config(echo, http=SteadyProtocol, log_config=None, lifespan="off", ws="none")
    config.load()
    wire, protocol = Wire(), SteadyProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(wire)
    for body in (b"ab", b"cd"):
        first = wire.written
        protocol.data_received(request(path, body))
        await asyncio.sleep(0.005)
    assert isinstance(protocol.cycle, Steady)
    await asyncio.sleep(seconds)
    return wire.written.removeprefix(first), wire.closed


def test_a_stream_is_seen_to_begin_before_its_first_piece():
    written, _ = asyncio.run(afterwards("/silent/started", 0))
    assert written.startswith(b"HTTP/1.1 200")


def test_a_stream_that_breaks_ends_its_connection():
    written, closed = asyncio.run(afterwards("/silent/started", 0.6))
    assert written.startswith(b"HTTP/1.1 200")
    assert closed


def test_an_answer_that_breaks_before_its_body_is_an_error():
    assert asyncio.run(afterwards("/started", 0)) == (b"", False)
    written, closed = asyncio.run(afterwards("/started", 0.6))
    assert written.startswith(b"HTTP/1.1 500")
    assert closed


def test_who_sends_and_leaves_is_counted():
    async def crowd():
        config = uvicorn.Config(
            echo, http=SteadyProtocol, log_config=None, lifespan="off", ws="none", limit_concurrency=8
        )
        config.load()
        state, begin = ServerState(), Turnstile().begin
        refused = 0
        for _ in range(30):
            wire, protocol = Wire(), SteadyProtocol(config, state, {}, asyncio.get_running_loop())
            protocol.begin = begin
            protocol.connection_made(wire)
            for body in (b"ab", b"cd"):
                protocol.data_received(request("/long", body))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            refused += b"503" in wire.written
            protocol.connection_lost(None)
        under_way = len(state.tasks)
        for task in list(state.tasks):
            task.cancel()
        await asyncio.sleep(0.01)
        return under_way, refused

    under_way, refused = asyncio.run(crowd())
    assert under_way <= 9
    assert refused > 10


def test_so_many_heads_are_remembered_and_no_more():
    _, protocol = run(*((request(f"/{place}", b"ab"), 5) for place in range(3 * MOST_HEADS)))
    assert len(protocol._heads) == MOST_HEADS


def test_a_header_line_cannot_be_smuggled_into_an_answer():
    wire, protocol = run((request("/?ab", b"ab"), 30), (request("/evil", b"cd"), 30))
    assert protocol._heads
    assert b"set-cookie" not in wire.written
    assert wire.written.count(b"HTTP/1.1") == 1
    assert wire.closed


@pytest.mark.parametrize("path", ["/", "/whole", "/parts"])
def test_answered_requests_leave_no_cycles_behind(path):
    chunks = [(request(path, b"%04d" % number), 10) for number in range(200)]
    run(*chunks)
    gc.collect()
    gc.disable()
    try:
        run(*chunks)
        assert gc.collect() < 200
    finally:
        gc.enable()


def test_idle_connections_are_closed_and_busy_ones_are_not():
    async def watched(path):
        config = uvicorn.Config(
            echo, http=SteadyProtocol, log_config=None, lifespan="off", ws="none", timeout_keep_alive=0
        )
        config.load()
        wire, protocol = Wire(), SteadyProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(wire)
        protocol.data_received(request(path, b"ab"))
        await asyncio.sleep(0)
        was = wire.closed
        await asyncio.sleep(0.1)
        return was, wire.closed, wire.written

    was, ended, written = asyncio.run(watched("/"))
    assert (was, ended) == (False, True)
    assert written.startswith(b"HTTP/1.1 200")


def test_lines_of_answers_are_remembered_in_bounds():
    for number in range(3 * MOST_LINES):
        assert _line((b"X-Request", b"%d" % number)) == b"x-request: %d\r\n" % number
        assert _line((b"x-always", b"same")) == b"x-always: same\r\n"
    assert len(_LINES) <= MOST_LINES
    assert _line((b"x-request", b"a\nb")) is None
    assert _line((b"a b", b"c")) is None
    assert _line((b"Connection", b"close")) is None

"""Clients that are slow, large, or speak what two servers could read differently."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from bartizan.adapters.uvicorn import guarded
from bartizan.adapters.uvicorn.guarded import BoundedProtocol
from bartizan.adapters.uvicorn.steady import SteadyProtocol
from bartizan.lifecycle.deploy.gateway.turns import Turnstile

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def hello(scope, receive, send):
    body = b"x" * int(scope["query_string"] or 2)
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class LedProtocol(SteadyProtocol):
    begin = staticmethod(Turnstile().begin)


@pytest.fixture(scope="module", params=[BoundedProtocol, LedProtocol])
def port(request):
    config = uvicorn.Config(
        hello,
        port=0,
        http=request.param,
        log_config=None,
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_keep_alive=5,
        limit_concurrency=16,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(guarded, "HEAD_SECONDS", 0.6)
    monkeypatch.setattr(guarded, "READ_SECONDS", 0.3)


def said(connection, seconds=30.0):
    """Everything until the server closes."""
    connection.settimeout(seconds)
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            answer += data
    return answer


def answered(connection):
    """Whether one request of two letters is answered."""
    answer = b""
    while not answer.endswith(b"\r\n\r\nxx") and (data := connection.recv(4096)):
        answer += data
    return answer.startswith(b"HTTP/1.1 200")


def connected(port):
    return socket.create_connection(("127.0.0.1", port))


def let_in(port):
    """Whether somebody new is answered."""
    with connected(port) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(GET)
        return answered(connection)
    return False


def test_ordinary_requests_are_answered_again_and_again(port):
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert answered(connection)
            time.sleep(0.8)  # longer than a head may take: between requests uvicorn's own patience counts


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n\r\n", b"G"])
def test_heads_that_do_not_end_are_cut_off(port, sent):
    with connected(port) as connection:
        connection.sendall(sent)
        assert said(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"\r\n"])
def test_second_requests_are_no_way_around_it(port, sent):
    with connected(port) as connection:
        connection.sendall(GET)
        assert answered(connection)
        connection.sendall(sent)
        assert b"408" in said(connection)


def test_drip_feeding_buys_no_time(port):
    head = b"GET / HTTP/1.1\r\nx-slow: " + b"y" * 2000
    with connected(port) as connection, pytest.raises(ConnectionError):
        feed(connection, head)


def feed(connection, data):
    for letter in data:
        connection.sendall(bytes([letter]))
        time.sleep(0.02)


def test_slow_loris_keeps_nobody_out_for_long(port):
    slow = [connected(port) for _ in range(40)]
    try:
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        while not let_in(port):
            assert time.monotonic() - began < 30
            time.sleep(0.1)
    finally:
        for connection in slow:
            connection.close()


def test_heads_that_are_too_large_are_cut_off(port):
    with connected(port) as connection:
        sent = 0
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx: ")
            while sent < 64 << 20:
                connection.sendall(b"a" * 16384)
                sent += 16384
        assert sent < 4 << 20


def test_many_small_fields_are_refused(port):
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n")
        assert said(connection).startswith(b"HTTP/1.1 400")


def test_client_that_reads_nothing_is_let_go_of(port):
    with connected(port) as connection:
        connection.sendall(b"GET /?50000000 HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(1.0)
        assert len(said(connection)) < 50_000_000


def test_client_that_reads_slowly_gets_everything(port):
    with connected(port) as connection:
        connection.settimeout(3)
        connection.sendall(b"GET /?20000000 HTTP/1.1\r\nhost: x\r\n\r\n")
        got = 0
        while got < 20_000_000:
            got += len(connection.recv(1 << 20))
            time.sleep(0.005)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\ncontent-length: 0\r\n\r\n",
        b"POST / HTTP/1.1\nhost: a\n\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(port, sent):
    with connected(port) as connection:
        connection.sendall(sent)
        answer = said(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_http_1_0_needs_no_host(port):
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert said(connection).startswith(b"HTTP/1.1 200")

"""Clients that do what clients should not; the gateway stays what it was for everybody else."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest

from fixtures.gateways import configured, serving
from soak.tools import GET, INFER, ROW, body, memory, post, said, status, talk

GOOD = body()
CHUNKED = "transfer-encoding: chunked"
SMUGGLED = b"0\r\n\r\n" + GET


@pytest.fixture(scope="module")
def gateway(digits_project, tmp_path_factory):
    folder = configured(digits_project, tmp_path_factory.mktemp("clients") / "project")
    with serving(folder, recheck="5s") as client:
        yield client
        assert "Traceback" not in said(client)


@pytest.fixture(autouse=True)
def unharmed(gateway):
    """After each test the gateway answers as it did before."""
    assert status(gateway) == 200
    yield
    assert status(gateway) == 200
    assert gateway.process.poll() is None


SHAPES = {
    "both lengths": post(SMUGGLED, CHUNKED, "content-length: 4", length=False),
    "both lengths, turned": post(SMUGGLED, "content-length: 4", CHUNKED, length=False),
    "two lengths": post(GOOD, "content-length: 0"),
    "one length twice": post(GOOD, f"content-length: {len(GOOD)}"),
    "list of lengths": post(GOOD, f"content-length: {len(GOOD)}, {len(GOOD)}", length=False),
    "signed length": post(GOOD, f"content-length: +{len(GOOD)}", length=False),
    "negative length": post(GOOD, "content-length: -1", length=False),
    "length in base 16": post(GOOD, "content-length: 0x10", length=False),
    "length without end": post(GOOD, "content-length: " + "9" * 40, length=False),
    "unknown coding": post(SMUGGLED, "transfer-encoding: xchunked", length=False),
    "chunked and more": post(SMUGGLED, CHUNKED, "transfer-encoding: identity", length=False),
    "chunked twice": post(SMUGGLED, "transfer-encoding: chunked, chunked", length=False),
    "space before colon": post(SMUGGLED, "transfer-encoding : chunked", length=False),
    "vertical tab": post(SMUGGLED, "transfer-encoding: \x0bchunked", length=False),
    "folded field": post(GOOD, "x-a: 1\r\n folded"),
    "folded coding": post(SMUGGLED, "transfer-encoding:\r\n chunked", length=False),
    "bare line feeds": post(GOOD).replace(b"\r\n", b"\n"),
    "one bare line feed": post(GOOD, "x-a: 1\nx-b: 2"),
    "bare carriage return": post(GOOD, "x-a: 1\rx-b: 2"),
    "nul": post(GOOD, "x-a: a\0b"),
    "no chunk size": post(b"zz\r\n" + GOOD, CHUNKED, length=False),
    "negative chunk": post(b"-1\r\n" + GOOD, CHUNKED, length=False),
    "chunk size overflows": post(b"f" * 17 + b"\r\n" + GOOD, CHUNKED, length=False),
    "chunk ends in line feed": post(b"%x\n" % len(GOOD) + GOOD + b"\n0\n\n" + GET, CHUNKED, length=False),
    "line feed in extension": post(b"%x;a\nb\r\n" % len(GOOD) + GOOD + b"\r\n" + SMUGGLED, CHUNKED, length=False),
    "old version, chunked": post(SMUGGLED, CHUNKED, length=False).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /v2/health/live\r\n\r\n" + GET,
    "no host": GET.replace(b"host: gateway\r\n", b""),
    "two hosts": GET.replace(b"host: gateway", b"host: gateway\r\nhost: other"),
    "space in a name": post(GOOD, "x a: 1"),
    "too many fields": post(GOOD, *["x: y"] * 500),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_two_servers_could_read_differently_is_one_refusal(gateway, shape):
    """RFC 9112, sections 5 to 7 and 11.2; CWE-444."""
    assert talk(gateway.port, shape) == ([400], True)


def test_field_without_end_is_cut_off(gateway):
    before = memory(gateway.process)
    statuses, closed = talk(gateway.port, GET[:-2] + b"x: " + b"a" * (32 << 20))
    assert closed
    assert statuses in ([], [431], [400])
    assert memory(gateway.process) < before + 16


def test_oversized_bodies_are_refused_before_they_fill_the_memory(gateway):
    before = memory(gateway.process)
    statuses, _ = talk(gateway.port, post(b"[" * 100, "content-length: 10000000000", length=False), 15)
    assert statuses in ([413], [408])
    statuses, closed = talk(gateway.port, post(b"x" * (64 << 20)))
    assert statuses in ([413], [])
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    statuses, closed = talk(gateway.port, post(chunk * 64, CHUNKED, length=False))
    assert (statuses in ([413], []), closed) == (True, True)
    assert memory(gateway.process) < before + 64


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"inputs": ' + b"[" * 500_000,
        b'{"inputs": [{"name": "features", "shape": [1, 64], "datatype": "FP64", "data": ' + b"[" * 500_000,
        b'{"inputs": [{"name": "features", "shape": [1, 64], "datatype": "FP64", "parameters": ' + b'{"a":' * 100_000,
        b'{"inputs": [{"name": "features", "shape": [' + b"9" * 100_000,
        b'{"inputs": [{"name": "features", "shape": [1, 64], "datatype": "FP64", "data": [1e'
        + b"9" * 100_000
        + b"]}]}",
        b"\xff" * 100_000,
    ],
    ids=["lists", "objects", "inputs", "data", "parameters", "shape", "number", "no text"],
)
def test_deeply_nested_bodies_are_refused_quickly(gateway, content):
    began = time.monotonic()
    assert talk(gateway.port, post(content, "connection: close"))[0] == [400]
    assert time.monotonic() - began < 30


def test_slow_heads_keep_nobody_out(gateway):
    """More connections than there may be, each with a head that never ends (slow loris)."""
    slow = []
    try:
        for _ in range(300):
            connection = socket.create_connection(("127.0.0.1", gateway.port))
            connection.sendall(b"POST / HTTP/1.1\r\nhost: gateway\r\n")
            slow.append(connection)
        end = time.monotonic() + 15
        while status(gateway) != 200:
            assert time.monotonic() < end
            for connection in slow:
                try:
                    connection.send(b"x-a: b\r\n")
                except OSError:
                    continue
            time.sleep(0.5)
    finally:
        for connection in slow:
            connection.close()


def test_slow_bodies_keep_nobody_out(gateway):
    head = post(GOOD)[: -len(GOOD)]
    slow = []
    try:
        for _ in range(200):
            connection = socket.create_connection(("127.0.0.1", gateway.port))
            connection.sendall(head + GOOD[:10])
            slow.append(connection)
        end = time.monotonic() + 30
        while status(gateway) != 200:
            assert time.monotonic() < end
            time.sleep(0.5)
    finally:
        for connection in slow:
            connection.close()


def test_clients_that_leave_leave_nothing_behind(gateway):
    before = memory(gateway.process)

    def leave():
        for number in range(500):
            with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
                data = post(GOOD)
                connection.sendall(data[: len(data) // 2] if number % 2 else data)

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + 30
    while status(gateway) != 200:
        assert time.monotonic() < end
    assert memory(gateway.process) < before + 24


def test_binary_rubbish_of_all_lengths_is_refused(gateway):
    rng = np.random.default_rng(0)
    for length in (1, 10, 100, 1000, 100_000):
        for head in (0, 1, length // 2, length, length + 1, 2**31, -1):
            content = rng.bytes(length)
            fields = (f"inference-header-content-length: {head}", "connection: close")
            request = post(content, *fields).replace(b"application/json", b"application/octet-stream")
            statuses, _ = talk(gateway.port, request, 2.0)
            assert statuses, (length, head)
            assert 400 <= statuses[0] < 500, (length, head)


def test_memory_is_flat(gateway, minutes):
    """All kinds of requests, good and bad, for as long as is wished; the last quarter holds no more than the second."""
    rng, end, held = np.random.default_rng(0), time.monotonic() + 60 * minutes, []
    bad = [post(b"[" * 10_000), post(b"\xff" * 1000), SHAPES["two lengths"], SHAPES["folded field"], GET[:-2]]
    began, asked = time.monotonic(), 0
    while time.monotonic() < end:
        for _ in range(200):
            row = np.rint(np.clip(ROW + rng.normal(0, 3, 64), 0, 16))
            assert gateway.raw("POST", INFER, body(row), {"content-type": "application/json"})[0] == 200
            asked += 1
        talk(gateway.port, bad[asked // 200 % len(bad)], 0.2)
        held.append((time.monotonic() - began, memory(gateway.process)))
    quarter = len(held) // 4
    second = float(np.median([size for _, size in held[quarter : 2 * quarter]]))
    last = float(np.median([size for _, size in held[-quarter:]]))
    slope = np.polyfit([at / 3600 for at, _ in held[quarter:]], [size for _, size in held[quarter:]], 1)[0]
    print(f"{asked} requests; {second:.1f} MiB in the second quarter, {last:.1f} in the last, {slope:+.1f} MiB an hour")
    assert last < second + 8

"""The process is hostile here: each program below is all of it."""

from __future__ import annotations

import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.errors import SandboxError
from bartizan.targets.isolated import MAX_HEADER, Isolated, Limits, Reply

ANSWER = """
import os, socket, sys
channel = socket.socket(fileno=0)
length = int.from_bytes(channel.recv(4), 'big')
question = channel.recv(length)
"""


def process(program, limits=None):
    return Isolated((sys.executable, "-I", "-S", "-c", ANSWER + program), "victim", limits or Limits())


def sent(data: bytes) -> str:
    return f"channel.sendall({data!r})"


def framed(value) -> bytes:
    packed = msgspec.msgpack.encode(value)
    return len(packed).to_bytes(4, "big") + packed


def test_an_answer_of_the_expected_size_comes_back():
    child = process(sent(framed({"facts": {"classes": 3}}) + b"12345678"))
    reply, body = child.exchange({"do": "x"}, size=8, seconds=30)
    assert (msgspec.msgpack.decode(reply.facts), bytes(body)) == ({"classes": 3}, b"12345678")
    child.close()


def test_an_error_has_no_bytes_and_its_words_are_made_printable():
    child = process(sent(framed({"error": "failed", "what": "no\x1b[31m\n" + "x" * 1000})))
    reply, body = child.exchange({"do": "x"}, size=8, seconds=30)
    assert (reply.error, body) == ("failed", b"")
    assert reply.words.startswith("no [31m x")
    assert len(reply.words) == 500
    child.close()


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        (sent(b"\xff" * 64), "broke the protocol"),
        (sent((MAX_HEADER + 1).to_bytes(4, "big")), "broke the protocol"),
        (sent(framed({"error": "invented"})), "broke the protocol"),
        (sent(framed({"what": 7})), "broke the protocol"),
        (sent(framed([1, 2])), "broke the protocol"),
        (sent(framed({})) + "; sys.exit(5)", r"died \(exit code 5\)"),
        ("os.kill(os.getpid(), 11)", r"died \(SIGSEGV\)"),
        ("os.kill(os.getpid(), 24)", "used more than 9 seconds of processor time"),
        ("channel.close(); import time; time.sleep(60)", "closed its socket"),
        (sent(framed({"error": "memory"})), "needs more than its 1 MiB of memory"),
        ("import time; time.sleep(60)", "gave no answer within 1 seconds"),
        (sent(framed({}) + b"1234567") + "; import time; time.sleep(60)", "gave no answer within 1 seconds"),
    ],
)
def test_whatever_goes_wrong_ends_the_process_and_says_so(program, fault):
    child = process(program, Limits(memory_bytes=1 << 20, cpu_seconds=9))
    with pytest.raises(SandboxError, match=f"the process that holds model 'victim' {fault}") as error:
        child.exchange({"do": "x"}, size=8, seconds=1 if "within 1" in fault else 30)
    assert error.value.remedy
    assert child._process.poll() is not None


def test_drops_of_an_answer_do_not_stretch_the_time_it_may_take():
    drip = "\nimport time\nfor byte in bytes(100):\n  channel.sendall(bytes([byte])); time.sleep(0.3)"
    child = process(sent(framed({})) + drip)
    with pytest.raises(SandboxError, match="gave no answer within 1 seconds"):
        child.exchange({"do": "x"}, size=10_000, seconds=1)


def test_a_process_that_does_not_read_is_not_waited_for():
    child = process("import time; time.sleep(60)")
    with pytest.raises(SandboxError, match="gave no answer within 1 seconds"):
        child.exchange({"do": "x"}, [memoryview(bytes(1 << 26))], length=1 << 26, seconds=1)


def test_a_closed_process_answers_no_more():
    child = process("import time; time.sleep(60)")
    child.close()
    with pytest.raises(SandboxError, match="has been ended"):
        child.exchange({"do": "x"}, size=0, seconds=1)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_header_is_a_reply_or_an_error(data):
    try:
        reply = msgspec.msgpack.decode(data, type=Reply)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert reply.error in {"", "refused", "failed", "memory"}
    assert reply.words.isprintable()

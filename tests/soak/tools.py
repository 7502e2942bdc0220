"""What the soak tests share: bytes on sockets, processes looked at from outside."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path

import numpy as np

ROW = np.tile([0.0, 4.0, 12.0, 16.0, 8.0, 2.0, 0.0, 0.0], 8)
INFER = "/v2/models/digits/infer"


def body(row=ROW):
    """An inference request about one digit."""
    tensor = {"name": "features", "shape": [1, 64], "datatype": "FP64", "data": list(row)}
    return json.dumps({"inputs": [tensor]}).encode()


def post(content=b"", *fields, path=INFER, length=True):
    """Bytes of a request; ``fields`` are lines of its head."""
    lines = [f"POST {path} HTTP/1.1", "host: gateway", "content-type: application/json", *fields]
    if length:
        lines.append(f"content-length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


GET = b"GET /v2/health/live HTTP/1.1\r\nhost: gateway\r\n\r\n"


def talk(port, data, seconds=3.0):
    """Send bytes; gives the statuses of the answers and whether the server closed the connection."""
    answer, closed = b"", False
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(data)
        try:
            while part := connection.recv(1 << 16):
                answer += part
            closed = True
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)], closed


def until(question, wanted, seconds=60.0):
    """Ask again and again until the answer is as wanted; gives all that was answered."""
    answers, end = [], time.monotonic() + seconds
    while not answers or not wanted(answers[-1]):
        assert time.monotonic() < end, answers[-20:]
        answers.append(question())
        time.sleep(0.2)
    return answers


def status(client, row=ROW):
    """Of one inference; 0 when the connection broke."""
    try:
        return client.raw("POST", INFER, body(row), {"content-type": "application/json"})[0]
    except (OSError, EOFError):
        return 0


def memory(process):
    """Anonymous memory of a process in MiB: its own, whatever others do with the libraries that they share."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def descendants(pid):
    """Ids of all processes that a process has started, and so on."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def said(client):
    """What the server wrote to its output."""
    return (client.folder.parent / f"server-{client.folder.name}.txt").read_text()

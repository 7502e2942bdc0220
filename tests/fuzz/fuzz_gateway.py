"""Mutates requests of the Open Inference Protocol, JSON and binary, against a running gateway.

``python tests/fuzz/fuzz_gateway.py --seconds 600`` starts a gateway of its own. What counts: no answer with a status
of 500 or more, none that says who is let in, and a server that is alive afterwards.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HEAD = "Inference-Header-Content-Length"
PATIENCE = 60
DEEPEST, CHANGED = 6, 0.25
NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 1e308, -1e-308, 10**40)
WORDS = ("", "features", "FP32", "BYTES", "\0", "é" * 50, "../..", "x" * 300, "__class__", "NaN")


def sound(rng, features):
    """A request that is right: its head as a document, and its tensor."""
    rows = int(rng.integers(1, 4))
    tensor = rng.uniform(0, 16, (rows, features)).astype("<f4")
    head = {
        "id": "1",
        "inputs": [
            {
                "name": "features",
                "shape": [rows, features],
                "datatype": "FP32",
                "parameters": {"binary_data_size": tensor.nbytes},
            }
        ],
        "parameters": {"binary_data_output": bool(rng.integers(2))},
    }
    return head, tensor.tobytes()


def mutated(rng, value, depth=0):
    """The same document with something in it that is not right."""
    if isinstance(value, dict) and value and depth < DEEPEST:
        key = str(rng.choice(list(value)))
        without = {name: inner for name, inner in value.items() if name != key}
        twice = value | {str(rng.choice(WORDS)): value[key]}
        return (
            (without, twice)[rng.integers(2)]
            if rng.random() < CHANGED
            else value | {key: mutated(rng, value[key], depth + 1)}
        )
    if isinstance(value, list) and value and depth < DEEPEST:
        place = int(rng.integers(len(value)))
        if rng.random() < CHANGED:
            return (value[:place], value * 3)[rng.integers(2)]
        return [*value[:place], mutated(rng, value[place], depth + 1), *value[place + 1 :]]
    other = (None, True, [], {}, [[]], NUMBERS[rng.integers(len(NUMBERS))], WORDS[rng.integers(len(WORDS))])
    return other[rng.integers(len(other))]


def request(rng, features):
    """Body and headers of one request, mutated in none, one or several ways."""
    head, tail = sound(rng, features)
    for _ in range(int(rng.integers(0, 3))):
        head = mutated(rng, head)
    if rng.random() < 0.2 and isinstance(head, dict) and isinstance(head.get("inputs"), list) and head["inputs"]:
        flat = np.frombuffer(tail[: len(tail) // 4 * 4], "<f4").tolist()
        head = head | {"inputs": [{"name": "features", "shape": [1, features], "datatype": "FP64", "data": flat}]}
    written = json.dumps(head).encode()
    length = len(written)
    match rng.integers(8):
        case 0:
            tail = tail[: int(rng.integers(0, len(tail) + 1))]
        case 1:
            tail = bytes(rng.integers(0, 256, len(tail), dtype=np.uint8))
        case 2:
            length = int(rng.choice([0, 1, length - 1, length + 1, len(written) + len(tail), 2**40]))
        case 3:
            place = int(rng.integers(len(written)))
            written = written[:place] + bytes([int(rng.integers(256))]) + written[place + 1 :]
            length = len(written)
    fields = {"Content-Type": "application/octet-stream", HEAD: str(length)}
    match rng.integers(10):
        case 0:
            fields[HEAD] = str(rng.choice(["", "-1", "1e3", " 7", "0x10", "9" * 40]))
        case 1:
            del fields[HEAD]
        case 2:
            fields["Content-Type"] = str(
                rng.choice(["application/json", "text/plain", "", 'application/json; q="', "a/b"])
            )
    return written + tail, fields


def fuzz(port, key, model, *, features, requests=0, seconds=0.0, seed=0):
    """Send mutated requests; gives how often each status was answered.

    Raises:
        AssertionError: the server did not answer, or answered with something that is no JSON.
    """
    rng, seen, until = np.random.default_rng(seed), collections.Counter(), time.monotonic() + seconds
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        while sum(seen.values()) < requests or time.monotonic() < until:
            body, fields = request(rng, features)
            connection.request("POST", f"/v2/models/{model}/infer", body, {"Authorization": f"Bearer {key}", **fields})
            answer = connection.getresponse()
            said, length = answer.read(), answer.getheader(HEAD)
            json.loads(said[: int(length)] if length else said)
            seen[answer.status] += 1
            assert answer.status < 500, (answer.status, said, fields, body[:2000])
            if answer.will_close:
                connection.close()
    return seen


def main():
    """Start a gateway and mutate for as long as wanted."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fixtures import gateways  # noqa: PLC0415 - after the path is known

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base = gateways.declare_digits(Path(place) / "base")
        folder = gateways.configured(base, Path(place) / "project", "[identity.keys]\n[role.engineer]\n")
        key = gateways.key_of(folder, "engineer")
        with gateways.serving(folder) as client:
            seen = fuzz(client.port, key, "digits", features=64, seconds=wanted.seconds, seed=wanted.seed)
            assert client.ask("GET", "/v2/health/ready")[0] == 200
    print(f"{sum(seen.values())} requests, by status: {dict(sorted(seen.items()))}")


if __name__ == "__main__":
    main()

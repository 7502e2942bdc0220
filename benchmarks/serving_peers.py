"""Serving one small model: the floor, Bartizan with its protections, and the peers without any, in one run.

Each server has core 0 and one worker, the client core 1. They take turns, and are stopped until the next. Peers live in
environments of their own under ``PEERS`` (``$BARTIZAN_PEERS``); one that is not there is named and left out:

    uv venv PEERS/mlflow && uv pip install --python PEERS/mlflow/bin/python mlflow onnx onnxruntime
    uv venv PEERS/bentoml && uv pip install --python PEERS/bentoml/bin/python bentoml onnxruntime
    uv venv PEERS/litserve && uv pip install --python PEERS/litserve/bin/python litserve onnxruntime
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import floor
from common import promise, tell
from serving_load import Server, free_port, measured, paired, request

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("BARTIZAN_PEERS", "build/peers"))


DURABLE = "floor that waits for the disk"
USERS = """
[identity.keys]

[role.reader]
operations = ["infer", "metadata"]
detail = "label"
budgets = ["daily"]
pad_milliseconds = 0

[budget.daily]
limit = 1000000000
window = "1d"

[[guard]]
use = "schema"

[[guard]]
use = "rules"
rule = [
  { name = "doubtful", when = "confidence < 0.12", then = "hold" },
  { name = "close", when = "label == '7' and margin < 0.01", then = "flag" },
]
"""
WRITTEN = """
[audit]
mode = "written"
"""
DURABLY = """
[audit]
mode = "durable"
"""
DETECTION = """
[[guard]]
use = "outliers"

[[guard]]
use = "sequence"
mode = "shadow"
"""


def plain(body, key):
    """An inference request as nested rows, which is how the peers take it."""
    tensor = json.loads(body)["inputs"][0]
    width = tensor["shape"][1]
    return json.dumps({key: [tensor["data"][at : at + width] for at in range(0, len(tensor["data"]), width)]}).encode()


def oip(body):
    return body


def bare(model, folder, port):
    command = [sys.executable, str(HERE / "floor.py"), "serve", str(model), str(port)]
    return Server(command, port, f"{folder}/floor.log"), "/", oip, ()


def durable(model, folder, port):
    command = [sys.executable, str(HERE / "floor.py"), "serve", str(model), str(port), f"{folder}/floor-lines"]
    return Server(command, port, f"{folder}/floor-durable.log"), "/", oip, ()


def mlflow(model, folder, port):
    home = PEERS / "mlflow" / "bin"
    saved = f"{folder}/mlflow"
    subprocess.run([home / "python", HERE / "serving/mlflow_model.py", model, saved], check=True, capture_output=True)
    command = [f"{home}/mlflow", "models", "serve", "-m", saved, "-p", str(port), "--env-manager", "local"]
    path = f"{home}:{os.environ['PATH']}"
    server = Server(command, port, f"{folder}/mlflow.log", PATH=path, MLFLOW_DISABLE_TELEMETRY="true")
    return server, "/invocations", lambda body: plain(body, "inputs"), ()


def bentoml(model, folder, port):
    home = PEERS / "bentoml" / "bin"
    command = [
        f"{home}/bentoml",
        "serve",
        "bento_service:Digits",
        "--port",
        str(port),
        "--working-dir",
        f"{HERE}/serving",
    ]
    server = Server(
        command, port, f"{folder}/bentoml.log", MODEL=str(model), BENTOML_DO_NOT_TRACK="true", BENTOML_HOME=folder
    )
    return server, "/predict", lambda body: plain(body, "rows"), ()


def litserve(model, folder, port):
    command = [f"{PEERS}/litserve/bin/python", str(HERE / "serving/litserve_app.py"), str(port)]
    server = Server(command, port, f"{folder}/litserve.log", MODEL=str(model), LIT_TELEMETRY="0")
    return server, "/predict", lambda body: plain(body, "rows"), ()


@functools.cache
def declared(folder):
    """The digits example with this model, declared and registered."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from fixtures import gateways  # noqa: PLC0415 - the tests' way of declaring a project

    return gateways, gateways.declare_digits(Path(folder) / "declared")


def gateway(name, configuration, checks):
    """Bartizan with this configuration, as people run it."""

    def start(model, folder, port):
        del model
        gateways, base = declared(folder)
        project = gateways.configured(base, Path(folder) / name, configuration, checks=checks)
        key = gateways.key_of(project, "reader")
        command = [sys.executable, "-m", "bartizan", "serve", "--gate", "deploy", "--port", str(port)]
        server = Server(command, port, f"{folder}/{name}.log", folder=project)
        return server, "/v2/models/digits/infer", oip, (("authorization", f"Bearer {key}"),)

    return start


SERVERS = {
    "floor": bare,
    DURABLE: durable,
    "bartizan, protections": gateway("protections", USERS + WRITTEN, ("scan",)),
    "bartizan, protections + detection": gateway(
        "detection", USERS + DETECTION + WRITTEN, ("scan", "gateway.outliers", "gateway.sequence")
    ),
    "bartizan, protections, durable": gateway("protections-durable", USERS + DURABLY, ("scan",)),
    "bartizan, protections + detection, durable": gateway(
        "detection-durable", USERS + DETECTION + DURABLY, ("scan", "gateway.outliers", "gateway.sequence")
    ),
    "mlflow": mlflow,
    "bentoml": bentoml,
    "litserve": litserve,
}
HALF = (0.4, 0.6)
"""Shares of the time for which a core is taken to be half busy."""
MOST_MORE = 3.0
"""Milliseconds that one in a hundred may wait longer for than at the floor."""
PROMISES = {
    "bartizan, protections": 1.5,
    "bartizan, protections + detection": 2.2,
    "bartizan, protections, durable": 1.5,
    "bartizan, protections + detection, durable": 2.2,
}


def row(found, base):
    p50, p99 = (found.latency.quantile(share) for share in (0.5, 0.99))
    notes = f"{found.bad} not answered" if found.bad else ""
    return (
        f"{found.name:<44} {found.cost:9.0f} {found.beside(base):7.2f} {found.rate:9.0f} {p50:9.1f} {p99:9.1f} "
        f"{found.memory:8.0f}  {notes}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--histograms", action="store_true", help="print the latencies of each in full")
    wanted = parser.parse_args()
    started = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = Path(folder) / "digits.onnx"
        floor.write_model(model)
        bodies = floor.bodies(wanted.rows)
        for name, start in SERVERS.items():
            if wanted.only and not name.startswith("floor") and not any(word in name for word in wanted.only):
                continue
            if name in {"mlflow", "bentoml", "litserve"} and not (PEERS / name).exists():
                print(f"{name}: not installed in {PEERS}, left out")
                continue
            try:
                started.append(ready(name, start, (model, folder), bodies))
                stack.callback(started[-1][1].close)
            except (RuntimeError, AssertionError, subprocess.CalledProcessError) as error:
                print(f"{name}: could not be measured: {error}")
        results = measured(started, seconds=wanted.seconds, rounds=wanted.rounds)
        table(results, wanted)
        own = [item for item in results if item.name.startswith("bartizan")]
        pairs = paired(own, results[0], seconds=wanted.seconds, rounds=wanted.rounds)
    halves(pairs, wanted)
    kept = [one for pair in pairs for one in promises(pair)]
    return 0 if all(kept) or wanted.rows != 1 else 1


def promises(pair):
    """What is promised of CPU, and of the time that one in a hundred waits longer for at half load."""
    found, floors = pair.measured, pair.floor
    longer = pair.latency.quantile(0.99) - pair.floors.quantile(0.99)
    fastest = found.latency.quantile(0.99) - floors.latency.quantile(0.99)
    busy = median(pair.busy or [math.nan])
    kept = [
        promise(f"requests without an answer, {found.name}", found.bad, 0, ""),
        promise(f"distance from a core that is half busy, {found.name}", abs(busy - sum(HALF) / 2), HALF[1] - 0.5, ""),
        promise(f"CPU of a request, {found.name}", found.beside(floors), PROMISES[found.name]),
        promise(f"p99 at half load over the floor's, {found.name}", longer, MOST_MORE, "ms"),
    ]
    tell(f"the same, each at half of its highest rate, {found.name}", fastest, "ms", "whatever the host did meanwhile")
    return kept


def ready(name, start, made, bodies):
    port = free_port()
    server, path, spoken, headers = start(*made, port)
    server.wait()
    return name, server, [request(port, path, spoken(body), headers) for body in bodies]


def table(results, wanted):
    base = results[0]
    head = f"{wanted.rows} row(s) a request"
    columns = ("CPU us", "x floor", "a second", "p50 ms", "p99 ms", "MiB")
    widths = (9, 7, 9, 9, 9, 8)
    print(f"\n{head:<44} {' '.join(f'{name:>{width}}' for name, width in zip(columns, widths, strict=True))}")
    print(f"{'':<44} {'(p50 and p99 at half of that load, from when each request was due)':>56}")
    for found in results:
        print(row(found, base))
        if wanted.histograms:
            print("    " + "\n    ".join(found.latency.lines()))
    sys.stdout.flush()


def halves(pairs, wanted):
    """Latencies at the rate that keeps half of a core busy, and the floor's at the same rate."""
    if not pairs:
        return
    columns = ("a second", "core", "p50 ms", "p99 ms", "floor p50", "floor p99", "rounds")
    print(f"\n{'half of the core busy':<44} {' '.join(f'{name:>9}' for name in columns)}")
    for pair in pairs:
        if not pair.busy:
            print(f"{pair.measured.name:<44} no round of {pair.tried} was left alone by the host")
            continue
        figures = [each.quantile(share) for each in (pair.latency, pair.floors) for share in (0.5, 0.99)]
        shown = " ".join(f"{value:9.1f}" for value in figures)
        left_alone = f"{len(pair.busy):4d} of {pair.tried}"
        print(f"{pair.measured.name:<44} {pair.rate:9.0f} {median(pair.busy):9.0%} {shown} {left_alone}")
        if wanted.histograms:
            print("    " + "\n    ".join(pair.latency.lines()))


if __name__ == "__main__":
    sys.exit(main())

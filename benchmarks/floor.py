"""The floor under every serving figure: bare ASGI, msgspec and ONNX Runtime on uvicorn, with no protection at all.

``floor.py`` measures it; ``floor.py serve MODEL PORT`` is it; ``floor.py model FILE`` writes the model: a perceptron
with 64 hidden units for scikit-learn's 8 x 8 digits, as ONNX. ``floor.py serve MODEL PORT LOG`` answers no request
before a line about it is on disk, all that came meanwhile with one wait for it: what durability costs by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

CLASSES = tuple("0123456789")
LINE = b"x" * 500 + b"\n"
"""As long as a record of the gateway's audit log."""


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Asked(msgspec.Struct):
    """A request."""

    inputs: list[Tensor]


class Log:
    """Lines that are on disk once ``written`` has come back."""

    def __init__(self, path):
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - for as long as the server runs
        self._lines, self._future, self._busy = [], None, False
        self._thread = ThreadPoolExecutor(1)

    def written(self, line):
        """What has to be waited for."""
        loop = asyncio.get_running_loop()
        self._lines.append(line)
        if self._future is None:
            self._future = loop.create_future()
            if not self._busy:
                self._busy = True
                loop.call_soon(self._write)
        return asyncio.shield(self._future)

    def _write(self):
        (lines, future), self._lines, self._future = (self._lines, self._future), [], None
        self._file.write(b"".join(lines))
        loop = asyncio.get_running_loop()
        on_disk = loop.run_in_executor(self._thread, os.fdatasync, self._file.fileno())
        on_disk.add_done_callback(lambda done: self._landed(future, done.exception()))

    def _landed(self, future, error):
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        if self._future is None:
            self._busy = False
        else:
            self._write()


def application(path, log=None):
    import onnxruntime  # noqa: PLC0415 - only the server needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, decoder, encoder = session.get_inputs()[0].name, msgspec.json.Decoder(Asked), msgspec.json.Encoder()
    start = {"type": "http.response.start", "status": 200}

    async def answer(scope, receive, send):
        del scope
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        tensor = decoder.decode(body).inputs[0]
        rows = np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)
        labels = session.run(["label"], {name: rows})[0].tolist()
        said = {
            "model_name": "digits",
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [len(labels)], "data": [CLASSES[i] for i in labels]}
            ],
        }
        out = encoder.encode(said)
        if log is not None:
            await log.written(LINE)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    return answer


def serve(path, port, log=None):
    import uvicorn  # noqa: PLC0415

    uvicorn.run(
        application(path, log and Log(log)),
        port=int(port),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
    )


def write_model(path):
    from skl2onnx import to_onnx  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    rows, labels = load_digits(return_X_y=True)
    model = MLPClassifier((64,), max_iter=200, random_state=0).fit(rows[:1200], labels[:1200])
    print(f"accuracy on 597 held-out digits {model.score(rows[1200:], labels[1200:]):.3f}")
    made = to_onnx(model, rows[:1].astype(np.float32), options={id(model): {"zipmap": False}})
    names = {made.graph.output[0].name: "label"}
    for node in made.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
    made.graph.output[0].name = "label"
    Path(path).write_bytes(made.SerializeToString())


def bodies(rows, count=4096):
    """Inference requests about so many digits each, all different: mixtures of two digits of one kind."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    data, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(data), count * rows)
    second = np.array([rng.choice(np.flatnonzero(labels == labels[at])) for at in first])
    mixed = np.rint(0.6 * data[first] + 0.4 * data[second]).reshape(count, rows, -1)
    frame = {"name": "features", "shape": [rows, data.shape[1]], "datatype": "FP64"}
    tensors = ({**frame, "data": each.ravel().tolist()} for each in mixed)
    return [msgspec.json.encode({"inputs": [tensor]}) for tensor in tensors]


def main():
    from serving_load import Server, free_port, measured, request  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        model, port = f"{folder}/digits.onnx", free_port()
        write_model(model)
        server = Server([sys.executable, __file__, "serve", model, str(port)], port, f"{folder}/log").wait()
        try:
            asked = [
                (f"floor, {rows} rows", server, [request(port, "/", body) for body in bodies(rows, 1024)])
                for rows in (1, 32)
            ]
            for found in measured(asked):
                print(f"{found.name}: {found.cost:.0f} us CPU a request, {found.rate:.0f} requests/s, {found.bad} bad")
                print("  at half load: " + ", ".join(" ".join(line.split()) for line in found.latency.lines()))
                print(f"  memory {found.memory:.0f} MiB")
        finally:
            server.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", path, port, *log]:
            serve(path, port, *log)
        case ["model", path]:
            write_model(path)
        case _:
            main()

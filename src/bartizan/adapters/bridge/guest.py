"""The far end of a bridge: runs an attacker of others in an interpreter of theirs, and asks for it.

Started as a program, never imported; it needs the standard library, numpy and the attacker, nothing of
Bartizan. ``bartizan.redteam.bridge`` describes the protocol and believes nothing that comes from here.

What an attacker is given is one sample at a time, so that each question is charged to the sample it is
asked for. Attackers that know one size for all features see values in units of the task's scale.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import inspect
import json
import os
import random
import resource
import runpy
import socket
import sys
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray
else:
    try:
        import numpy as np
    except ImportError:
        np = None

LENGTH = 4
MAX_WORDS = 400
MAX_FILE_BYTES = 64 << 20
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
SET_PARENT_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES, KILL = 1, 38, 9
NARROW = 1e-6
"""Width that a feature without any gets, because some attackers refuse a range of a single value."""


class Over(BaseException):
    """The budget of the sample is over. No ``Exception``, so that attackers which catch those do not go on."""


class Channel:
    """Frames over a socket: a length, that much JSON, then the bytes that it announces."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        """One message."""
        packed = json.dumps({**header, "bytes": len(body)}).encode()
        self._end.sendall(len(packed).to_bytes(LENGTH, "big") + packed + body)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next message. When nobody is there any more, there is nothing left to do."""
        header: dict[str, Any] = json.loads(self._read(int.from_bytes(self._read(LENGTH), "big")))
        return header, self._read(header["bytes"])

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._end.recv(min(size, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Model:
    """The model under attack, as an attacker's own program sees it: rows in the units of the data."""

    def __init__(self, channel: Channel, *, features: int, classes: int, scores: bool) -> None:
        self._channel, self.features, self.classes = channel, features, classes
        self.gives_scores = scores
        self.sample = 0
        """Whom questions are charged to when the attacker does not say."""

    def labels(self, rows: Any, sample: int | None = None) -> NDArray[np.int64]:
        """Class of each row, ``(batch,)``."""
        return np.frombuffer(self._ask("labels", rows, sample), dtype="<i8")

    def scores(self, rows: Any, sample: int | None = None) -> NDArray[np.float64]:
        """Scores of each row, ``(batch, classes)``; 0 and 1 where the interface tells classes only."""
        if not self.gives_scores:
            return np.eye(self.classes)[self.labels(rows, sample)]
        return np.frombuffer(self._ask("scores", rows, sample), dtype="<f8").reshape(-1, self.classes)

    def _ask(self, what: str, rows: Any, sample: int | None) -> bytes:
        asked = np.ascontiguousarray(np.reshape(np.asarray(rows, dtype="<f8"), (-1, self.features)))
        who = self.sample if sample is None else sample
        self._channel.send({"ask": what, "rows": len(asked), "sample": int(who)}, asked.tobytes())
        header, body = self._channel.receive()
        if "over" in header:
            raise Over(header["over"])
        return body


class Scaled:
    """The same model for attackers that measure all features alike: values in units of the scale, from 0."""

    def __init__(self, model: Model, task: SimpleNamespace) -> None:
        self.model, self.task = model, task
        self.high = np.maximum((task.high - task.low) / task.scale, NARROW)
        self.shape = tuple(task.shape) or (model.features,)

    def near(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rows of the data as the attacker sees them, ``(batch, *shape)``."""
        units = (rows - self.task.low) / self.task.scale
        return np.asarray(units, dtype=np.float32).reshape(-1, *self.shape)

    def far(self, units: Any) -> NDArray[np.float64]:
        """What the attacker speaks of as rows of the data."""
        flat = np.asarray(units, dtype=np.float64).reshape(-1, self.model.features)
        return np.asarray(flat * self.task.scale + self.task.low)

    def scores(self, units: Any) -> NDArray[np.float64]:
        """Scores, ``(batch, classes)``."""
        return self.model.scores(self.far(units))


# ---- attackers


def of_file(path: str, model: Model, task: SimpleNamespace, options: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """A program of the user's own: ``attack(model, task, **options)`` gives rows for all samples, or nothing."""
    return runpy.run_path(path)["attack"](model, task, **options)  # type: ignore[no-any-return]


def of_art(name: str, model: Model, task: SimpleNamespace, options: Mapping[str, Any]) -> Callable[[int], Any]:
    """An evasion attack of the Adversarial Robustness Toolbox that gets by with predictions."""
    kind = _named("art.attacks.evasion", name)
    estimators = importlib.import_module("art.estimators.classification")
    scaled = Scaled(model, task)
    low, high = np.zeros(scaled.shape, np.float32), scaled.high.reshape(scaled.shape).astype(np.float32)
    # Some attacks insist on a network although predictions are all that they use.
    victim = estimators.BlackBoxClassifierNeuralNetwork(
        scaled.scores, scaled.shape, model.classes, channels_first=True, clip_values=(low, high)
    )
    known = set(getattr(kind, "attack_params", ()))
    chosen = {"norm": _norm(task.norm), "eps": task.max_change, "targeted": False, "verbose": False}
    settings = {key: value for key, value in chosen.items() if key in known} | dict(options)

    def attack(sample: int) -> NDArray[np.float64]:
        truth = np.eye(model.classes)[task.labels[sample : sample + 1]]
        return scaled.far(kind(victim, **settings).generate(scaled.near(task.rows[sample : sample + 1]), y=truth))

    return attack


def of_foolbox(name: str, model: Model, task: SimpleNamespace, options: Mapping[str, Any]) -> Callable[[int], Any]:
    """An attack of Foolbox that gets by with predictions."""
    kind = _named("foolbox.attacks", name)
    base, tensors = importlib.import_module("foolbox.models.base"), importlib.import_module("eagerpy")
    scaled = Scaled(model, task)

    class Victim(base.Model):  # type: ignore[misc, name-defined]  # known only where Foolbox is
        bounds = importlib.import_module("foolbox.types").Bounds(0.0, float(scaled.high.max()))

        def __call__(self, inputs: Any) -> Any:
            values, restore = tensors.astensor_(inputs)
            scores = scaled.scores(values.numpy()).astype(np.float32)
            return restore(tensors.NumPyTensor(scores))

    known = inspect.signature(kind).parameters
    chosen = {"constraint": CONSTRAINTS.get(task.norm)} if "constraint" in known else {}
    attacker = kind(**{**chosen, **options})
    # Attacks that look for the least change are given no size; the others are given the one that counts.
    least = importlib.import_module("foolbox.attacks.base").MinimizationAttack
    size = None if issubclass(kind, least) else task.max_change

    def attack(sample: int) -> NDArray[np.float64]:
        start = tensors.NumPyTensor(scaled.near(task.rows[sample : sample + 1]))
        truth = tensors.NumPyTensor(task.labels[sample : sample + 1])
        raw, _, _ = attacker(Victim(), start, truth, epsilons=size)
        return scaled.far(raw.numpy())

    return attack


CONSTRAINTS = {float("inf"): "linf", 2.0: "l2"}
"""What Foolbox calls the norms."""
TOOLS: Mapping[str, Any] = {"art": of_art, "foolbox": of_foolbox}


def _named(module: str, name: str) -> Any:
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise LookupError(f"{module} has no {name}")
    return found


def _norm(norm: float) -> float | int:
    return np.inf if np.isinf(norm) else int(norm)


# ---- the program


def main() -> None:
    """Take the socket over, give up what is not needed, run the attacker, say what it found."""
    channel = Channel(socket.socket(fileno=os.dup(0)))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    held = confine(int(sys.argv[1]), int(sys.argv[2]))
    if np is None:
        fail(channel, "the interpreter has no numpy")
    header, body = channel.receive()
    sys.path.extend(header["paths"])
    channel.send({"hello": sys.version.split()[0], "held": held})
    try:
        found = run(channel, header, body)
    except Over:
        found = None
    except BaseException as error:  # noqa: BLE001 - whatever an attacker raises is said
        traceback.clear_frames(error.__traceback__)
        fail(channel, f"{type(error).__name__}: {error}")
    rows = b"" if found is None else np.ascontiguousarray(found, dtype="<f8").tobytes()
    channel.send({"done": True}, rows)


def run(channel: Channel, header: Mapping[str, Any], body: bytes) -> NDArray[np.float64] | None:
    """Build the attacker and let it attack every sample."""
    task = task_of(header, body)
    seed_all(header["seed"])
    model = Model(channel, features=header["features"], classes=header["classes"], scores=header["scores"])
    if header["tool"] == "file":
        return of_file(header["attack"], model, task, header["options"])
    attack = TOOLS[header["tool"]](header["attack"], model, task, header["options"])
    found, faults = np.array(task.rows), []
    for sample in range(len(found)):
        model.sample = sample
        seed_all(header["seed"] + sample)
        try:
            found[sample] = np.reshape(attack(sample), -1)
        except Over:
            continue
        except Exception as error:  # noqa: BLE001 - one sample may be beyond an attacker
            faults.append(f"{type(error).__name__}: {error}")
    if len(faults) == len(found):
        raise RuntimeError(f"it fails on every sample; on the last with {faults[-1]}")
    return found


def task_of(header: Mapping[str, Any], body: bytes) -> SimpleNamespace:
    """The task as plain arrays: what its fields mean stands with ``EvasionTask``."""
    task, start = SimpleNamespace(**header["task"]), 0
    for name, dtype, shape in header["arrays"]:
        count = int(np.prod(shape))
        setattr(task, name, np.frombuffer(body, dtype=dtype, count=count, offset=start).reshape(shape))
        start += count * np.dtype(dtype).itemsize
    task.norm = float(task.norm)
    return task


def seed_all(seed: int) -> None:
    """Seed what attackers draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def confine(cpu_seconds: int, memory_bytes: int) -> list[str]:
    """Give up what is cheap to give up before the attacker is imported, and say what that was."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    held = ["limits"]
    if not sys.platform.startswith("linux"):
        return held
    with contextlib.suppress(OSError):
        library = ctypes.CDLL(None, use_errno=True)
        library.prctl(SET_PARENT_DEATH_SIGNAL, KILL, 0, 0, 0)
        if library.unshare(NEW_USER | NEW_NETWORK) == 0 or library.unshare(NEW_NETWORK) == 0:
            held.append("network")
        if library.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
            held.append("privileges")
    return held


def fail(channel: Channel, words: str) -> NoReturn:
    """Say why nothing comes of it."""
    channel.send({"error": words[:MAX_WORDS]})
    os._exit(1)


if __name__ == "__main__":
    main()

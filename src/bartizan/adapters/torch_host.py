"""The process that holds a torch model: TorchScript (``torch.jit.save``) or an export (``torch.export.save``).

Both carry the network itself, so that no code of the user is needed. A file of weights alone does not. Training is not
repeated: what such a file holds has lost how it was begun and learnt.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from typing import Any

import numpy as np
import torch

from bartizan.adapters.torch import TorchTarget
from bartizan.targets.host import TINY, Question, are_probabilities, labels_of, numbers, packed, probes, rows_of
from bartizan.targets.hosted import BATCH
from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.protocol import Loss

KIND = "<f4"
FLAT = frozenset({"round", "sign", "sgn", "floor", "ceil", "trunc", "heaviside", "fake_quantize_per_tensor_affine",
                  "quantize_per_tensor", "fake_quantize_per_channel_affine"})  # fmt: skip
"""Steps whose slope is 0 wherever there is one: gradients through them say nothing."""
_MATRIX = 2


class Network(torch.nn.Module):
    """A loaded network that takes flat rows and answers logits, in single precision."""

    def __init__(self, module: Any, shape: tuple[int, ...], batch: int, kind: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.shape, self.batch, self.kind = shape, batch, kind
        self.probable = False
        """It answers probabilities; their logarithms serve as logits."""
        self.flat = ""
        """A step in it that has no slope."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits ``(batch, classes)`` of rows ``(batch, features)``."""
        answers = self.answers(rows)
        return torch.log(answers.clamp(min=TINY)) if self.probable else answers

    def answers(self, rows: torch.Tensor) -> torch.Tensor:
        """What the network itself answers. A batch of fixed size is cut and filled up to that."""
        if not self.batch:
            return self._passed(rows)
        parts = []
        for part in torch.split(rows, self.batch):
            missing = self.batch - len(part)
            full = torch.cat([part, part.new_zeros(missing, part.shape[1])]) if missing else part
            parts.append(self._passed(full)[: len(part)])
        return torch.cat(parts)

    def _passed(self, rows: torch.Tensor) -> torch.Tensor:
        found = self.module(rows.to(self.kind).reshape(-1, *self.shape))
        if isinstance(found, dict | list | tuple):
            if len(found) != 1:
                raise Refusal(f"it answers {len(found)} things, and it cannot be told which of them are the logits")
            (found,) = found.values() if isinstance(found, dict) else found
        if not isinstance(found, torch.Tensor) or not found.is_floating_point() or found.dim() < _MATRIX:
            raise Refusal(f"it answers {_told(found)} where logits (rows, classes) are due")
        if len(found) != len(rows):
            raise Refusal(f"it answers {len(rows)} rows with {_told(found)}")
        return found.flatten(1).float()


class Host:
    """One network."""

    def __init__(self) -> None:
        self.file = bytearray()
        self.target: Any = None
        self.layer: Any = None
        self.features = 0

    def keep(self, question: Question) -> Answer:
        """Take the model file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, question: Question) -> Answer:
        """Load the model file and say what is in it."""
        _start_alone()
        data, self.file = bytes(self.file), bytearray()
        self.features = question.features
        network = _network(data, question.features, tuple(question.shape))
        _check(network, question.features, question.classes)
        self.target = TorchTarget(network, shape=(question.features,), classes=question.classes)
        facts = {
            "features": question.features,
            "classes": question.classes,
            "scores": True,
            "logits": True,
            "gradients": not network.flat,
            "width": self._width(network),
            "single": True,
            "shape": question.shape,
            "lacks": {
                "training": "A file of a network does not say how it was trained",
                "weights": "The layers of TorchScript are not told apart, and other files need a linear one",
                "gradients": f"The step {network.flat} stops gradients",
            },
        }
        return {"facts": facts}

    def _width(self, network: Network) -> int:
        """Of what the last linear layer is given; 0 where that is not found."""
        self.layer = _Layer.of(network)
        return 0 if self.layer is None else self.layer.given(torch.from_numpy(probes(self.features)).float()).shape[1]

    def labels(self, question: Question) -> Answer:
        """Class indices, ``(rows,)``."""
        return packed(self._logits(question).argmax(axis=1), "<i8")

    def scores(self, question: Question) -> Answer:
        """Probabilities, ``(rows, classes)``."""
        scores: Any = self.target.scores(rows_of(question, self.features, KIND))
        return packed(numbers(scores), "<f8")

    def logits(self, question: Question) -> Answer:
        """Scores before the softmax, ``(rows, classes)``."""
        return packed(self._logits(question), KIND)

    def gradients(self, question: Question) -> Answer:
        """Logits, and behind them the gradient of each row's loss, ``(rows, classes + features)``."""
        rows, labels = rows_of(question, self.features, KIND), labels_of(question, self.features, KIND)
        aimed = labels_of(question, self.features, KIND, 1) if question.aimed else None
        answer = self.target.gradients(rows, Loss(question.loss), labels, aimed)
        return packed(numbers(answer), KIND)

    def activations(self, question: Question) -> Answer:
        """What the last linear layer is given, ``(rows, width)``."""
        rows = torch.tensor(rows_of(question, self.features, KIND))
        parts = [self.layer.given(part) for part in torch.split(rows, BATCH)]
        return packed(numbers(np.concatenate(parts)), KIND)

    def disagreement(self, _: Question) -> Answer:
        """Nothing: gradients are of the network itself."""
        return {"facts": 0.0}

    def _logits(self, question: Question) -> Any:
        return numbers(self.target.logits(rows_of(question, self.features, KIND)))


class _Layer(torch.fx.Interpreter):
    """Runs an exported network, and keeps what its last linear layer is given."""

    def __init__(self, network: Network, layer: torch.fx.Node) -> None:
        super().__init__(network.module)
        self._network, self._layer = network, layer
        self._given: Any = None

    @classmethod
    def of(cls, network: Network) -> _Layer | None:
        """None where there is no such layer, or the network is no exported one, or takes batches of one size only."""
        if not isinstance(network.module, torch.fx.GraphModule) or network.batch:
            return None
        linear = (torch.ops.aten.linear.default, torch.ops.aten.addmm.default)
        layers = [node for node in network.module.graph.nodes if node.op == "call_function" and node.target in linear]
        return cls(network, layers[-1]) if layers else None

    def run_node(self, n: torch.fx.Node) -> Any:
        """See ``torch.fx.Interpreter``."""
        if n is self._layer:
            place = 1 if n.target is torch.ops.aten.addmm.default else 0
            self._given = self.fetch_args_kwargs_from_env(n)[0][place]
        return super().run_node(n)

    def given(self, rows: torch.Tensor) -> Any:
        """``(rows, width)``."""
        with torch.inference_mode():
            self.run(rows.to(self._network.kind).reshape(-1, *self._network.shape))
        return self._given.reshape(len(rows), -1).float().numpy()


def _start_alone() -> None:
    """Keep torch to this thread, as a process must that may start no other.

    Its engine of gradients starts a thread for each device when it is first used. Reading an export registers devices
    that there are not; so the engine is used before.
    """
    torch.set_num_threads(1)
    number = torch.ones(1, requires_grad=True)
    torch.autograd.grad(number.sum(), number)


def _network(data: bytes, features: int, shape: tuple[int, ...]) -> Network:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise Refusal("it is no archive of torch") from error
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return _scripted(data, features, shape)
    if any(name.startswith("models/") for name in names) or "serialized_exported_program.json" in names:
        return _exported(data, features, shape)
    raise Refusal("it holds weights without their network; save it with torch.export.save or torch.jit.save")


def _scripted(data: bytes, features: int, shape: tuple[int, ...]) -> Network:
    """TorchScript does not say what shape it takes: that of an image is tried first where one is declared."""
    try:
        module = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()  # type: ignore[no-untyped-call]  # torch's
    except (RuntimeError, ValueError) as error:
        raise Refusal(f"torch does not load it ({_first_line(error)})") from error
    faults = []
    for candidate in dict.fromkeys([shape, (features,)] if shape else [(features,)]):
        network = Network(module, candidate, 0, _kind(module))
        try:
            with torch.inference_mode():
                network.answers(torch.from_numpy(probes(features)).float())
        except RuntimeError as error:
            faults.append(_last_line(error))
        else:
            network.flat = _flat(re.findall(r"Tensor = aten::(\w+)", str(module.inlined_graph)))
            return network
    raise Refusal(f"it does not take rows of {'x'.join(map(str, shape)) if shape else features} numbers ({faults[0]})")


def _exported(data: bytes, features: int, shape: tuple[int, ...]) -> Network:
    # Where its compiler, which is not used, looks for a folder of its own; nothing can be written there.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/"
    try:
        program = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise Refusal(f"torch does not load it ({_first_line(error)})") from error
    given = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(given) != 1 or not isinstance(given[0].meta.get("val"), torch.Tensor):
        raise Refusal(f"it takes {len(given)} inputs; a classifier takes one tensor")
    value = given[0].meta["val"]
    batch, *sides = (side if isinstance(side, int) else 0 for side in value.shape)
    wanted = shape if len(sides) == len(shape) and shape else (features,)
    if len(sides) != len(wanted) or any(side not in {0, due} for side, due in zip(sides, wanted, strict=True)):
        told = "x".join(str(side or "?") for side in sides)
        raise Refusal(f"it takes rows of {told} numbers, and {'x'.join(map(str, shape)) or features} are declared")
    network = Network(program.module(), tuple(wanted), batch, value.dtype)
    network.flat = _flat(re.findall(r"\baten\.(\w+)\.", program.graph_module.code))
    return network


def _flat(steps: list[str]) -> str:
    return next((step for step in steps if step.rstrip("_") in FLAT), "")


def _kind(module: Any) -> torch.dtype:
    """In which precision the network computes."""
    kinds = {value.dtype for value in (*module.parameters(), *module.buffers()) if value.is_floating_point()}
    return torch.float64 if kinds == {torch.float64} else torch.float32


def _check(network: Network, features: int, classes: int) -> None:
    """What comes out must be one logit for each class, and the same each time.

    Raises:
        Refusal: it is not.
    """
    rows = torch.from_numpy(probes(features)).float()
    with torch.inference_mode():
        first, again = network.answers(rows).numpy(), network.answers(rows).numpy()
    if first.shape != (len(rows), classes):
        hint = "; answer two logits instead of one" if first.shape[1] == 1 else ""
        raise Refusal(f"it answers {first.shape[1]} numbers for each row, and {classes} classes are declared{hint}")
    if not np.array_equal(first, again, equal_nan=True):
        raise Refusal("it answers the same rows differently each time; save it in evaluation mode")
    network.probable = are_probabilities(first)


def _told(found: Any) -> str:
    return f"a tensor {tuple(found.shape)}" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:200]


def _last_line(error: BaseException) -> str:
    """What went wrong inside a script; where it did stands before it."""
    return (str(error).strip() or type(error).__name__).rsplit("\n", 1)[-1][:200]


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    return {
        "keep": host.keep,
        "load": host.load,
        "labels": host.labels,
        "scores": host.scores,
        "logits": host.logits,
        "activations": host.activations,
        "gradients": host.gradients,
        "disagreement": host.disagreement,
    }

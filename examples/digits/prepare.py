"""Make the digit reader: write its data, train it, save it as ONNX. The same bytes every time on one machine.

The data are the handwritten digits that ship with scikit-learn: 1,797 pictures of 8 x 8 pixels, each a count of dark
dots from 0 to 16. A third of them is put aside, by class, before anything is learned. The network is small: two
convolutions and two layers. It is trained on pictures that were changed to mislead it, one step along the gradient
from a random start (Wong, Rice and Kolter 2020, arXiv:2001.03994), so that small changes matter less.

The file is written operator by operator: what is in it is what stands below, and it needs no exporter.

Run ``python prepare.py`` in this folder, or give another folder as the only argument.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

SEED = 20261121
HOLDOUT = 1 / 3
SHAPE = (1, 8, 8)
"""Channels, height, width."""
BRIGHTEST = 16.0
"""Largest value of a pixel; the network divides by it."""
CHANGE = 1.6
"""Largest change of a pixel that the network is trained against, in its own units: a tenth of the range."""
PASSES = 30
BATCH = 50
OPSET, FORMAT = 17, 8
"""Versions of ONNX that every runtime of the last years reads."""


def main(folder: Path) -> None:
    """Write ``data/train.npz``, ``data/holdout.npz`` and ``model/digits.onnx`` below ``folder``."""
    source = load_digits()
    pictures = source.images.astype(np.uint8).reshape(-1, *SHAPE)
    train, holdout, train_labels, holdout_labels = train_test_split(
        pictures, source.target.astype(np.int64), test_size=HOLDOUT, stratify=source.target, random_state=SEED
    )
    for name in ("data", "model"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "data" / "train.npz", rows=train, digit=train_labels)
    np.savez_compressed(folder / "data" / "holdout.npz", rows=holdout, digit=holdout_labels)
    network = fit(train, train_labels)
    onnx.save(graph(network), folder / "model" / "digits.onnx")
    print(f"{len(train)} pictures for training, {len(holdout)} held out")


def untrained() -> nn.Sequential:
    """The network on pictures that are already divided."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def fit(pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> nn.Sequential:
    """The network, trained on misleading neighbours of ``pictures`` ``(records, 1, 8, 8)``."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    network, size = untrained(), CHANGE / BRIGHTEST
    inputs, truth = torch.from_numpy(pictures.astype(np.float32)) / BRIGHTEST, torch.from_numpy(labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(PASSES):
        for places in torch.randperm(len(inputs)).split(BATCH):
            optimiser.zero_grad()
            changed = misleading(network, inputs[places], truth[places], size)
            functional.cross_entropy(network(changed), truth[places]).backward()
            optimiser.step()
    return network.eval()


def misleading(network: nn.Module, inputs: torch.Tensor, truth: torch.Tensor, size: float) -> torch.Tensor:
    """One step of 1.25 times the size from a random start, put back into the size and the range."""
    start = (inputs + torch.empty_like(inputs).uniform_(-size, size)).requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(network(start), truth), start)
    step = (start.detach() + 1.25 * size * slope.sign() - inputs).clamp(-size, size)
    return (inputs + step).clamp(0, 1)


def graph(network: nn.Sequential) -> onnx.ModelProto:
    """The network as ONNX: pictures ``(batch, 1, 8, 8)`` of values from 0 to 16 to logits ``(batch, 10)``."""
    first, second, third, last = (layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear))
    nodes = [
        helper.make_node("Div", ["pictures", "brightest"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["g3"], transB=1),
        helper.make_node("Relu", ["g3"], ["r3"]),
        helper.make_node("Gemm", ["r3", "w4", "b4"], ["logits"], transB=1),
    ]
    weights = [numpy_helper.from_array(np.float32(BRIGHTEST), "brightest")]
    for place, layer in enumerate((first, second, third, last), start=1):
        weights.append(numpy_helper.from_array(layer.weight.detach().numpy(), f"w{place}"))
        weights.append(numpy_helper.from_array(layer.bias.detach().numpy(), f"b{place}"))
    given = [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["batch", *SHAPE])]
    answered = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])]
    whole = helper.make_graph(nodes, "digits", given, answered, weights)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

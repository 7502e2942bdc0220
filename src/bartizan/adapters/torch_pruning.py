"""Fine-pruning of torch models: units that clean data leave asleep are cut, then the rest is trained on.

A backdoor needs units that answer to the trigger, and many of them have nothing to do on clean rows
(Liu et al. 2018, Fine-pruning: defending against backdooring attacks on deep neural networks,
arXiv:1805.12185). Cutting alone is weak against an adversary who knows of it; training on clean rows
afterwards is what mends the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.protocol import Labels, Rows

BATCH = 64
RATE = 1e-3


def fine_prune(
    module: nn.Module,
    rows: Rows,
    labels: Labels,
    *,
    shape: Sequence[int],
    share: float,
    epochs: int,
    seed: int,
) -> nn.Module:
    """A copy of ``module`` without the sleepiest units of its last hidden layer, trained on clean ``rows``.

    Args:
        module: Answers logits.
        rows: ``(records, features)``, known to be clean.
        labels: ``(records,)``.
        shape: Of one row, as the module takes it.
        share: Of the units to cut, from 0 to below 1; 0 only trains on.
        epochs: Passes over ``rows``; 0 only prunes.
        seed: Of the order of the rows. The global generators are left as they are.

    Raises:
        InputError: the share is out of range, or there are no rows.
        WorkError: the module has no hidden layer.
    """
    if not 0 <= share < 1:
        raise InputError(f"share must be from 0 to below 1, and is {share}")
    if not len(rows):
        raise InputError("fine-pruning needs clean rows", remedy="give rows that are known to be clean.")
    inputs = torch.from_numpy(np.array(rows, np.float32)).view(len(rows), *shape)
    answers = torch.from_numpy(np.array(labels, np.int64))
    pruned = copy.deepcopy(module)
    layer = _last_hidden(pruned)
    asleep = _sleepiest(pruned, layer, inputs, share)
    _cut(layer, asleep)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(pruned.parameters(), RATE)
    pruned.train()
    for _ in range(epochs):
        for part in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(pruned(inputs[part]), answers[part]).backward()  # type: ignore[no-untyped-call]  # torch
            optimiser.step()
            _cut(layer, asleep)
    return pruned.eval()


def _last_hidden(module: nn.Module) -> nn.Conv2d | nn.Linear:
    """The last convolution, or in a network without any the last linear layer before the answer."""
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hidden: Sequence[nn.Conv2d | nn.Linear] = convolutions or linear[:-1]
    if not hidden:
        raise WorkError("the module has no hidden layer to prune", remedy="fine-pruning is for networks.")
    return hidden[-1]


def _sleepiest(module: nn.Module, layer: nn.Module, inputs: torch.Tensor, share: float) -> torch.Tensor:
    """Places of the units that are least active, after a rectifier, on the inputs."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _layer, _given, answer: seen.append(_activity(answer)))
    module.eval()
    try:
        with torch.inference_mode():
            for part in torch.split(inputs, BATCH):
                module(part)
    finally:
        hook.remove()
    activity = torch.stack(seen).mean(0)
    return torch.argsort(activity, stable=True)[: int(share * len(activity))].clone()


def _activity(answer: torch.Tensor) -> torch.Tensor:
    active = torch.relu(answer)
    return active.mean(dim=[axis for axis in range(active.ndim) if axis != 1])


def _cut(layer: nn.Conv2d | nn.Linear, units: torch.Tensor) -> None:
    with torch.no_grad():
        for parameter in _parameters(layer):
            parameter[units] = 0.0


def _parameters(layer: nn.Conv2d | nn.Linear) -> Iterator[torch.Tensor]:
    yield layer.weight
    if layer.bias is not None:
        yield layer.bias

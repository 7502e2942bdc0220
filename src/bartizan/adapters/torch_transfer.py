"""Transfer learning: a frozen network, and a new last layer trained on what it makes of the rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from bartizan.adapters.torch import last_linear
from bartizan.core.errors import InputError
from bartizan.targets.protocol import Labels, Rows

AT_ONCE = 512
"""Rows in one pass through the frozen layers."""


@dataclass(frozen=True)
class LastLayer:
    """Trains nothing but the last linear layer, anew and until the loss falls no further. A ``Trainer``.

    What many users do with a network that somebody else trained. The problem is convex: the seed, from which the layer
    begins, changes little.
    """

    module: torch.nn.Module
    """The network whose other layers are kept; it is left as it is."""
    shape: Sequence[int]
    """``(channels, height, width)`` of an image, or ``(features,)``."""
    penalty: float = 1e-6
    """Weight of the squared weights; so small that training rows are learnt by heart where the layer can."""
    steps: int = 300
    """Most steps of L-BFGS."""

    def __call__(self, rows: Rows, labels: Labels, seed: int) -> torch.nn.Module:
        """The network with another last layer.

        Raises:
            InputError: there are no rows.
            WorkError: the network runs no linear layer.
        """
        if not len(rows):
            raise InputError("a last layer cannot be trained without rows", remedy="give at least one row.")
        module = copy.deepcopy(self.module).eval()
        inputs = torch.from_numpy(np.array(rows, np.float32)).view(len(rows), *self.shape)
        with torch.no_grad():
            passed = [last_linear(module, part, "the network") for part in inputs.split(AT_ONCE)]  # type: ignore[no-untyped-call]
            given = torch.cat([part for _, part in passed]).flatten(1)
        layer = passed[0][0]
        self._begin(layer, seed)
        self._train(layer, given, torch.from_numpy(np.array(labels, np.int64)))
        return module

    def _begin(self, layer: torch.nn.Linear, seed: int) -> None:
        """Small random weights, as torch begins with."""
        generator, reach = torch.Generator().manual_seed(seed % 2**63), layer.in_features**-0.5
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-reach, reach, generator=generator)
                parameter.requires_grad_()

    def _train(self, layer: torch.nn.Linear, given: torch.Tensor, labels: torch.Tensor) -> None:
        optimiser = torch.optim.LBFGS(
            layer.parameters(), max_iter=self.steps, history_size=10, line_search_fn="strong_wolfe"
        )

        def loss() -> float:
            optimiser.zero_grad()
            value = functional.cross_entropy(layer(given), labels) + self.penalty * layer.weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]  # torch says nothing of its types here
            return float(value.detach())

        optimiser.step(loss)  # type: ignore[no-untyped-call]

"""An ONNX graph as a torch module: node by node, so that torch knows its slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bartizan.adapters.onnx.graph import Graph, attributes
from bartizan.adapters.onnx.operators import KINDS, OPERATORS, Node, tensor_of
from bartizan.adapters.onnx.slopes import needed
from bartizan.adapters.torch import TorchTarget
from bartizan.targets.hosting import Refusal

Feed = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""Rows ``(batch, ...)`` as the inputs of the graph."""
Finish = Callable[[torch.Tensor], torch.Tensor]
"""Logits ``(batch, classes)`` of the tensor that is read."""


class Network(torch.nn.Module):
    """Logits of a graph.

    Which nodes there are is fixed; a batch of fixed size is cut and filled up to that size.
    """

    def __init__(self, graph: Graph, target: str, feed: Feed, finish: Finish, batch: int = 0) -> None:
        super().__init__()
        self._constants = {
            name: tensor_of(value) for name, value in graph.constants.items() if value.data_type in _SEEN
        }
        self._nodes = [
            (node.op_type, Node(node.op_type, attributes(node), graph.opset, len(node.output)), node)
            for node in needed(graph, target)
            if node.op_type != "Constant" or node.output[0] not in self._constants
        ]
        self._target, self._feed, self._finish, self._batch = target, feed, finish, batch

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits ``(batch, classes)``."""
        if not self._batch:
            return self._finish(self._passed(self._feed(rows)))
        parts = []
        for part in torch.split(rows, self._batch):
            missing = self._batch - len(part)
            full = torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) if missing else part
            parts.append(self._finish(self._passed(self._feed(full)))[: len(part)])
        return torch.cat(parts)

    def _passed(self, known: dict[str, Any]) -> torch.Tensor:
        known = self._constants | known
        for kind, node, said in self._nodes:
            given = [known[name] if name else None for name in said.input]
            try:
                made = OPERATORS[kind](node, *given)
            except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
                raise Refusal(f"its operator {kind} cannot be computed by torch: {error}") from error
            known.update(zip(said.output, made if isinstance(made, tuple) else (made,), strict=False))
        found: torch.Tensor = known[self._target]
        return found


_SEEN = frozenset(KINDS)
"""Element types of constants that are used."""


def target_of(network: Network, features: int, classes: int) -> TorchTarget:
    """The network as something that can be asked for gradients."""
    return TorchTarget(network, shape=(features,), classes=classes)

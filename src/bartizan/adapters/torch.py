"""torch models as targets in this process: modules that the user made or loaded himself.

For model files of unknown origin there is the isolated process; a module that already lives here has
been trusted. Rows lie flat and in single precision; the module is given them in its own shape. It is put
into evaluation mode for every answer and back afterwards; its parameters gather no gradients meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bartizan.core.errors import WorkError
from bartizan.targets.protocol import Access, Labels, Loss, Rows, Scores

Trainer = Callable[[Rows, Labels, int], torch.nn.Module]
"""Trains a fresh module on rows ``(records, features)`` and labels, with a seed."""
BATCH = 512
"""Rows in one pass through the module: what fits the caches of a processor."""
FEW, MANY = 8, 64
"""Batches of up to ``FEW`` rows are passed as they are; larger ones are filled up to a multiple of 4, and
beyond ``MANY`` of 16. Kernels are prepared for each size of a batch anew (2 ms here, as much as 100 rows of a
small network), and attacks would ask in a new size whenever a sample leaves them."""


class TorchTarget:
    """A classifier as a ``torch.nn.Module`` that answers logits. See ``Differentiable`` and ``Approachable``."""

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        shape: Sequence[int],
        classes: int,
        name: str = "model:torch",
        trainer: Trainer | None = None,
        batch: int = BATCH,
        device: str = "cpu",
    ) -> None:
        self.module = module.to(device)
        self.name = name
        self.shape = tuple(int(side) for side in shape)
        """``(channels, height, width)`` of an image, or ``(features,)``."""
        self.features = math.prod(self.shape)
        self.classes = classes
        self.class_values: tuple[str, ...] = ()
        self.trainer = trainer
        self._batch, self._device = batch, device

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        access = {Access.LABELS, Access.SCORES, Access.LOGITS, Access.GRADIENTS, Access.WEIGHTS}
        if any(isinstance(layer, torch.nn.Linear) for layer in self.module.modules()):
            access.add(Access.ACTIVATIONS)
        return frozenset(access | {Access.TRAINING} if self.trainer else access)

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = self.logits(rows).argmax(axis=1).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        logits = self.logits(rows).astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        scores: Scores = powers / powers.sum(axis=1, keepdims=True)
        return scores

    def logits(self, rows: Rows) -> Scores:
        """See ``Differentiable.logits``."""
        with self._asked(), torch.inference_mode():
            parts = [self._passed(self._tensor(part))[: len(part)].cpu().numpy() for part in self._parts(rows)]
        return np.concatenate(parts) if parts else np.empty((0, self.classes), dtype=self.dtype)

    def gradients(self, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> NDArray[np.floating]:
        """See ``Differentiable.gradients``."""
        answer = np.empty((len(rows), self.classes + self.features), dtype=self.dtype)
        with self._asked():
            for start in range(0, len(rows), self._batch):
                part = slice(start, start + self._batch)
                inputs = self._tensor(rows[part]).requires_grad_()
                logits = self._passed(inputs)
                known = answer[part]
                aimed = None if targets is None else self._classes(targets[part])
                value = losses(logits[: len(known)], loss, self._classes(labels[part]), aimed)
                (slope,) = torch.autograd.grad(value.sum(), inputs)
                known[:, : self.classes] = logits[: len(known)].detach().cpu().numpy()
                known[:, self.classes :] = slope[: len(known)].reshape(len(known), -1).cpu().numpy()
        return answer

    def activations(self, rows: Rows) -> NDArray[np.floating]:
        """See ``Layered.activations``: what the last linear layer that is run is given.

        Raises:
            WorkError: the module runs no linear layer.
        """
        with self._asked(), torch.inference_mode():
            parts = [self._represented(self._tensor(part))[: len(part)].cpu().numpy() for part in self._parts(rows)]
        return np.concatenate(parts) if parts else np.empty((0, 1), dtype=self.dtype)

    def approach(self, rows: Rows, towards: Rows) -> NDArray[np.floating]:
        """See ``Approachable.approach``. Raises as ``activations`` does."""
        answer = np.empty((len(rows), 1 + self.features), dtype=self.dtype)
        with self._asked():
            for start in range(0, len(rows), self._batch):
                known = answer[start : start + self._batch]
                with torch.no_grad():
                    aimed = self._represented(self._tensor(towards[start : start + self._batch]))
                inputs = self._tensor(rows[start : start + self._batch]).requires_grad_()
                distance = (self._represented(inputs) - aimed).square().sum(1)
                (slope,) = torch.autograd.grad(distance.sum(), inputs)
                known[:, 0] = distance[: len(known)].detach().cpu().numpy()
                known[:, 1:] = slope[: len(known)].reshape(len(known), -1).cpu().numpy()
        return answer

    def _represented(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the last linear layer that is run is given, ``(batch, width)``."""
        return last_linear(self.module, inputs, self.name)[1].reshape(len(inputs), -1)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> TorchTarget:
        """See ``Target.retrain``."""
        if self.trainer is None:
            raise WorkError(f"{self.name} cannot be trained again", remedy="give the target a trainer.")
        module = self.trainer(np.asarray(rows, dtype=self.dtype), labels, seed)
        return TorchTarget(
            module,
            shape=self.shape,
            classes=self.classes,
            name=self.name,
            trainer=self.trainer,
            batch=self._batch,
            device=self._device,
        )

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Evaluation mode, and parameters that gather nothing; both are put back."""
        training, learning = [], []
        for module in self.module.modules():
            if module.training:
                training.append(module)
            own = module.parameters(recurse=False)
            learning += [parameter for parameter in own if parameter.requires_grad]
        for module in training:
            module.training = False
        for parameter in learning:
            parameter.requires_grad_(False)  # noqa: FBT003 - torch knows it by place only
        try:
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_()

    def _parts(self, rows: Rows) -> Iterator[Rows]:
        yield from (rows[start : start + self._batch] for start in range(0, len(rows), self._batch))

    def _tensor(self, rows: Rows) -> torch.Tensor:
        """The rows as a batch of a size that is likely to be used again; zeros fill it up."""
        count = _filled(len(rows), self._batch)
        flat = np.ascontiguousarray(rows, dtype=self.dtype)
        if count > len(rows) or not flat.flags.writeable:
            flat = np.zeros((count, self.features), dtype=self.dtype)
            flat[: len(rows)] = rows
        return torch.from_numpy(flat).to(self._device).view(count, *self.shape)

    def _classes(self, labels: Labels) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64)).to(self._device)

    def _passed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        logits = self.module(inputs)
        if not isinstance(logits, torch.Tensor) or logits.ndim != _MATRIX or logits.shape[1] != self.classes:
            raise WorkError(
                f"{self.name} answers {getattr(logits, 'shape', type(logits).__name__)} where logits (rows, "
                f"{self.classes}) are due",
                remedy="wrap it in a module that returns logits, one for each class.",
            )
        return logits


_MATRIX = 2


def last_linear(module: torch.nn.Module, inputs: torch.Tensor, name: str) -> tuple[torch.nn.Linear, torch.Tensor]:
    """The linear layer that is run last on a batch, and what it is given.

    Raises:
        WorkError: the module runs no linear layer.
    """
    seen: list[tuple[torch.nn.Linear, torch.Tensor]] = []
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    hooks = [
        layer.register_forward_pre_hook(lambda run, given: seen.append((cast("torch.nn.Linear", run), given[0])))
        for layer in layers
    ]
    try:
        module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise WorkError(f"{name} has no linear layer whose input could be read")
    return seen[-1]


def _filled(count: int, batch: int) -> int:
    """Size of the batch in which ``count`` rows are passed, at most ``batch``."""
    if count <= FEW:
        return count
    step = 4 if count <= MANY else 16
    return max(count, min(batch, -(-count // step) * step))


TINY = 1e-12
"""Keeps a ratio of logits finite where all of them are equal."""


def losses(logits: torch.Tensor, loss: Loss, labels: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
    """Each row's loss, ``(batch,)``. See ``Loss``."""
    if loss is Loss.CROSS_ENTROPY:
        return functional.cross_entropy(logits, labels, reduction="none")
    own = logits.gather(1, labels[:, None])[:, 0]
    if targets is not None:
        return _aimed(logits, loss, own, logits.gather(1, targets[:, None])[:, 0])
    if loss is Loss.LOGIT:
        return own
    other = logits.scatter(1, labels[:, None], -torch.inf).max(1).values
    if loss is Loss.MARGIN:
        return other - own
    top = logits.topk(3, dim=1).values
    return (other - own) / (top[:, 0] - top[:, 2] + TINY)


def _aimed(logits: torch.Tensor, loss: Loss, own: torch.Tensor, aimed: torch.Tensor) -> torch.Tensor:
    """Losses that speak of a class aimed at."""
    if loss is Loss.TOWARDS:
        return aimed - torch.logsumexp(logits, 1)
    if loss is Loss.DIFFERENCE:
        return aimed - own
    top = logits.topk(4, dim=1).values
    return (aimed - own) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


class _StraightThrough(torch.autograd.Function):
    """Forward a function, backward the identity."""

    @staticmethod
    def forward(_context: Any, inputs: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return function(inputs)

    @staticmethod
    def backward(_context: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
        return slopes[0], None


class StraightThrough(torch.nn.Module):
    """A step before a model that cannot be differentiated, taken for the identity on the way back.

    Rounding, thresholds, compression: their slopes are 0 or do not exist, and an attack by gradients stands
    still although nothing has become more robust. Put into the place of the bare function, this lets it see through
    (backward pass differentiable approximation: Athalye, Carlini, Wagner, ICML 2018, arXiv:1802.00420). The
    function must leave the shape as it is and change values little.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the function makes of a batch."""
        passed: torch.Tensor = _StraightThrough.apply(inputs, self.function)  # type: ignore[no-untyped-call]  # torch's
        return passed

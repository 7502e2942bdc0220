"""How an adversary with torch trains a copy of an image model: long, and on randomly shifted pictures.

Neither costs a query. On pictures this is worth more than choosing queries: the copy sees every answer in
many places, and ``epochs`` go on until the loss no longer falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bartizan.core.errors import InputError
from bartizan.targets.protocol import Rows, Scores

ASKED_TOGETHER = 512
"""Rows in one pass without gradients."""
IMAGE_SIDES = 3


@dataclass(frozen=True)
class TorchLearner:
    """A small convolutional network for images that lie flat. A ``Teacher`` of ``redteam.tasks``.

    Sources: Jagielski et al. 2020 (arXiv:1909.01838) for training on soft answers; one-cycle learning rates
    after Smith and Topin 2018 (arXiv:1708.07120).
    """

    shape: Sequence[int]
    """``(channels, height, width)``"""
    epochs: int = 80
    steps: int = 1_000
    """Least number of steps, so that few answers are gone through more often."""
    shift: int = 2
    """Largest shift of a picture, in pixels."""
    width: int = 16
    """Channels of the first layer; the second has twice as many."""
    batch: int = 64
    rate: float = 3e-3
    """Highest learning rate."""

    def __call__(self, rows: Rows, targets: Scores, rng: np.random.Generator) -> Callable[[Rows], Scores]:
        """Train on rows ``(batch, features)`` towards probabilities ``(batch, classes)``.

        The same generator gives the same network on the same machine; torch's own state is left alone.

        Raises:
            InputError: the shape is not that of an image, or there are no rows.
        """
        if len(self.shape) != IMAGE_SIDES or not len(rows):
            raise InputError(f"{len(rows)} rows of shape {tuple(self.shape)} are no pictures to learn from")
        seeds = rng.integers(0, 2**62, 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seeds[0]))
            network = self._network(targets.shape[1])
            images = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).reshape(-1, *self.shape)
            self._train(network, images, torch.from_numpy(np.asarray(targets, np.float32)), int(seeds[1]))
        return _Asked(network.eval(), tuple(self.shape))

    def _network(self, classes: int) -> nn.Module:
        channels, height, width = self.shape
        wide = self.width
        return nn.Sequential(
            nn.Conv2d(channels, wide, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(wide, 2 * wide, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(2 * wide * (height // 4) * (width // 4), 4 * wide),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(4 * wide, classes),
        )

    def _train(self, network: nn.Module, images: torch.Tensor, targets: torch.Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rounds = -(-len(images) // self.batch)
        epochs = max(self.epochs, -(-self.steps // rounds))
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=1e-3)
        plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=epochs * rounds)
        for _ in range(epochs):
            for part in torch.randperm(len(images), generator=generator).split(self.batch):  # type: ignore[no-untyped-call]
                logits = network(self._shifted(images[part], generator))
                loss = functional.cross_entropy(logits, targets[part])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                plan.step()

    def _shifted(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Each picture moved by a few pixels, zeros coming in from outside."""
        if not self.shift:
            return images
        count, channels, height, width = images.shape
        edge = functional.pad(images, (self.shift,) * 4)
        down, right = torch.randint(0, 2 * self.shift + 1, (2, count), generator=generator)
        rows = down[:, None] + torch.arange(height)
        columns = right[:, None] + torch.arange(width)
        each = torch.arange(count)[:, None, None, None]
        colour = torch.arange(channels)[None, :, None, None]
        return edge[each, colour, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True)
class _Asked:
    """A trained network as a function of flat rows."""

    network: nn.Module
    shape: tuple[int, ...]

    def __call__(self, rows: Rows) -> Scores:
        parts = [self._part(rows[at : at + ASKED_TOGETHER]) for at in range(0, len(rows), ASKED_TOGETHER)]
        return np.concatenate(parts) if parts else np.empty((0, 0))

    def _part(self, rows: Rows) -> Scores:
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).reshape(-1, *self.shape)
            scores: Scores = torch.softmax(self.network(images), dim=1).double().numpy()
        return scores

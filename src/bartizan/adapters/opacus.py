"""Training of torch modules with differential privacy: DP-SGD with the gradients and the accountant of Opacus.

Abadi et al. 2016 (arXiv:1607.00133): in every step each record takes part by a coin of its own, its gradient is cut
to a length, and Gaussian noise is added to the sum. Opacus (Yousefpour et al. 2021, arXiv:2109.12298) gives the
gradients record by record and adds up the privacy that is spent (Gopi et al. 2021, arXiv:2106.02848); the steps and
coins are ours, so that a seed settles them. Whoever knows the seed knows the noise: the guarantee, which is for adding
or leaving out one record, is against everybody else. Train what you release with a seed that nobody knows.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from opacus.accountants import PRVAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch.nn import functional

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.protocol import Labels, Rows

ACCOUNTANT = "prv"
TOLERANCE = 0.01
"""Of epsilon, within which the noise is searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRecipe:
    """Everything that private training depends on beside rows, labels, module and seed."""

    epsilon: float
    delta: float = 1e-5
    length: float = 1.0
    """To which the gradient of a record is cut."""
    epochs: int = 40
    batch: int = 64
    """Records in a step, on average."""
    rate: float = 1e-2

    def checked(self, records: int) -> PrivateRecipe:
        """Itself.

        Raises:
            InputError: a dial is out of its range for so many records.
        """
        faults = [
            (self.epsilon > 0 and math.isfinite(self.epsilon), "epsilon must be above 0"),
            (0 < self.delta < 1 / max(records, 1), f"delta must lie between 0 and 1 / {records} records"),
            (self.length > 0 and self.rate > 0, "length and learning rate must be above 0"),
            (self.epochs >= 1 and self.batch >= 1, "epochs and batch must be at least 1"),
        ]
        for sound, fault in faults:
            if not sound:
                raise InputError(f"private training: {fault}")
        return self

    def share(self, records: int) -> float:
        """Chance of a record to take part in a step."""
        return min(1.0, self.batch / records)

    def steps(self, records: int) -> int:
        """Number of steps."""
        return self.epochs * math.ceil(records / self.batch)


@dataclass(frozen=True, slots=True)
class Spent:
    """What training gave, and what it cost."""

    module: torch.nn.Module
    epsilon: float
    """By the accountant; at most what was asked for."""
    delta: float
    noise: float
    """Standard deviation of the noise over the length of a gradient."""


def train_privately(
    module: torch.nn.Module, rows: Rows, labels: Labels, *, shape: Sequence[int], recipe: PrivateRecipe, seed: int
) -> Spent:
    """Train ``module`` in place on rows ``(records, features)``; the same seed gives the same weights.

    Raises:
        InputError: there are no rows, or the recipe is not sound.
        WorkError: the module has layers that mix records, such as batch normalisation.
    """
    if not len(rows) or len(rows) != len(labels):
        raise InputError(f"{len(rows)} rows and {len(labels)} labels cannot be learnt from")
    recipe = recipe.checked(len(rows))
    if faults := ModuleValidator.validate(module, strict=False):
        raise WorkError(f"the module cannot be trained privately: {faults[0]}", remedy="use group normalisation.")
    noise, epsilon = noise_for(recipe, len(rows))
    generator = torch.Generator().manual_seed(seed % 2**63)
    inputs = torch.from_numpy(np.array(rows, np.float32)).view(len(rows), *shape)
    truth = torch.from_numpy(np.array(labels, np.int64))
    each = GradSampleModule(module.train(), loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.Adam(module.parameters(), lr=recipe.rate),
        noise_multiplier=noise,
        max_grad_norm=recipe.length,
        expected_batch_size=recipe.share(len(rows)) * len(rows),
        generator=generator,
    )
    for _ in range(recipe.steps(len(rows))):
        taking = torch.rand(len(rows), generator=generator) < recipe.share(len(rows))
        optimiser.zero_grad()
        # An input that wants a gradient spares the hooks of the first layer a warning.
        loss = functional.cross_entropy(each(inputs[taking].requires_grad_()), truth[taking], reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]  # torch says nothing of its types here
        optimiser.step()
    each.to_standard_module()
    return Spent(module.eval(), epsilon, recipe.delta, noise)


@functools.lru_cache(maxsize=256)
def noise_for(recipe: PrivateRecipe, records: int) -> tuple[float, float]:
    """The least noise that keeps the promise, and the epsilon that it costs."""
    share, steps = recipe.share(records), recipe.steps(records)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders that other accountants than this one use
        noise = float(
            get_noise_multiplier(
                target_epsilon=recipe.epsilon,
                target_delta=recipe.delta,
                sample_rate=share,
                steps=steps,
                accountant=ACCOUNTANT,
                epsilon_tolerance=min(TOLERANCE, recipe.epsilon / 20),
            )
        )
        accountant = PRVAccountant()
        accountant.history = [(noise, share, steps)]
        return noise, float(accountant.get_epsilon(delta=recipe.delta))

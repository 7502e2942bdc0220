"""Training of torch classifiers that withstand small changes: Madry, TRADES, and fast single-step training.

Each function trains a module in place on images or tables that lie flat, ``(records, features)`` in
``float32``, and gives it back. Changes are measured in Linf, in the units of the rows. What comes out
is measured by the red team like any other model; nothing here says how robust it is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from bartizan.adapters.torch import TorchTarget
from bartizan.core.errors import InputError
from bartizan.redteam.attacks.evasion.apgd import APGD
from bartizan.redteam.attacks.evasion.autoattack import AutoAttack
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import image_space
from bartizan.targets.protocol import Labels, Loss, Rows

Tell = Callable[[int, int, str], None]
Judge = Callable[[torch.nn.Module], float]
"""How good a module is; the larger, the better. It leaves the module as it is."""
JUDGED = 0.5
"""Share of the epochs after which the judge is asked: before it the learning rate is high and nothing is settled."""


class Method(enum.StrEnum):
    """How the module is trained."""

    PLAIN = "plain"
    """Cross-entropy on the rows as they are, with label smoothing where that is asked for."""
    PGD = "pgd"
    """Cross-entropy on the worst row that projected gradient ascent finds (Madry et al. 2018, arXiv:1706.06083)."""
    TRADES = "trades"
    """Cross-entropy on the row and divergence to the worst one (Zhang et al. 2019, arXiv:1901.08573)."""
    FAST = "fast"
    """One step from a random start (Wong et al. 2020, Fast is better than free, arXiv:2001.03994).

    It can collapse for one seed and not for another (Andriushchenko and Flammarion 2020, arXiv:2007.02617):
    then it withstands the step that it was trained with and nothing else. Its authors stop early, by what rows
    held out say: give ``train`` a judge, or let ``best_of`` choose among seeds as well.
    """
    FREE = "free"
    """The gradient of each step moves weights and rows; each batch is gone through ``steps`` times in a row
    (Shafahi et al. 2019, Adversarial training for free, arXiv:1904.12843). An epoch costs what a plain one does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that training depends on beside rows, labels and module."""

    method: Method = Method.PLAIN
    epsilon: float = 0.0
    """Largest change, Linf, in the units of the rows."""
    low: float = 0.0
    high: float = 1.0
    """Range of possible values."""
    epochs: int = 10
    batch: int = 100
    rate: float = 5e-3
    """Peak learning rate: rises for 40 % of the steps, then falls to 0 (Wong et al. 2020)."""
    steps: int = 10
    """Ascent steps of PGD and TRADES; how often the free method goes through a batch."""
    step: float = 0.0
    """Size of one; 0 takes 2.5 epsilon / steps for PGD and TRADES, 1.25 epsilon for the fast method and epsilon for
    the free one."""
    beta: float = 6.0
    """TRADES: weight of the divergence."""
    smoothing: float = 0.0
    """Label smoothing (Szegedy et al. 2016, arXiv:1512.00567)."""

    def checked(self) -> Recipe:
        """Itself.

        Raises:
            InputError: a dial is out of its range.
        """
        faults = [
            (self.epsilon >= 0 and np.isfinite(self.epsilon), "epsilon must be at least 0"),
            (self.epsilon > 0 or self.method is Method.PLAIN, f"{self.method} needs an epsilon above 0"),
            (self.low < self.high, "the range is empty"),
            (min(self.epochs, self.batch, self.steps) >= 1, "epochs, batch and steps must be at least 1"),
            (self.rate > 0, "the learning rate must be above 0"),
            (0 <= self.smoothing < 1, "label smoothing lies from 0 to below 1"),
        ]
        for sound, fault in faults:
            if not sound:
                raise InputError(f"training recipe: {fault}")
        return self

    @property
    def step_size(self) -> float:
        """Size of one ascent step."""
        usual = {Method.FAST: 1.25 * self.epsilon, Method.FREE: self.epsilon}
        return self.step or usual.get(self.method, 2.5 * self.epsilon / self.steps)


def train(
    module: torch.nn.Module,
    rows: Rows,
    labels: Labels,
    *,
    shape: Sequence[int],
    recipe: Recipe,
    seed: int,
    judge: Judge | None = None,
    tell: Tell = lambda _done, _total, _note: None,
) -> torch.nn.Module:
    """Train ``module`` in place; the same seed and number of threads give the same weights.

    With a ``judge``, it is asked after each epoch of the second half, and the weights that it valued most are kept.

    Raises:
        InputError: there are no rows, or the recipe is not sound.
    """
    recipe = recipe.checked()
    if not len(rows) or len(rows) != len(labels):
        raise InputError(f"{len(rows)} rows and {len(labels)} labels cannot be learnt from")
    generator = torch.Generator().manual_seed(seed % 2**63)
    inputs = torch.from_numpy(np.array(rows, np.float32)).view(len(rows), *shape)
    truth = torch.from_numpy(np.array(labels, np.int64))
    each = -(-len(rows) // recipe.batch)
    steps = recipe.epochs * each
    best = _Best(module, judge)
    optimiser = torch.optim.Adam(module.parameters(), lr=recipe.rate)
    loss = (
        _Free(module, recipe)
        if recipe.method is Method.FREE
        else partial(_LOSSES[recipe.method], module, recipe, generator)
    )
    module.train()
    for step, chosen in enumerate(_batches(len(rows), recipe, generator)):
        optimiser.param_groups[0]["lr"] = recipe.rate * ramp(step / max(1, steps - 1))
        value = loss(inputs[chosen], truth[chosen])
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch says nothing of its types here
        optimiser.step()
        tell(step + 1, steps, recipe.method)
        if (step + 1) % each == 0 and step + 1 > JUDGED * steps:
            best.look()
    return best.restored().eval()


class _Best:
    """The weights that a judge valued most."""

    def __init__(self, module: torch.nn.Module, judge: Judge | None) -> None:
        self._module, self._judge = module, judge
        self._value = -np.inf
        self._weights: dict[str, torch.Tensor] = {}

    def look(self) -> None:
        """Ask the judge, if there is one."""
        value = -np.inf if self._judge is None else self._judge(self._module)
        if value > self._value:
            self._value = value
            self._weights = {name: part.clone() for name, part in self._module.state_dict().items()}

    def restored(self) -> torch.nn.Module:
        """The module with those weights; as it is where nobody judged."""
        if self._weights:
            self._module.load_state_dict(self._weights)
        return self._module


@dataclass(frozen=True, slots=True)
class Tried:
    """A module, and what the judge thinks of each seed that was tried."""

    module: torch.nn.Module
    seed: int
    values: dict[int, float]
    """By seed."""


def best_of(
    make: Callable[[int], torch.nn.Module],
    rows: Rows,
    labels: Labels,
    *,
    shape: Sequence[int],
    recipe: Recipe,
    seeds: Sequence[int],
    judge: Judge,
) -> Tried:
    """Train a module that ``make`` builds for each seed, and keep the one that the judge values most.

    Judge by rows that were held out, and measure the result on others still: of several that were tried, the best
    looks better on the rows that chose it than it is.

    Raises:
        InputError: there are no seeds or rows, or the recipe is not sound.
    """
    if not seeds:
        raise InputError("no seed was given to train with", remedy="name one or more.")
    trained, values = {}, {}
    for seed in seeds:
        noted: list[float] = []
        trained[seed] = train(
            make(seed), rows, labels, shape=shape, recipe=recipe, seed=seed, judge=_noting(judge, noted)
        )
        values[seed] = max(noted)
    chosen = max(values, key=lambda seed: values[seed])
    return Tried(trained[chosen], chosen, values)


def _noting(judge: Judge, noted: list[float]) -> Judge:
    def judged(module: torch.nn.Module) -> float:
        noted.append(judge(module))
        return noted[-1]

    return judged


def withstanding(
    rows: Rows,
    labels: Labels,
    *,
    shape: Sequence[int],
    classes: int,
    recipe: Recipe,
    least_right: float = 0.0,
    steps: int = 50,
    queries: int = 100,
) -> Judge:
    """A judge: the share of rows held out ``(records, features)`` that stay right under attack.

    Gradients of what was trained by one step may be masked, and projected steps along them alone would take
    a collapsed module for a strong one. Two climbs with steps that adapt and random squares attack in turn.
    A module that is right on less than ``least_right`` of the untouched rows is worth nothing beyond that share.
    """
    task = task_of(
        np.asarray(rows, np.float32),
        labels,
        space=image_space(tuple(shape), recipe.low, recipe.high),
        classes=classes,
        max_change=recipe.epsilon,
        shape=shape,
        budget=queries,
    )
    attack = AutoAttack((APGD(steps=steps), APGD(loss=Loss.MARGIN, steps=steps), Square()))

    def judge(module: torch.nn.Module) -> float:
        found = play(TorchTarget(module, shape=shape, classes=classes), attack, task)
        right = found.clean_accuracy.value
        return found.robust_accuracy.value if right >= least_right else right - 1

    return judge


def ramp(done: float) -> float:
    """Share of the peak learning rate after a share of the steps: up to 0.4, then down."""
    peak = 0.4
    return done / peak if done < peak else (1 - done) / (1 - peak)


def _batches(count: int, recipe: Recipe, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """As many batches as the epochs have; the free method goes through each several times in a row."""
    times = recipe.steps if recipe.method is Method.FREE else 1
    for turn in range(-(-recipe.epochs // times)):
        for chosen in torch.split(torch.randperm(count, generator=generator), recipe.batch):
            yield from [chosen] * min(times, recipe.epochs - turn * times)


# -- losses ----------------------------------------------------------------------------------------


def _plain(
    module: torch.nn.Module, recipe: Recipe, _generator: torch.Generator, rows: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    return functional.cross_entropy(module(rows), labels, label_smoothing=recipe.smoothing)


def _madry(
    module: torch.nn.Module, recipe: Recipe, generator: torch.Generator, rows: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    start = _noise(rows, recipe.epsilon, generator)
    worst = ascend(module, rows, start, recipe, lambda logits: functional.cross_entropy(logits, labels))
    return functional.cross_entropy(module(worst), labels, label_smoothing=recipe.smoothing)


def _trades(
    module: torch.nn.Module, recipe: Recipe, generator: torch.Generator, rows: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        usual = functional.softmax(module(rows), 1)
    start = 1e-3 * torch.randn(rows.shape, generator=generator)
    worst = ascend(module, rows, start, recipe, lambda logits: _divergence(logits, usual))
    logits = module(rows)
    natural = functional.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
    return natural + recipe.beta * _divergence(module(worst), functional.softmax(logits, 1))


def _fast(
    module: torch.nn.Module, recipe: Recipe, generator: torch.Generator, rows: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The published recipe clips the start to the ball only; the final row is clipped to ball and range."""
    start = _noise(rows, recipe.epsilon, generator).requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(module(rows + start), labels), start)
    moved = (start.detach() + recipe.step_size * slope.sign()).clamp(-recipe.epsilon, recipe.epsilon)
    worst = (rows + moved).clamp(recipe.low, recipe.high)
    return functional.cross_entropy(module(worst), labels, label_smoothing=recipe.smoothing)


class _Free:
    """Moves the rows by the gradient that the step before has left, and gives the loss there."""

    def __init__(self, module: torch.nn.Module, recipe: Recipe) -> None:
        self._module, self._recipe = module, recipe
        self._change: torch.Tensor | None = None

    def __call__(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        recipe = self._recipe
        change = self._moved()
        if change is None or change.shape[1:] != rows.shape[1:]:
            change = torch.zeros_like(rows)
        if len(change) < len(rows):
            change = torch.cat([change, torch.zeros_like(rows[len(change) :])])
        self._change = change.requires_grad_()
        worst = (rows + self._change[: len(rows)]).clamp(recipe.low, recipe.high)
        return functional.cross_entropy(self._module(worst), labels, label_smoothing=recipe.smoothing)

    def _moved(self) -> torch.Tensor | None:
        """The change of the step before, moved along its gradient and cut to the ball."""
        before, recipe = self._change, self._recipe
        if before is None or before.grad is None:
            return before
        moved = before.detach() + recipe.step_size * before.grad.sign()
        return moved.clamp(-recipe.epsilon, recipe.epsilon)


_LOSSES = {Method.PLAIN: _plain, Method.PGD: _madry, Method.TRADES: _trades, Method.FAST: _fast}


def ascend(
    module: torch.nn.Module,
    rows: torch.Tensor,
    start: torch.Tensor,
    recipe: Recipe,
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Rows within ``epsilon`` and the range at which ``loss`` of the logits is as large as some steps make it."""
    worst = (rows + start).clamp(recipe.low, recipe.high)
    for _ in range(recipe.steps):
        worst = worst.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(module(worst)), worst)
        moved = worst.detach() + recipe.step_size * slope.sign() - rows
        worst = (rows + moved.clamp(-recipe.epsilon, recipe.epsilon)).clamp(recipe.low, recipe.high)
    return worst.detach()


def _noise(rows: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    return (2 * torch.rand(rows.shape, generator=generator) - 1) * epsilon


def _divergence(logits: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the usual answer, mean over the batch."""
    return functional.kl_div(functional.log_softmax(logits, 1), usual, reduction="batchmean")


# -- networks --------------------------------------------------------------------------------------


def small_network(features: int, classes: int, width: int, seed: int) -> torch.nn.Module:
    """Two hidden layers for tables."""
    with _seeded(seed):
        return torch.nn.Sequential(
            torch.nn.Linear(features, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, classes),
        )


def convolutional_network(classes: int, side: int, seed: int) -> torch.nn.Module:
    """The network of Wong et al. 2020 for MNIST: two strided convolutions and a hidden layer of 100."""
    reduced = side // 2 // 2  # a kernel of 4, a stride of 2 and a margin of 1 halve, rounding down
    with _seeded(seed):
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 4, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 4, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * reduced * reduced, 100),
            torch.nn.ReLU(),
            torch.nn.Linear(100, classes),
        )


class _seeded:  # noqa: N801 - reads as a word
    """Initialise with a seed, and leave the global random numbers as they were."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._state = torch.get_rng_state()
        torch.manual_seed(self._seed % 2**63)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._state)

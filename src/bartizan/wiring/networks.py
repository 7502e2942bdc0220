"""A small torch network as a candidate for tables, trained plainly or so that it withstands small changes."""

from __future__ import annotations

import importlib.util
import math
from importlib import metadata
from typing import Any

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.lifecycle.develop.choose.candidate import Axis, Candidate, Facts, Interpretability, Supply
from bartizan.lifecycle.develop.harden.audit import Promise
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.lifecycle.develop.harden.networks import DELTA, SMOOTHING
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target
from bartizan.wiring.workspace import load

NAME = "torch"
WIDTH, EPOCHS, LEAST_STEPS = 32, 15, 250
"""Few records are gone through more often, until there were so many steps."""
BATCH = 64
ASCENT = {"free": 4}
"""Steps of the attack inside training, or how often the free method goes through a batch."""
USUAL_ASCENT = 7
FAR = 1e6
"""Standard deviations; tables have no common range as pixels have."""
_BYTES = 4


class Network(Wrapped):
    """A trained network on standardised rows. See ``TrainsItself``."""

    def __init__(self, inner: Target, module: Any, way: str, max_change: float) -> None:
        super().__init__(inner)
        self._module, self._way, self._max_change = module, way, max_change

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: in the same way."""
        return network(rows, labels, self.classes, way=self._way, max_change=self._max_change, seed=seed)

    def trained_by(self, way: str, rows: Rows, labels: Labels, *, max_change: float, seed: int) -> Target:
        """See ``TrainsItself.trained_by``."""
        return network(rows, labels, self.classes, way=way, max_change=max_change, seed=seed)

    def why_not_privately(self) -> str:
        """See ``TrainsItself.why_not_privately``."""
        installed = importlib.util.find_spec("opacus") is not None
        return "" if installed else "Opacus is not installed: pip install 'bartizan[private]'."

    def trained_privately(
        self, rows: Rows, labels: Labels, *, ranges: tuple[Rows, Rows], epsilon: float, seed: int
    ) -> Target:
        """See ``TrainsItself.trained_privately``."""
        return private_network(rows, labels, self.classes, ranges=ranges, epsilon=epsilon, seed=seed)

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``."""
        count = sum(int(part.numel()) for part in self._module.parameters())
        return Facts(count, _BYTES * count, Interpretability.BLACK_BOX, f"{count:,} weights")


def network(rows: Rows, labels: Labels, classes: int, *, way: str, max_change: float, seed: int) -> Network:
    """Train a network on rows ``(records, features)``.

    Raises:
        WorkError: torch is not installed.
    """
    try:
        training = load("bartizan.adapters.torch_training:train")
    except ImportError as error:
        raise WorkError("torch is not installed", remedy="pip install 'bartizan[torch]'.") from error
    methods = load("bartizan.adapters.torch_training:Method")
    recipe = load("bartizan.adapters.torch_training:Recipe")(
        method=methods.PLAIN if way in {"plain", "smooth-labels"} else methods(way),
        epsilon=max_change,
        low=-FAR,
        high=FAR,
        epochs=max(EPOCHS, math.ceil(LEAST_STEPS * BATCH / len(rows))),
        batch=BATCH,
        steps=ASCENT.get(way, USUAL_ASCENT),
        smoothing=SMOOTHING if way == "smooth-labels" else 0.0,
    )
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    module = load("bartizan.adapters.torch_training:small_network")(rows.shape[1], classes, WIDTH, seed)
    trained = training(module, (rows - centre) / spread, labels, shape=(rows.shape[1],), recipe=recipe, seed=seed)
    target = load("bartizan.adapters.torch:TorchTarget")(trained, shape=(rows.shape[1],), classes=classes)
    return Network(_Standardised(target, centre, spread), trained, way, max_change)


class PrivateNetwork(Network):
    """A network that was trained with differential privacy. See ``Promising``."""

    def __init__(self, inner: Target, module: Any, ranges: tuple[Rows, Rows], promise: Promise) -> None:
        super().__init__(inner, module, "private", 0.0)
        self._ranges, self.promise = ranges, promise

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: as private as before."""
        return private_network(rows, labels, self.classes, ranges=self._ranges, epsilon=self.promise.epsilon, seed=seed)


def private_network(
    rows: Rows, labels: Labels, classes: int, *, ranges: tuple[Rows, Rows], epsilon: float, seed: int
) -> PrivateNetwork:
    """Train a network on rows ``(records, features)`` with DP-SGD; ranges, not the data, give the scale.

    Raises:
        WorkError: torch or Opacus is not installed.
    """
    try:
        training = load("bartizan.adapters.opacus:train_privately")
    except ImportError as error:
        raise WorkError("Opacus is not installed", remedy="pip install 'bartizan[private]'.") from error
    low, high = ranges
    centre, spread = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    recipe = load("bartizan.adapters.opacus:PrivateRecipe")(epsilon=epsilon, delta=DELTA)
    module = load("bartizan.adapters.torch_training:small_network")(rows.shape[1], classes, WIDTH, seed)
    inside = np.clip((rows - centre) / spread, -1, 1)
    trained = training(module, inside, labels, shape=(rows.shape[1],), recipe=recipe, seed=seed).module
    target = load("bartizan.adapters.torch:TorchTarget")(trained, shape=(rows.shape[1],), classes=classes)
    standardised = _Standardised(target, centre, spread, bound=1.0)
    return PrivateNetwork(standardised, trained, ranges, Promise(epsilon, DELTA))


class _Standardised(Wrapped):
    """Gives the network what it was trained on."""

    def __init__(self, inner: Target, centre: Rows, spread: Rows, bound: float = FAR) -> None:
        super().__init__(inner)
        self._centre, self._spread, self._bound = centre, spread, bound

    def _given(self, rows: Rows) -> Rows:
        return np.clip((rows - self._centre) / self._spread, -self._bound, self._bound)

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``: the network around it can be trained again."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self.inner.labels(self._given(rows))

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self.inner.scores(self._given(rows))


class TorchNetwork:
    """See ``Candidate``."""

    name, title = NAME, "Small torch network"
    axes: tuple[Axis, ...] = ()
    is_floor = False

    @property
    def supply(self) -> Supply:
        """See ``Candidate.supply``."""
        version = metadata.version("torch")
        return Supply(
            code=f"torch {version}",
            weights="learnt here from the declared training data",
            risk="the package and the training data have to be trusted; no weights of others, no service of others",
        )

    def fingerprint(self) -> Any:
        """See ``Candidate.fingerprint``."""
        return [self.supply.code, WIDTH, EPOCHS, LEAST_STEPS]

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> Target:
        """See ``Candidate.fit``."""
        del settings
        return network(rows, labels, classes, way="plain", max_change=0.0, seed=seed)


def networks() -> list[Candidate]:
    """The network as a family, where torch is installed."""
    return [TorchNetwork()] if importlib.util.find_spec("torch") is not None else []

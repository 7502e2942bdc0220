"""A small torch network as a candidate for tables, trained plainly or so that it withstands small changes."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.lifecycle.develop.choose.candidate import Axis, Facts, Interpretability, Supply
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.lifecycle.develop.harden.networks import SMOOTHING
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target
from bartizan.wiring.workspace import load

NAME = "torch"
WIDTH, EPOCHS = 32, 15
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
        epochs=EPOCHS,
        batch=64,
        steps=5,
        smoothing=SMOOTHING if way == "smooth-labels" else 0.0,
    )
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    module = load("bartizan.adapters.torch_training:small_network")(rows.shape[1], classes, WIDTH, seed)
    trained = training(module, (rows - centre) / spread, labels, shape=(rows.shape[1],), recipe=recipe, seed=seed)
    target = load("bartizan.adapters.torch:TorchTarget")(trained, shape=(rows.shape[1],), classes=classes)
    return Network(_Standardised(target, centre, spread), trained, way, max_change)


class _Standardised(Wrapped):
    """Gives the network what it was trained on."""

    def __init__(self, inner: Target, centre: Rows, spread: Rows) -> None:
        super().__init__(inner)
        self._centre, self._spread = centre, spread

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``: the network around it can be trained again."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self.inner.labels((rows - self._centre) / self._spread)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self.inner.scores((rows - self._centre) / self._spread)


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
        return [self.supply.code, WIDTH, EPOCHS]

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> Target:
        """See ``Candidate.fit``."""
        del settings
        return network(rows, labels, classes, way="plain", max_change=0.0, seed=seed)

"""scikit-learn models as targets: loaded and asked in a process of their own. See ``targets.hosted``."""

from __future__ import annotations

from collections.abc import Callable

from bartizan.core.digest import Digest
from bartizan.targets.hosted import Framework, HostedTargets
from bartizan.targets.isolated import Limits

SKLEARN = Framework(
    host="bartizan.adapters.sklearn_host",
    remedy="save a fitted scikit-learn classifier with joblib.dump, by the version that is installed here.",
    describes_itself=True,
)


class SklearnTargets(HostedTargets):
    """Opens declared scikit-learn models. See ``Targets``."""

    def __init__(self, has_clean_scan: Callable[[Digest], bool], limits: Limits | None = None) -> None:
        super().__init__({"scikit-learn": SKLEARN}, has_clean_scan, limits)

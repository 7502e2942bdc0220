"""A served model as a target: it finds out from the first answer what there is, and offers no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from bartizan.adapters.http_target.answers import Answer, checked, json_of, read_oip, read_plain
from bartizan.adapters.http_target.endpoint import Endpoint
from bartizan.adapters.http_target.wire import Wire
from bartizan.core.errors import BudgetError, InputError, WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target


class HttpTarget:
    """A classifier behind a server. See ``Target``. Close it when it is not needed any more."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str = "",
        probe: Rows | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask the server one row, the first of ``probe`` or else of zeros, to find out what it answers.

        Raises:
            InputError: the address is none, or is remote without leave.
            WorkError: the server does not answer, or with something else than its protocol says.
        """
        if len(endpoint.classes) < 2 or not endpoint.columns:  # noqa: PLR2004 - one class is no choice
            raise InputError("a served model needs two classes and a feature", remedy="name them.")
        self.name = name or f"model:{urlsplit(endpoint.url).path.rstrip('/').rpartition('/')[2] or 'served'}"
        self.endpoint = endpoint
        self.features, self.classes = len(endpoint.columns), len(endpoint.classes)
        self.class_values = endpoint.classes
        self.sent = 0
        """Rows sent, those sent again included."""
        self.resent = 0
        """Rows sent again."""
        self._wire = Wire(endpoint, sleep)
        first = np.zeros((1, self.features)) if probe is None else probe[:1]
        try:
            self._input = endpoint.inputs or _BODY_KEYS.get(endpoint.speaks) or self._input_name()
            self._gives_scores = self._ask(first).scores is not None
        except BaseException:
            self._wire.close()
            raise

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``. A server trains nothing."""
        return frozenset({Access.LABELS, Access.SCORES} if self._gives_scores else {Access.LABELS})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        parts = [answer.labels for answer in self._answers(rows)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        if not self._gives_scores:
            raise WorkError(f"{self.name} answers labels only", remedy="use an attack that needs labels only.")
        parts = [answer.scores for answer in self._answers(rows) if answer.scores is not None]
        found = np.concatenate(parts) if parts else np.empty((0, self.classes))
        if len(found) != len(rows):
            raise WorkError(f"{self.name} gave scores at first and then left them out")
        return found

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        del rows, labels, seed
        raise WorkError(f"{self.name} is served and cannot be trained", remedy="use an attack that trains nothing.")

    def close(self) -> None:
        """Let go of the connection."""
        self._wire.close()

    def _answers(self, rows: Rows) -> list[Answer]:
        if rows.ndim != 2 or rows.shape[1] != self.features:  # noqa: PLR2004 - a matrix
            raise WorkError(f"{self.name} takes rows of {self.features} features and was given an array {rows.shape}")
        size = self.endpoint.most_rows
        return [self._ask(rows[at : at + size]) for at in range(0, len(rows), size)]

    def _ask(self, rows: Rows) -> Answer:
        body = msgspec.json.encode(_question(self.endpoint, self._input, rows))
        path = self._wire.path + ("/infer" if self.endpoint.speaks == "oip" else "")
        data = self._wire.exchange("POST", path, body, lambda again: self._charge(len(rows), again))
        said = json_of(data, self.name)
        answer = read_oip(said, self.endpoint) if self.endpoint.speaks == "oip" else read_plain(said, self.endpoint)
        return checked(answer, len(rows), self.classes, self.name)

    def _charge(self, rows: int, again: bool) -> None:
        if self.sent + rows > self.endpoint.role_budget:
            raise BudgetError(
                f"{self.endpoint.role_budget - self.sent} of the {self.endpoint.role_budget} rows that this role may "
                f"send are left and {rows} more were asked for"
            )
        self.sent += rows
        self.resent += rows if again else 0

    def _input_name(self) -> str:
        said = json_of(self._wire.exchange("GET", self._wire.path, b"", lambda _again: None), self.name)
        inputs = said.get("inputs") if isinstance(said, dict) else None
        first = inputs[0] if isinstance(inputs, list) and inputs else None
        named = first.get("name") if isinstance(first, dict) else None
        if not isinstance(named, str):
            raise WorkError(f"{self.name} does not say what its input is called", remedy="name it.")
        return named


_BODY_KEYS: dict[str, str] = {"json": "instances", "mlflow": "dataframe_split"}


def _question(endpoint: Endpoint, name: str, rows: Rows) -> dict[str, Any]:
    plain = np.asarray(rows, dtype=np.float64).tolist()
    if endpoint.speaks == "oip":
        return {"inputs": [{"name": name, "shape": list(rows.shape), "datatype": "FP64", "data": plain}]}
    if name == "dataframe_split":
        return {name: {"columns": list(endpoint.columns), "data": plain}}
    return {name: plain}

"""Tailoring: what of an answer a role is told, by the arithmetic of ``targets.detail`` that the red team attacks too.

The label is always that of the answer, also where a rule has overruled the model. Scores that do not fit the label
are not told: they would give away what the model said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.graphic import picture
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.protocol import Output
from bartizan.lifecycle.deploy.gateway.roles import Role
from bartizan.targets.detail import (
    FINEST,
    bucket_of,
    consistent,
    keys_of,
    likeliest,
    noisy,
    told,
    told_rows,
)
from bartizan.targets.protocol import Labels, Scores

LEAST_KEY, MOST_KEY = 16, 64
"""Bytes of the key that noise is drawn with (BLAKE2b, RFC 7693)."""
Outputs = Mapping[str, Output]
Names = tuple[str, ...]


class Tailoring:
    """Turns answers into what roles are told. Pure: the same answer, row, role and key give the same outputs.

    Args:
        classes: names of the classes by model. It is looked at for every answer, so it may change.
        key: secret, shared by all replicas and kept over restarts: with another key the same row gets another noise,
            and noise that is drawn anew can be averaged away.
    """

    def __init__(self, classes: Mapping[str, Names], key: bytes) -> None:
        if not LEAST_KEY <= len(key) <= MOST_KEY:
            raise InputError(f"the key of the noise has {LEAST_KEY} to {MOST_KEY} bytes, not {len(key)}")
        self._classes, self._key = classes, key
        self._labels: dict[str, tuple[Names, list[dict[str, Output]]]] = {}
        self._bits: dict[tuple[object, ...], int] = {}

    def tell(self, answer: Answer, asked: Asked, role: Role, *, coarse: bool = False) -> Outputs:
        """The outputs by name; with ``coarse`` the label alone.

        Raises:
            WorkError: the model's scores are no probabilities.
        """
        names, scores = self._classes[asked.model], answer.scores
        plain = coarse or scores is None or role.detail == "label"
        if len(answer.labels) == 1:
            label = answer.labels.item()
            given = self._label(asked.model, names, label)
            return given if plain or scores is None else self._one(given, scores.ravel().tolist(), label, asked, role)
        given = {"label": Output("BYTES", [names[label] for label in answer.labels.tolist()])}
        return given if plain or scores is None else self._many(given, scores, answer.labels, asked, role)

    def _label(self, model: str, names: Names, label: int) -> dict[str, Output]:
        """The label of one row; made beforehand, because most answers are nothing else."""
        known = self._labels.get(model)
        if known is None or known[0] is not names:
            known = self._labels[model] = (names, [{"label": Output("BYTES", [name])} for name in names])
        return known[1][label]

    def _one(self, given: Outputs, scores: list[float], label: int, asked: Asked, role: Role) -> Outputs:
        """One row, without arrays: a call of NumPy costs as much as all of this."""
        # What is no number compares as false, and is told as little as what does not fit.
        if not scores[label] >= max(scores) or math.isnan(sum(scores)):
            return given
        names, kind = self._classes[asked.model], role.detail
        if kind == "scores":
            return {**given, "scores": Output("FP64", scores, len(names))}
        if kind == "top-k":
            order = sorted(range(len(scores)), key=lambda place: (place != label, -scores[place]))
            count = max(1, min(role.k, len(names) - 1))
            return {**given, "top": _top([label, *sorted(order[1:count])], count, names)}
        units = _units(role)
        whole = told(scores, label, units)
        if kind == "rounded-scores":
            return {"label": given["label"], "scores": Output("FP64", [share / units for share in whole], len(whole))}
        return {**given, **self._formed([whole], [label], asked, role)}

    def _many(self, given: Outputs, scores: Scores, labels: Labels, asked: Asked, role: Role) -> Outputs:
        if not len(labels) or not consistent(scores, labels):
            return given
        names, kind = self._classes[asked.model], role.detail
        if kind == "scores":
            return {**given, "scores": Output("FP64", scores.ravel().tolist(), len(names))}
        if kind == "top-k":
            count = max(1, min(role.k, len(names) - 1))
            return {**given, "top": _top(likeliest(scores, labels, count).ravel().tolist(), count, names)}
        whole = told_rows(scores, labels, _units(role)).tolist()
        return {**given, **self._formed(whole, labels.tolist(), asked, role)}

    def _formed(self, whole: list[list[int]], labels: list[int], asked: Asked, role: Role) -> dict[str, Output]:
        """What is made of scores in whole units, row by row."""
        names, units = self._classes[asked.model], _units(role)
        if role.detail == "rounded-scores":
            return {"scores": Output("FP64", [share / units for row in whole for share in row], len(names))}
        rows = list(zip(whole, labels, strict=True))
        match role.detail:
            case "confidence":
                return {"confidence": Output("FP64", [row[label] / units for row, label in rows])}
            case "noisy-scores":
                return {"confidence": Output("FP64", self._noisy(rows, asked, role, len(names)))}
            case "graphic":
                return {"graphic": Output("BYTES", [picture(row, units, label, names) for row, label in rows])}
        buckets = tuple(role.buckets.items())
        words = [buckets[bucket_of(row[label], buckets)][0] for row, label in rows]
        if role.detail == "buckets":
            return {"confidence": Output("BYTES", words)}
        sentences = [_sentence(names[label], word) for label, word in zip(labels, words, strict=True)]
        return {"summary": Output("BYTES", sentences)}

    def _noisy(self, rows: list[tuple[list[int], int]], asked: Asked, role: Role, classes: int) -> list[float]:
        keyed = zip(rows, keys_of(asked.rows), strict=True)
        drawn = [
            noisy(row[label], seen, key=self._key, classes=classes, noise=role.noise) for (row, label), seen in keyed
        ]
        return [round(share, role.decimals) for share in drawn]

    def outputs(self, role: Role, classes: int) -> Outputs:
        """What a role is told of one row, without data."""
        return outputs_of(role, classes)

    def bits(self, role: Role, classes: int) -> int:
        """Bits that one row discloses beyond its label: log2 of the answers that can be told apart. See ``Detail``."""
        if role.detail == "label":
            return 0
        what = (role.detail, role.k, role.decimals, len(role.buckets), role.noise, role.steps, classes)
        known = self._bits.get(what)
        if known is None:
            known = self._bits[what] = math.ceil(role.shown.bits(classes) - math.log2(classes))
        return known


def outputs_of(role: Role, classes: int) -> Outputs:
    """What a role is told of one row of a model with scores, without data."""
    given = {"label": Output("BYTES", [])}
    match role.detail:
        case "label":
            pass
        case "top-k":
            given["top"] = Output("BYTES", [], role.shown.named(classes))
        case "summary" | "graphic":
            given[role.detail] = Output("BYTES", [])
        case "buckets":
            given["confidence"] = Output("BYTES", [])
        case "confidence" | "noisy-scores":
            given["confidence"] = Output("FP64", [])
        case "rounded-scores" | "scores":
            given["scores"] = Output("FP64", [], classes)
    return given


def _units(role: Role) -> int:
    """In how many units scores are cut for a role; what is no number is made of hundredths."""
    match role.detail:
        case "rounded-scores" | "confidence":
            return int(10**role.decimals)
        case "graphic":
            return role.steps
    return FINEST


def _top(places: list[int], count: int, names: Names) -> Output:
    return Output("BYTES", [names[place] for place in places], count)


def _sentence(label: str, confidence: str) -> str:
    return f"The model takes this for {label!r}, with {confidence} confidence."


__all__ = ["Tailoring", "outputs_of"]

"""Common corruptions: what happens to inputs without any adversary, in kinds and five severities.

After Hendrycks and Dietterich 2019 (arXiv:1903.12261): noise, blur, weather-like changes of light and
digital loss; sizes in pixels are scaled to the image. Rotation and shift are added, as in MNIST-C
(Mu and Gilmer 2019, arXiv:1906.02337). Tables have their own: noise, rounding, missing values and
slips of the decimal point. Every kind keeps values within the range of the space, but for slips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, InputError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, Point, ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Estimate, Interval, bootstrap, metric, proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import as_pictures, is_picture
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows, Target

SEVERITIES = (1, 2, 3, 4, 5)
ORDINARY = 3
"""Severity up to which a corruption is taken for something that will happen in use."""
FINDINGS = ((0.3, Severity.HIGH), (0.1, Severity.MEDIUM))
"""Least loss of accuracy at the ordinary severity, at the lower end of its interval, for each severity."""
ASKED_AT_ONCE = 1 << 25
"""Numbers in the rows that are asked together; bounds memory."""

Pictures = NDArray[np.float64]
"""``(batch, channels, height, width)``, in [0, 1]."""
Change = Callable[[Pictures, int, np.random.Generator], Pictures]
"""Pictures, severity from 0 and random numbers to corrupted pictures, which may leave [0, 1]."""


def _gaussian_noise(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    return pictures + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity], pictures.shape)


def _shot_noise(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    photons = (60, 25, 12, 5, 3)[severity]
    return rng.poisson(np.clip(pictures, 0, 1) * photons) / photons


def _impulse_noise(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    hit = rng.random(pictures.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[severity]
    return np.where(hit, rng.integers(0, 2, pictures.shape), pictures)


def _blur(pictures: Pictures, severity: int, _rng: np.random.Generator) -> Pictures:
    width = (0.4, 0.6, 0.7, 0.8, 1.0)[severity] * max(pictures.shape[2] / 32, 1.0)
    return np.asarray(scipy.ndimage.gaussian_filter(pictures, (0, 0, width, width), mode="nearest"))


def _pixelate(pictures: Pictures, severity: int, _rng: np.random.Generator) -> Pictures:
    share = (0.9, 0.75, 0.6, 0.5, 0.4)[severity]
    down, across = (_coarse(side, share) for side in pictures.shape[2:])
    return np.asarray(np.einsum("ih,bchw,jw->bcij", down, pictures, across, optimize=True))


def _coarse(side: int, share: float) -> NDArray[np.float64]:
    """``(side, side)``: each line as the mean of those that fall into one when only a share of them is kept."""
    kept = max(int(side * share), 1)
    edges = np.arange(kept + 1) * side / kept
    overlap = np.minimum(edges[1:, None], np.arange(1, side + 1)) - np.maximum(edges[:-1, None], np.arange(side))
    weights = np.maximum(overlap, 0.0)
    means = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray(means[((np.arange(side) + 0.5) * kept / side).astype(np.int64)])


def _brightness(pictures: Pictures, severity: int, _rng: np.random.Generator) -> Pictures:
    return pictures + (0.1, 0.2, 0.3, 0.4, 0.5)[severity]


def _contrast(pictures: Pictures, severity: int, _rng: np.random.Generator) -> Pictures:
    mean = pictures.mean(axis=(2, 3), keepdims=True)
    return np.asarray(mean + (pictures - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity])


def _rotation(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    angle = (5.0, 10.0, 20.0, 30.0, 45.0)[severity]
    return np.stack(
        [
            scipy.ndimage.rotate(picture, sign * angle, axes=(1, 2), reshape=False, order=1, mode="nearest")
            for picture, sign in zip(pictures, rng.choice((-1, 1), len(pictures)), strict=True)
        ]
    )


def _translation(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    height, width = pictures.shape[2:]
    share = (0.04, 0.08, 0.12, 0.16, 0.2)[severity]
    turns = rng.uniform(0, 2 * np.pi, len(pictures))
    steps = np.stack([np.sin(turns) * height, np.cos(turns) * width], axis=1) * share
    return np.stack(
        [
            scipy.ndimage.shift(picture, (0, *step), order=1, mode="nearest")
            for picture, step in zip(pictures, steps, strict=True)
        ]
    )


LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Quantisation table of the JPEG standard (ITU-T T.81, annex K)."""
BLOCK = 8


def _jpeg(pictures: Pictures, severity: int, _rng: np.random.Generator) -> Pictures:
    """Blocks are transformed, quantised and back; every colour as luminance, and nothing is subsampled."""
    quality = (25, 18, 15, 10, 7)[severity]
    table = np.clip(np.floor((LUMINANCE * (5000 / quality) + 50) / 100), 1, 255)
    batch, channels, height, width = pictures.shape
    beyond = [(0, 0), (0, 0), (0, -height % BLOCK), (0, -width % BLOCK)]
    padded = np.pad(pictures, beyond, mode="edge") * 255 - 128
    shape = (batch, channels, padded.shape[2] // BLOCK, BLOCK, padded.shape[3] // BLOCK, BLOCK)
    blocks = padded.reshape(shape).swapaxes(3, 4)
    quantised = np.rint(scipy.fft.dctn(blocks, axes=(4, 5), norm="ortho") / table) * table
    back = scipy.fft.idctn(quantised, axes=(4, 5), norm="ortho").swapaxes(3, 4).reshape(padded.shape)
    return np.asarray((np.rint(back) + 128)[:, :, :height, :width] / 255)


OF_PICTURES: Mapping[str, Change] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "blur": _blur,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
    "brightness": _brightness,
    "contrast": _contrast,
    "rotation": _rotation,
    "translation": _translation,
}


@dataclass(frozen=True, slots=True)
class _Columns:
    """What corruptions of a table need to know of it."""

    space: Space
    middle: NDArray[np.float64]
    """``(features,)``: what stands in for a missing value."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Columns that hold numbers and vary."""
        return np.flatnonzero(~self.space.categorical & ~self._constant)

    @property
    def _constant(self) -> NDArray[np.bool_]:
        constant: NDArray[np.bool_] = self.space.high <= self.space.low
        return constant

    def noise(self, rows: Rows, severity: int, rng: np.random.Generator) -> Rows:
        width = (0.05, 0.1, 0.2, 0.3, 0.5)[severity]
        return self._possible(rows, rows + self._on_numbers(rng.normal(0, width, rows.shape) * self.space.scale))

    def rounding(self, rows: Rows, severity: int, _rng: np.random.Generator) -> Rows:
        grid = (0.1, 0.25, 0.5, 1.0, 2.0)[severity] * self.space.scale
        return self._possible(rows, rows + self._on_numbers(np.rint(rows / grid) * grid - rows))

    def missing(self, rows: Rows, severity: int, rng: np.random.Generator) -> Rows:
        gone = rng.random(rows.shape) < (0.05, 0.1, 0.2, 0.3, 0.5)[severity]
        return self._possible(rows, np.where(gone, rows + self._on_numbers(self.middle - rows), rows))

    def decimal_point(self, rows: Rows, severity: int, rng: np.random.Generator) -> Rows:
        """Some numbers of each row are ten times too large or too small."""
        slipped = rows.copy()
        numbers = self.numbers
        for row in slipped:
            places = rng.permutation(numbers)[: severity + 1]
            row[places] *= 10.0 ** rng.choice((-1, 1), len(places))
        return slipped

    def _on_numbers(self, change: Rows) -> Rows:
        kept = np.zeros(change.shape[1], dtype=np.bool_)
        kept[self.numbers] = True
        return np.where(kept, change, 0.0)

    def _possible(self, rows: Rows, corrupted: Rows) -> Rows:
        """Within the ranges, whole numbers whole; nature may change what an adversary cannot."""
        low, high = np.minimum(self.space.low, rows), np.maximum(self.space.high, rows)
        whole = np.where(self.space.integer, np.rint(corrupted), corrupted)
        return np.clip(whole, low, high)


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Candidates of the corruptions: every sample in every kind and severity."""

    rows: dict[tuple[str, int], Rows] = field(default_factory=dict)
    """``(kind, severity)`` to rows ``(samples, features)``; severities from 1 to 5."""


def corrupted(task: EvasionTask, rng: np.random.Generator) -> Corrupted:
    """Every sample of ``task`` in every kind and severity.

    Raises:
        InputError: an image has no finite range of values.
    """
    if is_picture(task.shape):
        return _corrupted_pictures(task, rng)
    columns = _Columns(task.space, np.median(task.starts if len(task.starts) else task.rows, axis=0))
    kinds = {
        "noise": columns.noise,
        "rounding": columns.rounding,
        "missing": columns.missing,
        "decimal_point": columns.decimal_point,
    }
    return Corrupted(
        {
            (kind, severity): change(task.rows, severity - 1, rng)
            for kind, change in kinds.items()
            for severity in SEVERITIES
        }
    )


def _corrupted_pictures(task: EvasionTask, rng: np.random.Generator) -> Corrupted:
    low, width = float(task.space.low.min()), float(task.space.high.max() - task.space.low.min())
    if not (np.isfinite(width) and width > 0):
        raise InputError("corruptions of images need a finite range of intensities", remedy="give the space a range.")
    pictures = (as_pictures(task.rows, task.shape).astype(np.float64) - low) / width
    found = {}
    for kind, change in OF_PICTURES.items():
        for severity in SEVERITIES:
            changed = np.clip(change(pictures, severity - 1, rng), 0, 1) * width + low
            found[kind, severity] = changed.reshape(task.rows.shape).astype(task.rows.dtype)
    return Corrupted(found)


@dataclass(frozen=True, slots=True)
class Endured:
    """Which samples a model gets right in each kind and severity."""

    clean: NDArray[np.bool_]
    """``(samples,)``: right without corruption."""
    right: dict[tuple[str, int], NDArray[np.bool_]]
    """``(kind, severity)`` to which samples are right."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds in their order."""
        return tuple(dict.fromkeys(kind for kind, _ in self.right))

    def accuracy(self, kind: str, severity: int) -> Estimate:
        """Accuracy in one kind and severity."""
        right = self.right[kind, severity]
        return proportion(int(right.sum()), len(right))

    def mean(self, rng: np.random.Generator) -> Estimate:
        """Mean accuracy over all kinds and severities; the interval is over other samples."""
        return self._estimate(np.mean(list(self.right.values()), axis=0), rng)

    def loss(self, kind: str, severity: int, rng: np.random.Generator) -> Estimate:
        """Clean accuracy less that in one kind and severity, on the same samples."""
        return self._estimate(self.clean.astype(float) - self.right[kind, severity], rng)

    def _estimate(self, values: NDArray[np.float64], rng: np.random.Generator) -> Estimate:
        interval = bootstrap(values, _mean, rng)
        if not np.isfinite([interval.low, interval.high]).all():
            interval = Interval(-1.0, 1.0)
        return Estimate(float(values.mean()), interval, len(values), "bootstrap")

    @property
    def worst(self) -> tuple[str, int]:
        """Kind whose accuracy is lowest at the ordinary severity."""
        return min(((kind, ORDINARY) for kind in self.kinds), key=lambda name: self.right[name].mean())


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())


def endure(target: Target, task: EvasionTask, *, seed: int = 0) -> Endured:
    """Ask a target in this process about every sample in every kind and severity."""
    candidates = corrupted(task, np.random.default_rng(seed))
    return Endured(
        target.labels(task.rows) == task.labels,
        {name: target.labels(rows) == task.labels for name, rows in candidates.rows.items()},
    )


class Corruption:
    """See ``Family``. Accuracy by kind and severity, on rows that the model never saw."""

    name = "corruption"
    settings: tuple[str, ...] = ("seed", "samples")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """See ``Family.case``."""
        del attack
        evaluation, training = material.evaluation, material.training
        count = min(material.settings.samples, len(evaluation))
        if count < 1:
            raise ArtefactError(
                f"dataset {material.model.evaluated_on!r} has no records", remedy="evaluate on some records."
            )
        places = np.sort(rng.permutation(len(evaluation))[:count])
        task = EvasionTask(
            rows=evaluation.rows[places],
            labels=evaluation.labels[places],
            classes=len(material.model.classes),
            starts=training.rows,
            start_labels=training.labels,
            space=material.space,
            max_change=material.settings.max_change,
            budget=0,
            shape=material.shape,
        )
        return Case(
            task=task,
            budget=Budget(samples=count, per_sample=0),
            truth=task,
            knowledge="none: what happens to inputs by chance, or by an edit that anyone can make by hand",
            settings={"samples": count, "severities": len(SEVERITIES)},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """See ``Family.measure``."""
        task: EvasionTask = case.truth
        candidates = run.candidates if isinstance(run.candidates, Corrupted) else Corrupted()
        rows = {name: one for name, one in candidates.rows.items() if _usable(one, task)}
        answers: dict[tuple[str, int], Labels] = {}
        clean = yield ask(task.rows)
        for name, one in rows.items():
            answers[name] = yield ask(one)
        right = {name: answer == task.labels for name, answer in answers.items()}
        if not right:
            raise ArtefactError("no kind of corruption applies to these rows", remedy="declare columns that vary.")
        return _measurement(Endured(clean == task.labels, right), rng)


def _usable(rows: Any, task: EvasionTask) -> bool:
    return isinstance(rows, np.ndarray) and rows.shape == task.rows.shape and bool(np.isfinite(rows).all())


def _measurement(endured: Endured, rng: np.random.Generator) -> Measurement:
    clean = proportion(int(endured.clean.sum()), len(endured.clean))
    mean, worst = endured.mean(rng), endured.worst
    metrics = {
        "clean_accuracy": clean.metric(),
        "corrupted_accuracy": metric(mean.value, mean.interval, mean.n, mean.method),
        "worst_corruption_accuracy": endured.accuracy(*worst).metric(),
    }
    curves = {kind: tuple(_point(endured, kind, severity) for severity in SEVERITIES) for kind in endured.kinds}
    return Measurement(
        summary=(
            f"Accuracy falls from {clean.value:.0%} to {mean.value:.0%} on average over "
            f"{len(endured.kinds)} common corruptions, and to {endured.accuracy(*worst).value:.0%} under "
            f"{worst[0].replace('_', ' ')} of middle severity."
        ),
        metrics=metrics,
        curves=curves,
        tables={"worst": {"kind": worst[0], "severity": worst[1]}},
        findings=tuple(found for kind in endured.kinds for found in _finding(endured, kind, rng)),
    )


def _point(endured: Endured, kind: str, severity: int) -> Point:
    share = endured.accuracy(kind, severity).metric()
    return Point(float(severity), share.value, share.low, share.high)


def _finding(endured: Endured, kind: str, rng: np.random.Generator) -> tuple[Finding, ...]:
    """One finding for a kind that costs more accuracy than chance explains."""
    loss = endured.loss(kind, ORDINARY, rng)
    severity = next((severity for least, severity in FINDINGS if loss.interval.low >= least), None)
    if severity is None:
        return ()
    name = kind.replace("_", " ")
    return (
        Finding(
            rule="redteam/corruption",
            severity=severity,
            title=f"{name} of middle severity costs {loss.value:.0%} of all answers their correctness",
            where=kind,
            detail=f"{loss.interval.low:.0%} to {loss.interval.high:.0%} of {loss.n} samples, compared pairwise.",
            remedy="Train with such inputs too, check inputs for this fault before they are answered, or say so in the "
            "model's limits.",
        ),
    )

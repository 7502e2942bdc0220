"""Detection of unusual inputs: how well each detector tells them from usual ones, and what a row costs.

``python benchmarks/outliers.py [--data MNIST]``

Digits (8 by 8): a network learns 0 to 7; near are 8 and 9, far are five sets made of its own test rows. Tumours and
wines are tables. ``--data`` adds MNIST (an npz file, see ``data.py``). No row that is judged was seen by training or
calibration. Then what transforms cost in time, and what they are worth against attacks that know of them, on a plain
network; of one's own model the check ``gateway.sanitise`` says that. Processor time, one thread.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.adapters.callable_target import CallableTarget
from bartizan.core.digest import canonical_json
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS
from bartizan.lifecycle.deploy.gateway.evaluation.filtered import Filtered
from bartizan.lifecycle.deploy.gateway.evaluation.toll import toll
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked, Column, Material
from bartizan.lifecycle.deploy.gateway.guards.outliers.fitting import Calibration, Usual, fit
from bartizan.lifecycle.deploy.gateway.guards.outliers.guard import OutlierGuard, OutlierSettings
from bartizan.lifecycle.deploy.gateway.guards.outliers.wire import packed
from bartizan.lifecycle.deploy.gateway.guards.sanitise.chains import chain_of
from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame
from bartizan.lifecycle.deploy.gateway.guards.schema import SchemaGuard, SchemaSettings
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.planning import paired
from bartizan.redteam.play import task_of
from bartizan.redteam.statistics import auc, proportion, roc
from bartizan.targets.feasible import image_space
from common import promise, tell

SEEDS = 4
NEAR, FAR, MICROSECONDS = 0.968, 0.9999, 30.0
DETECTORS = ("combined", "neighbours", "energy", "mahalanobis", "softmax")


def microseconds(work, count=4000):
    """Least processor time of a call, of several rounds."""
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        for _ in range(count // 7):
            work()
        best = min(best, (time.process_time() - began) / (count // 7))
    return 1e6 * best


class Case:
    """A model, a reference, and sets to tell apart."""

    def __init__(self, name, model, *, train, calibration, usual, sets, image, classes, seed):
        self.name, self.model, self.usual, self.sets = name, model, usual, sets
        answers = model.predict_proba(calibration[0])
        self.reference = fit(
            Usual(*train, classes, image=image), Calibration(*calibration, answers), np.random.default_rng(seed)
        )

    def area(self, detector, rows):
        """How well a detector tells rows from usual ones."""
        every = np.concatenate([self.usual, rows])
        found = self.reference.raw(detector, every, self.model.predict_proba(every))
        return auc(roc(found, np.arange(len(every)) >= len(self.usual)))

    def alarms(self, detector, share):
        """Share of usual rows that are rarer than a stated share."""
        decades = self.reference.decades(detector, self.usual, self.model.predict_proba(self.usual))
        return proportion(int((decades >= -np.log10(share)).sum()), len(decades))


def images(usual, side, rng):
    """The far sets."""
    pictures = usual.reshape(-1, side, side)
    mosaic = pictures.copy()
    half = side // 2
    for high in (slice(None, half), slice(half, None)):
        for wide in (slice(None, half), slice(half, None)):
            mosaic[:, high, wide] = pictures[rng.permutation(len(pictures))][:, high, wide]
    return {
        "turned": np.rot90(pictures, 1, (1, 2)).reshape(usual.shape),
        "inverted": 1 - usual,
        "shuffled": rng.permuted(usual, axis=1),
        "mosaic": mosaic.reshape(usual.shape),
        "noise": rng.random(usual.shape).astype(usual.dtype),
    }


def digits(seed):
    rows, labels = load_digits(return_X_y=True)
    return known_digits(
        "digits", (rows / 16).astype(np.float32), labels.astype(np.int64), side=8, trained=900, seed=seed, layers=(64,)
    )


def known_digits(name, rows, labels, *, side, trained, seed, layers):
    """The network knows 0 to 7; 8 and 9 are near."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(labels < 8))
    held = order[trained:][:4000]
    train, calibration, usual = order[:trained], *np.array_split(held, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier(layers, max_iter=400 if trained < 5000 else 12, random_state=seed)
        model.fit(rows[train], labels[train])
    parts = {"train": (rows[train], labels[train]), "calibration": (rows[calibration], labels[calibration])}
    near = rows[labels > 7][:2000]
    sets = {"near": near, **images(rows[usual], side, rng)}
    return Case(name, model, **parts, usual=rows[usual], sets=sets, image=True, classes=8, seed=seed)


def table(name, load, seed):
    rows, labels = load(return_X_y=True)
    labels = labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    train, calibration, usual = np.array_split(order, [len(rows) // 2, 3 * len(rows) // 4])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[train], labels[train])
    spread, mine = rows[train].std(axis=0), rows[usual]
    sets = {
        "recombined": rng.permuted(mine, axis=0),
        "moved 2 sd": mine + 2 * spread * rng.choice([-1, 1], mine.shape),
        "moved 0.5 sd": mine + 0.5 * spread * rng.choice([-1, 1], mine.shape),
        "mixed": (mine + mine[rng.permutation(len(mine))]) / 2,
        "noise": rng.uniform(rows[train].min(axis=0), rows[train].max(axis=0), mine.shape),
    }
    parts = {"train": (rows[train], labels[train]), "calibration": (rows[calibration], labels[calibration])}
    return Case(name, model, **parts, usual=mine, sets=sets, image=False, classes=labels.max() + 1, seed=seed)


def compare(cases):
    """Area under the ROC curve, mean over seeds, and false positives at a stated 1 %."""
    names = list(cases[0].sets)
    print(f"\n{cases[0].name}: AUROC x 100, mean of {len(cases)} seeds")
    print(f"  {'detector':<12}", *(f"{name:>13}" for name in names), f"{'alarms at 1 %':>15}")
    found = {}
    for detector in DETECTORS:
        areas = {name: [case.area(detector, case.sets[name]).value for case in cases] for name in names}
        alarms = np.mean([case.alarms(detector, 0.01).value for case in cases])
        found[detector] = areas
        print(f"  {detector:<12}", *(f"{100 * np.mean(areas[name]):13.1f}" for name in names), f"{alarms:14.1%}")
    return found


def asked(rows):
    return Asked(request="r", caller=ANONYMOUS, model="m", digest="0" * 64, rows=rows, now=0.0)


def cost(case, columns):
    """What the guard adds to a request, beside the bare product that finds the nearest row."""
    report = canonical_json({"reference": packed(case.reference)})
    said = Material(
        model="m",
        digest="0" * 64,
        classes=tuple(map(str, range(len(case.reference.prior)))),
        columns=tuple(
            Column(name=f"x{place}", low=float(low), high=float(high))
            for place, (low, high) in enumerate(zip(case.usual.min(axis=0), case.usual.max(axis=0), strict=True))
        ),
        fitted=lambda _: report,
        state=None,
    )
    guard, schema = OutlierGuard(OutlierSettings(), said), SchemaGuard(SchemaSettings(), said)
    rows = case.usual[:1].astype(np.float64)
    scores = case.model.predict_proba(rows)
    answer = Answer(scores.argmax(axis=1), scores)

    def both():
        question = asked(rows)
        question.measures["outliers.decades"] = guard.on_request(question).measures["decades"]
        guard.on_response(question, answer)

    point = case.reference.encoding.points(rows)[0]
    floor = microseconds(lambda: case.reference.prototypes.dot(point))
    spent = microseconds(both) - microseconds(lambda: asked(rows))
    many = np.repeat(rows, 1024, axis=0)
    batch = Answer(np.repeat(answer.labels, 1024), np.repeat(scores, 1024, axis=0))

    def together():
        question = asked(many)
        guard.on_request(question)
        guard.on_response(question, batch)

    prototypes = len(case.reference.prototypes)
    kept = promise(f"{case.name}: outliers, one row before and after", spent, MICROSECONDS, "us")
    tell(f"{case.name}: bare product with {prototypes} rows", floor, "us")
    tell(f"{case.name}: outliers, a row of 1024", microseconds(together, 70) / 1024, "us")
    question = asked(rows)
    kept &= promise(
        f"{case.name}: schema, one row of {columns}", microseconds(lambda: schema.on_request(question)), 5, "us"
    )
    tell(f"{case.name}: reference, as kept", len(report) / 1024, "KiB")
    return kept


def filters():
    """Processor time of transforms."""
    for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32)):
        size = int(np.prod(shape))
        frame, row = Frame(np.zeros(size), np.ones(size), shape), np.random.default_rng(0).random((1, size))
        for name in ("clip", "bit-depth:4", "median:3", "average:3", "jpeg:75"):
            chain = chain_of([name], frame)
            tell(f"{name} on {shape}", microseconds(lambda chain=chain, row=row: chain(row), 1400), "us")


def worth(count=200, queries=300, max_change=0.1):
    """Right answers that attacks turn, without a transform, with one that they do not know of, and through it."""
    rows, labels = load_digits(return_X_y=True)
    rows, labels = (rows / 16).astype(np.float32), labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(rows))
    train, own, held = order[:1000], order[1000:1300], order[1300:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((64,), max_iter=400, random_state=0).fit(rows[train], labels[train])
    target = CallableTarget(model.predict_proba, features=64, classes=10, answers="scores")
    attacked = held[:count]
    task = task_of(
        rows[attacked],
        labels[attacked],
        space=image_space((1, 8, 8)),
        classes=10,
        max_change=max_change,
        budget=queries,
        shape=(1, 8, 8),
        starts=(rows[own], labels[own]),
    )
    frame = Frame(np.zeros(64), np.ones(64), (1, 8, 8))
    print(f"\ntransforms on digits: Linf {max_change}, {queries} queries, {count} rows; right answers turned, in %")
    print(f"  {'chain':<12}{'lost':>16}", *(f"{name:>34}" for name in ("Square: unaware, aware", "HopSkipJump: ...")))
    bare = {attack.name: toll(target, attack, task, np.random.default_rng(0)) for attack in (Square(), HopSkipJump())}
    told = [_turned(each.right, each.robust) for each in bare.values()]
    print(f"  {'none':<12}{'':>16}", *(f"{each:>34}" for each in told))
    right = target.labels(rows[held]) == labels[held]
    for name in ("bit-depth:4", "bit-depth:3", "median:3", "average:3", "jpeg:75", "jpeg:30"):
        behind = Filtered(target, chain_of([name], frame))
        lost = paired(right, behind.labels(rows[held]) == labels[held]).difference
        cells = []
        for attack in (Square(), HopSkipJump()):
            made = bare[attack.name]
            aware = toll(behind, attack, task, np.random.default_rng(1))
            unaware = behind.labels(made.rows) == task.labels
            cells.append(f"{_turned(made.right, unaware)}, {_turned(made.right, aware.robust)}")
        print(f"  {name:<12}{_share(lost):>16}", *(f"{cell:>34}" for cell in cells))


def _turned(right, robust):
    return _share(proportion(int((right & ~robust).sum()), int(right.sum())))


def _share(found):
    return f"{100 * found.value:.0f} ({100 * found.interval.low:.0f} to {100 * found.interval.high:.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="file with MNIST, see data.py")
    arguments = parser.parse_args()
    cases = [digits(seed) for seed in range(SEEDS)]
    areas = compare(cases)["combined"]
    kept = promise("digits: 1 - AUROC near, worst seed", 1 - min(areas["near"]), 1 - NEAR, "")
    for name in ("turned", "inverted", "shuffled", "noise"):
        kept &= promise(f"digits: 1 - AUROC {name}, worst seed", 1 - min(areas[name]), 1 - FAR, "")
    kept &= cost(cases[0], 64)
    for name, load in (("tumours", load_breast_cancer), ("wines", load_wine)):
        compare([table(name, load, seed) for seed in range(SEEDS)])
    kept &= cost(table("tumours", load_breast_cancer, 0), 30)
    if arguments.data:
        with np.load(arguments.data, allow_pickle=False) as file:
            rows = np.concatenate([file["x_train"], file["x_test"]]).reshape(-1, 784)
            labels = np.concatenate([file["y_train"], file["y_test"]]).astype(np.int64)
        mnist = known_digits(
            "mnist", (rows / 255).astype(np.float32), labels, side=28, trained=20_000, seed=0, layers=(128,)
        )
        compare([mnist])
        cost(mnist, 784)
    filters()
    worth()
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())

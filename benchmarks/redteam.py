"""Red team: time of an evasion attack against the time of the queries it spends, and calls against queries.

The floor is measured in the same run: the wall time that the engine waits for the model. Run it
with nothing else on the machine: ``python benchmarks/redteam.py``.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.evasion import Witness
from bartizan.redteam.journal import NoJournal
from bartizan.redteam.journal_file import FolderJournals
from bartizan.redteam.ledger import Budget
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access
from common import promise, tell

SAMPLES, QUERIES, REPEATS = 20, 1000, 5


class InProcess:
    """A fitted model without any process around it; ``pause`` seconds a row stand for one that costs more.

    See ``bartizan.targets.protocol.Target``.
    """

    offers = frozenset({Access.LABELS, Access.SCORES})
    name = "model:benchmark"

    def __init__(self, model, pause=0.0):
        self.model, self.pause = model, pause
        self.features, self.classes = model.n_features_in_, len(model.classes_)

    def labels(self, rows):
        """See ``Target.labels``."""
        self._wait(len(rows))
        return self.model.predict(rows)

    def scores(self, rows):
        """See ``Target.scores``."""
        self._wait(len(rows))
        return self.model.predict_proba(rows)

    def _wait(self, rows):
        if self.pause:
            time.sleep(self.pause * rows)


def task_of(rows, labels):
    train, rest, train_labels, rest_labels = train_test_split(
        rows, labels, test_size=0.4, random_state=0, stratify=labels
    )
    space = Space(
        columns=tuple(f"x{place}" for place in range(rows.shape[1])),
        scale=train.std(axis=0),
        low=train.min(axis=0),
        high=train.max(axis=0),
        integer=np.zeros(rows.shape[1], bool),
        immutable=np.zeros(rows.shape[1], bool),
    )
    task = EvasionTask(
        rows=rest[:SAMPLES],
        labels=rest_labels[:SAMPLES],
        classes=2,
        starts=rest[SAMPLES:],
        start_labels=rest_labels[SAMPLES:],
        space=space,
        max_change=1.0,
        budget=QUERIES,
    )
    return task, train, train_labels


@contextmanager
def kept(folder):
    """A journal in a fresh file, or none."""
    if folder is None:
        yield NoJournal()
        return
    with tempfile.TemporaryDirectory() as name, FolderJournals(Path(name)).open("0" * 64) as journal:
        yield journal


def once(attack, task, target, folder):
    run = Run(
        attack.search(task, np.random.default_rng(0)),
        budget=Budget(samples=SAMPLES, per_sample=QUERIES),
        needs=attack.needs,
        watch=Witness(task),
    )
    gc.collect()
    with kept(folder) as journal:
        engine = Engine(target, journal=journal)
        engine.drive([run])
    return engine.usage, run


def main():
    rows, labels = load_breast_cancer(return_X_y=True)
    task, train, train_labels = task_of(rows, labels)
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, train_labels)
    forest = RandomForestClassifier(100, random_state=0).fit(train, train_labels)
    targets = {"linear": InProcess(linear), "forest": InProcess(forest), "50 us a row": InProcess(linear, 50e-6)}
    print(f"{SAMPLES} samples with {QUERIES} queries each, 30 features, best of {REPEATS}")
    kept_all = True
    for name, target in targets.items():
        for attack, folder in ((HopSkipJump(), None), (HopSkipJump(), "journal"), (Square(), None)):
            each = [once(attack, task, target, folder) for _ in range(REPEATS)]
            usage, run = min(each, key=lambda one: one[0].seconds)
            label = f"{attack.name}{', journal kept' if folder else ''}: {name}"
            own = (usage.seconds - usage.target_seconds) / run.ledger.queries * 1e6
            note = f"{usage.calls} calls of {usage.target_seconds / usage.calls * 1e3:.1f} ms, {own:.1f} us a query"
            ratio = usage.seconds / usage.target_seconds
            if name == "50 us a row":
                kept_all &= promise(label, ratio, 1.1, note=note)
            else:
                tell(label, ratio, "x", note)
            if isinstance(attack, HopSkipJump):
                kept_all &= promise(f"calls of {label}", usage.calls, 100, "")
    return 0 if kept_all else 1


if __name__ == "__main__":
    sys.exit(main())

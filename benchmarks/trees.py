"""Trees: how close, and at what cost, the attacks from the model file come; beside queries and beside a peer.

Handwritten digits, 1000 rows to train on, distances in L2 of pixels between 0 and 1. All figures are CPU
seconds of one process. ``--peers PATH`` names an environment that has the Adversarial Robustness Toolbox
(which needs NumPy 1), where models of the same settings are trained and attacked::

    uv venv PATH && uv pip install --python PATH/bin/python adversarial-robustness-toolbox==1.20.1 \
        'numpy<2' scikit-learn==1.7.2 packaging requests
    python benchmarks/trees.py --peers PATH
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters import sklearn_structure
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.tree_exact import TreeExact, TreeSearch
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access
from common import promise, tell

SAMPLES, QUERIES = 20, 1000
MODELS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "small forest": RandomForestClassifier(10, max_depth=5, random_state=0),
    "forest": RandomForestClassifier(100, random_state=0),
}
PEER = """
import json, sys, time
import numpy as np
from art.attacks.evasion import DecisionTreeAttack, HopSkipJump
from art.estimators.classification import SklearnClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
data = np.load(sys.argv[1])
np.random.seed(0)
for name in ("tree", "small forest", "forest"):
    model = {
        "tree": DecisionTreeClassifier(random_state=0),
        "small forest": RandomForestClassifier(10, max_depth=5, random_state=0),
        "forest": RandomForestClassifier(100, random_state=0),
    }[name].fit(data["train"], data["train_labels"])
    rows, labels = data[name + " rows"], data[name + " labels"]
    shown = SklearnClassifier(model, clip_values=(0.0, 1.0))
    size = {"max_iter": 25, "max_eval": 100, "init_eval": 10, "init_size": 10}
    attacks = {"HopSkipJump": HopSkipJump(shown, norm=2, verbose=False, **size)}
    if name == "tree":
        attacks["DecisionTreeAttack"] = DecisionTreeAttack(shown, verbose=False)
    for kind, attack in attacks.items():
        asked = [0]
        true = model.predict_proba
        def counted(x, true=true, asked=asked):
            asked[0] += len(x)
            return true(x)
        model.predict_proba = counted
        began = time.process_time()
        found = attack.generate(rows.astype(np.float32))
        seconds = time.process_time() - began
        model.predict_proba = true
        change = np.linalg.norm(found - rows, axis=1)
        change[model.predict(found) == labels] = np.inf
        figures = np.median(change), np.isfinite(change).mean(), seconds / len(rows), asked[0] / len(rows)
        print(json.dumps([name, kind, *map(float, figures)]))
"""


class InProcess:
    """A fitted model without any process around it. See ``Target`` and ``Transparent``."""

    offers = frozenset({Access.LABELS, Access.SCORES, Access.WEIGHTS})
    name = "model:benchmark"
    class_values = ()

    def __init__(self, model):
        self.model, self.features, self.classes = model, model.n_features_in_, len(model.classes_)

    def labels(self, rows):
        """See ``Target.labels``."""
        return self.model.predict(rows)

    def scores(self, rows):
        """See ``Target.scores``."""
        return self.model.predict_proba(rows)

    def retrain(self, rows, labels, *, seed):
        """See ``Target.retrain``."""
        raise NotImplementedError

    def structure(self):
        """See ``Transparent.structure``."""
        return sklearn_structure.read(self.model)


def attacked(model, attack, rows, labels, starts):
    """Median distance, share found, CPU seconds and queries a sample."""
    ones = np.ones(rows.shape[1])
    space = Space(tuple(map(str, range(rows.shape[1]))), ones, 0 * ones, ones, ones < 0, ones < 0)
    task = task_of(rows, labels, space=space, classes=10, max_change=10.0, norm=2.0, budget=QUERIES, starts=starts)
    began = time.process_time()
    played = play(InProcess(model), attack, task)
    seconds = (time.process_time() - began) / len(rows)
    found = np.isfinite(played.change)
    return float(np.median(played.change)), float(found.mean()), seconds, played.ledger.queries / len(rows)


def peers(path, data):
    """What the peer finds, by model and attack."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        np.savez(file, **data)
        python = str(Path(path) / "bin" / "python")
        done = subprocess.run([python, "-c", PEER, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the peer failed: {done.stderr[-500:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {(model, kind): tuple(figures) for model, kind, *figures in lines}


def show(name, kind, figures):
    distance, found, seconds, queries = figures
    tell(
        f"{name}: {kind}", distance, "L2", f"{found:.0%} found, {seconds * 1e3:.1f} ms, {queries:.0f} queries a sample"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="an environment with the Adversarial Robustness Toolbox")
    wanted = parser.parse_args()
    rows, labels = load_digits(return_X_y=True)
    train, rest, train_labels, rest_labels = train_test_split(
        rows / 16, labels, train_size=1000, random_state=0, stratify=labels
    )
    data, ours = {"train": train, "train_labels": train_labels}, {}
    for name, model in MODELS.items():
        model.fit(train, train_labels)
        right = np.flatnonzero(model.predict(rest) == rest_labels)
        chosen = right[:SAMPLES]
        starts = rest[right[SAMPLES:]], rest_labels[right[SAMPLES:]]
        data |= {f"{name} rows": rest[chosen], f"{name} labels": rest_labels[chosen]}
        attacks = [("search", TreeSearch()), ("queries", HopSkipJump(norm=2.0))]
        if name != "forest":
            attacks.insert(0, ("exact", TreeExact()))
        for kind, attack in attacks:
            ours[name, kind] = attacked(model, attack, rest[chosen], rest_labels[chosen], starts)
            show(name, f"{kind} ({attack.name})", ours[name, kind])
    kept = promise(
        "small forest: search over the optimum",
        ours["small forest", "search"][0] / ours["small forest", "exact"][0],
        1.5,
    )
    if wanted.peers:
        theirs = peers(wanted.peers, data)
        for (name, kind), figures in theirs.items():
            show(name, f"ART {kind}", figures)
        forest, peer = ours["forest", "search"], theirs["forest", "HopSkipJump"]
        kept &= promise("forest: time of the search over ART's HopSkipJump", forest[2] / peer[2], 1 / 8)
        kept &= promise("forest: L2 of the search over ART's HopSkipJump", forest[0] / peer[0], 1.0)
        queried = ours["forest", "queries"]
        kept &= promise("forest: time of our queries over ART's", queried[2] / peer[2], 1 / 8)
        kept &= promise("forest: L2 of our queries over ART's", queried[0] / peer[0], 1.0)
        kept &= promise(
            "tree: optimum over ART's DecisionTreeAttack",
            ours["tree", "exact"][0] / theirs["tree", "DecisionTreeAttack"][0], 1.0,
        )  # fmt: skip
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""Privacy: how many members are recognised at few false alarms, beside the loss threshold and a peer, and at what cost.

Networks: MNIST at 14x14, 4000 records of which half are trained on, every tenth label wrong; 64
shadow networks trained together, and as many targets as ``--targets`` says. Forest: noisy digits,
50 shadow forests. Costs are CPU seconds. ``--peers`` names the environment in which SACRO-ML is
installed; it attacks the same forests with the same number of shadow models.

    python benchmarks/privacy.py --mnist MNIST --peers /path/to/venv
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from bartizan.redteam import statistics
from bartizan.redteam.membership import RULES, Shadows, chance_of, logits
from bartizan.redteam.shadows import Job, Recipe, train
from common import promise, tell
from data import raw

RECORDS, SHADOWS, FOREST_SHADOWS = 4000, 64, 50
PIXELS = Recipe(standardise=False)
SHOWN = ("loss_threshold", "calibrated", "lira_offline", "lira_online", "lira_fixed", "lira_pooled", "rmia")
PEER = """
import json, logging, sys, tempfile, time
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sacroml.attacks.likelihood_attack import LIRAAttack
from sacroml.attacks.target import Target
logging.disable(logging.CRITICAL)
data = np.load(sys.argv[1])
shadows, found = int(sys.argv[2]), []
for target, inside in enumerate(data["inside"]):
    train, rest = (data["rows"][inside], data["labels"][inside]), (data["rows"][~inside], data["labels"][~inside])
    model = RandomForestClassifier(100, random_state=int(data["seeds"][target])).fit(*train)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        attack = LIRAAttack(output_dir=folder, write_report=False, n_shadow_models=shadows, mode="online-carlini",
                            report_individual=True)
        named = Target(model=model, dataset_name="digits", X_train=train[0], y_train=train[1], X_test=rest[0],
                       y_test=rest[1])
        result = attack.attack(named)
        spent = time.process_time() - began
    scores = attack.result["member_prob"]
    found.append({"scores": [float(score) for score in scores], "members": len(train[0]), "seconds": spent})
print(json.dumps(found))
"""


def pairs(count, records, rng):
    """``(count, records)``: random halves, each followed by its complement."""
    halves = np.zeros((count, records), bool)
    for pair in range(0, count, 2):
        order = rng.permutation(records)
        halves[pair, order[: records // 2]] = True
        halves[pair + 1] = ~halves[pair]
    return halves


def noisy(labels, rng):
    wrong = rng.random(len(labels)) < 0.1
    return np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels)


def small_mnist(path, rng):
    images, truth, _, _ = raw(path)
    chosen = rng.permutation(len(truth))[:RECORDS]
    rows, labels = images[chosen], truth[chosen].astype(np.int64)
    images = rows.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    return images.reshape(RECORDS, -1), noisy(labels, rng)


def report(confidence, inside, shadows, seconds, title):
    """Rates over all targets, each with its interval over targets."""
    known, results = Shadows(confidence[:shadows], inside[:shadows]), {}
    for name in SHOWN:
        curves = [
            statistics.roc(RULES[name](known, sure), members)
            for sure, members in zip(confidence[shadows:], inside[shadows:], strict=True)
        ]
        results[name] = summary(f"{title}, {name}", curves)
    tell(f"{title}: {shadows} shadow models, CPU", seconds, "s")
    return results


def summary(title, curves):
    """Means over the targets, with Student's interval."""
    rates = {rate: np.array([curve.found(rate) for curve in curves]) for rate in (0.01, 0.001)}
    half = {
        rate: stats.t.isf(0.025, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
        for rate, found in rates.items()
    }
    note = f"+- {half[0.001]:.4f}   1 %: {rates[0.01].mean():.4f} +- {half[0.01]:.4f}   AUC "
    tell(f"{title}: found at 0.1 %", rates[0.001].mean(), "", note + f"{np.mean([curve.area for curve in curves]):.3f}")
    return rates[0.001]


def networks(path, targets, seed):
    rng = np.random.default_rng([seed, 1])
    rows, labels = small_mnist(path, rng)
    inside = np.concatenate([pairs(SHADOWS, RECORDS, rng), pairs(targets * 2, RECORDS, rng)[::2]])
    jobs = [Job(rows[half], labels[half], place) for place, half in enumerate(inside)]
    victims = train(jobs[SHADOWS:], 10, PIXELS)
    right = np.array([victim.labels(rows) == labels for victim in victims])
    tell("networks: accuracy on members", right[inside[SHADOWS:]].mean(), "")
    tell("networks: accuracy on others", right[~inside[SHADOWS:]].mean(), "")
    began = time.process_time()
    models = train(jobs[:SHADOWS], 10, PIXELS)
    confidence = logits(np.array([chance_of(model.scores(rows), labels) for model in (*models, *victims)]))
    known = Shadows(confidence[:SHADOWS], inside[:SHADOWS])
    _ = [RULES["lira_pooled"](known, sure) for sure in confidence[SHADOWS:]]
    spent = time.process_time() - began
    found = report(confidence, inside, SHADOWS, spent, "networks")
    low = found["lira_pooled"].mean()
    kept = promise("networks: 0.09 over what LiRA finds at 0.1 %", 0.09 / low, 1.0)
    return promise("networks: CPU seconds of the attack", spent, 30.0, "s") and kept


def forests(targets, seed, peers):
    rng = np.random.default_rng([seed, 2])
    rows, labels = load_digits(return_X_y=True)
    labels = noisy(labels, rng)
    inside = np.concatenate([pairs(FOREST_SHADOWS, len(rows), rng), pairs(targets * 2, len(rows), rng)[::2]])
    began = time.process_time()
    answers = []
    for place, half in enumerate(inside):
        model = RandomForestClassifier(100, random_state=place).fit(rows[half], labels[half])
        answers.append(chance_of(model.predict_proba(rows), labels))
        if place == FOREST_SHADOWS - 1:
            spent = time.process_time() - began
    found = report(logits(np.array(answers)), inside, FOREST_SHADOWS, spent, "forest")
    if not peers:
        tell("forest, SACRO-ML", float("nan"), "", "not measured: name its environment with --peers")
        return True
    theirs = sacro(rows, labels, inside[FOREST_SHADOWS:], FOREST_SHADOWS, peers)
    return promise(
        "forest: SACRO-ML over ours, found at 0.1 %", theirs.mean() / max(found["lira_pooled"].mean(), 1e-9), 1.0
    )


def sacro(rows, labels, inside, shadows, peers):
    """SACRO-ML's LiRA on the same forests, in its own environment."""
    seeds = np.arange(len(inside)) + shadows
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, rows=rows, labels=labels, inside=inside, seeds=seeds)
        command = [str(Path(peers) / "bin" / "python"), "-W", "ignore", "-c", PEER, str(data), str(shadows)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(f"SACRO-ML failed:\n{done.stderr[-2000:]}")
    curves, seconds = [], []
    for one in json.loads(done.stdout.splitlines()[-1]):
        scores = np.array(one["scores"])
        curve = statistics.roc(scores, np.arange(len(scores)) < one["members"])
        turned = statistics.roc(-scores, np.arange(len(scores)) < one["members"])
        curves.append(max(curve, turned, key=lambda each: each.area))
        seconds.append(one["seconds"])
    tell("forest, SACRO-ML: CPU for one target", float(np.median(seconds)), "s")
    return summary("forest, SACRO-ML LiRA online", curves)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="MNIST as data.py reads it")
    parser.add_argument("--peers", type=Path, help="virtual environment that holds SACRO-ML")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kept = forests(asked.targets, asked.seed, asked.peers)
    if asked.mnist:
        kept &= networks(asked.mnist, asked.targets, asked.seed)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""Extraction: how faithful copies of an MNIST model are, over the number of answers and their detail.

A small convolutional network is trained as the victim; the adversary owns other pictures, or only pictures of
another kind (scikit-learn's digits, enlarged), and trains its copies for long on randomly shifted pictures.
Fidelity is measured on 5000 test pictures that neither saw. ``--data PATH`` names MNIST as ``data.py`` reads it;
``--promised`` leaves out what nothing is promised of. Four CPU minutes, and half a minute for each further seed::

    OMP_NUM_THREADS=1 python benchmarks/extraction.py --data mnist.npz
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from bartizan.adapters.torch import TorchTarget
from bartizan.adapters.torch_learner import TorchLearner
from bartizan.redteam.attacks.extraction.knockoff import Knockoff
from bartizan.redteam.attacks.extraction.random import RandomExtraction, RandomExtractionFromLabels
from bartizan.redteam.stealing import steal, stealing_task, table
from bartizan.targets.feasible import image_space
from bartizan.targets.tailored import DETAILS, FULL, LABELS, Tailored
from common import promise, tell
from data import images

SHAPE = (1, 28, 28)
QUERIES = (500, 1500)
PROMISED = {500: 0.944, 1500: 0.977}
TRAINED_ON, EPOCHS = 20_000, 4


def victim(rows, labels):
    """A network trained in the plain way."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    images, truth = torch.from_numpy(rows).reshape(-1, *SHAPE), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images), generator=generator).split(128):
            loss = functional.cross_entropy(network(images[part]), truth[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return TorchTarget(network, shape=SHAPE, classes=10)


def other_pictures():
    """Digits of another source, enlarged from 8 x 8 by repetition and a frame."""
    small = load_digits().images.astype(np.float32) / 16
    large = np.kron(small, np.ones((3, 3), np.float32))
    return np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(len(large), -1)


def games(seeds, *, promised):
    """Attacks, what they are shown, and seeds: those with a promise first."""
    yield from ((RandomExtraction(), FULL, seed) for seed in range(seeds))
    if promised:
        return
    yield from ((RandomExtraction(), detail, 0) for detail in DETAILS if detail.scores and detail != FULL)
    yield RandomExtractionFromLabels(), LABELS, 0
    yield Knockoff(), FULL, 0


def show(theft):
    """One line for each copy."""
    for record in table([theft]):
        fidelity, accuracy = ("{:.3f} ({:.3f} to {:.3f})".format(*record[name]) for name in ("fidelity", "accuracy"))
        line = f"{record['attack']:<26}{record['output']:<22}{record['queries']:>8}{fidelity:>30}{accuracy:>30}"
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=1, help="repeats of the attack with all scores")
    parser.add_argument("--promised", action="store_true", help="only the attack with a promise")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    train, train_truth, test, truth = images(wanted.data)
    target = victim(train[:TRAINED_ON], train_truth[:TRAINED_ON])
    tell("victim: accuracy", float((target.labels(test) == truth).mean()), "")
    kept, learner = (test[5000:], truth[5000:]), TorchLearner(SHAPE)
    task = stealing_task(
        test[:5000],
        space=image_space(SHAPE),
        classes=10,
        checkpoints=QUERIES,
        foreign=other_pictures(),
        learner=learner,
    )
    began, thefts = time.process_time(), []
    print(f"{'attack':<26}{'output':<22}{'queries':>8}{'fidelity':>30}{'accuracy':>30}")
    for attack, detail, seed in games(wanted.seeds, promised=wanted.promised):
        shown = Tailored(target, detail)
        thefts.append(steal(shown, attack, task, kept, seed=seed, detail=f"{detail.name}, seed {seed}"))
        show(thefts[-1])
    tell("time of all", time.process_time() - began, "s", "of the processor")
    kept_all = True
    for theft in thefts[: wanted.seeds]:
        for copy in theft.copies:
            name = f"{copy.queries} queries, {theft.detail}: answers that differ"
            kept_all &= promise(name, 1 - copy.fidelity.value, 1 - PROMISED[copy.queries], "")
    return 0 if kept_all else 1


if __name__ == "__main__":
    sys.exit(main())

"""Poison detection on MNIST: what each detector finds of which poison, over seeds, with intervals.

The file with MNIST is named on the command line, as ``data.py`` reads it: ``python benchmarks/backdoor.py MNIST
[--model]``. 6,000 training records; 3 x 3 patch in the corner, target 0.
Promises are for that patch; the other lines say where the detectors end. With ``--model`` a small network is
trained for each setting, and the detectors that need one are shown beside.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from bartizan.redteam.attacks.backdoor.blended import Blended
from bartizan.redteam.attacks.backdoor.patch import Patch
from bartizan.redteam.attacks.backdoor.warped import Warped
from bartizan.redteam.detection.clustering import ActivationClustering, SpectralSignatures
from bartizan.redteam.detection.combined import Combined
from bartizan.redteam.detection.inspected import Inspected, inspected_of
from bartizan.redteam.detection.inversion import TriggerInversion
from bartizan.redteam.detection.judge import judge
from bartizan.redteam.detection.neighbours import NeighbourDisagreement
from bartizan.redteam.detection.superimposing import Superimposing
from bartizan.redteam.statistics import jackknife
from bartizan.redteam.triggers import BackdoorTask, plant
from bartizan.targets.feasible import image_space
from common import promise, tell
from data import raw

SHAPE, CLASSES, TARGET, RECORDS = (1, 28, 28), 10, 0, 6000
SEEDS = range(5)
LEAST = {0.01: 0.98, 0.05: 0.99}
"""AUROC promised for the patch at each rate."""
MOST_ALARMS = 0.01


def planted(attack, rate, seed, data, *, right_labels=False):
    """Rows, labels and which are poisoned."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(data["x_train"]))[:RECORDS]
    rows, labels = data["x_train"][chosen].astype(np.float32) / 255, data["y_train"][chosen].astype(np.int64)
    task = BackdoorTask(rows, labels, CLASSES, TARGET, (rate,), 1, image_space(SHAPE), SHAPE)
    trigger = wave if attack == "wave" else backdoor_of(attack, task, rng).trigger
    backdoor = plant(task, trigger, rng, choice="", right_labels=right_labels)[0]
    return backdoor.rows, backdoor.labels, backdoor.poisoned(task)


def backdoor_of(attack, task, rng):
    try:
        next(attack().search(task, rng))
    except StopIteration as end:
        return end.value[0]
    raise AssertionError


def wave(rows):
    """Vertical stripes as in SIG (Barni et al. 2019)."""
    stripes = np.sin(2 * np.pi * 6 * np.arange(28) / 28) * 40 / 255
    return np.clip(rows + np.tile(stripes, 28), 0, 1).astype(np.float32)


def trained(rows, labels, seed):
    """The network of the measurements: two convolutions, 64 hidden units."""
    import torch  # noqa: PLC0415 - only with --model
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    module = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, CLASSES)),
    )
    optimiser = torch.optim.Adam(module.parameters(), 2e-3)
    inputs, answers = torch.from_numpy(rows).view(-1, *SHAPE), torch.from_numpy(labels)
    for _ in range(6):
        for part in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(inputs[part]), answers[part]).backward()
            optimiser.step()
    return module


def over_seeds(areas):
    """Mean and its interval over the seeds; of a single one, its own."""
    if len(areas) == 1:
        return f"{areas[0].value:.4f} ({areas[0].interval.low:.4f} to {areas[0].interval.high:.4f})"
    values = np.array([each.value for each in areas])
    mean = float(values.mean())
    interval = jackknife(mean, [np.delete(values, place).mean() for place in range(len(values))])
    return f"{mean:.4f} ({max(0.0, interval.low):.4f} to {min(1.0, interval.high):.4f})"


def line(name, results):
    tell(
        name,
        float(np.mean([each.area.value for each in results])),
        "",
        f"AUROC {over_seeds([each.area for each in results])}; flag finds "
        f"{np.mean([each.recall.value for each in results]):.3f} with false alarms "
        f"{np.mean([each.false_alarms.value for each in results]):.4f}; to remove for 90/95/99 %: "
        f"{np.mean([each.removed_for_90 for each in results]):.3f}/"
        f"{np.mean([each.removed_for_95 for each in results]):.3f}/"
        f"{np.mean([each.removed_for_99 for each in results]):.3f}",
    )


def promised(data):
    """The patch, for which there is a promise."""
    kept = []
    for rate, least in LEAST.items():
        ours, plain, seconds = [], [], []
        for seed in SEEDS:
            rows, labels, poisoned = planted(Patch, rate, seed, data)
            inspected = Inspected(rows, labels, CLASSES, shape=SHAPE)
            began = time.process_time()
            ours.append(judge(Combined().inspect(inspected, np.random.default_rng(seed)), poisoned))
            seconds.append(time.process_time() - began)
            plain.append(judge(NeighbourDisagreement().inspect(inspected, np.random.default_rng(seed)), poisoned))
        line(f"patch, {rate:.0%}: combined ({np.mean(seconds):.1f} CPU s)", ours)
        line(f"patch, {rate:.0%}: neighbours alone", plain)
        worst = min(each.area.value for each in ours)
        kept.append(promise(f"patch, {rate:.0%}: 1 - AUROC, worst of {len(SEEDS)} seeds", 1 - worst, 1 - least, ""))
        alarms = max(each.false_alarms.value for each in ours)
        kept.append(promise(f"patch, {rate:.0%}: false alarms at the flag, worst seed", alarms, MOST_ALARMS, ""))
    return kept


def beyond(data):
    """Other poison, for which there is none."""
    for name, attack, rate, right in (
        ("blended", Blended, 0.01, False),
        ("blended", Blended, 0.05, False),
        ("warped", Warped, 0.05, False),
        ("wave", "wave", 0.05, False),
        ("patch, right labels", Patch, 0.01, True),
        ("patch, right labels", Patch, 0.05, True),
        ("wave, right labels", "wave", 0.01, True),
        ("wave, right labels", "wave", 0.05, True),
        ("blended, right labels", Blended, 0.01, True),
        ("warped, right labels", Warped, 0.05, True),
    ):
        results = []
        for seed in list(SEEDS)[:3]:
            rows, labels, poisoned = planted(attack, rate, seed, data, right_labels=right)
            inspected = Inspected(rows, labels, CLASSES, shape=SHAPE)
            results.append(judge(Combined().inspect(inspected, np.random.default_rng(seed)), poisoned))
        line(f"{name}, {rate:.0%}: combined", results)
    clean = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(data["x_train"]))[:RECORDS]
        rows, labels = data["x_train"][chosen] / np.float32(255), data["y_train"][chosen].astype(np.int64)
        inspected = Inspected(rows, labels, CLASSES, shape=SHAPE)
        clean.append(Combined().inspect(inspected, rng).flagged.mean())
    tell("no poison: share flagged, worst seed", max(clean), "")


def with_model(data):
    """Detectors that need a model, one seed each: what the published methods find on the same data."""
    from bartizan.adapters.torch import TorchTarget  # noqa: PLC0415 - only with --model

    for rate in LEAST:
        rows, labels, poisoned = planted(Patch, rate, 0, data)
        target = TorchTarget(trained(rows, labels, 0), shape=SHAPE, classes=CLASSES)
        inspected = inspected_of(rows, labels, target, shape=SHAPE)
        for detector in (ActivationClustering(), SpectralSignatures(), Superimposing(), TriggerInversion()):
            began = time.process_time()
            suspicion = detector.inspect(inspected, np.random.default_rng(0))
            seconds = time.process_time() - began
            line(f"patch, {rate:.0%}: {detector.name} ({seconds:.0f} CPU s)", [judge(suspicion, poisoned)])
            for note in suspicion.notes:
                print(f"            {note}")


def main() -> int:
    arguments = [each for each in sys.argv[1:] if not each.startswith("-")]
    if len(arguments) != 1:
        print(__doc__)
        return 2
    train, labels, _, _ = raw(Path(arguments[0]))
    data = {"x_train": train.reshape(len(train), -1), "y_train": labels}
    kept = promised(data)
    beyond(data)
    if "--model" in sys.argv:
        with_model(data)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())

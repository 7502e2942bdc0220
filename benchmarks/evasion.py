"""Evasion with gradients: strength and time beside a plain loop, other libraries and the bare passes of the model.

``python benchmarks/evasion.py [--data MNIST] [--fashion FASHION] [--peers FOLDER] [--only PART ...]``. Files of images
are those that ``data.py`` reads; without any only scikit-learn's digits are attacked. ``FOLDER`` holds other libraries
(pyautoattack, torchattacks, foolbox) as ``pip install --target`` puts them. Networks are trained once and kept under
``build/``; so is what the reference found, in shards, since it takes many minutes. Times are CPU seconds of one thread.
Images are drawn from the test images with a fixed seed, so that what is found speaks for all of them.

The floor is what the bare module needs for the same passes, in the same batches, and is measured right after each
attack; where a figure is a ratio to the best batch size instead, it says so.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import networks
from bartizan.adapters.torch import StraightThrough, TorchTarget
from bartizan.redteam.attacks.evasion.autoattack import AutoAttack
from bartizan.redteam.attacks.evasion.fgsm import FGSM
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.masking import Verdict, diagnose
from bartizan.redteam.planning import paired
from bartizan.redteam.play import play, task_of
from bartizan.redteam.statistics import proportion
from bartizan.targets.feasible import image_space
from common import promise, tell

STEPS, STEP = 40, 0.1
"""Of PGD; the size of one, in parts of the bound, is that of the other libraries: ours begin larger and fall."""
NORMS = {np.inf: "Linf", 2: "L2", 1: "L1"}
REPEATS = 5
SHARD = 250
"""Images that the reference is given at once; what it finds is kept."""
UNSEEN = 0.1
"""Share of the images by which PGD may flatter a network before the diagnosis must have noticed."""
PARTS = ("pgd", "autoattack", "masking")


@dataclass
class Case:
    """A network, the rows it is attacked on, and the bound."""

    name: str
    net: torch.nn.Module
    rows: np.ndarray
    labels: np.ndarray
    shape: tuple[int, ...]
    eps: float
    norm: float = np.inf

    def some(self, count, **change):
        """The same on some of the rows, drawn with a fixed seed, or otherwise changed."""
        places = np.random.default_rng(0).permutation(len(self.rows))[:count]
        more = {"rows": self.rows[places], "labels": self.labels[places]}
        return Case(**(self.__dict__ | more | change))

    def part(self, start):
        """A shard of the rows."""
        end = start + SHARD
        return Case(**(self.__dict__ | {"rows": self.rows[start:end], "labels": self.labels[start:end]}))

    @property
    def task(self):
        """What attacks are given."""
        return task_of(
            self.rows,
            self.labels,
            space=image_space(self.shape),
            classes=10,
            max_change=self.eps,
            norm=self.norm,
            shape=self.shape,
        )

    @property
    def tensors(self):
        """Images and labels for the bare module."""
        return torch.from_numpy(self.rows).view(-1, *self.shape), torch.from_numpy(self.labels)


class Counted(TorchTarget):
    """Notes in which batches it is asked."""

    def __init__(self, case):
        super().__init__(case.net, shape=case.shape, classes=10)
        self.backward, self.forward = [], []

    def gradients(self, rows, loss, labels, targets=None):
        """See ``Differentiable.gradients``."""
        self.backward.append(len(rows))
        return super().gradients(rows, loss, labels, targets)

    def logits(self, rows):
        """See ``Differentiable.logits``."""
        self.forward.append(len(rows))
        return super().logits(rows)


class Passes(torch.nn.Module):
    """Counts rows, for other libraries."""

    def __init__(self, net):
        super().__init__()
        self.net, self.count = net, 0

    def forward(self, images):
        """Logits."""
        self.count += len(images)
        return self.net(images)


def cpu(work):
    began = time.process_time()
    answer = work()
    return answer, time.process_time() - began


def bare(case, sizes, *, backward):
    """CPU seconds of the module alone for passes in batches of these ``sizes``, split like the target does."""
    images, labels = case.tensors
    parts = [min(512, size - start) for size in sizes for start in range(0, size, 512)]
    most = max(parts, default=1)
    images = images.repeat(-(-most // len(images)), 1, 1, 1)
    labels = labels.repeat(-(-most // len(labels)))
    case.net.requires_grad_(requires_grad=False)

    def work():
        for part in parts:
            if backward:
                given = images[:part].clone().requires_grad_()
                torch.autograd.grad(functional.cross_entropy(case.net(given), labels[:part], reduction="sum"), given)
            else:
                with torch.inference_mode():
                    case.net(images[:part])

    return cpu(work)[1]


def unit(case, *, backward):
    """CPU seconds of a pass of one row at the best batch size."""
    return min(bare(case, [size] * (2048 // size), backward=backward) / 2048 for size in (64, 128, 256, 512) * 3)


def plain_pgd(case, seed):
    """The attack as a textbook has it: no sample ever leaves. Returns which samples stand at its end."""
    images, labels = case.tensors
    draw = torch.Generator().manual_seed(seed)
    seen = (images + torch.empty_like(images).uniform_(-case.eps, case.eps, generator=draw)).clamp(0, 1)
    for _ in range(STEPS):
        given = seen.requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(case.net(given), labels, reduction="sum"), given)
        seen = images + (seen.detach() + STEP * case.eps * slope.sign() - images).clamp(-case.eps, case.eps)
        seen = seen.clamp(0, 1)
    return standing(case, seen)


def standing(case, images):
    with torch.inference_mode():
        clean, attacked = (case.net(batch).argmax(1) for batch in (case.tensors[0], images))
    labels = case.tensors[1]
    return ((clean == labels) & (attacked == labels)).numpy()


def peers_pgd(case):
    """The same attack in other libraries, where they can be imported."""
    images, labels = case.tensors
    try:
        foolbox = importlib.import_module("foolbox")
    except ImportError:
        foolbox = None
    if foolbox:
        model = foolbox.PyTorchModel(case.net, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=STEPS)
        yield "foolbox", lambda: standing(case, attack(model, images, labels, epsilons=case.eps)[1])
    try:
        torchattacks = importlib.import_module("torchattacks")
    except ImportError:
        return
    attack = torchattacks.PGD(case.net, eps=case.eps, alpha=STEP * case.eps, steps=STEPS)
    yield "torchattacks", lambda: standing(case, attack(images, labels))


def pgd(case, kept):
    runs = []
    for seed in range(REPEATS):
        target = Counted(case)
        found, spent = cpu(lambda target=target, seed=seed: play(target, PGD(steps=STEPS), case.task, seed=seed))
        floor = bare(case, target.backward, backward=True) + bare(case, target.forward, backward=False)
        runs.append((found, spent, spent / floor))
    found, spent, ratio = sorted(runs, key=lambda run: run[2])[REPEATS // 2]
    name = f"PGD-{STEPS} {case.name}"
    note = f"{spent:.2f} s, {found.ledger.gradients} gradients of {len(case.rows) * STEPS}"
    kept.append(promise(f"{name}: time over its bare passes", ratio, 1.1, note=note))
    ours = np.array([run[0].robust for run in runs])
    loop = [cpu(lambda seed=seed: plain_pgd(case, seed)) for seed in range(REPEATS)]
    torch.manual_seed(0)  # the other libraries draw from torch's own numbers
    others = {"plain loop": loop} | {name: [cpu(work) for _ in range(REPEATS)] for name, work in peers_pgd(case)}
    shares = {other: np.mean([stands for stands, _ in results]) for other, results in others.items()}
    for other, results in others.items():
        seeds = points([stands for stands, _ in results])
        tell(f"  {other}: robust", 100 * shares[other], "%", f"seeds {seeds}, {min(each[1] for each in results):.2f} s")
    best = min(shares, key=shares.get)
    first = proportion(int(ours[0].sum()), len(ours[0]))
    note = f"seeds {points(ours)}, {over(first)}"
    kept.append(promise(f"{name}: robust, at most the best of them", 100 * ours.mean(), 100 * shares[best], "%", note))
    both = paired(ours[0], others[best][0][0])
    tell(f"  less {best}, same rows, first seed", 100 * both.difference.value, "pt", over(both.difference))


def points(runs):
    """Shares in percent, as text."""
    return " ".join(f"{100 * stands.mean():.1f}" for stands in runs)


def over(estimate):
    """An interval in points."""
    return f"{100 * estimate.interval.low:.1f} to {100 * estimate.interval.high:.1f}"


def autoattack(case, kept, *, seeds=1, reference=True):
    ours = []
    for seed in range(seeds):
        target = Counted(case)
        found, spent = cpu(lambda target=target, seed=seed: play(target, AutoAttack(), case.task, seed=seed))
        best = found.ledger.gradients * unit(case, backward=True) + sum(target.forward) * unit(case, backward=False)
        ours.append((found.robust, spent, spent / best, found))
    robust, spent, ratio, found = ours[0]
    estimate = proportion(int(robust.sum()), len(robust))
    name = f"AutoAttack {NORMS[case.norm]} {case.name}, n={len(robust)}"
    note = f"{spent:.0f} s, {found.ledger.gradients} gradients, {found.ledger.queries} queries"
    if case.norm == np.inf:
        kept.append(promise(f"{name}: time over passes at best batch", ratio, 2.0, note=note))
    else:  # so few images stand that no batch is large
        tell(f"{name}: time over passes at best batch", ratio, "x", note)
    shares = [run[0].mean() for run in ours]
    tell(
        f"{name}: robust",
        100 * estimate.value,
        "%",
        f"{over(estimate)}; seeds {points([run[0] for run in ours])}",
    )
    theirs = [_reference(case, seed) for seed in range(seeds)] if reference and _has("pyautoattack") else []
    for stands, second, passes in theirs:
        tell("  pyautoattack: robust", 100 * stands.mean(), "%", f"{second:.0f} s, {passes:.0f} rows")
    if theirs:
        gap = 100 * (np.mean(shares) - np.mean([stands.mean() for stands, _, _ in theirs]))
        both = paired(robust, theirs[0][0])
        note = f"only we break {both.only_second}, only they {both.only_first}; {over(both.difference)}"
        kept.append(promise(f"{name}: robust beyond the reference", gap, 0.5, "pt", note))
    return estimate


def _has(package):
    return importlib.util.find_spec(package) is not None


def _reference(case, seed):
    """What the reference found, in shards that are kept: which images stand, CPU seconds, rows passed."""
    weights = b"".join(part.detach().numpy().tobytes() for part in case.net.parameters())
    said = (weights, case.rows.tobytes(), repr((case.eps, case.norm, seed, SHARD)).encode())
    folder = networks.BUILD.parent / "reference" / hashlib.sha256(b"".join(said)).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(case.rows), SHARD):
        path = folder / f"{start}.npz"
        if not path.exists():
            np.savez(path, **_reference_shard(case.part(start), seed))
        with np.load(path) as shard:
            shards.append({name: shard[name] for name in shard.files})
    stands = np.concatenate([shard["stands"] for shard in shards])
    return stands, sum(shard["seconds"] for shard in shards), sum(shard["passes"] for shard in shards)


def _reference_shard(case, seed):
    reference = importlib.import_module("pyautoattack")
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    images, labels = case.tensors
    counted = Passes(case.net)
    attack = reference.AutoAttack(counted, norm=NORMS[case.norm], eps=case.eps, seed=seed, device="cpu")
    (attacked, _), spent = cpu(lambda: attack.run_standard_evaluation(images, labels, batch_size=SHARD))
    return {"stands": standing(case, attacked), "seconds": spent, "passes": counted.count}


def masks(case, kept, *, masked, others=None):
    target = TorchTarget(case.net, shape=case.shape, classes=10)
    verdict, spent = cpu(lambda: diagnose(target, case.task, others=others))
    right = verdict.masked == masked
    kept.append(right)
    print(f"{'kept  ' if right else 'BROKEN'}  {case.name}: {verdict.summary} ({spent:.1f} s)")


def rounded(levels):
    """Rounds inputs to a few levels."""
    return lambda images: torch.round(images * levels) / levels


class Bare(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        """What the function makes of a batch."""
        return self.function(images)


def on_digits(kept, samples, parts):
    _, _, rows, labels = networks.digits()
    shape = (1, 8, 8)
    stds = [Case(f"digits-std-{seed}", networks.digits_std(seed), rows, labels, shape, 0.1) for seed in range(3)]
    advs = [Case(f"digits-adv-{seed}", networks.digits_adv(seed), rows, labels, shape, 0.2) for seed in range(3)]
    if "pgd" in parts:
        for case in (*stds, *advs):
            pgd(case.some(500), kept)
    if "autoattack" in parts:
        autoattack(advs[0].some(samples), kept, seeds=2)
        autoattack(advs[0].some(200, norm=2, eps=1.0), kept)
        autoattack(advs[0].some(200, norm=1, eps=3.0), kept)
    if "masking" in parts:
        for case in (*stds, *advs):
            masks(case.some(200), kept, masked=False)
        for case in stds:
            _masked_twins(case.some(200), kept)


def _masked_twins(case, kept):
    """Two defences that only mask: inputs rounded to a few levels, and answers made sure."""
    hidden = torch.nn.Sequential(Bare(rounded(4)), case.net)
    seen = TorchTarget(torch.nn.Sequential(StraightThrough(rounded(4)), case.net), shape=case.shape, classes=10)
    twin = replace(case, name=f"{case.name} rounded", net=hidden)
    masks(twin, kept, masked=True, others={"its smooth twin": seen})
    sure = torch.nn.Sequential(case.net, Bare(lambda logits: 100 * logits))
    masks(replace(case, name=f"{case.name} saturated", net=sure), kept, masked=True)


def on_mnist(kept, path, samples, parts):
    _, _, rows, labels = networks.images(path)
    std = Case("mnist-std", networks.mnist_std(path), rows, labels, networks.SHAPE, 0.1)
    adv = Case("mnist-fgsm-rs", networks.mnist_fgsm_rs(path), rows, labels, networks.SHAPE, 0.3)
    right = clean(adv)
    kept.append(promise("mnist-fgsm-rs: clean errors", 100 - 100 * right.value, 1.5, "%", over(right)))
    if "pgd" in parts:
        for case in (std, adv):
            pgd(case.some(500), kept)
    if "autoattack" in parts:
        robust = autoattack(adv.some(samples), kept)
        name = f"mnist-fgsm-rs: broken by AutoAttack, n={samples}"
        kept.append(promise(name, 100 - 100 * robust.value, 100 - 82.9, "%", f"robust {over(robust)}"))
    if "masking" in parts:
        for case in (std, adv):
            masks(case.some(200), kept, masked=False)
        collapsed(kept, path, rows, labels)


def clean(case):
    """Accuracy on all rows."""
    with torch.inference_mode():
        right = case.net(case.tensors[0]).argmax(1) == case.tensors[1]
    return proportion(int(right.sum()), len(right))


def collapsed(kept, path, rows, labels):
    """Networks of the same recipe that nobody stopped: what one step, forty steps and the ensemble say of them."""
    for seed in range(4):
        net = networks.mnist_overfitted(path, seed)
        case = Case(f"mnist-fgsm-rs without stopping, seed {seed}", net, rows, labels, networks.SHAPE, 0.3).some(100)
        target = TorchTarget(net, shape=case.shape, classes=10)
        said = [play(target, attack, case.task).robust_accuracy.value for attack in (FGSM(), PGD(), AutoAttack())]
        verdict = diagnose(target, case.task)
        left = verdict.robust_to_all.value
        line = "one step {:.1%}, PGD-40 {:.1%}, AutoAttack {:.1%}".format(*said)
        kept.append(verdict.verdict is not Verdict.SOUND or said[1] - said[2] < UNSEEN)
        print(
            f"{'kept  ' if kept[-1] else 'BROKEN'}  {case.name}: {line}; {verdict.summary} Left: {left:.1%}", flush=True
        )


def on_fashion(kept, path, samples, parts):
    _, _, rows, labels = networks.images(path)
    std = Case("fashion-std", networks.fashion_std(path), rows, labels, networks.SHAPE, 0.03)
    adv = Case("fashion-adv", networks.fashion_adv(path), rows, labels, networks.SHAPE, 0.1)
    right = clean(adv)
    tell("fashion-adv: clean", 100 * right.value, "%", over(right))
    if "pgd" in parts:
        for case in (std, adv):
            pgd(case.some(500), kept)
    if "autoattack" in parts:
        autoattack(adv.some(samples), kept)
    if "masking" in parts:
        for case in (std, adv):
            masks(case.some(200), kept, masked=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MNIST")
    parser.add_argument("--fashion", type=Path, help="Fashion-MNIST")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--samples", type=int, default=1000, help="for AutoAttack")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--on", nargs="+", choices=("digits", "mnist", "fashion"), default=("digits", "mnist", "fashion")
    )
    asked = parser.parse_args()
    if asked.peers:
        sys.path.append(str(asked.peers))
    torch.set_num_threads(1)
    kept: list[bool] = []
    if "digits" in asked.on:
        on_digits(kept, asked.samples, asked.only)
    if asked.data and "mnist" in asked.on:
        on_mnist(kept, asked.data, asked.samples, asked.only)
    if asked.fashion and "fashion" in asked.on:
        on_fashion(kept, asked.fashion, asked.samples, asked.only)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())

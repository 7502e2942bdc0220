"""Attacks by query beside their peers, on the same images, networks and budgets; several seeds, intervals.

``python benchmarks/queries.py [--data MNIST] [--fashion FASHION] [--reference FOLDER] [--peers PYTHON] [--promised]``

Images are files that ``data.py`` reads; ``--promised`` leaves out what nothing is promised of. ``--reference`` is
a folder that holds the package pyautoattack (the reference's Square); ``--peers`` is the interpreter of an
environment with ART 1.20.1 and NumPy 1, for ``queries_peers.py``. Whatever is missing is left out. Processor
seconds, one thread; networks are trained once and kept under ``build/``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import networks
from bartizan.adapters.torch import TorchTarget
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.nes import NES
from bartizan.redteam.attacks.evasion.simba import SimBA
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.evasion.transfer import Transfer
from bartizan.redteam.play import play, task_of
from bartizan.redteam.statistics import bootstrap
from bartizan.targets.feasible import image_space
from common import promise, tell

QUERIES = 1000
SEEDS = 3


@dataclass
class Case:
    """A network and images that it never saw."""

    name: str
    net: torch.nn.Module
    rows: np.ndarray
    labels: np.ndarray
    shape: tuple[int, int, int]

    @property
    def target(self):
        """The network as a target in this process."""
        return TorchTarget(self.net, shape=self.shape, classes=10)

    def right(self, count):
        """The first images that the network gets right, and 1,000 others that the adversary owns."""
        places = np.flatnonzero(self.target.labels(self.rows) == self.labels)
        return places[:count], places[count : count + 1000]

    def task(self, count, **more):
        """A task on those images."""
        taken, owned = self.right(count)
        return task_of(
            self.rows[taken],
            self.labels[taken],
            space=image_space(self.shape),
            classes=10,
            shape=self.shape,
            starts=(self.rows[owned], self.labels[owned]),
            **({"budget": QUERIES} | more),
        )


def cases(data, fashion):
    _, _, rows, labels = networks.digits()
    found = {
        "digits-std": Case("digits-std", networks.digits_std(), rows, labels, (1, 8, 8)),
        "digits-adv": Case("digits-adv", networks.digits_adv(), rows, labels, (1, 8, 8)),
    }
    if data:
        _, _, rows, labels = networks.images(data)
        found["mnist-std"] = Case("mnist-std", networks.mnist_std(data), rows, labels, (1, 28, 28))
    if fashion:
        _, _, rows, labels = networks.images(fashion)
        found["fashion-std"] = Case("fashion-std", networks.fashion_std(fashion), rows, labels, (1, 28, 28))
    return found


def timed(work, *given, **more):
    began = time.process_time()
    answer = work(*given, **more)
    return answer, time.process_time() - began


def reference_square(case, task, seed):
    """The reference's Square: which images stand, mean queries."""
    from pyautoattack.square import SquareAttack  # noqa: PLC0415 - only where it is installed

    norm = "Linf" if task.norm == np.inf else "L2"
    attack = SquareAttack(case.net, norm=norm, eps=task.max_change, n_queries=QUERIES - 1, seed=seed)
    images, labels = torch.from_numpy(task.rows).view(-1, *case.shape), torch.from_numpy(task.labels)
    attack.init_hyperparam(images)
    torch.manual_seed(seed)
    with torch.no_grad():
        queries, found = attack.attack_single_run(images, labels)
        stand = (case.net(found).argmax(1) == labels).numpy()
    return stand, float(queries.mean())


def square(found, *, reference):
    kept = True
    for name, norm, bound in (
        ("digits-std", np.inf, 0.1),
        ("digits-adv", np.inf, 0.2),
        ("mnist-std", np.inf, 0.1),
        ("fashion-std", np.inf, 0.03),
        ("digits-std", 2.0, 0.5),
        ("digits-adv", 2.0, 1.0),
        ("mnist-std", 2.0, 1.5),
    ):
        if name not in found:
            continue
        case = found[name]
        task = case.task(200, norm=norm, max_change=bound)
        ours, theirs, label = [], [], f"Square L{norm:g} {bound:g}: {name}"
        for seed in range(SEEDS):
            result, seconds = timed(play, case.target, Square(), task, seed=seed)
            ours.append((result.robust, result.ledger.spent.mean(), seconds))
            if reference:
                (stand, queries), seconds = timed(reference_square, case, task, seed)
                theirs.append((stand, queries, seconds))
        stand, queries, seconds = (np.mean([one[place] for one in ours]) for place in range(3))
        tell(f"{label}, ours", stand, "", f"robust; {queries:.0f} queries a sample; {seconds:.2f} s")
        if theirs:
            stand, queries_, seconds = (np.mean([one[place] for one in theirs]) for place in range(3))
            tell(f"{label}, reference", stand, "", f"robust; {queries_:.0f} queries a sample; {seconds:.2f} s")
            gap = np.mean([one[0].astype(float) for one in ours], 0) - np.mean([one[0] for one in theirs], 0)
            interval = bootstrap(gap, lambda values: float(values.mean()), np.random.default_rng(0))
            note = f"[{interval.low:+.3f}, {interval.high:+.3f}] paired, {SEEDS} seeds"
            if norm == np.inf:
                kept &= promise(f"{label}: robust, ours less theirs", gap.mean(), 0.0, "", note)
                kept &= promise(f"{label}: queries, ours over theirs", queries / queries_, 1.0)
            else:
                tell(f"{label}: robust, ours less theirs", gap.mean(), "", note)
    return kept


def peer(case, task, what, python):
    """What a peer of ``queries_peers.py`` finds: sizes of the changes, calls, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        network, data, out = (str(Path(folder) / name) for name in ("net.pt", "in.npz", "out.npz"))
        torch.save(case.net.state_dict(), network)
        np.savez(data, rows=task.rows, labels=task.labels, norm=task.norm, budget=task.budget, shape=case.shape)
        subprocess.run(
            [python, "-W", "ignore", "queries_peers.py", what, network, data, out],
            cwd=Path(__file__).parent,
            check=True,
        )
        answer = np.load(out)
        rows, calls, queries, seconds = (answer[name] for name in ("found", "calls", "queries", "seconds"))
    change = task.change(rows, np.arange(len(rows)))
    change[case.target.labels(rows) == task.labels] = np.inf
    return change, int(calls), float(queries) / len(rows), float(seconds)


def hopskipjump(found, python):
    kept = True
    for name, norm in itertools.product(("digits-std", "mnist-std", "fashion-std"), (2.0, np.inf)):
        if name not in found:
            continue
        case = found[name]
        task, label = case.task(20, norm=norm, max_change=100.0), f"HopSkipJump L{norm:g}: {name}"
        results = [timed(play, case.target, HopSkipJump(), task, seed=seed) for seed in range(SEEDS)]
        medians = [float(np.median(result.change)) for result, _ in results]
        mean = np.mean([result.change for result, _ in results])
        calls = max(result.usage.calls for result, _ in results)
        note = f"mean {mean:.3f}; medians {min(medians):.3f} to {max(medians):.3f}; {results[0][1]:.2f} s"
        tell(f"{label}, ours", np.mean(medians), "", note)
        kept &= promise(f"{label}: model calls for 20 x {QUERIES} queries", calls, 100, "")
        if python:
            for what in ("art.hopskipjump", "art.boundary", "art.geoda")[: 3 if norm == 2 else 1]:
                change, calls, _, seconds = peer(case, task, what, python)
                tell(
                    f"{label}, {what}",
                    np.median(change),
                    "",
                    f"mean {change.mean():.3f}; {calls} calls; {seconds:.2f} s",
                )
                kept &= promise(f"{label}: median, ours over {what}", np.mean(medians) / np.median(change), 1.0)
    return kept


def by_scores(found, python):
    for name in found:
        case = found[name]
        wide = case.task(20, norm=2.0, max_change=100.0)
        for attack in (SimBA(), SimBA(cosines=True)):
            result, seconds = timed(play, case.target, attack, wide)
            change = result.change[np.isfinite(result.change)]
            note = f"{len(change)} of 20 found, {result.ledger.spent.mean():.0f} queries a sample; {seconds:.2f} s"
            tell(f"SimBA L2 {'cosines' if attack.cosines else 'pixels'}: {name}, ours", np.median(change), "", note)
        if python:
            change, calls, queries, seconds = peer(case, wide, "art.simba", python)
            note = f"{np.isfinite(change).sum()} of 20 found, {queries:.0f} queries; {calls} calls; {seconds:.2f} s"
            tell(f"SimBA L2 pixels: {name}, art.simba", np.median(change), "", note)
        task = case.task(100, max_change=0.2)
        for attack in (Square(), SimBA(), NES()):
            result, seconds = timed(play, case.target, attack, task)
            spent = f"{result.ledger.spent.mean():.0f} queries a sample; {result.usage.calls} calls; {seconds:.2f} s"
            tell(f"Linf 0.2: {name}, {attack.name}", result.robust.mean(), "", f"robust; {spent}")


def transfer(found):
    for name, case in found.items():
        for bound in (0.1, 0.2, 0.3):
            task = case.task(100, max_change=bound, budget=8)
            result, seconds = timed(play, case.target, Transfer(), task)
            share, spent = result.robust_accuracy, result.ledger.spent.mean()
            note = f"robust [{share.interval.low:.2f}, {share.interval.high:.2f}]; {spent:.1f} queries; {seconds:.1f} s"
            tell(f"Transfer from own networks, Linf {bound:g}: {name}", share.value, "", note)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="MNIST")
    parser.add_argument("--fashion", type=Path, help="Fashion-MNIST")
    parser.add_argument("--promised", action="store_true", help="only Square and HopSkipJump")
    parser.add_argument("--reference", type=Path, help="folder with the package pyautoattack")
    parser.add_argument("--peers", help="interpreter of an environment with ART and NumPy 1")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.reference:
        sys.path.insert(0, str(given.reference))
    found = cases(given.data, given.fashion)
    kept = square(found, reference=bool(given.reference))
    kept &= hopskipjump(found, given.peers)
    if not given.promised:
        by_scores(found, given.peers)
        transfer(found)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

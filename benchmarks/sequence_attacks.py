"""What the sequence guard sees of attacks that really run, and what of them gets through.

``python benchmarks/sequence_attacks.py [--data MNIST] [--fashion FASHION] [--peers PYTHON] [--samples N] ...``

Every attack is run twice from the same seed, without the guard and with it, one query at a time. A run counts where it
succeeds without the guard: a row within the bound is answered with another class. It is stopped where the guard, its
memory full of natural queries, lets no such answer through. The attacker goes on after every refusal, waits when
throttled, and takes what is refused for the original class. Settings were chosen on MNIST; the other images and the
networks hardened against attack show how that carries over. ``--peers`` is the interpreter of an environment with ART.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import networks
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import SequenceGuard
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import learn
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import SequenceSettings
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.nes import NES
from bartizan.redteam.attacks.evasion.simba import SimBA
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.play import play, task_of
from bartizan.redteam.statistics import proportion
from bartizan.targets.feasible import image_space
from sequence_adaptive import oars_boundary, oars_square
from sequence_fronts import MANNERS, Front, FrontTarget, SpentError, served

QUERIES = 1500
FEW = 25
"""Runs that need no more queries than this are won by where they start, not by searching."""
LOOSE = 2.0
"""Factor of the largest change for ART's attacks and the adaptive walk, or most would not be done in time."""
L2 = 2.0
OURS = {
    "square": (Square, np.inf, True),
    "nes": (NES, np.inf, True),
    "simba": (SimBA, L2, True),
    "hopskipjump": (HopSkipJump, L2, False),
}
OARS = {"oars-square": (oars_square, np.inf), "oars-boundary": (oars_boundary, L2)}
PEERS = {
    "art.square": (np.inf, True),
    "art.simba": (L2, True),
    "art.zoo": (L2, True),
    "art.hopskipjump": (L2, False),
    "art.boundary": (L2, False),
    "art.signopt": (L2, False),
}
BOUNDS = {
    "mnist-std": (0.1, 1.5),
    "fashion-std": (0.03, 0.6),
    "fashion-adv": (0.1, 1.5),
    "digits-std": (0.1, 0.6),
    "digits-adv": (0.2, 1.2),
}
"""Largest changes that count, by the greatest and by the Euclidean length."""


class Victim:
    """A network, natural rows for the reference, for traffic and under attack, and a guard with a full memory."""

    def __init__(self, name, path=None, **settings):
        self.name = name
        make = getattr(networks, name.replace("-", "_"))
        if path is None:
            self.traffic, _, rows, labels = networks.digits()
            self.shape, self.net, fit = (1, 8, 8), make(), 400
        else:
            self.traffic, _, rows, labels = networks.images(path)
            self.shape, self.net, fit = (1, 28, 28), make(path), 3000
        self.rows, self.labels = rows[fit:], labels[fit:]
        self.fit = rows[:fit]
        self.reference = self.learnt()
        self.guard = SequenceGuard(SequenceSettings(**settings), self.reference)
        scores = self.predict(self.traffic[:20_000])
        self.flagged = sum(
            served(self.guard, row, score, f"key:user{place % 100}", number=place)
            for place, (row, score) in enumerate(zip(self.traffic, scores, strict=False))
        )
        right = np.flatnonzero(self.predict(self.rows).argmax(axis=1) == self.labels)
        self.attacked, self.owned = right[:1000], right[1000:1200] if len(right) > 1200 else right[-100:]

    def learnt(self, **more):
        """A reference."""
        return learn(self.fit, shape=self.shape, value_range=(0, 1), scores=self.predict(self.fit), **more)

    def predict(self, rows):
        """Probabilities ``(batch, classes)``."""
        with torch.no_grad():
            images = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).view(-1, *self.shape)
            return torch.softmax(self.net(images), 1).numpy().astype(np.float64)

    def task(self, place, norm, bound):
        """To change one row so that it is answered otherwise."""
        return task_of(
            self.rows[[place]],
            self.labels[[place]],
            space=image_space(self.shape),
            classes=10,
            max_change=bound,
            norm=norm,
            budget=QUERIES,
            shape=self.shape,
            starts=(self.rows[self.owned], self.labels[self.owned]),
        )


def ours(make, scores):
    """Runs an attack of the red team, or one of the same shape, against a front."""

    def run(front, task, seed):
        play(FrontTarget(front, task.rows[0], scores=scores), make(), task, seed=seed)

    return run


class Peers:
    """The process that runs ART's attacks."""

    def __init__(self, python):
        script = Path(__file__).with_name("sequence_peers.py")
        environment = {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp")}
        self.process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def attack(self, name, scores):
        """What runs one of them against a front."""

        def run(front, task, seed):
            order = {
                "attack": name.removeprefix("art."),
                "seed": seed,
                "shape": task.shape,
                "features": task.rows.shape[1],
                "label": int(task.labels[0]),
                "classes": task.classes,
                "norm": "inf" if task.norm == np.inf else "2",
                "bound": task.max_change,
            }
            self.process.stdin.write(json.dumps(order).encode() + b"\n" + np.float32(task.rows[0]).tobytes())
            self.process.stdin.flush()
            target = FrontTarget(front, task.rows[0], scores=scores)
            while (asked := self.read()) is not None:
                try:
                    answers = target.scores(asked)
                except SpentError:
                    self.write(struct.pack("<ii", -1, 0))
                    return
                if not scores:
                    answers = np.eye(task.classes)[answers.argmax(axis=1)]
                self.write(struct.pack("<ii", *answers.shape) + np.float32(answers).tobytes())

        return run

    def read(self):
        """Rows to be asked; None at the end."""
        rows, width = struct.unpack("<ii", self.process.stdout.read(8))
        if rows < 0:
            return None
        return np.frombuffer(self.process.stdout.read(4 * rows * width), "<f4").reshape(rows, width)

    def write(self, content):
        """Answer."""
        self.process.stdin.write(content)
        self.process.stdin.flush()


def campaign(victim, attack, manner, samples, *, without):
    """Run one attack in one manner on some samples, both ways, and print what came of it."""
    name, run, norm = attack
    bound, began, found = BOUNDS[victim.name][norm == L2], time.process_time(), []
    bound *= LOOSE if name in PEERS or name == "oars-boundary" else 1.0
    for number, place in enumerate(victim.attacked[:samples]):
        row, label = victim.rows[place], int(victim.labels[place])
        task = victim.task(place, norm, bound)

        def go(guard, most, *, task=task, number=number, row=row, label=label):
            benign = victim.traffic[20_000 + 37 * number :] if len(victim.traffic) > 20_000 else victim.traffic
            front = Front(victim.predict, guard, manner, benign=benign, shape=victim.shape, seed=number, most=most)
            with contextlib.suppress(SpentError):
                run(front, task, number)
            return front.log, front.log.succeeded_at(victim.predict, row, label, norm, bound)

        key = (victim.name, name, number, manner.noise, manner.jitter)
        if key not in without:
            without[key] = go(None, QUERIES)[1]
        if without[key]:
            log, succeeded = go(victim.guard, min(QUERIES, max(300, 2 * without[key])))
            found.append((without[key], log.flagged_at(), succeeded, sum(log.shown)))
    report(victim, name, manner, np.array(found), samples=samples, seconds=time.process_time() - began)
    return found


def report(victim, name, manner, found, *, samples, seconds):
    if not len(found):
        print(f"{victim.name:<12}{name:<17}{manner.name:<9} never succeeds without the guard", flush=True)
        return
    needed, flagged, succeeded, shown = found.T
    stopped = proportion(int((succeeded == 0).sum()), len(found))
    searching = needed > FEW
    late = proportion(int((succeeded[searching] == 0).sum()), int(searching.sum()))
    seen = flagged[flagged > 0]
    print(
        f"{victim.name:<12}{name:<17}{manner.name:<9} {len(found):>3}/{samples:<3} needed {np.median(needed):>5.0f}  "
        f"flagged {len(seen) / len(found):4.2f} at {np.median(seen) if len(seen) else 0:>4.0f}  "
        f"stopped {stopped.value:5.3f} [{stopped.interval.low:.3f}, {stopped.interval.high:.3f}]  "
        f"of {late.n} that search {late.value:5.3f} [{late.interval.low:.3f}, {late.interval.high:.3f}]  "
        f"answered {np.median(shown):>4.0f}  {seconds:.0f} s",
        flush=True,
    )


def chosen(attack, peers, manners):
    """What runs an attack, its norm, and the manners it is run in; adaptive ones have their own."""
    if attack in OARS:
        return *OARS[attack], [MANNERS["accounts"]]
    if attack in PEERS:
        norm, scores = PEERS[attack]
        return peers.attack(attack, scores), norm, [MANNERS[name] for name in manners]
    make, norm, scores = OURS[attack]
    return ours(make, scores), norm, [MANNERS[name] for name in manners]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--fashion")
    parser.add_argument("--peers")
    parser.add_argument("--near", type=float, default=SequenceSettings().near)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--victims", default=",".join(BOUNDS))
    parser.add_argument("--attacks", default=",".join([*OURS, *OARS, *PEERS]))
    parser.add_argument("--manners", default=",".join(MANNERS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    peers = Peers(given.peers) if given.peers else None
    paths = {"mnist-std": given.data, "fashion-std": given.fashion, "fashion-adv": given.fashion}
    everything = {}
    for name in given.victims.split(","):
        if name in paths and not paths[name]:
            continue
        victim, without = Victim(name, paths.get(name), near=given.near), {}
        print(f"{name}: {victim.flagged} of the natural queries that filled the memory were flagged", flush=True)
        for attack in given.attacks.split(","):
            if attack in PEERS and not peers:
                continue
            run, norm, manners = chosen(attack, peers, given.manners.split(","))
            for manner in manners:
                found = campaign(victim, (attack, run, norm), manner, given.samples, without=without)
                everything.setdefault((attack, manner.name), []).extend(found)
    print("\nall victims together")
    for (attack, manner), found in everything.items():
        if found:
            report(
                argparse.Namespace(name="all"), attack, MANNERS[manner], np.array(found), samples=len(found), seconds=0
            )


if __name__ == "__main__":
    sys.exit(main())

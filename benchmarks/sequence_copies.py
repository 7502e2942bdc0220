"""What the sequence guard sees of extractions and membership inferences, which have no single target.

``python benchmarks/sequence_copies.py [--data MNIST] [--fashion FASHION]``

The attacks run against the network without the guard; their queries are recorded and replayed, in their order, from
accounts that ask 400 queries each, through a guard with a full memory; "known" is one, with nothing in its memory,
that was told what the model was trained on. Shown are the share of the accounts that are
stepped down, after how many queries, and how much of what was asked came back untouched.
"""

from __future__ import annotations

import argparse
import copy
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from bartizan.adapters.torch import TorchTarget
from bartizan.lifecycle.deploy.gateway.evaluation.attacked import Recorder
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import SequenceGuard
from bartizan.lifecycle.deploy.gateway.guards.sequence.replay import replay
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import SequenceSettings
from bartizan.redteam.attacks.extraction.active import ActiveExtraction
from bartizan.redteam.attacks.extraction.knockoff import Copycat, Knockoff
from bartizan.redteam.attacks.extraction.random import RandomExtraction
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget
from bartizan.redteam.privacy import NOISE
from bartizan.redteam.statistics import proportion
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.feasible import image_space
from sequence_attacks import Victim

QUERIES, EACH, RECORDS = 2000, 400, 40


def recorded(victim, attack, foreign):
    """Queries of an extraction."""
    task = ExtractionTask(
        rows=victim.rows[victim.owned],
        classes=10,
        space=image_space(victim.shape),
        budget=QUERIES,
        checkpoints=(QUERIES,),
        foreign=foreign,
        learner=nearest,
    )
    recorder, rng = Recorder(), np.random.default_rng(0)
    target = TorchTarget(victim.net, shape=victim.shape, classes=10)
    run = Run(
        attack.search(task, rng), budget=Budget(samples=1, per_sample=QUERIES), needs=attack.needs, watch=recorder
    )
    Engine(target).drive([run])
    return recorder.queries()[0]


def nearest(rows, scores, rng):
    """A copy that answers as the nearest row that was asked."""
    del rng

    def answer(asked):
        apart = ((asked[:, None] - rows[None, -500:]) ** 2).sum(axis=2)
        return scores[-500:][apart.argmin(axis=1)]

    return answer


def told(victim, name, rows, guard=None):
    """Replay what was recorded, and print what came of it."""
    scores = victim.predict(rows)
    account = np.arange(len(rows)) // EACH
    found = replay(guard or copy.deepcopy(victim.guard), rows, scores, scores.argmax(axis=1), account, role=name)
    firsts = found.firsts
    flagged = proportion(int((firsts > 0).sum()), len(firsts))
    seen = np.median(firsts[firsts > 0]) if (firsts > 0).any() else 0
    print(
        f"{victim.name:<12}{name:<28} flagged {flagged.value:.2f} [{flagged.interval.low:.2f}, "
        f"{flagged.interval.high:.2f}] of {flagged.n} accounts at {seen:.0f}; answered in full "
        f"{1 - found.stepped.mean():.2f} of {len(rows)}",
        flush=True,
    )


def membership(victim, members):
    """Queries about records by scores, once each, and by labels, with their neighbours (Choquette-Choo et al. 2021)."""
    rng = np.random.default_rng(0)
    others = victim.rows[victim.owned]
    both = np.concatenate([members[: len(others)], others])
    yield "membership from scores", both[rng.permutation(len(both))]
    records = np.concatenate([members[: RECORDS // 2], others[: RECORDS // 2]])
    spread = members.std(axis=0)
    views = [np.clip(records + size * spread * rng.normal(size=records.shape), 0, 1) for size in NOISE]
    asked = np.stack([records, *views], axis=1).reshape(-1, records.shape[1])
    yield "membership from labels", asked.astype(np.float32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--fashion")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, path in (("digits-std", None), ("mnist-std", given.data), ("fashion-std", given.fashion)):
        if name != "digits-std" and not path:
            continue
        victim = Victim(name, path)
        foreign = np.random.default_rng(1).uniform(0, 1, (3000, victim.rows.shape[1])).astype(np.float32)
        attacks = {
            "uniform rows": (RandomExtraction(), None),
            "active": (ActiveExtraction(), None),
            "copycat": (Copycat(), None),
            "knockoff, noise": (Knockoff(), foreign),
        }
        for label, (attack, other) in attacks.items():
            told(victim, label, np.float32(recorded(victim, attack, other)))
        told(victim, "natural rows of its own", victim.rows[victim.attacked][:QUERIES])
        for label, rows in membership(victim, victim.traffic[-2000:]):
            told(victim, label, rows)
            if label == "membership from scores":
                knowing = SequenceGuard(SequenceSettings(), victim.learnt(trained_on=victim.traffic))
                told(victim, f"{label}, known", rows, knowing)


if __name__ == "__main__":
    main()

"""What rules outside the model, the review sample and masking cost, beside the same rules written by hand.

python benchmarks/rules.py
"""

from __future__ import annotations

import sys
import time

import msgspec
import numpy as np

from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked, Column, Material
from bartizan.lifecycle.deploy.gateway.guards.rules import RulesGuard, RulesSettings
from bartizan.lifecycle.deploy.gateway.masking import Masker, MaskingSettings
from bartizan.lifecycle.deploy.gateway.review import Sampler
from common import promise, tell

CLASSES, FEATURES, BATCH = ("malignant", "benign"), 30, 4_096
DIGEST = "0" * 64
ROWS = np.random.default_rng(20261121).normal(size=(BATCH, FEATURES)).astype(np.float32)
SCORES = np.random.default_rng(20261122).dirichlet([1, 1], BATCH)
TWO = [
    {"name": "one", "when": 'c0 == 0 and label == "malignant"', "then": "refuse"},
    {"name": "two", "when": "confidence < 0.1", "then": "hold"},
]
TREE = [["c0", 50.0, 1, 2, ""], ["c1", 50.0, 3, 4, ""], *[["", 0.0, 0, 0, "benign"]] * 3]
SOURCES = [
    {"name": "a", "signal": "confidence", "bad": 0.5},
    {"name": "b", "signal": "c2", "bad": 90.0, "good": 60.0, "doubt": "unknown"},
]
TEXT = "Seen on Tuesday; call +44 20 7946 0018 or write to jane@mail.example. Radius 17.99, texture 10.38. " * 10


def microseconds(work, times=20_000, rounds=7):
    """Least processor time of one call."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - began)
    return best / times * 1e6


def guard(**settings):
    """A guard from its settings."""
    columns = tuple(Column(name=f"c{place}") for place in range(FEATURES))
    material = Material(model="m", digest=DIGEST, classes=CLASSES, columns=columns, fitted=lambda _: b"", state=None)
    return RulesGuard(msgspec.convert(settings, RulesSettings), material)


def question(rows):
    """A request for these rows."""
    caller = Caller(id="key:1", role="user", method="key")
    return Asked(request="r", caller=caller, model="m", digest=DIGEST, rows=rows, now=1.8e9)


def by_hand(asked, answer):
    """Two rules as somebody would write them without a guard; one of them is met by no row of these."""
    row, scores = asked.rows[0], answer.scores[0]
    return (row[0] == 0 and answer.labels[0] == 0) or scores.max() < 0.1


def main() -> int:
    """Run everything; 1 when a promise is broken."""
    one, said = question(ROWS[:1]), Answer(np.array([1]), np.array([(0.1, 0.9)]))
    many, all_said = question(ROWS), Answer(SCORES.argmax(axis=1), SCORES)
    floor = microseconds(lambda: by_hand(one, said))
    tell("two rules written by hand", floor, "us")
    tell("soundness of the answer alone", microseconds(lambda: guards[0].on_response(one, said)), "us")
    two = microseconds(lambda: guards[1].on_response(one, said))
    kept = [
        promise("soundness and two rules, one row", two, 4.0, "us"),
        promise("soundness and two rules, beside by hand", two / floor, 4.0),
    ]
    tell("a tree of two levels", microseconds(lambda: guards[2].on_response(one, said)), "us")
    tell("two fused sources and a rule", microseconds(lambda: guards[3].on_response(one, said)), "us")
    batch = microseconds(lambda: guards[1].on_response(many, all_said), times=100) / BATCH
    kept.append(promise(f"two rules, each of {BATCH} rows", batch, 0.5, "us"))
    sampler = Sampler({}, 0.001, 1)
    kept.append(promise("whether an answer is sampled", microseconds(lambda: sampler.draws(1)), 0.5, "us"))
    masker = Masker(MaskingSettings(), b"k" * 32)
    tell(f"masking a text of {len(TEXT)} characters", microseconds(lambda: masker.text(TEXT), times=20), "us")
    return 0 if all(kept) else 1


guards = (
    guard(),
    guard(rule=TWO),
    guard(tree={"rows": TREE}),
    guard(fusion={"source": SOURCES}, rule=[{"name": "u", "when": "opinion.uncertainty > 0.9", "then": "hold"}]),
)

if __name__ == "__main__":
    sys.exit(main())

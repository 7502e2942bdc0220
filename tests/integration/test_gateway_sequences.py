"""Attacks that were recorded are sent through a running gateway, and natural queries beside them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from bartizan.adapters.callable_target import CallableTarget
from bartizan.lifecycle.deploy.gateway.evaluation.attacked import Recorder
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.extraction.knockoff import Copycat
from bartizan.redteam.attacks.privacy.membership import MembershipFromLabels
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget
from bartizan.redteam.play import task_of
from bartizan.redteam.privacy import NOISE
from bartizan.redteam.statistics import wilson
from bartizan.redteam.tasks import ExtractionTask, MembershipTask, Shadow
from bartizan.targets.feasible import image_space
from fixtures.gateways import configured, key_of, serving
from fixtures.victims import Victim

CONFIGURATION = """
[identity.keys]

[role.anonymous]
operations = ["infer"]
detail = "rounded-scores"

[role.user]
operations = ["infer"]
detail = "rounded-scores"
rate = "1000000/h"

[[guard]]
use = "sequence"
"""
SAMPLES, QUERIES = 8, 100
STATED = {"evasion": 0.9, "extraction": 0.9, "membership": 0.9}
"""Shares of recorded sequences that are flagged, as docs/gateway/sequences.md states them."""
NATURAL = 0.001
"""Share of natural queries that may be."""


@pytest.fixture(scope="module")
def guarded(digits_project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences") / "digits"
    configured(digits_project, folder, CONFIGURATION, checks=("scan", "gateway.sequence"))
    with serving(folder) as client:
        yield client


@pytest.fixture(scope="module")
def twin(digits_project):
    """The same model in this process: attacks are recorded on it."""
    session = onnxruntime.InferenceSession(digits_project / "model" / "digits.onnx")

    def scores(rows):
        return session.run(None, {session.get_inputs()[0].name: np.float32(rows)})[1]

    return CallableTarget(scores, features=64, classes=10, answers="scores")


@pytest.fixture(scope="module")
def digits():
    source = load_digits()
    return train_test_split(source.data, source.target, test_size=1 / 3, stratify=source.target, random_state=7)


def record(target, attack, task, budget):
    """Queries of an attack, and the sample that each was asked for."""
    recorder = Recorder()
    Engine(target).drive(
        [Run(attack.search(task, np.random.default_rng(0)), budget=budget, needs=attack.needs, watch=recorder)]
    )
    return recorder.queries()


def flagged(ask, rows):
    """Whether a sequence is answered with less than it would be alone before it ends; one query at a time."""
    return any(ask(row) for row in rows)


def asking(client, key=""):
    """What asks about one row and says whether the answer was withheld or coarsened."""

    def ask(row):
        status, _, answer = client.infer(row, key, "digits")
        if status in {422, 429, 202}:
            return True
        assert status == 200, answer
        return "scores" not in {output["name"] for output in answer["outputs"]}

    return ask


def evasions(twin, digits):
    """Sequences of searches, one for each row under attack."""
    _, rows, _, labels = digits
    right = np.flatnonzero(twin.labels(rows) == labels)
    attacked, owned = right[:SAMPLES], right[-100:]
    task = task_of(
        np.float32(rows[attacked]),
        labels[attacked],
        space=image_space((1, 8, 8), high=16.0),
        classes=10,
        max_change=1.6,
        budget=QUERIES,
        shape=(1, 8, 8),
        starts=(np.float32(rows[owned]), labels[owned]),
    )
    for attack in (HopSkipJump(), Square()):
        asked, sample = record(twin, attack, task, Budget(samples=SAMPLES, per_sample=QUERIES))
        yield from (asked[sample == one] for one in range(SAMPLES))


def memberships(digits):
    """Sequences of a membership inference from labels, one for each record in question."""
    train, rest, labels, rest_labels = digits
    rng = np.random.default_rng(1)
    records = np.concatenate([train[:4], rest[:4]])
    truth = np.concatenate([labels[:4], rest_labels[:4]])
    neighbours = np.concatenate([records + size * train.std() * rng.normal(size=records.shape) for size in NOISE])
    inside = np.arange(8) % 2 == 0
    task = MembershipTask(records, truth, 10, (Shadow(inside, 1), Shadow(~inside, 2)) * 6, neighbours.clip(0, 16))
    recorder = Recorder()
    attack, victim = MembershipFromLabels(), Victim(LogisticRegression(max_iter=2000).fit(train, labels))
    search = attack.search(task, rng)
    Engine(victim).drive(
        [
            Run(
                search,
                budget=Budget(samples=8, per_sample=17, fits=12),
                needs=attack.needs,
                watch=recorder,
            )
        ]
    )
    asked, sample = recorder.queries()
    victim_asked = slice(len(asked) - 8 * 17, None)
    return [asked[victim_asked][sample[victim_asked] == one] for one in range(8)]


def no_learner(rows, scores, rng):
    """What is asked does not depend on what is learnt from it."""
    del rows, rng
    return lambda asked: np.repeat(scores.mean(0, keepdims=True), len(asked), axis=0)


def extraction(twin, digits):
    """The queries of an extraction without a natural row."""
    owned = digits[1][:100]
    task = ExtractionTask(
        rows=np.float32(owned),
        classes=10,
        space=image_space((1, 8, 8), high=16.0),
        budget=150,
        checkpoints=(150,),
        learner=no_learner,
    )
    return record(twin, Copycat(), task, Budget(samples=1, per_sample=150))[0]


@pytest.mark.control("3.2-a")
def test_replayed_extraction_evasion_and_membership_sequences_are_flagged_at_the_stated_rates(guarded, twin, digits):
    key = key_of(guarded.folder, "user")
    natural = digits[1][200:500]
    alarms = sum(map(asking(guarded, key), natural))
    assert wilson(alarms, len(natural)).low <= NATURAL
    assert alarms <= 1

    nobody = asking(guarded)
    found = [flagged(nobody, rows) for rows in evasions(twin, digits)]
    assert len(found) == 2 * SAMPLES
    assert np.mean(found) >= STATED["evasion"]

    found = [flagged(nobody, rows) for rows in memberships(digits)]
    assert np.mean(found) >= STATED["membership"]

    asked = extraction(twin, digits)
    found = [flagged(asking(guarded, key_of(guarded.folder, "user")), rows) for rows in np.array_split(asked, 3)]
    assert np.mean(found) >= STATED["extraction"]

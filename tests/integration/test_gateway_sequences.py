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
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import CHECK
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.extraction.knockoff import Copycat
from bartizan.redteam.attacks.privacy.membership import MembershipFromLabels
from bartizan.redteam.check import stream
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

[role.slow]
operations = ["infer"]
rate = "20/h"

[[guard]]
use = "sequence"
"""
SEED = 20261121
"""Of the declared project."""
SAMPLES, QUERIES, GROUPS = 8, 100, 3
STATED = {"evasion": 0.9, "extraction": 0.9, "membership": 0.9}
"""Shares of recorded sequences that are flagged at least, as docs/gateway/sequences.md states them.

A search is flagged by its place, whoever asks; an extraction and a membership inference by their account.
"""
NATURAL = 0.001
"""Share of natural queries that may be."""


@pytest.fixture(scope="module")
def guarded(digits_project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences") / "digits"
    configured(digits_project, folder, CONFIGURATION, checks=("scan", "gateway.sequence"))
    keys = [key_of(folder, "user") for _ in range(1 + 2 * GROUPS)]
    slow = key_of(folder, "slow")
    with serving(folder) as client:
        client.keys, client.slow = iter(keys), slow
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


def memberships(digits, records=8):
    """Sequences of membership inferences from labels, each about some records, half of which are members."""
    train, rest, labels, rest_labels = digits
    rng, each = np.random.default_rng(1), GROUPS * records // 2
    rows, truth = np.concatenate([train[:each], rest[:each]]), np.concatenate([labels[:each], rest_labels[:each]])
    neighbours = np.concatenate([rows + size * train.std() * rng.normal(size=rows.shape) for size in NOISE])
    inside = np.arange(2 * each) % 2 == 0
    task = MembershipTask(rows, truth, 10, (Shadow(inside, 1), Shadow(~inside, 2)) * 6, neighbours.clip(0, 16))
    recorder, attack = Recorder(), MembershipFromLabels()
    budget = Budget(samples=2 * each, per_sample=1 + len(NOISE), fits=12)
    run = Run(attack.search(task, rng), budget=budget, needs=attack.needs, watch=recorder)
    Engine(Victim(LogisticRegression(max_iter=5000).fit(train, labels))).drive([run])
    asked, sample = recorder.queries()
    of_the_target = slice(len(asked) - 2 * each * (1 + len(NOISE)), None)
    group = sample[of_the_target] % GROUPS
    return [asked[of_the_target][group == one] for one in range(GROUPS)]


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


def never_learnt_from(rows):
    """The half of the evaluation data that the check measures on: the guard is made from the other one."""
    order = stream(SEED, CHECK, "halves").permutation(len(rows))
    return rows[np.array_split(order, 2)[1]]


@pytest.mark.control("3.2-a")
def test_replayed_extraction_evasion_and_membership_sequences_are_flagged_at_the_stated_rates(guarded, twin, digits):
    key = next(guarded.keys)
    natural = never_learnt_from(digits[1])
    assert len(natural) >= 299
    alarms = sum(map(asking(guarded, key), natural))
    assert wilson(alarms, len(natural)).low <= NATURAL
    assert alarms <= 1

    nobody = asking(guarded)
    found = [flagged(nobody, rows) for rows in evasions(twin, digits)]
    assert len(found) == 2 * SAMPLES
    assert np.mean(found) >= STATED["evasion"]

    found = [flagged(asking(guarded, next(guarded.keys)), rows) for rows in memberships(digits)]
    assert np.mean(found) >= STATED["membership"]

    parts = np.array_split(extraction(twin, digits), GROUPS)
    found = [flagged(asking(guarded, next(guarded.keys)), rows) for rows in parts]
    assert np.mean(found) >= STATED["extraction"]


@pytest.mark.control("3.2-i")
def test_the_rate_is_limited_for_an_identity_and_around_a_row(guarded, digits):
    _, rows, *_ = digits
    said = [guarded.infer(row, guarded.slow, "digits")[0] for row in rows[500:523]]
    assert said == [200] * 20 + [429] * 3

    around = rows[530] + np.random.default_rng(0).normal(0, 0.1, (30, 64))
    said = [guarded.infer(row, "", "digits") for row in around.clip(0, 16)]
    assert [status for status, *_ in said[:5]] == [200] * 5
    first = next(place for place, (status, *_) in enumerate(said) if status != 200)
    assert first <= 10
    status, fields, _ = said[first]
    assert status == 429
    assert int(fields["retry-after"]) > 0
    assert {status for status, *_ in said[15:]} == {422}

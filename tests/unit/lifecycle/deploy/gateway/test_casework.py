"""Held answers and reviews, with a real store, a real key and every clock in the test's hand."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import msgspec
import numpy as np
import pytest

from bartizan.core.errors import InputError, KeyFileError, StoreError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.cases import Kept
from bartizan.lifecycle.deploy.gateway.casework import Casework
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.front import Granted
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.holds import Holds, HoldSettings, Ruled
from bartizan.lifecycle.deploy.gateway.pipeline import Passage
from bartizan.lifecycle.deploy.gateway.protocol import Output
from bartizan.lifecycle.deploy.gateway.review import MOST_WAITING, Reviews, ReviewSettings, Sampler
from bartizan.lifecycle.deploy.gateway.sealing import Sealer
from bartizan.lifecycle.deploy.gateway.vault import Known, Vault
from bartizan.redteam.statistics import wilson
from bartizan.stores.cases import open_cases

CLASSES = ("malignant", "benign")
NOW = 1_800_000_000.0
DAY = 86_400.0
KEY = bytes(range(32))
ALICE, BOB = (Caller(id=f"key:{name}", role="user", method="key") for name in ("alice", "bob"))


class Anybody:
    """A policy that grants all, or nothing."""

    denies = False

    def decide(self, caller, operation, model, digest):
        del caller, operation, model, digest
        if self.denies:
            raise RequestError(403, "this is not granted")
        return Granted(role=None)


class Labels:
    """Tells the label, and the scores where there are any."""

    def tell(self, answer, asked, role, *, coarse):
        del asked, role, coarse
        told = {"label": Output("BYTES", [CLASSES[label] for label in answer.labels.tolist()])}
        scores = {} if answer.scores is None else {"scores": Output("FP64", answer.scores.ravel().tolist(), 2)}
        return told | scores


class World:
    """Everything but the event loop."""

    def __init__(self, location, holds=None, review=None):
        self.now, self.rulings, self.policy = NOW, {}, Anybody()
        self.store = open_cases(location)
        self.sealer = Sealer(KEY)
        self.vault = Vault(self.store, self.sealer, {"tumour": Known(classes=CLASSES, columns=("a", "b"))})
        self.holds = Holds(
            HoldSettings(**(holds or {})),
            self.vault,
            decisions=lambda case: self.rulings.get(case.id),
            policy=self.policy,
            teller=Labels(),
        )
        self.reviews = Reviews(ReviewSettings(**(review or {})), self.vault, seed=7, waits=lambda _: None)
        self.work = Casework(self.holds, self.reviews, self.vault, clock=lambda: self.now)

    def asked(self, *rows, caller=ALICE):
        rows = np.array(rows or [(1.5, -2.0)], np.float32)
        return Asked(request="r1", caller=caller, model="tumour", digest="0" * 64, rows=rows, now=self.now)

    def hold(self, *rows, caller=ALICE, said=None):
        return asyncio.run(self.work.hold(self.asked(*rows, caller=caller), said or answer(), passage("rules: unsure")))

    def outcome(self, case, caller=ALICE):
        return asyncio.run(self.work.outcome(case, caller))

    def rule(self, case, verdict, *, at=None, role="domain", **labels):
        with self.store._change() as connection:
            connection.exec_driver_sql("UPDATE review_case SET state='decided' WHERE id=?", (case,))
        self.rulings[case] = Ruled(verdict=verdict, role=role, at=int((at or self.now) * 1000), labels=labels)


def answer(*scores):
    scores = np.array(scores or [(0.4, 0.6)])
    return Answer(scores.argmax(axis=1), scores)


def passage(*reasons, action=Action.HOLD):
    said = Passage()
    said.reasons, said.action = list(reasons), action
    return said


@pytest.fixture
def make(tmp_path):
    worlds = []

    def made(**settings):
        worlds.append(World(str(tmp_path / f"cases{len(worlds)}.db"), **settings))
        return worlds[-1]

    yield made
    for world in worlds:
        world.work.close()


class TestHolds:
    def test_a_held_answer_waits_and_goes_out_when_a_person_confirms_it(self, make):
        world = make()
        told = world.hold()
        assert told["state"] == "waiting"
        assert told["deadline"] == "2027-01-16T08:00:00Z"
        assert "outputs" not in told
        case = told["case"]
        assert world.outcome(case)["state"] == "waiting"
        world.rule(case, "confirm")
        outcome = world.outcome(case)
        assert outcome["state"] == "answered"
        assert outcome["outputs"][0] == {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["benign"]}
        assert outcome["outputs"][1]["data"] == [0.4, 0.6]

    def test_a_person_may_change_labels_and_gives_no_scores(self, make):
        world = make()
        case = world.hold((1.0, 2.0), (3.0, 4.0), said=answer((0.4, 0.6), (0.45, 0.55)))["case"]
        world.rule(case, "change", **{"1": "malignant"})
        (labels,) = world.outcome(case)["outputs"]
        assert labels["data"] == ["benign", "malignant"]

    @pytest.mark.parametrize("labels", [{"0": "cyst"}, {"1": "benign"}, {"-1": "benign"}, {"x": "benign"}])
    def test_what_was_changed_into_something_that_cannot_be_is_not_told(self, make, labels):
        world = make()
        case = world.hold()["case"]
        world.rule(case, "change", **labels)
        assert world.outcome(case)["state"] == "refused"

    def test_what_was_rejected_is_never_told(self, make):
        world = make(holds={"default": "answer"})
        case = world.hold()["case"]
        world.rule(case, "reject")
        for world.now in (NOW, NOW + 2 * DAY):
            assert world.outcome(case)["state"] == "refused"
            assert "outputs" not in world.outcome(case)

    @pytest.mark.parametrize(
        ("settings", "state", "label"),
        [
            ({}, "expired", None),
            ({"default": "answer"}, "answered", "benign"),
            ({"default": "class", "default_class": "malignant"}, "answered", "malignant"),
        ],
    )
    def test_after_the_deadline_the_declared_default_happens(self, make, settings, state, label):
        world = make(holds=settings)
        case = world.hold()["case"]
        world.now = NOW + DAY
        assert world.outcome(case)["state"] == "waiting"
        world.now = NOW + DAY + 0.01
        outcome = world.outcome(case)
        assert outcome["state"] == state
        assert [output["data"] for output in outcome.get("outputs", ())][:1] == ([[label]] if label else [])

    def test_a_decision_after_the_deadline_or_in_another_role_releases_nothing(self, make):
        world = make()
        case = world.hold()["case"]
        world.rule(case, "confirm", role="developer")
        assert world.outcome(case)["state"] == "waiting"
        world.rule(case, "confirm", at=NOW + DAY + 1)
        world.now = NOW + DAY + 2
        assert world.outcome(case)["state"] == "expired"

    def test_what_the_store_says_of_a_decision_releases_nothing(self, make):
        world = make()
        case = world.hold()["case"]
        with world.store._change() as connection:
            connection.exec_driver_sql("UPDATE review_case SET state='decided', verdict='confirm', decided=1")
        assert world.outcome(case)["state"] == "waiting"

    def test_a_decision_that_the_store_does_not_know_of_counts_when_the_time_is_over(self, make):
        world = make()
        case = world.hold()["case"]
        world.rule(case, "confirm")
        with world.store._change() as connection:
            connection.exec_driver_sql("UPDATE review_case SET state='open'")
        assert world.outcome(case)["state"] == "waiting"
        world.now = NOW + 2 * DAY
        assert world.outcome(case)["state"] == "answered"

    def test_nobody_sees_the_case_of_another(self, make):
        world = make()
        case = world.hold()["case"]
        assert world.outcome(case, BOB) is None
        assert world.outcome("0" * 32) is None
        assert world.outcome("' OR 1=1 --") is None

    def test_rights_count_as_they_are_when_the_answer_is_fetched(self, make):
        world = make()
        case = world.hold()["case"]
        world.rule(case, "confirm")
        world.policy.denies = True
        with pytest.raises(RequestError) as refused:
            world.outcome(case)
        assert refused.value.status == 403

    def test_asking_again_is_the_same_case(self, make):
        world = make()
        first = world.hold()["case"]
        assert world.hold()["case"] == first
        assert world.hold(caller=BOB)["case"] != first
        assert world.hold((9.0, 9.0))["case"] != first

    def test_a_full_queue_refuses(self, make):
        world = make(holds={"capacity": 3, "per_caller": 2})
        world.hold((1.0, 1.0))
        world.hold((2.0, 2.0))
        with pytest.raises(RequestError) as refused:
            world.hold((3.0, 3.0))
        assert refused.value.status == 503
        world.hold((1.0, 1.0), caller=BOB)
        with pytest.raises(RequestError, match="cannot be answered now"):
            world.hold((2.0, 2.0), caller=BOB)

    def test_what_is_too_large_is_refused(self, make):
        world = make()
        asked = world.asked()
        asked.rows = np.zeros((2, 1 << 17), np.float32)
        with pytest.raises(RequestError) as refused:
            asyncio.run(world.work.hold(asked, answer(), passage("r")))
        assert refused.value.status == 413

    def test_a_store_that_is_out_of_reach_refuses(self, make):
        world = make()
        with world.store._change() as connection:
            connection.exec_driver_sql("DROP TABLE review_case")
        with pytest.raises(RequestError) as refused:
            world.hold()
        assert refused.value.status == 503
        assert "no such table" in refused.value.reason
        assert "table" not in refused.value.message

    def test_what_is_kept_is_sealed(self, make, tmp_path):
        world = make()
        world.hold((1234.5, 6789.25))
        sealed = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert np.array([1234.5, 6789.25], np.float32).tobytes() not in sealed

    def test_content_that_was_put_in_the_place_of_another_is_not_told(self, make):
        world = make(holds={"default": "answer"})
        first, second = world.hold((1.0, 1.0))["case"], world.hold((2.0, 2.0))["case"]
        with world.store._change() as connection:
            connection.exec_driver_sql(
                "UPDATE review_case SET content=(SELECT content FROM review_case WHERE id=?) WHERE id=?",
                (first, second),
            )
        world.rule(second, "confirm")
        assert world.outcome(second)["state"] == "expired"

    def test_content_is_erased_when_its_time_is_over(self, make):
        world = make(holds={"default": "answer", "retention": "7d"})
        case = world.hold()["case"]
        world.now = NOW + 7.9 * DAY
        assert asyncio.run(world.work.sweep()) == 0
        world.now = NOW + 8.1 * DAY
        assert asyncio.run(world.work.sweep()) == 1
        assert world.outcome(case)["state"] == "expired"

    def test_the_default_class_has_to_be_one(self, make):
        with pytest.raises(InputError, match="no class of tumour"):
            make(holds={"default": "class", "default_class": "cyst"})
        for settings in ({"default": "class"}, {"default_class": "benign"}):
            with pytest.raises((ValueError, msgspec.ValidationError), match="default_class"):
                msgspec.convert(settings, HoldSettings)


class TestReviews:
    def test_flagged_and_filtered_cases_are_kept_with_a_due_date(self, make):
        world = make(review={"within": "2d", "urgent": {"malignant": "1h"}})
        world.work.flag(world.asked(), answer(), passage("outliers: far", action=Action.FLAG))
        world.work.flag(world.asked((1.0, 1.0)), answer((0.9, 0.1)), passage("rules: odd", action=Action.COARSEN))
        world.work.flag(world.asked((2.0, 2.0)), None, passage("schema: age", action=Action.REFUSE))
        world.reviews._thread.shutdown(wait=True)
        kept = {kept.case.queue + kept.case.label: kept.case for kept in world.store.listed()}
        hours = {name: (case.due - case.opened) / 3_600_000 for name, case in kept.items()}
        assert hours == {"flaggedbenign": 48, "flaggedmalignant": 1, "filtered": 48}
        assert kept["filtered"].reasons == ("schema: age",)
        world.now = NOW + DAY
        tallies = asyncio.run(world.work.tallies())
        assert (tallies["flagged"].open, tallies["flagged"].overdue, tallies["filtered"].overdue) == (2, 1, 0)

    def test_a_batch_is_kept_in_part(self, make):
        world = make()
        rows = [(float(row), 0.0) for row in range(500)]
        world.work.flag(world.asked(*rows), answer(*[(0.4, 0.6)] * 500), passage("r", action=Action.FLAG))
        world.reviews._thread.shutdown(wait=True)
        (listed,) = world.store.listed()
        content = world.vault.content(world.store.find(listed.case.id))
        assert listed.case.rows == 500
        assert content.shape == (64, 2)
        assert len(content.labels) == 64
        np.testing.assert_array_equal(content.numbers(), np.array(rows[:64], np.float32))

    def test_what_was_flagged_and_cannot_be_kept_is_not_answered(self, make, monkeypatch):
        world = make()
        monkeypatch.setattr(world.store, "add", lambda case, *_: Kept(case=case))
        gate = threading.Event()
        world.reviews._thread.submit(gate.wait)
        for number in range(MOST_WAITING):
            world.work.flag(world.asked((float(number), 0.0)), answer(), passage("r", action=Action.FLAG))
        with pytest.raises(RequestError) as refused:
            world.work.flag(world.asked(), answer(), passage("r", action=Action.FLAG))
        assert refused.value.status == 503
        world.work.flag(world.asked(), None, passage("r", action=Action.REFUSE))
        assert world.reviews.missed == 1, "what is refused anyway is only counted"
        gate.set()
        world.reviews._thread.shutdown(wait=True)

    def test_nothing_that_was_flagged_is_lost_while_the_store_is_out_of_reach(self, make, monkeypatch):
        world = make()
        real, fails = world.store.add, [StoreError("gone")] * 5

        def add(*arguments):
            if fails:
                raise fails.pop()
            return real(*arguments)

        monkeypatch.setattr(world.store, "add", add)
        for number in range(3):
            world.work.flag(world.asked((float(number), 0.0)), answer(), passage("r", action=Action.FLAG))
        world.reviews._thread.shutdown(wait=True)
        assert not fails
        assert len(world.store.listed()) == 3

    def test_an_ordinary_answer_is_sampled_at_its_rate(self, make):
        world = make(review={"sample": 0.0, "sample_of": {"malignant": 1.0}, "sample_within": "3d"})
        for number in range(5):
            world.work.answered(world.asked((float(number), 0.0)), answer((0.9, 0.1)))
            world.work.answered(world.asked((float(number), 1.0)), answer((0.1, 0.9)))
        world.reviews._thread.shutdown(wait=True)
        listed = world.store.listed()
        assert [(kept.case.queue, kept.case.label) for kept in listed] == [("sampled", "malignant")] * 5
        assert {kept.case.due - kept.case.opened for kept in listed} == {3 * 86_400_000}


class TestSampling:
    @pytest.mark.parametrize("rate", [0.5, 0.05, 0.002])
    def test_the_rate_is_kept_for_each_class(self, rate):
        sampler = Sampler({1: rate}, 0.0, seed=20261121)
        draws = sum(sampler.draws(1) for _ in range(100_000))
        assert rate in wilson(draws, 100_000, 0.9999)
        assert not any(sampler.draws(0) for _ in range(1_000))

    def test_gaps_are_those_of_independent_draws(self):
        sampler, gaps, since = Sampler({}, 0.25, seed=3), Counter(), 0
        for _ in range(80_000):
            if sampler.draws(0):
                gaps[since] += 1
                since = 0
            else:
                since += 1
        total = sum(gaps.values())
        for length in range(6):
            assert 0.25 * 0.75**length in wilson(gaps[length], total, 0.9999)

    def test_the_same_seed_draws_the_same(self):
        first, second, third = (Sampler({}, 0.1, seed) for seed in (1, 1, 2))
        drawn = [[sampler.draws(0) for _ in range(500)] for sampler in (first, second, third)]
        assert drawn[0] == drawn[1] != drawn[2]


class TestSealing:
    def test_what_was_sealed_opens_for_the_same_case_and_key_alone(self):
        sealer = Sealer(KEY)
        sealed = sealer.seal(b"rows", "case 1")
        assert sealer.open(sealed, "case 1") == b"rows"
        with pytest.raises(StoreError, match="was altered"):
            sealer.open(sealed, "case 2")
        with pytest.raises(StoreError, match="another key"):
            Sealer(bytes(32)).open(sealed, "case 1")
        for place in range(len(sealed)):
            with pytest.raises(StoreError):
                sealer.open(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], "case 1")
        with pytest.raises(StoreError):
            sealer.open(sealed[:10], "case 1")

    def test_fingerprints_do_not_run_together(self):
        sealer = Sealer(KEY)
        assert sealer.fingerprint(b"ab", b"c") != sealer.fingerprint(b"a", b"bc")
        assert sealer.fingerprint(b"a") != Sealer(bytes(32)).fingerprint(b"a")

    def test_a_key_has_32_bytes(self):
        with pytest.raises(KeyFileError):
            Sealer(b"short")

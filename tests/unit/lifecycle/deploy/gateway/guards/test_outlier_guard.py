"""The guard ``outliers``: what it says before and after the model, one row and many, and what it promises."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer
from bartizan.lifecycle.deploy.gateway.guards.outliers.detectors import energy, energy_of
from bartizan.lifecycle.deploy.gateway.guards.outliers.guard import MOST_PENDING, OutlierGuard, OutlierSettings
from bartizan.redteam.statistics import auc, clopper_pearson, roc
from fixtures.guarding import asked, columns_of, digits_reference, digits_report, known_digits, material, through

CLASSES = tuple("01234567")
DETECTORS = ("combined", "neighbours", "energy", "mahalanobis", "softmax")


def guard(*, scores=True, columns=64, classes=CLASSES, report=None, **settings):
    fitted = digits_report(scores=scores) if report is None else report
    said = material(columns_of(columns), classes=classes, fitted={"gateway.outliers": fitted}.__getitem__)
    return OutlierGuard(OutlierSettings(**settings), said)


def far_sets(rows):
    rng = np.random.default_rng(1)
    images = rows.reshape(-1, 8, 8)
    return {
        "turned": np.rot90(images, 1, (1, 2)).reshape(-1, 64),
        "inverted": 1 - rows,
        "shuffled": rng.permuted(rows, axis=1),
        "noise": rng.random(rows.shape),
    }


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_maximum_of_both_keeps_the_promise_near_and_far(seed):
    """Near: 8 and 9, which the network never learnt; as the promise was measured, and with other seeds."""
    net, parts = known_digits(seed)
    reference = digits_reference(seed)
    usual = parts["usual"][0]

    def area(rows):
        every = np.concatenate([usual, rows])
        found = reference.raw("combined", every, net.predict_proba(every))
        return auc(roc(found, np.arange(len(every)) >= len(usual))).value

    assert area(parts["near"][0]) >= 0.968
    for rows in far_sets(usual).values():
        assert area(rows) >= 0.9999


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_stated_share_of_usual_rows_is_flagged_and_not_more(detector):
    net, parts = known_digits(1)
    rows = parts["usual"][0]
    judge = guard(detector=detector, flag=0.05, coarsen=0.0)
    flagged = 0
    for row, scores in zip(rows, net.predict_proba(rows), strict=True):
        said = [verdict.action for verdict in through(judge, row, scores) if verdict]
        flagged += max(said, default=Action.ALLOW) is Action.FLAG
    assert clopper_pearson(flagged, len(rows)).low <= 0.05


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_batch_is_judged_by_its_worst_row_as_that_row_is_judged_alone(detector):
    net, parts = known_digits()
    rows = np.concatenate([parts["usual"][0][:5], far_sets(parts["usual"][0][:2])["noise"]]).astype(np.float64)
    scores = net.predict_proba(rows)
    judge = guard(detector=detector)

    def final(rows, scores):
        before, after = through(judge, rows, scores)
        measured = [each.measures["decades"] for each in (before, after) if each and each.measures]
        return measured[-1], max((each.action for each in (before, after) if each), default=Action.ALLOW)

    alone = [final(row, score) for row, score in zip(rows, scores, strict=True)]
    together = final(rows, scores)
    assert together[0] == pytest.approx(max(one for one, _ in alone), rel=1e-5)
    assert together[1] == max(action for _, action in alone)


@pytest.mark.parametrize("detector", DETECTORS)
def test_rows_of_a_company_are_judged_as_each_is_judged_alone(detector):
    net, parts = known_digits()
    rows = np.concatenate([parts["usual"][0][:9], far_sets(parts["usual"][0][:2])["noise"]]).astype(np.float64)
    scores, judge = net.predict_proba(rows), guard(detector=detector)

    def said(row, score, foreseen, foretold=None):
        request, answer = asked(row[None]), Answer(np.array([score.argmax()]), score[None])
        request.foreseen = foreseen
        answer.tell_ahead(foretold)
        verdicts = [judge.on_request(request)]
        if verdicts[0] is not None and verdicts[0].measures:
            request.measures["outliers.decades"] = verdicts[0].measures["decades"]
        verdicts.append(judge.on_response(request, answer))
        return [(each.action, each.measures.get("decades", 0.0)) for each in verdicts if each is not None]

    ahead = judge.foresee(rows)
    told = judge.foretell(scores.argmax(axis=1), scores) if judge.foretells else [None] * len(rows)
    for row, score, one, other in zip(rows, scores, ahead, told, strict=True):
        alone = said(row, score, {})
        together = said(row, score, {"outliers": one}, None if other is None else {"outliers": [other]})
        assert [action for action, _ in together] == [action for action, _ in alone]
        assert [decades for _, decades in together] == pytest.approx([decades for _, decades in alone], rel=1e-4)


@pytest.mark.parametrize("odd", [math.nan, 0.0, 1e-40, 1.0])
def test_the_energy_of_one_row_is_that_of_many(odd):
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(10), 20)
    scores[3, 4] = odd
    assert [energy_of(row) for row in scores.tolist()] == pytest.approx(energy(scores).tolist(), nan_ok=True)


def test_each_step_follows_at_its_share_and_the_strictest_wins():
    judge = guard(flag=0.1, coarsen=0.01, hold=0.001, refuse=1e-5, shrink=False, detector="neighbours")
    rarity = digits_reference().rarities["neighbours"]
    direction = np.zeros(64)
    found = {}
    base = known_digits()[1]["usual"][0][0].astype(np.float64)
    for size in np.linspace(0, 30, 400):
        direction[0] = size
        verdict = judge.on_request(asked(base + direction))
        found.setdefault(verdict.action, verdict.measures["decades"])
    assert list(found) == [Action.ALLOW, Action.FLAG, Action.COARSEN, Action.HOLD, Action.REFUSE]
    assert found[Action.FLAG] >= 1
    assert found[Action.COARSEN] >= 2
    assert found[Action.HOLD] >= 3
    assert found[Action.REFUSE] >= 5
    assert rarity.of(1e9) == 1000


def test_a_step_of_nothing_never_follows():
    judge = guard(flag=0.0, coarsen=0.0, shrink=False)
    before, after = through(judge, np.full(64, 1e6), np.eye(8)[0])
    assert before.action is Action.ALLOW
    assert before.measures["decades"] > 100
    assert after is None


def test_what_is_said_stays_true_once_the_model_has_answered():
    net, parts = known_digits()
    row = parts["usual"][0][:1]
    wavering = np.full((1, 8), 1 / 8)
    before, after = through(guard(), row, wavering)
    assert after.measures["decades"] > before.measures["decades"]
    assert after.action >= Action.FLAG
    before, after = through(guard(), row, net.predict_proba(row))
    assert after is None  # nothing new


def test_confidence_falls_as_a_row_moves_away_and_the_answer_stays():
    base = known_digits()[1]["usual"][0][0].astype(np.float64)
    sure = np.array([0.001, 0.002, 0.99, 0.003, 0.001, 0.001, 0.001, 0.001])
    judge = guard(detector="neighbours", coarsen=0.0)
    seen = []
    for size in np.linspace(0, 20, 60):
        moved = base.copy()
        moved[0] += size
        _, after = through(judge, moved, sure)
        scores = sure if after is None or after.scores is None else after.scores[0]
        assert scores.argmax() == 2
        assert scores.sum() == pytest.approx(1)
        seen.append(scores[2])
    assert seen[0] == 0.99
    assert (np.diff(seen) <= 1e-12).all()
    assert seen[-1] < 0.2
    _, after = through(guard(detector="neighbours", shrink=False), base + 20, sure)
    assert after is None


def test_only_rows_that_are_far_lose_confidence_in_a_batch():
    net, parts = known_digits()
    usual = parts["usual"][0]
    usual = usual[digits_reference().decades("combined", usual, net.predict_proba(usual)) < 1][:3]
    rows = np.concatenate([usual, np.ones((1, 64), np.float32)])
    scores = net.predict_proba(rows)
    _, after = through(guard(), rows, scores)
    np.testing.assert_allclose(after.scores[:3], scores[:3])
    assert after.scores[3].max() < scores[3].max()


def test_a_row_with_a_gap_is_never_usual():
    row = known_digits()[1]["usual"][0][0].copy()
    row[5] = np.nan
    judge = guard(refuse=0.001)
    for rows in (row, np.stack([row, row])):
        assert judge.on_request(asked(rows)).action is Action.REFUSE


def test_without_scores_the_answer_is_not_needed():
    judge = guard(scores=False, detector="neighbours")
    question = asked(np.ones(64))
    before = judge.on_request(question)
    question.measures["outliers.decades"] = before.measures["decades"]
    assert before.action is Action.COARSEN
    assert judge.on_response(question, Answer(np.array([1]))) is None
    assert not guard(detector="neighbours", shrink=False).wants_scores
    assert guard().wants_scores


def test_what_waits_for_its_answer_is_bounded():
    judge = guard()
    for number in range(3 * MOST_PENDING):
        judge.on_request(asked(np.ones((2, 64)), request=str(number)))
    assert len(judge._pending) == MOST_PENDING
    question = asked(np.ones((2, 64)), request="0")  # forgotten: worked out anew
    said = judge.on_response(question, Answer(np.zeros(2, int), np.full((2, 8), 1 / 8)))
    assert said.action is Action.COARSEN


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"columns": 63}, "64 columns"),
        ({"classes": ("a", "b")}, "8 classes"),
        ({"scores": False}, "was not fitted"),
        ({"report": b"{}"}, "holds no reference"),
    ],
)
def test_a_reference_of_another_model_stops_the_gateway(said, match):
    with pytest.raises(ArtefactError, match=match):
        guard(**said)


@pytest.mark.parametrize(
    "said", [{"flag": -0.1}, {"flag": 0.9}, {"strangers": 0}, {"detector": "isolation"}, {"flags": 0.1}]
)
def test_settings_are_bounded(said):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(said, OutlierSettings)


def test_a_model_for_which_nothing_was_fitted_is_not_served():
    def fitted(check):
        raise ArtefactError(f"no statement of {check} stands")

    with pytest.raises(ArtefactError, match=r"gateway\.outliers"):
        OutlierGuard(OutlierSettings(), material(columns_of(64), classes=CLASSES, fitted=fitted))

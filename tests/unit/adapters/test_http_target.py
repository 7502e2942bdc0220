"""Served models as targets: every protocol against a real server, and servers that misbehave."""

from __future__ import annotations

import contextlib
import email.utils
import time

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from bartizan.adapters.http_target import Endpoint, HttpTarget, endpoint_headers
from bartizan.core.errors import BudgetError, InputError, WorkError
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.play import play, task_of
from bartizan.targets.protocol import Access
from fixtures.model_servers import ok, rows_of, serving
from fixtures.victims import Victim, space_around

ROWS, LABELS = load_iris(return_X_y=True)
MODEL = LogisticRegression(max_iter=500).fit(ROWS[::2], LABELS[::2])
NAMES = ("setosa", "versicolor", "virginica")
COLUMNS = ("a", "b", "c", "d")


def named(rows):
    return [NAMES[label] for label in MODEL.predict(rows)]


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def oip(path, body):
    """The Open Inference Protocol, with the label and the scores, these flat and rounded to two decimals."""
    if body is None:
        return ok({"name": "iris", "inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}]})
    assert path == "/v2/models/iris/infer"
    rows = rows_of(body)
    scores = MODEL.predict_proba(rows).round(2)
    label = [NAMES[place] for place in scores.argmax(axis=1)]
    return ok(
        {
            "model_name": "iris",
            "outputs": [
                tensor("label", "BYTES", [len(rows)], label),
                tensor("scores", "FP64", list(scores.shape), scores.ravel().tolist()),
            ],
        }
    )


def plain(_path, body):
    return ok({"predictions": MODEL.predict_proba(rows_of(body)).tolist()})


def mlflow(_path, body):
    assert body["dataframe_split"]["columns"] == list(COLUMNS)
    return ok({"predictions": MODEL.predict(rows_of(body)).tolist()})


def ranking(_path, body):
    """Only the two likeliest classes, by name."""
    best = []
    for row in MODEL.predict_proba(rows_of(body)):
        top = np.argsort(-row)[:2]
        best.append({NAMES[place]: float(row[place]) for place in top})
    return ok(best)


@pytest.fixture
def target_at():
    """Makes targets, and closes them."""
    with contextlib.ExitStack() as stack:

        def made(url, *, sleep=lambda _: None, **more):
            endpoint = Endpoint(url=url, classes=NAMES, columns=COLUMNS, **more)
            return stack.enter_context(contextlib.closing(HttpTarget(endpoint, probe=ROWS, sleep=sleep)))

        yield made


@pytest.mark.parametrize(
    ("answer", "path", "speaks", "scores"),
    [
        (oip, "/v2/models/iris", "oip", 0.006),
        (plain, "/predict", "json", 1e-12),
        (mlflow, "/invocations", "mlflow", None),
        (ranking, "/rank", "json", 0.35),
    ],
)
def test_each_protocol_gives_labels_and_the_detail_that_there_is(target_at, answer, path, speaks, scores):
    with serving(answer) as (url, _):
        target = target_at(url + path, speaks=speaks)
        assert target.labels(ROWS).tolist() == MODEL.predict(ROWS).tolist()
        assert target.labels(ROWS[:0]).shape == (0,)
        assert (Access.SCORES in target.offers) == (scores is not None)
        if scores is not None:
            assert np.abs(target.scores(ROWS) - MODEL.predict_proba(ROWS)).max() < scores
            assert target.scores(ROWS[:0]).shape == (0, 3)
        else:
            with pytest.raises(WorkError, match="labels only"):
                target.scores(ROWS)
        with pytest.raises(WorkError, match="cannot be trained"):
            target.retrain(ROWS, LABELS, seed=0)


def test_an_attack_over_http_finds_what_it_finds_in_process_and_every_row_is_counted(target_at):
    task = task_of(
        ROWS[1:41:2],
        MODEL.predict(ROWS[1:41:2]),
        space=space_around(ROWS),
        classes=3,
        max_change=1.0,
        budget=120,
        starts=(ROWS[::2], LABELS[::2]),
    )
    here = play(Victim(MODEL), HopSkipJump(), task, seed=3)
    with serving(mlflow) as (url, asked):
        target = target_at(f"{url}/invocations", speaks="mlflow", most_rows=256)
        there = play(target, HopSkipJump(), task, seed=3)
        sent = sum(len(rows_of(body)) for _, body in asked)
    assert there.rows.tobytes() == here.rows.tobytes()
    assert target.sent == sent == 1 + there.ledger.queries + 2 * len(task.rows)
    assert there.ledger.spent.max() <= 120


def test_what_is_sent_again_is_counted_and_a_role_never_sends_more_than_it_may(target_at):
    failures = iter([False, True, False, True, True, False])

    def flaky(path, body):
        return (503, {}, b"busy") if next(failures, False) else mlflow(path, body)

    with serving(flaky) as (url, asked):
        target = target_at(f"{url}/invocations", speaks="mlflow", role_budget=60)
        target.labels(ROWS[:10])
        target.labels(ROWS[:10])
        assert (target.sent, target.resent) == (51, 30)
        assert sum(len(rows_of(body)) for _, body in asked) == 51
        with pytest.raises(BudgetError, match="9 of the 60 rows"):
            target.labels(ROWS[:10])
        assert sum(len(rows_of(body)) for _, body in asked) == 51


def test_a_server_that_asks_for_patience_gets_as_much_as_it_asks_and_no_more(target_at):
    pauses, headers = [], iter([{}, {"Retry-After": "7"}, {"RateLimit-Reset": "3"}, {}])

    def limited(path, body):
        said = next(headers, {})
        return (429, said, b"") if said else mlflow(path, body)

    with serving(limited) as (url, _):
        target = target_at(f"{url}/invocations", speaks="mlflow", sleep=pauses.append)
        assert target.labels(ROWS[:2]).tolist() == MODEL.predict(ROWS[:2]).tolist()
    assert pauses == [7.0, 3.0]


def test_a_reset_that_is_too_far_away_is_said(target_at):
    later = email.utils.formatdate(time.time() + 200, usegmt=True)
    with (
        serving(lambda _path, _body: (429, {"Retry-After": later}, b"")) as (url, _),
        pytest.raises(WorkError, match=r"again in (19\d|200)(\.\d+)? s only"),
    ):
        target_at(f"{url}/invocations", speaks="mlflow")


def scores_of(change):
    def answer(_path, body):
        scores = MODEL.predict_proba(rows_of(body))
        return ok({"predictions": change(scores)})

    return answer


LYING = {
    "NaN": (lambda _p, _b: (200, {}, b'{"predictions": [[NaN, 0, 0]]}'), "no JSON"),
    "no JSON": (lambda _p, _b: (200, {}, b"<html>"), "no JSON"),
    "nested without end": (lambda _p, _b: (200, {}, b"[" * 100_000), "no JSON"),
    "null": (scores_of(lambda s: [[None] * 3] * len(s)), "no numbers|no probabilities"),
    "one row too few": (scores_of(lambda s: s.tolist()[1:]), "are due|with 0 labels"),
    "one class too few": (scores_of(lambda s: s[:, 1:].tolist()), "are due"),
    "ragged": (
        scores_of(lambda s: [row[: 1 + place % 2] for place, row in enumerate(s.tolist())]),
        "are due|no numbers|different",
    ),
    "no probabilities": (scores_of(lambda s: (s * 3).tolist()), "no probabilities"),
    "negative": (scores_of(lambda s: (s - 0.5).tolist()), "no probabilities"),
    "unknown class": (lambda _p, b: ok({"predictions": ["rose"] * len(rows_of(b))}), "a class 'rose'"),
    "index out of range": (lambda _p, b: ok({"predictions": [7] * len(rows_of(b))}), "a class '7'"),
    "a text": (lambda _p, _b: ok({"predictions": "setosa"}), "no list of predictions"),
    "nothing": (lambda _p, _b: ok({}), "no list of predictions"),
    "refused": (lambda _p, _b: (400, {}, b"bad \x1b[31mrequest"), "status 400: bad  "),
    "moved": (lambda _p, _b: (302, {"Location": "http://169.254.169.254/"}, b""), "status 302"),
    "hung up": (lambda _p, _b: (0, {}, b""), "does not answer"),
}


@pytest.mark.parametrize("name", LYING)
def test_an_answer_that_cannot_be_true_is_an_error_with_a_name(target_at, name):
    answer, words = LYING[name]
    with serving(answer) as (url, _), pytest.raises(WorkError, match=words) as error:
        target_at(f"{url}/predict", speaks="json", retries=1).labels(ROWS[:4])
    assert "\x1b" not in str(error.value)


def test_scores_that_contradict_the_label_beside_them_are_a_lie(target_at):
    def lying(path, body):
        status, headers, data = oip(path, body)
        return status, headers, data.replace(b'"setosa"', b'"virginica"')

    with serving(lying) as (url, _), pytest.raises(WorkError, match="contradict the label"):
        target_at(f"{url}/v2/models/iris")


def test_a_server_that_never_answers_costs_the_time_that_it_is_given(target_at):
    release = []

    def asleep(_path, _body):
        while not release:
            time.sleep(0.01)
        return ok({})

    with serving(asleep) as (url, asked):
        with pytest.raises(WorkError, match="does not answer \\(3 attempts\\)"):
            target_at(f"{url}/predict", speaks="json", seconds=0.1, retries=2)
        assert len(asked) == 3
        release.append(True)


@pytest.mark.parametrize("url", ["http://192.0.2.7:80/x", "http://[2001:db8::1]/x"])
def test_other_machines_are_not_asked_without_leave(target_at, url):
    with pytest.raises(InputError, match="another machine") as error:
        target_at(url)
    assert "--allow-remote" in error.value.remedy


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "127.0.0.1:80", "http://user:x@127.0.0.1/", "http://127.0.0.1:99999/x", ""]
)
def test_what_is_no_address_is_said(target_at, url):
    with pytest.raises(InputError):
        target_at(url)


def test_headers_are_read_or_refused():
    assert endpoint_headers(["Authorization: Bearer x:y"]) == {"Authorization": "Bearer x:y"}
    for bad in ("no colon", ": x", "A: b\r\nC: d"):
        with pytest.raises(InputError):
            endpoint_headers([bad])

"""Served models as targets: every protocol against a real server, and servers that misbehave."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import threading
import time

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from bartizan.adapters.http_target.endpoint import Endpoint, endpoint_headers
from bartizan.adapters.http_target.target import HttpTarget
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
    again = 2 * 2 * len(task.rows)  # the samples and what was found for them, twice: does it answer at random?
    assert target.sent == sent == 1 + there.ledger.queries + again
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


def test_a_server_that_refuses_without_end_and_asks_for_no_pause_is_not_asked_without_end(target_at):
    pauses, refusals = [], iter(range(100))

    def refusing(path, body):
        return mlflow(path, body) if next(refusals, None) is None else (429, {"Retry-After": "0"}, b"")

    with serving(refusing) as (url, asked):
        with pytest.raises(WorkError, match="9 times refused"):
            target_at(f"{url}/invocations", speaks="mlflow", sleep=pauses.append)
        assert len(asked) == 9
    assert pauses == [0.2 * 2**times for times in range(8)]
    assert sum(pauses) < 60


@contextlib.contextmanager
def dripping(head, pause=0.03, drops=400):
    """A server that answers any request with ``head`` at once and then a blank now and then; counts them."""
    sent, over = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(head)
                        for _ in range(drops):
                            connection.sendall(b" ")
                            sent.append(1)
                            if over.wait(pause):
                                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", sent
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX:"])
def test_the_time_of_a_request_runs_out_however_slowly_its_answer_drips(target_at, head):
    with dripping(head) as (url, sent), pytest.raises(WorkError, match=r"\(2 attempts\): TimeoutError"):
        target_at(f"{url}/predict", speaks="json", seconds=0.25, retries=1)
    assert 2 <= len(sent) <= 200, "each drop alone comes in time; all of them take 12 seconds"


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


HUGE = b"9" * 400
IMPOSSIBLE = {
    "negative sides": ([-1, -4], [0] * 4, "no shape of one or two sides"),
    "no side": ([], [0], "no shape of one or two sides"),
    "many sides": ([1] * 70, [0], "no shape of one or two sides"),
    "true for a side": ([True], [0], "no shape of one or two sides"),
    "a name of numbers": ([1], [10**400], "a class '9{0}1000"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_tensor_that_cannot_be_one_is_an_error_with_a_name(target_at, name):
    shape, data, words = IMPOSSIBLE[name]

    def lying(_path, _body):
        return ok({"outputs": [tensor("predict", "INT64", shape, data)]})

    with serving(lying) as (url, _), pytest.raises(WorkError, match=words):
        target_at(f"{url}/v2/models/iris", inputs="x")


@pytest.mark.parametrize(
    "answer",
    [
        b'{"predictions": [[%b]]}' % HUGE,
        b'{"predictions": [{"no": %b}]}' % HUGE,
        b'{"predictions": [[1, %b]]}' % HUGE,
        b'{"predictions": [%b]}' % HUGE,
        b'{"predictions": [[true]]}',
        b'{"predictions": [[[%b]]]}' % HUGE,
    ],
)
def test_numbers_that_nobody_can_compute_with_are_errors_with_a_name(answer):
    endpoint = {"classes": ("no", "yes"), "columns": ("a",), "speaks": "json"}
    with serving(lambda _path, _body: (200, {}, answer)) as (url, _), pytest.raises(WorkError):
        HttpTarget(Endpoint(url=url, **endpoint))


@pytest.mark.parametrize(
    ("name", "classes", "datatype", "data", "labels"),
    [
        ("predict", ("no", "yes"), "INT64", [0, 1, 1], [0, 1, 1]),
        ("output_0", ("no", "yes"), "INT64", [0, 1, 1], [0, 1, 1]),
        ("output_0", ("no", "yes"), "BYTES", ["yes", "no", "yes"], [1, 0, 1]),
        ("output_0", ("no", "yes"), "FP32", [0.2, 0.9, 0.4], [0, 1, 0]),
        ("output_0", ("no", "yes", "perhaps"), "BYTES", ["perhaps", "no", "yes"], [2, 0, 1]),
    ],
)
def test_labels_may_stand_in_a_column(name, classes, datatype, data, labels):
    def column(_path, body):
        count = len(rows_of(body))
        return ok({"outputs": [tensor(name, datatype, [count, 1], data[:count])]})

    with serving(column) as (url, _):
        endpoint = Endpoint(url=url, classes=classes, columns=("a",), inputs="x")
        with contextlib.closing(HttpTarget(endpoint)) as target:
            assert target.labels(np.zeros((3, 1))).tolist() == labels


def test_what_follows_a_question_mark_is_sent_along(target_at):
    with serving(plain) as (url, asked):
        target_at(f"{url}/predict?version=7&key=a%20b", speaks="json")
        assert {path for path, _ in asked} == {"/predict?version=7&key=a%20b"}

    def versioned(path, body):
        assert path in {"/v2/models/iris?version=7", "/v2/models/iris/infer?version=7"}
        return oip(path.partition("?")[0], body)

    with serving(versioned) as (url, asked):
        target_at(f"{url}/v2/models/iris?version=7").labels(ROWS[:2])
        assert len(asked) == 3


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
    "url",
    [
        "ftp://127.0.0.1/x",
        "127.0.0.1:80",
        "http://user:x@127.0.0.1/",
        "http://127.0.0.1:99999/x",
        "",
        "http://127.0.0.1/a b",
    ],
)
def test_what_is_no_address_is_said(target_at, url):
    with pytest.raises(InputError):
        target_at(url)


def test_headers_are_read_or_refused():
    assert endpoint_headers(["Authorization: Bearer x:y"]) == {"Authorization": "Bearer x:y"}
    for bad in ("no colon", ": x", "A: b\r\nC: d", "two words: x", "A: \u0142"):
        with pytest.raises(InputError):
            endpoint_headers([bad])

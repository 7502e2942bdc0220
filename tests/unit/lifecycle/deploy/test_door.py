"""The door, its schedule and the application in front of it, without a socket."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import SandboxError, StoreError, WorkError
from bartizan.lifecycle.deploy.gateway import application, asgi, schedule
from bartizan.lifecycle.deploy.gateway.admission import Admission, Finding
from bartizan.lifecycle.deploy.gateway.admittance import Admittance, rights
from bartizan.lifecycle.deploy.gateway.answering import Desk
from bartizan.lifecycle.deploy.gateway.application import DIGEST_HEADER, Application
from bartizan.lifecycle.deploy.gateway.asgi import Bodies
from bartizan.lifecycle.deploy.gateway.front import Front
from bartizan.lifecycle.deploy.gateway.guard import Answer
from bartizan.lifecycle.deploy.gateway.identity.chain import Chain
from bartizan.lifecycle.deploy.gateway.model_settings import ModelSettings
from bartizan.lifecycle.deploy.gateway.policy import Policy
from bartizan.lifecycle.deploy.gateway.protocol import MAX_BODY_BYTES, Description
from bartizan.lifecycle.deploy.gateway.roles import RoleSettings, resolve
from bartizan.lifecycle.deploy.gateway.schedule import Door, Remembered, Schedule, Served, alerts, worth_recording
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes
from bartizan.lifecycle.deploy.gateway.tailoring import Tailoring
from fixtures.world import START

BODY = b'{"inputs":[{"name":"features","shape":[1,2],"datatype":"FP64","data":[1,2]}]}'


def admission(what="model", *, met=True, reason="because"):
    finding = Finding(condition="signature", artefact="model:m", met=met, reason=reason)
    return Admission(model="model:m", inputs={"model:m": digest_bytes(what.encode())}, findings=(finding,), at=START)


class Model:
    """A model that may be made to fail. See ``hosting.Host``."""

    dtype, features, classes, scored, alive = np.dtype("<f8"), 2, 2, False, True
    error: Exception | None = None

    def __init__(self):
        self.closed = 0
        self.asked = 0

    def answer(self, rows, *, scores):  # noqa: ARG002
        self.asked += 1
        if self.error:
            raise self.error
        return Answer(np.zeros(len(rows), dtype=np.int64))

    def close(self):
        self.closed += 1


class Works:
    """Finds what it is told, and writes down what was done."""

    def __init__(self):
        self.finds = admission()
        self.models = []
        self.recorded = []
        self.confirmed = 0
        self.open_error = self.record_error = self.confirm_error = None

    def examine(self):
        return self.finds

    def open(self, found):
        if self.open_error:
            raise self.open_error
        self.models.append(Model())
        return Served(Description(name="m", digest=found.digest, features=2, classes=("no", "yes")), self.models[-1])

    def confirm(self, found):  # noqa: ARG002
        if self.confirm_error:
            raise self.confirm_error
        self.confirmed += 1

    def record(self, found):
        if self.record_error:
            raise self.record_error
        self.recorded.append(found)


class Log:
    """Keeps records in a list."""

    durable = True
    error: Exception | None = None

    def __init__(self):
        self.records = []

    def append(self, record, content=None):  # noqa: ARG002
        if self.error:
            raise self.error
        self.records.append(record)

    def keyed(self, content):
        return digest_bytes(content)[:8]

    async def close(self):
        pass


class Scene:
    """A door with its schedule and application, and a clock that stands still."""

    def __init__(self, fallback="none"):
        self.works, self.time, self.log = Works(), 0.0, Log()
        self.door = Door(admission(met=False), 100, lambda: self.time)
        self.schedule = Schedule(self.works, self.door, seconds=1)
        roles = resolve({"anonymous": RoleSettings(operations=("infer", "metadata"))})
        front = Front(
            configuration=digest_bytes(b"configuration"),
            callers=Chain([], anonymous=True),
            policy=Admittance(Policy({name: rights(role) for name, role in roles.items()}), roles),
            log=self.log,
            teller=Tailoring({"m": ("no", "yes")}, b"k" * 32),
        )
        self.lanes = Lanes({"m": Lane("m", self.door, ModelSettings(fallback=fallback))})
        self.bodies = Bodies(MAX_BODY_BYTES, 0.05)
        desk = Desk(self.lanes, self.bodies)
        self.application = Application(lambda: front, desk.handlers(), desk.model_of)

    def verify(self):
        async def verified():
            await self.schedule.once()
            await self.schedule.drained()

        asyncio.run(verified())
        return self.door.reason

    def ask(self, method="POST", path="/v2/models/m/infer", parts=(BODY,), **headers):
        return asyncio.run(self._ask(self.scope(method, path, **headers), list(parts)))

    def scope(self, method, path, **headers):
        headers = {"content-type": "application/json", **headers}
        return {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }

    async def _ask(self, scope, parts):
        sent = []

        async def receive():
            if not parts:
                return {"type": "http.disconnect"}
            part = parts.pop(0)
            if part is None:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message):
            sent.append(message)

        watch = asyncio.create_task(self.bodies.watch())
        await self.application(scope, receive, send)
        watch.cancel()
        start, body = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, json.loads(body["body"])


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.schedule.close()


@pytest.fixture
def serving(scene):
    assert scene.verify() == ""
    return scene


def test_the_door_is_shut_until_everything_was_verified(scene):
    assert scene.ask()[0] == 503
    assert scene.verify() == ""
    status, headers, answer = scene.ask()
    assert (status, answer["outputs"][0]["data"]) == (200, ["no"])
    assert headers[DIGEST_HEADER] == f"sha256:{digest_bytes(b'model')}"
    assert answer["model_version"] == digest_bytes(b"model")


def test_what_fails_is_taken_out_and_comes_back_only_verified(serving):
    first = serving.works.models[0]
    serving.works.finds = admission("altered", met=False, reason="nobody signed it")
    assert "nobody signed it" in serving.verify()
    assert first.closed == 1
    status, _, answer = serving.ask()
    assert (status, "nobody signed it" in answer["error"], first.asked) == (503, False, 0)
    assert "nobody signed it" in str(serving.log.records[-1].reasons)
    assert serving.ask("GET", "/v2/health/ready")[0] == 503
    assert serving.ask("GET", "/v2/health/live")[0] == 200
    serving.works.finds = admission()
    assert serving.verify() == ""
    assert (len(serving.works.models), serving.ask()[0]) == (2, 200)
    assert [item.admitted for item in serving.works.recorded] == [True, False, True]


def test_what_is_verified_again_stays_open_without_being_loaded_again(serving):
    assert serving.verify() == serving.verify() == ""
    assert (len(serving.works.models), serving.works.confirmed) == (1, 2)


def test_what_cannot_be_confirmed_is_out_of_service(serving):
    serving.works.confirm_error = StoreError("the keys are out of reach")
    assert "the keys are out of reach" in serving.verify()
    assert serving.ask()[0] == 503


def test_nothing_is_answered_that_cannot_be_recorded(serving):
    serving.log.error = StoreError("the disk is full")
    status, _, answer = serving.ask()
    assert (status, answer) == (503, {"error": "not now"})
    serving.log.error = None
    assert serving.ask()[0] == 200


def test_a_rule_stands_in_for_a_model_that_is_out(serving):
    serving.lanes.find("m").settings = ModelSettings(fallback="rule:yes")
    assert serving.ask()[2]["outputs"][0]["data"] == ["no"]
    serving.works.models[0].error = SandboxError("the process died")
    for _ in range(2):
        status, _, answer = serving.ask()
        assert (status, answer["outputs"][0]["data"]) == (200, ["yes"])
        assert answer["parameters"]["answered_by"] == "fallback"
        assert serving.log.records[-1].source == "fallback"
    assert serving.verify() == ""
    assert serving.ask()[2]["outputs"][0]["data"] == ["no"]


def test_a_switch_drops_no_request(serving):
    """What is on its way through the old model is answered by it; it is closed afterwards."""
    old = serving.works.models[0]

    async def switched():
        going, gone = asyncio.Event(), asyncio.Event()

        async def slowly(rows, *, scores):
            going.set()
            await gone.wait()
            return Answer(np.ones(len(rows), dtype=np.int64))

        old.answer = lambda rows, *, scores: slowly(rows, scores=scores)
        asked = asyncio.create_task(serving._ask(serving.scope("POST", "/v2/models/m/infer"), [BODY]))
        await going.wait()
        serving.works.finds = admission("newer")
        await serving.schedule.once()
        assert (serving.door.digest, old.closed) == (digest_bytes(b"newer"), 0)
        gone.set()
        status, _, answer = await asked
        await serving.schedule.drained()
        return status, answer["model_version"], answer["outputs"][0]["data"]

    assert asyncio.run(switched()) == (200, digest_bytes(b"model"), ["yes"])
    assert old.closed == 1


def test_another_admitted_model_replaces_the_one_before(serving):
    serving.works.finds = admission("newer")
    assert serving.verify() == ""
    assert (serving.works.models[0].closed, serving.door.digest) == (1, digest_bytes(b"newer"))
    assert serving.ask("GET", f"/v2/models/m/versions/{digest_bytes(b'model')}")[0] == 404
    assert serving.ask("GET", f"/v2/models/m/versions/{digest_bytes(b'newer')}")[0] == 200


def test_what_cannot_be_recorded_is_not_served(serving):
    serving.works.record_error = StoreError("the disk is full")
    assert "the disk is full" in serving.verify()
    assert serving.works.models[0].closed == 1
    serving.works.record_error = None
    assert serving.verify() == ""
    serving.works.finds, serving.works.record_error = admission("newer"), StoreError("the disk is full")
    assert "the disk is full" in serving.verify()
    assert [model.closed for model in serving.works.models] == [1, 1, 1]


def test_what_cannot_be_opened_leaves_the_door_shut(scene):
    scene.works.open_error = SandboxError("it hangs")
    assert "opening (model:m): it hangs" in scene.verify()
    scene.works.open_error = None
    assert scene.verify() == ""


def test_a_verification_that_does_not_end_shuts_the_door(serving):
    serving.time = 101.0
    assert serving.ask()[0] == 503
    assert "last verified 101 seconds ago" in serving.door.reason
    assert serving.verify() == ""
    assert serving.ask()[0] == 200


def test_a_model_whose_process_dies_is_out_until_it_was_opened_anew(serving):
    serving.works.models[0].error = SandboxError("the process died")
    assert serving.ask()[0] == 503
    assert serving.door.wake.is_set()
    assert (serving.ask()[0], serving.works.models[0].asked) == (503, 1)
    assert serving.verify() == ""
    assert serving.ask()[0] == 200
    assert [model.closed for model in serving.works.models] == [1, 0]


def test_an_answer_that_was_overtaken_by_a_refusal_is_not_given(serving, monkeypatch):
    model = serving.works.models[0]

    def overtaken(rows, *, scores):
        serving.door.move(admission(met=False), None)
        return Answer(np.zeros(len(rows), dtype=np.int64))

    monkeypatch.setattr(model, "answer", overtaken)
    status, _, answer = serving.ask()
    assert (status, "outputs" in answer) == (503, False)


def test_rows_that_the_model_cannot_take_cost_only_their_request(serving):
    serving.works.models[0].error = WorkError("ValueError in /secret/path")
    status, _, answer = serving.ask()
    assert (status, "secret" in str(answer)) == (422, False)
    serving.works.models[0].error = None
    assert serving.ask()[0] == 200


def test_a_mistake_of_ours_shows_no_traceback(serving):
    serving.works.models[0].error = RuntimeError("secret")
    status, _, answer = serving.ask()
    assert (status, "secret" in str(answer), "RuntimeError" in str(answer)) == (500, False, False)
    assert serving.log.records[-1].decision == "failed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/", 200),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/m/weights", 404),
        ("GET", "/v2/models/m/versions/0000", 404),
        ("GET", "/../v2", 404),
        ("GET", "/" + "x" * 10_000, 404),
        ("GET", "/v2/models/m/infer", 405),
        ("POST", "/v2/health/ready", 405),
        ("DELETE", "/v2/models/m", 405),
        ("GET", "/v2/models/m", 200),
        ("GET", "/v2/models/m/ready", 200),
    ],
)
def test_routes(serving, method, path, status):
    answered, headers, answer = serving.ask(method, path)
    assert answered == status
    assert ("error" in answer) == (status >= 400)
    assert ("allow" in headers) == (status == 405)


@pytest.mark.parametrize(
    ("headers", "parts", "status"),
    [
        ({"content-type": "text/plain"}, (BODY,), 415),
        ({"content-encoding": "gzip"}, (BODY,), 415),
        ({"inference-header-content-length": "3"}, (BODY,), 400),
        ({"content-type": "application/octet-stream"}, (BODY,), 200),
        ({}, (b" " * (MAX_BODY_BYTES // 2 + 1),) * 2, 413),
        ({}, (), 400),
        ({}, (b"{",), 400),
        ({"content-type": "application/json; charset=utf-8"}, (BODY[:9], BODY[9:]), 200),
    ],
)
def test_requests_are_bounded(serving, headers, parts, status):
    assert serving.ask(parts=parts, **headers)[0] == status


def test_a_request_that_trickles_is_given_up(serving, monkeypatch):
    monkeypatch.setattr(asgi, "TICK_SECONDS", 0.02)
    assert serving.ask(parts=(BODY[:9], None))[0] == 408


def test_more_requests_than_can_wait_are_told_to_come_again(serving, monkeypatch):
    monkeypatch.setattr(application, "MOST_OF_ONE", 0)
    status, headers, _ = serving.ask()
    assert (status, headers["retry-after"]) == (503, "1")


def test_the_schedule_goes_on_by_itself_and_is_woken(scene, monkeypatch):
    monkeypatch.setattr(schedule, "LEAST_PAUSE_SECONDS", 0.01)

    once, times, done = scene.schedule.once, [], asyncio.Event()

    async def breaks_at_first():
        times.append(1)
        if len(times) == 1:
            scene.door.wake.set()
            raise RuntimeError
        await once()
        done.set()

    async def live():
        running = asyncio.create_task(scene.schedule.run())
        scene.door.wake.set()
        await done.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    monkeypatch.setattr(scene.schedule, "once", breaks_at_first)
    asyncio.run(asyncio.wait_for(live(), 30))
    assert scene.door.reason == ""


def test_a_state_is_recorded_when_it_changes_and_once_a_day():
    good, bad = admission(), admission(met=False)
    last = Remembered(alerts(good), good.inputs, START)
    assert worth_recording(None, good)
    assert not worth_recording(last, good)
    assert worth_recording(last, bad)
    assert worth_recording(last, admission("other"))
    assert not worth_recording(last, msgspec.structs.replace(good, at=START + timedelta(hours=23)))
    assert worth_recording(last, msgspec.structs.replace(good, at=START + timedelta(days=1)))

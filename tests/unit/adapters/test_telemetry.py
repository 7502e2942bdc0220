"""What operators see: numbers, events, alerts and traces, and what none of them may hold."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from bartizan.adapters.telemetry.lines import Lines
from bartizan.adapters.telemetry.otlp import Collector
from bartizan.adapters.telemetry.prometheus import Exposition
from bartizan.adapters.telemetry.webhooks import Webhook
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.audit.record import Record, Ruling
from bartizan.lifecycle.deploy.gateway.telemetry import counters as counting
from bartizan.lifecycle.deploy.gateway.telemetry.counters import BOUNDS, Counters, Gauge
from bartizan.lifecycle.deploy.gateway.telemetry.events import kind_of, of_record, of_state
from bartizan.lifecycle.deploy.gateway.telemetry.port import Telemetry
from bartizan.lifecycle.deploy.gateway.telemetry.rate import Rate
from bartizan.lifecycle.deploy.gateway.telemetry.settings import TelemetrySettings, WebhookSettings
from bartizan.wiring.gateway_telemetry import telemetry_of
from fixtures.upstreams import asgi, bare

SECRET = bytes(range(32))


def record(**more):
    base = {
        "id": "0018-a-1",
        "at": 1_700_000_000_000_000_000,
        "caller": "key:k7f3a1",
        "role": "reader",
        "method": "key",
        "operation": "infer",
        "status": 200,
        "decision": "answered",
        "model": "tumour",
        "rows": 2,
        "microseconds": 250,
    }
    return Record(**{**base, **more})


FLAGGED = record(
    decision="coarsened",
    rulings=(Ruling(guard="ood", action="coarsen", reason="far away", measures={"distance": 9.0}),),
)
REFUSED = record(status=403, decision="refused", reasons=("the policy grants nothing",))


# ---- numbers


def families(counters, accept=""):
    kind, body = Exposition(counters).write(accept)
    read = openmetrics if "openmetrics" in kind else text_string_to_metric_families
    return {family.name: family for family in read(body.decode())}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_numbers_are_what_was_observed(accept):
    counters = Counters()
    for _ in range(3):
        counters.observed(record())
    counters.observed(REFUSED)
    counters.observed(FLAGGED)
    counters.happened("switch", "tumour")
    found = families(counters, accept)
    requests = {tuple(sorted(item.labels.items())): item.value for item in found["bartizan_requests"].samples}
    key = {"model": "tumour", "role": "reader", "operation": "infer"}
    assert requests[tuple(sorted({**key, "decision": "answered"}.items()))] == 3
    assert requests[tuple(sorted({**key, "decision": "refused"}.items()))] == 1
    (rows,) = found["bartizan_rows"].samples
    assert rows.value == 10
    verdict = found["bartizan_guard_verdicts"].samples[0]
    assert verdict.labels == {"guard": "ood", "action": "coarsen", "mode": "enforce"}
    assert found["bartizan_happened"].samples[0].labels == {"what": "switch", "to": "tumour"}


@given(st.lists(st.integers(0, 60_000_000), min_size=1, max_size=50))
def test_histogram_counts_each_duration_once(durations):
    counters = Counters()
    for duration in durations:
        counters.observed(record(microseconds=duration))
    samples = families(counters)["bartizan_request_duration_seconds"].samples
    buckets = {item.labels["le"]: item.value for item in samples if item.name.endswith("_bucket")}
    for bound in BOUNDS:
        found = [value for le, value in buckets.items() if float(le) == pytest.approx(bound * 1e-6)]
        assert found == [sum(duration <= bound for duration in durations)]
    assert buckets["+Inf"] == len(durations)
    total = next(item.value for item in samples if item.name.endswith("_sum"))
    assert total == pytest.approx(sum(durations) / 1e6)


def test_gauges_are_read_and_broken_ones_left_out():
    def broken():
        raise RuntimeError

    gauges = [
        Gauge(name="budget_remaining", help="Units left.", labels=("budget",), read=lambda: [(("daily",), 17)]),
        Gauge(name="audit_waiting", help="Records that wait.", read=broken),
    ]
    found = families(Counters(gauges))
    assert found["bartizan_budget_remaining"].samples[0].value == 17
    assert found["bartizan_audit_waiting"].samples == []


def test_nobody_can_make_up_series(monkeypatch):
    monkeypatch.setattr(counting, "MOST_SERIES", 10)
    counters = Counters()
    for number in range(1000):
        counters.observed(record(operation=f"made-up-{number}", caller=f"key:{number}"))
    found = counters.snapshot()
    assert len(found.requests) <= 11
    assert sum(found.requests.values()) == 1000
    assert len(found.durations) <= 11


def test_no_caller_is_in_the_numbers():
    counters = Counters()
    counters.observed(record(caller="key:private-person"))
    assert b"private-person" not in Exposition(counters).write()[1]


# ---- events


class Heard:
    each_second = 1000.0
    kinds = frozenset({"refused", "coarsened", "flagged", "admin", "state", "held", "throttled", "failed"})

    def __init__(self):
        self.events = []

    def tell(self, event, suppressed):
        self.events.append(json.loads(event.encoded(suppressed)))

    async def close(self):
        pass


def test_only_what_is_notable_is_told():
    heard = Heard()
    hub = Telemetry(Counters(), [heard])
    shadow = Ruling(guard="ood", action="refuse", shadow=True)
    measured = Ruling(guard="ood", action="allow", measures={"distance": 0.1})
    for item in (record(), record(rulings=(shadow,)), record(rulings=(measured,))):
        hub.observed(item)
    assert heard.events == []
    flag = record(rulings=(Ruling(guard="sequence", action="flag"),))
    for item in (REFUSED, FLAGGED, flag, record(operation="admin.key.add", model="")):
        hub.observed(item)
    hub.happened("switch", "tumour", "to version 2")
    classes = [item["class_uid"] for item in heard.events]
    assert classes == [6003, 2004, 2004, 3004, 6002]
    for item in heard.events:
        assert item["type_uid"] == item["class_uid"] * 100 + item["activity_id"]
        assert item["class_uid"] // 1000 == item["category_uid"]


@pytest.fixture(scope="module")
def ocsf():
    """Validators of the framework's own schema, by class."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.5.0"))
    names = {6003: "api_activity", 2004: "detection_finding", 3004: "entity_management", 6002: "application_lifecycle"}
    profiles = ["host", "security_control"]
    return {
        uid: jsonschema.Draft202012Validator(schema.get_class_schema(name, profiles)) for uid, name in names.items()
    }


def test_events_keep_to_the_schema_of_ocsf(ocsf):
    held = record(decision="held", status=202, rulings=(Ruling(guard="rules", action="hold"),))
    throttled = record(decision="throttled", status=429, model_digest="ab" * 32)
    made = [of_record(kind_of(item), item) for item in (REFUSED, FLAGGED, held, throttled)]
    made += [of_record("admin", record(operation=f"admin.key.{verb}")) for verb in ("add", "rotate")]
    made += [
        of_state(what, "tumour", 1.7e9, "why") for what in ("start", "stop", "switch", "withdrawn", "stepped down")
    ]
    for event in made:
        said = json.loads(event.encoded(7))
        assert said["metadata"]["version"] == "1.5.0"
        ocsf[said["class_uid"]].validate(said)


def test_events_say_who_what_and_why():
    said = json.loads(of_record("refused", REFUSED).encoded())
    assert said["actor"]["user"]["uid"] == "key:k7f3a1"
    assert said["api"]["operation"] == "infer"
    assert (said["status_id"], said["action_id"], said["disposition_id"]) == (2, 2, 2)
    assert said["unmapped"]["reasons"] == ["the policy grants nothing"]
    assert said["time"] == 1_700_000_000_000


def test_flood_is_cut_and_counted():
    now = [0.0]
    rate = Rate(1.0, lambda: now[0])
    told = [rate.take() for _ in range(1000)]
    assert sum(item is not None for item in told) == 10
    now[0] = 1.0
    assert rate.take() == 990
    assert rate.take() is None
    assert json.loads(of_state("switch", "tumour", 1.0).encoded(990))["count"] == 991


def test_a_listener_that_breaks_breaks_nothing_else():
    class Broken(Heard):
        def tell(self, event, suppressed):
            raise OSError(event.id, suppressed)

    heard = Heard()
    hub = Telemetry(Counters(), [Broken(), heard])
    hub.observed(REFUSED)
    assert len(heard.events) == 1


def wait_for(path):
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.01)


def test_lines_are_whole_and_follow_a_rotated_file(tmp_path):
    path = tmp_path / "events.jsonl"

    async def go():
        lines = Lines(str(path), 100.0)
        lines.tell(of_record("refused", REFUSED), 0)
        await asyncio.to_thread(wait_for, path)
        path.rename(tmp_path / "events.1")
        lines.tell(of_record("coarsened", FLAGGED), 3)
        await lines.close()

    asyncio.run(go())
    (old,) = (tmp_path / "events.1").read_text().splitlines()
    (new,) = path.read_text().splitlines()
    assert (json.loads(old)["class_uid"], json.loads(new)["count"]) == (6003, 4)


def test_lines_go_through_no_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        Lines(str(tmp_path / "link"), 1.0)


def test_full_disk_is_counted_and_holds_nothing_up():
    lost = []

    async def go():
        lines = Lines("/dev/full", 100.0, lambda: lost.append(1))
        for _ in range(5):
            lines.tell(of_record("refused", REFUSED), 0)
        await lines.close()

    asyncio.run(go())
    assert len(lost) == 5


# ---- webhooks


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("whsec_" + base64.b64encode(SECRET).decode() + "\n")
    return str(path)


class Receiver:
    def __init__(self, *statuses):
        self.statuses, self.got = list(statuses), []

    async def __call__(self, scope, receive, send):
        body = (await receive())["body"]
        self.got.append((dict(scope["headers"]), body))
        status = self.statuses.pop(0) if self.statuses else 204
        headers = [(b"location", b"/elsewhere")] if 300 <= status < 400 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def sent(receiver, secret, *events, lost=None, **more):
    async def go(url):
        settings = WebhookSettings(url=url, secret_file=secret, **more)
        hook = Webhook(settings, (lambda: lost.append(1)) if lost is not None else (lambda: None), first_pause=0.01)
        for event in events:
            hook.tell(event, 0)
        await asyncio.sleep(0.3)
        await hook.close()

    with asgi(receiver) as url:
        asyncio.run(go(f"{url}/hook"))


def test_message_is_signed_as_standard_webhooks_has_it(secret):
    receiver, began = Receiver(), int(time.time())
    sent(receiver, secret, of_record("held", record(decision="held", status=202)))
    ((headers, body),) = receiver.got
    message, at = headers[b"webhook-id"], headers[b"webhook-timestamp"]
    due = hmac.new(SECRET, message + b"." + at + b"." + body, hashlib.sha256).digest()
    assert headers[b"webhook-signature"] == b"v1," + base64.b64encode(due)
    assert began <= int(at) <= time.time()
    assert json.loads(body)["unmapped"]["decision"] == "held"


def test_message_is_tried_again_with_the_same_id(secret):
    receiver = Receiver(500, 503)
    sent(receiver, secret, of_record("held", FLAGGED))
    assert len(receiver.got) == 3
    assert len({headers[b"webhook-id"] for headers, _ in receiver.got}) == 1


def test_message_is_given_up_after_so_many_attempts(secret):
    receiver, lost = Receiver(*[500] * 50), []
    sent(receiver, secret, of_record("held", FLAGGED), lost=lost, attempts=3)
    assert (len(receiver.got), len(lost)) == (3, 1)


def test_redirects_are_not_followed(secret):
    receiver, lost = Receiver(*[307] * 9), []
    sent(receiver, secret, of_record("held", FLAGGED), lost=lost, attempts=2)
    assert (len(receiver.got), len(lost)) == (2, 1)


def test_receiver_that_is_gone_is_left_alone(secret):
    receiver, lost = Receiver(410), []
    sent(receiver, secret, *[of_record("held", FLAGGED)] * 4, lost=lost)
    assert len(receiver.got) == 1
    assert len(lost) == 4


def test_queue_is_bounded_while_the_receiver_sleeps(secret):
    async def sleeps(head, reader, writer):
        await asyncio.sleep(30)

    lost = []

    async def go():
        async with bare(sleeps) as (url, _):
            settings = WebhookSettings(url=url, secret_file=secret, waiting=3, seconds=0.2, attempts=1)
            hook = Webhook(settings, lambda: lost.append(1))
            for _ in range(10):
                hook.tell(of_record("held", FLAGGED), 0)
            assert len(lost) == 7
            await hook.close()

    asyncio.run(go())
    assert len(lost) == 10


@pytest.mark.parametrize(
    "url", ["http://siem.example/", "ftp://127.0.0.1/", "https://user:secret@siem.example/", "https://"]
)
def test_addresses_that_are_told_nothing(secret, url):
    with pytest.raises(InputError):
        Webhook(WebhookSettings(url=url, secret_file=secret))


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_secrets_that_are_none(tmp_path, text):
    (tmp_path / "secret").write_text(text)
    with pytest.raises(InputError):
        Webhook(WebhookSettings(url="https://siem.example/", secret_file=str(tmp_path / "secret")))


# ---- traces


class Backend:
    def __init__(self):
        self.spans, self.metrics, self.headers = [], [], []

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.headers.append(dict(scope["headers"]))
        if scope["path"] == "/v1/traces":
            self.spans.append(ExportTraceServiceRequest.FromString(body))
        else:
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_collector_gets_spans_and_numbers_and_nothing_private(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    (tmp_path / "key").write_text("Bearer collector-key\n")
    backend, counters = Backend(), Counters()

    async def go(url):
        settings = TelemetrySettings(collector=url, collector_key_file=str(tmp_path / "key"), traced=1.0)
        collector = Collector(settings, counters)
        for item in (record(), record(id="0018-a-2", status=503, decision="failed"), FLAGGED):
            counters.observed(item)
            collector.traced(item)
        await collector.close()

    with asgi(backend) as url:
        asyncio.run(go(url))
    spans = [span for sent in backend.spans for one in sent.resource_spans for s in one.scope_spans for span in s.spans]
    assert len(spans) == 3
    values = [{item.key: item.value for item in span.attributes} for span in spans]
    assert values[0]["bartizan.request.id"].string_value == "0018-a-1"
    assert spans[0].end_time_unix_nano - spans[0].start_time_unix_nano == 250_000
    assert spans[2].events[0].name == "ood"
    names = {
        m.name for sent in backend.metrics for r in sent.resource_metrics for s in r.scope_metrics for m in s.metrics
    }
    assert {"bartizan.requests", "bartizan.guard.verdicts"} <= names
    assert all(headers[b"authorization"] == b"Bearer collector-key" for headers in backend.headers)
    assert b"k7f3a1" not in b"".join(sent.SerializeToString() for sent in (*backend.spans, *backend.metrics))


def test_share_of_answered_requests_is_traced_and_every_other_one():
    async def nothing(head, reader, writer):
        await asyncio.sleep(0)

    async def go():
        async with bare(nothing) as (url, _):
            collector = Collector(TelemetrySettings(collector=url, traced=0.0), Counters())
            started = []
            collector._tracer = type("T", (), {"start_span": lambda *_, **__: started.append(1) or Quiet()})()
            for _ in range(100):
                collector.traced(record())
            collector.traced(REFUSED)
            await collector.close()
            return len(started)

    class Quiet:
        def __getattr__(self, name):
            return lambda *_, **__: None

    assert asyncio.run(go()) == 1


# ---- together


def test_what_is_not_declared_is_not_loaded(tmp_path):
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    script = (
        "import sys; from pathlib import Path; from bartizan.wiring.gateway_telemetry import telemetry_of;"
        "from bartizan.lifecycle.deploy.gateway.telemetry.counters import Counters;"
        "from bartizan.lifecycle.deploy.gateway.telemetry.settings import TelemetrySettings;"
        "telemetry_of(TelemetrySettings(), Counters(), Path());"
        "print([name for name in ('aiohttp', 'opentelemetry', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_together(tmp_path, secret):
    receiver = Receiver()
    events = tmp_path / "events.jsonl"

    async def go(url):
        hook = WebhookSettings(url=url, secret_file=secret, kinds=("refused",))
        counters = Counters()
        observed = telemetry_of(TelemetrySettings(events=str(events), webhook=(hook,)), counters, tmp_path)
        observed.observed(record())
        observed.observed(REFUSED)
        await asyncio.sleep(0.2)
        await observed.close()
        return Exposition(counters).write()[1]

    with asgi(receiver) as url:
        body = asyncio.run(go(url))
    assert b'decision="refused"' in body
    assert b"process_resident_memory_bytes" in body
    assert len(events.read_text().splitlines()) == len(receiver.got) == 1

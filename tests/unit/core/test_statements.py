"""Statements: one byte form, schemas that other people's validators accept, and hostile input."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core import envelope, predicates, statement
from bartizan.core.digest import ManifestEntry, canonical_json, digest_bytes, manifest_root, parse_digest
from bartizan.core.errors import BartizanError, EnvelopeError, InputError, StatementError
from bartizan.core.schemas import statement_schema
from fixtures.world import World

SCHEMAS = Path(__file__).parents[3] / "docs" / "reference" / "schemas"
PINNED = Path(__file__).parents[2] / "assets" / "statements.jsonl"
THEN = datetime(2026, 11, 21, 12, tzinfo=UTC)
DIGEST = digest_bytes(b"a model")
RESOURCE = predicates.Resource(digest={"sha256": DIGEST}, name="report", media_type="application/json")
METRIC = predicates.Metric(value=0.5, low=0.4, high=0.6, n=100, method="wilson")
RESULT = {
    "check": predicates.CheckRef(name="c", version="1"),
    "inputs": (predicates.Input.of("model:m", DIGEST),),
    "report": RESOURCE,
    "performed_at": THEN,
}

EXAMPLES = {
    predicates.MODEL_SIGNATURE: predicates.ModelSignature(
        resources=({"name": "a", "digest": DIGEST, "algorithm": "sha256"},), serialization={"method": "files"}
    ),
    predicates.PROVENANCE: predicates.Provenance(
        build_definition={"buildType": "urn:x", "resolvedDependencies": [{"digest": {"sha256": DIGEST}}]},
        run_details={},
    ),
    predicates.TEST_RESULT: predicates.TestResult(result="PASSED", configuration=(RESOURCE,), **RESULT),
    predicates.REFERENCE: predicates.Reference(attester={"id": "urn:x"}, references=(RESOURCE,), kind="k", **RESULT),
    predicates.VERDICT: predicates.Verdict(
        verifier=predicates.Verifier(id="urn:x"),
        time_verified=THEN,
        resource_uri="model:m",
        policy=predicates.Policy(uri="p", digest={"sha256": DIGEST}),
        input_attestations=(RESOURCE,),
        verification_result="PASSED",
        gate="release",
        valid_until=THEN,
    ),
    predicates.BOM: predicates.Bom(bom_format="CycloneDX", spec_version="1.7", components=({"name": "a"},), **RESULT),
    predicates.VULNERABILITIES: predicates.Vulnerabilities(scanner={"uri": "urn:x"}, result="PASSED", **RESULT),
    predicates.CARD: predicates.Card(kind="model", name="m", owner="o@example.org", facts={"a": 1}, **RESULT),
    predicates.ASSESSMENT: predicates.Assessment(
        method="m",
        summary="s",
        metrics={"a": METRIC},
        threat=predicates.Threat(position="user", access=("labels",)),
        **RESULT,
    ),
    predicates.DECISION: predicates.Decision(kind="approval", outcome="yes", reason="r", role="owner", expires=THEN),
    predicates.DEPLOYMENT: predicates.Deployment(action="activate", place="ward 3", verdict=RESOURCE),
    predicates.OBSERVATION: predicates.Observation(
        kind="drift", observed_from=THEN, observed_until=THEN, metrics={"a": METRIC}
    ),
    predicates.INCIDENT: predicates.Incident(kind="incident", state="open", severity="high", summary="s"),
    predicates.RETIREMENT: predicates.Retirement(action="destroy", method="m", copy="c", verification="v"),
    predicates.REVOCATION: predicates.Revocation(target="key", effective_from=THEN, reason="r"),
}


def test_every_known_type_has_an_example_here():
    assert EXAMPLES.keys() == predicates.KNOWN.keys()


@pytest.mark.parametrize("kind", predicates.KNOWN, ids=predicates.short_name)
def test_statements_read_back_and_match_their_schema(kind):
    said = statement.make(kind, {"model:m": DIGEST}, EXAMPLES[kind])
    assert statement.decode(said.encode()).read() == EXAMPLES[kind]
    jsonschema.Draft202012Validator(statement_schema(kind)).validate(json.loads(said.encode()))


@pytest.mark.parametrize("kind", predicates.KNOWN, ids=predicates.short_name)
def test_a_missing_field_is_refused_by_reader_and_schema_alike(kind):
    said = json.loads(statement.make(kind, {"model:m": DIGEST}, EXAMPLES[kind]).encode())
    required = statement_schema(kind)["$defs"][predicates.KNOWN[kind].__name__]["required"]
    for name in required:
        broken = {**said, "predicate": {key: value for key, value in said["predicate"].items() if key != name}}
        with pytest.raises(StatementError, match=name):
            statement.decode(json.dumps(broken).encode())
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, statement_schema(kind))


@pytest.mark.parametrize("kind", predicates.KNOWN, ids=predicates.short_name)
def test_published_schemas_are_those_of_the_code(kind):
    published = SCHEMAS / f"{predicates.short_name(kind)}.schema.json"
    assert json.loads(published.read_text()) == statement_schema(kind)


def test_the_bytes_of_statements_never_change():
    """A change of these bytes would orphan every signature made before."""
    pinned = PINNED.read_bytes().splitlines()
    now = [statement.make(kind, {"model:m": DIGEST}, EXAMPLES[kind]).encode() for kind in sorted(EXAMPLES)]
    assert now == pinned


def test_unknown_predicate_types_are_kept_whole():
    said = statement.Statement(
        subject=(statement.Subject.of("x", DIGEST),), predicate_type="https://example.org/new/v9", predicate={"a": [1]}
    )
    assert statement.decode(said.encode()) == said


def test_unknown_fields_of_known_types_are_ignored_as_in_toto_asks():
    said = json.loads(statement.make(predicates.DECISION, {"m": DIGEST}, EXAMPLES[predicates.DECISION]).encode())
    said["predicate"]["fromTheFuture"] = True
    assert statement.decode(json.dumps(said).encode()).read() == EXAMPLES[predicates.DECISION]


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_other_bytes_are_refused_with_a_statement_error(data):
    with pytest.raises(StatementError):
        statement.decode(data)


@given(st.data())
def test_mutated_statements_are_read_or_refused_never_worse(data):
    good = statement.make(predicates.ASSESSMENT, {"m": DIGEST}, EXAMPLES[predicates.ASSESSMENT]).encode()
    place = data.draw(st.integers(0, len(good) - 1))
    try:
        statement.decode(good[:place] + data.draw(st.binary(max_size=3)) + good[place + 1 :])
    except StatementError:
        return


def test_deep_nesting_is_refused_in_bounded_time():
    with pytest.raises(StatementError):
        statement.decode(b'{"a":' * 100_000)


def test_oversized_statements_and_envelopes_are_refused():
    with pytest.raises(StatementError, match="at most"):
        statement.decode(b" " * (statement.MAX_STATEMENT_BYTES + 1))
    with pytest.raises(EnvelopeError, match="at most"):
        envelope.parse(b" " * (2 * statement.MAX_STATEMENT_BYTES + 1))


def test_decisions_must_expire_and_times_must_have_a_zone():
    plain = msgspec.to_builtins(EXAMPLES[predicates.DECISION])
    for broken in ({**plain, "expires": None}, {**plain, "expires": "2026-11-21T12:00:00"}):
        with pytest.raises(StatementError, match="expires"):
            statement.make(predicates.DECISION, {"m": DIGEST}, broken)


def test_envelopes_have_one_spelling(world: World):
    body = envelope.seal_statement(
        statement.make(predicates.CARD, {"m": DIGEST}, EXAMPLES[predicates.CARD]), [world.signers["owner"]]
    )
    wire = json.loads(body)
    for broken in (
        {**wire, "extra": 1},
        {**wire, "signatures": []},
        {**wire, "signatures": wire["signatures"] * 2},
        {**wire, "payload": wire["payload"].rstrip("=") + "\n"},
        {**wire, "payload": "not base64!"},
    ):
        with pytest.raises(EnvelopeError):
            envelope.parse(json.dumps(broken).encode())
    assert envelope.parse(body).body == body


def test_signatures_bind_the_payload_type(world: World):
    signer = world.signers["owner"]
    parsed = envelope.parse(envelope.seal(b"x", [signer]))
    other = msgspec.structs.replace(parsed, payload_type="text/plain")
    known = {signer.keyid: signer.public_pem}
    assert envelope.verified_keyids(parsed, known) == (signer.keyid,)
    assert envelope.verified_keyids(other, known) == ()


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "A" * 64, "sha512:" + "a" * 64, "0" * 63, "0" * 65])
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(StatementError):
        parse_digest(text)


def test_manifest_roots_do_not_depend_on_order():
    entries = [ManifestEntry(name, digest_bytes(name.encode())) for name in ("b", "a/x", "c")]
    assert manifest_root(entries) == manifest_root(reversed(entries))
    assert manifest_root(entries) != manifest_root(entries[:2])


def test_canonical_json_is_sorted_and_compact():
    assert canonical_json({"b": 1.0, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1.0}'.encode()


def test_schema_of_an_unknown_type_is_an_input_error():
    with pytest.raises(InputError, match="no schema"):
        statement_schema("https://example.org/new")
    assert issubclass(InputError, BartizanError)

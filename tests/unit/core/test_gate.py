"""Gates and evidence: what counts, what does not, and what the refusal says."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from bartizan.core import gate, predicates
from bartizan.core.digest import digest_bytes
from bartizan.core.evidence import Standing
from bartizan.core.statement import decode
from bartizan.core.system import Artefact, Condition, Gate, Rule
from fixtures.world import START


def result_of(world, rule_id):
    return next(result for result in world.gate().results if result.rule.id == rule_id)


def test_a_new_system_is_refused_with_a_remedy_for_each_rule(world):
    result = world.gate()
    assert not result.passed
    assert [item.remedy for item in result.results] == [
        "bartizan assure --only scan",
        "bartizan assure --only redteam.evasion",
        'bartizan decide approval --about model:m --role risk-owner --reason "..."',
    ]


def test_a_newer_failing_result_beats_an_older_passing_one(world):
    world.good().scan("FAILED")
    assert not world.gate().passed
    assert result_of(world, "scan").reason.startswith("result is FAILED")
    world.scan("PASSED")
    assert world.gate().passed


def test_a_changed_input_makes_evidence_stale_and_names_the_change(world):
    world.good()
    world.data = msgspec.structs.replace(world.data, digest=digest_bytes(b"other data"))
    standing = {item.check: item for item in world.evidence() if item.check}
    assert standing["redteam.evasion"].standing is Standing.STALE
    assert "dataset:d changed from" in standing["redteam.evasion"].reason
    assert standing["scan"].holds
    assert not world.gate().passed


def test_evidence_counts_again_when_the_input_is_restored(world):
    world.good()
    data = world.data
    world.data = msgspec.structs.replace(data, digest=digest_bytes(b"other data"))
    world.assess(low=0.1)
    world.data = data
    assert world.gate().passed


def test_results_older_than_their_rule_allows_do_not_count(world):
    world.good()
    world.now += timedelta(days=91)
    world.decide()
    assert "older than 90d" in result_of(world, "robust").reason


def test_decisions_expire(world):
    world.good()
    world.now += timedelta(days=31)
    assert "expired" in result_of(world, "approved").reason


def test_a_clock_set_back_revives_nothing(world):
    world.good()
    world.now += timedelta(days=31)
    world.scan()
    late = world.now
    world.now = START
    view = world.view()
    assert view.checkpoint.received_ms >= int(late.timestamp() * 1000)


def test_a_rejection_counts_against_an_earlier_approval_by_the_same_person(world):
    world.good().decide("no")
    assert not world.gate().passed
    assert "outcome is no" in result_of(world, "approved").reason


def test_the_word_rejection_is_a_no(world):
    world.good().decide("no", kind="rejection")
    assert not world.gate().passed


def test_one_signer_is_not_two(world):
    rules = Gate(rule=(Rule(id="two", about="model", type="decision", kind="review", signers=2),))
    world.decide(kind="review")
    world.decide(kind="review")
    refused = world.gate(rules)
    assert not refused.passed
    assert "1 of 2 distinct signers: owner" in refused.results[0].reason
    world.decide(kind="review", by="security", role="security")
    assert world.gate(rules).passed


def test_nobody_decides_in_a_role_that_they_do_not_hold(world):
    world.good()
    world.decide(by="security", role="risk-owner")
    [claimed] = [item for item in world.evidence() if item.seq == 4]
    assert claimed.standing is Standing.UNTRUSTED
    assert "may not decide in the role it claims" in claimed.reason


def test_a_service_does_not_decide_for_a_person(world):
    rules = Gate(rule=(Rule(id="a", about="model", type="decision", kind="approval"),))
    world.decide(by="service", role="assurer")
    assert not world.gate(rules).passed


def test_a_role_may_not_sign_what_is_not_its_business(world):
    world.scan(by="owner")
    world.assess(by="security")
    assert {item.standing for item in world.evidence()} == {Standing.UNTRUSTED}
    assert "may sign a test-result" in world.evidence()[0].reason


def test_revoking_an_envelope_a_key_or_an_artefact_withdraws_what_rests_on_it(world):
    world.good()
    assert world.gate().passed
    world.revoke("artefact", world.data.digest)
    assert "was withdrawn: found bad" in result_of(world, "robust").reason
    assert result_of(world, "scan").state == "met"


def test_a_revocation_counts_only_from_its_time_on(world):
    world.good()
    world.revoke("artefact", world.model.digest, days=2)
    assert world.gate().passed
    world.now += timedelta(days=3)
    assert not world.gate().passed


def test_a_withdrawn_key_keeps_what_it_signed_before(world):
    world.good()
    world.now += timedelta(minutes=5)
    world.revoke("key", world.signers["owner"].keyid)
    assert world.gate().passed
    world.decide("no")
    assert world.gate().passed


def test_signers_may_withdraw_their_own_statements_and_nobody_elses(world):
    world.good()
    scan = world.records.rows[1].digest
    world.revoke("envelope", scan, by="mallory")
    assert world.gate().passed
    world.revoke("envelope", scan, by="service")
    assert not world.gate().passed


def test_reports_that_are_gone_do_not_count(world):
    check, report = predicates.CheckRef(name="scan", version="1"), predicates.Resource(digest={"sha256": "a" * 64})
    world.say(predicates.TEST_RESULT, predicates.TestResult(result="PASSED", check=check, report=report))
    assert world.evidence()[0].holds
    [gone] = world.evidence(intact=lambda _: False)
    assert gone.standing is Standing.INVALID
    assert "missing or altered" in gone.reason


@pytest.mark.parametrize(
    ("kind", "predicate"),
    [
        (predicates.TEST_RESULT, predicates.TestResult(result="FAILED")),
        (predicates.CARD, predicates.Card(kind="model", name="m", owner="o", facts={}, complete=False)),
        (predicates.ASSESSMENT, predicates.Assessment(method="m", summary="s", result="failed")),
    ],
    ids=["failed test", "incomplete card", "failed assessment"],
)
def test_rules_without_conditions_still_refuse_what_failed(world, kind, predicate):
    rules = Gate(rule=(Rule(id="a", about="model", type=predicates.short_name(kind)),))
    world.say(kind, predicate)
    assert not world.gate(rules).passed


def test_a_gate_without_rules_or_artefacts_does_not_pass(world):
    assert not world.gate(Gate()).passed
    rules = Gate(rule=(Rule(id="a", about="index", type="card"),))
    assert world.gate(rules).results[0].reason == "the system declares no index"


def test_warnings_do_not_refuse(world):
    world.scan()
    rule = Rule(id="a", about="model", type="card", severity="warn")
    scan = Rule(id="b", about="model", type="test-result")
    result = world.gate(Gate(rule=(rule, scan)))
    assert result.passed
    assert [item.state for item in result.results] == ["warned", "met"]


def test_missing_fields_never_meet_a_condition(world):
    world.assess()
    for field in ("metrics.absent.low", "metrics", "", "metrics.robust_accuracy.low.deeper"):
        rule = Rule(id="a", about="model", type="assessment", where=(Condition(field=field, at_least=0.0),))
        assert not world.gate(Gate(rule=(rule,))).passed


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        (Condition(field="metrics.robust_accuracy.low", at_least=0.5), True),
        (Condition(field="metrics.robust_accuracy.low", at_least=0.51), False),
        (Condition(field="metrics.robust_accuracy.low", at_most=0.5), True),
        (Condition(field="metrics.robust_accuracy.low", at_most=0.49), False),
        (Condition(field="metrics.robust_accuracy.n", equals=60), True),
        (Condition(field="method", one_of=("a", "hopskipjump")), True),
        (Condition(field="method", one_of=("a",)), False),
        (Condition(field="method", at_least=0.0), False),
        (Condition(field="inputs.0.name", equals="model:m"), True),
        (Condition(field="method"), False),
    ],
)
def test_conditions(world, condition, met):
    world.assess(low=0.5)
    rule = Rule(id="a", about="model", type="assessment", where=(condition,))
    assert world.gate(Gate(rule=(rule,))).passed is met


def test_names_with_dots_match_longest_first():
    assert gate.look_up({"a": {"b": 1}, "a.b": 2}, "a.b") == 2
    assert gate.look_up({"a": {"b": 1}}, "a.b") == 1
    assert gate.look_up([{"x": "y"}], "0.x") == "y"


def test_the_verdict_lists_what_it_relied_on_and_ends_with_the_first_of_it(world):
    world.good()
    result = world.gate()
    rules = Gate(valid_for="5y", rule=tuple(item.rule for item in result.results))
    said = gate.verdict(result, rules, [world.model, world.data], verifier="urn:x", version="1", now=world.now)
    verdict = decode(said.encode()).read()
    assert verdict.verification_result == "PASSED"
    assert {item.digest["sha256"] for item in verdict.input_attestations} == {
        world.records.rows[seq].digest for seq in (1, 2, 3)
    }
    decision = next(item for item in world.evidence() if item.kind == "approval")
    assert verdict.valid_until == decision.ends_at
    assert {subject.name for subject in said.subject} == {"model:m", "dataset:d"}


def test_rules_about_one_artefact_leave_the_others_alone(world):
    world.scan()
    other = Artefact(kind="model", name="other", digest=digest_bytes(b"other"))
    rule = Rule(id="a", about="model:m", type="test-result")
    every = Rule(id="b", about="model", type="test-result")
    for rules, passed in (((rule,), True), ((rule, every), False)):
        outcome = gate.evaluate("g", Gate(rule=rules), [world.model, other], world.evidence(), world.now)
        assert outcome.passed is passed


@pytest.mark.parametrize(
    ("field", "bound", "met"),
    [
        ("metrics.robust_accuracy.value", {"at_least": 0.5}, True),  # 0.5 to 0.7 was measured
        ("metrics.robust_accuracy.value", {"at_least": 0.55}, False),
        ("metrics.robust_accuracy.value", {"at_most": 0.7}, True),
        ("metrics.robust_accuracy.value", {"at_most": 0.65}, False),
        ("metrics.robust_accuracy.low", {"at_least": 0.5}, True),
        ("metrics.robust_accuracy.high", {"at_least": 0.65}, True),  # whoever asks for the favourable end gets it
    ],
)
def test_a_measured_value_meets_a_bound_only_where_the_end_of_its_interval_does(world, field, bound, met):
    world.good()
    rule = Rule(id="robust", about="model", type="assessment", where=(Condition(field=field, **bound),))
    result = gate.evaluate("g", Gate(rule=(rule,)), [world.model], world.evidence(), world.now)
    assert result.passed == met
    if not met:
        assert "fits what was seen as well" in result.results[0].reason


def test_three_samples_out_of_three_do_not_pass_for_a_robust_model(world):
    world.scan()
    metric = predicates.Metric(value=1.0, low=0.438, high=1.0, n=3)
    said = predicates.Assessment(method="m", summary="s", metrics={"robust_accuracy": metric})
    world.say(predicates.ASSESSMENT, said, by="service")
    rule = Rule(
        id="robust",
        about="model",
        type="assessment",
        where=(Condition(field="metrics.robust_accuracy.value", at_least=0.7),),
    )
    result = gate.evaluate("g", Gate(rule=(rule,)), [world.model], world.evidence(), world.now)
    assert not result.passed
    assert result.results[0].reason == (
        "metrics.robust_accuracy.value is 1, but 0.438 fits what was seen as well; it must be at least 0.7"
    )

"""Exceptions that an organisation signs, and baselines: what they excuse and what they never do."""

from __future__ import annotations

import json
from datetime import date

import pytest

from bartizan.core import keys
from bartizan.core.errors import EnvelopeError, InputError
from bartizan.lifecycle.develop.scan import Limits, Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.acceptance import (
    Accept,
    Policy,
    judge,
    read_baseline,
    read_policy,
)
from bartizan.lifecycle.develop.scan.signed_policy import open_policy, seal_policy
from fixtures.hostile_models import DANGEROUS

TODAY = date(2026, 11, 21)
UNLISTED = b"\x80\x04\x8c\x06ourlib\x8c\x04Gate\x93)\x81."
EVIL = DANGEROUS["os.system"]


def entry(**changes):
    """An entry that excuses ``UNLISTED``."""
    said = {
        "rule": "pickle/unlisted-class",
        "justification": "our own layer, reviewed in change 17",
        "owner": "ml-platform@example.org",
        "expires": date(2027, 1, 31),
    }
    return Accept(**(said | changes))


def toml(**changes):
    """A policy of one entry as text."""
    said = {
        "rule": '"pickle/unlisted-class"',
        "justification": '"our own layer, reviewed"',
        "owner": '"ml@example.org"',
        "expires": "2027-01-31",
    } | changes
    return ("[[accept]]\n" + "\n".join(f"{key} = {value}" for key, value in said.items() if value)).encode()


def test_an_accepted_finding_stays_in_the_report_and_decides_no_longer():
    report = scan_bytes(UNLISTED, "model.pkl")
    assert (report.verdict, report.exit_code) == (Verdict.SUSPICIOUS, 1)
    judged = judge(report, Policy(accept=(entry(),)), today=TODAY)
    assert [finding.rule for finding, _ in judged.accepted] == ["pickle/unlisted-class"]
    assert (judged.verdict, judged.exit_code, judged.open) == (Verdict.CLEAN, 0, ())


@pytest.mark.parametrize(
    "changes",
    [{"rule": "pickle/unlisted-name"}, {"digest": "0" * 64}, {"names": ("otherlib.Gate",)}],
    ids=["another rule", "another file", "another name"],
)
def test_an_entry_excuses_only_what_it_is_bound_to(changes):
    judged = judge(scan_bytes(UNLISTED, "model.pkl"), Policy(accept=(entry(**changes),)), today=TODAY)
    assert judged.exit_code == 1


def test_an_expired_entry_excuses_nothing_and_is_told():
    judged = judge(scan_bytes(UNLISTED, "model.pkl"), Policy(accept=(entry(),)), today=date(2027, 1, 31))
    assert judged.exit_code == 1
    assert [each.expires for each in judged.expired] == [date(2027, 1, 31)]


def test_a_dangerous_file_is_accepted_by_its_digest_and_every_other_finding_in_it_counts():
    report = scan_bytes(EVIL, "model.pkl")
    one_rule = Policy(accept=(entry(rule=report.findings[0].rule, digest=report.digest),))
    assert judge(report, one_rule, today=TODAY).exit_code == 0
    other = scan_bytes(EVIL + b"x", "model.pkl")
    assert judge(other, one_rule, today=TODAY).exit_code == 1


def test_what_was_not_examined_is_excused_by_digest_only():
    report = scan_bytes(b"\x00\x01\x02 nothing known", "model.bin")
    assert report.exit_code == 2
    by_digest = entry(rule="file/not-examined", digest=report.digest)
    assert judge(report, Policy(accept=(by_digest,)), today=TODAY).exit_code == 0
    with pytest.raises(InputError, match="one file only"):
        read_policy(toml(rule='"file/not-examined"'))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": '""'}, "bound neither"),
        ({"rule": '"pickle/nonsense"'}, "no rule"),
        ({"digest": '"ABC"'}, "no SHA-256"),
        ({"rule": '"pickle/dangerous-callable"'}, "one file only"),
        ({"justification": '"ok"'}, "says nothing"),
        ({"owner": '" "'}, "nobody answers"),
        ({"expires": '"soon"'}, "no scan policy"),
        ({"expires": ""}, "no scan policy"),
        ({"more": "1"}, "no scan policy"),
    ],
)
def test_an_unsound_policy_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        read_policy(toml(**changes))


@pytest.mark.parametrize("text", [b"\xff", b"accept = 3", b"[" * 50_000, b"a" * (1 << 20) + b"bc"])
def test_hostile_policies_are_refused(text):
    with pytest.raises(InputError):
        read_policy(text)


def test_a_policy_counts_only_when_a_trusted_key_signed_it():
    signer, stranger = keys.PrivateKeySigner(keys.generate()), keys.PrivateKeySigner(keys.generate())
    body = seal_policy(read_policy(toml()), [signer])
    assert open_policy(body, {signer.keyid: signer.public_pem}).accept[0].owner == "ml@example.org"
    with pytest.raises(EnvelopeError, match="none of the trusted keys"):
        open_policy(body, {stranger.keyid: stranger.public_pem})
    with pytest.raises(EnvelopeError):
        open_policy(toml(), {signer.keyid: signer.public_pem})


def test_a_baseline_leaves_only_what_is_new():
    report = scan_bytes(UNLISTED, "model.pkl")
    baseline = read_baseline(b"[" + report.to_json() + b"]")
    assert judge(report, baseline=baseline).exit_code == 0
    more = scan_bytes(UNLISTED[:-1] + b"0\x8c\x06ourlib\x8c\x05Other\x93)\x81.", "model.pkl")
    judged = judge(more, baseline=baseline)
    assert [finding.detail.startswith("constructs ourlib.Other") for finding in judged.open] == [True]
    assert judged.exit_code == 1


@pytest.mark.parametrize("text", [b"{}", b"[{}]", b"nothing", b"[" * 100_000, json.dumps([{"report": 1}]).encode()])
def test_what_is_no_baseline_is_refused(text):
    with pytest.raises(InputError, match="no baseline"):
        read_baseline(text)


@pytest.mark.parametrize(
    ("module", "name"),
    [("evilourlib", "Gate"), ("ourlib", "GateX"), ("evil ourlib", "Gate"), ("x", "y'ourlib.Gate'")],
)
def test_a_name_is_accepted_in_full_only(module, name):
    data = b"\x80\x04\x8c%c%s\x8c%c%s\x93)\x81." % (len(module), module.encode(), len(name), name.encode())
    report = scan_bytes(data, "model.pkl")
    assert "ourlib.Gate" in report.findings[0].detail
    policy = Policy(accept=(entry(names=("ourlib.Gate",)), entry(rule="pickle/dotted-walk", names=("ourlib.Gate",))))
    assert judge(report, policy, today=TODAY).exit_code == 1


def test_arguments_do_not_make_a_call_an_accepted_one():
    report = scan_bytes(b"\x80\x04\x8c\x05other\x8c\x04call\x93\x8c\x0bourlib.Gate\x85R.", "model.pkl")
    rules = {finding.rule for finding in report.findings if "ourlib.Gate" in finding.detail}
    assert rules == {"pickle/unlisted-callable"}
    accepting = Policy(accept=tuple(entry(rule=each.rule, names=("ourlib.Gate",)) for each in report.findings))
    assert judge(report, accepting, today=TODAY).exit_code == 1
    accepting = Policy(accept=tuple(entry(rule=each.rule, names=("other.call",)) for each in report.findings))
    assert judge(report, accepting, today=TODAY).exit_code == 0


def test_a_finding_that_is_not_listed_is_excused_by_nobody():
    """Accepted findings may be as many as are kept, and the one that follows is left out of the report."""
    many = b"".join(b"\x8c\x06ourlib\x8c\x05G%04d\x93)\x810" % number for number in range(20))
    evil = b"\x80\x04" + many + b"cposix\nsystem\n\x8c\x02id\x85R."
    report = scan_bytes(evil, "model.pkl", Limits(findings=10))
    assert report.facts["findings_left_out"]
    rules = {finding.rule for finding in report.findings}
    judged = judge(report, Policy(accept=tuple(entry(rule=rule) for rule in rules)), today=TODAY)
    assert (judged.open, judged.verdict, judged.exit_code) == ((), report.verdict, 1)
    as_it_is = Policy(accept=(entry(rule="", digest=report.digest),))
    assert judge(report, as_it_is, today=TODAY).exit_code == 0


def test_a_baseline_knows_what_was_not_examined_by_its_digest():
    earlier = scan_bytes(b"\x00\x01\x02 nothing known", "model.bin")
    baseline = read_baseline(b"[" + earlier.to_json() + b"]")
    assert judge(earlier, baseline=baseline).exit_code == 0
    assert judge(scan_bytes(b"\x00\x01\x02 something else", "model.bin"), baseline=baseline).exit_code == 2

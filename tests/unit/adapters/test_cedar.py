"""Cedar policies: validated before they count, and a no wherever something goes wrong."""

from __future__ import annotations

import cedarpy
import msgspec
import pytest

from bartizan.adapters.cedar import CedarPolicies, schema_of
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.policy import Policy, Rights

OPERATIONS = ("infer", "explain", "metadata", "admin.key.add", "admin.key.revoke", "detail.label", "detail.scores")
DIGEST = digest_bytes(b"model")
ANN = Caller(
    id="key:ann",
    role="analyst",
    method="key",
    groups=("oncology",),
    attributes={"organisation": "north"},
    factors=("otp",),
)
WHEN = "permit(principal, action, resource) when { "
POLICIES = """
@id("who infers is told the label")
permit(principal, action in [Action::"infer", Action::"detail.label"], resource);
@id("scores for oncologists of the north")
permit(principal in Group::"oncology", action == Action::"detail.scores", resource == Model::"tumour")
when { principal.hasTag("organisation") && principal.getTag("organisation") == "north" };
@id("second factor for all administration")
permit(principal, action in Action::"admin", resource) when { principal.factors.contains("otp") };
@id("nobody of the suspended")
forbid(principal in Group::"suspended", action, resource);
"""


def policies(text=POLICIES):
    return CedarPolicies(text, OPERATIONS)


def but(**more):
    return msgspec.structs.replace(ANN, **more)


def test_groups_attributes_and_factors_decide():
    engine = policies()
    assert engine.permits(ANN, "detail.scores", "tumour", DIGEST) == (
        True,
        ("cedar: scores for oncologists of the north",),
    )
    assert not engine.permits(but(groups=()), "detail.scores", "tumour", DIGEST)[0]
    assert not engine.permits(but(attributes={}), "detail.scores", "tumour", DIGEST)[0]
    assert not engine.permits(but(attributes={"organisation": "south"}), "detail.scores", "tumour", DIGEST)[0]
    assert not engine.permits(ANN, "detail.scores", "digits", DIGEST)[0]
    assert engine.permits(ANN, "admin.key.add", "", DIGEST)[0]
    assert not engine.permits(but(factors=()), "admin.key.add", "", DIGEST)[0]


def test_what_no_policy_permits_is_denied_and_a_forbidding_one_wins():
    engine = policies()
    assert engine.permits(ANN, "explain", "tumour", DIGEST) == (False, ("cedar: no policy permits explain",))
    suspended = engine.permits(but(groups=("oncology", "suspended")), "infer", "tumour", DIGEST)
    assert suspended == (False, ("cedar: nobody of the suspended",))
    assert not policies("").permits(ANN, "infer", "tumour", DIGEST)[0]


@pytest.mark.parametrize(
    "text",
    [
        "permit(",
        'permit(principal, action == Action::"infr", resource);',
        'permit(principal, action, resource) when { principal.rolle == "x" };',
        'permit(principal, action, resource) when { principal.getTag("organisation") == "x" };',
        'permit(principal == User::"x", action, resource);',
        "x" * ((1 << 18) + 1),
        # These end the whole process when the library is given them (4.12.2: its stack is full).
        *(WHEN + "(" * depth + "true" + ")" * depth + " };" for depth in (65, 5000, 50_000)),
        WHEN + "[" * 5000 + "]" * 5000 + " == 1 };",
        WHEN + "{a:" * 5000 + "1" + "}" * 5000 + " == 1 };",
        WHEN + "if true then true else " * 10_000 + "true };",
        WHEN + '")" == "' + "(" * 5000 + '" };' + WHEN + "(" * 5000 + "true" + ")" * 5000 + " };",
        WHEN + ";".join(["("] * 5000) + " };",
    ],
)
def test_policies_with_a_slip_of_the_pen_stop_the_start(text):
    with pytest.raises(InputError):
        policies(text)


def test_an_error_denies_even_where_another_policy_permits(monkeypatch):
    """Cedar passes over policies that fail, forbidding ones too; here that is a no."""
    engine, text = policies(), "permit(principal, action, resource); forbid(principal, action, resource) when { %s };"
    engine._policies = cedarpy.PolicySet.from_str(text % 'principal.missing == "x"')
    engine._schema = None
    allowed, reasons = engine.permits(ANN, "infer", "tumour", DIGEST)
    assert not allowed
    assert "missing" in reasons[0]
    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_: 1 / 0)
    assert engine.permits(ANN, "infer", "tumour", DIGEST) == (False, ("cedar: ZeroDivisionError",))


def test_hostile_names_are_names():
    engine = policies()
    for name in ('"', "\\", "\0", "\u202e", '"}, {', "x" * 100_000):
        odd = but(id=f"jwt:{name}", groups=(name, "suspended"), attributes={"organisation": name})
        assert not engine.permits(odd, "infer", "tumour", DIGEST)[0]
        assert not engine.permits(but(attributes={"organisation": name}), "detail.scores", "tumour", DIGEST)[0]


def test_cedar_takes_away_from_roles_and_never_adds():
    roles = {
        "analyst": Rights(operations=("infer", "explain"), detail="scores"),
        "clerk": Rights(operations=("infer",), detail="label"),
    }
    policy = Policy(roles, attributes=policies())
    full = policy.decide(ANN, "infer", "tumour", DIGEST)
    assert (full.allowed, full.detail) == (True, "scores")
    assert "cedar: scores for oncologists of the north" in full.reasons
    least = policy.decide(but(attributes={}), "infer", "tumour", DIGEST)
    assert (least.allowed, least.detail) == (True, "label")
    assert not policy.decide(ANN, "explain", "tumour", DIGEST).allowed
    assert policy.decide(but(role="clerk"), "infer", "tumour", DIGEST).detail == "label"
    assert not policy.decide(but(role="clerk"), "admin.key.add").allowed


def test_every_operation_has_its_place_in_the_schema():
    text = schema_of(OPERATIONS)
    assert 'action "admin";' in text
    assert 'action "admin.key.add" in ["admin"]' in text
    assert all(f'action "{name}"' in text for name in OPERATIONS)

"""Who may do what: whatever is not granted by a role, within the credential, is denied."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.digest import digest_bytes
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS, Caller
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.refusal import FactorError
from bartizan.lifecycle.deploy.gateway.policy import Policy, PolicySettings, Rights

DIGEST, OTHER = digest_bytes(b"one"), digest_bytes(b"two")
ROLES = {
    "user": Rights(operations=("infer",)),
    "engineer": Rights(operations=("infer", "metadata"), models=("tumour*",), detail="rounded-scores"),
    "maintainer": Rights(operations=("infer", "explain", "admin.*"), detail="scores", factor=True),
    "nothing": Rights(),
}
ASKED = [
    (operation, model)
    for operation in ("infer", "explain", "metadata", "chat", "admin.key.add", "admin", "administer", "")
    for model in ("tumour", "digits")
]


def caller(role="user", **more):
    return Caller(id="key:a", role=role, method="key", **more)


def test_the_whole_table_of_roles_operations_and_models():
    policy = Policy(ROLES)
    allowed = {
        (role, operation, model)
        for role in (*ROLES, "unknown", "anonymous")
        for operation, model in ASKED
        if policy.decide(caller(role, factors=("mfa",)), operation, model, DIGEST).allowed
    }
    assert allowed == {
        ("user", "infer", "tumour"),
        ("user", "infer", "digits"),
        ("engineer", "infer", "tumour"),
        ("engineer", "metadata", "tumour"),
        *(
            ("maintainer", operation, model)
            for operation in ("infer", "explain", "admin.key.add")
            for model in ("tumour", "digits")
        ),
    }


@given(
    role=st.sampled_from([*ROLES, "x", ""]),
    operation=st.text(max_size=12) | st.sampled_from([operation for operation, _ in ASKED]),
    model=st.text(max_size=8),
    models=st.lists(st.text(max_size=8), max_size=2).map(tuple),
    operations=st.lists(st.sampled_from(["infer", "explain", "admin.*"]), max_size=2).map(tuple),
)
def test_a_credential_never_gets_more_than_its_role(role, operation, model, models, operations):
    policy = Policy(ROLES)
    whole = policy.decide(caller(role), operation, model, DIGEST)
    part = policy.decide(caller(role, models=models, operations=operations), operation, model, DIGEST)
    assert whole.allowed or not part.allowed
    assert part.allowed or part.status in {401, 403, 404}
    if models and model and model not in models:
        assert not part.allowed


def test_a_credential_for_one_model_is_for_its_bytes():
    policy = Policy(ROLES)
    one = caller(models=(DIGEST,))
    assert policy.decide(one, "infer", "tumour", DIGEST).allowed
    assert policy.decide(one, "infer", "tumour", OTHER).status == 404
    assert policy.decide(caller(models=("tumour",)), "infer", "tumour", OTHER).allowed
    assert not policy.decide(caller(models=("",)), "infer", "tumour", OTHER).allowed


def test_a_model_that_one_may_not_know_of_is_not_there():
    decision = Policy(ROLES).decide(caller("engineer"), "infer", "digits", DIGEST)
    with pytest.raises(RequestError) as caught:
        decision.enforce()
    assert (caught.value.status, caught.value.message) == (404, "there is nothing here")
    assert "digits" in caught.value.reason


def test_denials_say_nothing_and_reasons_are_kept():
    with pytest.raises(RequestError) as caught:
        Policy(ROLES).decide(caller(), "explain", "tumour", DIGEST).enforce()
    assert (caught.value.status, caught.value.message) == (403, "this is not allowed")
    assert "user" in caught.value.reason
    assert Policy({}).decide(ANONYMOUS, "infer", "tumour", DIGEST).reasons == ("there is no role 'anonymous'",)


def test_privileged_operations_need_a_second_factor():
    policy = Policy(ROLES)
    for operation, fresh in (("admin.key.add", True), ("explain", False), ("infer", False)):
        plain = policy.decide(caller("maintainer"), operation, "tumour", DIGEST)
        assert (plain.allowed, plain.factor, plain.fresh) == (False, True, fresh)
        with pytest.raises(FactorError) as caught:
            plain.enforce()
        assert (caught.value.status, caught.value.fresh) == (401, fresh)
        assert "insufficient_user_authentication" in caught.value.headers["www-authenticate"]
        for weak in (("pwd",), ("sms",), ("tel", "pin"), ("MFA",)):
            assert not policy.decide(caller("maintainer", factors=weak), operation, "tumour", DIGEST).allowed
        for strong in ("mfa", "hwk", "otp", "sc"):
            assert policy.decide(caller("maintainer", factors=("pwd", strong)), operation, "tumour", DIGEST).allowed
    assert not policy.decide(caller(), "admin.key.add").factor, "who may not do it anyway is not asked for a factor"


def test_the_configuration_says_what_is_privileged():
    policy = Policy(ROLES, PolicySettings(privileged=("metadata",), factors=("hwk",)))
    assert policy.decide(caller("engineer"), "metadata", "tumour", DIGEST).factor
    assert policy.decide(caller("engineer", factors=("hwk",)), "metadata", "tumour", DIGEST).allowed
    assert policy.decide(caller("engineer", factors=("otp",)), "metadata", "tumour", DIGEST).factor


class Counting:
    def __init__(self):
        self.asked = []

    def permits(self, caller, operation, *_):
        self.asked.append((caller.id, operation))
        return "no" not in caller.groups, ("counted",)


def test_decisions_are_made_once_and_never_for_somebody_else():
    engine = Counting()
    policy = Policy(ROLES, attributes=engine)
    one = caller()
    first = policy.decide(one, "infer", "tumour", DIGEST)
    asked = len(engine.asked)
    assert policy.decide(one, "infer", "tumour", DIGEST) is first
    assert policy.decide(msgspec.structs.replace(one), "infer", "tumour", DIGEST) is first
    assert len(engine.asked) == asked
    assert not policy.decide(caller(groups=("no",)), "infer", "tumour", DIGEST).allowed
    assert policy.decide(one, "infer", "tumour", DIGEST).allowed
    assert not policy.decide(caller("nothing"), "infer", "tumour", DIGEST).allowed
    policy.decide(one, "infer", "tumour", OTHER)
    assert len(engine.asked) > asked


def test_remembered_decisions_are_bounded():
    policy = Policy(ROLES)
    for number in range(20_000):
        policy.decide(Caller(id=f"jwt:{number}", role="user", method="jwt"), "infer", "tumour", DIGEST)
    assert len(policy._known) == 16_384

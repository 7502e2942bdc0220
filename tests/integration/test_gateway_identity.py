"""Who is let in and what to, through a gateway that really runs: keys, tokens, passes, second factors."""

from __future__ import annotations

import json
import time

import pytest

from bartizan.core.keys import keyid_of, load_public
from bartizan.lifecycle.deploy.gateway.identity.keys import KeyWanted
from bartizan.wiring import gatekeys
from bartizan.wiring.workspace import Workspace
from fixtures.gateways import configured, key_of, serving
from fixtures.issuers import SigningKey, provider
from fixtures.project import bartizan

CONFIGURATION = """
[identity.keys]
poll = 0.5

[[identity.issuer]]
issuer = "{issuer}"
audiences = ["gateway"]
algorithms = ["ES256"]
groups = "groups"
attributes = {{ organisation = "org" }}

[[identity.issuer.role]]
claim = "groups"
value = "maintainers"
role = "security"

[[identity.issuer.role]]
claim = "groups"
value = "ml"
role = "user"

[identity.passes]
hardware = ["{hardware}"]

[role.user]
operations = ["infer"]

[role.elsewhere]
operations = ["infer", "metadata"]
models = ["another"]

[role.security]
operations = ["explain", "metadata"]
explanations = true
factor = "needed"

[role.risk-owner]
operations = ["explain"]
explanations = true
factor = "needed"
"""
PLACE = "/v2/models/tumour"


@pytest.fixture(scope="module")
def issuer():
    with provider() as served:
        yield served


@pytest.fixture(scope="module")
def gateway(tumour_project, tmp_path_factory, issuer):
    """``security`` signs with a key that lies in hardware by what the configuration says, ``risk-owner`` does not."""
    public = (tumour_project / ".bartizan" / "keys" / "security.pub.pem").read_text()
    text = CONFIGURATION.format(issuer=issuer.issuer, hardware=keyid_of(load_public(public)))
    granted = 'output = "label"\nexplanations = ["security", "risk-owner"]'
    folder = configured(
        tumour_project,
        tmp_path_factory.mktemp("identity") / "project",
        text,
        change=lambda declared: declared.replace('output = "scores"', granted),
    )
    with serving(folder) as client:
        yield client


ROW = [[float(number) for number in range(30)]]


def infer(gateway, key="", **headers):
    return gateway.infer(ROW, key, "tumour", **headers)[0]


def explain(gateway, key="", **headers):
    tensor = {"name": "features", "shape": [1, 30], "datatype": "FP64", "data": ROW[0]}
    return gateway.ask("POST", f"{PLACE}/explain", {"inputs": [tensor]}, key, **headers)


def pass_of(gateway, role):
    done = bartizan(gateway.folder, "keys", "pass", "--role", role)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def made(gateway, role, **more):
    """A key, as the command makes it."""
    return gatekeys.add(Workspace(gateway.folder), KeyWanted(role=role, **more)).secret


def revoke(gateway, key):
    done = bartizan(gateway.folder, "gateway", "key", "revoke", key.split("_")[1])
    assert done.returncode == 0, done.stderr


def until(answers, seconds=10.0):
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers():
            return True
        time.sleep(0.1)
    return False


def test_nobody_is_answered_who_is_not_known(gateway, issuer):
    known = key_of(gateway.folder, "user")
    assert until(lambda: infer(gateway, known) == 200)
    strangers = [
        "",
        known[:-1],
        known + "x",
        "btz_",
        "a.b.c",
        issuer.token(key=SigningKey("first")),
        issuer.token(aud="another"),
        issuer.token(groups=["none"]),
        issuer.token(exp=1),
    ]
    told = {json.dumps(gateway.infer(ROW, stranger, "tumour")[2]) for stranger in strangers}
    assert {infer(gateway, stranger) for stranger in strangers} == {401}
    assert told == {'{"error": "nobody who is known here has sent this"}'}
    assert infer(gateway, known, x_api_key=known) == 401
    assert (
        gateway.raw("POST", f"{PLACE}/infer", "{}", {"content-type": "application/json", "x-api-key": known})[0] != 401
    )


def test_a_role_reaches_its_models_and_operations_only(gateway):
    user, other, unknown = (made(gateway, role) for role in ("user", "elsewhere", "no-role"))
    confined, far = made(gateway, "user", operations=("metadata",)), made(gateway, "user", networks=("10.0.0.0/8",))
    assert until(lambda: infer(gateway, user) == 200)
    assert explain(gateway, user)[0] == 403
    assert gateway.ask("GET", PLACE, key=user)[0] == 403
    hidden, missing = gateway.ask("GET", PLACE, key=other), gateway.ask("GET", "/v2/models/nothing", key=other)
    assert hidden[0] == missing[0] == 404
    assert hidden[2] == missing[2], "a model that one may not know of looks like one that is not there"
    assert infer(gateway, confined) == 403
    assert infer(gateway, unknown) == 403
    assert infer(gateway, far) == 401


def test_a_revoked_key_is_refused_within_the_poll(gateway):
    key = made(gateway, "user")
    assert until(lambda: infer(gateway, key) == 200)
    revoke(gateway, key)
    assert until(lambda: infer(gateway, key) == 401, seconds=5)


def test_tokens_of_the_provider_count_through_a_rotation(gateway, issuer):
    old = issuer.token()
    assert infer(gateway, old) == 200
    issuer.keys = [SigningKey("next"), *issuer.keys]
    new = issuer.token()
    assert until(lambda: infer(gateway, new) == 200, seconds=40), "an unknown key is looked for"
    assert infer(gateway, old) == 200


@pytest.mark.control("2.2-c")
def test_a_privileged_action_needs_a_second_factor_or_a_hardware_key(gateway, issuer):
    without = {
        "an API key": key_of(gateway.folder, "security"),
        "a pass of a key in a file": pass_of(gateway, "risk-owner"),
        "a token by password": issuer.token(groups=["maintainers"], amr=["pwd"]),
        "a token by text message": issuer.token(groups=["maintainers"], amr=["pwd", "sms"]),
        "a token that says nothing": issuer.token(groups=["maintainers"]),
    }
    assert until(lambda: gateway.ask("GET", PLACE, key=without["an API key"])[0] == 200), "what is not privileged"
    for name, credential in without.items():
        status, fields, told = explain(gateway, credential)
        assert (status, told) == (401, {"error": "this takes a second factor"}), name
        assert "insufficient_user_authentication" in fields["www-authenticate"]
    within = {
        "a pass of a key in hardware": pass_of(gateway, "security"),
        "a token by password and code": issuer.token(groups=["maintainers"], amr=["pwd", "otp"]),
        "a token by a hardware key": issuer.token(groups=["maintainers"], amr=["hwk"]),
    }
    for name, credential in within.items():
        assert explain(gateway, credential)[0] == 200, name

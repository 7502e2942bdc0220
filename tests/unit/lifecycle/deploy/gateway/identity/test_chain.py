"""All ways together: what is shown and does not count is never passed over for something else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.keys import PrivateKeySigner, generate
from bartizan.lifecycle.deploy.gateway import passes
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS, Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.chain import Chain
from bartizan.lifecycle.deploy.gateway.identity.keys import ApiKeys, Index, KeyWanted, mint
from bartizan.lifecycle.deploy.gateway.identity.passes import Passes
from bartizan.lifecycle.deploy.gateway.identity.refusal import UNKNOWN
from bartizan.lifecycle.deploy.gateway.identity.settings import (
    IdentitySettings,
    KeySettings,
    PassSettings,
    SigningSettings,
    SourceSettings,
    problems,
)

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOW = START.timestamp()
MODEL, OTHER = digest_bytes(b"model"), digest_bytes(b"other")
CARD, FILE = PrivateKeySigner(generate()), PrivateKeySigner(generate())


def holder(signer, *roles):
    ends = {"not_before": START - timedelta(days=9), "not_after": START + timedelta(days=9)}
    return passes.Holder(id="p", keyid=signer.keyid, public_key=signer.public_pem, roles=roles, **ends)


def a_pass(signer=FILE, role="auditor", model=MODEL, hours=1):
    said = passes.Pass(role=role, model=model, not_before=START, not_after=START + timedelta(hours=hours))
    return passes.write(said, signer)


def recogniser():
    made = Passes(PassSettings(hardware=(CARD.keyid,)))
    made.learn((holder(CARD, "admin"), holder(FILE, "auditor")), (MODEL,))
    return made


SECRET, KEY = mint(KeyWanted(role="analyst"), NOW)


def chain(*, anonymous=False):
    keys = ApiKeys(KeySettings())
    keys.learn(Index([KEY]), NOW)
    return Chain([keys, recogniser()], anonymous=anonymous)


def ask(made, value=None, now=NOW, **more):
    headers = {b"authorization": value.encode()} if value is not None else {}
    return made.recognise(Showing(headers | more.get("headers", {})), now)


def refused(made, *arguments, **more):
    with pytest.raises(RequestError) as caught:
        ask(made, *arguments, **more)
    assert (caught.value.status, caught.value.message) == (401, UNKNOWN)
    assert caught.value.headers == {"www-authenticate": 'Bearer realm="bartizan"'}
    return caught.value.reason


def test_each_way_leads_to_its_caller():
    made = chain()
    assert ask(made, f"Bearer {SECRET}").role == "analyst"
    assert ask(made, f"bearer {SECRET}").role == "analyst"
    assert ask(made, f"Bearer {a_pass()}").role == "auditor"


def test_whoever_shows_nothing_is_nobody_unless_nobody_has_a_role():
    assert "does not show" in refused(chain())
    assert ask(chain(anonymous=True)) is ANONYMOUS


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer a.b.c",
        "Bearer btz_x",
        "Bearer xyz",
        "Digest x",
        pytest.param(f"Token {SECRET}", id="another scheme"),
        pytest.param(f"Bearer  {SECRET}", id="two blanks"),
        "x" * 50_000,
    ],
)
def test_what_does_not_count_is_not_nobody(value):
    assert refused(chain(anonymous=True), value)
    assert refused(chain(), value)


def test_a_pass_is_for_its_model_its_role_and_its_time():
    made = chain()
    caller = ask(made, f"Bearer {a_pass()}")
    assert (caller.method, caller.models, caller.factors) == ("pass", (MODEL,), ())
    assert ask(made, f"Bearer {a_pass(CARD, 'admin')}").factors == ("hwk",)
    assert refused(made, f"Bearer {a_pass(model=OTHER)}")
    assert refused(made, f"Bearer {a_pass(role='admin')}")
    assert refused(made, f"Bearer {a_pass(PrivateKeySigner(generate()))}")
    assert refused(made, f"Bearer {a_pass()}", now=NOW + 3600)


def test_a_pass_ends_with_the_trust_in_its_holder():
    made, token = chain(), f"Bearer {a_pass()}"
    assert ask(made, token).role == "auditor"
    version = made.version
    made.recognisers[1].learn((holder(CARD, "admin"),), (MODEL,))
    assert made.version > version
    assert "trust document" in refused(made, token)
    made.recognisers[1].learn((holder(FILE, "auditor"),), (OTHER,))
    assert "another model" in refused(made, token)


def test_settings_are_held_against_themselves():
    def signing(*sources):
        return problems(IdentitySettings(signing=SigningSettings(source=sources)))

    fine = SourceSettings(name="north", keyid="k", algorithm="hmac-sha256", secret="north")
    assert signing(fine) == ()
    assert signing(fine, fine)
    assert signing(SourceSettings(name="north", keyid="k", algorithm="hmac-sha256"))
    assert signing(SourceSettings(name="north", keyid="k", algorithm="ed25519", secret="north"))
    assert problems(IdentitySettings(passes=PassSettings(hardware=("x",))))

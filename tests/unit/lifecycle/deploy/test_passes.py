"""Passes: only what a holder signed, for this model, in this role, at this time."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from bartizan.core import envelope
from bartizan.core.digest import canonical_json, digest_bytes
from bartizan.core.errors import InputError
from bartizan.core.keys import PrivateKeySigner, generate
from bartizan.lifecycle.deploy.gateway import passes
from bartizan.lifecycle.deploy.gateway.passes import Grants, Holder, Pass, may_explain, read, write
from bartizan.lifecycle.deploy.gateway.protocol import RequestError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MODEL, OTHER = digest_bytes(b"model"), digest_bytes(b"other")
ANALYST, CLERK, STRANGER = (PrivateKeySigner(generate()) for _ in range(3))


def holder(signer, *roles, **more):
    ends = {"not_before": NOW - timedelta(days=9), "not_after": NOW + timedelta(days=9)}
    return Holder(id="p", keyid=signer.keyid, public_key=signer.public_pem, roles=roles, **(ends | more))


HOLDERS = (holder(ANALYST, "analyst"), holder(CLERK, "clerk"))
GRANTS = Grants(explanations=("analyst",), holders=HOLDERS)


def token(signer=ANALYST, role="analyst", model=MODEL, start=NOW, lasts=timedelta(hours=1)):
    return write(Pass(role=role, model=model, not_before=start, not_after=start + lasts), signer)


def asked(text, grants=GRANTS, now=NOW):
    try:
        may_explain({b"authorization": b"Bearer " + text.encode()}, grants, MODEL, now)
    except RequestError as error:
        return error.status
    return 200


def test_a_granted_role_passes_until_its_time_is_over():
    assert asked(token()) == 200
    assert asked(token(), now=NOW + timedelta(minutes=59)) == 200
    assert asked(token(), now=NOW + timedelta(hours=1)) == 401
    assert asked(token(start=NOW + timedelta(minutes=2))) == 401


def test_other_roles_models_and_signers_do_not():
    assert asked(token(CLERK, "clerk")) == 403
    assert asked(token(CLERK, "analyst")) == 403
    assert asked(token(STRANGER)) == 401
    assert asked(token(model=OTHER)) == 401
    assert asked(token(), Grants(explanations=("analyst",))) == 401
    assert asked(token(), Grants(holders=HOLDERS)) == 403


def test_a_holder_whose_own_time_is_over_has_no_pass():
    late = (holder(ANALYST, "analyst", not_after=NOW),)
    assert asked(token(), Grants(explanations=("analyst",), holders=late)) == 401


def test_no_pass_counts_for_longer_than_a_day_whoever_signed_it():
    with pytest.raises(InputError):
        token(lasts=timedelta(hours=25))
    said = Pass(role="analyst", model=MODEL, not_before=NOW, not_after=NOW + timedelta(hours=25))
    body = envelope.seal(canonical_json(said), [ANALYST], passes.PASS_PAYLOAD)
    assert asked(base64.urlsafe_b64encode(body).decode()) == 401


def test_a_statement_is_no_pass():
    said = Pass(role="analyst", model=MODEL, not_before=NOW, not_after=NOW + timedelta(hours=1))
    body = envelope.seal(msgspec.json.encode(said), [ANALYST])
    assert asked(base64.urlsafe_b64encode(body).decode()) == 401


@pytest.mark.parametrize(
    "header", [b"", b"Bearer", b"Bearer ", b"Basic eA==", b"Bearer \xff\xfe", b"Bearer " + b"[" * 9_000]
)
def test_what_is_no_pass_is_refused(header):
    with pytest.raises(RequestError) as refused:
        read(header, HOLDERS, MODEL, NOW)
    assert refused.value.status == 401
    assert "www-authenticate" in refused.value.headers

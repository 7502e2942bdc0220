"""The trust document: who may sign what, and how it may change."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core import envelope, keys, predicates, trust
from bartizan.core.errors import KeyFileError, TrustError, TrustRollbackError
from fixtures.world import START, YEAR, principal


@pytest.fixture
def roots():
    return [keys.PrivateKeySigner(keys.generate(kind)) for kind in ("ecdsa-p256", "ed25519", "ecdsa-p256")]


def document(holders, **changes):
    fields = {
        "version": 1,
        "threshold": 2,
        "roots": {root.keyid: root.public_pem for root in holders},
        "roles": trust.DEFAULT_ROLES,
        "principals": (),
        "expires": START + YEAR,
        **changes,
    }
    return trust.Trust(**fields)


def test_the_first_version_needs_a_threshold_of_its_own_roots(roots):
    assert trust.accept_first(trust.seal(document(roots), roots[:2])).trust.version == 1
    with pytest.raises(TrustError, match="1 of its own root keys signed; 2 must"):
        trust.accept_first(trust.seal(document(roots), roots[:1]))


def test_a_change_needs_old_and_new_roots(roots):
    first = trust.accept_first(trust.seal(document(roots), roots[:2]))
    newcomer = keys.PrivateKeySigner(keys.generate())
    second = document([newcomer], threshold=1, version=2, previous=first.digest)
    with pytest.raises(TrustError, match="current root keys"):
        trust.accept_next(first, trust.seal(second, [newcomer]))
    with pytest.raises(TrustError, match="new root keys"):
        trust.accept_next(first, trust.seal(second, roots[:2]))
    assert trust.accept_next(first, trust.seal(second, [*roots[:2], newcomer])).trust.version == 2


def test_versions_can_neither_go_back_nor_skip_nor_fork(roots):
    first = trust.accept_first(trust.seal(document(roots), roots))
    second = trust.accept_next(first, trust.seal(document(roots, version=2, previous=first.digest), roots))
    with pytest.raises(TrustRollbackError):
        trust.accept_next(second, first.body)
    with pytest.raises(TrustRollbackError):
        trust.accept_next(second, second.body)
    with pytest.raises(TrustError, match="does not follow"):
        trust.accept_next(second, trust.seal(document(roots, version=4, previous=second.digest), roots))
    with pytest.raises(TrustError, match="does not follow"):
        trust.accept_next(second, trust.seal(document(roots, version=3, previous=first.digest), roots))


def test_several_holders_can_sign_one_after_the_other(roots):
    one, two = (trust.seal(document(roots), [root]) for root in roots[:2])
    joined = envelope.join(envelope.parse(one), envelope.parse(two))
    assert trust.accept_first(joined).trust.threshold == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0}, "can never be met"),
        ({"threshold": 4}, "can never be met"),
        ({"roots": {"0" * 64: "-----BEGIN PUBLIC KEY-----"}, "threshold": 1}, "not a public key"),
    ],
)
def test_documents_that_contradict_themselves_are_refused(roots, changes, message):
    with pytest.raises(TrustError, match=message):
        trust.seal(document(roots, **changes), roots)


def test_key_ids_must_name_their_keys_and_principals_be_distinct(roots):
    one, two = roots[:2]
    swapped = {one.keyid: two.public_pem, two.keyid: one.public_pem}
    with pytest.raises(TrustError, match="does not name the key"):
        trust.seal(document(roots, roots=swapped), roots)
    for pair in ((principal("a", one, "ml"), principal("a", two, "ml")), (principal("a", one), principal("b", one))):
        with pytest.raises(TrustError, match="share an id or a key"):
            trust.seal(document(roots, principals=pair), roots)
    with pytest.raises(TrustError, match="not defined: emperor"):
        trust.seal(document(roots, principals=(principal("a", one, "emperor"),)), roots)


def test_a_key_counts_only_inside_its_window(roots):
    key = roots[0]
    said = document(roots, principals=(principal("a", key, "risk-owner", start=START, end=START + timedelta(days=1)),))
    assert not said.why_not(key.keyid, predicates.DECISION, START)
    assert "may sign from" in said.why_not(key.keyid, predicates.DECISION, START - timedelta(seconds=1))
    assert "may sign from" in said.why_not(key.keyid, predicates.DECISION, START + timedelta(days=1))


def test_a_role_signs_only_its_own_predicate_types(roots):
    key = roots[0]
    said = document(roots, principals=(principal("a", key, "risk-owner"),))
    assert "no role of a (risk-owner) may sign a assessment" in said.why_not(key.keyid, predicates.ASSESSMENT, START)
    assert said.keys_for(predicates.DECISION, START) == {key.keyid: key.public_pem}
    assert said.keys_for(predicates.VERDICT, START) == {}


def test_an_expired_trust_document_lets_nobody_sign(roots):
    key = roots[0]
    said = document(roots, principals=(principal("a", key, "risk-owner", end=START + 9 * YEAR),))
    assert "expired" in said.why_not(key.keyid, predicates.DECISION, START + YEAR)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_trust_error(data):
    with pytest.raises(TrustError):
        trust.accept_first(data)


ROOT = keys.PrivateKeySigner(keys.generate("ed25519"))
SEALED = trust.seal(document([ROOT], threshold=1), [ROOT])


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_mutated_document_is_refused(place, change):
    broken = SEALED[:place] + bytes([SEALED[place] ^ change]) + SEALED[place + 1 :]
    with pytest.raises(TrustError):
        trust.accept_first(broken)


@pytest.mark.parametrize(
    "make", [lambda: ec.generate_private_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)]
)
def test_other_kinds_of_key_are_refused(make):
    with pytest.raises(KeyFileError, match="not accepted"):
        keys.load_public(keys.public_pem(make().public_key()))


def test_statements_of_a_principal_that_was_taken_out_no_longer_count(world):
    world.good()
    first = world.view().signed_trust
    kept = tuple(who for who in first.trust.principals if who.id != "owner")
    next_version = msgspec.structs.replace(first.trust, version=2, previous=first.digest, principals=kept)
    assert world.gate().passed
    world.append(trust.seal(next_version, [world.signers["root"]]))
    assert not world.gate().passed

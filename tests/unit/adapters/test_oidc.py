"""Tokens of an OpenID provider that really runs, rotates its keys and answers badly, and a corpus of hostile ones."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bartizan.adapters import oidc
from bartizan.adapters.oidc import OidcKeys
from bartizan.core.errors import InputError, WorkError
from bartizan.lifecycle.deploy.gateway.caller import Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity import tokens as module
from bartizan.lifecycle.deploy.gateway.identity.chain import Chain
from bartizan.lifecycle.deploy.gateway.identity.refusal import UNKNOWN, Unready
from bartizan.lifecycle.deploy.gateway.identity.settings import IssuerSettings, RoleClaim
from bartizan.lifecycle.deploy.gateway.identity.tokens import Issuer, Tokens, make_tokens
from fixtures.issuers import DROPS, SigningKey, part, provider

ROLES = (RoleClaim(claim="groups", value="ml", role="analyst"),)


@pytest.fixture
def issuer():
    with provider() as served:
        yield served


def settings(issuer, **more):
    return IssuerSettings(
        issuer=issuer.issuer, audiences=("gateway",), **{"algorithms": ("ES256",), "role": ROLES, **more}
    )


def recogniser(issuer, **more):
    made = make_tokens((settings(issuer, **more),), OidcKeys)
    asyncio.run(made.issuers[issuer.issuer].look(time.time))
    return made


def ask(made, token, now=None, certificate=""):
    headers = {b"authorization": b"Bearer " + (token if isinstance(token, bytes) else token.encode())}
    return made.recognise(Showing(headers, "192.0.2.1", certificate), now or time.time())


def why(made, token, now=None):
    with pytest.raises(RequestError) as caught:
        ask(made, token, now)
    if isinstance(caught.value, Unready):
        raise caught.value
    assert (caught.value.status, caught.value.message) == (401, UNKNOWN)
    return caught.value.reason


def test_a_token_makes_a_caller_with_role_groups_attributes_and_factors(issuer):
    made = recogniser(
        issuer, groups="groups", attributes={"organisation": "org.name", "staff": "staff"}, contexts={"gold": "mfa"}
    )
    token = issuer.token(
        org={"name": "north"}, staff=True, amr=["pwd", "otp", "sms"], acr="gold", exp=int(time.time()) + 60
    )
    caller = ask(made, token)
    assert (caller.role, caller.method, caller.groups) == ("analyst", "jwt", ("ml",))
    assert caller.attributes == {"organisation": "north", "staff": "true"}
    assert caller.factors == ("otp", "mfa")
    assert "ada" not in caller.id
    assert ask(made, token) is caller
    assert ask(made, issuer.token(jti="another")).id == caller.id
    assert ask(made, issuer.token(sub="bob")).id != caller.id


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_every_kind_of_key_is_read_as_a_provider_writes_it(issuer, algorithm):
    issuer.keys = [SigningKey("k", algorithm)]
    made = recogniser(issuer, algorithms=(algorithm,))
    assert ask(made, issuer.token()).role == "analyst"


def test_times_count_within_the_skew_and_no_longer(issuer):
    made, now = recogniser(issuer, skew=30, longest=3600), time.time()
    token = issuer.token(exp=int(now) + 100, nbf=int(now) - 1)
    assert ask(made, token, now + 129).role == "analyst"
    assert "expired" in why(made, token, now + 131)
    assert "expired" in why(made, issuer.token(exp=int(now) - 31))
    assert "does not count yet" in why(made, issuer.token(nbf=int(now) + 40))
    assert "does not count yet" in why(made, issuer.token(iat=int(now) + 40))
    assert "never ends" in why(made, issuer.token(exp=None))
    assert "too long" in why(made, issuer.token(exp=int(now) + 3700))
    assert "too long" in why(made, issuer.token(exp=int(now) + 3700, iat=None))
    for odd in (True, "soon", -1, 1e300, [1]):
        assert "no time" in why(made, issuer.token(iat=odd))


def test_it_has_to_be_made_out_to_us_about_somebody_with_a_role(issuer):
    made = recogniser(issuer)
    assert "somebody else" in why(made, issuer.token(aud="another"))
    assert "somebody else" in why(made, issuer.token(aud=None))
    assert "somebody else" in why(made, issuer.token(aud={"gateway": 1}))
    assert ask(made, issuer.token(aud=["another", "gateway"])).role == "analyst"
    assert "names nobody" in why(made, issuer.token(sub=""))
    assert "role" in why(made, issuer.token(groups=["other"]))
    assert "role" in why(made, issuer.token(groups="ml and more"))
    assert "nobody who is configured" in why(made, issuer.token(iss="http://127.0.0.1:1"))


def forged(header, claims, signature=b"\0" * 64):
    return f"{part(header)}.{part(claims)}.{part(signature)}"


def claims_of(issuer, **more):
    now = int(time.time())
    return {"iss": issuer.issuer, "aud": "gateway", "sub": "ada", "iat": now, "exp": now + 60, "groups": ["ml"], **more}


def hostile(issuer):
    """Name to token: what is known to have worked against somebody."""
    claims, key = claims_of(issuer), issuer.keys[0]
    public = key.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def hs256(secret, header):
        body = f"{part(header)}.{part(claims)}"
        return f"{body}.{part(hmac.digest(secret, body.encode(), 'sha256'))}"

    mine = SigningKey("first")
    good = issuer.token()
    head, body, signature = good.split(".")
    yield "none", forged({"alg": "none", "kid": "first"}, claims, b"")
    yield "None", forged({"alg": "None", "kid": "first"}, claims, b"")
    yield "no algorithm", forged({"kid": "first"}, claims)
    yield "a list of algorithms", forged({"alg": ["ES256"], "kid": "first"}, claims)
    yield "HS256 with the public key (CVE-2015-9235)", hs256(pem, {"alg": "HS256", "kid": "first"})
    yield "ES256 with an HMAC", hs256(pem, {"alg": "ES256", "kid": "first"})
    yield "another's key under our name", issuer.token(key=mine)
    yield "its own key in jwk (CVE-2018-0114)", issuer.token(key=mine, header={"jwk": mine.jwk})
    yield "keys elsewhere in jku", issuer.token(key=mine, header={"jku": f"{issuer.issuer}/keys"})
    yield "certificates elsewhere in x5u", issuer.token(header={"x5u": f"{issuer.issuer}/keys"})
    yield "crit", issuer.token(header={"crit": ["b64"], "b64": False})
    yield "a signature of zeros (CVE-2022-21449)", f"{head}.{body}.{part(bytes(64))}"
    yield "no signature", f"{head}.{body}."
    yield "a shortened signature", f"{head}.{body}.{signature[:-4]}"
    yield "another body", f"{head}.{part(claims_of(issuer, sub='root'))}.{signature}"
    yield "a logout token", issuer.token(header={"typ": "logout+jwt"})
    yield "encrypted", f"{part({'alg': 'dir', 'enc': 'A256GCM'})}.{part(claims)}.x"
    for name in ("../../etc/passwd", "' OR 1=1 --", "", "\0", "first\n", "FIRST", "k" * 300, 7, None, ["first"]):
        yield f"key name {name!r:.20}", forged({"alg": "ES256", "kid": name}, claims)
    twice = json.dumps(claims)[:-1].encode() + b', "sub": "root"}'
    bodies = {
        "a claim twice": twice,
        "nested too deep": b"[" * 9000,
        "nested objects": b'{"a":' * 2000,
        "huge": b"A" * 20_000,
        "a huge number": b'{"exp":' + b"9" * 5000 + b"}",
        "not a number": b'{"iss": NaN}',
        "infinite": json.dumps(claims | {"exp": 1e999}).encode(),
        "no object": b"[]",
        "no UTF-8": b'{"iss": "\xff"}',
    }
    yield from ((name, f"{head}.{part(data)}.{signature}") for name, data in bodies.items())
    double = b'{"alg": "none", "alg": "ES256"}'
    yield "a header twice", f"{part(double)}.{body}.{signature}"
    yield "padding", f"{head}=.{body}.{signature}"
    yield "blanks", f"{head} .{body}.{signature}"
    yield "the other alphabet", f"{head}.{body}.{base64.b64encode(b'~' * 64).decode()}"
    yield "a bound token", issuer.token(cnf={"jkt": "x"})
    yield "a token bound to a certificate", issuer.token(cnf={"x5t#S256": "x"})


def test_hostile_tokens_are_all_refused_in_the_same_words(issuer):
    made = recogniser(issuer)
    assert ask(made, issuer.token()).role == "analyst"
    corpus, unready = dict(hostile(issuer)), {}
    for name, token in corpus.items():
        try:
            assert why(made, token), name
        except Unready:  # it names a key that is not known, which is looked for once
            unready[name] = token
    assert len(corpus) > 40
    assert 0 < len(unready) < 8
    asyncio.run(made.issuers[issuer.issuer].look(time.time))
    assert all(why(made, token) for token in unready.values())
    assert set(issuer.asked) == {"/.well-known/openid-configuration", "/keys"}
    assert issuer.asked.count("/keys") == 2, "no token makes us fetch anything more, or from where it says"


def test_a_bad_signature_is_verified_once(issuer, monkeypatch):
    made, verified = recogniser(issuer), []
    token = issuer.token(key=SigningKey("first"))
    source = made.issuers[issuer.issuer].source
    real = source.verify
    monkeypatch.setattr(source, "verify", lambda token: verified.append(token) or real(token))
    assert [why(made, token) for _ in range(3)].count("token: its signature does not count: InvalidSignatureError") == 3
    assert len(verified) == 1


def test_a_token_bound_to_a_certificate_counts_with_it_only(issuer):
    der = b"certificate"
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"
    bound = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    made, token = recogniser(issuer), issuer.token(cnf={"x5t#S256": bound})
    assert "another certificate" in why(made, token)
    assert ask(made, token, certificate=pem).role == "analyst"
    assert "another certificate" in why(made, token)


# ---- keys


def test_rotated_keys_count_at_once_and_withdrawn_ones_no_longer(issuer):
    async def go():
        made = make_tokens((settings(issuer),), OidcKeys)
        one = made.issuers[issuer.issuer]
        chain = Chain([made], anonymous=False)
        watch = asyncio.create_task(one.watch(time.time))
        old = issuer.token()
        try:
            with pytest.raises(Unready):  # nothing was seen of the issuer yet
                chain.recognise(Showing({b"authorization": f"Bearer {old}".encode()}), time.time())
            assert (await again(chain, old)).role == "analyst"
            issuer.keys = [SigningKey("second"), *issuer.keys]
            new = issuer.token()
            one._asked_at = 0
            assert (await again(chain, new)).role == "analyst"
            assert (await again(chain, old)).role == "analyst"
            issuer.keys = issuer.keys[:1]
            version = chain.version
            await one.look(time.time)
            assert chain.version > version
            with pytest.raises(RequestError) as caught:
                await again(chain, old)
            assert caught.value.status == 401
            assert (await again(chain, new)).role == "analyst"
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(go())


async def again(chain, token):
    """As the server does it: wait for the keys, when they are not known yet."""
    showing = Showing({b"authorization": f"Bearer {token}".encode()})
    try:
        return chain.recognise(showing, time.time())
    except Unready:
        return await chain.again(showing, time.time())


def test_unknown_keys_cause_one_look_however_many_ask(issuer):
    async def go():
        made = make_tokens((settings(issuer),), OidcKeys)
        one, chain = made.issuers[issuer.issuer], Chain([made], anonymous=False)
        await one.look(time.time)
        watch = asyncio.create_task(one.watch(time.time))
        await asyncio.sleep(0.1)
        before = issuer.asked.count("/keys")
        tokens = [issuer.token(key=SigningKey(f"unknown-{number}")) for number in range(40)]
        answers = await asyncio.gather(*(again(chain, token) for token in tokens), return_exceptions=True)
        assert {answer.status for answer in answers} == {401}
        assert issuer.asked.count("/keys") - before <= 1
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(go())


def test_keys_count_on_while_the_issuer_is_gone_and_then_no_longer(issuer):
    made = recogniser(issuer, patience=60, longest=7200)
    one, now = made.issuers[issuer.issuer], time.time()
    token = issuer.token(exp=int(now) + 3600)
    issuer.said["/.well-known/openid-configuration"] = 500
    asyncio.run(one.look(time.time))
    assert ask(made, token, now + 50).role == "analyst"
    with pytest.raises(RequestError):
        ask(made, token, now + 70)
    del issuer.said["/.well-known/openid-configuration"]
    asyncio.run(one.look(lambda: now + 70))
    assert ask(made, token, now + 71).role == "analyst"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/.well-known/openid-configuration", 404),
        ("/.well-known/openid-configuration", 302),
        ("/.well-known/openid-configuration", b"<html>"),
        ("/.well-known/openid-configuration", b"[]"),
        ("/.well-known/openid-configuration", b"[" * 100_000),
        (
            "/.well-known/openid-configuration",
            b'{"issuer": "https://evil.example", "jwks_uri": "https://evil.example/k"}',
        ),
        ("/keys", b" " * (600 * 1024)),
        ("/keys", b'{"keys": 7}'),
        ("/keys", b'{"keys": [' + b"{}," * 200 + b"{}]}"),
    ],
)
def test_answers_that_are_none_leave_the_keys_as_they_were(issuer, path, said):
    keys = OidcKeys(settings(issuer))
    assert keys.fetch()
    before = dict(keys._keys)
    issuer.said[path] = said
    with pytest.raises(WorkError):
        keys.fetch()
    assert keys._keys == before
    assert "/elsewhere" not in issuer.asked


def test_an_answer_that_comes_drop_by_drop_is_given_up(issuer, monkeypatch):
    monkeypatch.setattr(oidc, "SECONDS", 0.4)
    issuer.said["/keys"] = 0.1
    with pytest.raises(WorkError):
        OidcKeys(settings(issuer)).fetch()
    assert 0 < issuer.dripped < DROPS, "each drop alone comes in time; all of them take ten seconds"


def test_keys_are_kept_where_the_issuer_is_or_was_said_to_keep_them(issuer):
    told = json.dumps({"issuer": issuer.issuer, "jwks_uri": "https://keys.example/k"}).encode()
    issuer.said["/.well-known/openid-configuration"] = told
    with pytest.raises(WorkError, match="key_hosts"):
        OidcKeys(settings(issuer)).fetch()
    assert OidcKeys(settings(issuer, key_hosts=("keys.example",)))._may_hold("https://keys.example/k")
    for place in (
        "http://keys.example/k",
        "https://evil.example/k",
        "file:///etc/passwd",
        "https://keys.example@evil/k",
    ):
        assert not OidcKeys(settings(issuer, key_hosts=("keys.example",)))._may_hold(place)


def test_weak_secret_and_foreign_keys_are_left_out(issuer):
    weak = SigningKey("weak", "RS256", rsa.generate_private_key(65537, 1024))
    encrypting = {**SigningKey("enc").jwk, "use": "enc"}
    secret = {"kty": "oct", "kid": "oct", "k": part(b"secret" * 8), "alg": "HS256"}
    private = {**SigningKey("private").jwk, "d": "x"}
    other = {**SigningKey("other").jwk, "alg": "ES384"}
    listed = [weak.jwk, encrypting, secret, private, other, 7, {"kid": 7}, {"kty": "EC", "kid": "odd", "crv": "P-256"}]
    issuer.said["/keys"] = json.dumps({"keys": [*listed, issuer.keys[0].jwk]}).encode()
    keys = OidcKeys(settings(issuer, algorithms=("ES256", "RS256")))
    keys.fetch()
    assert [name for name, _ in keys._keys] == ["first"]


@pytest.mark.parametrize(
    "address", ["http://issuer.example", "ftp://127.0.0.1", "https://", "https://a@b", "https://a/?b", "https://a b"]
)
def test_an_issuer_is_asked_over_https_or_on_this_machine(address):
    with pytest.raises(InputError):
        OidcKeys(IssuerSettings(issuer=address, audiences=("a",)))


def test_remembered_tokens_are_bounded(issuer):
    made = Tokens({issuer.issuer: Issuer(settings(issuer), OidcKeys(settings(issuer)))}, remembered=16)
    asyncio.run(made.issuers[issuer.issuer].look(time.time))
    for number in range(40):
        assert ask(made, issuer.token(jti=str(number))).role == "analyst"
    assert len(made._verified) == 16
    assert len(made._refused) <= module.REFUSED

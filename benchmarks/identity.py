"""What recognising and admitting a caller costs, beside the least that it could and beside doing it anew each time.

python benchmarks/identity.py
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import os
import sys
import time
from types import SimpleNamespace

import cedarpy
import http_message_signatures as peer
import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bartizan.adapters.cedar import CedarPolicies
from bartizan.core.digest import digest_bytes
from bartizan.core.keys import generate, public_pem
from bartizan.lifecycle.deploy.gateway.caller import Caller, Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.chain import Chain
from bartizan.lifecycle.deploy.gateway.identity.claims import TokenError
from bartizan.lifecycle.deploy.gateway.identity.keys import ApiKeys, Index, KeyWanted, mint
from bartizan.lifecycle.deploy.gateway.identity.settings import (
    IssuerSettings,
    KeySettings,
    RoleClaim,
    SigningSettings,
    SourceSettings,
)
from bartizan.lifecycle.deploy.gateway.identity.tokens import make_tokens
from bartizan.lifecycle.deploy.gateway.input_signing import signed_headers
from bartizan.lifecycle.deploy.gateway.policy import Policy, Rights
from bartizan.lifecycle.deploy.gateway.signed_input import Request, SignedInput
from common import promise, tell

NOW = time.time()
ISSUER, DIGEST = "https://issuer.example", digest_bytes(b"model")
KEY = ec.generate_private_key(ec.SECP256R1())
KEYS = 10_000
URL, BODY = "https://model.example/v2/models/m/infer", os.urandom(1024)
POLICIES = "\n".join(
    f'permit(principal in Group::"g{each}", action == Action::"infer", resource == Model::"m{each}");'
    for each in range(100)
)


def microseconds(work, times=20_000, rounds=7):
    """Least processor time of one call."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - began)
    return best / times * 1e6


class Known:
    """An issuer's key, without an issuer."""

    def fetch(self):
        """See ``KeySource.fetch``."""
        return True

    def verify(self, token):
        """See ``KeySource.verify``."""
        try:
            jwt.api_jws.PyJWS().decode_complete(token.text, KEY.public_key(), algorithms=["ES256"])
        except jwt.PyJWTError as error:
            raise TokenError(str(error)) from error


def tokens(remembered=8192):
    settings = IssuerSettings(
        issuer=ISSUER,
        audiences=("gateway",),
        algorithms=("ES256",),
        role=(RoleClaim(claim="groups", value="ml", role="analyst"),),
    )
    made = make_tokens((settings,), lambda _: Known(), remembered)
    asyncio.run(made.issuers[ISSUER].look(lambda: NOW))
    return made


def written(number):
    claims = {"iss": ISSUER, "aud": "gateway", "sub": "a", "iat": int(NOW), "exp": int(NOW) + 600, "groups": ["ml"]}
    return jwt.encode(claims | {"jti": str(number)}, KEY, "ES256", {"kid": "k"})


def showing(token):
    return Showing({b"host": b"x", b"authorization": b"Bearer " + token.encode()}, "192.0.2.1")


def keys():
    secrets = [mint(KeyWanted(role="analyst"), NOW) for _ in range(KEYS)]
    made = ApiKeys(KeySettings())
    made.learn(Index([key for _, key in secrets]), NOW)
    return made, secrets[KEYS // 2][0]


def recognising():
    """API keys and tokens from memory, beside a digest and a dictionary."""
    made, secret = keys()
    chain = Chain([made, tokens()], anonymous=False)
    shown, known = showing(secret), {hashlib.sha256(secret.encode()).digest(): 1}
    text, now = shown.headers[b"authorization"][7:], NOW + 1
    floor = microseconds(lambda: known[hashlib.sha256(text).digest()])
    tell("SHA-256 and a dictionary", floor, "us", f"{KEYS} keys")
    key = microseconds(lambda: chain.recognise(shown, now))
    kept = [promise("recognise an API key", key, 2.0, "us"), promise("recognise an API key", key / floor, 4.0)]
    token = written(0)
    carried = showing(token)
    again = microseconds(lambda: chain.recognise(carried, now))
    anew = microseconds(lambda: jwt.decode(token, KEY.public_key(), ["ES256"], audience="gateway", issuer=ISSUER), 500)
    tell("PyJWT, every time", anew, "us")
    kept.append(promise("recognise a token that was seen before", again, 3.0, "us"))
    kept.append(promise("recognise a token that was seen before, beside PyJWT", again / anew, 0.05))
    # More tokens than are remembered, in turn: each of them is a new one.
    forgetful, others = tokens(16), itertools.cycle([showing(written(number)) for number in range(64)])
    first = microseconds(lambda: forgetful.recognise(next(others), now), 640)
    kept.append(promise("recognise a token for the first time, beside PyJWT", first / anew, 1.7))
    forged = showing(token[:-6] + "AAAAAA")
    kept.append(promise("refuse a forged token again", microseconds(lambda: refused(chain, forged), 5000), 10.0, "us"))
    return kept


def refused(chain, shown):
    try:
        chain.recognise(shown, NOW)
    except RequestError as error:
        return error


def deciding():
    """A decision from memory, beside a dictionary and beside Cedar."""
    caller = Caller(id="key:a", role="analyst", method="key", groups=("g7",))
    engine = CedarPolicies(POLICIES, ("infer", "detail.label"))
    policy = Policy({"analyst": Rights(operations=("infer",))}, attributes=engine)
    known = {("key:a", "infer", "m7"): 1}
    floor = microseconds(lambda: known["key:a", "infer", "m7"])
    tell("a dictionary", floor, "us")
    again = microseconds(lambda: policy.decide(caller, "infer", "m7", DIGEST))
    parsed = cedarpy.PolicySet.from_str(POLICIES)
    asked = {"principal": 'Caller::"a"', "action": 'Action::"infer"', "resource": 'Model::"m7"', "context": {}}
    anew = microseconds(lambda: cedarpy.is_authorized(asked, parsed, []), 200)
    tell("Cedar, 100 policies read beforehand, every time", anew, "us")
    first = microseconds(lambda: engine.permits(caller, "infer", "m7", DIGEST), 200)
    return [
        promise("decide again", again, 1.0, "us"),
        promise("decide again, beside Cedar every time", again / anew, 0.02),
        promise("decide with Cedar for the first time, beside that", first / anew, 2.0),
    ]


def signed():
    """Signed input beside the bare signature, and beside another implementation."""
    kept = []
    for name, key in (("hmac-sha256", b"s" * 32), ("ed25519", generate("ed25519")), ("ecdsa-p256-sha256", generate())):
        own = {"secret": "s"} if isinstance(key, bytes) else {"public_key": public_pem(key.public_key())}
        source = SourceSettings(name="north", keyid="k", algorithm=name, **own)
        settings = SigningSettings(source=(source,), nonces=1_000_000)
        made = SignedInput(settings, lambda _: b"s" * 32, started=0.0)
        requests = iter([_request(key) for _ in range(2100)])
        floor = microseconds(_bare(key), 500)
        took = microseconds(lambda made=made, requests=requests: _asked(made, next(requests)), 300)
        beside = microseconds(_peers(name, key, _request(key)), 100)
        tell(f"{name}: the bare signature", floor, "us")
        tell(f"{name}: http-message-signatures", beside, "us")
        kept.append(promise(f"{name}: signed input, more than the bare signature", took - floor, 40.0, "us"))
        kept.append(promise(f"{name}: beside http-message-signatures", took / beside, 0.8))
    return kept


def _asked(made, request):
    return made.source(request.method, request.path, request.headers, request.body, NOW, role="sensor")


def _request(key):
    plain = {"content-type": "application/json"}
    more = signed_headers(key, "k", method="POST", url=URL, headers=plain, body=BODY, created=int(NOW))
    fields = {"host": "model.example"} | plain | more
    return Request("POST", "/v2/models/m/infer", {name.encode(): text.encode() for name, text in fields.items()}, BODY)


def _bare(key):
    """Verifies 300 bytes, about as many as are signed of a request."""
    base = b"x" * 300
    if isinstance(key, bytes):
        return lambda: hmac.digest(key, base, "sha256")
    extra = () if isinstance(key, ed25519.Ed25519PrivateKey) else (ec.ECDSA(hashes.SHA256()),)
    public, made = key.public_key(), key.sign(base, *extra)
    return lambda: public.verify(made, base, *extra)


def _peers(name, key, request):
    kinds = {
        "hmac-sha256": peer.algorithms.HMAC_SHA256,
        "ed25519": peer.algorithms.ED25519,
        "ecdsa-p256-sha256": peer.algorithms.ECDSA_P256_SHA256,
    }
    public = key if isinstance(key, bytes) else key.public_key()
    resolver = peer.MappingKeyResolver(public_keys={"k": public}, private_keys={})
    verifier = peer.HTTPMessageVerifier(signature_algorithm=kinds[name], key_resolver=resolver)
    headers = {name.decode(): text.decode() for name, text in request.headers.items()}
    message = SimpleNamespace(method="POST", url=URL, headers=peer.structures.CaseInsensitiveDict(headers))
    return lambda: verifier.verify(message, max_age=None, body=BODY)


def main() -> int:
    """Run everything; exit code 1 when a promise is broken."""
    return 0 if all([*recognising(), *deciding(), *signed()]) else 1


if __name__ == "__main__":
    sys.exit(main())

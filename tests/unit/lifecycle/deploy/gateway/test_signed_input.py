"""Signed input: what the source signed, as it signed it, once and soon. Another implementation signs as well."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
from datetime import UTC, datetime
from types import SimpleNamespace

import http_message_signatures as peer
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import InputError, KeyFileError, StoreError
from bartizan.core.keys import generate, public_pem
from bartizan.lifecycle.deploy.gateway import signed_input
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.settings import SigningSettings, SourceSettings
from bartizan.lifecycle.deploy.gateway.input_signing import signed_headers
from bartizan.lifecycle.deploy.gateway.signed_input import Request, SignedInput
from bartizan.stores.shared.memory import MemoryState

NOW = 1_795_000_000
SECRET = b"s" * 32
KEYS = {"north": SECRET, "east": generate("ed25519"), "west": generate("ecdsa-p256")}
PATH, BODY = "/v2/models/tumour/infer", b'{"inputs": []}'
URL = f"https://model.example{PATH}"
PLAIN = {"content-type": "application/json"}


def source(name, **more):
    key = KEYS[name]
    if isinstance(key, bytes):
        own = {"algorithm": "hmac-sha256", "secret": name}
    else:
        kind = "ed25519" if name == "east" else "ecdsa-p256-sha256"
        own = {"algorithm": kind, "public_key": public_pem(key.public_key())}
    return SourceSettings(name=name, keyid=f"key-{name}", **(own | more))


def checker(state=None, started=NOW - 1000.0, sources=None, **more):
    settings = SigningSettings(source=sources or tuple(source(name) for name in KEYS), **more)
    return SignedInput(settings, lambda _: SECRET, started=started, state=state)


def request(fields, *, path=PATH, body=BODY, method="POST", query="", headers=PLAIN, host="model.example"):
    whole = {"host": host, **headers, **fields}
    return Request(method, path, {name.encode(): value.encode() for name, value in whole.items()}, body, query)


def signed(name="north", *, url=URL, body=BODY, headers=PLAIN, created=NOW, **more):
    key = KEYS[name]
    return signed_headers(
        key, f"key-{name}", method="POST", url=url, headers=headers, body=body, created=created, **more
    )


def who(made, asked, role="sensor", now=NOW + 1):
    found = made.source(asked.method, asked.path, asked.headers, asked.body, float(now), role=role, query=asked.query)
    if inspect.isawaitable(found):

        async def wait():
            return await found

        return asyncio.run(wait())
    return found


def why(made, asked, role="sensor", now=NOW + 1, status=401):
    with pytest.raises(RequestError) as caught:
        who(made, asked, role, now)
    assert caught.value.status == status
    return caught.value.reason


@pytest.mark.parametrize("name", list(KEYS))
def test_every_kind_of_signature_names_its_source(name):
    assert who(checker(), request(signed(name))) == name


def test_what_is_not_signed_names_nobody():
    assert who(checker(), request({})) == ""


def changed(text, place):
    """Text with one letter of its base64 changed."""
    letter = "A" if text[place] != "A" else "B"
    return text[:place] + letter + text[place + 1 :]


@pytest.mark.parametrize("name", list(KEYS))
def test_whatever_is_changed_on_the_way_is_seen(name):
    made, fields = checker(), signed(name, url=f"{URL}?a=1")
    fine = {"query": "a=1"}
    assert who(checker(), request(fields, **fine)) == name
    for more in (
        {"body": BODY + b" "},
        {"body": b""},
        {"method": "PUT"},
        {"path": PATH + "x"},
        {"query": "a=2"},
        {"query": ""},
        {"host": "other.example"},
        {"headers": {"content-type": "application/octet-stream"}},
        {"headers": {**PLAIN, "inference-header-content-length": "4"}},
        {"headers": {**PLAIN, "content-encoding": "identity"}},
        {"headers": {}},
    ):
        assert why(made, request(fields, **(fine | more)))
    for field in fields:
        for gone in ({name: value for name, value in fields.items() if name != field}, {**fields, field: ""}):
            assert why(made, request(gone, **fine))
    assert why(made, request(fields | {"signature": changed(fields["signature"], 20)}, **fine))
    assert why(made, request(fields | {"content-digest": changed(fields["content-digest"], 20)}, **fine))
    other = signed(name, url=f"{URL}?a=1")
    assert why(made, request(fields | {"signature": other["signature"]}, **fine))


def test_stale_and_early_signatures_do_not_count():
    made = checker(longest=60, skew=10)
    assert who(made, request(signed()), now=NOW + 60) == "north"
    assert "stale" in why(made, request(signed()), now=NOW + 61)
    assert who(made, request(signed(created=NOW + 10)), now=NOW) == "north"
    assert "future" in why(made, request(signed(created=NOW + 11)), now=NOW)


def test_a_request_counts_once():
    made, asked = checker(), request(signed())
    assert who(made, asked) == "north"
    assert "used before" in why(made, asked)
    assert "used before" in why(made, asked, now=NOW + 59)
    assert "stale" in why(made, asked, now=NOW + 10_000)


def test_it_counts_once_at_all_replicas_together():
    state, asked = MemoryState(), request(signed())
    one, two = checker(state), checker(state)
    assert who(one, asked) == "north"
    assert "another replica" in why(two, asked)


def test_what_was_signed_before_a_replica_began_may_have_been_seen():
    asked = request(signed())
    assert "stale" in why(checker(started=NOW + 5.0), asked, now=NOW + 6)
    assert "stale" in why(checker(MemoryState(), started=NOW + 5.0), asked, now=NOW + 6)
    assert who(checker(started=NOW + 5.0), request(signed(created=NOW + 5)), now=NOW + 6) == "north"


def test_without_the_shared_state_it_cannot_be_told():
    class Gone(MemoryState):
        async def count(self, *_, **__):
            raise StoreError("gone")

    assert "gone" in why(checker(Gone()), request(signed()), status=503)


def test_a_source_that_sends_too_much_waits_and_forgets_nothing():
    made = checker(nonces=16)
    asked = [request(signed()) for _ in range(17)]
    assert [who(made, each) for each in asked[:16]] == ["north"] * 16
    assert "more than 16" in why(made, asked[16], status=429)
    assert "used before" in why(made, asked[0])
    assert who(made, request(signed("east"))) == "east"
    later = NOW + 200
    assert who(made, request(signed(created=later)), now=later) == "north"


def test_forged_signatures_fill_no_memory():
    made = checker(nonces=16)
    for number in range(40):
        forged = signed_headers(
            b"x" * 32, "key-north", method="POST", url=URL, headers=PLAIN, body=b"%d" % number, created=NOW
        )
        assert why(made, request(forged, body=b"%d" % number))
    assert who(made, request(signed())) == "north"


def test_roles_hosts_and_tags_are_held_to():
    bound = checker(sources=(source("north", roles=("sensor",)),), authorities=("model.example",), tag="input")
    assert who(bound, request(signed(tag="input"))) == "north"
    assert "role" in why(bound, request(signed(tag="input")), role="analyst")
    assert "tag" in why(bound, request(signed()))
    elsewhere = signed(url=f"https://other.example{PATH}", tag="input")
    assert "host" in why(bound, request(elsewhere, host="other.example"))
    assert who(bound, request(signed(url=f"https://MODEL.example:443{PATH}", tag="input"))) == "north"


def rewritten(fields, old, new):
    return {**fields, "signature-input": fields["signature-input"].replace(old, new)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (";created=", ";expires=1;created="),
        (";nonce=", ";tag="),
        ('alg="hmac-sha256"', 'alg="ed25519"'),
        ('"@method" ', ""),
        ('"@path" ', ""),
        ('"@authority" ', ""),
        (' "content-digest"', ""),
        (' "content-type"', ""),
        ('"@method"', '"@method" "@method"'),
        ('"@method"', '"@method";req'),
        ('"@method"', '"@unknown"'),
        ('"@method"', '"x-missing"'),
        ("(", "( "),
        (";created=", "; created="),
        ("bartizan=", "other="),
        ("bartizan=", "bartizan=(),bartizan="),
        (";created=", ";created=1;created="),
        (";created=", ";strange=1;created="),
        ("key-north", "key-nobody"),
    ],
)
def test_signatures_that_are_not_quite_right_are_refused(old, new):
    fields = signed()
    assert old in fields["signature-input"]
    assert why(checker(), request(rewritten(fields, old, new)))


@given(st.binary(max_size=400), st.binary(max_size=200), st.binary(max_size=100))
def test_no_bytes_break_it(one, two, three):
    asked = Request("POST", PATH, {b"signature-input": one, b"signature": two, b"content-digest": three}, BODY)
    assert why(CHECKER, asked)


CHECKER = checker()


def test_large_fields_are_read_in_bounded_time():
    for text in ("a=(" + '"x" ' * 50_000, "a=()" + ";a=1" * 3_000, "a=" * 5_000, ", " * 4_000, 'a=("' + "x" * 8_000):
        assert why(CHECKER, request({"signature-input": text, "signature": text}))


def test_others_on_the_way_may_sign_as_well():
    fields = signed()
    both = {
        "content-digest": fields["content-digest"],
        "signature-input": 'proxy=("@method");created=1;keyid="proxy", ' + fields["signature-input"],
        "signature": "proxy=:AAAA:, " + fields["signature"],
    }
    assert who(checker(), request(both)) == "north"


def test_bodies_are_held_against_every_digest_that_is_known():
    made, fields = checker(), signed()
    sha512 = base64.b64encode(hashlib.sha512(BODY).digest()).decode()
    for digest, counts in (
        (f"sha-512=:{sha512}:", True),
        (f"sha-512=:{sha512}:, {fields['content-digest']}", True),
        (f"sha-512=:{sha512}:, sha-256=:AAAA:", False),
        ("md5=:AAAA:", False),
        ("unixsum=:AAAA:", False),
    ):
        again = signed(headers={**PLAIN, "content-digest": digest})
        if counts:
            assert who(made, request(again)) == "north"
        else:
            assert why(made, request(again))


# ---- another implementation


class _Keys(peer.HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id):
        return KEYS[key_id.removeprefix("key-")]

    def resolve_public_key(self, key_id):
        return KEYS[key_id.removeprefix("key-")]


ALGORITHMS = {
    "north": peer.algorithms.HMAC_SHA256,
    "east": peer.algorithms.ED25519,
    "west": peer.algorithms.ECDSA_P256_SHA256,
}


def _peer(name, headers, *, url=URL, covered, nonce=None):
    message = SimpleNamespace(method="POST", url=url, headers=peer.structures.CaseInsensitiveDict(headers))
    message.headers["Host"] = "model.example"
    signer = peer.HTTPMessageSigner(signature_algorithm=ALGORITHMS[name], key_resolver=_Keys())
    signer.sign(
        message,
        key_id=f"key-{name}",
        created=datetime.fromtimestamp(NOW, UTC),
        nonce=nonce or base64.b64encode(hashlib.sha256(repr((name, url, covered, headers)).encode()).digest()).decode(),
        covered_component_ids=covered,
        use_existing_digest=True,
    )
    return {name.lower(): value for name, value in message.headers.items() if name.lower() != "host"}


DIGEST = {"content-digest": f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"}


@pytest.mark.parametrize("name", list(KEYS))
@pytest.mark.parametrize(
    ("query", "covered"),
    [
        ("", ("@method", "@authority", "@path")),
        ("", ("@method", "@target-uri")),
        ("a=%20b&c", ("@method", "@authority", "@path", "@query", "@scheme")),
        ("a=%20b&c", ("@method", "@target-uri", "@authority")),
        ("a=b", ("@method", "@authority", "@request-target")),
    ],
)
def test_what_another_implementation_signs_counts(name, query, covered):
    url = URL + (f"?{query}" if query else "")
    fields = _peer(name, PLAIN | DIGEST, url=url, covered=(*covered, "content-type", "content-digest"))
    assert who(checker(), request(fields, query=query)) == name


@pytest.mark.parametrize(
    ("covered", "query"),
    [
        (("@authority", "@path", "content-type", "content-digest"), ""),
        (("@method", "@path", "content-type", "content-digest"), ""),
        (("@method", "@authority", "content-type", "content-digest"), ""),
        (("@method", "@authority", "@path", "content-digest"), ""),
        (("@method", "@authority", "@path", "content-type"), ""),
        (("@method", "@authority", "@path", "content-type", "content-digest"), "a=b"),
    ],
)
def test_a_right_signature_over_too_little_does_not_count(covered, query):
    url = URL + (f"?{query}" if query else "")
    fields = _peer("north", PLAIN | DIGEST, url=url, covered=covered)
    assert "does not cover" in why(checker(), request(fields, query=query))


@pytest.mark.parametrize("name", list(KEYS))
def test_another_implementation_reads_what_we_sign(name):
    fields = PLAIN | signed(name) | {"Host": "model.example"}
    message = SimpleNamespace(method="POST", url=URL, headers=peer.structures.CaseInsensitiveDict(fields))
    verifier = peer.HTTPMessageVerifier(signature_algorithm=ALGORITHMS[name], key_resolver=_PublicKeys())
    [result] = verifier.verify(message, max_age=None, body=BODY)
    assert result.parameters["keyid"] == f"key-{name}"


class _PublicKeys(_Keys):
    def resolve_public_key(self, key_id):
        key = KEYS[key_id.removeprefix("key-")]
        return key if isinstance(key, bytes) else key.public_key()


def test_the_base_is_that_of_the_standard():
    """RFC 9421, appendix B.2.6: request, key and signature as they are printed there."""
    fields = {
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type": "application/json",
        "content-length": "18",
        "signature-input": 'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"',
        "signature": "sig-b26="  # as it is printed
        ":wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
    }
    public = load_der_public_key(base64.b64decode("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="))
    key = SourceSettings(name="rfc", keyid="test-key-ed25519", algorithm="ed25519", public_key=public_pem(public))
    made = checker(sources=(key,))
    asked = request(fields, path="/foo", query="param=Value&Pet=dog", host="example.com", headers={})
    found, one = made._chosen(asked.headers[b"signature-input"], asked.headers[b"signature"])
    assert one.signed(made._base(found, asked), found.value)
    assert not one.signed(made._base(found, asked) + b" ", found.value)


# ---- keys


def test_keys_that_cannot_be_used_stop_the_start():
    west = public_pem(KEYS["west"].public_key())
    with pytest.raises(InputError):
        checker(sources=(SourceSettings(name="a", keyid="a", algorithm="ed25519", public_key=west),))
    with pytest.raises(InputError):
        checker(sources=(SourceSettings(name="a", keyid="a", algorithm="ed25519", public_key="x"),))
    with pytest.raises(KeyFileError):
        SignedInput(SigningSettings(source=(source("north"),)), lambda _: b"short", started=0.0)
    assert signed_input.LEAST_SECRET == 32

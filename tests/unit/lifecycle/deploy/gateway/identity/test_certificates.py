"""Certificates: by key or by name, now, and handed on by trusted proxies only."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from bartizan.lifecycle.deploy.gateway.caller import Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.certificates import Certificates, Proxies, read, thumbprint
from bartizan.lifecycle.deploy.gateway.identity.chain import Chain
from bartizan.lifecycle.deploy.gateway.identity.refusal import UNKNOWN
from bartizan.lifecycle.deploy.gateway.identity.settings import (
    CertificateSettings,
    ClientSettings,
    IdentitySettings,
    problems,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(key=KEY, names=(), uses=(ExtendedKeyUsageOID.CLIENT_AUTH,), days=30, start=NOW - timedelta(days=1)):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(start)
    made = made.not_valid_after(start + timedelta(days=days))
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if uses:
        made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


SPKI = hashlib.sha256(
    KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).hexdigest()
SPIFFE = x509.UniformResourceIdentifier("spiffe://north/camera")
CLIENTS = (
    ClientSettings(spki=SPKI, role="operator", hardware=True, groups=("ops",)),
    ClientSettings(san="uri:spiffe://north/camera", role="sensor", attributes={"site": "north"}),
)


def ask(pem, now=NOW, clients=CLIENTS):
    made = Certificates(CertificateSettings(client=clients))
    return made.recognise(Showing({}, "192.0.2.1", pem), now.timestamp())


def why(pem, now=NOW, **more):
    with pytest.raises(RequestError) as caught:
        ask(pem, now, **more)
    assert (caught.value.status, caught.value.message) == (401, UNKNOWN)
    return caught.value.reason


def test_a_client_is_known_by_its_key_or_by_a_name():
    by_key = ask(certificate())
    assert (by_key.role, by_key.method, by_key.factors, by_key.groups) == ("operator", "mtls", ("hwk",), ("ops",))
    other = ec.generate_private_key(ec.SECP256R1())
    by_name = ask(certificate(other, [x509.DNSName("x"), SPIFFE]))
    assert (by_name.role, by_name.factors, by_name.attributes) == ("sensor", (), {"site": "north"})
    renewed = ec.generate_private_key(ec.SECP256R1())
    assert ask(certificate(renewed, [SPIFFE])).id == by_name.id
    assert by_key.id != by_name.id
    assert ask("") is None


def test_names_are_what_they_are():
    other = ec.generate_private_key(ec.SECP256R1())
    for names in (
        [],
        [x509.DNSName("spiffe://north/camera")],
        [x509.UniformResourceIdentifier("spiffe://north/camera2")],
    ):
        assert "nobody" in why(certificate(other, names)), "neither the subject nor another kind of name counts"


def test_a_certificate_counts_in_its_time_and_for_clients():
    pem = certificate()
    assert ask(pem, NOW + timedelta(days=28)).role == "operator"
    assert "time" in why(pem, NOW + timedelta(days=29))
    assert "time" in why(pem, NOW - timedelta(days=2))
    assert "clients" in why(certificate(uses=(ExtendedKeyUsageOID.SERVER_AUTH,)))
    assert ask(certificate(uses=())).role == "operator"


@given(
    st.text(max_size=300)
    | st.binary(max_size=300).map(
        lambda data: f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(data).decode()}\n-----END CERTIFICATE-----"
    )
)
def test_no_text_breaks_it(text):
    if text:
        assert why(text)
    assert isinstance(thumbprint(text), str)
    with pytest.raises(ValueError, match="certificate"):
        read(text)


def test_it_is_bounded():
    assert "too large" in why("-----BEGIN CERTIFICATE-----" + "A" * 20_000 + "-----END CERTIFICATE-----")


# ---- proxies


PEM = certificate()
DER = base64.b64decode("".join(PEM.split("\n")[1:-2]))
RFC9440 = b":" + base64.b64encode(DER) + b":"


def proxies(form="rfc9440"):
    return Proxies(CertificateSettings(client=CLIENTS, proxies=("10.0.0.0/24", "::1"), form=form))


def handed(headers, client, own="", form="rfc9440"):
    return proxies(form).certificate(headers, client, own)


def test_trusted_proxies_hand_certificates_on():
    assert ask(handed({b"client-cert": RFC9440}, "10.0.0.9")).role == "operator"
    assert ask(handed({b"client-cert": quote(PEM).encode()}, "::1", form="url-pem")).role == "operator"
    assert ask(handed({b"client-cert": RFC9440}, "::ffff:10.0.0.9")).role == "operator"


@pytest.mark.parametrize("client", ["192.0.2.1", "10.0.1.1", "", "unknown", "127.0.0.1"])
def test_nobody_else_does(client):
    with pytest.raises(RequestError) as caught:
        handed({b"client-cert": RFC9440}, client)
    assert caught.value.status == 401
    with pytest.raises(RequestError):
        handed({b"client-cert": RFC9440}, client, own=PEM)


def test_the_certificate_of_the_proxy_itself_is_nobodys():
    assert handed({}, "10.0.0.9", own=PEM) == ""
    assert handed({}, "192.0.2.1", own=PEM) == PEM


@pytest.mark.parametrize("value", [b"", b":", b"::x", b":!:", b":" + b"A" * 20_000 + b":", RFC9440[1:], b"\xff\xfe"])
def test_what_is_no_certificate_is_refused(value):
    for form in ("rfc9440", "url-pem"):
        with pytest.raises(RequestError) as caught:
            ask(handed({b"client-cert": value}, "10.0.0.9", form=form) or "nothing")
        assert caught.value.status == 401


def test_settings_that_contradict_themselves_are_named():
    def of(**more):
        return problems(IdentitySettings(certificates=CertificateSettings(**more)))

    assert of(client=CLIENTS, proxies=("10.0.0.1",)) == ()
    assert of(client=(ClientSettings(role="a"),))
    assert of(client=(ClientSettings(role="a", spki=SPKI, san="dns:x"),))
    assert of(client=(CLIENTS[0], CLIENTS[0]))
    assert of(proxies=("everywhere",))


def test_the_chain_believes_its_proxies_only():
    made = Certificates(CertificateSettings(client=CLIENTS))
    chain = Chain([made], anonymous=False, proxies=proxies())
    now = NOW.timestamp()
    assert chain.recognise(Showing({b"client-cert": RFC9440}, "10.0.0.9"), now).role == "operator"
    assert chain.recognise(Showing({}, "192.0.2.1", PEM), now).role == "operator"
    for showing in (
        Showing({b"client-cert": RFC9440}, "192.0.2.1"),
        Showing({b"client-cert": RFC9440}, "192.0.2.1", PEM),
        Showing({}, "10.0.0.9", PEM),
        Showing({}, "10.0.0.9"),
    ):
        with pytest.raises(RequestError) as caught:
            chain.recognise(showing, now)
        assert caught.value.status == 401
    alone = Chain([made], anonymous=False)
    with pytest.raises(RequestError):
        alone.recognise(Showing({b"client-cert": RFC9440}, "10.0.0.9"), now)

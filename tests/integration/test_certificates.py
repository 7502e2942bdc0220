"""Signatures by certificate: the reference tool accepts ours, we accept its, and neither accepts a wrong chain."""

from __future__ import annotations

import base64
import functools
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core import keys
from bartizan.core.errors import BartizanError, TrustError
from bartizan.lifecycle.develop.certificates import certificate_bundle, holder_of
from bartizan.lifecycle.develop.sign import sign_manifest
from bartizan.stores.files import LocalFiles
from bartizan.stores.keys import save_key

NOW = datetime.now(UTC)
NOTHING = dict.fromkeys(
    (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    ),
    False,
)  # fmt: skip


def issue(name, key, *, by=None, authority=False, length=None, purposes=(), usage=None, start=-1, end=30, email=""):
    """A certificate for ``key``; ``by`` is (certificate, key) of the issuer, or None for a root."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = (by[0].subject, by[1]) if by else (subject, key)
    usage = usage or ("key_cert_sign" if authority else "digital_signature")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=start))
        .not_valid_after(NOW + timedelta(days=end))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=length), critical=True)
        .add_extension(x509.KeyUsage(**{**NOTHING, usage: True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if email:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=False)
    return builder.sign(signing, hashes.SHA256())


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


class Authority:
    """A root, one authority below it, and a signer below that."""

    def __init__(self, **leaf):
        self.root_key, self.middle_key, self.key = new_key(), new_key(), new_key()
        self.root = issue("Root", self.root_key, authority=True, length=1)
        below = (self.root, self.root_key)
        self.middle = issue("Middle", self.middle_key, by=below, authority=True, length=0)
        options = {"purposes": [ExtendedKeyUsageOID.CODE_SIGNING], "email": "ml@hospital.example", **leaf}
        self.leaf = issue("Signer", self.key, by=(self.middle, self.middle_key), **options)

    def write(self, folder):
        for name in ("root", "middle", "leaf"):
            (folder / f"{name}.pem").write_bytes(pem(getattr(self, name)))
        save_key(self.key, folder / "key.pem", passphrase=None, unencrypted=True)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights" * 100)
    (folder / "part" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project folder whose service key is certified."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    authority = Authority()
    authority.write(tmp_path)
    (tmp_path / ".bartizan" / "keys").mkdir(parents=True)
    save_key(authority.key, tmp_path / ".bartizan/keys/service.pem", passphrase=None, unencrypted=True)
    return tmp_path


@pytest.fixture
def ask(place, ask_in):
    return functools.partial(ask_in, place)


def reference(*arguments):
    """The reference command line of OpenSSF Model Signing."""
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def signed(ask, place, model):
    code, _, errors = ask(
        "sign", str(model), "-o", str(place / "m.sig"),
        "--certificate", str(place / "leaf.pem"), "--chain", str(place / "middle.pem"),
    )  # fmt: skip
    assert code == 0, errors
    return place / "m.sig"


def test_the_reference_tool_verifies_our_certificate_signature(ask, place, model):
    signature = signed(ask, place, model)
    verify = ("verify", "certificate", model, "--signature", signature, "--certificate_chain")
    done = reference(*verify, place / "root.pem")
    assert done.returncode == 0, done.stderr + done.stdout
    (place / "other.pem").write_bytes(pem(Authority().root))
    assert reference(*verify, place / "other.pem").returncode != 0
    (model / "weights.bin").write_bytes(b"others")
    assert reference(*verify, place / "root.pem").returncode != 0


def test_we_verify_the_reference_tool_s_certificate_signature(ask, place, model):
    signature = place / "theirs.sig"
    done = reference(
        "sign", "certificate", model, "--signature", signature, "--private_key", place / "key.pem",
        "--signing_certificate", place / "leaf.pem", "--certificate_chain", place / "middle.pem",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    verify = ("verify", str(model), "--signature", str(signature), "--trust-root", str(place / "root.pem"), "--json")
    code, output, errors = ask(*verify)
    assert (code, json.loads(output)["signer"]) == (0, ["ml@hospital.example", "Signer"]), errors
    (model / "added").write_text("x")
    code, output, _ = ask(*verify)
    assert (code, json.loads(output)["differences"]) == (1, [{"name": "added", "what": "added"}])


def test_the_signer_s_name_can_be_demanded(ask, place, model):
    signature = signed(ask, place, model)
    verify = ("verify", str(model), "--signature", str(signature), "--trust-root", str(place / "root.pem"))
    assert ask(*verify, "--identity", "ml@hospital.example")[0] == 0
    code, _, errors = ask(*verify, "--identity", "somebody@else.example")
    assert (code, "not somebody@else.example" in errors) == (2, True)


def test_either_a_key_or_a_root_is_needed(ask, place, model):
    signature = signed(ask, place, model)
    assert ask("verify", str(model), "--signature", str(signature))[0] == 2
    assert ask("sign", str(model), "-o", str(place / "x"), "--chain", str(place / "middle.pem"))[0] == 2


def test_the_certificate_must_be_the_signer_s(ask, place, model):
    (place / "wrong.pem").write_bytes(pem(Authority().leaf))
    code, _, errors = ask("sign", str(model), "-o", str(place / "x"), "--certificate", str(place / "wrong.pem"))
    assert (code, "another key" in errors) == (2, True)
    assert not (place / "x").exists()


def bundle(authority, model, *, chain=None):
    manifest = LocalFiles().manifest(model)
    body, _ = sign_manifest("model", manifest, keys.PrivateKeySigner(authority.key))
    chain = chain if chain is not None else [authority.leaf, authority.middle]
    listed = [{"rawBytes": base64.b64encode(one.public_bytes(serialization.Encoding.DER)).decode()} for one in chain]
    return json.dumps(
        {
            "verificationMaterial": {"x509CertificateChain": {"certificates": listed}},
            "dsseEnvelope": json.loads(body),
        }
    ).encode()


def test_chains_that_do_not_hold_are_refused(model):
    sound = Authority()
    assert holder_of(bundle(sound, model), [sound.root], NOW).names == ("ml@hospital.example", "Signer")
    self_made = issue("Signer", sound.key, purposes=[ExtendedKeyUsageOID.CODE_SIGNING])
    by_signer = issue("Below", sound.key, by=(sound.leaf, sound.key), purposes=[ExtendedKeyUsageOID.CODE_SIGNING])
    low_key = new_key()
    low = issue("Low", low_key, by=(sound.middle, sound.middle_key), authority=True)
    too_deep = issue("Signer", sound.key, by=(low, low_key), purposes=[ExtendedKeyUsageOID.CODE_SIGNING])
    for chain, complaint in (
        ([sound.leaf], "does not lead to a trusted root"),
        ([self_made], "does not lead to a trusted root"),
        ([by_signer, sound.leaf, sound.middle], "does not lead to a trusted root"),
        ([too_deep, low, sound.middle], "does not lead to a trusted root|authorities below it"),
        ([Authority().leaf, sound.middle], "does not lead to a trusted root"),
    ):
        with pytest.raises(TrustError, match=complaint):
            holder_of(bundle(sound, model, chain=chain), [sound.root], NOW)
    with pytest.raises(BartizanError, match="trusted root"):
        holder_of(bundle(sound, model), [Authority().root], NOW)


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, id="a web server's"),
        pytest.param({"purposes": (), "usage": "key_agreement"}, id="not for signing"),
        pytest.param({"usage": "key_agreement"}, id="the key may not sign"),
        pytest.param({"start": -20, "end": -10}, id="over"),
        pytest.param({"start": 10, "end": 20}, id="not yet valid"),
    ],
)
def test_certificates_that_are_not_for_this_are_refused(model, leaf):
    authority = Authority(**leaf)
    with pytest.raises(BartizanError):
        holder_of(bundle(authority, model), [authority.root], NOW)


def test_a_past_time_may_be_named(model):
    authority = Authority()
    with pytest.raises(BartizanError):
        holder_of(bundle(authority, model), [authority.root], NOW + timedelta(days=60))
    late = NOW + timedelta(days=29)
    assert holder_of(bundle(authority, model), [authority.root], late).valid_until > late


def test_keyless_and_key_signatures_are_told_apart(model):
    authority = Authority()
    whole = json.loads(bundle(authority, model))
    whole["verificationMaterial"]["tlogEntries"] = [{}]
    with pytest.raises(BartizanError, match="keyless"):
        holder_of(json.dumps(whole).encode(), [authority.root], NOW)
    whole["verificationMaterial"] = {"publicKey": {}}
    with pytest.raises(BartizanError, match="by key"):
        holder_of(json.dumps(whole).encode(), [authority.root], NOW)


def test_keys_of_other_kinds_are_refused_in_words(model):
    root_key, key = new_key(), rsa.generate_private_key(65537, 2048)
    root = issue("Root", root_key, authority=True)
    leaf = issue("Signer", key, by=(root, root_key), purposes=[ExtendedKeyUsageOID.CODE_SIGNING])
    with pytest.raises(BartizanError, match="not accepted"):
        certificate_bundle(b"{}", "", [leaf])


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """An authority, a sound bundle, and the signer's certificate in it."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "weights").write_bytes(b"weights")
    authority = Authority()
    return authority, json.loads(bundle(authority, folder)), authority.leaf.public_bytes(serialization.Encoding.DER)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # negative serial numbers
@settings(max_examples=150)
@given(at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_hostile_certificates_end_in_an_error_of_ours(example, at, bits, cut):
    authority, sound, der = example
    place = int(at * len(der))
    raw = der[:place] if cut else der[:place] + bytes([der[place] ^ bits]) + der[place + 1 :]
    material = {"x509CertificateChain": {"certificates": [{"rawBytes": base64.b64encode(raw).decode()}]}}
    with pytest.raises(BartizanError):
        holder_of(json.dumps({**sound, "verificationMaterial": material}).encode(), [authority.root], NOW)


@pytest.mark.parametrize(
    "material",
    [
        b"{}", b"null", b"[]", b'{"verificationMaterial": null}', b'{"verificationMaterial": {"certificate": 1}}',
        b'{"verificationMaterial": {"x509CertificateChain": {"certificates": []}}}',
        b'{"verificationMaterial": {"x509CertificateChain": {"certificates": [{"rawBytes": "?"}]}}}',
        b'{"verificationMaterial": {"certificate": {"rawBytes": 1}}}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
def test_bundles_without_certificates_are_refused(material):
    with pytest.raises(BartizanError):
        holder_of(material, [Authority().root], NOW)


@pytest.mark.parametrize(
    ("purposes", "accepted"),
    [
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.CODE_SIGNING], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
    ],
)
def test_an_authority_for_web_servers_vouches_for_no_code(tmp_path, purposes, accepted):
    authority = Authority()
    below = (authority.root, authority.root_key)
    middle = issue("Middle", authority.middle_key, by=below, authority=True, length=0, purposes=purposes)
    (tmp_path / "weights").write_bytes(b"x")
    manifest = LocalFiles().manifest(tmp_path / "weights")
    signer = keys.PrivateKeySigner(authority.key)
    body, _ = sign_manifest("weights", manifest, signer)
    bundle = certificate_bundle(body, signer.public_pem, [authority.leaf, middle])
    if accepted:
        assert "ml@hospital.example" in holder_of(bundle, [authority.root], NOW).names
        return
    with pytest.raises(TrustError, match="does not lead to a trusted root"):
        holder_of(bundle, [authority.root], NOW)

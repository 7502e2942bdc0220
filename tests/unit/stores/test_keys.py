"""Key files: made safely, read strictly."""

from __future__ import annotations

import base64
import importlib
import os
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan.core import keys
from bartizan.core.errors import KeyFileError
from bartizan.stores.keys import MAX_KEY_BYTES, load_signer, pkcs8, read_public, save_key, signer_from_uri
from fixtures.effort import within


def secret():
    return "correct horse"


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ed25519"])
@pytest.mark.parametrize("unencrypted", [True, False])
def test_keys_are_saved_privately_and_read_back(tmp_path, algorithm, unencrypted):
    key = keys.generate(algorithm)
    path = tmp_path / "k.pem"
    save_key(key, path, passphrase=None if unencrypted else secret(), unencrypted=unencrypted)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) is not unencrypted
    signer = load_signer(path, secret)
    assert signer.keyid == keys.keyid_of(key.public_key())
    assert keys.verify(key.public_key(), signer.sign(b"data"), b"data")
    assert not keys.verify(key.public_key(), signer.sign(b"data"), b"other")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_opens_our_encrypted_keys(tmp_path):
    path = tmp_path / "k.pem"
    save_key(keys.generate(), path, passphrase=secret())
    done = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-passin", f"pass:{secret()}", "-pubout"], capture_output=True, check=True
    )
    assert keys.keyid_of(keys.load_public(done.stdout.decode())) == load_signer(path, secret).keyid


def test_a_key_is_never_written_over_another(tmp_path):
    path = tmp_path / "k.pem"
    save_key(keys.generate(), path, passphrase="x")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="not overwritten"):
        save_key(keys.generate(), path, passphrase="x")
    assert path.read_bytes() == before


def test_a_passphrase_is_needed_unless_asked_otherwise(tmp_path):
    for passphrase in ("", None):
        with pytest.raises(KeyFileError, match="passphrase is needed"):
            save_key(keys.generate(), tmp_path / "k.pem", passphrase=passphrase)
    with pytest.raises(KeyFileError, match="takes no passphrase"):
        save_key(keys.generate(), tmp_path / "k.pem", passphrase="x", unencrypted=True)
    assert not (tmp_path / "k.pem").exists()


def test_a_key_that_could_not_be_written_leaves_no_file(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyFileError, match="No space left"):
        save_key(keys.generate(), tmp_path / "k.pem", passphrase="x")
    assert list(tmp_path.iterdir()) == []


def test_passphrases_may_be_any_bytes_of_the_environment(tmp_path):
    odd = b"caf\xe9 \xf0\x9f\x94\x91".decode(errors="surrogateescape")
    save_key(keys.generate(), tmp_path / "k.pem", passphrase=odd)
    assert load_signer(tmp_path / "k.pem", lambda: odd).keyid


def test_wrong_or_missing_passphrases_are_refused(tmp_path):
    path = tmp_path / "k.pem"
    save_key(keys.generate(), path, passphrase=secret())
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        load_signer(path, lambda: "wrong")
    with pytest.raises(KeyFileError, match="protected by a passphrase") as caught:
        load_signer(path, lambda: None)
    assert "BARTIZAN_PASSPHRASE" in caught.value.remedy


def write(path, data, mode=0o600):
    path.write_bytes(data)
    path.chmod(mode)
    return path


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_other_things_than_keys_are_refused(tmp_path):
    good = pem(keys.generate())
    cases = {
        "empty": (b"", "is empty"),
        "text": (b"hello", "no private key in PEM form"),
        "truncated": (good[: len(good) // 2], "cannot be opened|no private key"),
        "huge": (b"x" * (MAX_KEY_BYTES + 1), "larger than"),
        "public": (keys.public_pem(keys.generate().public_key()).encode(), "is a public key"),
        "rsa": (pem(rsa.generate_private_key(65537, 2048)), "key of kind RSA"),
        "p384": (pem(ec.generate_private_key(ec.SECP384R1())), "holds a key of kind"),
    }
    for name, (data, message) in cases.items():
        with pytest.raises(KeyFileError, match=message):
            load_signer(write(tmp_path / name, data), secret)
    with pytest.raises(KeyFileError, match="no key"):
        load_signer(tmp_path / "absent", secret)
    with pytest.raises(KeyFileError):
        load_signer(tmp_path, secret)


def test_private_keys_open_to_others_are_refused(tmp_path):
    with pytest.raises(KeyFileError, match="can be read by others") as caught:
        load_signer(write(tmp_path / "k.pem", pem(keys.generate()), 0o644), secret)
    assert "chmod 600" in caught.value.remedy


def test_public_keys_are_read_and_private_ones_not_taken_for_them(tmp_path):
    key = keys.generate()
    public = keys.public_pem(key.public_key())
    assert read_public(write(tmp_path / "p.pem", public.encode(), 0o644)) == public
    with pytest.raises(KeyFileError, match="is a private key"):
        read_public(write(tmp_path / "k.pem", pem(key)))
    with pytest.raises(KeyFileError, match="no accepted public key"):
        read_public(write(tmp_path / "x.pem", b"\xff\xfe"))


def sealed(derivation, *numbers):
    """An encrypted key that asks for any amount of work."""
    salt = pkcs8._der(pkcs8._OCTETS, bytes(16))
    cost = pkcs8._der(pkcs8._SEQUENCE, salt, *map(pkcs8._integer, numbers))
    kdf = pkcs8._der(pkcs8._SEQUENCE, pkcs8._der(pkcs8._OID, derivation), cost)
    cipher = pkcs8._der(pkcs8._SEQUENCE, pkcs8._der(pkcs8._OID, pkcs8._AES_256_CBC), salt)
    scheme = pkcs8._der(pkcs8._SEQUENCE, pkcs8._der(pkcs8._OID, pkcs8._PBES2), pkcs8._der(pkcs8._SEQUENCE, kdf, cipher))
    der = pkcs8._der(pkcs8._SEQUENCE, scheme, pkcs8._der(pkcs8._OCTETS, bytes(144)))
    return b"\n".join([pkcs8._BEGIN, base64.b64encode(der), pkcs8._END, b""])


PBKDF2 = bytes.fromhex("2a864886f70d01050c")


@pytest.mark.parametrize(
    "pem_bytes",
    [
        sealed(PBKDF2, 2**31 - 1),
        sealed(PBKDF2, 2**200, 32),
        sealed(pkcs8._SCRYPT, 2**40, 8, 1, 32),
        sealed(pkcs8._SCRYPT, 2**21, 64, 1),
        sealed(pkcs8._SCRYPT, 2**14, 8, 2**30),
        sealed(b"nested", *[0] * 10).replace(b"A", b"M"),
        pkcs8._BEGIN + base64.b64encode(b"\x30\x80" * 20_000) + pkcs8._END,
    ],
    ids=["rounds", "many-rounds", "memory", "memory-by-blocks", "lanes", "garbled", "nested"],
)
def test_keys_that_ask_for_endless_work_are_refused_at_once(tmp_path, pem_bytes):
    path = write(tmp_path / "k.pem", pem_bytes)
    with within(0.5), pytest.raises(KeyFileError) as caught:
        load_signer(path, secret)
    assert caught.value.remedy


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("ways", [["-scrypt"], ["-v2", "aes-256-cbc", "-iter", "600000"], ["-v2", "aes128"]])
def test_keys_encrypted_by_openssl_are_read(tmp_path, ways):
    key = keys.generate()
    plain = write(tmp_path / "plain.pem", pem(key))
    path = tmp_path / "k.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", plain, "-passout", f"pass:{secret()}", "-out", path, *ways]
    subprocess.run(command, check=True)
    path.chmod(0o600)
    assert load_signer(path, secret).keyid == keys.keyid_of(key.public_key())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=500))
def test_any_bytes_are_refused_with_a_key_error(tmp_path, data):
    path = write(tmp_path / "any.pem", data)
    for read in (lambda: load_signer(path, secret), lambda: read_public(path)):
        with pytest.raises(KeyFileError):
            read()


def test_signers_by_uri_sign_what_the_public_key_verifies(tmp_path):
    key = keys.generate()
    path = write(tmp_path / "k.pem", pem(key))
    public = keys.public_pem(key.public_key())
    signer = signer_from_uri(f"file2:{path}", public)
    assert signer.keyid == keys.keyid_of(key.public_key())
    assert keys.verify(key.public_key(), signer.sign(b"data"), b"data")


def test_key_files_by_uri_are_held_to_the_same_rules(tmp_path):
    key = keys.generate()
    path = tmp_path / "a key.pem"
    save_key(key, path, passphrase=secret())
    public = keys.public_pem(key.public_key())
    for uri in (path.as_uri(), f"file2:{path}"):
        signer = signer_from_uri(uri, public, lambda wanted: secret() if wanted == "passphrase" else None)
        assert keys.verify(key.public_key(), signer.sign(b"data"), b"data")
        with pytest.raises(KeyFileError, match="passphrase"):
            signer_from_uri(uri, public)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="read by others"):
        signer_from_uri(path.as_uri(), public, lambda _: secret())


@pytest.mark.skipif(importlib.util.find_spec("pkcs11") is not None, reason="python-pkcs11 is installed")
def test_a_library_that_is_missing_is_named():
    public = keys.public_pem(keys.generate().public_key())
    with pytest.raises(KeyFileError, match="python-pkcs11") as caught:
        signer_from_uri("hsm:2", public, lambda _: "1234")
    assert "securesystemslib[hsm]" in caught.value.remedy


@pytest.fixture
def cloud_key(s3_endpoint, monkeypatch):
    """Client and id of a key in a key service that speaks the AWS protocol over a socket."""
    for name, value in {"ENDPOINT_URL": s3_endpoint, "REGION": "eu-west-2", "DEFAULT_REGION": "eu-west-2"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    # NOTE: moto documents that it does not implement MessageType=DIGEST, which is all that our client sends.
    monkeypatch.setattr(
        importlib.import_module("moto.kms.utils").ECDSAPrivateKey,
        "sign",
        lambda self, digest, _algorithm: self.private_key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))),
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = importlib.import_module("boto3").client("kms")
    made = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    yield client, made["KeyMetadata"]["KeyId"]
    client.close()


def test_a_key_in_a_cloud_service_signs_what_its_public_key_verifies(cloud_key):
    client, keyid = cloud_key
    der = client.get_public_key(KeyId=keyid)["PublicKey"]
    public = keys.public_pem(serialization.load_der_public_key(der))
    signer = signer_from_uri(f"awskms:{keyid}", public)
    assert signer.keyid == keys.keyid_of(keys.load_public(public))
    assert keys.verify(keys.load_public(public), signer.sign(b"data"), b"data")
    other = signer_from_uri(f"awskms:{keyid}", keys.public_pem(keys.generate().public_key()))
    with pytest.raises(KeyFileError, match="not the one of the public key"):
        other.sign(b"data")
    absent = signer_from_uri("awskms:00000000-0000-0000-0000-000000000000", public)
    with pytest.raises(KeyFileError, match="did not sign"):
        absent.sign(b"data")


def test_a_uri_that_leads_to_another_key_is_noticed(tmp_path):
    path = write(tmp_path / "k.pem", pem(keys.generate()))
    signer_public = keys.public_pem(keys.generate().public_key())
    with pytest.raises(KeyFileError):
        signer_from_uri(f"file2:{path}", signer_public).sign(b"data")


@pytest.mark.parametrize("uri", ["gopher:x", "", "hsm:2?x", "gcpkms:nowhere"])
def test_uris_that_lead_nowhere_are_refused_with_a_remedy(uri):
    public = keys.public_pem(keys.generate().public_key())
    with pytest.raises(KeyFileError) as caught:
        signer_from_uri(uri, public)
    assert caught.value.remedy

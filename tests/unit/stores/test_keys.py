"""Key files: made safely, read strictly."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan.core import keys
from bartizan.core.errors import KeyFileError
from bartizan.stores.keys import MAX_KEY_BYTES, load_signer, read_public, save_key, signer_from_uri


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
    with pytest.raises(KeyFileError, match="passphrase is needed"):
        save_key(keys.generate(), tmp_path / "k.pem", passphrase="")


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

"""Other people's verifiers judge what we sign, and we judge what they sign."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from bartizan.core import envelope, keys, predicates, statement
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import EvidenceError
from bartizan.lifecycle.develop.sign import Difference, sign_manifest, signature_statement, verify_bundle
from bartizan.stores.files import LocalFiles
from bartizan.stores.keys import load_signer, save_key
from fixtures.world import World

FILES = {"model.bin": b"weights" * 1000, "sub/config.json": b"{}", "sub/é.txt": b"names"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "model"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def key(tmp_path):
    made = keys.generate("ecdsa-p256")
    save_key(made, tmp_path / "key.pem", passphrase=None, unencrypted=True)
    (tmp_path / "key.pub").write_text(keys.public_pem(made.public_key()))
    return tmp_path / "key.pem"


def model_signing(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The reference command line of OpenSSF Model Signing."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "model_signing", *arguments], capture_output=True, text=True, check=False
    )


def ours(key: Path, path: Path) -> Path:
    _, bundle = sign_manifest(path.name, LocalFiles().manifest(path), load_signer(key, lambda: None))
    signature = path.parent / f"{path.name}.sig"
    signature.write_bytes(bundle)
    return signature


@pytest.mark.control("2.3-y")
def test_the_reference_tool_verifies_our_folder_signature_offline(folder, key):
    signature = ours(key, folder)
    verify = ("verify", "key", str(folder), "--signature", str(signature), "--public_key", str(key.with_suffix(".pub")))
    done = model_signing(*verify)
    assert done.returncode == 0, done.stderr
    (folder / "model.bin").write_bytes(b"other weights")
    assert model_signing(*verify).returncode != 0


def test_the_reference_tool_verifies_our_signature_over_one_file(folder, key):
    signature = ours(key, folder / "model.bin")
    done = model_signing(
        "verify",
        "key",
        str(folder / "model.bin"),
        "--signature",
        str(signature),
        "--public_key",
        str(key.with_suffix(".pub")),
    )
    assert done.returncode == 0, done.stderr


def test_we_verify_the_reference_tools_signature_and_say_what_changed(folder, key, tmp_path):
    signature = tmp_path / "theirs.sig"
    done = model_signing("sign", "key", str(folder), "--signature", str(signature), "--private_key", str(key))
    assert done.returncode == 0, done.stderr
    public, local = key.with_suffix(".pub").read_text(), LocalFiles()
    assert verify_bundle(signature.read_bytes(), public, local.manifest(folder)) == []
    (folder / "model.bin").write_bytes(b"other")
    (folder / "new").write_bytes(b"")
    (folder / "sub/config.json").unlink()
    assert verify_bundle(signature.read_bytes(), public, local.manifest(folder)) == [
        Difference("model.bin", "changed"),
        Difference("new", "added"),
        Difference("sub/config.json", "missing"),
    ]
    with pytest.raises(EvidenceError, match="not made with this key"):
        verify_bundle(signature.read_bytes(), keys.public_pem(keys.generate().public_key()), local.manifest(folder))


def test_our_root_digest_is_theirs(folder, key, tmp_path):
    signature = tmp_path / "theirs.sig"
    model_signing("sign", "key", str(folder), "--signature", str(signature), "--private_key", str(key))
    said = json.loads(envelope._unb64(json.loads(signature.read_text())["dsseEnvelope"]["payload"], "payload"))
    assert said["subject"][0]["digest"]["sha256"] == LocalFiles().digest(folder)


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ed25519"])
def test_securesystemslib_verifies_our_envelopes(algorithm):
    signer = keys.PrivateKeySigner(keys.generate(algorithm))
    said = statement.make(predicates.TEST_RESULT, {"m": digest_bytes(b"m")}, predicates.TestResult(result="PASSED"))
    body = envelope.seal_statement(said, [signer])
    public = SSlibKey.from_crypto(keys.load_public(signer.public_pem), keyid=signer.keyid)
    theirs = TheirEnvelope.from_dict(json.loads(body))
    assert theirs.verify([public], threshold=1)
    theirs.payload += b" "
    with pytest.raises(VerificationError):
        theirs.verify([public], threshold=1)


def test_we_verify_securesystemslib_envelopes():
    signer = CryptoSigner.generate_ecdsa()
    theirs = TheirEnvelope(payload=b"{}", payload_type="application/x", signatures={})
    theirs.sign(signer)
    parsed = envelope.parse(json.dumps(theirs.to_dict()).encode())
    pem = signer.public_key.keyval["public"]
    assert envelope.verified_keyids(parsed, {signer.public_key.keyid: pem}) == (signer.public_key.keyid,)


def test_a_private_key_of_ours_opens_elsewhere(tmp_path):
    key = keys.generate()
    save_key(key, tmp_path / "k.pem", passphrase="secret")
    opened = serialization.load_pem_private_key((tmp_path / "k.pem").read_bytes(), b"secret")
    assert keys.keyid_of(opened.public_key()) == keys.keyid_of(key.public_key())


def test_signature_statements_name_a_single_file_by_its_own_digest(folder):
    path = folder / "model.bin"
    said = signature_statement("model.bin", LocalFiles().manifest(path))
    assert LocalFiles().digest(path) in said.about()
    assert len(said.about()) == 2


def test_foreign_envelopes_are_kept_and_count_once_their_signer_is_trusted(world: World):
    stranger = CryptoSigner.generate_ecdsa()
    theirs = TheirEnvelope(payload=_passed(world), payload_type=envelope.STATEMENT_PAYLOAD, signatures={})
    theirs.sign(stranger)
    world.append(json.dumps(theirs.to_dict()).encode())
    [kept] = world.evidence()
    assert not kept.holds


def _passed(world):
    return statement.make(predicates.TEST_RESULT, world.model, predicates.TestResult(result="PASSED")).encode()

"""OpenSSF Model Signing v1.0: sign a model or dataset so that anybody's verifier accepts it.

The signature is a Sigstore bundle around a DSSE envelope around an in-toto statement whose only
subject is the manifest's root digest (https://github.com/ossf/model-signing-spec). The same
envelope goes into our ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from bartizan.core import envelope as dsse
from bartizan.core import keys, predicates
from bartizan.core.digest import Digest, ManifestEntry, canonical_json, manifest_root
from bartizan.core.errors import EnvelopeError, EvidenceError, StatementError
from bartizan.core.ports import Signer
from bartizan.core.statement import Statement, decode, make

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BUNDLE_BYTES = 64 * 1024 * 1024


class Difference(msgspec.Struct, frozen=True):
    """One file that is not as it was signed."""

    name: str
    what: str
    """``missing``, ``added`` or ``changed``."""


def signature_statement(name: str, manifest: Sequence[ManifestEntry], ignored: Sequence[str] = ()) -> Statement:
    """The statement that is signed over a folder or file called ``name``."""
    ordered = sorted(manifest)
    return make(
        predicates.MODEL_SIGNATURE,
        {name: manifest_root(ordered)},
        predicates.ModelSignature(
            resources=tuple({"name": entry.name, "digest": entry.digest, "algorithm": "sha256"} for entry in ordered),
            serialization={
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(ignored),
            },
        ),
    )


def sign_manifest(
    name: str, manifest: Sequence[ManifestEntry], signer: Signer, ignored: Sequence[str] = ()
) -> tuple[bytes, bytes]:
    """Sign a manifest. Returns the envelope (for the ledger) and the bundle (to lie beside the files)."""
    body = dsse.seal_statement(signature_statement(name, manifest, ignored), [signer])
    return body, bundle_of(body, signer.public_pem)


def bundle_of(body: bytes, public_pem: str) -> bytes:
    """A Sigstore bundle around an envelope, verified by public key."""
    hint = hashlib.sha256(public_pem.encode()).hexdigest()
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": msgspec.json.decode(body),
    }
    return canonical_json(bundle)


def open_bundle(data: bytes) -> bytes:
    """The envelope inside a bundle, in our byte form. Not verified.

    Raises:
        EnvelopeError: it is no Sigstore bundle with a DSSE envelope.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise EnvelopeError(f"bundle of {len(data)} bytes; at most {MAX_BUNDLE_BYTES} are read")
    try:
        bundle = msgspec.json.decode(data)
        inner = bundle["dsseEnvelope"]
        signatures = [{"keyid": str(item.get("keyid", "")), "sig": item["sig"]} for item in inner["signatures"]]
        plain: dict[str, Any] = {
            "payload": inner["payload"],
            "payloadType": inner["payloadType"],
            "signatures": signatures,
        }
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise EnvelopeError(f"not a Sigstore bundle: {error}", remedy="give the file that signing wrote.") from error
    return canonical_json(plain)


def verify_bundle(data: bytes, public_pem: str, manifest: Sequence[ManifestEntry]) -> list[Difference]:
    """Check a bundle against a public key and the files as they are; returns what differs.

    Raises:
        EvidenceError: the signature does not verify, or it signs something else.
    """
    envelope = dsse.parse(open_bundle(data))
    message = dsse.pre_authentication(envelope.payload_type, envelope.payload)
    key = keys.load_public(public_pem)
    if not any(keys.verify(key, signature, message) for _, signature in envelope.signatures):
        raise EnvelopeError("the signature was not made with this key", remedy="ask the signer for the public key.")
    said = decode(envelope.payload)
    if said.predicate_type != predicates.MODEL_SIGNATURE:
        raise StatementError(f"a {predicates.short_name(said.predicate_type)} statement is no model signature")
    return compare(said, manifest, ())


def compare(said: Statement, manifest: Sequence[ManifestEntry], ignored: Sequence[str]) -> list[Difference]:
    """Files that are not as a signature statement says.

    Raises:
        EvidenceError: the statement contradicts itself.
    """
    signed = _resources(said)
    if (
        manifest_root(ManifestEntry(name, digest) for name, digest in signed.items())
        != said.subject[0].digest["sha256"]
    ):
        raise EvidenceError("the signed manifest does not have the signed root digest")
    found = {entry.name: entry.digest for entry in manifest if entry.name not in ignored}
    if len(signed) == len(found) == 1:
        # A single file is named by what it holds; whoever receives it may have renamed it.
        signed, found = {"file": next(iter(signed.values()))}, {"file": next(iter(found.values()))}
    differences = [Difference(name, "missing") for name in signed.keys() - found.keys()]
    differences += [Difference(name, "added") for name in found.keys() - signed.keys()]
    differences += [Difference(name, "changed") for name in signed.keys() & found.keys() if signed[name] != found[name]]
    return sorted(differences, key=lambda difference: difference.name)


def _resources(said: Statement) -> dict[str, Digest]:
    signature: predicates.ModelSignature = said.read()
    try:
        if any(resource["algorithm"] != "sha256" for resource in signature.resources):
            raise StatementError("only manifests of SHA-256 digests are read")
        return {str(resource["name"]): Digest(resource["digest"]) for resource in signature.resources}
    except (KeyError, TypeError) as error:
        raise StatementError(f"malformed manifest: {error}") from error

"""Signatures by certificate: whose key it is says a chain that ends in a root which the verifier trusts.

The bundle carries the signer's certificate and the intermediates (``x509CertificateChain``), as the
reference tool of OpenSSF Model Signing writes it. Path validation follows RFC 5280 and is done by
``cryptography.x509.verification``; what is asked of the certificates beyond that is written down here.

Without a trusted timestamp nobody can tell when a signature was made, so certificates must be valid now,
or at a time that the verifier knows from elsewhere. Revocation lists are not asked.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from bartizan.core import keys
from bartizan.core.digest import canonical_json
from bartizan.core.errors import EnvelopeError, KeyFileError, TrustError
from bartizan.lifecycle.develop.sign import BUNDLE, MAX_BUNDLE_BYTES

MAX_CERTIFICATES = 16
MAX_ROOTS = 1000
_ASK = "ask the signer for the right certificates, in PEM form."
_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What a hostile certificate makes the library raise, at once or when a field of it is asked for."""
_KEYLESS = "verify a keyless Sigstore signature with `model_signing verify sigstore` of the package model-signing."


class Holder(msgspec.Struct, frozen=True):
    """Whose certificate it is."""

    names: tuple[str, ...]
    """E-mail addresses, URIs and host names that the certificate was issued for, then its common name."""
    public_pem: str
    valid_until: datetime


def read_certificates(pem: bytes, what: str, most: int = MAX_CERTIFICATES) -> list[x509.Certificate]:
    """All certificates of a PEM file.

    Raises:
        KeyFileError: there are none, too many, or they cannot be read.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as error:
        raise KeyFileError(f"{what} holds no certificates: {error}", remedy=_ASK) from error
    if len(found) > most:
        raise KeyFileError(f"{what} holds {len(found)} certificates; at most {most} are read", remedy=_ASK)
    return found


def certificate_bundle(body: bytes, public_pem: str, chain: Sequence[x509.Certificate]) -> bytes:
    """A Sigstore bundle around an envelope, verified by certificate. The first one is the signer's.

    Raises:
        KeyFileError: the first certificate is for another key, or not for signing.
    """
    if _public_pem(chain[0]) != public_pem:
        raise KeyFileError("the certificate is for another key than the one that signs", remedy=_ASK)
    _need_signing(chain[0])
    listed = [{"rawBytes": base64.b64encode(_der(certificate)).decode()} for certificate in chain]
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"x509CertificateChain": {"certificates": listed}, "tlogEntries": []},
        "dsseEnvelope": msgspec.json.decode(body),
    }
    return canonical_json(bundle)


def holder_of(data: bytes, roots: Sequence[x509.Certificate], at: datetime) -> Holder:
    """Who signed a bundle, once its certificates lead to one of ``roots`` at this time.

    The signature itself is not looked at: verify the bundle with the key that is returned.

    Raises:
        EnvelopeError: the bundle carries no certificates.
        TrustError: they lead to no trusted root, are not valid then, or are not for signing.
    """
    leaf, *others = _certificates(data)
    try:
        return _validated(leaf, others, roots, at)
    except _UNREADABLE as error:
        raise TrustError(f"a certificate in the bundle cannot be read: {error}", remedy=_ASK) from error


def _validated(
    leaf: x509.Certificate, others: list[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime
) -> Holder:
    _need_signing(leaf)
    policy = PolicyBuilder().store(Store(list(roots))).time(at).max_chain_depth(MAX_CERTIFICATES)
    verifier = policy.extension_policies(ca_policy=_authorities(), ee_policy=ExtensionPolicy.permit_all())
    try:
        chain = verifier.build_client_verifier().verify(leaf, others).chain
    except VerificationError as error:
        raise TrustError(f"the signer's certificate does not lead to a trusted root: {error}", remedy=_ASK) from error
    _check_lengths(chain)
    return Holder(_names(leaf), _public_pem(leaf), leaf.not_valid_after_utc)


def _certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates inside a bundle, the signer's first. Not verified."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise EnvelopeError(f"bundle of {len(data)} bytes; at most {MAX_BUNDLE_BYTES} are read")
    try:
        listed = _listed(msgspec.json.decode(data)["verificationMaterial"])
        raw = [base64.b64decode(item["rawBytes"], validate=True) for item in listed]
        return [x509.load_der_x509_certificate(der) for der in raw]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise EnvelopeError(f"not a bundle with certificates: {error}", remedy=_ASK) from error
    except _UNREADABLE as error:
        raise EnvelopeError(f"a certificate in the bundle cannot be read: {error}", remedy=_ASK) from error


def _listed(material: dict[str, Any]) -> list[dict[str, str]]:
    if "x509CertificateChain" in material:
        listed: list[dict[str, str]] = material["x509CertificateChain"]["certificates"]
    elif "certificate" in material:
        listed = [material["certificate"]]
    else:
        raise EnvelopeError("the bundle is signed by key, not by certificate", remedy="verify it with --key.")
    if material.get("tlogEntries"):
        raise EnvelopeError("the bundle is a keyless Sigstore signature", remedy=_KEYLESS)
    if not 1 <= len(listed) <= MAX_CERTIFICATES:
        raise EnvelopeError(f"bundle with {len(listed)} certificates; 1 to {MAX_CERTIFICATES} are read")
    return listed


def _authorities() -> ExtensionPolicy:
    """Every certificate above the signer's must be allowed to issue certificates."""
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_issue)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _may_vouch_for_code)
    )


def _is_authority(_policy: object, _certificate: x509.Certificate, extension: x509.BasicConstraints) -> None:
    if not extension.ca:
        raise ValueError("an issuer is no certificate authority")


def _may_issue(_policy: object, _certificate: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("an issuer may not issue certificates")


def _may_vouch_for_code(
    _policy: object, _certificate: x509.Certificate, extension: x509.ExtendedKeyUsage | None
) -> None:
    """An authority whose purposes are listed, such as that of web servers alone, vouches for no others."""
    allowed = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if extension is not None and allowed.isdisjoint(extension):
        raise ValueError("an issuer may not issue certificates for signing code")


def _check_lengths(chain: Sequence[x509.Certificate]) -> None:
    """Path length constraints (RFC 5280, section 4.2.1.9): so many authorities may stand below one."""
    for below, authority in enumerate(chain[1:]):
        limit = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if limit is not None and below > limit:
            raise TrustError(f"{_subject(authority)} may have {limit} authorities below it, not {below}", remedy=_ASK)


def _need_signing(leaf: x509.Certificate) -> None:
    """The key may sign, and if its purposes are listed, code signing is among them: a web server's key is not."""
    usage = _extension(leaf, x509.KeyUsage)
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    code = purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING in purposes
    if (purposes is not None and not code) or not (code or (usage is not None and usage.digital_signature)):
        raise TrustError(f"the certificate of {_subject(leaf)} is not for signing code", remedy=_ASK)
    if usage is not None and not usage.digital_signature:
        raise TrustError(f"the key of {_subject(leaf)} may not sign", remedy=_ASK)


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except _UNREADABLE as error:
        raise TrustError(f"an extension of a certificate cannot be read: {error}", remedy=_ASK) from error


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    alternative = _extension(leaf, x509.SubjectAlternativeName)
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    listed = [name for kind in kinds for name in alternative.get_values_for_type(kind)] if alternative else []
    common = [str(part.value) for part in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(dict.fromkeys([*listed, *common]))


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:200] or "nobody"


def _public_pem(certificate: x509.Certificate) -> str:
    """The certified key. Raises KeyFileError when it is of a kind that is not accepted."""
    try:
        key = certificate.public_key()
    except _UNREADABLE as error:
        raise KeyFileError(f"the certified key cannot be read: {error}", remedy=_ASK) from error
    if not isinstance(key, keys.PublicKey):
        raise KeyFileError("the certified key is of a kind that is not accepted", remedy=_ASK)
    return keys.public_pem(keys.load_public(keys.public_pem(key)))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)

"""Signers that live elsewhere: an HSM or a cloud key service, through securesystemslib."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bartizan.core import keys
from bartizan.core.errors import KeyFileError


class UriSigner:
    """A key in an HSM or a cloud key service, by securesystemslib URI. See ``core.ports.Signer``."""

    def __init__(self, signer: Any, public_pem: str) -> None:
        self._signer = signer
        self.public_pem = public_pem
        self.keyid = keys.keyid_of(keys.load_public(public_pem))

    def sign(self, data: bytes) -> bytes:
        """See ``core.ports.Signer``. The signature is checked against the public key before it is used."""
        try:
            signature = bytes.fromhex(self._signer.sign(data).signature)
        except Exception as error:
            raise KeyFileError(
                f"the remote key did not sign: {error}", remedy="check the service and its login."
            ) from error
        if not keys.verify(keys.load_public(self.public_pem), signature, data):
            raise KeyFileError("the remote key is not the one of the public key file", remedy="correct the URI.")
        return signature


def signer_from_uri(uri: str, public_pem: str) -> UriSigner:
    """A signer by URI: ``hsm:``, ``gcpkms:``, ``awskms:``, ``azurekms:``, ``hv:``, ``file2:`` (see securesystemslib).

    Raises:
        KeyFileError: the scheme is unknown, its library is not installed, or the key cannot be reached.
    """
    remote: Any = import_module("securesystemslib.signer")  # slow to import, and only for remote keys
    unsupported: type[Exception] = import_module("securesystemslib.exceptions").UnsupportedLibraryError
    scheme = uri.partition(":")[0]
    if scheme not in remote.SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted(remote.SIGNER_FOR_URI_SCHEME))
        raise KeyFileError(f"signer URIs of scheme {scheme!r} are not known", remedy=f"known schemes: {known}.")
    try:
        public = remote.SSlibKey.from_crypto(keys.load_public(public_pem))
        return UriSigner(remote.Signer.from_priv_key_uri(uri, public), public_pem)
    except unsupported as error:
        raise KeyFileError(f"{scheme}: keys need another library: {error}", remedy="install it.") from error
    except Exception as error:
        raise KeyFileError(f"the key {scheme}: cannot be used: {error}", remedy="correct the URI.") from error

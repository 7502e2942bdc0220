"""Signers named by a URI: a key file, an HSM or a cloud key service, the latter through securesystemslib."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bartizan.core import keys
from bartizan.core.errors import KeyFileError
from bartizan.core.ports import Signer
from bartizan.stores.keys.files import load_signer

EXTRAS = {"hsm": "hsm", "gcpkms": "gcpkms", "awskms": "awskms", "azurekms": "azurekms", "hv": "vault"}
"""URI scheme to the extra of securesystemslib that brings its library."""
FILES = ("file", "file2")

Secrets = Callable[[str], str | None]
"""Told what is wanted (``pin``, ``passphrase``), answers with it."""


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
        except KeyFileError:
            raise
        except Exception as error:
            raise KeyFileError(
                f"the remote key did not sign: {error}", remedy="check the service and its login."
            ) from error
        if not keys.verify(keys.load_public(self.public_pem), signature, data):
            raise KeyFileError("the remote key is not the one of the public key file", remedy="correct the URI.")
        return signature


def signer_from_uri(uri: str, public_pem: str, secrets: Secrets | None = None) -> Signer:
    """A signer by URI: ``hsm:``, ``gcpkms:``, ``awskms:``, ``azurekms:``, ``hv:`` (see securesystemslib), or ``file:``.

    ``secrets`` is asked for the PIN of an HSM and the passphrase of a file.

    Raises:
        KeyFileError: the scheme is unknown, its library is not installed, or the key cannot be
            reached or is another one.
    """
    scheme = uri.partition(":")[0]
    if scheme in FILES:
        return _file_signer(uri, public_pem, secrets)
    if scheme not in EXTRAS:
        known = ", ".join(f"{name}:" for name in (*EXTRAS, "file"))
        raise KeyFileError(f"signer URIs of scheme {scheme[:40]!a} are not known", remedy=f"known schemes: {known}.")
    return UriSigner(_remote(scheme, uri, public_pem, secrets), public_pem)


def _file_signer(uri: str, public_pem: str, secrets: Secrets | None) -> Signer:
    # Not securesystemslib's own reader: it neither minds who else can read the file nor takes a passphrase.
    path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri.partition(":")[2])
    signer = load_signer(path, lambda: secrets("passphrase") if secrets else None)
    if signer.keyid != keys.keyid_of(keys.load_public(public_pem)):
        raise KeyFileError(f"{path} is not the private half of the public key", remedy="correct the URI.")
    return signer


def _remote(scheme: str, uri: str, public_pem: str, secrets: Secrets | None) -> Any:
    library: Any = import_module("securesystemslib.signer")  # slow to import, and only for remote keys
    unsupported: type[Exception] = import_module("securesystemslib.exceptions").UnsupportedLibraryError
    public = library.SSlibKey.from_crypto(keys.load_public(public_pem))
    try:
        return library.Signer.from_priv_key_uri(uri, public, lambda wanted: _secret(scheme, wanted, secrets))
    except unsupported as error:
        raise KeyFileError(
            f"{scheme}: keys need another library: {error}",
            remedy=f"pip install 'securesystemslib[{EXTRAS[scheme]}]'.",
        ) from error
    except Exception as error:
        raise KeyFileError(
            f"the key {uri[:200]!a} cannot be used: {error or type(error).__name__}", remedy="correct the URI."
        ) from error


def _secret(scheme: str, wanted: str, secrets: Secrets | None) -> str:
    secret = secrets(wanted) if secrets else None
    if not secret:
        raise KeyFileError(f"the {scheme}: key needs a {wanted}", remedy="set BARTIZAN_PASSPHRASE to it.")
    return secret

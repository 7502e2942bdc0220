"""Keys: files on disk, and signers that live elsewhere."""

from bartizan.stores.keys.files import MAX_KEY_BYTES, load_signer, read_public, save_key
from bartizan.stores.keys.remote import UriSigner, signer_from_uri

__all__ = ["MAX_KEY_BYTES", "UriSigner", "load_signer", "read_public", "save_key", "signer_from_uri"]

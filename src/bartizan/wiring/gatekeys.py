"""API keys of the gateway: where they are kept, who gets one, and what it is recognised with."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.errors import InputError, KeyFileError
from bartizan.lifecycle.deploy.gateway.identity.certificates import Certificates, Proxies
from bartizan.lifecycle.deploy.gateway.identity.chain import Chain
from bartizan.lifecycle.deploy.gateway.identity.factors import SEAL_BYTES, Seal, SecondFactors, enrolment, new_seed
from bartizan.lifecycle.deploy.gateway.identity.keys import (
    DAY,
    OVERLAP_SECONDS,
    ApiKey,
    ApiKeys,
    Change,
    KeyStore,
    KeyWanted,
    mint,
    rotated,
)
from bartizan.lifecycle.deploy.gateway.identity.passes import Passes
from bartizan.lifecycle.deploy.gateway.identity.settings import IdentitySettings
from bartizan.lifecycle.deploy.gateway.identity.tokens import Tokens, make_tokens
from bartizan.lifecycle.deploy.gateway.identity.watch import KeyWatch
from bartizan.lifecycle.deploy.gateway.policy import DETAIL, Attributes, PolicySettings
from bartizan.lifecycle.deploy.gateway.signed_input import SignedInput
from bartizan.lifecycle.deploy.gateway.state import SharedState
from bartizan.targets.detail import KINDS
from bartizan.wiring.auditing import note
from bartizan.wiring.workspace import Workspace, load

MOST_SECRET = 4096
_LOG = logging.getLogger("bartizan.gateway")
SEAL_FILE = "gateway.seal"
"""In the key folder: seals the seeds of one-time codes, which lie in the store of keys."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was made. ``secret`` is shown once and kept nowhere."""

    secret: str
    key: ApiKey


@contextmanager
def store(workspace: Workspace) -> Iterator[KeyStore]:
    """The store of keys, closed in the end.

    Raises:
        StoreError: it is out of reach.
    """
    opened = open_store(workspace)
    try:
        yield opened
    finally:
        opened.close()


def open_store(workspace: Workspace) -> Any:
    """The store of keys, to be closed by whoever opens it."""
    return load("bartizan.stores.apikeys:open_keys")(workspace.settings.location("apikeys"))


def add(workspace: Workspace, wanted: KeyWanted) -> Made:
    """Make a key.

    Raises:
        InputError: it would count for too long, or something of it is no name.
    """
    secret, key = mint(wanted, _now(workspace))
    with store(workspace) as keys:
        keys.add(key)
    note(workspace, "admin.key.add", f"key:{key.id} in the role {key.role}")
    return Made(secret=secret, key=key)


def rotate(workspace: Workspace, key: str, *, days: int, overlap: int = OVERLAP_SECONDS) -> Made:
    """Make a key with the rights of another one, which ends ``overlap`` seconds from now.

    Raises:
        InputError: there is no such key, or it has ended.
    """
    now = _now(workspace)
    with store(workspace) as keys:
        old = find(keys, key)
        secret, new = rotated(old, days, now)
        keys.replace(old.id, min(old.expires_at - 1, int(now) + overlap), new)
    note(workspace, "admin.key.rotate", f"key:{old.id} by key:{new.id}")
    return Made(secret=secret, key=new)


def revoke(workspace: Workspace, key: str) -> ApiKey:
    """End a key at once: every replica refuses it as soon as it has looked again.

    Raises:
        InputError: there is no such key, or it was revoked before.
    """
    with store(workspace) as keys:
        old = find(keys, key)
        if not keys.revoke(old.id, int(_now(workspace))):
            raise InputError(f"the key {old.id} was revoked before", remedy="see `bartizan gateway key list`.")
    note(workspace, "admin.key.revoke", f"key:{old.id}")
    return old


def listed(workspace: Workspace, *, ended: bool) -> list[ApiKey]:
    """Keys, the newest last; with ``ended`` also those that do not count any more."""
    now = _now(workspace)
    with store(workspace) as keys:
        found = keys.keys()
    return sorted((key for key in found if ended or counts(key, now)), key=lambda key: (key.created_at, key.id))


def counts(key: ApiKey, now: float) -> bool:
    """Whether a key counts now."""
    return not key.revoked_at and now < key.expires_at


def enrol(workspace: Workspace, key: str) -> str:
    """Enrol one-time codes for a key, in place of those that it had; gives what an authenticator reads, once.

    Raises:
        InputError: there is no such key.
        KeyFileError: the seal cannot be read or written.
    """
    name, seed = workspace.folder.name, new_seed()
    with store(workspace) as keys:
        found = find(keys, key)
        if not counts(found, _now(workspace)):
            raise InputError(f"the key {found.id} has ended", remedy="see `bartizan gateway key list`.")
        caller = f"key:{found.caller}"
        keys.seal(found.id, seal_of(workspace, make=True).close(seed, caller))
    note(workspace, "admin.key.enrol", f"key:{found.id}")
    return enrolment(seed, found.id, f"bartizan {name}")


def find(keys: KeyStore, name: str) -> ApiKey:
    """A key by its id, or by the whole key.

    Raises:
        InputError: there is none.
    """
    wanted = name.split("_")[1] if name.startswith("btz_") and name.count("_") > 1 else name
    found = next((each for each in keys.keys() if each.id == wanted), None)  # noqa: SIM118 - it is no dictionary
    if found is not None:
        return found
    # What was given may be a secret with a slip of the pen in it: it is not repeated.
    raise InputError("there is no such key", remedy="see `bartizan gateway key list`.")


def seal_of(workspace: Workspace, *, make: bool = False) -> Seal:
    """What seals the seeds of one-time codes.

    Raises:
        KeyFileError: there is none and none is made, or it is open to others.
    """
    path = workspace.settings.path("keys") / SEAL_FILE
    if make and not path.exists():
        _write_new(path, secrets.token_bytes(SEAL_BYTES))
    return Seal(_private(path))


def _write_new(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise KeyFileError(f"{path}: {reason}", remedy="give access to the folder of keys.") from error


# ---- what a gateway recognises callers with


class Identity:
    """Everything by which one gateway recognises callers, as its configuration has it."""

    def __init__(
        self,
        workspace: Workspace,
        settings: IdentitySettings,
        state: SharedState,
        *,
        anonymous: bool,
        policy: PolicySettings | None = None,
        changed: Callable[[tuple[Change, ...]], None] | None = None,
    ) -> None:
        """Open what is needed.

        Raises:
            StoreError: the store of keys is out of reach.
        """
        self._clock = lambda: workspace.clock().timestamp()
        self._store: Any = None
        self.keys: ApiKeys | None = None
        self.watch: KeyWatch | None = None
        if settings.keys is not None:
            self._store, self.keys = open_store(workspace), ApiKeys(settings.keys)
            seconds = settings.keys.poll
            self.watch = KeyWatch(
                self._store, self.keys, self._clock, seconds=seconds, state=state, changed=changed or _log
            )
        self.tokens = _tokens(settings)
        self.passes = Passes(settings.passes) if settings.passes is not None else None
        certificates = settings.certificates
        self.certificates = Certificates(certificates, settings.remembered) if certificates is not None else None
        proxies = Proxies(certificates) if certificates is not None and certificates.proxies else None
        self.chain = Chain(
            [each for each in (self.keys, self.tokens, self.passes, self.certificates) if each is not None],
            anonymous=anonymous,
            proxies=proxies,
        )
        self.signatures: SignedInput | None = None
        if settings.signing is not None:
            started = workspace.clock().timestamp()
            secret = _secrets(workspace.settings.path("keys"))
            self.signatures = SignedInput(settings.signing, secret, started=started, state=state)
        self.factors = SecondFactors(
            self.keys.seeds if self.keys is not None else lambda _: (),
            lambda: _seal(workspace),
            state,
            lasts=float((policy or PolicySettings()).confirmed),
        )

    def load(self) -> None:
        """Look at the keys once, before the first request; blocks. Issuers are looked at by ``run``."""
        if self.watch is not None:
            self.watch.load()

    def tasks(self) -> list[Any]:
        """Coroutines that keep it fresh, to be run beside the server until they are cancelled."""
        watches = [self.watch.run()] if self.watch is not None else []
        issuers = self.tokens.issuers.values() if self.tokens is not None else ()
        return [*watches, *(issuer.watch(self._clock) for issuer in issuers)]

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()


def _log(changes: tuple[Change, ...]) -> None:
    """What became of keys, whoever did it: by a command, or by hand in the store."""
    for change in changes:
        _LOG.info("key %s in the role %s: %s", change.key, change.role, change.kind)


def _tokens(settings: IdentitySettings) -> Tokens | None:
    if not settings.issuer:
        return None
    try:
        source = load("bartizan.adapters.oidc:OidcKeys")
    except ImportError as error:
        raise InputError("tokens need a library", remedy="pip install 'bartizan[serve]'.") from error
    return make_tokens(settings.issuer, source, settings.remembered)


def _seal(workspace: Workspace) -> Seal | None:
    """Read when it is needed: codes may be enrolled while the gateway runs. Without a seal none counts."""
    if not (workspace.settings.path("keys") / SEAL_FILE).exists():
        return None
    return seal_of(workspace)


def _secrets(folder: Path) -> Callable[[str], bytes]:
    """Reads the secrets that sources of signed input share with the gateway: ``NAME.hmac`` in the folder of keys."""

    def read(name: str) -> bytes:
        return _private(folder / f"{name}.hmac").rstrip(b"\r\n")

    return read


def _private(path: Path) -> bytes:
    """A small file that nobody else can read. Raises KeyFileError."""
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise KeyFileError(f"{path} can be read by others", remedy=f"run `chmod 600 {path}`.")
            return stream.read(MOST_SECRET)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise KeyFileError(f"{path}: {reason}", remedy="restore it from a backup, or make it anew.") from error


def attributes_of(text: str, operations: Iterable[str]) -> Attributes:
    """Policies over attributes. ``operations`` are all that the gateway can be asked; details are added here.

    Raises:
        InputError: they cannot be used.
    """
    details = (f"{DETAIL}{kind}" for kind in KINDS)
    try:
        made = load("bartizan.adapters.cedar:CedarPolicies")
    except ImportError as error:
        raise InputError("Cedar policies need a library", remedy="pip install 'bartizan[serve]'.") from error
    policies: Attributes = made(text, (*operations, *details))
    return policies


def _now(workspace: Workspace) -> float:
    return workspace.clock().timestamp()


__all__ = [
    "DAY",
    "Identity",
    "Made",
    "add",
    "attributes_of",
    "counts",
    "enrol",
    "find",
    "listed",
    "open_store",
    "revoke",
    "rotate",
    "seal_of",
    "store",
]

"""First use in one command: keys, a trust document, a ledger, a pin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from bartizan.core import envelope, keys, ledger, trust
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError, LedgerError, TrustError
from bartizan.core.keys import Algorithm
from bartizan.core.ports import Signer
from bartizan.core.view import View
from bartizan.wiring.workspace import Workspace, load

ROOT = "root"
SERVICE = "service"
YEAR = timedelta(days=365)
TRUST_YEARS = 5
KEY_YEARS = 2
_UNLOCK = "set BARTIZAN_PASSPHRASE or BARTIZAN_PASSPHRASE_FILE, or ask for --unencrypted keys."


class NewKey(msgspec.Struct, frozen=True):
    """A key pair that was made."""

    name: str
    keyid: str
    private: Path
    public: Path


def make_key(
    workspace: Workspace, name: str, *, algorithm: Algorithm = "ecdsa-p256", passphrase: str | None, unencrypted: bool
) -> NewKey:
    """Make a key pair and save it; an existing file is never overwritten.

    Raises:
        KeyFileError: the file exists or cannot be written.
        InputError: no passphrase, and not asked to do without.
    """
    if not unencrypted and not passphrase:
        raise InputError(f"a passphrase is needed to protect the key {name!r}", remedy=_UNLOCK)
    key = keys.generate(algorithm)
    private, public = workspace.key_path(name), workspace.public_path(name)
    save: Callable[..., None] = load("bartizan.stores.keys:save_key")
    save(key, private, passphrase=None if unencrypted else passphrase, unencrypted=unencrypted)
    public.write_text(keys.public_pem(key.public_key()), encoding="ascii")
    return NewKey(name, keys.keyid_of(key.public_key()), private, public)


def begin(workspace: Workspace, people: dict[str, tuple[str, ...]], service: str = SERVICE) -> trust.SignedTrust:
    """Write trust document version 1 into a new ledger, and pin it.

    ``people`` maps key names to roles; their keys, and those called ``root`` and ``service``, are
    there already.

    Raises:
        LedgerError: the ledger exists.
    """
    now = workspace.clock()
    root = workspace.signer(ROOT)
    document = trust.Trust(
        version=1,
        threshold=1,
        roots={root.keyid: root.public_pem},
        roles=trust.DEFAULT_ROLES,
        principals=(
            _principal(service, workspace.signer(service), ("assurer", "ledger"), now, service=True),
            *(_principal(name, _public(workspace, name), roles, now) for name, roles in people.items()),
        ),
        expires=now + TRUST_YEARS * YEAR,
    )
    body = trust.seal(document, [root])
    with workspace.records.snapshot() as snapshot:
        if View.open(snapshot, workspace.read_pin()) is not None:
            raise LedgerError("there is a ledger already", remedy="see `bartizan trust show`.")
    ledger.append(
        workspace.records,
        [body],
        now_ms=int(now.timestamp() * 1000),
        signer=workspace.signer(service),
        origin=workspace.settings.origin,
        expect=None,
    )
    pin_first(workspace, trust.accept_first(body).digest)
    return trust.accept_first(body)


def pin_first(workspace: Workspace, first: Digest) -> None:
    """Trust this ledger from now on, because its first trust document was compared with its owner.

    Raises:
        LedgerError: its first trust document is another one, or something else is pinned already.
    """
    old = workspace.read_pin()
    with workspace.records.snapshot() as snapshot:
        view = View.open(snapshot, old)
        if view is None:
            raise LedgerError("there is no ledger to pin", remedy="run `bartizan init`.")
        if view.first_trust != first:
            raise LedgerError(
                f"the ledger's first trust document is {view.first_trust}, not {first}",
                remedy="ask the ledger's owner for the right digest.",
            )
        workspace.write_pin(view.pin())


def change_trust(
    workspace: Workspace, change: Callable[[trust.Trust], trust.Trust], roots: Sequence[str]
) -> trust.Trust:
    """Sign and append the next version of the trust document.

    Raises:
        TrustError: too few root keys, or the change contradicts itself.
    """
    with workspace.view() as view:
        current = view.signed_trust
    document = msgspec.structs.replace(
        change(current.trust), version=current.trust.version + 1, previous=current.digest
    )
    body = trust.seal(document, [workspace.signer(name) for name in roots])
    return install_trust(workspace, body)


def install_trust(workspace: Workspace, body: bytes) -> trust.Trust:
    """Append a trust document that was signed elsewhere, if it follows from the current one."""
    with workspace.view() as view:
        accepted = trust.accept_next(view.signed_trust, body)
    ledger_key = workspace.service.keyid
    if reason := accepted.trust.why_not(ledger_key, trust.CHECKPOINT, workspace.clock()):
        raise TrustError(
            f"nobody here could sign the next checkpoint: {reason}",
            remedy="grant another key the role ledger first, and name it in BARTIZAN_SERVICE.",
        )
    workspace.append([body])
    return accepted.trust


def grant(
    workspace: Workspace, name: str, public_pem: str, roles: tuple[str, ...], roots: Sequence[str]
) -> trust.Trust:
    """Let a principal sign in these roles; a principal of that name is replaced."""
    now = workspace.clock()
    key = keys.load_public(public_pem)

    def change(current: trust.Trust) -> trust.Trust:
        others = tuple(who for who in current.principals if who.id != name)
        before = next((who for who in current.principals if who.id == name), None)
        new = trust.Principal(
            id=name,
            keyid=keys.keyid_of(key),
            public_key=keys.public_pem(key),
            roles=roles,
            not_before=now - timedelta(minutes=5),
            not_after=now + KEY_YEARS * YEAR,
            service=before.service if before else False,
        )
        return msgspec.structs.replace(current, principals=(*others, new))

    return change_trust(workspace, change, roots)


def withdraw(workspace: Workspace, name: str, roots: Sequence[str]) -> trust.Trust:
    """Take a principal out of the trust document. What it signed does not count any more."""

    def change(current: trust.Trust) -> trust.Trust:
        others = tuple(who for who in current.principals if who.id != name)
        if len(others) == len(current.principals):
            raise TrustError(f"no principal is called {name!r}", remedy="see `bartizan trust show`.")
        return msgspec.structs.replace(current, principals=others)

    return change_trust(workspace, change, roots)


class _Public(msgspec.Struct, frozen=True):
    keyid: str
    public_pem: str


def _public(workspace: Workspace, name: str) -> _Public:
    pem: str = load("bartizan.stores.keys:read_public")(workspace.public_path(name))
    return _Public(keys.keyid_of(keys.load_public(pem)), pem)


def _principal(
    name: str, key: Signer | _Public, roles: tuple[str, ...], now: datetime, *, service: bool = False
) -> trust.Principal:
    return trust.Principal(
        id=name,
        keyid=key.keyid,
        public_key=key.public_pem,
        roles=roles,
        not_before=now - timedelta(minutes=5),
        not_after=now + KEY_YEARS * YEAR,
        service=service,
    )


def read_trust(data: bytes) -> trust.Trust:
    """A trust document as JSON, as ``bartizan trust show --json`` prints it.

    Raises:
        TrustError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=trust.Trust)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrustError(f"not a trust document: {error}", remedy="start from `bartizan trust show --json`.") from error


def seal_trust(workspace: Workspace, document: trust.Trust, roots: Sequence[str]) -> bytes:
    """Sign a document with the root keys that are here, for others to add theirs."""
    return trust.seal(document, [workspace.signer(name) for name in roots])


def merge_signatures(first: bytes, second: bytes) -> bytes:
    """One envelope with the signatures of both, which must be over the same payload.

    Raises:
        TrustError: they are not.
    """
    left, right = envelope.parse(first), envelope.parse(second)
    if (left.payload, left.payload_type) != (right.payload, right.payload_type):
        raise TrustError("the two files sign different documents", remedy="sign the same file.")
    return envelope.join(left, right)

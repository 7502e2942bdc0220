"""API keys: ``btz_ID_SECRET``, of which the gateway keeps a digest only.

The secret is 256 bits from the operating system. SHA-256 once is enough to keep it: whoever steals the digests would
have to try 2^255 secrets, and a slow hash, which is there for passwords that people choose, would only slow down us
(NIST SP 800-63B, section 5.1.1.2, asks it of memorised secrets). A key is looked up by its digest, so no comparison
of secrets takes a time that tells something (CWE-208).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable
from typing import Annotated, Protocol

import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.caller import Caller, Method, Showing
from bartizan.lifecycle.deploy.gateway.identity.memory import Remembered
from bartizan.lifecycle.deploy.gateway.identity.refusal import unrecognised
from bartizan.lifecycle.deploy.gateway.identity.settings import KeySettings, Name, Text, networks

PREFIX = b"btz_"
DAY = 86_400
LASTS_DAYS = 90
"""Days that a key counts when nothing else is said."""
MOST_DAYS = 400
"""No key counts for longer."""
OVERLAP_SECONDS = 7 * DAY
"""How long the old key still counts after a rotation, when nothing else is said."""
MOST_KEYS = 100_000
FORM = re.compile(rb"btz_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

KeyId = Annotated[str, msgspec.Meta(pattern=r"^[a-z2-7]{12}\Z")]
Names = Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=10**11)]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of one key."""

    id: KeyId
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """SHA-256 of the whole key."""
    caller: KeyId
    """Id of the first key of a series of rotations: budgets and records go on through them."""
    role: Name
    label: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """What it is for; no names of persons."""
    groups: Names = ()
    attributes: Annotated[dict[Name, Text], msgspec.Meta(max_length=32)] = {}
    models: Names = ()
    operations: Names = ()
    networks: Names = ()
    """Networks that it counts from; empty: every one."""
    created_at: Seconds
    expires_at: Seconds
    revoked_at: Seconds = 0
    """0: it was not."""
    used_day: Seconds = 0
    """Days since 1970-01-01; no time of day is kept. 0: it was not used yet."""
    otp: bytes = b""
    """Sealed seed of the one-time codes that go with it; empty: none."""


class KeyStore(Protocol):
    """Where keys are kept. Every method blocks; raises StoreError when the store is out of reach."""

    def generation(self) -> int:
        """Rises with every change but that of ``used_day``."""

    def keys(self) -> tuple[ApiKey, ...]:
        """All keys."""

    def add(self, key: ApiKey) -> None:
        """Keep a new key."""

    def replace(self, old: str, expires_at: int, new: ApiKey) -> None:
        """Keep a new key and end the old one then, both or neither."""

    def revoke(self, key: str, at: int) -> bool:
        """End a key; whether it was there and had not ended before."""

    def seal(self, key: str, otp: bytes) -> None:
        """Keep the seed of one-time codes."""

    def used(self, keys: Iterable[str], day: int) -> None:
        """Note the day on which keys were used."""


class KeyWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A key as somebody asked for it."""

    role: str
    label: str = ""
    groups: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    days: int = LASTS_DAYS


def mint(wanted: KeyWanted, now: float) -> tuple[str, ApiKey]:
    """A new key, which is shown once, and what is kept of it.

    Raises:
        InputError: it would count for too long, or something of it is no name.
    """
    if not 1 <= wanted.days <= MOST_DAYS:
        raise InputError(f"a key counts for 1 to {MOST_DAYS} days, not {wanted.days}", remedy="rotate it instead.")
    networks(wanted.networks)
    fields = msgspec.to_builtins(wanted)
    del fields["days"]
    return _made(fields, int(now), int(now) + wanted.days * DAY, "")


def rotated(old: ApiKey, days: int, now: float) -> tuple[str, ApiKey]:
    """The key that takes the place of another one: the same rights, a new secret. One-time codes stay.

    Raises:
        InputError: the old one does not count any more, or the new one would count for too long.
    """
    if old.revoked_at or old.expires_at <= now:
        raise InputError(f"the key {old.id} has ended", remedy="add a new one: `bartizan gateway key add`.")
    if not 1 <= days <= MOST_DAYS:
        raise InputError(f"a key counts for 1 to {MOST_DAYS} days, not {days}")
    kept = ("role", "label", "groups", "attributes", "models", "operations", "networks")
    fields = msgspec.to_builtins({name: getattr(old, name) for name in kept})
    secret, new = _made(fields, int(now), int(now) + days * DAY, old.caller)
    return secret, msgspec.structs.replace(new, otp=old.otp)


def _made(fields: dict[str, object], now: int, until: int, caller: str) -> tuple[str, ApiKey]:
    identity = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
    secret = f"btz_{identity}_{secrets.token_urlsafe(32)}"
    made = {
        **fields,
        "id": identity,
        "caller": caller or identity,
        "digest": hashlib.sha256(secret.encode()).hexdigest(),
        "created_at": now,
        "expires_at": until,
    }
    try:
        return secret, msgspec.convert(made, ApiKey)
    except msgspec.ValidationError as error:
        raise InputError(
            f"no key can be made of this: {error}", remedy="see `bartizan gateway key add --help`."
        ) from error


class _Known:
    """A key as it is looked up."""

    __slots__ = ("caller", "day", "heard", "id", "networks", "refusal", "until")

    def __init__(self, key: ApiKey) -> None:
        self.id, self.until, self.day = key.id, key.expires_at, key.used_day
        self.refusal = f"the key {key.id} was revoked" if key.revoked_at else ""
        self.networks = networks(key.networks)
        self.heard: Remembered[str, bool] = Remembered(256)
        self.caller = Caller(
            id=f"key:{key.caller}",
            role=key.role,
            method="key",
            groups=key.groups,
            attributes=key.attributes,
            until=float(key.expires_at),
            models=key.models,
            operations=key.operations,
        )

    def admits(self, client: str) -> bool:
        """Whether it counts from an address."""
        known = self.heard.get(client)
        if known is None:
            known = any(_within(client, network) for network in self.networks)
            self.heard.put(client, known)
        return known


def _within(client: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in network


class Index:
    """All keys by their digests. Made beside the event loop: it takes 10 us a key."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self.keys = {key.id: key for key in keys}
        kept = tuple(self.keys.values())
        self.known = {bytes.fromhex(key.digest): _Known(key) for key in kept}
        self.seeds: dict[str, tuple[bytes, ...]] = {}
        """Sealed seeds of one-time codes by caller."""
        for key in kept:
            if key.otp and not key.revoked_at:
                name = f"key:{key.caller}"
                self.seeds[name] = tuple(dict.fromkeys((*self.seeds.get(name, ()), key.otp)))


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one key, for the audit log."""

    kind: str
    """``add``, ``revoke``, ``shorten`` (as a rotation does), ``otp``, ``alter``, ``remove``."""
    key: str
    role: str


def changes(before: Index, after: Index) -> tuple[Change, ...]:
    """What became of keys, whoever did it: the store may have been altered by hand."""
    found = []
    for name in sorted(before.keys.keys() | after.keys.keys()):
        old, new = before.keys.get(name), after.keys.get(name)
        some = new or old
        if some is not None and (kind := _kind(old, new)):
            found.append(Change(kind=kind, key=name, role=some.role))
    return tuple(found)


def _kind(old: ApiKey | None, new: ApiKey | None) -> str:
    if old is None or new is None:
        return "add" if old is None else "remove"
    if new.revoked_at and not old.revoked_at:
        return "revoke"
    if new.otp != old.otp:
        return "otp"
    same = msgspec.structs.replace(new, used_day=old.used_day)
    if same == old:
        return ""
    shorter = msgspec.structs.replace(same, expires_at=old.expires_at) == old and new.expires_at < old.expires_at
    return "shorten" if shorter else "alter"


class ApiKeys:
    """Recognises callers by API keys, out of memory. See ``caller.Recogniser``."""

    name: Method = "key"

    def __init__(self, settings: KeySettings) -> None:
        self._patience = settings.patience
        self._index = Index(())
        self._version = 0
        self._until = 0.0
        self._used: set[str] = set()

    @property
    def version(self) -> int:
        """See ``Recogniser.version``."""
        return self._version

    def learn(self, index: Index, now: float) -> None:
        """Take over all keys as the store has them now."""
        self._index = index
        self._version += 1
        self.confirm(now)

    @property
    def index(self) -> Index:
        """All keys as they are known."""
        return self._index

    def confirm(self, now: float) -> None:
        """The store was asked and has nothing new: what is known counts on."""
        self._until = now + self._patience

    def seeds(self, caller: str) -> tuple[bytes, ...]:
        """Sealed seeds of the one-time codes of a caller; empty when there are none."""
        return self._index.seeds.get(caller, ())

    def take_used(self) -> tuple[str, ...]:
        """Keys that were used for the first time today, once."""
        used, self._used = self._used, set()
        return tuple(used)

    def recognise(self, showing: Showing, now: float) -> Caller | None:
        """See ``Recogniser.recognise``."""
        token = shown_key(showing)
        if token is None:
            return None
        known = self._index.known.get(hashlib.sha256(token).digest())
        if known is None:
            raise unrecognised("no such key" if FORM.fullmatch(token) else "this has not the form of a key")
        if now > self._until:
            raise unrecognised("the store of keys has not been reached for too long: no key counts")
        if known.refusal or now >= known.until:
            raise unrecognised(known.refusal or f"the key {known.id} has expired")
        if known.networks and not known.admits(showing.client):
            raise unrecognised(f"the key {known.id} does not count from this address")
        if now >= (known.day + 1) * DAY:
            known.day = int(now) // DAY
            self._used.add(known.id)
        return known.caller


def shown_key(showing: Showing) -> bytes | None:
    """The key that a request shows, as bearer token or in ``x-api-key``; None when it shows none.

    Raises:
        RequestError: it shows something in both places.
    """
    headers = showing.headers
    authorization, field = headers.get(b"authorization"), headers.get(b"x-api-key")
    if field is not None:
        if authorization is not None:
            raise unrecognised("it shows who sent it in two places")
        return field
    if authorization is not None and authorization[7:11] == PREFIX and authorization[:7].lower() == b"bearer ":
        return authorization[7:]
    return None


__all__ = [
    "DAY",
    "LASTS_DAYS",
    "MOST_DAYS",
    "MOST_KEYS",
    "OVERLAP_SECONDS",
    "ApiKey",
    "ApiKeys",
    "Change",
    "Index",
    "KeyStore",
    "KeyWanted",
    "changes",
    "mint",
    "rotated",
    "shown_key",
]

"""Second factors: one-time codes that go with API keys (RFC 6238), each of which counts once."""

from __future__ import annotations

import base64
import hmac
import secrets
import struct
from collections.abc import Callable
from urllib.parse import quote

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bartizan.core.errors import BartizanError, InputError, KeyFileError
from bartizan.lifecycle.deploy.gateway.caller import Caller, Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.refusal import FactorError
from bartizan.lifecycle.deploy.gateway.state import SharedState

HEADER = b"bartizan-otp"
STEP = 30
"""Seconds that a code counts."""
DIGITS = 6
AROUND = 1
"""Steps before and after the present one that count as well, for clocks that differ (RFC 6238, section 5.2)."""
TRIES = 5
"""Wrong codes before no code counts any more."""
LOCKED = 900.0
"""Seconds for which none counts then."""
SEED_BYTES = 20
NONCE_BYTES = 12
SEAL_BYTES = 32


def code(seed: bytes, step: int) -> str:
    """The code of a step (RFC 4226, section 5.3, with SHA-1, which is what authenticators have)."""
    found = hmac.digest(seed, struct.pack(">Q", step), "sha1")
    place = found[-1] & 0x0F
    number = int.from_bytes(found[place : place + 4]) & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


class Seal:
    """Keeps seeds under a key that does not lie beside them (AES-256-GCM). Which caller it is for is sealed in."""

    def __init__(self, key: bytes) -> None:
        if len(key) != SEAL_BYTES:
            raise KeyFileError(
                f"a seal has {SEAL_BYTES} bytes, not {len(key)}", remedy="restore the file from a backup."
            )
        self._cipher = AESGCM(key)

    def close(self, seed: bytes, caller: str) -> bytes:
        """Seal a seed."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, seed, caller.encode())

    def open(self, sealed: bytes, caller: str) -> bytes:
        """The seed.

        Raises:
            KeyFileError: it was sealed with another key, for somebody else, or altered.
        """
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], caller.encode())
        except (InvalidTag, ValueError) as error:
            raise KeyFileError("a seed of one-time codes cannot be opened", remedy="enrol it again.") from error


def new_seed() -> bytes:
    """A new seed from the operating system's randomness."""
    return secrets.token_bytes(SEED_BYTES)


def enrolment(seed: bytes, caller: str, system: str) -> str:
    """What an authenticator reads, as an ``otpauth`` address."""
    if not system:
        raise InputError("codes are made for a system with a name")
    name = quote(f"{system}:{caller}", safe="")
    return f"otpauth://totp/{name}?secret={base64.b32encode(seed).decode()}&issuer={quote(system, safe='')}"


class SecondFactors:
    """Confirms callers whose credential alone is not enough.

    ``seeds`` gives the sealed seeds of a caller, out of memory, and ``seal`` what opens them, if it is there. Tries
    and used codes are counted in the state that replicas share, so that a code counts once at all of them together;
    without that state none counts.
    """

    def __init__(
        self,
        seeds: Callable[[str], tuple[bytes, ...]],
        seal: Callable[[], Seal | None],
        state: SharedState,
        *,
        lasts: float = 0.0,
    ) -> None:
        self._seeds, self._seal, self._state, self._lasts = seeds, seal, state, lasts

    async def confirm(self, caller: Caller, showing: Showing, now: float, *, fresh: bool = True) -> Caller:
        """The same caller with what the second factor shows.

        Unless it has to be ``fresh``, a code that the caller showed from the same address less than ``lasts`` seconds
        ago is enough.

        Raises:
            RequestError: 401, there is none or it does not count; 429, too many did not; 503, it cannot be told.
        """
        try:
            return await self._confirmed(caller, showing, now, fresh=fresh)
        except BartizanError as error:
            reason = f"second factor: {error.message}"
            raise RequestError(503, "not now", headers={"retry-after": "5"}, reason=reason) from error

    async def _confirmed(self, caller: Caller, showing: Showing, now: float, *, fresh: bool) -> Caller:
        given, since = showing.headers.get(HEADER), f"otp:since:{caller.id}:{showing.client}"
        confirmed = msgspec.structs.replace(caller, factors=(*caller.factors, "otp"))
        if given is None:
            if fresh or not self._lasts or await self._state.recall(since) is None:
                raise FactorError("no second factor was shown")
            return confirmed
        if caller.method != "key":
            raise FactorError("one-time codes go with API keys only")
        await self._judge(caller.id, given, self._opened(caller.id), int(now) // STEP)
        if self._lasts:
            await self._state.remember(since, b"1", lasts=self._lasts)
        return confirmed

    def _opened(self, caller: str) -> list[bytes]:
        sealed = self._seeds(caller)
        seal = self._seal() if sealed else None
        try:
            seeds = [seal.open(each, caller) for each in sealed] if seal is not None else []
        except KeyFileError as error:
            raise FactorError(error.message) from error
        if not seeds:
            raise FactorError("no one-time codes were enrolled for this key")
        return seeds

    async def _judge(self, caller: str, given: bytes, seeds: list[bytes], step: int) -> None:
        """The try is counted before it is looked at: guesses that come at once do not slip through together."""
        tries = f"otp:tries:{caller}"
        if await self._state.count(tries, 1, lasts=LOCKED) > TRIES:
            raise RequestError(
                429, "too many wrong codes", headers={"retry-after": f"{LOCKED:.0f}"}, reason="too many wrong codes"
            )
        steps = range(step - AROUND, step + AROUND + 1)
        fitting = [each for each in steps for seed in seeds if hmac.compare_digest(code(seed, each).encode(), given)]
        if not fitting:
            raise FactorError("a wrong one-time code")
        if await self._state.count(f"otp:used:{caller}:{fitting[0]}", 1, lasts=STEP * (2 * AROUND + 2)) > 1:
            raise FactorError("a one-time code was used again")
        await self._state.count(tries, -1, lasts=LOCKED)


__all__ = ["HEADER", "STEP", "Seal", "SecondFactors", "code", "enrolment", "new_seed"]

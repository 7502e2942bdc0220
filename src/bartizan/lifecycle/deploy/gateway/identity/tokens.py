"""JSON Web Tokens as a way of showing who one is: verified once, then remembered until they end or keys change."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from bartizan.core.errors import BartizanError
from bartizan.lifecycle.deploy.gateway.caller import Caller, Method, Showing
from bartizan.lifecycle.deploy.gateway.identity.certificates import thumbprint
from bartizan.lifecycle.deploy.gateway.identity.claims import Token, TokenError, bound_to, caller_of, parse
from bartizan.lifecycle.deploy.gateway.identity.memory import Remembered
from bartizan.lifecycle.deploy.gateway.identity.refusal import Unready, unrecognised
from bartizan.lifecycle.deploy.gateway.identity.settings import IssuerSettings

PAUSE = 30.0
"""Seconds between two looks at an issuer's keys because of a token that names an unknown one."""
REFUSED = 4096
"""Tokens with bad signatures that are remembered, so that they cost their verification once."""
_LOG = logging.getLogger("bartizan.gateway")


class UnknownKeyError(Exception):
    """The issuer has no key of this name, as far as is known."""


class KeySource(Protocol):
    """The public keys of one issuer. ``adapters/oidc.py`` has it."""

    def fetch(self) -> bool:
        """Look at the issuer's keys; whether they are other ones than before. Blocks, bounded in size and time.

        Raises:
            WorkError: the issuer does not answer, or nothing that can be used.
        """

    def verify(self, token: Token) -> None:
        """Verify the signature of a token.

        Raises:
            UnknownKeyError: none of the keys has this name.
            TokenError: the signature is not that of the key.
        """


class Issuer:
    """One issuer, and how well its keys are known."""

    def __init__(self, settings: IssuerSettings, source: KeySource) -> None:
        self.settings, self.source = settings, source
        self.version = 0
        """Rises when its keys change, or stop counting."""
        self._until = 0.0
        self._asked_at = -PAUSE
        self._wanted = asyncio.Event()
        self._looked: asyncio.Future[None] | None = None

    def counts(self, now: float) -> bool:
        """Whether its keys were seen lately enough."""
        return now <= self._until

    def ask(self, now: float) -> bool:
        """Have its keys looked at soon, if they were not just now; whether it is worth waiting for."""
        if self._wanted.is_set():
            return True
        if now - self._asked_at < PAUSE:
            return False
        self._asked_at = now
        self._wanted.set()
        return True

    async def looked(self) -> None:
        """Wait until its keys have been looked at again."""
        if self._looked is None:
            self._looked = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._looked)

    async def watch(self, clock: Callable[[], float]) -> None:
        """Look at its keys every so often, and when one is missed, until cancelled."""
        while True:
            await self.look(clock)
            try:
                async with asyncio.timeout(self.settings.refresh):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def look(self, clock: Callable[[], float]) -> None:
        """Look at its keys once, beside the loop. A failure is logged, and the keys count on for a while."""
        try:
            if await asyncio.to_thread(self.source.fetch):
                self.version += 1
            self._until = clock() + self.settings.patience
        except BartizanError as error:
            _LOG.warning("the keys of %s cannot be had: %s", self.settings.issuer, error.message)
        except Exception:  # noqa: BLE001 - whatever an issuer answers, the gateway goes on with the keys that it knows
            _LOG.exception("the keys of %s cannot be had", self.settings.issuer)
        finally:
            self._wanted.clear()
            looked, self._looked = self._looked, None
            if looked is not None and not looked.done():
                looked.set_result(None)


class _Verified(msgspec.Struct, frozen=True):
    caller: Caller
    issuer: Issuer
    version: int
    """Of the issuer's keys."""
    bound: str
    """Thumbprint of the certificate that it has to come with."""


class Tokens:
    """Recognises callers by tokens of the configured issuers. See ``caller.Recogniser``."""

    name: Method = "jwt"

    def __init__(self, issuers: Mapping[str, Issuer], remembered: int = 8192) -> None:
        self.issuers = dict(issuers)
        self._settings = {name: issuer.settings for name, issuer in self.issuers.items()}
        self._verified: Remembered[bytes, _Verified] = Remembered(remembered)
        self._refused: Remembered[bytes, tuple[int, str]] = Remembered(REFUSED)

    @property
    def version(self) -> int:
        """See ``Recogniser.version``."""
        return sum(issuer.version for issuer in self.issuers.values())

    def recognise(self, showing: Showing, now: float) -> Caller | None:
        """See ``Recogniser.recognise``."""
        authorization = showing.headers.get(b"authorization")
        if authorization is None or authorization[:7].lower() != b"bearer " or authorization.count(b".") != 2:  # noqa: PLR2004 - RFC 7515
            return None
        name = hashlib.sha256(authorization).digest()
        known = self._verified.get(name)
        if known is None or known.version != known.issuer.version:
            known = self._verify(authorization[7:], name, now)
        if now >= known.caller.until or not known.issuer.counts(now):
            self._verified.drop(name)
            raise unrecognised("the token has expired, or its issuer was not heard of for too long")
        if known.bound and (not showing.certificate or thumbprint(showing.certificate) != known.bound):
            raise unrecognised("the token is bound to another certificate")
        return known.caller

    async def again(self, showing: Showing) -> None:
        """Wait until the keys of the issuer of a token have been looked at; what it says is not believed for that."""
        authorization = showing.headers.get(b"authorization", b"")
        try:
            _, settings = parse(authorization[7:], self._settings)
        except TokenError:
            return
        await self.issuers[settings.issuer].looked()

    def _verify(self, text: bytes, name: bytes, now: float) -> _Verified:
        refused = self._refused.get(name)
        version = self.version
        if refused is not None and refused[0] == version:
            raise unrecognised(refused[1])
        try:
            token, settings = parse(text, self._settings)
            issuer = self.issuers[settings.issuer]
            # What is cheap comes first: a signature is only verified of what would count with it.
            caller, bound = caller_of(token.claims, settings, now), bound_to(token.claims)
            self._ready(issuer, now)
            self._signed(issuer, token, name, now)
        except TokenError as error:
            raise unrecognised(f"token: {error}") from error
        known = _Verified(caller, issuer, issuer.version, bound)
        self._verified.put(name, known)
        return known

    def _ready(self, issuer: Issuer, now: float) -> None:
        if issuer.counts(now):
            return
        if issuer.ask(now):
            raise Unready("the keys of the issuer are not known yet")
        raise unrecognised("the keys of the issuer are not known")

    def _signed(self, issuer: Issuer, token: Token, name: bytes, now: float) -> None:
        try:
            issuer.source.verify(token)
        except UnknownKeyError as error:
            if issuer.ask(now):
                raise Unready("the token names a key that is not known yet") from error
            raise TokenError("its key is none of its issuer's") from error
        except TokenError as error:
            self._refused.put(name, (self.version, f"token: {error}"))
            raise


def make_tokens(
    settings: tuple[IssuerSettings, ...], source: Callable[[IssuerSettings], KeySource], remembered: int = 8192
) -> Tokens:
    """A recogniser for all configured issuers."""
    return Tokens({each.issuer: Issuer(each, source(each)) for each in settings}, remembered)


__all__ = ["PAUSE", "Issuer", "KeySource", "Tokens", "UnknownKeyError", "make_tokens"]

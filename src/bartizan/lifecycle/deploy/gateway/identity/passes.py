"""Passes as a way of showing who one is: signed by keys of the trust document, for one model and some hours."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway import passes
from bartizan.lifecycle.deploy.gateway.caller import Caller, Method, Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.memory import Remembered
from bartizan.lifecycle.deploy.gateway.identity.refusal import unrecognised
from bartizan.lifecycle.deploy.gateway.identity.settings import PassSettings


class Passes:
    """Recognises callers by passes. See ``caller.Recogniser``."""

    name: Method = "pass"

    def __init__(self, settings: PassSettings, remembered: int = 1024) -> None:
        self._hardware = frozenset(settings.hardware)
        self._holders: tuple[passes.Holder, ...] = ()
        self._models: frozenset[Digest] = frozenset()
        self._known: Remembered[bytes, tuple[int, Caller]] = Remembered(min(remembered, 1024))
        self._version = 0

    @property
    def version(self) -> int:
        """See ``Recogniser.version``."""
        return self._version

    def learn(self, holders: tuple[passes.Holder, ...], models: Collection[Digest]) -> None:
        """Take over who counts, and which models are served, after every verification of the trust document."""
        if (holders, frozenset(models)) != (self._holders, self._models):
            self._holders, self._models = holders, frozenset(models)
            self._version += 1
            self._known.clear()

    def recognise(self, showing: Showing, now: float) -> Caller | None:
        """See ``Recogniser.recognise``."""
        authorization = showing.headers.get(b"authorization")
        if authorization is None or authorization[:7].lower() != b"bearer " or b"." in authorization:
            return None
        name = hashlib.sha256(authorization).digest()
        known = self._known.get(name)
        if known is None or known[0] != self._version:
            known = (self._version, self._read(authorization, now))
            self._known.put(name, known)
        caller = known[1]
        if now >= caller.until:
            self._known.drop(name)
            raise unrecognised("the pass has expired")
        return caller

    def _read(self, authorization: bytes, now: float) -> Caller:
        moment = datetime.fromtimestamp(now, UTC)
        try:
            said, holder = passes.verified(authorization, self._holders, self._models, moment)
        except RequestError as error:
            raise unrecognised(f"pass: {error.reason}") from error
        return Caller(
            id=f"pass:{holder.keyid[:32]}",
            role=said.role,
            method="pass",
            factors=("hwk",) if holder.keyid in self._hardware else (),
            until=min(said.not_after, holder.not_after).timestamp(),
            models=(said.model,),
        )


__all__ = ["Passes"]

"""All ways of showing who one is, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS, Caller, Recogniser, Showing
from bartizan.lifecycle.deploy.gateway.identity.certificates import Proxies
from bartizan.lifecycle.deploy.gateway.identity.refusal import Unready, unrecognised
from bartizan.lifecycle.deploy.gateway.identity.tokens import Tokens

PATIENCE = 5.0
"""Seconds that a request waits at most until it is known whether its token counts."""


class Chain:
    """Recognises whoever sends a request. What is shown and does not count is never passed over.

    ``anonymous``: whether a role of that name is configured, so that whoever shows nothing may be somebody.
    ``proxies``: those that hand certificates on, where there are any.
    """

    def __init__(self, recognisers: Sequence[Recogniser], *, anonymous: bool, proxies: Proxies | None = None) -> None:
        self.recognisers = tuple(recognisers)
        self._anonymous, self._proxies = anonymous, proxies

    @property
    def version(self) -> int:
        """Rises whenever what was remembered of callers is void."""
        return sum(each.version for each in self.recognisers)

    def recognise(self, showing: Showing, now: float) -> Caller:
        """The caller, out of memory.

        Raises:
            Unready: it has to be found out first; see ``again``.
            RequestError: 401, nobody is recognised.
        """
        if self._proxies is not None:
            certificate = self._proxies.certificate(showing.headers, showing.client, showing.certificate)
            showing = Showing(showing.headers, showing.client, certificate)
        for recogniser in self.recognisers:
            caller = recogniser.recognise(showing, now)
            if caller is not None:
                return caller
        headers = showing.headers
        if b"authorization" in headers or b"x-api-key" in headers:
            raise unrecognised("it shows who sent it in a way that is not configured")
        if self._anonymous:
            return ANONYMOUS
        raise unrecognised("it does not show who sent it")

    async def again(self, showing: Showing, now: float) -> Caller:
        """The caller, after what had to be found out was, or the patience of a request is over.

        Raises:
            RequestError: 401, nobody is recognised; 503, it could not be found out.
        """
        waits = [each.again(showing) for each in self.recognisers if isinstance(each, Tokens)]
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*waits)
        except TimeoutError as error:
            raise Unready("the issuer does not answer") from error
        return self.recognise(showing, now)


__all__ = ["PATIENCE", "Chain"]

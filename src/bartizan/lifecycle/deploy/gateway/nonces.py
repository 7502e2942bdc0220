"""Nonces that were seen, within bounds: each counts once."""

from __future__ import annotations

from collections import OrderedDict

from bartizan.lifecycle.deploy.gateway.failures import RequestError


class Nonces:
    """Remembers the nonces of each source until what they came with is stale, at most ``most`` of each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[str, OrderedDict[bytes, float]] = {}

    def new(self, source: str, nonce: bytes, until: float, now: float) -> bool:
        """Whether a nonce was not seen before; it is from now on, and until then.

        Raises:
            RequestError: 429, the source sends more than can be remembered: nothing is forgotten for it.
        """
        seen = self._seen.setdefault(source, OrderedDict())
        while seen and next(iter(seen.values())) <= now:
            seen.popitem(last=False)
        if nonce in seen:
            return False
        if len(seen) >= self._most:
            wait = max(1, round(next(iter(seen.values())) - now))
            reason = f"signed input: {source} sends more than {self._most} requests at a time"
            raise RequestError(429, "too many requests", headers={"retry-after": str(wait)}, reason=reason)
        seen[nonce] = until
        return True


__all__ = ["Nonces"]

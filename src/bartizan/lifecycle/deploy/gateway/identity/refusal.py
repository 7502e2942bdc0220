"""The one answer to everybody who is not recognised: it does not say what was wrong (CWE-204)."""

from __future__ import annotations

from bartizan.lifecycle.deploy.gateway.failures import RequestError

CHALLENGE = {"www-authenticate": 'Bearer realm="bartizan"'}
"""RFC 6750, section 3, without the reason."""
STEP_UP = {
    "www-authenticate": 'Bearer realm="bartizan", error="insufficient_user_authentication", '
    'error_description="a second factor is needed"'
}
"""RFC 9470: somebody is known, and this takes a second factor."""
UNKNOWN = "nobody who is known here has sent this"


def unrecognised(reason: str) -> RequestError:
    """401; ``reason`` is for the audit record."""
    return RequestError(401, UNKNOWN, headers=CHALLENGE, reason=reason)


class FactorError(RequestError):
    """401 for somebody who is known: this takes a second factor. ``fresh``: one that is shown with this request."""

    def __init__(self, reason: str, *, fresh: bool = True) -> None:
        super().__init__(401, "this takes a second factor", headers=STEP_UP, reason=reason)
        self.fresh = fresh


class Unready(RequestError):  # noqa: N818 - it is a RequestError by name already
    """Whether this counts is being found out: whoever can wait a moment asks again, others are told to."""

    def __init__(self, reason: str) -> None:
        super().__init__(503, "come again in a moment", headers={"retry-after": "1"}, reason=reason)


__all__ = ["CHALLENGE", "STEP_UP", "UNKNOWN", "FactorError", "Unready", "unrecognised"]

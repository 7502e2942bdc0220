"""What a forge says of the protection of a branch, read from an export of its API.

Three forms are read: GitHub's branch protection (``GET /repos/O/R/branches/B/protection``), GitHub's rules
of a branch (``GET /repos/O/R/rules/branches/B``) and GitLab's protected branch
(``GET /projects/ID/protected_branches/B``, with ``approvals_before_merge`` or ``approval_rules`` added to it
from its neighbours, and ``only_allow_merge_if_pipeline_succeeds`` from the project).
"""

from __future__ import annotations

from typing import Any

import msgspec

from bartizan.core.errors import InputError

LARGEST = 4 << 20
NOBODY = 0
"""GitLab's access level that lets nobody push."""


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """How a branch is protected, in words that all forges share."""

    forge: str
    approvals: int
    """Approvals of others that a change needs."""
    owners_approve: bool
    tests: bool
    """Whether checks must pass first."""
    force_push: bool
    """Whether history can be rewritten."""
    direct_push: bool
    """Whether a change can come in without review."""
    binds_administrators: bool
    signed: bool


def read_protection(data: bytes) -> Protection:
    """Read an export.

    Raises:
        InputError: it is none of the three forms.
    """
    try:
        document = msgspec.json.decode(data[: LARGEST + 1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the branch protection cannot be read: {error}", remedy=_REMEDY) from error
    if isinstance(document, list) and all(isinstance(rule, dict) and "type" in rule for rule in document):
        return _github_rules(document)
    if isinstance(document, dict) and "push_access_levels" in document:
        return _gitlab(document)
    if isinstance(document, dict) and ("enforce_admins" in document or "required_pull_request_reviews" in document):
        return _github(document)
    raise InputError("this is no branch protection of a known form", remedy=_REMEDY)


_REMEDY = (
    "save what the forge's API gives: GitHub branches/B/protection or rules/branches/B, GitLab protected_branches/B."
)


def _github(document: dict[str, Any]) -> Protection:
    reviews = _map(document.get("required_pull_request_reviews"))
    checks = _map(document.get("required_status_checks"))
    return Protection(
        forge="GitHub branch protection",
        approvals=_count(reviews.get("required_approving_review_count")),
        owners_approve=reviews.get("require_code_owner_reviews") is True,
        tests=bool(checks.get("contexts") or checks.get("checks")),
        force_push=_enabled(document, "allow_force_pushes"),
        direct_push=not reviews,
        binds_administrators=_enabled(document, "enforce_admins"),
        signed=_enabled(document, "required_signatures"),
    )


def _github_rules(rules: list[dict[str, Any]]) -> Protection:
    kinds = {str(rule["type"]): _map(rule.get("parameters")) for rule in rules}
    review = kinds.get("pull_request", {})
    return Protection(
        forge="GitHub rules",
        approvals=_count(review.get("required_approving_review_count")),
        owners_approve=review.get("require_code_owner_review") is True,
        tests=bool(kinds.get("required_status_checks", {}).get("required_status_checks")) or "workflows" in kinds,
        force_push="non_fast_forward" not in kinds,
        direct_push="pull_request" not in kinds,
        binds_administrators=True,
        signed="required_signatures" in kinds,
    )


def _gitlab(document: dict[str, Any]) -> Protection:
    levels = [_map(level).get("access_level") for level in _list(document.get("push_access_levels"))]
    rules = [_count(_map(rule).get("approvals_required")) for rule in _list(document.get("approval_rules"))]
    return Protection(
        forge="GitLab protected branch",
        approvals=max([_count(document.get("approvals_before_merge")), *rules]),
        owners_approve=document.get("code_owner_approval_required") is True,
        tests=document.get("only_allow_merge_if_pipeline_succeeds") is True,
        force_push=document.get("allow_force_push") is not False,
        direct_push=any(level != NOBODY for level in levels) or not levels,
        binds_administrators=all(level == NOBODY for level in levels) and bool(levels),
        signed=document.get("reject_unsigned_commits") is True,
    )


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _enabled(document: dict[str, Any], name: str) -> bool:
    return _map(document.get(name)).get("enabled") is True

"""Secrets in environment variables: their names, never their values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.environment.tested import Tested, answer
from bartizan.lifecycle.develop.secrets.finding import find

LEAST_VALUE = 6
"""Characters below which a value protects nothing."""
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|PWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?)(?:_|$)"
)
_NO_SECRET = re.compile(r"_(?:FILE|PATH|DIR|URL|ID|NAME|TYPE|SOCK|TTL|LIMIT|COUNT)$|^PWD$|^OLDPWD$")


def variables(environment: Mapping[str, str]) -> Tested:
    """Whether variables hold secrets, which every child process and every crash report can see."""
    findings = []
    for name in sorted(environment):
        value = environment[name].encode(errors="surrogateescape")
        hits = find(value, is_text=False)
        if hits or _promises(name, value):
            findings.append(_finding(name, hits[0].rule if hits else ""))
    return answer("variables/secrets", findings, f"{len(environment)} variables")


def _promises(name: str, value: bytes) -> bool:
    upper = name.upper()
    is_secret = _SECRET_NAME.search(upper) is not None and _NO_SECRET.search(upper) is None
    return is_secret and len(value) >= LEAST_VALUE and not value.startswith((b"/", b"$"))


def _finding(name: str, rule: str) -> Finding:
    return Finding(
        rule="environment/variable-secret",
        severity=Severity.MEDIUM,
        title="An environment variable holds a secret",
        where=f"${name}",
        detail=f"its value has the form of {rule}" if rule else "its name promises one",
        remedy="hand the program a file that only it can read, or a secret store, and unset the variable.",
        cwe=("CWE-526",),
        techniques=("AML.T0055",),
        controls=("2.2-f",),
    )

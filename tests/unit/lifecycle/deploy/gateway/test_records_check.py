"""What the check ``gateway.configuration`` says of the audit log's settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bartizan.core.finding import Severity
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings
from bartizan.lifecycle.deploy.gateway.configuration_check import _records


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("durable", {}),
        ("written", {"gateway/written-audit": Severity.LOW}),
        ("fast", {"gateway/fast-audit": Severity.MEDIUM}),
    ],
)
def test_what_a_mode_may_lose_is_a_finding_that_names_the_remedy(mode, found):
    configuration = SimpleNamespace(audit=AuditSettings(mode=mode, linger_ms=7, witness=("seen",)))
    said = list(_records(configuration, "gateway.toml"))
    assert {each.rule: each.severity for each in said} == found
    assert all("7 ms" in each.detail and "durable" in each.remedy for each in said)

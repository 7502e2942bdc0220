from __future__ import annotations

import msgspec
import pytest

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, Keep, check, nanoseconds


def test_the_defaults_lose_nothing_and_keep_no_content():
    settings = check(AuditSettings())
    assert settings.durable
    assert settings.content == "none"


def test_what_an_answer_waits_for():
    assert [(each.waits, each.durable) for each in map(of_mode, ("durable", "written", "fast"))] == [
        (True, True),
        (True, False),
        (False, False),
    ]


def of_mode(mode):
    return AuditSettings(mode=mode)


@pytest.mark.parametrize("name", ["answered", "refused", "flagged", "admin", "digests"])
def test_what_is_dropped_before_an_attack_would_be_noticed_is_refused(name):
    with pytest.raises(InputError, match=f"{name} = '29d' is not longer than detection_lag"):
        check(AuditSettings(keep=Keep(**{name: "29d"}), detection_lag="30d", review_within="1d"))


def test_content_has_to_outlive_the_lag_only_where_it_is_kept():
    keep = Keep(content="7d")
    check(AuditSettings(keep=keep))
    with pytest.raises(InputError, match="content = '7d'"):
        check(AuditSettings(keep=keep, content="flagged"))


def test_flagged_cases_outlive_their_review():
    with pytest.raises(InputError, match="review_within"):
        check(AuditSettings(review_within="1y"))


@pytest.mark.parametrize(
    "text",
    ['mode = "maybe"', "queue = 1", "linger_ms = 0", "unknown = 1", 'detection_lag = "soon"', "[keep]\nfoo = '1d'"],
)
def test_other_settings_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(text, type=AuditSettings)


def test_spans():
    assert nanoseconds("1d") == 86_400_000_000_000
    assert nanoseconds("1y") > nanoseconds("11m") > nanoseconds("300d")

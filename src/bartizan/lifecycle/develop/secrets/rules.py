"""What a secret looks like: one rule for each kind of key, token or password.

A token that its issuer gave a prefix is found by this prefix, everywhere. A value without any form of
its own is found only beside a name that promises a secret, and only in text. The forms are those that
the issuers publish; where a page says less than is needed, the rule asks for more than the page, because
an alarm that is false costs the trust in the next one.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Callable

import msgspec

from bartizan.core.finding import Severity

LEAST_BITS = 3.0
"""Shannon entropy, in bits a character, below which a token is made up: a sample, a row of x."""
NEW_TOKEN = "withdraw the token at its issuer, make a new one, and keep that outside of files that travel."  # noqa: S105 -- words for people
NEW_KEY = "replace the key and everything it signs or opens; keep the new one encrypted, apart from the model."
NEW_PASSWORD = "change the password, and read it from the environment or a secret store when the program starts."  # noqa: S105 -- words for people


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of secret."""

    id: str
    title: str
    keywords: tuple[bytes, ...]
    """Bytes of which one begins every match: what is searched for first, because that is quick."""
    pattern: re.Pattern[bytes]
    """Matched where a keyword stands; group ``secret``, or the whole, is what must not be shown."""
    severity: Severity = Severity.HIGH
    remedy: str = NEW_TOKEN
    sound: Callable[[bytes], bool] | None = None
    """What else must hold of the secret; None asks that it looks like chance."""


def entropy(data: bytes) -> float:
    """Shannon entropy in bits a byte; 0 for nothing."""
    counts = Counter(data)
    return -sum(count / len(data) * math.log2(count / len(data)) for count in counts.values())


def by_chance(secret: bytes) -> bool:
    """Whether a token looks drawn at random, and not like a sample that stands in for one."""
    low = secret.lower()
    return entropy(secret) >= LEAST_BITS and not any(word in low for word in (b"example", b"xxxxx", b"00000", b"12345"))


def is_jwt(secret: bytes) -> bool:
    """Whether the first part of a token is the header of a JSON web token (RFC 7519, section 5)."""
    head = secret.split(b".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and isinstance(header.get("alg"), str) and header["alg"] != "none"


def is_open_key(secret: bytes) -> bool:
    """Whether the body of a private key is there and not encrypted.

    An OpenSSH key names its cipher behind the magic ``openssh-key-v1`` (PROTOCOL.key of OpenSSH); keys of
    the older form name it in a header line (RFC 1421), which the pattern does not let pass.
    """
    body = re.sub(rb"\\n|\\r|\s", b"", secret)
    start = body[: len(body) // 4 * 4]
    try:
        raw = base64.b64decode(start, validate=True)
    except (binascii.Error, ValueError):
        return False
    if raw.startswith(b"openssh-key-v1\0"):
        return raw[15:].startswith(b"\0\0\0\4none")
    return raw[:1] == b"\x30" and entropy(body) >= LEAST_BITS


def is_password(secret: bytes) -> bool:
    """Whether a text inside an address is a password and no placeholder for one."""
    return not is_placeholder(secret) and len(set(secret)) > 2  # noqa: PLR2004 -- ``***`` and ``xx`` hide something


_PLACEHOLDERS = re.compile(
    rb"^(?:pass|pwd|pw|p4ss|mypass|tiger|postgres|repo|root)$|^[<\[({$%*.]|[>\])}]$|\$\{|\$\(|\{\{|%\(|%s|\{\w*\}|<\w|your|change|example|placeholder|dummy|sample|fake|redacted"
    rb"|hidden|secret|passw|token|apikey|api_key|xxx|\*\*\*|\.\.\.|todo|none|null|undefined|environ|getenv|test|foo|bar"
    rb"|default|1234|abcd|qwerty|admin|user|\bkey\b",
    re.IGNORECASE,
)


def is_placeholder(value: bytes) -> bool:
    """Whether a value stands for a secret without being one: ``<token>``, ``${PASSWORD}``, ``changeme``."""
    return _PLACEHOLDERS.search(value) is not None


def _token(name: str, title: str, keywords: str, pattern: str, severity: Severity = Severity.HIGH) -> Rule:
    """A token with a prefix of its own; letters of its alphabet may not follow it."""
    return Rule(
        id=f"secrets/{name}",
        title=title,
        keywords=tuple(word.encode() for word in keywords.split()),
        pattern=re.compile(f"(?:{pattern})(?![A-Za-z0-9_-])".encode()),
        severity=severity,
    )


RULES: tuple[Rule, ...] = (
    _token("aws-key", "An access key of AWS", "AKIA ASIA", r"A[KS]IA[A-Z2-7]{16}"),
    _token("google-api-key", "An API key of Google Cloud", "AIza", r"AIza[0-9A-Za-z_-]{35}"),
    _token("google-client-secret", "An OAuth client secret of Google", "GOCSPX-", r"GOCSPX-[0-9A-Za-z_-]{28}"),
    _token("google-access-token", "An access token of Google Cloud", "ya29.", r"ya29\.[0-9A-Za-z_-]{60,400}"),
    Rule(
        id="secrets/azure-storage-key",
        title="The key of a storage account of Azure",
        keywords=(b"AccountKey=",),
        pattern=re.compile(rb"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)"),
    ),
    Rule(
        id="secrets/azure-shared-access",
        title="A shared access signature of Azure",
        keywords=(b"sig=",),
        pattern=re.compile(rb"sig=(?P<secret>[A-Za-z0-9%/+]{43,60}(?:%3[dD]|=))(?![A-Za-z0-9])"),
    ),
    _token(
        "github-token",
        "A token of GitHub",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        Severity.CRITICAL,
    ),
    _token(
        "gitlab-token",
        "A token of GitLab",
        "glpat- gldt- glrt- glptt-",
        r"gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_.-]{20,300}",
        Severity.CRITICAL,
    ),
    _token(
        "slack-token",
        "A token of Slack",
        "xox xapp-",
        r"xox[abeprs]-[0-9]{6,14}-[0-9A-Za-z-]{10,250}|xapp-[0-9]-[A-Z0-9]{9,13}-[0-9]{9,14}-[0-9a-f]{64}",
    ),
    Rule(
        id="secrets/slack-webhook",
        title="A web hook of Slack",
        keywords=(b"hooks.slack.com/",),
        pattern=re.compile(
            rb"hooks\.slack\.com/(?:services|workflows)/(?P<secret>T[A-Z0-9]{7,12}/[A-Z0-9]{8,12}/[A-Za-z0-9]{20,48})"
        ),
    ),
    _token(
        "huggingface-token",
        "A token of the Hugging Face Hub",
        "hf_ api_org_",
        r"(?:hf|api_org)_[A-Za-z0-9]{34,40}",
        Severity.CRITICAL,
    ),
    _token(
        "openai-key",
        "A key of the OpenAI API",
        "sk-",
        r"sk-(?:(?:proj|svcacct|admin|None)-)?[A-Za-z0-9_-]{20,90}?T3BlbkFJ[A-Za-z0-9_-]{20,90}",
    ),
    _token(
        "anthropic-key", "A key of the Anthropic API", "sk-ant-", r"sk-ant-[a-z]{3,6}[0-9]{2}-[A-Za-z0-9_-]{60,140}"
    ),
    _token("replicate-token", "A token of Replicate", "r8_", r"r8_[A-Za-z0-9]{37}"),
    _token("databricks-token", "A token of Databricks", "dapi", r"dapi[0-9a-f]{32}(?:-[0-9])?"),
    _token("groq-key", "A key of the Groq API", "gsk_", r"gsk_[A-Za-z0-9]{52}"),
    _token("nvidia-key", "A key of the NVIDIA API", "nvapi-", r"nvapi-[A-Za-z0-9_-]{60,80}"),
    _token("langsmith-key", "A key of LangSmith", "lsv2_", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    _token("pinecone-key", "A key of Pinecone", "pcsk_", r"pcsk_[A-Za-z0-9]{5,7}_[A-Za-z0-9]{60,70}"),
    _token("pypi-token", "An upload token of PyPI", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{60,400}", Severity.CRITICAL),
    _token("npm-token", "A token of npm", "npm_", r"npm_[A-Za-z0-9]{36}", Severity.CRITICAL),
    _token("docker-token", "A token of Docker Hub", "dckr_", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,40}"),
    _token("digitalocean-token", "A token of DigitalOcean", "dop_v1_", r"dop_v1_[0-9a-f]{64}"),
    _token("vault-token", "A token of HashiCorp Vault", "hvs.", r"hvs\.[A-Za-z0-9_-]{24,200}"),
    _token("grafana-token", "A service token of Grafana", "glsa_", r"glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}"),
    _token("stripe-key", "A live key of Stripe", "sk_live_ rk_live_", r"[rs]k_live_[0-9A-Za-z]{24,120}"),
    _token("sendgrid-key", "A key of SendGrid", "SG.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    Rule(
        id="secrets/private-key",
        title="A private key that is not encrypted",
        keywords=(b"-----BEGIN ",),
        pattern=re.compile(
            rb"-----BEGIN (?:RSA |EC |DSA |OPENSSH )?PRIVATE KEY-----(?P<secret>(?:\\r|\\n|\s|[A-Za-z0-9+/=]){60,8000})"
        ),
        severity=Severity.CRITICAL,
        remedy=NEW_KEY,
        sound=is_open_key,
    ),
    Rule(
        id="secrets/putty-key",
        title="A private key of PuTTY that is not encrypted",
        keywords=(b"PuTTY-User-Key-File-",),
        pattern=re.compile(rb"PuTTY-User-Key-File-[23]: [\w-]{1,40}\s{1,2}Encryption: (?P<secret>none\s[^\0]{40,200})"),
        severity=Severity.CRITICAL,
        remedy=NEW_KEY,
    ),
    Rule(
        id="secrets/jwt",
        title="A signed JSON web token",
        keywords=(b"eyJ",),
        pattern=re.compile(rb"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,6000}\.[A-Za-z0-9_-]{20,1500}"),
        severity=Severity.MEDIUM,
        sound=is_jwt,
    ),
    Rule(
        id="secrets/jupyter-token",
        title="The token of a notebook server",
        keywords=(b"?token=",),
        pattern=re.compile(rb"\?token=(?P<secret>[0-9a-f]{48})(?![0-9a-f])"),
        severity=Severity.MEDIUM,
    ),
    Rule(
        id="secrets/url-password",
        title="An address that holds a password",
        keywords=(b"://",),
        pattern=re.compile(
            rb"""://[^\s:/@"'`<>\\(){}\[\],?#&]{1,80}:(?P<secret>[^\s@/"'`<>\\,]{4,120})@[A-Za-z0-9\[]"""
        ),
        remedy=NEW_PASSWORD,
        sound=is_password,
    ),
)
"""Rules for tokens with a form of their own."""

ASSIGNED = "secrets/assigned"
ASSIGNED_TITLE = "A value that looks like chance stands beside a name that promises a secret"
ASSIGNED_PASSWORD = "secrets/password"  # noqa: S105 -- words for people
ASSIGNED_PASSWORD_TITLE = "A password stands in plain text"  # noqa: S105 -- words for people

TITLES: dict[str, str] = {
    **{rule.id: rule.title for rule in RULES},
    ASSIGNED: ASSIGNED_TITLE,
    ASSIGNED_PASSWORD: ASSIGNED_PASSWORD_TITLE,
}
SEVERITIES: dict[str, Severity] = {
    **{rule.id: rule.severity for rule in RULES},
    ASSIGNED: Severity.MEDIUM,
    ASSIGNED_PASSWORD: Severity.MEDIUM,
}
REMEDIES: dict[str, str] = {
    **{rule.id: rule.remedy for rule in RULES},
    ASSIGNED: NEW_TOKEN,
    ASSIGNED_PASSWORD: NEW_PASSWORD,
}

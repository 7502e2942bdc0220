"""Secrets are found wherever they lie, are never shown, and ordinary text raises no alarm."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import string
import sysconfig
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.secrets.finding import find
from bartizan.lifecycle.develop.secrets.reading import OVERLAP, WINDOW, Limits
from bartizan.lifecycle.develop.secrets.rules import RULES, TITLES
from bartizan.lifecycle.develop.secrets.search import search
from fixtures.effort import quickest

SALT = b"s" * 32
LETTERS = string.ascii_letters + string.digits


def drawn(length: int, alphabet: str = LETTERS) -> str:
    """Characters as an issuer draws them."""
    return "".join(random.Random(f"{length}{alphabet}").choices(alphabet, k=length))


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def key(cipher: serialization.KeySerializationEncryption, form: serialization.PrivateFormat) -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(serialization.Encoding.PEM, form, cipher).decode()


PLAIN = serialization.NoEncryption()
LOCKED = serialization.BestAvailableEncryption(b"a passphrase")
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + "234567"

SAMPLES = {
    "secrets/aws-key": "AKIA" + drawn(16, UPPER),
    "secrets/google-api-key": "AIza" + drawn(35),
    "secrets/google-client-secret": "GOCSPX-" + drawn(28),
    "secrets/google-access-token": "ya29." + drawn(120),
    "secrets/azure-storage-key": "AccountKey=" + drawn(86) + "==;EndpointSuffix=core.windows.net",
    "secrets/azure-shared-access": "https://a.blob.core.windows.net/b?sv=2024&sig=" + drawn(43) + "%3D",
    "secrets/github-token": "ghp_" + drawn(36),
    "secrets/gitlab-token": "glpat-" + drawn(20),
    "secrets/slack-token": "xoxb-" + drawn(12, string.digits) + "-" + drawn(24),
    "secrets/slack-webhook": "https://hooks.slack.com/services/T"
    + drawn(8, UPPER)
    + "/B"
    + drawn(8, UPPER)
    + "/"
    + drawn(24),
    "secrets/huggingface-token": "hf_" + drawn(34),
    "secrets/openai-key": "sk-proj-" + drawn(40) + "T3BlbkFJ" + drawn(40),
    "secrets/anthropic-key": "sk-ant-api03-" + drawn(93) + "AA",
    "secrets/replicate-token": "r8_" + drawn(37),
    "secrets/databricks-token": "dapi" + drawn(32, HEX),
    "secrets/groq-key": "gsk_" + drawn(52),
    "secrets/nvidia-key": "nvapi-" + drawn(64),
    "secrets/langsmith-key": "lsv2_pt_" + drawn(32, HEX) + "_" + drawn(10, HEX),
    "secrets/pinecone-key": "pcsk_" + drawn(6) + "_" + drawn(63),
    "secrets/pypi-token": "pypi-AgEIcHlwaS5vcmc" + drawn(120),
    "secrets/npm-token": "npm_" + drawn(36),
    "secrets/docker-token": "dckr_pat_" + drawn(27),
    "secrets/digitalocean-token": "dop_v1_" + drawn(64, HEX),
    "secrets/vault-token": "hvs." + drawn(24),
    "secrets/grafana-token": "glsa_" + drawn(32) + "_" + drawn(8, HEX),
    "secrets/stripe-key": "sk_live_" + drawn(24),
    "secrets/sendgrid-key": "SG." + drawn(22) + "." + drawn(43),
    "secrets/private-key": key(PLAIN, serialization.PrivateFormat.PKCS8),
    "secrets/putty-key": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: k\nPublic-Lines: 2\n"
    + drawn(64),
    "secrets/jwt": f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': 'somebody', 'n': 7})}.{drawn(43)}",
    "secrets/jupyter-token": "http://localhost:8888/?token=" + drawn(48, HEX),
    "secrets/url-password": "postgresql://ml:w7Gq-zu9@db.internal/features",
    "secrets/assigned": f'wandb_api_key = "{drawn(40, HEX)}"',
    "secrets/password": 'password = "w7Gq-zu9!Lp"',
}


def rules_in(text: str, **how: bool) -> list[str]:
    return [hit.rule for hit in find(text.encode(), **how)]


def found_in(path: Path, **how: object) -> list[tuple[str, str]]:
    return [(secret.rule, secret.where) for secret in search(path, salt=SALT, **how).found]


def test_every_rule_has_a_sample():
    assert SAMPLES.keys() == TITLES.keys()
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", SAMPLES)
def test_each_kind_is_found_in_text(rule):
    assert rules_in(f"# settings\nx = 1\n{SAMPLES[rule]}\nmore\n") == [rule]


@pytest.mark.parametrize(
    "text",
    [
        'token = "<your token>"',
        'password = "${DB_PASSWORD}"',
        'api_key = os.environ["API_KEY"]',
        "password: changeme",
        'secret = "xxxxxxxxxxxxxxxxxxxxxxxx1"',
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "hf_" + "a" * 34,
        "postgresql://user:password@host/db",
        "https://example.org:8080/path@home",
        "tokenizer_class = 'PreTrainedTokenizerFast12'",
        '"pad_token": "<|endoftext|>", "eos_token_id": "50256"',
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        'access_key = "a-sentence with words 123 in it"',
        "eyJub3QiOiJhIGhlYWRlciJ9.eyJub3QiOiJhIGp3dCJ9.abcdefghijklmnopqrstuvw",
        'private_key = "/run/secrets/key-2026.pem"',
        'secret_id = "123e4567-e89b-12d3-a456-426614174000"',
        "token: sha256:" + "0a1b2c3d" * 8,
    ],
)
def test_what_stands_for_a_secret_is_none(text):
    assert rules_in(text, bare=True) == []


def test_an_encrypted_key_is_protected_and_an_open_one_is_not():
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.OpenSSH):
        assert rules_in(key(PLAIN, form)) == ["secrets/private-key"]
        assert rules_in(key(LOCKED, form)) == []


def test_a_key_in_a_service_account_file_is_found_behind_its_escapes():
    account = json.dumps({"type": "service_account", "private_key": SAMPLES["secrets/private-key"]})
    assert rules_in(account) == ["secrets/private-key"]


def test_values_without_quotes_count_in_the_files_that_write_them_so(tmp_path):
    line = f"WANDB_API_KEY={drawn(40, HEX)}\n"
    (tmp_path / ".env").write_text(line)
    (tmp_path / "notes.txt").write_text(line)
    assert found_in(tmp_path) == [("secrets/assigned", ".env:1")]


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "config.toml", "train.py", ".env"])
def test_files_of_all_kinds_name_the_line(tmp_path, name):
    (tmp_path / name).write_text(f'\n"hub_token" = "{SAMPLES["secrets/huggingface-token"]}"\n')
    assert found_in(tmp_path) == [("secrets/huggingface-token", f"{name}:2")]


def test_a_notebooks_cells_and_outputs_are_searched(tmp_path):
    cell = {"cell_type": "code", "source": ["import os\n", f'password = "{"w7Gq-zu9!Lp"}"\n']}
    shown = {"output_type": "stream", "text": ["loaded\n", f"using {SAMPLES['secrets/github-token']}\n"]}
    cell["outputs"] = [shown, {"output_type": "display_data", "data": {"text/plain": [SAMPLES["secrets/jwt"]]}}]
    notebook = {"nbformat": 4, "metadata": {"hub_token": drawn(40, HEX)}, "cells": [{"source": "1"}, cell]}
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    assert sorted(found_in(tmp_path)) == [
        ("secrets/assigned", "a.ipynb!/notebook/metadata/hub_token:1"),
        ("secrets/github-token", "a.ipynb!/cell-2/outputs/text:2"),
        ("secrets/jwt", "a.ipynb!/cell-2/outputs/data/textplain:1"),
        ("secrets/password", "a.ipynb!/cell-2/source:2"),
    ]


def test_a_broken_notebook_is_searched_as_text(tmp_path):
    (tmp_path / "a.ipynb").write_text('{"cells": [' + SAMPLES["secrets/github-token"])
    assert found_in(tmp_path) == [("secrets/github-token", "a.ipynb:1")]


def test_members_of_archives_are_searched_also_nested_and_packed(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"token": SAMPLES["secrets/npm-token"]}))
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/inner.zip", inner.getvalue())
        archive.writestr("archive/readme.md", SAMPLES["secrets/gitlab-token"])
    (tmp_path / "dump.txt.gz").write_bytes(gzip.compress(SAMPLES["secrets/stripe-key"].encode()))
    assert found_in(tmp_path) == [
        ("secrets/stripe-key", "dump.txt:1"),
        ("secrets/npm-token", "model.pt!/archive/inner.zip!/config.json:1"),
        ("secrets/gitlab-token", "model.pt!/archive/readme.md:1"),
    ]


def test_a_secret_between_two_windows_of_a_large_file_is_found_once(tmp_path):
    token = SAMPLES["secrets/github-token"].encode()
    for at in (WINDOW - 10, WINDOW - OVERLAP - 5, 2 * WINDOW - OVERLAP):
        path = tmp_path / "large.txt"
        path.write_bytes(b"a\n" * (at // 2) + token + b"\n" + b"b\n" * WINDOW)
        assert found_in(path) == [("secrets/github-token", f"large.txt:{at // 2 + 1}")]


def test_binary_files_and_utf16_text_are_searched(tmp_path):
    token = SAMPLES["secrets/github-token"]
    noise = random.Random(7).randbytes(200_000)
    (tmp_path / "model.bin").write_bytes(b"\0\1\2" + noise + b"\0" + token.encode() + b"\0" + noise)
    (tmp_path / "notes.txt").write_bytes(f"one\n{token}\n".encode("utf-16"))
    assert found_in(tmp_path) == [
        ("secrets/github-token", f"model.bin@{len(noise) + 4}"),
        ("secrets/github-token", "notes.txt:2"),
    ]


def test_a_secret_is_never_in_the_result(tmp_path):
    for number, sample in enumerate(SAMPLES.values()):
        (tmp_path / f"{number:02}.txt").write_text(sample)
    result = search(tmp_path, salt=SALT)
    assert len(result.found) == len(SAMPLES)
    for number, sample in enumerate(SAMPLES.values()):
        (hit,) = find(sample.encode())
        (secret,) = [each for each in result.found if each.where.startswith(f"{number:02}.txt")]
        said = f"{secret} {secret.finding()}"
        assert hit.secret.decode()[:40][4:].strip() not in said
        assert len(secret.begins) <= min(4, len(hit.secret) // 4)


def test_marks_are_equal_for_equal_secrets_and_tell_nothing_without_the_salt(tmp_path):
    (tmp_path / "a.txt").write_text(SAMPLES["secrets/github-token"])
    (tmp_path / "b.txt").write_text(f"\n\n{SAMPLES['secrets/github-token']}\n")
    first, second = search(tmp_path, salt=SALT).found
    assert first.mark == second.mark
    assert search(tmp_path, salt=b"t" * 32).found[0].mark != first.mark


def test_a_comment_excuses_its_line_only_when_the_caller_lets_it(tmp_path):
    token = SAMPLES["secrets/github-token"]
    (tmp_path / "a.py").write_text(f"a = '{token}'  # bartizan: allow-secret\nb = '{token}'\n")
    assert len(found_in(tmp_path)) == 2
    assert found_in(tmp_path, allow_marked=True) == [("secrets/github-token", "a.py:2")]


def test_what_is_not_searched_is_named(tmp_path):
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    (tmp_path / "b.gz").write_bytes(gzip.compress(bytes(4 << 20))[:-300])
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04 and no archive")
    (tmp_path / "d.zip").write_bytes(b"")
    result = search(tmp_path, salt=SALT)
    assert result.exit_code == 2
    assert [name.split(":")[0] for name in result.unread] == ["a.7z", "b.gz", "c.zip"]


def test_a_bomb_stops_at_the_limit(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(64 << 20))
    result = search(tmp_path, salt=SALT, limits=Limits(unpacked=4 << 20))
    assert result.bytes <= 8 << 20
    assert result.exit_code == 2


def test_links_are_not_followed_and_a_missing_path_is_an_error(tmp_path):
    (tmp_path / "outside.txt").write_text(SAMPLES["secrets/github-token"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "outside.txt")
    assert found_in(tmp_path / "in") == []
    with pytest.raises(ArtefactError, match="there is no"):
        search(tmp_path / "none", salt=SALT)


def test_packages_that_are_installed_raise_no_alarm():
    """Ordinary text of many authors: the rules may not cry wolf."""
    folder = Path(sysconfig.get_paths()["purelib"])
    alarms, size = [], 0
    for package in ("click", "jinja2", "msgspec", "packaging", "pip", "numpy", "requests", "urllib3", "yaml", "skops"):
        for path in sorted((folder / package).rglob("*")):
            if path.suffix in {".py", ".pyi", ".txt", ".json", ".toml", ".md", ".cfg", ".yaml"}:
                data = path.read_bytes()
                size += len(data)
                alarms += [(path.name, hit.rule) for hit in find(data, bare=path.suffix in {".cfg", ".yaml", ".toml"})]
    assert size > 5 << 20
    assert alarms == []


@given(st.binary(max_size=400))
def test_any_bytes_are_searched_without_an_error(data):
    find(data, bare=True)


@given(
    st.binary(max_size=300), st.sampled_from([b"PK\x03\x04", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
)
def test_any_bytes_behind_the_magic_of_an_archive_are_survived(tmp_path_factory, data, magic):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(magic + data)
    search(path, salt=SALT)


@pytest.mark.parametrize(
    "word", [b"eyJ", b"://", b"AKIA", b'token="', b"-----BEGIN PRIVATE KEY-----", b"sk-", b"a:b@://"]
)
def test_repeated_beginnings_cost_linear_time(word):
    def spent(count: int) -> float:
        return quickest(lambda: find(word * count, bare=True), times=3)

    assert spent(40_000) <= 30 * max(spent(4_000), 0.004)

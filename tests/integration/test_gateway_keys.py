"""``bartizan gateway key``: what a person does with keys, and what a gateway then makes of them."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from bartizan.cli.main import run
from bartizan.core.errors import KeyFileError
from bartizan.lifecycle.deploy.gateway.caller import Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.factors import code
from bartizan.lifecycle.deploy.gateway.identity.settings import (
    CertificateSettings,
    IdentitySettings,
    IssuerSettings,
    KeySettings,
    PassSettings,
    SigningSettings,
    SourceSettings,
)
from bartizan.lifecycle.deploy.gateway.policy import Policy, Rights
from bartizan.stores.shared.memory import MemoryState
from bartizan.wiring.gatekeys import Identity
from bartizan.wiring.workspace import Workspace


@pytest.fixture
def command(tmp_path, capfd):
    def go(*arguments, code=0):
        assert run(["-C", str(tmp_path), "gateway", "key", *arguments]) == code
        told = capfd.readouterr()
        return told.err if code else told.out.strip()

    return go


@pytest.fixture
def identity(tmp_path):
    made = Identity(Workspace(tmp_path), IdentitySettings(keys=KeySettings(poll=0.1)), MemoryState(), anonymous=False)
    made.load()
    yield made
    made.close()


def ask(identity, secret, **headers):
    asyncio.run(identity.watch.look())
    showing = Showing({b"authorization": f"Bearer {secret}".encode(), **headers}, "192.0.2.1")
    return identity.chain.recognise(showing, time.time()), showing


def test_from_the_first_key_to_its_end(command, identity, tmp_path):
    old = command("add", "--role", "analyst", "--label", "nightly", "--group", "g", "--attribute", "site=north")
    caller, _ = ask(identity, old)
    assert (caller.role, caller.groups, caller.attributes) == ("analyst", ("g",), {"site": "north"})
    [listed] = json.loads(command("list", "--json"))
    assert (listed["role"], listed["label"], listed["state"]) == ("analyst", "nightly", "counts")
    new = json.loads(command("rotate", listed["id"], "--overlap", "0", "--json"))
    assert ask(identity, new["key"])[0].id == caller.id
    with pytest.raises(RequestError):
        ask(identity, old)
    command("revoke", new["id"])
    with pytest.raises(RequestError):
        ask(identity, new["key"])
    assert json.loads(command("list", "--json")) == []
    assert {each["state"] for each in json.loads(command("list", "--all", "--json"))} == {"expired", "revoked"}
    assert "revoked before" in command("revoke", new["id"], code=2)
    stored = (tmp_path / ".bartizan" / "apikeys.db").read_bytes()
    assert old.split("_", 2)[2].encode() not in stored
    assert new["key"].split("_", 2)[2].encode() not in stored


def test_codes_of_an_authenticator_let_privileged_operations_through(command, identity, tmp_path):
    secret = command("add", "--role", "maintainer")
    [listed] = json.loads(command("list", "--json"))
    said = command("otp", listed["id"])
    seed = _seed(said)
    seal = tmp_path / ".bartizan" / "keys" / "gateway.seal"
    assert stat.S_IMODE(seal.stat().st_mode) == 0o600
    assert seed not in (tmp_path / ".bartizan" / "apikeys.db").read_bytes()
    again = Identity(Workspace(tmp_path), IdentitySettings(keys=KeySettings()), MemoryState(), anonymous=False)
    again.load()
    policy = Policy({"maintainer": Rights(operations=("admin.*",))})
    caller, showing = ask(again, secret)
    assert policy.decide(caller, "admin.key.add").factor
    given = Showing({**showing.headers, b"bartizan-otp": code(seed, int(time.time()) // 30).encode()}, showing.client)
    confirmed = asyncio.run(again.factors.confirm(caller, given, time.time()))
    assert policy.decide(confirmed, "admin.key.add").allowed
    again.close()


def _seed(said):
    return base64.b32decode(parse_qs(urlsplit(said).query)["secret"][0])


def test_a_seal_that_others_can_read_stops_the_start(command, tmp_path):
    command("add", "--role", "a")
    [listed] = json.loads(command("list", "--json"))
    command("otp", listed["id"])
    (tmp_path / ".bartizan" / "keys" / "gateway.seal").chmod(0o644)
    assert "chmod 600" in command("otp", listed["id"], code=2)


def test_secrets_of_sources_are_read_from_private_files_only(tmp_path):
    source = SourceSettings(name="north", keyid="k", algorithm="hmac-sha256", secret="north")
    settings = IdentitySettings(signing=SigningSettings(source=(source,)))

    def opened():
        Identity(Workspace(tmp_path), settings, MemoryState(), anonymous=False).close()

    with pytest.raises(KeyFileError):
        opened()
    secret = tmp_path / ".bartizan" / "keys" / "north.hmac"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(b"s" * 32 + b"\n")
    secret.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        opened()
    secret.chmod(0o600)
    opened()
    secret.write_bytes(b"short")
    with pytest.raises(KeyFileError, match="fewer than"):
        opened()


def test_an_identity_of_everything_opens_and_closes(tmp_path):
    """Whatever can be configured is made, and what nobody configured is not."""
    issuer = IssuerSettings(issuer="https://issuer.example", audiences=("a",))
    whole = IdentitySettings(
        keys=KeySettings(), issuer=(issuer,), certificates=CertificateSettings(proxies=("::1",)), passes=PassSettings()
    )
    made = Identity(Workspace(tmp_path), whole, MemoryState(), anonymous=False)
    assert [each.name for each in made.chain.recognisers] == ["key", "jwt", "pass", "mtls"]
    tasks = made.tasks()
    assert len(tasks) == 2
    for task in tasks:
        task.close()
    made.close()
    bare = Identity(Workspace(tmp_path), IdentitySettings(), MemoryState(), anonymous=True)
    assert (bare.chain.recognisers, bare.tasks()) == ((), [])
    assert bare.chain.recognise(Showing({}), time.time()).role == "anonymous"
    with pytest.raises(RequestError):
        bare.chain.recognise(Showing({b"authorization": b"Bearer x"}), time.time())


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "--role", "../x"),
        ("add", "--role", "a", "--days", "401"),
        ("add", "--role", "a", "--network", "everywhere"),
        ("add", "--role", "a", "--attribute", "x"),
        ("rotate", "abcdefgh2345"),
        ("revoke", "abcdefgh2345"),
        ("otp", "abcdefgh2345"),
    ],
)
def test_what_cannot_be_done_is_said(command, arguments):
    assert "rror" in command(*arguments, code=2)


def test_a_key_given_by_mistake_is_not_repeated(command):
    secret = f"btz_{'a' * 12}_{'S' * 43}"
    assert "S" * 43 not in command("revoke", secret, code=2)


def test_its_help_loads_no_database():
    script = (
        "import sys; from bartizan.cli.main import run; run(['gateway', '--help']);"
        "assert not {'sqlalchemy', 'cryptography', 'jwt', 'cedarpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0

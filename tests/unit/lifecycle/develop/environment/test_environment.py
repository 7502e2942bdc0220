"""What is wrong with an environment is seen, what is right is not, and what is not known is no pass."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import InputError
from bartizan.core.finding import Finding, Severity
from bartizan.core.system import Claim, Environment
from bartizan.lifecycle.develop.environment.claims import claims
from bartizan.lifecycle.develop.environment.forge import read_protection
from bartizan.lifecycle.develop.environment.look import Surroundings, compare, look, read_baseline
from bartizan.lifecycle.develop.environment.permissions import Place, is_encrypted, keys, permissions
from bartizan.lifecycle.develop.environment.ports import parse_table, ports
from bartizan.lifecycle.develop.environment.repository import Repository, judge, read_repository
from bartizan.lifecycle.develop.environment.runtime import hashes, interpreter, pins
from bartizan.lifecycle.develop.environment.tested import answer
from bartizan.lifecycle.develop.environment.variables import variables

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
OWNER = os.geteuid()
GITHUB = {
    "required_pull_request_reviews": {"required_approving_review_count": 2, "require_code_owner_reviews": True},
    "required_status_checks": {"strict": True, "contexts": ["test"]},
    "enforce_admins": {"enabled": True},
    "allow_force_pushes": {"enabled": False},
    "required_signatures": {"enabled": True},
}
RULES = [
    {"type": "pull_request", "parameters": {"required_approving_review_count": 1}},
    {"type": "required_status_checks", "parameters": {"required_status_checks": [{"context": "test"}]}},
    {"type": "non_fast_forward"},
]
GITLAB = {
    "push_access_levels": [{"access_level": 0}],
    "allow_force_push": False,
    "approvals_before_merge": 1,
    "only_allow_merge_if_pipeline_succeeds": True,
}


def socket(address: str, port: int, *, state: str = "0A", inode: int = 1) -> str:
    return (
        f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 0 1000 0 {inode} 1\n".replace(
            "00:00000000 0 1000 0", "00:00000000 00000000  1000        0"
        )
    )


@pytest.fixture
def proc(tmp_path):
    """A ``/proc`` with the given sockets."""

    def made(*lines: str, version6: str = "") -> Path:
        folder = tmp_path / "proc"
        (folder / "net").mkdir(parents=True, exist_ok=True)
        (folder / "net" / "tcp").write_text(HEAD + "".join(lines))
        (folder / "net" / "tcp6").write_text(HEAD + version6)
        return folder

    return made


def rules(test) -> list[str]:
    return [finding.rule.removeprefix("environment/") for finding in test.findings]


@pytest.fixture
def private(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    (folder / "ledger.db").write_text("")
    (folder / "ledger.db").chmod(0o600)
    return folder


def test_private_stores_pass_and_open_ones_do_not(private):
    place = Place(name="ledger", path=str(private))
    assert permissions([place], OWNER).state == "passed"
    (private / "ledger.db").chmod(0o666)
    seen = permissions([place], OWNER)
    assert (seen.state, rules(seen), seen.findings[0].where) == ("failed", ["world-writable"], "ledger/ledger.db")
    (private / "ledger.db").chmod(0o600)
    private.chmod(0o777)
    assert rules(permissions([Place(name="ledger", path=str(private / "ledger.db"))], OWNER)) == ["world-writable"]


@pytest.mark.skipif(OWNER != 0, reason="only root gives files away")
def test_groups_and_owners_are_judged(private):
    (private / "ledger.db").chmod(0o660)
    os.chown(private / "ledger.db", 12345, 23456)
    seen = permissions([Place(name="ledger", path=str(private))], OWNER)
    assert (seen.state, sorted(rules(seen))) == ("warned", ["foreign-owner", "group-writable"])


def test_keys_must_be_encrypted_and_private(tmp_path):
    made = ec.generate_private_key(ec.SECP256R1())
    shape = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    plain = made.private_bytes(*shape, serialization.NoEncryption())
    locked = made.private_bytes(*shape, serialization.BestAvailableEncryption(b"a passphrase"))
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "a.pem").write_bytes(plain)
    (folder / "a.pem").chmod(0o644)
    (folder / "b.pem").write_bytes(locked)
    (folder / "b.pem").chmod(0o600)
    seen = keys([Place(name="keys", path=str(folder))])
    assert rules(seen) == ["key-readable", "key-not-encrypted"]
    assert {finding.where for finding in seen.findings} == {"keys/a.pem"}
    assert is_encrypted(locked)


def test_variables_are_named_and_their_values_never_shown():
    token = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3hJ6"
    seen = variables(
        {"DB_PASSWORD": "w7Gq-zu9", "HOME": "/root", "INNOCENT": token, "TOKEN_FILE": "/run/t", "PWD": "/x"}
    )
    assert [finding.where for finding in seen.findings] == ["$DB_PASSWORD", "$INNOCENT"]
    assert not any(value in str(seen) for value in ("w7Gq", "aB3dE6"))


def test_services_on_outside_addresses_are_found_and_local_ones_are_not(proc):
    seen = ports(
        proc(
            socket("00000000", 8888, inode=1),
            socket("0100007F", 5000, inode=2),
            socket("00000000", 8265, state="01", inode=3),
            socket("0A01A8C0", 2375, inode=4),
            socket("00000000", 40123, inode=5),
            version6=socket("00000000000000000000000000000000", 6379, inode=6)
            + socket("00000000000000000000000001000000", 11434, inode=7)
            + socket("0000000000000000FFFF00000100007F", 6006, inode=8),
        )
    )
    assert [finding.where for finding in seen.findings] == [
        "tcp://192.168.1.10:2375",
        "tcp://0.0.0.0:8888",
        "tcp://[::]:6379",
    ]
    assert seen.findings[0].severity is Severity.CRITICAL


def test_a_program_is_known_by_its_name_on_any_port_and_a_port_can_be_allowed(proc, tmp_path):
    folder = proc(socket("00000000", 9999, inode=77), socket("00000000", 8080, inode=78))
    (folder / "4242" / "fd").mkdir(parents=True)
    (folder / "4242" / "fd" / "3").symlink_to("socket:[77]")
    (folder / "4242" / "cmdline").write_bytes(b"python\0-m\0jupyter\0lab\0--ip=0.0.0.0")
    seen = ports(folder, allowed=[8080])
    assert [finding.where for finding in seen.findings] == ["tcp://0.0.0.0:9999"]
    assert "Jupyter" in seen.findings[0].title
    assert ports(tmp_path / "none").state == "unknown"


def test_a_real_socket_of_this_machine_is_seen():
    import socket as sockets  # noqa: PLC0415

    if not Path("/proc/net/tcp").exists():
        pytest.skip("no Linux")
    with sockets.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        found = [each for each in parse_table(Path("/proc/net/tcp").read_text()) if each.port == port]
    assert [(each.address, each.is_local) for each in found] == [("127.0.0.1", True)]


@given(st.text(max_size=300))
def test_any_table_is_survived(text):
    list(parse_table(f"head\n{text}\n0: {text}"))


def test_the_interpreter_ends_some_day():
    assert interpreter((3, 12), date(2026, 11, 21)).state == "passed"
    assert interpreter((3, 10), date(2026, 11, 21)).state == "failed"
    assert interpreter((3, 7), date(2026, 11, 21)).state == "failed"
    assert interpreter((3, 11), date(2027, 9, 1)).state == "warned"
    assert interpreter((3, 99), date(2026, 11, 21)).state == "unknown"


def test_pins_need_a_version_and_a_hash():
    whole = b"numpy==2.1 \\\n    --hash=sha256:aa\n# note\n--index-url https://x\n"
    assert hashes(whole, "requirements.txt") == (1, [])
    assert hashes(b"numpy>=2\nscipy==1\n-e .\n", "requirements.txt") == (3, ["numpy", "scipy", "-e ."])
    lock = b'[[package]]\nname = "a"\nversion = "1"\n[[package.files]]\nhash = "sha256:00"\n'
    assert hashes(lock, "poetry.lock") == (1, [])
    assert hashes(lock.replace(b"sha256:", b"none"), "poetry.lock") == (1, ["a"])
    assert pins({"requirements.txt": whole}).state == "passed"
    assert pins({"requirements.txt": b"numpy==1\n"}).state == "failed"
    assert pins({"poetry.lock": b"\xff"}).state == "unknown"
    assert rules(pins({})) == ["no-lock-file"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A real repository, kept well but for its unsigned commit."""
    folder = tmp_path / "repository"
    (folder / ".github" / "workflows").mkdir(parents=True)
    (folder / ".github" / "CODEOWNERS").write_text("# who\n* @ml-team @security\n")
    (folder / ".github" / "workflows" / "ci.yml").write_text(
        f"jobs:\n  test:\n    steps:\n      - uses: actions/checkout@{'a' * 40}\n      - run: pytest -q\n"
    )
    (folder / "requirements.txt").write_text("numpy==2.1 --hash=sha256:aa\n")
    git(tmp_path, "init", "-q", "-b", "main", str(folder))
    git(folder, "add", ".")
    git(
        folder,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.example",
        "-c",
        "commit.gpgsign=false",
        "commit",
        "-qm",
        "one",
    )
    return folder


def by_name(tests) -> dict[str, str]:
    return {test.name.removeprefix("repository/"): test.state for test in tests}


def test_a_repository_is_read_and_judged(repository):
    found = read_repository(repository)
    assert (found.branch, found.signatures, list(found.locks)) == ("main", (False,), ["requirements.txt"])
    assert by_name(judge(found, json.dumps(GITHUB).encode())) == {
        "branch-protection": "passed",
        "review": "passed",
        "tests": "passed",
        "actions": "passed",
        "signed-commits": "warned",
    }


def test_what_is_missing_in_a_repository_is_said(repository):
    (repository / ".github" / "CODEOWNERS").unlink()
    workflow = repository / ".github" / "workflows" / "ci.yml"
    workflow.write_text("steps:\n  - uses: actions/checkout@v4\n  # - run: pytest\n")
    loose = {**GITHUB, "required_pull_request_reviews": None, "allow_force_pushes": {"enabled": True}}
    tests = judge(read_repository(repository), json.dumps(loose).encode())
    assert by_name(tests) == {
        "branch-protection": "failed",
        "review": "failed",
        "tests": "failed",
        "actions": "warned",
        "signed-commits": "warned",
    }
    assert sorted(rules(tests[0])) == ["direct-push", "force-push"]
    assert by_name(judge(read_repository(repository), None))["branch-protection"] == "warned"
    assert by_name(judge(read_repository(repository), b"no export"))["branch-protection"] == "warned"


def test_a_signed_commit_is_counted(repository, tmp_path):
    (tmp_path / "signer").write_text(
        "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\necho '-----BEGIN PGP SIGNATURE-----'\n"
    )
    (tmp_path / "signer").chmod(0o755)
    git(
        repository, "-c", f"gpg.program={tmp_path / 'signer'}", "-c", "user.name=a", "-c", "user.email=a@b.example",
        "commit", "-q", "--allow-empty", "-S", "-m", "two\n\ngpgsig is only a word here",
    )  # fmt: skip
    assert read_repository(repository).signatures == (True, False)


def test_a_repository_runs_no_program_of_its_own(repository, tmp_path):
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    for name in ("core.fsmonitor", "gpg.program", "core.pager", "log.showSignature"):
        git(repository, "config", name, "true" if name.startswith("log") else str(hook))
    assert read_repository(repository).signatures == (False,)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_git_fails(tmp_path):
    tests = judge(Repository(folder=""), None)
    assert by_name(tests)["branch-protection"] == "failed"
    assert by_name(tests)["signed-commits"] == "unknown"
    assert read_repository(tmp_path).folder == ""


@pytest.mark.parametrize("export", [GITHUB, RULES, GITLAB])
def test_three_exports_say_the_same(export):
    said = read_protection(json.dumps(export).encode())
    assert (said.approvals >= 1, said.tests, said.force_push, said.direct_push) == (True, True, False, False)


@pytest.mark.parametrize("export", [b"", b"{}", b"[]x", b"7", b'{"message": "Not Found"}', b"[" * 10_000])
def test_what_is_no_export_is_refused(export):
    with pytest.raises(InputError, match="branch protection"):
        read_protection(export)


def test_an_empty_list_of_rules_protects_nothing():
    said = read_protection(b"[]")
    assert (said.approvals, said.force_push, said.direct_push) == (0, True, True)


def test_claims_need_their_signers():
    ana, ben = Claim(concern="2.2-e", signer="ana"), Claim(concern="2.2-e", signer="ben")
    need = ("two-person-review", "mfa")
    assert [test.state for test in claims(need, (ana,), "system:x")] == ["failed", "failed"]
    assert [test.state for test in claims(need, (ana, ana), "system:x")] == ["failed", "failed"]
    said = (ana, ben, Claim(concern="2.2-c", signer="ana"))
    assert [test.state for test in claims(need, said, "system:x")] == ["passed", "passed"]


@pytest.fixture
def place(private, proc, repository):
    """Surroundings in which everything is as it should be, but for the unsigned commit."""
    return Surroundings(
        project=repository,
        system="system:x",
        part=Environment(),
        places=(Place(name="ledger", path=str(private)),),
        key_places=(),
        variables={},
        proc=proc(),
        owner=OWNER,
        repository=read_repository(repository),
        protection=json.dumps(GITHUB).encode(),
        salt=b"s" * 32,
        now=NOW,
        python=(3, 12),
    )


def test_a_baseline_leaves_only_what_differs(place, private, repository):
    first = compare(look(place))
    assert (first.result, first.exit_code(), [each.rule for each in first.open]) == (
        "WARNED",
        1,
        ["environment/unsigned-commits"],
    )
    baseline = read_baseline(msgspec.json.encode({"seen": first.seen}))
    assert baseline == first.seen
    again = compare(look(place), baseline)
    assert (again.result, again.exit_code(), again.open, len(again.known)) == ("PASSED", 0, (), 1)
    (private / "ledger.db").chmod(0o666)
    (repository / "config.yaml").write_text("password: w7Gq-zu9!Lp\n")
    worse = compare(look(place), baseline)
    assert [each.rule for each in worse.open] == ["environment/world-writable", "secrets/password"]
    assert (worse.result, worse.exit_code()) == ("FAILED", 1)
    mended = compare(look(place), worse.seen)
    (private / "ledger.db").chmod(0o600)
    assert (mended.open, [each.rule for each in compare(look(place), worse.seen).gone]) == (
        (),
        ["environment/world-writable"],
    )


def test_a_question_that_is_not_answered_any_more_is_no_pass(place, tmp_path):
    baseline = compare(look(place)).seen
    blind = msgspec.structs.replace(place, proc=tmp_path / "none")
    seen = compare(look(blind), baseline)
    assert (seen.unknown, seen.exit_code(), seen.result) == (("host/ports",), 2, "WARNED")
    fewer = msgspec.structs.replace(baseline, tests=baseline.tests[1:])
    assert compare(fewer, baseline).unknown == ("files/permissions",)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"seen": 7}', b'{"version": 9, "system": "x", "at": "2026-01-01T00:00Z", "tests": []}']
)
def test_what_is_no_baseline_is_refused(data):
    with pytest.raises(InputError, match="baseline"):
        read_baseline(data)


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("vulns/known", {"title": "numpy 1.2 has CVE-2025-1"}, {"title": "numpy 1.2 has CVE-2026-2"}),
        ("secrets/password", {"detail": "begins with 'w', mark 1a"}, {"detail": "begins with 'w', mark 2b"}),
        ("environment/action-not-pinned", {"detail": "good/action@v1"}, {"detail": "evil/action@v1"}),
    ],
)
def test_a_baseline_hides_nothing_that_merely_resembles_what_it_accepts(place, rule, before, after):
    def seen(**said):
        finding = Finding(**({"rule": rule, "severity": Severity.HIGH, "title": "t", "where": "x"} | said))
        return msgspec.structs.replace(look(place), tests=(answer("a", [finding]),))

    baseline = seen(**before)
    assert compare(seen(**before), baseline).open == ()
    assert [each.rule for each in compare(seen(**after), baseline).open] == [rule]


def test_a_count_that_moved_is_no_new_finding(place):
    def seen(count):
        title = f"{count} of the newest 100 commits carry no signature"
        finding = Finding(rule="environment/unsigned-commits", severity=Severity.LOW, title=title, where="repository")
        return msgspec.structs.replace(look(place), tests=(answer("a", [finding]),))

    assert compare(seen(4), seen(3)).open == ()


def test_a_comment_that_seems_to_go_on_hides_no_package():
    assert hashes(b"# note \\\nx==1.0\n", "requirements.txt") == (1, ["x"])

"""Every command: help, exit codes, errors that say what to do, and nothing printed that should not be."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import click
import pytest

from bartizan.cli.main import COMMANDS, cli, printable, run
from fixtures.project import declare, spawned


def all_commands():
    """Every command and subcommand, by its words."""

    def walk(group, words):
        with click.Context(group) as ctx:
            for name in group.list_commands(ctx):
                command = group.get_command(ctx, name)
                yield (*words, name), command
                if isinstance(command, click.Group):
                    yield from walk(command, (*words, name))

    return list(walk(cli, ()))


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """The example with keys and ledger, nothing assured."""
    folder = tmp_path_factory.mktemp("declared")
    declare(folder)
    return folder


@pytest.fixture
def ask(declared, ask_in):
    """Run a command on the declared example."""
    return functools.partial(ask_in, declared)


def test_the_table_of_commands_is_complete():
    for name, (where, help_text) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, where
        assert help_text.endswith(".")


@pytest.mark.parametrize(("words", "command"), [pytest.param(*pair, id=" ".join(pair[0])) for pair in all_commands()])
def test_every_command_has_help_that_says_what_it_does(words, command, capsys):
    assert run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in {"help", "roots"}:
            assert option.help, f"{words}: --{option.name} has no help"
    assert "Usage:" in text


def test_help_loads_no_framework():
    code = (
        "import sys; from bartizan.cli.main import run; run(['--help']);"
        "heavy = {'numpy', 'scipy', 'sklearn', 'sqlalchemy', 'cryptography', 'msgspec', 'jinja2', 'rich', 'yaml'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_commands_and_options_exit_with_2(capsys):
    assert run(["nonsense"]) == 2
    assert "No such command" in capsys.readouterr().err
    assert run(["assure", "--nonsense"]) == 2


def test_outside_a_project_the_error_says_to_init(tmp_path, capsys):
    for command in (["assure"], ["register"], ["gate", "explain"], ["evidence", "list"], ["report"]):
        assert run(["-C", str(tmp_path), *command]) == 2
        assert "bartizan init" in capsys.readouterr().err


def test_init_twice_changes_nothing(ask, declared):
    before = {path: path.read_bytes() for path in (declared / ".bartizan").rglob("*.pem")}
    code, _, errors = ask("init", "--yes", "--unencrypted")
    assert code == 0
    assert "left as it is" in errors
    assert {path: path.read_bytes() for path in (declared / ".bartizan").rglob("*.pem")} == before


def test_register_twice_signs_once(ask):
    code, output, _ = ask("register", "--json")
    assert code == 0
    assert {item["new"] for item in json.loads(output)} == {False}
    code, _, errors = ask("register", "model:nonsense")
    assert code == 2
    assert "model:tumour" in errors


def test_gate_explain_refuses_and_tells_why(ask):
    code, output, _ = ask("gate", "explain")
    assert code == 1
    assert "NOT MET" in output
    assert "next: bartizan" in output
    code, output, _ = ask("gate", "explain", "--json")
    assert json.loads(output)["passed"] is False
    code, _, errors = ask("gate", "explain", "nonsense")
    assert code == 2
    assert "release" in errors


def test_evidence_lists_what_was_registered(ask):
    code, output, _ = ask("evidence", "list", "--json")
    assert code == 0
    rows = json.loads(output)
    assert {row["type"] for row in rows} == {"signature"}
    assert {row["standing"] for row in rows} == {"holds"}
    code, output, _ = ask("evidence", "show", rows[0]["envelope"][:12])
    assert json.loads(output)["predicateType"] == "https://model_signing/signature/v1.0"
    assert ask("evidence", "show", "nonsense")[0] == 2
    assert ask("evidence", "list", "model:nonsense")[0] == 2
    assert ask("evidence", "due")[0] == 1


def test_decisions_need_the_role_and_an_end(ask):
    code, _, errors = ask("decide", "approval", "--about", "model:tumour", "--role", "risk-owner", "--reason", "fits")
    assert code == 0, errors
    for wrong in (
        ("--about", "model:tumour", "--role", "security", "--key", "risk-owner"),
        ("--about", "model:nonsense", "--role", "risk-owner"),
        ("--about", "model:tumour", "--role", "risk-owner", "--expires", "2020-01-01"),
        ("--about", "model:tumour", "--role", "risk-owner", "--expires", "soon"),
        ("--about", "model:tumour", "--role", "assurer", "--key", "service"),
        ("--about", "model:tumour", "--role", "risk-owner", "--key", "nobody"),
    ):
        code, _, errors = ask("decide", "approval", "--reason", "x", *wrong)
        assert code == 2
        assert " next: " in errors


def test_what_is_revoked_no_longer_counts(ask, declared):
    rows = json.loads(ask("evidence", "list", "dataset:holdout", "--json")[1])
    code, _, errors = ask("revoke", "envelope", rows[0]["envelope"], "--reason", "wrong file")
    assert code == 0, errors
    rows = json.loads(ask("evidence", "list", "dataset:holdout", "--json")[1])
    assert rows[0]["standing"] == "revoked"
    assert ask("revoke", "artefact", "nonsense", "--reason", "x")[0] == 2
    assert ask("revoke", "key", "ab", "--reason", "x")[0] == 2


def test_the_ledger_verifies_proves_exports_and_reindexes(ask, declared, tmp_path):
    assert ask("ledger", "verify")[0] == 0
    rows = json.loads(ask("evidence", "list", "--json")[1])
    digest = rows[0]["envelope"]
    note, proof, body = (str(tmp_path / name) for name in ("note.txt", "proof.json", "body.json"))
    assert ask("ledger", "checkpoint", "-o", note)[0] == 0
    assert ask("ledger", "prove", digest, "-o", proof)[0] == 0
    assert ask("ledger", "export", digest, "-o", body)[0] == 0
    key = str(declared / ".bartizan/keys/service.pub.pem")
    code, _, errors = ask("ledger", "check-proof", proof, body, "--key", key)
    assert code == 0, errors
    assert ask("ledger", "check-proof", proof, note, "--key", key)[0] == 2
    assert ask("ledger", "check-proof", body, body, "--key", key)[0] == 2
    assert ask("ledger", "verify", "--against", note)[0] == 0
    assert ask("ledger", "verify", "--against", body)[0] == 2
    assert ask("ledger", "reindex")[0] == 0
    assert ask("ledger", "verify")[0] == 0
    assert ask("ledger", "prove", "0" * 64)[0] == 2


def test_trust_can_be_changed_and_handed_on(ask, declared, tmp_path):
    assert ask("keys", "new", "domain", "--unencrypted")[0] == 0
    assert ask("keys", "new", "domain", "--unencrypted")[0] == 2
    assert ask("trust", "grant", "domain", "--role", "domain")[0] == 0
    assert ask("trust", "grant", "domain", "--role", "emperor")[0] == 2
    document = json.loads(ask("trust", "show", "--json")[1])
    assert document["version"] == 2
    old = tmp_path / "old.json"
    old.write_text(json.dumps({**document, "version": 1}))
    assert ask("trust", "sign", str(old), "-o", str(tmp_path / "old.dsse"))[0] == 0
    code, _, errors = ask("trust", "update", str(tmp_path / "old.dsse"))
    assert code == 2
    assert "not newer" in errors
    assert ask("trust", "withdraw", "domain")[0] == 0
    assert ask("trust", "withdraw", "domain")[0] == 2
    assert "domain" not in ask("trust", "show")[1]
    names = {row["name"] for row in json.loads(ask("keys", "list", "--json")[1])}
    assert names == {"root", "service", "risk-owner", "security", "domain"}


def test_the_ledger_key_can_be_replaced_but_not_lost(ask, monkeypatch):
    code, _, errors = ask("trust", "withdraw", "service")
    assert code == 2
    assert "BARTIZAN_SERVICE" in errors
    assert ask("keys", "new", "second", "--unencrypted", "--algorithm", "ed25519")[0] == 0
    assert ask("trust", "grant", "second", "--role", "assurer", "--role", "ledger")[0] == 0
    monkeypatch.setenv("BARTIZAN_SERVICE", "second")
    assert ask("trust", "withdraw", "service")[0] == 0
    assert ask("ledger", "verify")[0] == 0
    rows = json.loads(ask("evidence", "list", "--json")[1])
    assert {row["standing"] for row in rows if row["type"] == "signature"} == {"untrusted"}
    assert ask("trust", "grant", "service", "--role", "assurer", "--role", "ledger")[0] == 0


def test_a_new_machine_must_pin_the_ledger_by_its_digest(ask, declared, tmp_path, monkeypatch):
    first = ask("trust", "show")[2].split()[-1]
    monkeypatch.setenv("BARTIZAN_PIN", str(tmp_path / "pin.json"))
    code, _, errors = ask("trust", "show")
    assert code == 2
    assert "bartizan trust pin" in errors
    assert ask("trust", "pin", "0" * 64)[0] == 2
    assert ask("trust", "pin", first)[0] == 0
    assert ask("trust", "show")[0] == 0
    (tmp_path / "pin.json").write_text("nonsense")
    assert ask("trust", "show")[0] == 2


def test_signing_and_verifying_a_folder(ask, declared, tmp_path):
    signature, key = str(tmp_path / "data.sig"), str(declared / ".bartizan/keys/service.pub.pem")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "x").write_text("x")
    assert ask("sign", str(folder), "-o", signature)[0] == 0
    assert ask("verify", str(folder), "--signature", signature, "--key", key)[0] == 0
    (folder / "y").write_text("y")
    code, output, _ = ask("verify", str(folder), "--signature", signature, "--key", key)
    assert code == 1
    assert "added" in output
    assert ask("sign", str(folder), "-o", str(folder / "inside.sig"))[0] == 2
    assert ask("verify", str(folder), "--signature", key, "--key", key)[0] == 2


def test_impact_follows_lineage(ask):
    code, output, _ = ask("impact", "model:tumour", "--json")
    assert code == 0
    assert "signature" in {item["what"] for item in json.loads(output)}
    assert ask("impact", "nonsense")[0] == 2


def test_the_catalogue_is_searchable(ask):
    code, output, _ = ask("catalogue", "show", "T08")
    assert code == 0
    assert "Decision-based" in output
    assert json.loads(ask("catalogue", "show", "2.1-n", "--json")[1])["id"] == "2.1-n"
    assert ask("catalogue", "search", "membership")[0] == 0
    assert ask("catalogue", "search", "zzzzzz")[0] == 1
    assert ask("catalogue", "show", "T99")[0] == 2


def test_settings_are_shown_with_their_variables(ask):
    code, output, _ = ask("settings")
    assert code == 0
    assert "BARTIZAN_RECORDS" in output


def test_keys_with_a_passphrase_need_it(declared, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    for name in ("bartizan.toml", "data", "model"):
        (folder / name).symlink_to(declared / name)
    assert spawned(folder, "init", "--yes").returncode == 2
    assert spawned(folder, "init", "--yes", BARTIZAN_PASSPHRASE="secret").returncode == 0
    locked = spawned(folder, "keys", "new", "x")
    assert locked.returncode == 2
    assert "BARTIZAN_PASSPHRASE" in locked.stderr


def test_hostile_text_does_not_steer_the_terminal():
    assert printable("a\x1b[31mb\u202ec\n") == "a\\x1b[31mb\\u202ec\n"


def test_what_breaks_inside_is_no_bare_traceback(ask, monkeypatch):
    monkeypatch.setattr("bartizan.wiring.workspace.Workspace.system", lambda _: 1 // 0)
    code, _, errors = ask("gate", "explain")
    assert code == 2
    assert "ZeroDivisionError" in errors
    assert "Traceback" not in errors
    assert "BARTIZAN_DEBUG" in errors

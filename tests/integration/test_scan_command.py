"""``bartizan scan``, ``scan-policy`` and ``diff`` as a person uses them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys

import jsonschema
import numpy as np
import pytest

from bartizan.core import keys
from bartizan.lifecycle.develop.scan import scan_path, scanner
from fixtures.hostile_models import DANGEROUS, torch_archive, zipped

EVIL = DANGEROUS["os.system"]
GOOD = pickle.dumps([1, 2, 3])
UNLISTED = b"\x80\x04\x8c\x06ourlib\x8c\x04Gate\x93)\x81."


def test_one_command_says_what_a_file_is_what_it_would_do_and_what_to_do(tmp_path, ask_in):
    evil = zipped(torch_archive() | {"archive/data.pkl": EVIL})
    (tmp_path / "model.pt").write_bytes(evil)
    code, out, _ = ask_in(tmp_path, "scan", str(tmp_path / "model.pt"))
    assert code == 1
    assert "model.pt: DANGEROUS - do not load it" in out
    assert "system('" in out
    assert "model.pt!/archive/data.pkl@" in out
    assert "next: do not load this file" in out


@pytest.mark.parametrize(
    ("data", "code"), [(GOOD, 0), (EVIL, 1), (UNLISTED, 1), (b"\x00\x01 unknown", 2)], ids=["good", "evil", "odd", "?"]
)
def test_exit_codes(tmp_path, ask_in, data, code):
    (tmp_path / "model").write_bytes(data)
    assert ask_in(tmp_path, "scan", str(tmp_path / "model"))[0] == code


def test_findings_win_over_what_was_not_examined(tmp_path, ask_in):
    (tmp_path / "a").write_bytes(b"\x00\x01 unknown")
    (tmp_path / "b").write_bytes(EVIL)
    assert ask_in(tmp_path, "scan", str(tmp_path / "a"), str(tmp_path / "b"))[0] == 1
    assert ask_in(tmp_path, "scan", str(tmp_path))[0] == 1


def test_a_path_that_is_missing_does_not_hide_what_is_in_the_others(tmp_path, ask_in):
    (tmp_path / "good.pkl").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'id'\ntR.")
    gone = str(tmp_path / "gone.pkl")
    code, output, said = ask_in(tmp_path, "scan", gone, str(tmp_path / "good.pkl"))
    assert (code, "good.pkl" in output, "gone.pkl" in said) == (2, True, True)
    code, output, said = ask_in(tmp_path, "scan", gone, str(tmp_path / "evil.pkl"))
    assert (code, "evil.pkl" in output, "gone.pkl" in said) == (1, True, True)
    assert ask_in(tmp_path, "scan", gone)[0] == 2


def test_standard_input_is_scanned(tmp_path, ask_in, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(EVIL)))
    code, out, _ = ask_in(tmp_path, "scan", "-", "--json")
    assert code == 1
    assert json.loads(out)[0]["report"]["name"] == "stdin"


def test_a_pipe_is_scanned_by_the_command_itself(tmp_path):
    (tmp_path / "good").write_bytes(GOOD)
    command = [sys.executable, "-m", "bartizan", "scan", "-"]
    done = subprocess.run(command, input=GOOD, capture_output=True, check=False)
    assert (done.returncode, done.stdout[:12]) == (0, b"stdin: clean")


def test_findings_go_to_sarif(tmp_path, ask_in):
    (tmp_path / "model.pkl").write_bytes(EVIL)
    code, _, _ = ask_in(tmp_path, "scan", str(tmp_path / "model.pkl"), "--sarif", str(tmp_path / "found.sarif"))
    assert code == 1
    document = json.loads((tmp_path / "found.sarif").read_text())
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    assert {result["ruleId"] for result in run["results"]} == {"pickle/dangerous-callable"}
    assert run["results"][0]["level"] == "error"
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "model.pkl"
    jsonschema.validate(document, {"type": "object", "required": ["version", "runs"]})


def test_a_signed_policy_excuses_and_an_unsigned_one_does_not(tmp_path, ask_in, assured_once):
    folder = assured_once
    (tmp_path / "model.pkl").write_bytes(UNLISTED)
    (tmp_path / "policy.toml").write_text(
        '[[accept]]\nrule = "pickle/unlisted-class"\nnames = ["ourlib.Gate"]\n'
        'justification = "our own layer, reviewed"\nowner = "ml@example.org"\nexpires = 2099-01-01\n'
    )
    scan = ["scan", str(tmp_path / "model.pkl"), "--policy"]
    assert ask_in(folder, *scan, str(tmp_path / "policy.toml"))[0] == 2
    signed = str(tmp_path / "policy.json")
    assert ask_in(folder, "scan-policy", str(tmp_path / "policy.toml"), "-o", signed)[0] == 0
    code, out, _ = ask_in(folder, *scan, signed)
    assert code == 0
    assert "suspicious, accepted" in out
    assert "our own layer, reviewed (ml@example.org, until 2099-01-01)" in out
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(keys.public_pem(keys.generate().public_key()))
    code, _, errors = ask_in(tmp_path, *scan, signed, "--policy-key", str(stranger))
    assert code == 2
    assert "none of the trusted keys" in errors


def test_only_what_the_baseline_did_not_have_counts(tmp_path, ask_in):
    (tmp_path / "model.pkl").write_bytes(UNLISTED)
    _, out, _ = ask_in(tmp_path, "scan", str(tmp_path / "model.pkl"), "--json")
    (tmp_path / "baseline.json").write_text(out)
    scan = ["scan", str(tmp_path / "model.pkl"), "--baseline", str(tmp_path / "baseline.json")]
    code, out, _ = ask_in(tmp_path, *scan)
    assert (code, "1 known from the baseline" in out) == (0, True)
    (tmp_path / "model.pkl").write_bytes(EVIL)
    assert ask_in(tmp_path, *scan)[0] == 1


def test_a_folder_scanned_by_several_processes_gives_the_same_report(tmp_path, monkeypatch):
    for number in range(30):
        (tmp_path / f"{number:02}.pkl").write_bytes(EVIL if number == 17 else GOOD + b"." * (number % 2))
    alone = scan_path(tmp_path)
    monkeypatch.setattr(scanner, "PARALLEL_FILES", 10)
    told = []
    together = scan_path(tmp_path, jobs=2, progress=lambda *words: told.append(words))
    assert together == alone
    assert told[-1][0] == told[-1][1] == alone.size


def test_two_versions_are_compared(tmp_path, ask_in):
    np.savez(tmp_path / "1.npz", w=np.zeros(4), b=np.ones(2))
    np.savez(tmp_path / "2.npz", w=np.ones(4), b=np.ones(2))
    one, two = str(tmp_path / "1.npz"), str(tmp_path / "2.npz")
    code, out, _ = ask_in(tmp_path, "diff", one, two)
    assert code == 1
    assert "100.0% of its numbers" in out
    code, out, _ = ask_in(tmp_path, "diff", one, two, "--json")
    assert json.loads(out)["differences"][0]["name"] == "w"
    assert ask_in(tmp_path, "diff", one, one)[0] == 0
    code, _, errors = ask_in(tmp_path, "diff", one, str(tmp_path))
    assert (code, "folder" in errors) == (2, True)


def test_an_empty_pipe_is_no_clean_file(tmp_path, ask_in, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, errors = ask_in(tmp_path, "scan", "-")
    assert (code, out) == (2, "")
    assert "nothing came on standard input" in errors


def test_a_place_that_cannot_be_written_is_told_as_such(tmp_path, ask_in):
    (tmp_path / "model.pkl").write_bytes(GOOD)
    code, _, errors = ask_in(tmp_path, "scan", str(tmp_path / "model.pkl"), "--sarif", str(tmp_path / "no" / "x.sarif"))
    assert code == 2
    assert "No such file or directory" in errors
    assert "mistake in bartizan" not in errors


def test_json_says_what_the_exit_code_says(tmp_path, ask_in):
    (tmp_path / "model.pkl").write_bytes(UNLISTED)
    _, before, _ = ask_in(tmp_path, "scan", str(tmp_path / "model.pkl"), "--json")
    (tmp_path / "baseline.json").write_text(before)
    scan = ["scan", str(tmp_path / "model.pkl"), "--baseline", str(tmp_path / "baseline.json"), "--json"]
    code, out, _ = ask_in(tmp_path, *scan)
    (said,) = json.loads(out)
    assert code == said["exit_code"] == 0
    assert [each["rule"] for each in said["known"]] == ["pickle/unlisted-class"]
    (tmp_path / "baseline.json").write_text(out)
    assert ask_in(tmp_path, *scan)[0] == 0


def test_a_reader_that_leaves_gets_no_all_clear(tmp_path):
    (tmp_path / "model.pkl").write_bytes(EVIL)
    command = [sys.executable, "-m", "bartizan", "scan", *[str(tmp_path / "model.pkl")] * 200]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as scanning:
        scanning.stdout.close()
        assert scanning.wait(60) != 0

"""Payloads beside the content and files that a host acts on: found, and nothing harmless is taken for them."""

from __future__ import annotations

import base64
import random

import pytest

from bartizan.cli.main import run
from bartizan.lifecycle.develop.scan import Coverage, Limits, Verdict, scan_bytes
from fixtures import hostile_hidden as hidden
from fixtures.effort import within
from fixtures.hostile_hidden import B64, BENIGN, ELF, EVIL, GOOD, archive, gzipped, safetensors

SMALL = Limits(opcodes=200_000, memo=20_000, stack=20_000, nodes=20_000, expanded=1 << 22, members=200)
DANGEROUS = {**hidden.DANGEROUS, **hidden.HOST_DANGEROUS}
SUSPECT = {**hidden.SUSPECT, **hidden.HOST_SUSPECT}
EVERY = {**DANGEROUS, **SUSPECT, **BENIGN}


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_runs_when_it_is_decoded_or_acted_on_is_dangerous(name):
    report = scan_bytes(DANGEROUS[name], name)
    assert report.verdict is Verdict.DANGEROUS, [(each.rule, each.detail) for each in report.findings]


@pytest.mark.parametrize("name", SUSPECT)
def test_what_hides_or_waits_for_its_host_is_never_clean(name):
    report = scan_bytes(SUSPECT[name], name)
    assert report.verdict.rank >= Verdict.SUSPICIOUS.rank, report.verdict
    assert report.exit_code == 1


@pytest.mark.parametrize("name", BENIGN)
def test_harmless_neighbours_are_clean_and_examined(name):
    report = scan_bytes(BENIGN[name], name)
    assert report.exit_code == 0, [(each.rule, each.detail) for each in report.findings]
    assert report.total_coverage is Coverage.EXAMINED


def test_the_command_line_says_so(tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text(f"see {B64}\n")
    assert run(["scan", str(path)]) == 1
    assert "text/encoded-payload" in capsys.readouterr().out
    path.write_text(f"see {base64.b64encode(GOOD).decode()}\n")
    assert run(["scan", str(path)]) == 0


def test_the_last_of_many_encoded_files_is_not_passed_over_in_silence():
    many = "\n\n".join(base64.b64encode(GOOD).decode() for _ in range(100))
    report = scan_bytes(f"{many}\n\n{B64}\n".encode(), "notes.txt")
    assert report.exit_code != 0
    assert any("more than 64" in reason for reason in report.reasons)


@pytest.mark.parametrize("payload", [EVIL, ELF], ids=["pickle", "program"])
@pytest.mark.parametrize("spoilt", [b"", b"=", b"-", b"\n"])
def test_damage_around_an_encoded_file_does_not_hide_it(payload, spoilt):
    text = b'{"a": 1}; ' + spoilt + b" " + base64.b64encode(payload) + spoilt + b" and more\n"
    assert scan_bytes(text, "notes.txt").exit_code == 1


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_end_in_a_report_in_bounded_time(seed):
    rng = random.Random(seed)
    with within(20):
        for name, data in EVERY.items():
            for _ in range(4):
                damaged = bytearray(data[: 1 << 14])
                for _ in range(rng.randint(1, 6)):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                assert scan_bytes(bytes(damaged[: rng.randint(1, len(damaged))]), name, SMALL).to_json()


@pytest.mark.parametrize("whole", [archive(comment=EVIL, note=GOOD), gzipped(28, b"\x04\x00ABCDname\0note\0")])
def test_a_header_cut_anywhere_ends_in_a_report(whole):
    for size in range(1, len(whole)):
        assert scan_bytes(whole[:size], "x", SMALL).to_json()


@pytest.mark.parametrize(
    "text",
    [
        b"A" * (1 << 20),
        b"ab" * (1 << 19),
        (b"A" * 40 + b"\n") * 25_000,
        (b"A" * 32 + b"=\n") * 30_000,
        b"gASV" * (1 << 18),
        b"@x:" * (1 << 18),
        (b"fsmonitor " * 100_000),
    ],
    ids=["one run", "hex", "lines", "padded", "pickle after pickle", "registry", "git"],
)
@pytest.mark.parametrize("name", ["repo/.git/config", ".npmrc"])
def test_long_texts_take_bounded_time(text, name):
    with within(8):
        assert scan_bytes(text, name, SMALL).to_json()


def test_a_model_of_many_tensors_costs_little():
    with within(1):
        assert scan_bytes(safetensors(bytes(1 << 20)), "model.safetensors").exit_code == 0

"""What frameworks write, bent a little: listed callables, states and TorchScript that do harm."""

from __future__ import annotations

import random

import pytest

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.pickle.states import _is_plain_formula
from bartizan.lifecycle.develop.scan.rules import torch_script
from fixtures import hostile_frameworks as corpus
from fixtures.effort import within


@pytest.mark.control("2.1-n")
@pytest.mark.parametrize("vector", corpus.DANGEROUS)
def test_what_does_harm_is_called_dangerous(vector):
    report = scan_bytes(corpus.DANGEROUS[vector], "model.bin")
    assert report.verdict is Verdict.DANGEROUS, [finding.detail for part in report.walk() for finding in part.findings]


@pytest.mark.parametrize("vector", corpus.SUSPECT)
def test_what_nobody_writes_is_not_called_clean(vector):
    report = scan_bytes(corpus.SUSPECT[vector], "model.bin")
    assert report.verdict in {Verdict.SUSPICIOUS, Verdict.MALFORMED}


@pytest.mark.parametrize("vector", corpus.BENIGN)
def test_what_frameworks_write_is_clean(vector):
    report = scan_bytes(corpus.BENIGN[vector], "model.bin")
    details = [finding.detail for part in report.walk() for finding in part.findings]
    assert (report.verdict, report.total_coverage, details) == (Verdict.CLEAN, Coverage.EXAMINED, [])


def test_every_rule_for_torchscript_fires():
    fired = {
        finding.rule
        for data in (*corpus.DANGEROUS.values(), *corpus.SUSPECT.values())
        for part in scan_bytes(data, "m").walk()
        for finding in part.findings
    }
    assert {rule.id for rule in torch_script.RULES} <= fired


@pytest.mark.parametrize("vector", ["TorchScript", "statsmodels, plain formula", "arrow texts", "tensor of a class"])
def test_damaged_files_are_reported_on(vector):
    whole = corpus.BENIGN[vector]
    generator = random.Random(vector)
    damaged = [whole[:cut] for cut in range(0, len(whole), 7)]
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        damaged.append(bytes(changed))
    for data in damaged:
        assert scan_bytes(data, "m").exit_code in {0, 1, 2}


@pytest.mark.parametrize("part", ["(", "a+", "'", "`", "9", "a ** 2 + ", "np.", "I(", " ", "\n", "C(a, 'b') + "])
def test_long_formulas_are_judged_in_time(part):
    with within(2):
        _is_plain_formula(part * 10_000)


@pytest.mark.parametrize(
    "part", [b"torch . ", b"# ", b"torch.\\\n", b"ops .", b"getattr ", b"class ", b"\n", b'"""', b"torch.#\n"]
)
def test_long_sources_are_judged_in_time(part):
    with within(4):
        report = scan_bytes(corpus.script(corpus.PLAIN_CLASS + part * 100_000), "m")
        assert report.exit_code in {0, 1}

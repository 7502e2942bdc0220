"""Native model files made by hand: hostile ones are named, plain ones pass, damaged ones end in a report."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zipfile

import pytest

from bartizan.lifecycle.develop.scan import Coverage, Limits, Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.rules import native
from fixtures.effort import within
from fixtures.hostile_native import (
    BENIGN,
    CODE,
    DANGEROUS,
    GOOD,
    SCALER,
    SUSPECT,
    ubjson,
    ubjson_text,
    xgboost_model,
    xgboost_tree,
)

SMALL = Limits(opcodes=200_000, memo=20_000, stack=20_000, nodes=20_000, expanded=1 << 22, members=200)


@pytest.mark.parametrize("vector", DANGEROUS)
def test_a_dangerous_file_is_called_dangerous(vector):
    report = scan_bytes(DANGEROUS[vector], "model.bin")
    assert report.verdict is Verdict.DANGEROUS, [finding.detail for finding in report.findings]


@pytest.mark.parametrize("vector", SUSPECT)
def test_a_suspect_file_is_never_called_clean(vector):
    report = scan_bytes(SUSPECT[vector], "model.bin")
    assert report.verdict in {Verdict.SUSPICIOUS, Verdict.MALFORMED}, [finding.detail for finding in report.findings]


@pytest.mark.parametrize("vector", BENIGN)
def test_a_plain_file_passes(vector):
    report = scan_bytes(BENIGN[vector], "model.bin")
    assert (report.verdict, report.total_coverage) == (Verdict.CLEAN, Coverage.EXAMINED), report.findings


def test_every_rule_of_native_files_is_fired():
    files = [*DANGEROUS.values(), *SUSPECT.values()]
    fired = {finding.rule for data in files for finding in scan_bytes(data, "m").findings}
    assert {rule.id for rule in native.RULES} <= fired


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_end_in_a_report(seed):
    rng = random.Random(seed)
    starts = [data for data in [*BENIGN.values(), *DANGEROUS.values(), *SUSPECT.values()] if len(data) < 8000]
    for _ in range(500):
        data = bytearray(rng.choice(starts))
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        assert scan_bytes(bytes(data), "x", SMALL).to_json()


@pytest.mark.parametrize("vector", [name for name in BENIGN if "arrow stream" not in name])
def test_a_file_that_is_cut_off_is_not_clean(vector):
    data = BENIGN[vector]
    is_text = vector.startswith(("pmml", "lightgbm"))
    for end in range(0, len(data) - (40 if is_text else 1), max(1, len(data) // 40)):
        report = scan_bytes(data[:end], "x", SMALL)
        assert report.to_json()
        assert end < 20 or is_text or report.exit_code != 0, end


def test_a_byte_behind_a_binary_model_is_seen():
    for name in (
        "xgboost ubjson",
        "xgboost binary",
        "catboost",
        "fasttext",
        "sentencepiece",
        "rds, numbers",
        "arrow stream",
    ):
        assert scan_bytes(BENIGN[name] + b"\x01", "x").exit_code == 1, name


def test_a_circle_is_found_in_a_model_that_is_decoded_tree_by_tree(monkeypatch):
    monkeypatch.setattr("bartizan.lifecycle.develop.scan.formats.xgboost.DECODED_WHOLE", 100)
    good = json.dumps(xgboost_model(GOOD, GOOD)).encode()
    assert scan_bytes(good, "m.json").exit_code == 0
    for name in ("xgboost json, a circle", "xgboost json, a circle in dart", "xgboost json, a child outside"):
        assert scan_bytes(DANGEROUS[name], "m.json").verdict is Verdict.DANGEROUS
    for name in ("xgboost json, code in an attribute", "xgboost json, cut off", "xgboost json, a booster that is none"):
        assert scan_bytes(SUSPECT[name], "m.json").exit_code == 1


def test_a_skops_file_says_so_and_an_archive_with_another_schema_does_not():
    assert scan_bytes(BENIGN["skops, a scaler"], "m.skops").format == "skops"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("schema.json", '{"type": "object"}')
    assert scan_bytes(target.getvalue(), "m.zip").format == "zip"


def test_a_schema_that_hides_its_keys_behind_escapes_is_read():
    hidden = json.dumps({"protocol": 2} | SCALER | {"__class__": "system", "__module__": "os"})
    hidden = hidden.replace('"__loader__"', '"\\u005f_loader__"').replace('"protocol"', '"\\u0070rotocol"')
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("schema.json", hidden)
    assert scan_bytes(target.getvalue(), "m.skops").verdict is Verdict.DANGEROUS


def expensive():
    """Small files that try to cost much."""
    yield "ubjson maps", b"{" + ubjson_text("learner") + b"[" + b"{}" * 150_000
    yield "ubjson keys", b"{" + ubjson_text("learner") + b"{" + (ubjson_text("k") + b"Z") * 100_000
    yield "xgboost, many nodes", ubjson(xgboost_model(xgboost_tree([*range(1, 100_000), -1], [*range(1, 100_000), -1])))
    yield "xgboost, a chain", ubjson(xgboost_model(xgboost_tree([1, *[-1] * 99_999], [2, *[-1] * 99_999])))
    yield "lightgbm, empty lines", b"tree\nversion=v4\n" + b"\n" * 1_000_000
    yield "lightgbm, a line without end", b"tree\nversion=v4\n" + b"a" * 3_000_000
    yield "pmml, spaces", b"<?xml version='1.0'?>" + b" " * 1_000_000 + b"<PMM"
    yield "pmml, comments", b"<!--" * 100_000 + b"PMML"
    yield "rds, lists in lists", b"X\n" + struct.pack(">iii", 2, 0, 0) + (b"\0\0\0\x13" + b"\0\0\0\1") * 200_000
    yield "rds, pairs", b"X\n" + struct.pack(">iii", 2, 0, 0) + b"\0\0\0\2" * 150_000
    yield "thrift, lists", b"PAR1" + b"\x19" + b"\xf9\x80\x80\x04" * 100_000 + struct.pack("<I", 400_001) + b"PAR1"
    yield "arrow, empty messages", b"\xff\xff\xff\xff\x00\x00\x00\x00" * 100_000
    yield "sentencepiece, pieces", b"\x0a\x08\x0a\x01a\x15\0\0\0\0" * 100_000
    yield "texts that look like code", json.dumps(xgboost_model(GOOD, attributes={"a": "curl " * 200_000})).encode()
    yield "many findings", json.dumps(xgboost_model(*[GOOD] * 300, feature_names=[CODE] * 3000)).encode()


@pytest.mark.parametrize(("name", "data"), [pytest.param(*case, id=case[0]) for case in expensive()])
def test_small_files_cannot_cost_much(name, data):
    with within(6):
        assert scan_bytes(data, "x", SMALL).to_json()
    if len(data) < 1_000_000:
        tracemalloc.start()
        scan_bytes(data, "x", SMALL)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 80 << 20

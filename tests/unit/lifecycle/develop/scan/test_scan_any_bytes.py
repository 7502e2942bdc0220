"""Any bytes end in a report, within bounds and without an exception."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
import zipfile

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.lifecycle.develop.scan import Limits, Report, registry, scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.verdict import Coverage, Verdict
from fixtures.corpus import gathered
from fixtures.effort import within
from fixtures.hostile_models import torch_archive, zipped

MAGICS = [
    b"\x80\x04",
    b"\x80\x02",
    b"PK\x03\x04",
    b"\x93NUMPY\x01\x00",
    b"\x1f\x8b\x08",
    b"x\x9c",
    b"(",
    b"c",
    b"BZh91AY&SY",
]
SMALL = Limits(opcodes=200_000, memo=20_000, stack=20_000, nodes=20_000, expanded=1 << 22, members=200)


def npz() -> bytes:
    """A compressed array archive."""
    target = io.BytesIO()
    np.savez_compressed(target, a=np.arange(5.0), b=np.array(["x"], dtype=object))
    return target.getvalue()


FORMATS = [
    npz(),
    zipped(torch_archive()),
    zipped(torch_archive(), zipfile.ZIP_DEFLATED),
    gzip.compress(b"\x80\x04K\x01.", mtime=0),
    b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}          ' + b"1234",
]


@given(st.binary(max_size=300), st.sampled_from([b"", *MAGICS]))
def test_random_bytes_end_in_a_report(data, magic):
    report = scan_bytes(magic + data, "x", SMALL)
    assert isinstance(report, Report)
    assert b"file/unforeseen" not in report.to_json()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_of_every_format_end_in_a_report(seed):
    rng = random.Random(seed)
    starts = [*FORMATS, *(data for data in gathered("DANGEROUS", "SUSPECT", "BENIGN").values() if len(data) < 5000)]
    for _ in range(700):
        data = bytearray(rng.choice(starts))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        assert b"file/unforeseen" not in scan_bytes(bytes(data), "x", SMALL).to_json()


@pytest.mark.parametrize("seed", range(2))
def test_every_cut_of_a_file_ends_in_a_report(seed):
    data = FORMATS[seed]
    for end in range(0, len(data), 7):
        report = scan_bytes(data[:end], "x", SMALL)
        assert report.exit_code != 0 or end == 0
        assert b"file/unforeseen" not in report.to_json()


def test_a_reader_that_fails_neither_stops_the_scan_nor_passes_for_clean(monkeypatch, tmp_path):
    def broken(source, meter, examine):
        raise ValueError("nobody thought of this")

    readers = registry.examiner
    monkeypatch.setattr(registry, "examiner", lambda kind: broken if kind == "gzip" else readers(kind))
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a"))
    (tmp_path / "b.npz").write_bytes(npz())
    report = scan_path(tmp_path)
    first, second = report.members
    assert (report.exit_code, first.verdict, second.coverage) == (1, Verdict.SUSPICIOUS, Coverage.EXAMINED)
    assert any("nobody thought of this" in found.detail for found in first.findings)


def expensive():
    """Small files that try to cost much."""
    word = b"X\x10\x27\x00\x00" + b"a" * 10_000 + b"\x94"
    yield "a long name imported often", b"\x80\x04" + word + b"h\x00h\x00\x930" * 50_000 + b"."
    yield "many marks", b"\x80\x04" + b"(" * 300_000 + b"."
    yield "many marks, then much work", b"\x80\x04" + b"(" * 19_000 + b"N0" * 300_000
    yield "many bad calls", b"\x80\x04cos\nsystem\nq\x00" + b"h\x00)R0" * 50_000 + b"N."
    yield (
        "one state for many objects",
        (
            b"\x80\x04cscipy.stats._continuous_distns\nnorm_gen\n\x94}\x94("
            + b"".join(b"\x8c\x04%04dN" % n for n in range(500))
            + b"u0"
            + b"h\x00)\x81h\x01b0" * 20_000
            + b"N."
        ),
    )
    yield "many short streams", gzip.compress(b"", mtime=0) * 50_000
    yield "many pickles", b"\x80\x04N." * 50_000
    yield "a run that fails at its end", b"\x80\x04" + (b"(" + b"K\x01" * 4000 + b"0") * 30 + b"."
    yield "nested runs", b"\x80\x04" + b"]\x94(" * 20_000 + b"K\x01" * 20_000
    yield "shared lists", b"\x80\x04]\x94" + b"".join(b"](h%ch%ce\x94" % (n, n) for n in range(200)) + b"."
    yield "one zip member many times", zipped({f"{n:03}": b"\0" * 9999 for n in range(150)}, zipfile.ZIP_DEFLATED)
    yield "a text line without end", b"V" + b"a" * 3_000_000


@pytest.mark.parametrize(("name", "data"), [pytest.param(*case, id=case[0]) for case in expensive()])
def test_small_files_cannot_cost_much(name, data):
    with within(15):
        assert scan_bytes(data, "x", SMALL).to_json()
    tracemalloc.start()
    scan_bytes(data, "x", msgspec.structs.replace(SMALL, reading=100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20

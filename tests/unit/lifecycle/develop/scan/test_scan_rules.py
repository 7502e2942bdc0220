"""Rules: stable ids, complete texts, and not one that nothing fires."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile

import numpy as np
import pytest

from bartizan.catalogue.load import catalogue
from bartizan.lifecycle.develop.scan import RULES, Limits, Verdict, scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.source import Draft, Source
from fixtures.corpus import FAMILIES, folders, gathered, write
from fixtures.hostile_models import DANGEROUS, EVIL, zipped


def linked_zip() -> bytes:
    """An archive with a symbolic link."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.create_system = 3
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, b"/etc/passwd")
    return target.getvalue()


def two_of_a_name() -> bytes:
    """An archive with the same name twice."""
    return zipped({"a": b"1", "b": b"2"}).replace(b"b", b"a")


def safetensors(header: str, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    raw = header.encode()
    return struct.pack("<Q", len(raw)) + raw + data


def short_npy() -> bytes:
    """An array file that ends early."""
    target = io.BytesIO()
    np.save(target, np.zeros(9))
    return target.getvalue()[:-8]


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
MORE = {
    "archive/bomb": zipped({"zeros": b"\0" * 100_000}, zipfile.ZIP_DEFLATED),
    "file/limit": EVIL,
    "numpy/size": short_npy(),
    "safetensors/malformed": safetensors("{]"),
    "safetensors/duplicate-key": safetensors('{"a":1,"a":2}'),
    "safetensors/offsets": safetensors(json.dumps({"a": TENSOR | {"shape": [2]}}), b"1234"),
    "zip/duplicate-name": two_of_a_name(),
    "zip/header-mismatch": zipped({"abc": b"1"}).replace(b"abc", b"abd", 1),
    "zip/link": linked_zip(),
    "file/misnamed": DANGEROUS["os.system"],
}
LIMITS = {
    "archive/bomb": Limits(ratio=2, ratio_from=1000),
    "file/limit": Limits(opcodes=2),
}


def test_every_rule_is_fired_by_some_file(tmp_path):
    fired = set()
    for data in gathered("DANGEROUS", "SUSPECT").values():
        fired |= {finding.rule for finding in scan_bytes(data, "model.bin").findings}
    for family in FAMILIES:
        for number, (files, _) in enumerate(folders(family).values()):
            report = scan_path(write(files, tmp_path / f"{family}-{number}"))
            fired |= {finding.rule for finding in report.findings}
    for rule, data in MORE.items():
        name = "a.npy" if rule == "file/misnamed" else "model.bin"
        fired |= {finding.rule for finding in scan_bytes(data, name, LIMITS.get(rule, Limits())).findings}
    # No file is known that a reader fails on; what happens then is tested with a reader that always fails.
    assert fired == set(RULES) - {"file/unforeseen"}


@pytest.mark.parametrize("rule", RULES.values(), ids=str)
def test_a_rule_has_all_its_texts(rule):
    assert re.fullmatch(r"[a-z0-9]+/[a-z0-9-]+", rule.id)
    assert rule.title[0].isupper()
    assert not rule.title.endswith(".")
    assert rule.explanation.endswith(".")
    assert rule.remedy.endswith(".")
    assert all(re.fullmatch(r"CWE-\d+", cwe) for cwe in rule.cwe)
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?|T\d\d", technique) for technique in rule.techniques)


def test_the_techniques_are_in_the_catalogue():
    techniques = {entry.id for entry in catalogue().entries.techniques}
    ours = {technique for rule in RULES.values() for technique in rule.techniques if technique.startswith("T")}
    assert ours <= techniques


def test_many_findings_do_not_push_out_the_worst():
    draft = Draft(Source(b"", "model", "model"), "folder", 3)
    for number in range(5):
        draft.fire("file/misnamed", f"file {number}")
    draft.fire("pickle/dangerous-callable", "calls posix.system('id')")
    report = draft.close()
    assert report.verdict is Verdict.DANGEROUS
    assert [finding.rule for finding in report.findings] == [
        "pickle/dangerous-callable",
        "file/misnamed",
        "file/misnamed",
    ]
    assert report.facts["findings_left_out"] == 3

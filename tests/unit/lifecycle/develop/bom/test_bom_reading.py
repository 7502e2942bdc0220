"""Bills of others are read within bounds, and an error names what is wrong with them."""

from __future__ import annotations

import json
import random

import pytest

from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.bom.difference import compare, find, undocumented
from bartizan.lifecycle.develop.bom.reading import read_bill

CYCLONEDX = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
    "metadata": {"component": {"type": "application", "name": "spam"}},
    "components": [
        {
            "type": "library",
            "name": "numpy",
            "version": "1.26.4",
            "purl": "pkg:pypi/numpy@1.26.4",
            "hashes": [{"alg": "SHA-256", "content": "AB" * 32}],
            "licenses": [{"license": {"id": "BSD-3-Clause"}}],
            "components": [{"type": "library", "name": "openblas"}],
        },
        {"type": "machine-learning-model", "name": "spam", "supplier": {"name": "Us"}},
    ],
    "services": [{"name": "moderation", "provider": {"name": "Them"}}],
}
SPDX = {
    "spdxVersion": "SPDX-2.3",
    "name": "spam",
    "documentNamespace": "https://example.org/spam",
    "packages": [
        {
            "name": "numpy",
            "SPDXID": "SPDXRef-1",
            "versionInfo": "2.0.0",
            "licenseConcluded": "BSD-3-Clause",
            "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:pypi/numpy@2.0.0"}],
            "checksums": [{"algorithm": "SHA256", "checksumValue": "cd" * 32}],
        }
    ],
}


def read(**changes):
    return read_bill(json.dumps({**CYCLONEDX, **changes}).encode())


def test_cyclonedx_is_read_with_nested_components_and_services():
    bill = read()
    assert [component.name for component in bill.components] == ["numpy", "spam", "openblas", "moderation"]
    numpy = bill.components[0]
    assert (numpy.purl, numpy.licences, numpy.hashes) == (
        "pkg:pypi/numpy@1.26.4",
        ("BSD-3-Clause",),
        ("sha-256:" + "ab" * 32,),
    )
    assert bill.components[3].supplier == "Them"


def test_spdx_is_read_into_the_same_shape():
    bill = read_bill(json.dumps(SPDX).encode())
    assert (bill.form, bill.version, bill.components[0].key) == ("SPDX", "2.3", "pkg:pypi/numpy")


def test_two_bills_are_compared_across_formats():
    changes = compare(read(), read_bill(json.dumps(SPDX).encode()))
    told = {(change.component, change.change, change.field) for change in changes}
    assert ("pkg:pypi/numpy", "changed", "version") in told
    assert ("service:moderation", "removed", "") in told


@pytest.mark.parametrize("wanted", ["numpy", "NumPy@1.26.4", "pkg:pypi/numpy", "pkg:pypi/numpy@1.26.4"])
def test_a_component_is_found_by_name_version_or_package_url(wanted):
    assert [component.name for component in find(read(), wanted)] == ["numpy"]


@pytest.mark.parametrize("wanted", ["num", "numpy@1.26", "pkg:pypi/numpy@2", "pkg:npm/numpy"])
def test_other_components_are_not_found(wanted):
    assert find(read(), wanted) == []


def test_what_is_not_documented_is_named():
    titles = [finding.title for finding in undocumented(read())]
    assert titles == [
        "machine-learning-model spam is listed without digest",
        "library openblas is listed without version, licence",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"specVersion": "9.9"}, "not read"),
        ({"components": {}}, "components is no list"),
        ({"components": [7]}, r"components\[0\] is no object"),
        ({"components": [{"type": "library"}]}, r"components\[0\] has no name"),
        ({"components": [{"type": "library", "name": 3}]}, r"components\[0\].name is no text"),
        ({"components": [{"type": "library", "name": "a", "purl": "pkg"}]}, "no package URL"),
        ({"components": [{"type": "library", "name": "a", "hashes": [{"alg": "MD5"}]}]}, "has no content"),
        ({"metadata": []}, "metadata is no object"),
    ],
)
def test_an_error_names_the_place(changes, said):
    with pytest.raises(InputError, match=said):
        read(**changes)


def nested(depth):
    text = '{"type":"a","name":"b"}'
    for _ in range(depth):
        text = '{"type":"a","name":"b","components":[' + text + "]}"
    return ('{"bomFormat":"CycloneDX","specVersion":"1.6","components":[' + text + "]}").encode()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"\xff", b"{" * 10_000, b"[" * 200_000, nested(40), nested(4000)]
)
def test_hostile_bytes_are_refused(data):
    with pytest.raises(InputError):
        read_bill(data)


def test_damaged_bills_are_read_or_refused():
    rng = random.Random(3)
    for start in (CYCLONEDX, SPDX):
        text = json.dumps(start).encode()
        for _ in range(400):
            data = bytearray(text)
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = rng.choice([b"", b"null", b"{}", b"[", b'"', b"1e999"])
            try:
                read_bill(bytes(data))
            except InputError:
                continue

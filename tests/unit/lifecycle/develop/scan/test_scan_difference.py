"""Two versions of a model, compared part by part without loading either."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
from collections import OrderedDict

import numpy as np
import pytest

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.scan.difference import compare
from bartizan.lifecycle.develop.scan.inventory import take_inventory
from fixtures.hostile_models import DANGEROUS, SUSPECT


def safetensors(**tensors):
    """A safetensors file of 32-bit floats."""
    header, at, data = {}, 0, b""
    for name, values in tensors.items():
        raw = np.asarray(values, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [at, at + len(raw)]}
        at, data = at + len(raw), data + raw
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def npz(**arrays):
    """An archive of arrays."""
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)
    return target.getvalue()


def differences(tmp_path, old, new, name="model"):
    """What differs between two files of these bytes."""
    inventories = []
    for folder, data in (("old", old), ("new", new)):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        inventories.append(take_inventory(path))
    return compare(*inventories)


def test_tensors_are_named_and_measured(tmp_path):
    old = safetensors(a=[3.0, 4.0], b=[1.0], gone=[1.0])
    found = differences(tmp_path, old, safetensors(a=[3.0, 9.0], b=[1.0], new=[1.0, 2.0]))
    assert [(each.name, each.change) for each in found] == [("a", "changed"), ("gone", "removed"), ("new", "added")]
    assert found[0].relative == pytest.approx(1.0)
    assert found[0].share == pytest.approx(0.5)
    assert found[2].after == "F32 [2]"


def test_a_reshaped_tensor_has_both_shapes_and_no_distance(tmp_path):
    (found,) = differences(tmp_path, npz(w=np.zeros((2, 3))), npz(w=np.zeros((3, 2))))
    assert (found.before, found.after, found.relative) == ("<f8 [2, 3]", "<f8 [3, 2]", None)


def test_a_new_import_of_a_pickle_stands_first(tmp_path):
    found = differences(tmp_path, pickle.dumps([1]), pickle.dumps([OrderedDict(), 1]))
    assert [(each.kind, each.name, each.change) for each in found] == [
        ("global", "collections.OrderedDict", "added"),
        ("member", "", "changed"),
    ]


def test_settings_are_compared_by_path(tmp_path):
    old = {"layers": [{"units": 3}, {"units": 4}], "name": "a"}
    new = {"layers": [{"units": 3}, {"units": 5}], "name": "a"}
    (found,) = differences(tmp_path, json.dumps(old).encode(), json.dumps(new).encode())
    assert (found.kind, found.name, found.before, found.after) == ("setting", "layers[1].units", "4", "5")


def test_folders_are_compared_file_by_file(tmp_path):
    for folder, files in (("old", {"a.npy": b"x", "sub/b": b"1"}), ("new", {"a.npy": b"x", "sub/b": b"2", "c": b""})):
        for name, data in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    found = compare(take_inventory(tmp_path / "old"), take_inventory(tmp_path / "new"))
    assert [(each.name, each.change) for each in found] == [("c", "added"), ("sub/b", "changed")]


def test_equal_files_do_not_differ(tmp_path):
    data = npz(a=np.arange(9.0))
    assert differences(tmp_path, data, data) == []


def test_numbers_that_are_none_do_not_stop_it(tmp_path):
    (found,) = differences(tmp_path, safetensors(a=[np.nan, 1.0]), safetensors(a=[np.inf, 1.0]))
    assert found.share == 0.5


def test_hostile_files_are_one_part_or_many_and_never_an_error(tmp_path):
    rng = random.Random(1)
    path = tmp_path / "model"
    for data in [*DANGEROUS.values(), *SUSPECT.values(), safetensors(a=[1.0]), npz(a=np.zeros(3))]:
        if len(data) > 50_000:
            continue
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= rng.randrange(256)
        for each in (data, bytes(damaged)):
            path.write_bytes(each)
            assert take_inventory(path).parts


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(ArtefactError):
        take_inventory(tmp_path / "none")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_globals_of_every_protocol_are_told(tmp_path, protocol):
    evil = b"cposix\nsystem\n(S'id'\ntR." if protocol < 2 else DANGEROUS["os.system"]
    found = differences(tmp_path, pickle.dumps(OrderedDict(a=1), protocol), evil)
    assert ("collections.OrderedDict", "removed") in [(each.name, each.change) for each in found]
    assert any(each.name.endswith(".system") and each.change == "added" for each in found)


def test_compressed_streams_are_compared_by_what_they_hold(tmp_path):
    old, new = pickle.dumps([1.0]), pickle.dumps(OrderedDict(a=1))
    found = differences(tmp_path, gzip.compress(old), gzip.compress(new))
    assert ("collections.OrderedDict", "added") in [(each.name, each.change) for each in found]
    trailing = differences(tmp_path, gzip.compress(old, mtime=0), gzip.compress(old, mtime=0) + b"behind the stream")
    assert trailing


def test_bytes_around_the_parts_are_no_secret(tmp_path):
    archive = npz(w=np.zeros(3))
    found = differences(tmp_path, archive, b"#!/bin/sh\n" + archive)
    assert found
    (found,) = differences(tmp_path, archive, archive + b"behind the archive")
    assert (found.name, found.change) == ("bytes around the parts", "changed")

"""The reader of the benchmarks' images builds arrays from packages, and nothing else."""

from __future__ import annotations

import gzip
import importlib.util
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "data.py"


@pytest.fixture(scope="module")
def data():
    spec = importlib.util.spec_from_file_location("benchmark_data", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder, content):
    path = folder / "images.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(content))
    return path


def idx(array):
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes())


def idx_files(rng):
    images = [rng.integers(0, 256, (count, 28, 28), dtype=np.uint8) for count in (5, 3)]
    labels = [rng.integers(0, 10, count, dtype=np.uint8) for count in (5, 3)]
    names = ("train", "t10k")
    files = {f"{name}-images-idx3-ubyte.gz": idx(each) for name, each in zip(names, images, strict=True)}
    files |= {f"{name}-labels-idx1-ubyte.gz": idx(each) for name, each in zip(names, labels, strict=True)}
    return files, (images[0], labels[0], images[1], labels[1])


def entry(name, content):
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def debian(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./usr/share/datasets/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return b"!<arch>\n" + entry("debian-binary", b"2.0\n\n") + entry("data.tar.xz", lzma.compress(packed.getvalue()))


def test_the_old_pickle_is_read_with_its_validation_rows_at_the_end_of_training(data, tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (9, 784), dtype=np.uint8)
    labels = rng.integers(0, 10, 9)
    cuts = (slice(0, 4), slice(4, 6), slice(6, 9))
    splits = tuple((whole[cut].astype(np.float32) / 256, labels[cut]) for cut in cuts)
    named = pickle.dumps(splits, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    train, train_labels, test, test_labels = data.raw(wheel(tmp_path, named))
    assert np.array_equal(train, whole[:6])
    assert np.array_equal(test, whole[6:])
    assert np.array_equal(train_labels, labels[:6])
    assert np.array_equal(test_labels, labels[6:])


def test_a_pickle_that_names_anything_but_arrays_is_refused(data, tmp_path):
    for hostile in (b"cposix\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n(S'x'\ntR."):
        with pytest.raises(pickle.UnpicklingError, match="not part of an array"):
            data.raw(wheel(tmp_path, hostile))


def test_a_debian_package_and_its_folder_hold_the_same(data, tmp_path):
    files, expected = idx_files(np.random.default_rng(1))
    package, folder = tmp_path / "images.deb", tmp_path / "fashion"
    package.write_bytes(debian(files))
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for path in (package, folder):
        for found, known in zip(data.raw(path), expected, strict=True):
            assert np.array_equal(found, known)
    rows, labels, _, _ = data.images(package)
    assert rows.shape == (5, 784)
    assert rows.dtype == np.float32
    assert rows.max() <= 1
    assert labels.dtype == np.int64


def test_what_is_missing_is_named(data, tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="train-labels-idx1"):
        data.raw(tmp_path)
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"no package")
    with pytest.raises(ValueError, match="not a Debian package"):
        data.raw(broken)

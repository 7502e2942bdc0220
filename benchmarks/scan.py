"""The scanner beside SHA-256 of the same bytes and beside ``pickletools.genops``, in one run.

The promises: at most 1.3 times the CPU of SHA-256, hashing included, for files that are mostly
arrays; at most 15 times for opcode-dense pickles of plain kinds (lists and dicts of numbers and short
texts), and at most 40 times for three million opcodes of records, tuples, objects and mixtures of
them; 150 MB of memory at any size. What refers back to a thousand texts or more is printed for
comparison: every such reference has to be looked up.

``python benchmarks/scan.py`` prints ratios and exits 1 when a promise is broken.
"""

from __future__ import annotations

import collections
import hashlib
import json
import pickle
import pickletools
import struct
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from pathlib import Path

import joblib
import numpy as np

from bartizan.lifecycle.develop.scan import Verdict, scan_path
from common import promise, seconds, tell

MIB = 1 << 20
ARRAYS_MIB = 256
ITEMS = 1_000_000
LIMIT_MIB = 150


def arrays(rng):
    """Eight large arrays."""
    return {f"layer{n}": rng.random(ARRAYS_MIB * MIB // 64) for n in range(8)}


def torch_file(path, parts):
    """A torch file, as torch writes it: stored members, numbers as they are."""
    storages = b"".join(_tensor(key, len(part)) for key, part in enumerate(parts.values()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02](" + storages + b"e.")
        for key, part in enumerate(parts.values()):
            archive.writestr(f"archive/data/{key}", part.tobytes())
        archive.writestr("archive/version", "3\n")


def _tensor(key, count):
    storage = b"(X\x07\x00\x00\x00storagectorch\nDoubleStorage\nX\x01\x00\x00\x00%dX\x03\x00\x00\x00cpu" % key
    size = b"J" + struct.pack("<i", count)
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + size
        + b"tQK\x00"
        + size
        + b"\x85K\x01\x85\x89"
        + hooks
        + b"tR"
    )


def safetensors_file(path, parts):
    """A safetensors file."""
    header, at = {}, 0
    for name, part in parts.items():
        header[name] = {"dtype": "F64", "shape": [len(part)], "data_offsets": [at, at + part.nbytes]}
        at += part.nbytes
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for part in parts.values():
            file.write(part.tobytes())


def pickle_file(path, thing, protocol=4):
    """A pickle."""
    path.write_bytes(pickle.dumps(thing, protocol))


def array_files(rng):
    """Files that are mostly arrays, by name."""
    parts = arrays(rng)
    yield "torch", lambda path: torch_file(path, parts)
    yield "safetensors", lambda path: safetensors_file(path, parts)
    yield "pickle of arrays", lambda path: pickle_file(path, parts, 5)
    yield "joblib", lambda path: joblib.dump(parts, path)
    yield "npy", lambda path: np.save(path.open("wb"), np.concatenate(list(parts.values())))


def dense_files(rng):
    """Opcode-dense pickles for which speed is promised."""
    floats = rng.random(ITEMS).tolist()
    integers = rng.integers(0, 1 << 20, ITEMS).tolist()
    words = [f"w{n:x}" for n in rng.integers(0, 1 << 40, ITEMS // 3)]
    yield "list of floats", floats
    yield "list of integers", integers
    yield "vocabulary: text to number", dict(zip(words, range(len(words)), strict=True))
    yield "list of (integer, float)", list(zip(integers[::3], floats[::3], strict=True))
    yield "list of lists of numbers", [[a, b] for a, b in zip(integers[::3], floats[::3], strict=True)]


def small_things(rng):
    """Opcode-dense pickles of small things, of about three million opcodes each."""
    floats = rng.random(ITEMS // 4).tolist()
    numbered = list(enumerate(floats))
    yield "list of records", [{"id": n, "value": value, "tag": f"t{n}"} for n, value in numbered]
    yield "list of mixed tuples", [(n, value, f"t{n}", None) for n, value in numbered]
    yield "list of nested tuples", [((n, (n % 9, value)), (n,)) for n, value in numbered]
    yield "list of objects", [types.SimpleNamespace(a=n, b=[value]) for n, value in numbered]
    yield "list of objects in objects", [types.SimpleNamespace(a=types.SimpleNamespace(b=v)) for v in floats]
    yield "list of ordered dicts", [collections.OrderedDict(a=n, b=value) for n, value in numbered]
    yield "list of lists of texts", [[f"{n}-{part}" for part in range(n % 5)] for n in range(ITEMS // 4)]
    yield "pairs of texts", [(f"a{n}", f"b{n % 999}") for n in range(ITEMS // 2)]
    yield "dict of records", {f"w{n}": {"at": n, "of": [value, value]} for n, value in numbered}
    yield "dict of dicts of many lengths", {f"w{n}": {f"{n}-{at}": v for at in range(n % 4)} for n, v in numbered}
    yield "many small things, mixed", [mixed(n, value) for n, value in enumerate(rng.random(ITEMS).tolist())]


def mixed(n, value):
    """One of eight kinds of things, without any order."""
    kinds = (
        lambda: n,
        lambda: value,
        lambda: f"t{n}",
        lambda: (n, value),
        lambda: [n, n],
        lambda: {"id": n, "v": value},
        lambda: types.SimpleNamespace(a=n),
        lambda: None,
    )
    return kinds[int(value * (1 << 20)) % len(kinds)]()


def other_files(rng):
    """Dense pickles for which no speed is promised."""
    words = [f"word {n}" for n in range(1000)]
    chosen = rng.integers(0, 1000, ITEMS // 4).tolist()
    yield "records of a thousand words", [{"id": n, "word": words[word]} for n, word in enumerate(chosen)]


def cpu(work, repeats=5):
    """Median CPU seconds."""
    return seconds(work, repeats, time.process_time)


def sha256(path):
    """The floor: SHA-256 of a file, streamed."""
    state = hashlib.sha256()
    buffer = memoryview(bytearray(MIB))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            state.update(buffer[:count])
    return state.hexdigest()


def scanned(path):
    """Scan and make sure that all of it was examined and is clean."""
    report = scan_path(path)
    assert report.verdict is Verdict.CLEAN, report.findings
    assert report.digest is not None


def memory(path):
    """Peak memory of a process that scans a file, in MiB, its imports included."""
    code = (
        "import sys; from pathlib import Path; from bartizan.lifecycle.develop.scan import scan_path;"
        "scan_path(Path(sys.argv[1]));"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout
    return int(out.split()[1]) / 1024


def main():
    rng = np.random.default_rng(20261121)
    kept = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.bin"
        for title, write in array_files(rng):
            write(path)
            floor = cpu(lambda: sha256(path))
            kept.append(
                promise(f"{title}, {path.stat().st_size / MIB:.0f} MiB", cpu(lambda: scanned(path)) / floor, 1.3)
            )
            kept.append(promise(f"{title}, peak memory", memory(path), LIMIT_MIB, "MiB"))
        for title, thing in dense_files(rng):
            pickle_file(path, thing)
            dense(title, path, kept)
        for title, thing in small_things(rng):
            pickle_file(path, thing)
            dense(title, path, kept, 40)
        for title, thing in other_files(rng):
            pickle_file(path, thing)
            dense(title, path, None)
    return 0 if all(kept) else 1


def dense(title, path, kept, most=15):
    """Measure one dense pickle against both floors; without ``kept`` nothing is promised."""
    data = path.read_bytes()
    floor = cpu(lambda: hashlib.sha256(data).digest())
    genops = cpu(lambda: sum(1 for _ in pickletools.genops(data)), 1)
    ratio = cpu(lambda: scanned(path)) / floor
    note = f"genops {genops / floor:.0f}x"
    if kept is None:
        tell(title, ratio, "x", note)
    else:
        kept.append(promise(title, ratio, most, note=note))
        kept.append(promise(f"{title}, peak memory", memory(path), LIMIT_MIB, "MiB"))


if __name__ == "__main__":
    sys.exit(main())

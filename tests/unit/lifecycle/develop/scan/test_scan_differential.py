"""Against the real unpickler, disarmed: whatever it asks for, the scan must have allowed or flagged.

``pickle._Unpickler`` is the reference implementation in Python. Its ``find_class`` records the name
and hands out an inert stand-in; so mutated files run to wherever they get, and nothing is imported.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import random

import joblib
import numpy as np
import pytest

from bartizan.lifecycle.develop.scan import Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy, translate
from fixtures.corpus import vectors
from fixtures.hostile_models import DANGEROUS, calls, imports, text, whole


class Inert:
    """Stands for anything: can be called, filled, given a state. Counts how often it was run."""

    runs = 0

    def __new__(cls, *_args, **_kwargs):
        Inert.runs += 1
        return object.__new__(cls)

    def __init__(self, *_args, **_kwargs):
        pass

    def __call__(self, *_args, **_kwargs):
        return Inert()

    def __setstate__(self, _state):
        pass

    def __setitem__(self, _key, _value):
        pass

    def append(self, _value):
        pass

    add = extend = append


class Disarmed(pickle._Unpickler):
    """The reference unpickler, importing nothing."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.asked = []

    def find_class(self, module, name):
        if not module:
            raise ValueError("Empty module name")
        self.asked.append(translate(module, name, self.proto))
        return Inert

    def load_bytearray8(self):
        """The reference fills as many bytes as the file announces before it looks whether they are there."""
        size = int.from_bytes(self.read(8), "little")
        if size > 1 << 20:
            raise MemoryError
        self.append(bytearray(self.read(size)))

    def load_reduce(self):
        """What cannot be called is not called: the message would hold all of it, and containers share exponentially."""
        if not callable(self.stack[-2]) or not isinstance(self.stack[-1], tuple):
            raise TypeError("no call")
        super().load_reduce()

    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: load_bytearray8, pickle.REDUCE[0]: load_reduce}

    def get_extension(self, code):
        if code <= 0:
            raise pickle.UnpicklingError("EXT specifies code <= 0")
        self.asked.append(("copyreg", str(code)))
        self.append(Inert)


def asked_for(data):
    """Names that a load would ask for, until it ends in whatever way."""
    Inert.runs = 0
    unpickler = Disarmed(data)
    with contextlib.suppress(Exception):
        unpickler.load()
    return unpickler.asked


def seeds():
    """Files to start from: benign ones and hostile ones."""
    array = np.arange(6.0)
    for protocol in (0, 1, 2, 3, 4, 5):
        yield pickle.dumps({"weights": array, "names": ["a", "b"], "n": 3, "t": (1, 2.5)}, protocol)
    target = io.BytesIO()
    joblib.dump([array, "x"], target, protocol=2)
    yield target.getvalue()
    yield whole(calls("collections", "OrderedDict") + text("a") + imports("math", "floor") + b"s")
    for family in ("hostile_models", "hostile_pickles"):
        for kind in ("DANGEROUS", "SUSPECT", "BENIGN"):
            yield from (data for data in vectors(kind, family).values() if len(data) < 300)


def mutated(data, rng):
    """The file with a few bytes changed, cut, doubled or replaced by opcodes."""
    out = bytearray(data)
    opcodes = sorted(op.VALID)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 1] = bytes([rng.choice(opcodes)])
            case 2:
                out[at:at] = bytes([rng.choice(opcodes)])
            case 3:
                del out[at : at + rng.randint(1, 8)]
            case 4:
                other = rng.randrange(len(out) + 1)
                out[at:at] = out[other : other + rng.randint(1, 30)]
            case _:
                out[at:at] = rng.choice([b"cos\nsystem\n", imports("os", "system"), b"ios\nsystem\n", b"\x82\x07"])
    return bytes(out)


def unseen(data):
    """Names that a load asks for and no list allows, in a file that the scan calls clean.

    Where something was called as well, "not examined" is not enough. Where a file without the signature is broken off
    before anything was called, it may be plain text; then only names count that are known to be dangerous.
    """
    policy = load_policy()
    bad = [name for name in asked_for(data) if policy.entry(*name) is None]
    if not Inert.runs and data[:1] != pickle.PROTO:
        bad = [(module, name) for module, name in bad if policy.danger(module, name) and "." not in name]
    if not bad:
        return []
    refused = {Verdict.CLEAN, Verdict.UNKNOWN} if Inert.runs else {Verdict.CLEAN}
    return bad if scan_bytes(data, "model").verdict in refused else []


def test_the_reference_survives_a_call_of_what_shares_exponentially():
    """A file that the fuzzer made: 70 dicts, each twice in the next, and one of them called."""
    dicts = b"".join(b"}\x94(Nh%cK\x01h%cu" % (n, n) for n in range(70))
    assert asked_for(b"\x80\x04}\x94" + dicts + b"K\x01R" + imports("os", "system") + b".") == []
    assert scan_bytes(b"\x80\x04}\x94" + dicts + b"K\x01R.", "model").exit_code != 0


@pytest.mark.parametrize("seed", range(6))
def test_what_a_mutated_file_asks_for_is_never_missed(seed):
    rng = random.Random(seed)
    starts = list(seeds())
    asked = 0
    for _ in range(1500):
        data = mutated(rng.choice(starts), rng)
        assert not unseen(data), data
        asked += bool(asked_for(data))
    assert asked > 300


def test_the_stand_in_really_records():
    assert asked_for(DANGEROUS["os.system"]) == [("os", "system")]
    assert unseen(DANGEROUS["os.system"]) == []

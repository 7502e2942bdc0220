"""Makes the allow-lists of the scanner from what the frameworks really write.

``python derive_allow_lists.py TARGET SOURCE...`` follows everything that ``emitted_models.py`` saved
into the source folders, with a judge that allows everything and notes every name with its uses,
and writes one JSON file per framework into the target folder. Callables whose arguments or states
matter are given their rules below, by hand; a person reads the difference to the lists that ship.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

from bartizan.lifecycle.develop.scan.limits import Limits, Meter
from bartizan.lifecycle.develop.scan.pickle.joblib import ArrayReader
from bartizan.lifecycle.develop.scan.pickle.judge import Judge
from bartizan.lifecycle.develop.scan.pickle.machine import Machine
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy, translate
from bartizan.lifecycle.develop.scan.pickle.steps import STEPS
from bartizan.lifecycle.develop.scan.pickle.values import Call, Entry, Name, Use

FAMILIES = frozenset(
    {"stdlib", "numpy", "scipy", "sklearn", "pandas", "torch", "joblib", "xgboost", "lightgbm", "catboost"}
    | {"statsmodels", "imblearn", "category_encoders", "tokenizers", "pyarrow", "keras", "onnx", "gensim"}
)
MAKERS = (
    "_reconstructor",
    "__newobj__",
    "__newobj_ex__",
    "_reconstruct",
    "newObj",
    "_new_DatetimeIndex",
    "_new_Index",
    "_new_IntervalIndex",
    "_new_TimedeltaIndex",
    "_mareconstruct",
)
"""Functions that return an instance of their first argument."""

# ruff: noqa: ARG002 -- the recorder has the judge's signatures


class Recorder(Judge):
    """Allows everything and writes down what it is used for."""

    def __init__(self, data, uses):
        super().__init__(data, load_policy(), Limits(), torch=True)
        self.recorded = uses

    def find(self, module, name, protocol, offset):
        key = translate(module, name, protocol)
        if key not in self.names:
            self.names[key] = Name(*key, offset, Entry(Use(15)))
            self.recorded[key] |= Use.VALUE
        return self.names[key]

    def note(self, name, use):
        if name.__class__ is Name:
            self.recorded[name.module, name.name] |= use

    def call(self, callee, args, offset):
        self.note(callee, Use.CALL)
        subject = callee if callee.__class__ is Name else None
        if str(callee) == "builtins.getattr" and args[0].__class__ is Name:
            return self.find(args[0].module, f"{args[0].name}.{self.reader.text(args[1])}", 4, offset)
        if str(callee) == "torch._tensor._rebuild_from_type_v2":
            self.call(args[0], args[2], offset)
        if str(callee) == "builtins.getattr" and getattr(args[0], "subject", None).__class__ is Name:
            owner = args[0].subject
            self.recorded[owner.module, f"{owner.name}.{self.reader.text(args[1])}"] |= Use.VALUE
        if subject and (subject.name in MAKERS or subject.name.startswith("__pyx_unpickle")):
            self.note(args[0], Use.NEW)
            subject = args[0]
        return Call(callee, args, subject)

    def new(self, callee, args, offset):
        self.note(callee, Use.NEW)
        return Call(callee, args, callee)

    def items(self, target, offset):
        self.note(getattr(target, "subject", None), Use.ITEMS)

    def build(self, target, state, offset):
        self.note(getattr(target, "subject", None), Use.BUILD)


def follow(data, uses):
    """Walk all pickles of a file; returns why it could not be followed to its end."""
    meter = Meter(Limits())
    pos = 0
    while pos < len(data):
        judge = Recorder(data, uses)
        machine = Machine(data, judge, meter, STEPS, ArrayReader(Machine(data, judge, meter, STEPS).run))
        pos = machine.run(pos)
        if machine.ended != "stop":
            return machine.why
    return ""


def contents(path):
    """Pickles of a file."""
    data = path.read_bytes()
    if data[:2] != b"PK":
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))


def shipped():
    """Names and uses that stand in the lists already: versions that were recorded before still count."""
    return {key: entry.uses for key, entry in load_policy().entries.items()}


def derive(folders):
    """Names and uses in everything under ``folders``, on top of those that ship."""
    uses = defaultdict(lambda: Use.VALUE, shipped())
    for path in sorted(path for folder in folders for path in folder.rglob("*.p*")):
        why = follow(contents(path), uses)
        if why and "legacy" not in path.name:
            print(path, why, file=sys.stderr)
    for path in sorted(path for folder in folders for path in folder.rglob("*.joblib")):
        follow(contents(path), uses)
    return {key: str_uses(use) for key, use in uses.items()}


def str_uses(use):
    """``call build`` for ``Use.CALL | Use.BUILD``."""
    return " ".join(one.name.lower() for one in Use if one in use and one.value)


RULES = {
    "_codecs.encode": "args=latin1",
    "builtins.bytearray": "args=count",
    "builtins.bytes": "args=count",
    "builtins.range": "args=count",
    "builtins.frozenset": "args=items",
    "builtins.getattr": "args=getattr",
    "builtins.set": "args=items",
    "builtins.type": "args=type-of",
    "array._array_reconstructor": "args=array",
    "array.array": "args=array",
    "collections.Counter": "args=items",
    "collections.defaultdict": "args=factory",
    "collections.deque": "args=items",
    "copyreg._reconstructor": "args=reconstructor",
    "fractions.Fraction": "args=fraction",
    "functools.partial": "args=partial",
    "numpy.core.multiarray.scalar": "args=scalar",
    "numpy._core.multiarray.scalar": "args=scalar",
    "numpy.dtype": "args=dtype",
    "numpy.ma.core._mareconstruct": "args=masked-array",
    "numpy.random._pickle.__bit_generator_ctor": "args=bit-generator",
    "numpy.random._pickle.__generator_ctor": "args=generator",
    "numpy.random._pickle.__randomstate_ctor": "args=generator",
    "numpy.random.__RandomState_ctor": "args=generator",
    "operator.attrgetter": "args=attribute-names",
    "operator.itemgetter": "args=attribute-names",
    "pandas.core.indexes.base._new_Index": "args=class-first",
    "pandas.core.indexes.datetimes._new_DatetimeIndex": "args=class-first",
    "pandas.core.indexes.interval._new_IntervalIndex": "args=class-first",
    "pandas.core.indexes.timedeltas._new_TimedeltaIndex": "args=class-first",
    "pyarrow.lib._restore_array": "args=arrow-array",
    "pyarrow.lib.py_buffer": "args=arrow-buffer",
    "pytz._p": "args=constants",
    "re._compile": "args=pattern",
    "torch._tensor._rebuild_from_type_v2": "args=torch-type",
    "torch._utils._rebuild_tensor": "args=torch-tensor",
    "torch._utils._rebuild_tensor_v2": "args=torch-tensor",
    "torch._utils._rebuild_tensor_v3": "args=torch-tensor",
    "torch._utils._rebuild_qtensor": "args=torch-tensor",
    "torch.device": "args=constants",
    "torch.serialization._get_layout": "args=constants",
    "torch.storage._load_from_bytes": "args=torch-bytes",
}
"""Rules given by hand, by name; those below by the last part of the name."""
STATES = {
    "functools.partial": "partial",
    "numpy.dtype": "dtype",
    **{f"torch.nn.modules.rnn.{name}": "recurrent" for name in ("GRU", "LSTM", "RNN")},
    "statsmodels.base.data.ModelData": "formula",
    "statsmodels.base.data.PandasData": "formula",
    **dict.fromkeys(
        (
            "numpy.ndarray",
            "numpy.matrix",
            "numpy.matrixlib.defmatrix.matrix",
            "numpy.memmap",
            "numpy.rec.recarray",
            "numpy.recarray",
            "numpy.ma.core.MaskedArray",
            "numpy.ma.MaskedArray",
        ),
        "ndarray",
    ),
}
"""Rules for states, by name."""
RULES_BY_NAME = {
    "_frombuffer": "args=buffer-array",
    "_reconstruct": "args=reconstruct-array",
    "newObj": "args=class-first",
    "_unpickle_model": "args=stored-model",
    "_ufunc_reconstruct": "args=ufunc",
}
ADDED = {
    "argparse.Namespace": "new build",
    "builtins.hash": "",
    "torch._utils._rebuild_tensor": "call args=torch-tensor",
    "torch.nn.utils.rnn.PackedSequence": "new",
    "sklearn.datasets.base.Bunch": "new build items",
    "statsmodels.tools.decorators.ResettableCache": "new build items",
    "builtins.set": "call args=items",
    "collections.OrderedDict": "call build items",
    "joblib.numpy_pickle.NDArrayWrapper": "new build",
    "joblib.numpy_pickle.ZNDArrayWrapper": "new build",
    "joblib.numpy_pickle_compat.NDArrayWrapper": "new build",
    "joblib.numpy_pickle_compat.ZNDArrayWrapper": "new build",
    "numpy.core._ufunc_reconstruct": "call args=ufunc",
    "numpy._core._ufunc_reconstruct": "call args=ufunc",
    "numpy.core._internal._reconstruct": "call args=reconstruct-array",
    "numpy.core.records.record": "",
    "numpy._core.records.record": "",
    "numpy.random.__RandomState_ctor": "call build args=generator",
    "numpy.core.records.recarray": "new build state=ndarray",
    "numpy.matrixlib.defmatrix.matrix": "new build state=ndarray",
    "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper": "new build",
    **{f"torch.jit._pickle.build_{kind}": "call" for kind in ("boollist", "doublelist", "intlist", "tensorlist")},
    **dict.fromkeys(("torch.jit._pickle.build_tensor_from_id", "torch.jit._pickle.restore_type_tag"), "call"),
    "zoneinfo.ZoneInfo._unpickle": "call args=constants",
    **{f"scipy.sparse.{kind}.{kind}_matrix": "new build" for kind in ("csr", "csc", "coo", "lil", "bsr", "dia")},
}
"""Names that older versions write, or that reach a pickle only through another callable."""
FRAMEWORK = {"_loss": "sklearn", "pytz": "pandas", "patsy": "statsmodels", "formulaic": "statsmodels"}
"""Packages whose names stand in the list of another."""
TITLES = {"sklearn": "scikit-learn", "stdlib": "python", "imblearn": "imbalanced-learn"}


PACKAGES = {title: package for package, title in TITLES.items()} | {"python": "python"}


def with_rules(module, name, use):
    """The uses of a name together with the rules it was given."""
    words = [use]
    known = load_policy().entry(module, name) or Entry(Use.VALUE)
    kept = f"args={known.args_rule}" if known.args_rule else ""
    rule = RULES.get(f"{module}.{name}") or RULES_BY_NAME.get(name.rpartition(".")[2], kept)
    if name.startswith("__pyx_unpickle_"):
        rule = "args=class-first"
    if "call" in use:
        words.append(rule)
    if "build" in use and (state := STATES.get(f"{module}.{name}", known.state_rule)):
        words.append(f"state={state}")
    elif "build" in use and module.startswith("scipy.stats.") and name.endswith(("_gen", "_frozen")):
        words.append("state=scipy-distribution")
    return " ".join(word for word in words if word)


def grouped(names):
    """Names by framework and module."""
    frameworks = defaultdict(lambda: defaultdict(dict))
    for (module, name), use in sorted(names.items()):
        package = module.partition(".")[0]
        framework = FRAMEWORK.get(package, package)
        framework = framework if framework in FAMILIES else "stdlib"
        frameworks[framework][module][name] = with_rules(module, name, use)
    for dotted, use in ADDED.items():
        module, name = dotted.split(".", 1) if dotted.startswith("zoneinfo") else dotted.rsplit(".", 1)
        framework = module.partition(".")[0]
        frameworks[framework if framework in FAMILIES else "stdlib"][module].setdefault(name, use)
    return frameworks


def by_version(text):
    """Sorts 1.10 behind 1.9."""
    return [int(part) if part.isdigit() else 0 for part in text.replace("+", ".").split(".")]


def write_lists(target, folders):
    """Write one file per framework."""
    versions = defaultdict(set)
    for path in target.glob("*.json"):
        for name, known in json.loads(path.read_text())["versions"].items():
            versions[PACKAGES.get(name, name)].update(known.split(", "))
    for path in {v for folder in folders for v in folder.rglob("versions.json")}:
        for name, version in json.loads(path.read_text()).items():
            versions[name].add(version)
    for framework, modules in grouped(derive(folders)).items():
        package = "python" if framework == "stdlib" else framework
        document = {
            "schema": 1,
            "framework": TITLES.get(framework, framework),
            "versions": {TITLES.get(package, package): ", ".join(sorted(versions[package], key=by_version))},
            "names": {module: dict(sorted(names.items())) for module, names in sorted(modules.items())},
        }
        (target / f"{framework}.json").write_text(json.dumps(document, indent=1) + "\n")


def main():
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("source", nargs="+", type=Path, help="folders that emitted_models.py wrote")
    options = parser.parse_args()
    write_lists(options.target, options.source)


if __name__ == "__main__":
    main()

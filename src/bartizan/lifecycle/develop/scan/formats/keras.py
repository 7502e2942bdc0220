"""Keras: what the configuration of a model would have Keras import, call, read and reserve.

A configuration is JSON. Every object in it names a class or a function by ``module`` and
``class_name``, and loading imports and calls what is named (``keras/src/saving/serialization_lib.py``,
``keras/src/legacy/saving/serialization.py``); so names are judged against the list of what Keras
itself writes (``keras_names.json``, see ``tests/tools/derive_keras_names.py``). The same judge serves
``config.json`` of ``.keras`` archives, the attributes of ``.h5`` files and the JSON of ``Model.to_json``.
"""

from __future__ import annotations

import codecs
import functools
import json
import math
import re
import sys
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bartizan.lifecycle.develop.scan.limits import Limits, Meter
    from bartizan.lifecycle.develop.scan.verdict import Report

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = (".weights.h5", ".weights.npz", ".weights.json")
DEEPEST = 200
"""Levels of JSON; a model nested in a model takes about ten."""
LARGEST = 16 << 20
"""Bytes of a configuration; vocabularies make some large."""
MOST_CONTAINERS = 400_000
MOST_COMMAS = 1_500_000
"""Brackets and commas in a configuration, which bound the memory that reading it takes."""
LARGEST_TEXT = 512 << 20
"""Bytes of a text asset that is read."""

PICKLES = frozenset({"pickle", "joblib", "torch"})

PLAIN = frozenset(
    {
        "__tensor__",
        "__numpy__",
        "__bytes__",
        "__ellipsis__",
        "__slice__",
        "__keras_tensor__",
        "__tuple__",
        "TensorShape",
    }
    | {"CompositeTensor", "Tensor", "KerasTensor", "__dict__", "TypeSpec"}
)
"""Class names that stand for values and import nothing."""
RUNS_CODE = {
    "TorchModuleWrapper": "unpickles the module that it wraps (CVE-2025-49655)",
    "TFSMLayer": "loads a SavedModel from a path",
    "JaxLayer": "calls functions of its configuration",
    "FlaxLayer": "calls functions of its configuration",
}
"""Layers of Keras that do more than compute."""
READS_FILES = frozenset(
    {"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization", "VocabLookup", "CategoryLookup"}
)
"""Layers whose vocabulary may be the path of a file or an URL (CVE-2025-12058)."""
PATHS = ("vocabulary", "idf_weights", "vocabulary_file", "filepath")
COUNTS = frozenset(
    {"units", "filters", "output_dim", "input_dim", "num_heads", "key_dim", "value_dim", "depth_multiplier"}
)
"""Settings that weights are reserved by."""
SHAPES = frozenset(
    {"batch_shape", "batch_input_shape", "input_shape", "shape", "target_shape", "kernel_size", "output_shape"}
)
MOST_COUNT = 1 << 27
MOST_ELEMENTS = 1 << 30
"""Numbers in one input or kernel."""
MOST_EMBEDDED = 1 << 35
"""Numbers in one embedding: 128 GiB."""
FORMER = frozenset(
    {"MaxoutDense", "Highway", "AtrousConvolution1D", "AtrousConvolution2D", "BatchNormalizationV1"}
    | {"BatchNormalizationV2", "TimeDistributedDense", "TensorFlowOpLayer"}
)
"""Classes of Keras 1 and TensorFlow 1, whose configurations name no module."""
ALIASES = (("tensorflow.python.keras", "keras"), ("tensorflow.keras", "keras"), ("tf_keras", "keras"))
TENSORFLOW_PLAIN = re.compile(
    r"(math|nn|linalg|strings|__operators__|image|signal|sparse|ragged|bitwise|dtypes|random|sets|quantization)"
    r"\.[\w.]+\Z|_?[a-z0-9_]+\Z|(compat\.v1\.)(math|nn|linalg|strings|image|signal)\.[\w.]+\Z"
)
"""Symbols of TensorFlow that compute; the others are judged by ``TENSORFLOW_UNSAFE`` or not known."""
TENSORFLOW_UNSAFE = re.compile(
    r"(?i).*(file|py_func|numpy_func|load|save|restore|raw_ops|(^|\.)io(\.|$)|(^|\.)keras(\.|$)|import_graph|print|"
    r"eager_py|get_|library|summary|checkpoint|remote|rpc|socket|dataset|(^|\.)data(\.|$)|autograph|sysconfig|debug)"
)


LOADERS = frozenset({"deserialize", "get", "serialize", "map", "vectorized_map", "custom_gradient"})
"""Functions of model packages that build or call what they are given."""
DESCRIBING = re.compile(
    r"keras(\.src)?(\.(activations|layers|losses|metrics|initializers|regularizers|constraints|optimizers|ops|models"
    r"|dtype_policies|quantizers)(\.\w+)*)?\Z"
)
"""Packages of Keras that describe models; a name in one that is not listed comes from another version."""


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The list of what Keras writes."""

    schema: int
    framework: str
    versions: dict[str, str]
    classes: dict[str, frozenset[str]]
    functions: dict[str, frozenset[str]]


@functools.cache
def names() -> Names:
    """The list, read once."""
    return msgspec.json.decode((resources.files(__package__) / "keras_names.json").read_bytes(), type=Names)


@functools.cache
def _anywhere() -> tuple[frozenset[str], frozenset[str]]:
    """Classes and functions whatever their module, for configurations that name none."""
    listed = names()
    return FORMER.union(*listed.classes.values()), frozenset().union(*listed.functions.values())


@functools.cache
def _optimizers() -> frozenset[str]:
    """Optimizers, which Keras 2.11 registered like custom classes and saved under ``Custom>Adam``."""
    return frozenset().union(*(held for module, held in names().classes.items() if "optimizers" in module))


class _Item(NamedTuple):
    """A value of the configuration and the keys that lead to it."""

    value: Any
    path: str
    depth: int


class _Twice:
    """Hook for the JSON parser that notes keys which occur twice in one object."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            self.keys += [key for key, times in Counter(key for key, _ in pairs).items() if times > 1][:20]
        return made


def examine_config(source: Source, meter: Meter, _examine: Examine | None = None) -> Report:
    """Judge a configuration of a model, or of its training."""
    draft = Draft(source, "keras-config", meter.limits.findings)
    size = len(source.data)
    if size > LARGEST:
        draft.miss(f"a configuration of {size} bytes is longer than {LARGEST}", rule="file/limit")
        return draft.close()
    document = _parse(bytes(source.data), draft)
    if document is not None:
        _Judge(draft).run(document)
    return draft.close()


def _parse(raw: bytes, draft: Draft) -> Any:
    """The JSON document; None, with a finding, when there is none. Its encoding is told as Python's ``json`` does."""
    if raw.count(b"{") + raw.count(b"[") > MOST_CONTAINERS or raw.count(b",") > MOST_COMMAS:
        draft.miss("the configuration has too many parts", rule="file/limit")
        return None
    twice = _Twice()
    try:
        document = json.loads(raw, object_pairs_hook=twice)
    except (ValueError, RecursionError) as error:
        draft.fire("keras/malformed", f"the configuration is no JSON: {str(error)[:120]}", 0)
        draft.miss("the configuration cannot be read")
        return None
    for key in twice.keys[:20]:
        draft.fire("keras/malformed", f"the key {key[:80]!r} occurs twice in one object", 0)
    return document


class _Judge:
    """Walks a configuration and judges every object in it."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.objects = 0

    def run(self, document: Any) -> None:
        todo = [_Item(document, "", 0)]
        while todo:
            item = todo.pop()
            if item.depth > DEEPEST:
                self.draft.miss(f"the configuration is nested more than {DEEPEST} deep", rule="file/limit")
                break
            if isinstance(item.value, dict):
                if "class_name" in item.value:
                    self._object(item.value, item.path)
                self._settings(item.value, item.path)
                todo += (_Item(value, f"{item.path}.{key}"[:300], item.depth + 1) for key, value in _below(item.value))
            elif isinstance(item.value, list):
                todo += (
                    _Item(each, item.path, item.depth + 1) for each in item.value if isinstance(each, (dict, list))
                )
        self.draft.facts["objects"] = self.objects

    def _fire(self, rule: str, path: str, detail: str) -> None:
        self.draft.fire(rule, f"{path.lstrip('.')[:160] or 'the model'}: {detail}")

    def _object(self, value: dict[str, Any], path: str) -> None:
        """Judge an object that the loader would build."""
        self.objects += 1
        name, module, config = value["class_name"], value.get("module"), value.get("config")
        if not isinstance(name, str) or not (module is None or isinstance(module, str)):
            self._fire("keras/malformed", path, "a class or module is named by no text")
            return
        module, name = _split(_canonical(module), name)
        if name == "__lambda__":
            self._fire("keras/lambda", path, "a Python function as byte code")
        elif name == "function":
            self._function(value, module, path)
        elif name == "__typespec__":
            self._type_spec(value, path)
        elif name not in PLAIN:
            self._class(name, module, value, path)
            self._special(name, config if isinstance(config, dict) else {}, path)

    def _type_spec(self, value: dict[str, Any], path: str) -> None:
        spec, module = value.get("spec_name"), value.get("module")
        if not (isinstance(spec, str) and spec.endswith("Spec") and str(module).startswith("tensorflow.python.")):
            self._fire("keras/custom-object", path, f"a type from {_show(module, spec)}")

    # Functions

    def _function(self, value: dict[str, Any], module: str | None, path: str) -> None:
        """A function that loading looks up; layers call it, and Keras before 3.9 imported it from anywhere."""
        name = value.get("config")
        if not isinstance(name, str):
            self._fire("keras/malformed", path, "a function is named by no text")
            return
        module, name = _split(module, name)
        if self._is_listed_function(module, name):
            return
        shown = _show(module, name)
        danger = load_policy().danger(module or "builtins", name)
        if danger:
            self._fire("keras/function", path, f"{shown} {danger}")
        elif module in {None, "__main__"} or (module == "builtins" and ">" in name):
            self._fire("keras/custom-object", path, f"the function {shown}")
        elif _describes_models(module) and name.islower() and name not in LOADERS:
            self._fire("keras/custom-object", path, f"the function {shown}, which is not known")
        else:
            self._fire("keras/function", path, f"{shown} is no function that models are made of")

    @staticmethod
    def _is_listed_function(module: str | None, name: str) -> bool:
        if module in {None, "builtins"}:
            return name in _anywhere()[1]
        return name in names().functions.get(module or "", ())

    # Classes

    def _class(self, name: str, module: str | None, value: dict[str, Any], path: str) -> None:
        if name in RUNS_CODE:
            self._fire("keras/unsafe-layer", path, f"{name} {RUNS_CODE[name]}")
        elif name == "Lambda":
            self._lambda(value, path)
        elif name in {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"}:
            self._tensorflow_symbol(value, path)
        elif name == "TensorFlowOpLayer":
            self._tensorflow_node(value, path)
        elif not self._is_listed_class(module, name):
            self._unlisted(name, module, path)
        elif not _is_own(value.get("registered_name"), name):
            self._fire("keras/custom-object", path, f"{name} is registered as {_show(value['registered_name'])}")

    @staticmethod
    def _is_listed_class(module: str | None, name: str) -> bool:
        if module is None:
            return name in _anywhere()[0] or name.removeprefix("Custom>") in _optimizers()
        return name in names().classes.get(module, ())

    def _unlisted(self, name: str, module: str | None, path: str) -> None:
        """A class that is none of Keras'."""
        shown = _show(module, name)
        if module is not None and (danger := load_policy().danger(module, name)):
            self._fire("keras/function", path, f"{shown} {danger}")
        elif module is not None and _is_reachable(module) and not _describes_models(module):
            self._fire("keras/function", path, f"{shown} is no class that models are made of")
        else:
            self._fire("keras/custom-object", path, f"the class {shown}")

    def _lambda(self, value: dict[str, Any], path: str) -> None:
        """A Lambda layer: byte code, or a function by name."""
        config = value.get("config")
        config = config if isinstance(config, dict) else {}
        for role in ("function", "output_shape", "mask"):
            kind, held = config.get(f"{role}_type"), config.get(role)
            if kind == "lambda" or (role == "function" and isinstance(held, list)):
                self._fire("keras/lambda", path, f"the {role} of a Lambda layer as byte code")
            elif isinstance(held, str) and not (role == "output_shape" and kind in (None, "raw")):
                where = config.get(role if role == "module" else "module")
                self._function({"config": held}, where if isinstance(where, str) else None, path)
        if not isinstance(config.get("function"), (dict, list, str)):
            self._fire("keras/malformed", path, "a Lambda layer without function")

    def _tensorflow_symbol(self, value: dict[str, Any], path: str) -> None:
        """A call of a TensorFlow symbol, as the functional models of Keras 2 keep it."""
        config = value.get("config")
        named = config if isinstance(config, dict) else {}
        for key in ("function", "cls_symbol", "cls_ref", "method_name", "attr_name"):
            symbol = named.get(key)
            if symbol is None:
                continue
            if not isinstance(symbol, str) or TENSORFLOW_UNSAFE.match(symbol):
                self._fire("keras/function", path, f"tensorflow's {_show(symbol)} does more than compute")
            elif not TENSORFLOW_PLAIN.match(symbol) and key == "function":
                self._fire("keras/custom-object", path, f"tensorflow's {_show(symbol)} is not known")

    def _tensorflow_node(self, value: dict[str, Any], path: str) -> None:
        """A node of a TensorFlow graph; its operation may do what TensorFlow can."""
        config = value.get("config")
        node = config.get("node_def") if isinstance(config, dict) else None
        operation = node.get("op") if isinstance(node, dict) else None
        if isinstance(node, str):
            found = re.findall(r"""["']?\bop["']?\s*:\s*["'](\w{1,100})["']""", node[: 1 << 20])
            operation = found[0] if len(found) == 1 else None
        if not isinstance(operation, str) or TENSORFLOW_UNSAFE.match(operation.replace("PyFunc", "py_func")):
            self._fire("keras/function", path, f"tensorflow's operation {_show(operation)} does more than compute")

    # Settings

    def _special(self, name: str, config: dict[str, Any], path: str) -> None:
        if name in READS_FILES:
            for key in PATHS:
                if isinstance(config.get(key), str):
                    self._fire("keras/file-path", path, f"{name} reads {config[key][:120]!r}")
        sides = [config.get("input_dim"), config.get("output_dim")]
        if name == "Embedding" and all(type(side) is int for side in sides) and math.prod(sides) > MOST_EMBEDDED:  # type: ignore[arg-type]  # integers, just checked
            self._fire("keras/cost", path, f"an embedding of {sides[0]} times {sides[1]} numbers")

    def _settings(self, value: dict[str, Any], path: str) -> None:
        """Settings that decide how much memory a layer takes."""
        for key, held in value.items():
            if key in COUNTS and type(held) in {int, float} and held > MOST_COUNT:
                self._fire("keras/cost", path, f"{key} is {held:.6g}" if held < 1 << 64 else f"{key} is huge")
            elif key in SHAPES and isinstance(held, list) and _elements(held) > MOST_ELEMENTS:
                self._fire("keras/cost", path, f"{key} has {_elements(held):.3g} elements")


def _below(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What has to be walked of an object: everything that may hold objects, byte values aside."""
    for key, each in value.items():
        if isinstance(each, (dict, list)):
            yield key, each


def _elements(shape: list[Any]) -> int:
    """Numbers in a shape; unknown sides count as one."""
    product = 1
    for side in shape[:64]:
        if type(side) is int and side > 0:
            product = min(product * side, 1 << 80)
    return product


def _canonical(module: str | None) -> str | None:
    """The module under the name that the lists have."""
    for alias, own in ALIASES:
        if module is not None and (module == alias or module.startswith(f"{alias}.")):
            return own + module.removeprefix(alias)
    return module or None


def _split(module: str | None, name: str) -> tuple[str | None, str]:
    """Module and name, where the name may bring parts of the module with it: ``keras`` and ``layers.Lambda``."""
    if module is None or "." not in name:
        return module, name
    whole, _, last = f"{module}.{name}".rpartition(".")
    return whole, last


def _is_own(registered: Any, name: str) -> bool:
    """Whether a registered name adds nothing to the class that is named."""
    if registered is not None and not isinstance(registered, str):
        return False
    if registered == f"Custom>{name}":
        return name in _optimizers()
    return registered is None or registered in {name, f"keras>{name}", f"Keras>{name}", f"TensorFlow>{name}"}


def _is_reachable(module: str) -> bool:
    """Whether a module belongs to Python, Keras or the libraries below it, so that it can be imported as it is."""
    top = module.partition(".")[0]
    return top in {"keras", "tensorflow", "torch", "numpy", "jax", "h5py"} or (
        top in sys.stdlib_module_names and top != "__main__"
    )


def _describes_models(module: str | None) -> bool:
    return module is not None and DESCRIBING.match(module) is not None


def _show(*parts: Any) -> str:
    texts = (part if isinstance(part, str) else f"<{type(part).__name__}>" for part in parts if part is not None)
    return repr(".".join(texts)[:160])


def recognise_config(source: Source) -> bool:
    """Whether some bytes are the JSON of a model, as ``Model.to_json`` writes it."""
    head = bytes(source.data[: 1 << 16]).lstrip()
    return head[:1] == b"{" and re.search(rb'"class_name"\s*:', head) is not None


class KerasArchive:
    """A zip archive that Keras 3 loads: a configuration, weights, and assets of layers."""

    @classmethod
    def of(cls, members: Iterable[str]) -> KerasArchive | None:
        """The archive that has these members, if Keras would load it. Keras does without all but the configuration."""
        present = list(members)
        others = [name for name in present if name != CONFIG]
        is_keras = not others or METADATA in others or any(name.endswith(WEIGHTS) for name in others)
        return cls() if CONFIG in present and is_keras else None

    def examiner(self, examine: Examine, meter: Meter) -> Examine:
        """An examiner of members that knows what Keras does with them."""
        return lambda source: self.examine(source, meter, examine)

    @staticmethod
    def examine(source: Source, meter: Meter, examine: Examine) -> Report:
        """Report on a member by what Keras does with it."""
        if source.name == CONFIG:
            return examine_config(source, meter)
        if source.name == METADATA or source.name.endswith(".weights.json"):
            return _examine_plain(source, meter.limits)
        if source.name.startswith("assets/") and _is_text(source):
            kind = detect(source.data)
            report = examine(source) if kind != "unknown" else None
            if report and (kind != "maybe-pickle" or report.format in PICKLES):
                return report
            return Draft(source, "text", meter.limits.findings).close()
        return examine(source)


def _examine_plain(source: Source, limits: Limits) -> Report:
    """JSON that Keras reads as values only: versions and dates, or which shard holds which weight."""
    draft = Draft(source, "json", limits.findings)
    if len(source.data) > LARGEST:
        draft.miss(f"a document of {len(source.data)} bytes is longer than {LARGEST}", rule="file/limit")
        return draft.close()
    document = _parse(bytes(source.data), draft)
    if document is not None and not isinstance(document, dict):
        draft.fire("keras/malformed", "it is no object", 0)
    shards = document.get("weight_map") if isinstance(document, dict) else None
    for held in shards.values() if isinstance(shards, dict) else ():
        for name in held if isinstance(held, list) else [held]:
            if not isinstance(name, str) or "/" in name or "\\" in name or ".." in name:
                draft.fire("keras/file-path", f"a shard is {_show(name)}", 0)
    return draft.close()


def _is_text(source: Source) -> bool:
    """Whether an asset is UTF-8 text without control characters: a vocabulary, one word a line."""
    if len(source.data) > LARGEST_TEXT:
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(source.data), 1 << 20):
            part = bytes(source.data[at : at + (1 << 20)])
            if b"\0" in part:
                return False
            decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True

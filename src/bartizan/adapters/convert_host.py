"""The process that converts: loads a model file, writes it in another format, tells what both hold and answer.

Started by ``bartizan.adapters.convert`` through ``bartizan.targets.isolated``; confined before this module is
imported. It writes no file: the result goes back over the socket. A second process of this kind, which never saw the
source, loads the result again.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.hosting import Question as AnyQuestion

MAX_TENSORS = 100_000
MAX_NAME = 1000
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Pickle of the magic number that begins a torch file of before version 1.6 (``torch.serialization.MAGIC_NUMBER``)."""
ZIP = b"PK\x03\x04"
NUMPY = b"\x93NUMPY"
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of members in archives, so that the same model gives the same bytes."""

NUMPY_CODES = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "f2": "F16", "u4": "U32", "i4": "I32",
    "f4": "F32", "u8": "U64", "i8": "I64", "f8": "F64", "c8": "C64",
}  # fmt: skip
"""Element types of numpy and what safetensors calls them."""
TORCH_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "float16": "F16",
    "bfloat16": "BF16", "uint32": "U32", "int32": "I32", "float32": "F32", "uint64": "U64", "int64": "I64",
    "float64": "F64", "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
"""Element types of torch and what safetensors calls them."""


class Question(AnyQuestion, kw_only=True):
    """One command. What follows ``keep`` is a file, what follows ``answer`` are samples."""

    to: str = ""
    """Format to write."""
    part: str = ""
    """Key of a saved dictionary under which the tensors lie."""
    rows: int = 0
    columns: int = 0
    single: bool = False
    """Give the samples to the model as 32-bit numbers."""


class Tensor(msgspec.Struct, frozen=True):
    """One tensor: its bytes in C order, little-endian."""

    name: str
    code: str
    shape: tuple[int, ...]
    data: bytes
    place: tuple[Any, ...]
    """Where it lies in memory; the same for two names of one tensor."""

    def told(self) -> dict[str, Any]:
        """What is said of it."""
        return {
            "name": self.name,
            "code": self.code,
            "shape": self.shape,
            "digest": hashlib.sha256(self.data).hexdigest(),
        }


class Host:
    """One file, and what it holds."""

    def __init__(self) -> None:
        self.file = bytearray()
        self.value: Any = None
        self.torch = False
        self.written = b""

    def keep(self, question: Question) -> Answer:
        """Take a file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, question: Question) -> Answer:
        """Load the file and say whether it holds tensors or an estimator."""
        self.value, self.torch = _load(bytes(self.file))
        self.file = bytearray()
        if question.part:
            if not isinstance(self.value, dict) or question.part not in self.value:
                raise Refusal(f"it holds no dictionary with a part {question.part!r}{_parts(self.value)}")
            self.value = self.value[question.part]
        estimator = hasattr(self.value, "get_params") and hasattr(self.value, "fit")
        if estimator and not hasattr(self.value, "n_features_in_"):
            raise Refusal(f"its {type(self.value).__name__} is not fitted, or takes no table of numbers")
        module = self.torch and not estimator and hasattr(self.value, "forward")
        kind = "estimator" if estimator else "module" if module else "tensors"
        return {"facts": {"kind": kind, "features": int(getattr(self.value, "n_features_in_", 0))}}

    def load_result(self, question: Question) -> Answer:
        """Load what another process wrote, by the reader of its format."""
        data = bytes(self.file)
        self.file = bytearray()
        self.value = _open_onnx(data) if question.to == "onnx" else _open_skops(data)
        return {}

    def write(self, question: Question) -> Answer:
        """Write what was loaded; it is handed out by ``fetch``."""
        if question.to in {"safetensors", "npz"}:
            tensors = list(self._tensors())
            write = _write_safetensors if question.to == "safetensors" else _write_npz
            self.written = write(tensors, "pt" if self.torch else "np")
        else:
            self.written = _write_onnx(self.value) if question.to == "onnx" else _write_skops(self.value)
        return {"facts": {"bytes": len(self.written)}}

    def tensors(self, _: Question) -> Answer:
        """Name, type, shape and digest of every tensor, and which names mean the same one."""
        first: dict[tuple[Any, ...], str] = {}
        told, shared = [], {}
        for tensor in self._tensors():
            told.append(tensor.told())
            if tensor.data and (known := first.setdefault(tensor.place, tensor.name)) != tensor.name:
                shared[tensor.name] = known
        self.written = msgspec.msgpack.encode({"tensors": told, "shared": shared})
        return {"facts": {"bytes": len(self.written)}}

    def answer(self, question: Question) -> Answer:
        """What the model says to samples: labels or numbers, and scores where it gives any."""
        rows = np.frombuffer(question.data, dtype="<f8").reshape(question.rows, question.columns)
        given = rows.astype(np.float32) if question.single else rows
        self.written = msgspec.msgpack.encode(_answers(self.value, given))
        return {"facts": {"bytes": len(self.written)}}

    def fetch(self, _: Question) -> Answer:
        """What the command before has made."""
        made, self.written = self.written, b""
        return made

    def _tensors(self) -> Iterator[Tensor]:
        """All tensors, by name."""
        named = {"": self.value} if hasattr(self.value, "shape") else self.value
        if not isinstance(named, dict) or not named:
            raise Refusal(f"it holds a {type(self.value).__name__}, and no dictionary of tensors")
        if len(named) > MAX_TENSORS:
            raise Refusal(f"it holds {len(named)} tensors; up to {MAX_TENSORS} are converted")
        for name in named:
            if not isinstance(name, str) or len(name) > MAX_NAME or name == "__metadata__":
                raise Refusal(f"{str(name)[:100]!r} cannot be the name of a tensor in the result")
        for name in sorted(named):
            make = _torch_tensor if self.torch else _numpy_tensor
            yield make(name or "array", named[name], self.value)


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    return {
        "keep": host.keep,
        "load": host.load,
        "load_result": host.load_result,
        "write": host.write,
        "tensors": host.tensors,
        "answer": host.answer,
        "fetch": host.fetch,
    }


# ---- loading


def _load(data: bytes) -> tuple[Any, bool]:
    """What a file holds, and whether it is torch's."""
    if data.startswith(NUMPY):
        return np.load(io.BytesIO(data), allow_pickle=False), False
    if data.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            return _load_torch(data), True
        if names and all(name.endswith(".npy") for name in names):
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}, False
        raise Refusal("it is an archive, and none of torch or numpy")
    if data.startswith(LEGACY_TORCH):
        return _load_torch(data), True
    joblib = _library("joblib", "joblib")
    try:
        return joblib.load(io.BytesIO(data)), False
    except MemoryError:
        raise
    except Exception as error:
        raise Refusal(f"joblib reads nothing from it ({type(error).__name__}: {error})") from error


def _load_torch(data: bytes) -> Any:
    """By torch's own reader of weights, which constructs nothing else."""
    torch = _library("torch", "bartizan[torch]")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        what = str(error).split("\n", 1)[0][:200]
        raise Refusal(f"torch reads no weights from it ({what}); save a state_dict, not a whole module") from error


def _open_skops(data: bytes) -> Any:
    """A result is scanned before it comes here, so the types in it are known ones."""
    skops = _library("skops.io", "bartizan[skops]")
    return skops.loads(data, trusted=skops.get_untrusted_types(data=data))


def _open_onnx(data: bytes) -> Any:
    runtime = _library("onnxruntime", "bartizan[onnx]")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _library(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise Refusal(f"that needs {missing}, which is not installed here: pip install '{package}'") from error


def _parts(value: Any) -> str:
    """Which parts there are, for whoever named a wrong one."""
    if not isinstance(value, dict):
        return ""
    found = sorted(str(name)[:50] for name, part in value.items() if isinstance(part, dict))
    return f"; it has {', '.join(found[:10])}" if found else ""


# ---- tensors


def _numpy_tensor(name: str, value: Any, _: Any) -> Tensor:
    if not isinstance(value, np.ndarray | np.generic):
        raise Refusal(f"{name!r} is a {type(value).__name__}, and no array")
    array: NDArray[Any] = np.asarray(value)
    code = NUMPY_CODES.get(array.dtype.str[1:])
    if code is None:
        raise Refusal(f"{name!r} has elements of type {array.dtype}, which the result cannot hold")
    place = (array.__array_interface__["data"][0], array.shape, array.strides, code)
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    return Tensor(name, code, array.shape, little.tobytes(), place)


def _torch_tensor(name: str, value: Any, whole: Any) -> Tensor:
    torch = import_module("torch")
    if not isinstance(value, torch.Tensor):
        hint = "; name the part that holds the tensors with --part" if _parts(whole) else ""
        raise Refusal(f"{name!r} is a {type(value).__name__}, and no tensor{_parts(whole)}{hint}")
    code = TORCH_CODES.get(str(value.dtype).removeprefix("torch."))
    if code is None or value.layout != torch.strided or value.is_meta or value.is_quantized:
        raise Refusal(f"{name!r} is a tensor of {value.dtype} and {value.layout}, which the result cannot hold")
    plain = value.detach()
    place = (plain.untyped_storage().data_ptr(), plain.storage_offset(), *plain.shape, *plain.stride(), code)
    whole_tensor = plain.resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = whole_tensor.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return Tensor(name, code, tuple(plain.shape), data, place)


def _write_safetensors(tensors: list[Tensor], origin: str) -> bytes:
    """Format: https://huggingface.co/docs/safetensors. Wide elements come first, so that all are aligned."""
    ordered = sorted(tensors, key=lambda tensor: (-_width(tensor), tensor.name))
    header: dict[str, Any] = {"__metadata__": {"format": origin}}
    end = 0
    for tensor in ordered:
        begin, end = end, end + len(tensor.data)
        header[tensor.name] = {"dtype": tensor.code, "shape": tensor.shape, "data_offsets": [begin, end]}
    packed = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    packed += b" " * (-len(packed) % 8)
    return b"".join((len(packed).to_bytes(8, "little"), packed, *(tensor.data for tensor in ordered)))


def _width(tensor: Tensor) -> int:
    """Bits of an element, from its name."""
    digits = "".join(letter for letter in tensor.code.split("_", maxsplit=1)[0] if letter.isdigit())
    return int(digits or 8)


def _write_npz(tensors: list[Tensor], _: str) -> bytes:
    types = {code: np.dtype("<" + name) for name, code in NUMPY_CODES.items()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for tensor in tensors:
            if tensor.code not in types:
                raise Refusal(f"numpy has no type for {tensor.name!r} ({tensor.code}); write safetensors")
            member = io.BytesIO()
            array = np.frombuffer(tensor.data, types[tensor.code]).reshape(tensor.shape)
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{tensor.name}.npy", FIXED_TIME), member.getvalue())
    return made.getvalue()


# ---- estimators


def _write_skops(model: Any) -> bytes:
    """A skops archive with neither times nor addresses in it, so that the same model gives the same bytes."""
    skops = _library("skops.io", "bartizan[skops]")
    try:
        made = skops.dumps(model)
    except Exception as error:
        raise Refusal(f"skops cannot write it: {type(error).__name__}: {error}") from error
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop("schema.json"))
    numbers = _number(schema)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("schema.json", FIXED_TIME), json.dumps(schema, indent=2))
        for name, data in sorted(members.items(), key=lambda item: numbers.get(_stem(item[0]), 0)):
            archive.writestr(zipfile.ZipInfo(_renamed(name, numbers), FIXED_TIME), data)
    return target.getvalue()


def _number(schema: Any) -> dict[str, int]:
    """Replace addresses, by which skops names objects, by numbers in the order in which they come."""
    numbers: dict[str, int] = {}
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if isinstance(node.get("__id__"), int):
                node["__id__"] = numbers.setdefault(str(node["__id__"]), len(numbers) + 1)
            if isinstance(node.get("file"), str):
                numbers.setdefault(_stem(node["file"]), len(numbers) + 1)
                node["file"] = _renamed(node["file"], numbers)
            todo.extend(reversed(list(node.values())))
        elif isinstance(node, list):
            todo.extend(reversed(node))
    return numbers


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _renamed(name: str, numbers: dict[str, int]) -> str:
    stem, dot, rest = name.partition(".")
    return f"{numbers[stem]}{dot}{rest}" if stem in numbers else name


def _write_onnx(model: Any) -> bytes:
    converter = _library("skl2onnx", "bartizan[onnx]")
    types = import_module("skl2onnx.common.data_types")
    inputs = [("X", types.FloatTensorType([None, int(model.n_features_in_)]))]
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    try:
        made = converter.to_onnx(model, initial_types=inputs, options=options, name="model")
    except Exception as error:
        what = str(error).split("\n", 1)[0][:300]
        raise Refusal(f"it cannot be written as ONNX: {type(error).__name__}: {what}") from error
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def _answers(model: Any, rows: NDArray[Any]) -> dict[str, Any]:
    """Labels as text or predictions as numbers, and scores ``(rows, columns)``."""
    if hasattr(model, "get_inputs"):
        found = model.run(None, {model.get_inputs()[0].name: rows.astype(np.float32)})
        scores = found[1] if len(found) > 1 and isinstance(found[1], np.ndarray) else None
        return _told(found[0], scores)
    for name in ("predict_proba", "decision_function", "transform"):
        if hasattr(model, name):
            scores = getattr(model, name)(_table(model, rows))
            break
    else:
        scores = None
    predicted = model.predict(_table(model, rows)) if hasattr(model, "predict") else None
    return _told(predicted, scores)


def _table(model: Any, rows: NDArray[Any]) -> Any:
    """The rows as an array, or as a table when the model was fitted to one with named columns."""
    names = getattr(model, "feature_names_in_", None)
    return rows if names is None else import_module("pandas").DataFrame(rows, columns=names)


def _told(predicted: Any, scores: Any) -> dict[str, Any]:
    answers: dict[str, Any] = {"labels": [], "numbers": [], "scores": []}
    if predicted is not None:
        flat = np.asarray(predicted)
        flat = flat.reshape(len(flat), -1)
        if flat.dtype.kind in "biuf":
            answers["numbers"] = flat.astype(np.float64).tolist()
        else:
            answers["labels"] = [[str(value) for value in row] for row in flat.tolist()]
    if scores is not None:
        dense = scores.toarray() if hasattr(scores, "toarray") else np.asarray(scores)
        answers["scores"] = dense.astype(np.float64).reshape(len(dense), -1).tolist()
    return answers

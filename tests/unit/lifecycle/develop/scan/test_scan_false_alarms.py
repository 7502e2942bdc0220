"""Benign files of the kinds that once raised a false alarm, each beside the hostile file that looks most like it."""

from __future__ import annotations

import base64
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fixtures.hostile_frameworks import PLAIN_CLASS, script

from bartizan.lifecycle.develop.scan.scanner import scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict
from fixtures.effort import within

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

TABLE = b"const_p1,const_p2,mean\n.7376958,.2623042,1\n.9818866,.0181134,.99\n.98,.02,.99\n"


def is_clean(report: Report) -> bool:
    return report.verdict is Verdict.CLEAN and report.total_coverage is Coverage.EXAMINED


@pytest.mark.parametrize(
    "data",
    [TABLE, TABLE.replace(b",", b"\t"), TABLE.replace(b",", b"; "), b"c\n.5\n.25\n.125\n"],
    ids=["commas", "tabs", "semicolons", "one column called c"],
)
def test_a_table_that_begins_with_c_is_no_pickle(data: bytes) -> None:
    report = scan_bytes(data, "results.csv")
    assert is_clean(report), report.findings
    assert report.format == "text"


@pytest.mark.parametrize(
    "data",
    [
        b"cevil\n.5\n.6\n.7\n",
        b"cevil.x,y\n.5,.6\n.7,.8\n",
        b"cevil,x\nrun\n(tR.and,more\n",
        b"cevil,x\n.5\n.",
        b"cevil,x\n.5\n.\n",
        b"(cevil,x\n.5\ncos\nsystem\n.5,.6\n.7\n",
        b"c,x\n.5\n0\x80\x04cos\nsystem\n\x8c\x02id\x85R.more",
    ],
    ids=["a package", "below a package", "a call", "ends the file", "ends the last line", "another name", "signature"],
)
def test_what_imports_or_calls_is_a_pickle_however_much_it_looks_like_a_table(data: bytes) -> None:
    report = scan_bytes(data, "results.csv")
    assert report.verdict.rank >= Verdict.SUSPICIOUS.rank
    assert report.format == "pickle"


def test_a_traced_sequential_fetches_its_layers_by_number() -> None:
    layers = torch.nn.ModuleDict({"a b": torch.nn.Linear(2, 2), "x-y": torch.nn.Linear(2, 2)})
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.ReLU(), *layers.values()))
    saved = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, torch.ones(1, 2)), saved)
    assert b'getattr(self, "0")' in b"".join(_members(saved.getvalue()))
    report = scan_bytes(saved.getvalue(), "traced.pt")
    assert is_clean(report), report.findings


@pytest.mark.parametrize(
    ("body", "is_fine"),
    [
        (b'    a = getattr(self, "0")\n', True),
        (b'    a = getattr(layers0, "a b")\n', True),
        (b'    torch.warn("a torch, no ops")  # torch\n', True),
        (b"    a = ops.prim.NumToTensor(x)\n", True),
        (b"    ops : Tensor = self.ops\n", True),
        (b'    a = getattr(torch, "neg")(x)\n', False),
        (b'    a = getattr(torch, "ne\\147")(x)\n', False),
        (b'    a = getattr(torch, "0" "neg")(x)\n', False),
        (b'    a = getattr(self, "0", torch)\n', False),
        (b"    a = getattr(self, name)\n", False),
        (b"    f = torch\n    a = f.save(x, '/tmp/x')\n", False),
        (b"    f = ops\n    a = f.aten.save(x, '/tmp/x')\n", False),
        (b"    f = ops . aten\n    a = f.save(x, '/tmp/x')\n", False),
        (b'    f = ("a", torch)[1]\n', False),
        (b"    torch" + b" # a\n" * 100 + b"   .save(x, 'y')\n", False),
        (b"    torch.#" + b"a" * 5000 + b"\n   save(x, 'y')\n", False),
        (b"    ops.aten" + b" # a\n" * 100 + b"   .save(x, 'y')\n", False),
    ],
)
def test_torchscript_may_fetch_submodules_and_not_operators_by_name(body: bytes, is_fine: bool) -> None:
    report = scan_bytes(script(PLAIN_CLASS + body + b"    return x\n"), "model.pt")
    assert is_clean(report) is is_fine, report.findings


def test_operators_by_another_name_work_and_so_have_to_be_found() -> None:
    """Torch itself takes ``f = torch`` for what it is; were that to end, the rule could go."""
    saved = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2))), saved)
    changed = io.BytesIO()
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".py"):
                content = content.replace(
                    b"    weight = self", b"    f = torch\n    g = f.neg(input)\n    weight = self"
                )
            new.writestr(name, content)
    changed.seek(0)
    torch.jit.load(changed)
    report = scan_bytes(changed.getvalue(), "model.pt")
    assert "torch/script-operator" in {finding.rule for finding in report.findings}


def test_comments_without_end_take_no_time() -> None:
    for filler in (b"#ops\n" * 100_000, b"ops" + b"#" * 500_000, b"torch.a\\\n" * 50_000, b"ops.a#" * 80_000):
        with within(5):  # seconds; without the bound, minutes
            assert not is_clean(scan_bytes(script(PLAIN_CLASS + b"    x = torch\n" + filler), "model.pt"))


def _members(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def _legacy(protocol: int) -> bytes:
    saved = io.BytesIO()
    content = {"epoch": 3, "weights": {f"w{number}": torch.ones(number + 1) for number in range(12)}}
    torch.save(content, saved, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return saved.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_old_torch_files_are_read_in_every_protocol(protocol: int) -> None:
    data = _legacy(protocol)
    report = scan_bytes(data, "old.pth")
    assert is_clean(report), report.findings
    assert not is_clean(scan_bytes(data[:-1], "cut.pth"))
    assert not is_clean(scan_bytes(data + b"payload", "longer.pth"))
    assert not is_clean(scan_bytes(data.replace(b"\x8a\x0al\xfc", b"\x8a\x0al\xfd", 1), "other number.pth"))


def test_word_vectors_as_text_may_have_words_with_accents() -> None:
    lines = ["3 2", *(f"{word} 0.5 -0.25 " for word in ("и", "größe", "word"))]
    report = scan_bytes("\n".join(lines).encode(), "words.vec")
    assert is_clean(report), report.findings
    assert report.format == "text"


def test_binary_word_vectors_with_accents_stay_binary() -> None:
    words = b"".join(word.encode() + b" " + struct.pack("<2f", 0.5, -0.25) for word in ("größe", "и"))
    report = scan_bytes(b"2 2\n" + words, "words.bin")
    assert is_clean(report), report.findings
    assert report.format == "word2vec"


OLDER = "Ville;Année\nGenève;1999\nOrléans;2001\nDüsseldorf;2005\n".encode("latin-1")


def test_tables_in_an_older_encoding_are_text() -> None:
    report = scan_bytes(OLDER, "villes.csv")
    assert is_clean(report), report.findings
    assert report.format == "text"
    assert is_clean(scan_bytes(OLDER * 200_000, "long.csv"))
    assert is_clean(scan_bytes(b"plain;1\n" * 10_000 + OLDER, "accents behind the part that is probed.csv"))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (OLDER + b"\0", "a zero"),
        (OLDER + b"\x1b$B", "a change of encoding"),
        (OLDER * 2000 + b"\x01\x02", "numbers behind the part that is probed"),
        (struct.pack("<8f", *[0.1] * 8), "numbers"),
        ("Русский текст".encode("cp1251"), "mostly accents"),
        ("# é\nimport torch\nmodel = torch.nn.Linear(1, 1)\n".encode("latin-1"), "train.py"),
        ("{{ cycler.__init__.__globals__ }} é".encode("latin-1"), "chat_template.jinja"),
        ("<p>é</p><script>alert(1)</script>".encode("latin-1"), "page.html"),
    ],
)
def test_what_is_no_plain_text_in_an_older_encoding_is_not_clean(data: bytes, name: str) -> None:
    assert not is_clean(scan_bytes(data, name))


def test_an_accent_hides_no_payload() -> None:
    payload = base64.b64encode(b"\x80\x04cos\nsystem\n\x8c\x02id\x85R." + bytes(400))
    for accent in (b"", b"\xe9\n"):
        assert scan_bytes(accent + payload, "notes.txt").verdict is Verdict.DANGEROUS


def _external(folder: Path) -> None:
    """An ONNX model with its weights in a file beside it."""
    helper = onnx.helper
    weights = onnx.numpy_helper.from_array(torch.linspace(-1, 1, 400).reshape(4, 100).numpy(), "w")
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 100])]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    options = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 1}
    onnx.save(model, str(folder / "model.onnx"), **options)


def _zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"model/{name}", content)
    return made.getvalue()


def _tarred(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(f"model/{name}")
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize("pack", [_zipped, _tarred])
def test_weights_beside_a_graph_count_as_examined_in_an_archive_as_in_a_folder(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    _external(tmp_path)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    report = scan_bytes(pack(files), "model.archive")
    assert is_clean(report), report.findings
    assert is_clean(scan_path(tmp_path))
    short = {**files, "weights.data": files["weights.data"][:-1]}
    assert not is_clean(scan_bytes(pack(short), "short.archive"))
    unclaimed = {**files, "other.data": files["weights.data"]}
    assert not is_clean(scan_bytes(pack(unclaimed), "unclaimed.archive"))
    hidden = {**files, "weights.data": b"\x80\x04cos\nsystem\n\x8c\x02id\x85R." + files["weights.data"]}
    assert scan_bytes(pack(hidden), "hidden.archive").verdict is Verdict.DANGEROUS


def test_of_two_members_with_one_name_none_is_taken_for_weights(tmp_path: Path) -> None:
    _external(tmp_path)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    data = _zipped({**files, "weights.datb": files["weights.data"]}).replace(b"weights.datb", b"weights.data")
    assert not is_clean(scan_bytes(data, "twice.zip"))

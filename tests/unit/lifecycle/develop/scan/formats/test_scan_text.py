"""Text of all kinds and whole repositories: what is harmful is found, what is not comes out clean and examined."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zlib

import pytest
import yaml

from bartizan.cli.main import run
from bartizan.lifecycle.develop.scan import RULES, Coverage, Limits, Verdict, scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.formats.xml_text import XmlProblem, read_elements
from bartizan.lifecycle.develop.scan.rules import repositories, text
from fixtures.effort import within
from fixtures.hostile_text import BENIGN, BMP, DANGEROUS, FOLDERS, GIF, JPEG, SUSPECT, doc, notebook, png, wav

SMALL = Limits(opcodes=200_000, memo=20_000, stack=20_000, nodes=20_000, expanded=1 << 22, members=200)


def lay_out(folder, files):
    """Write the files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.mark.parametrize("vector", DANGEROUS)
def test_harmful_text_is_called_dangerous(vector):
    report = scan_bytes(DANGEROUS[vector], "model.bin")
    assert report.verdict is Verdict.DANGEROUS, [finding.detail for finding in report.findings]


@pytest.mark.parametrize("vector", SUSPECT)
def test_suspect_text_is_never_called_clean(vector):
    report = scan_bytes(SUSPECT[vector], "model.bin")
    assert report.verdict in {Verdict.SUSPICIOUS, Verdict.MALFORMED}, report.verdict


@pytest.mark.parametrize("vector", BENIGN)
@pytest.mark.parametrize("name", ["model.bin", "file"])
def test_harmless_text_is_clean_and_examined(vector, name):
    report = scan_bytes(BENIGN[vector], name)
    assert report.exit_code == 0, [finding.detail for finding in report.findings]
    assert report.total_coverage is Coverage.EXAMINED


@pytest.mark.parametrize("vector", FOLDERS)
def test_a_folder_gets_the_verdict_of_its_worst_part(vector, tmp_path):
    files, verdict = FOLDERS[vector]
    report = scan_path(lay_out(tmp_path, files))
    assert report.verdict == verdict, [(finding.where, finding.detail) for finding in report.findings]


@pytest.mark.parametrize("folder", ["a repository of Hugging Face", "an MLflow model"])
def test_the_command_calls_a_repository_clean(folder, tmp_path, capsys):
    assert run(["scan", str(lay_out(tmp_path, FOLDERS[folder][0]))]) == 0
    capsys.readouterr()


def test_the_command_says_which_configuration_loads_which_code(tmp_path, capsys):
    assert run(["scan", str(lay_out(tmp_path, FOLDERS["harmful code of its own"][0])), "--json"]) == 1
    shown = capsys.readouterr().out
    assert "config.json loads modeling.py" in shown


def test_every_rule_for_text_and_repositories_is_fired(tmp_path):
    fired = {
        finding.rule
        for data in [*DANGEROUS.values(), *SUSPECT.values()]
        for finding in scan_bytes(data, "model.bin").findings
    }
    for number, (files, _) in enumerate(FOLDERS.values()):
        fired |= {finding.rule for finding in scan_path(lay_out(tmp_path / str(number), files)).findings}
    assert {rule.id for rule in (*text.RULES, *repositories.RULES)} <= fired <= set(RULES)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README", "notes.txt", "x"])
def test_the_name_does_not_change_what_a_program_does(name):
    hostile = DANGEROUS["python: os.system at import"]
    assert scan_bytes(hostile, name).exit_code == 1


def test_text_that_turns_into_something_else_is_not_examined():
    report = scan_bytes(b"a line of text\n" * 10_000 + bytes(range(256)), "x.txt")
    assert (report.coverage, report.exit_code) == (Coverage.NOT_EXAMINED, 2)


def test_control_characters_are_no_text():
    assert scan_bytes(b"a\x01b" * 50, "x.txt").exit_code == 2
    assert scan_bytes("na\x01ïve".encode("latin-1"), "x.txt").exit_code == 2


def tokenizer(entries):
    """A tokenizer with a vocabulary of so many words."""
    vocabulary = {f"word{number}": number for number in range(entries)}
    merges = [f"wo rd{number}" for number in range(entries)]
    return {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": merges}}


def test_a_large_tokenizer_is_examined_in_little_time_and_memory():
    data = json.dumps(tokenizer(400_000)).encode()
    assert len(data) > 13 << 20
    with within(5):
        report = scan_bytes(data, "tokenizer.json")
    assert (report.format, report.exit_code) == ("json", 0)
    tracemalloc.start()
    scan_bytes(data, "tokenizer.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_a_large_configuration_is_judged_all_the_same():
    document = {**tokenizer(120_000), "auto_map": {"AutoModel": "someone/evil--m.M"}}
    assert scan_bytes(json.dumps(document).encode(), "tokenizer.json").verdict is Verdict.DANGEROUS
    hidden = {"auto_map": {"AutoModel": "someone/evil--m.M", "pad": "x" * (6 << 20)}}
    assert scan_bytes(json.dumps(hidden).encode(), "config.json").exit_code == 2


def test_large_lines_and_tables_are_text():
    assert scan_bytes(b'{"text": "some words"}\n' * 250_000, "train.jsonl").exit_code == 0
    assert scan_bytes(b"1,2,3\n" * 1_000_000, "data.csv").exit_code == 0
    assert scan_bytes(b"x = 1\n" * 1_000_000, "data.py").exit_code == 2


def test_what_pyyaml_writes_is_clean_and_what_it_would_call_is_not():
    harmless = yaml.safe_dump({"a": [1, 2.5, None, True], "b": {"c": "text"}, "d": b"bytes"})
    assert scan_bytes(harmless.encode(), "config.yaml").exit_code == 0
    assert scan_bytes(yaml.dump({"a": print}).encode(), "config.yaml").verdict is Verdict.DANGEROUS


def test_pictures_and_plots_that_libraries_save_are_clean():
    image = pytest.importorskip("PIL.Image")
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        for mode in ("L", "RGB"):
            target = io.BytesIO()
            image.new(mode, (37, 23), 77).save(target, kind)
            report = scan_bytes(target.getvalue(), f"a.{kind.lower()}")
            assert report.exit_code == 0, (kind, mode, report.findings)
            cut = scan_bytes(target.getvalue()[:-9], "a")
            assert cut.exit_code != 0, (kind, mode)


def test_names_of_elements_and_their_attributes():
    found = list(read_elements(b'<?xml version="1.0"?><?go now?><a xmlns="urn:x" b="1"><c/></a>'))
    assert [(each.name, each.namespace, each.depth) for each in found] == [
        ("?go", "", 0),
        ("a", "urn:x", 0),
        ("c", "urn:x", 1),
    ]
    assert found[1].attributes == {"b": "1"}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "xml/malformed"),
        (b"<a>", "xml/malformed"),
        (b"<?xml version='1.0' encoding='no-such'?><a/>", "xml/malformed"),
        (b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///x'>]><a/>", "xml/external-entity"),
        (b"<!DOCTYPE a [<!ENTITY x PUBLIC 'p' 'http://x'>]><a/>", "xml/external-entity"),
        (b"<!DOCTYPE a [<!ENTITY x '" + b"y" * 300 + b"'>]><a/>", "xml/entity-expansion"),
        (b"<!DOCTYPE a [<!ENTITY x 'y'><!ENTITY z '&x;&x;'>]><a/>", "xml/entity-expansion"),
        (b"<a>" * 2000, "xml/nesting"),
        (b"<a b='" + b"x" * (6 << 20), "file/limit"),
    ],
)
def test_xml_that_harms_its_reader_is_refused(data, rule):
    with pytest.raises(XmlProblem) as raised:
        list(read_elements(data))
    assert raised.value.rule_id == rule


@pytest.mark.parametrize("seed", range(3))
def test_damaged_text_ends_in_a_report(seed):
    rng = random.Random(seed)
    starts = [data for data in [*DANGEROUS.values(), *SUSPECT.values(), *BENIGN.values()] if len(data) < 3000]
    names = [
        "a.json",
        "a.yaml",
        "a.py",
        "a.svg",
        "a.ipynb",
        "a.md",
        "MLmodel",
        "a.sh",
        "a.pth",
        "requirements.txt",
        "a.toml",
        "x",
    ]
    for _ in range(500):
        data = bytearray(rng.choice(starts))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randint(0, 4)] = rng.choice(
                [rng.randbytes(rng.randint(0, 3)), b"!!", b"{", b"&a", b"--- ", b"("]
            )
        assert scan_bytes(bytes(data), rng.choice(names), SMALL).to_json()


@pytest.mark.parametrize("data", [png(), GIF, JPEG, BMP, wav(), notebook("import torch"), BENIGN["mlmodel"]])
def test_every_cut_ends_in_a_report(data):
    for end in range(len(data)):
        assert scan_bytes(data[:end], "a.ipynb", SMALL).to_json()


@pytest.mark.parametrize("data", [png(), GIF, JPEG, BMP, wav()])
def test_no_cut_picture_is_clean(data):
    for end in range(20, len(data)):
        assert scan_bytes(data[:end], "x", SMALL).exit_code != 0


def expensive():
    """Small files that try to cost much."""
    mib = 1 << 20
    yield "json, deep", "a.json", b'{"a":' * 300_000
    yield "json, many empty lists", "a.json", b"[" + b"[]," * (mib // 2) + b"1]"
    yield "json, a long number", "a.json", b"1" * (3 * mib // 2)
    yield "json, many equal keys", "a.json", b"{" + b'"a":1,' * 200_000 + b'"a":1}'
    yield "yaml, deep", "a.yaml", b"[" * mib
    yield "yaml, deep maps", "a.yaml", b"{a: " * 300_000
    yield "yaml, many anchors", "a.yaml", b"".join(b"a%d: &a%d 1\n" % (n, n) for n in range(40_000))
    yield "yaml, many documents", "a.yaml", b"--- a\n" * 100_000
    yield "yaml, long key", "a.yaml", b"a" * mib + b": 1"
    yield "toml, deep", "a.toml", b"a = " + b"[" * 100_000
    yield "toml, deep keys", "a.toml", b"a." * 100_000 + b"a = 1"
    yield "python, deep", "a.py", b"(" * 100_000
    yield "python, long sum", "a.py", b"1" + b"+1" * 100_000
    yield "python, many names", "a.py", b"a=" * 200_000 + b"1"
    yield (
        "python, names of names",
        "a.py",
        b"import os\n" + b"".join(b"a%d = a%d or os\n" % (n + 1, n) for n in range(20_000)),
    )
    yield (
        "python, nested functions",
        "a.py",
        b"".join(b" " * n + b"def f(x%d):\n" % n for n in range(95)) + b" " * 95 + b"pass",
    )
    yield "python, long chain", "a.py", b"a" + b".b" * 900 + b"\n" + (b"os" + b".os" * 80 + b"\n") * 1000
    yield "python, many subclasses", "a.py", b"x" + b".__base__.__subclasses__()" * 150
    yield "xml, many elements", "a.xml", b"<a>" + b"<b/>" * 500_000 + b"</a>"
    yield "xml, long comment", "a.xml", b"<!--" + b"x" * (3 * mib)
    yield "html, many comments", "a.html", b"<!-- -->" * 100_000
    yield "html, many tags", "x", b"<html>" + b"<" * (3 * mib)
    yield "html, spaces", "a.html", b"<html>" + b"href=" + b" " * (2 * mib)
    yield "shell, one long line", "a.sh", b"curl " * 50_000
    yield "shell, rm", "a.sh", b"rm -" + b"r" * 200_000
    yield "shell, pipes", "a.sh", b"| " * 100_000
    yield "requirements, spaces", "requirements.txt", (b"a" + b" " * 100_000 + b"$\n") * 10
    yield "requirements, addresses", "requirements.txt", b"https://" * 200_000
    yield "blank lines", "x", b"\n" * (3 * mib)
    yield "dashes", "x", b"- " * mib
    yield "notebook, many cells", "a.ipynb", notebook(*["x = 1"] * 5_000)
    yield "notebook, equal signs", "a.ipynb", notebook("a, " * 60_000 + "= !x")
    yield "template keys", "a.json", doc(chat_template=[{"name": str(n), "template": "{{ a }}"} for n in range(5_000)])
    yield "gif, small blocks", "a.gif", GIF[:-4] + b"\1x" * 500_000
    yield "png, small chunks", "a.png", png(struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))) * 2
    yield "jpeg, markers", "a.jpg", JPEG[:-2] + b"\xff" * mib


@pytest.mark.parametrize(("name", "data"), [pytest.param(*case[1:], id=case[0]) for case in expensive()])
def test_small_files_cannot_cost_much(name, data):
    with within(6):
        assert scan_bytes(data, name, SMALL).to_json()

"""Graph models: damage of any kind ends in a report, and small files cost little."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from bartizan.lifecycle.develop.scan import Limits, Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.formats.templates import judge_template
from bartizan.lifecycle.develop.scan.rules.graphs import RULES
from fixtures import hostile_graphs as corpus
from fixtures.effort import within

SMALL = Limits(opcodes=300_000)
SEEDS = [*corpus.BENIGN.values(), *corpus.DANGEROUS.values(), *corpus.SUSPECT.values()]


def test_every_rule_of_the_family_is_fired():
    fired = set()
    for data in [*corpus.DANGEROUS.values(), *corpus.SUSPECT.values()]:
        fired |= {finding.rule for finding in scan_bytes(data, "m").findings}
    assert {rule.id for rule in RULES} <= fired


def test_the_text_form_of_a_graph_is_never_called_clean():
    report = scan_bytes(b"saved_model_schema_version: 1\nmeta_graphs {\n}\n", "saved_model.pbtxt")
    assert report.verdict is Verdict.UNKNOWN
    assert report.exit_code == 2


@pytest.mark.parametrize("seed", range(3))
def test_damaged_graphs_end_in_a_report(seed):
    rng = random.Random(seed)
    starts = [data for data in SEEDS if len(data) < 3000]
    for _ in range(300):
        data = bytearray(rng.choice(starts))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        assert scan_bytes(bytes(data), "x", SMALL).to_json()


@pytest.mark.parametrize("vector", corpus.BENIGN)
def test_a_cut_graph_is_not_clean(vector):
    """A cut between two fields of a message can leave a whole one, which is a model of its own."""
    data = corpus.BENIGN[vector]
    clean = 0
    for end in range(1, len(data), max(1, len(data) // 30)):
        report = scan_bytes(data[:end], "x", SMALL)
        assert report.to_json()
        clean += report.verdict is Verdict.CLEAN and any(data[end:])
    assert clean <= 6


def bombs():
    """Small files that try to cost much."""
    yield "many nodes", corpus.model(*[b""] * 40_000)
    yield "many unknown fields", corpus.model() + corpus.field(900, 1) * 100_000
    yield "deep messages", _deep(3000)
    yield "many weights", corpus.model(weights=(b"",) * 30_000)
    yield "many functions", corpus.model(functions=[corpus.function(f"f{n}") for n in range(2000)])
    yield "a chain of functions", corpus.model(functions=corpus.laughs(1000))
    yield "nested subgraphs", corpus.nested(45)
    yield "many nodes of TensorFlow", corpus.saved(*[corpus.tf_node(f"n{n}", "NoOp") for n in range(8_000)])
    yield "many restores of one path", _restores(3000)
    yield "many packed numbers", corpus.model(weights=(corpus.tensor(int32_data=b"\x01" * 3_000_000),))
    yield "one subgraph many times", corpus.lite(copies=3000)
    yield "many keys", corpus.gguf(*[corpus.gguf_key(f"k{n}", n) for n in range(20_000)])
    yield "many tokens", corpus.gguf(corpus.gguf_texts("tokenizer.ggml.tokens", *["a"] * 200_000))
    yield "many long tokens", corpus.gguf(corpus.gguf_texts("tokens", *["( " * 40] * 5_000))
    yield "many tensors", corpus.gguf(tensors=(corpus.W,) * 8_000)
    yield "many pickles in a text", corpus.model(doc_string=b"\x80\x04" * 100_000)
    yield "much base64", corpus.model(doc_string=(b"A" * 40 + b"\n") * 20_000)


def _deep(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = corpus.field(6, inner)
        inner = corpus.field(1, corpus.field(5, inner))
    return corpus.onnx("ModelProto", ir_version=8, opset_import=[corpus.opset()], graph=corpus.field(2, "g") + inner)


def _restores(count: int) -> bytes:
    chain = [corpus.tf_text("n0", "x"), *(corpus.tf_node(f"n{n}", "Identity", f"n{n - 1}") for n in range(1, count))]
    return corpus.saved(*chain, *(corpus.tf_node(f"r{n}", "RestoreV2", f"n{count - 1}") for n in range(count)))


BOMBS = dict(bombs())


@pytest.mark.parametrize("name", BOMBS)
def test_small_graphs_cannot_cost_much(name):
    with within(6):
        assert scan_bytes(BOMBS[name], "x").to_json()


@pytest.mark.parametrize("name", ["many nodes", "many unknown fields", "one subgraph many times", "many tokens"])
def test_small_graphs_cannot_take_much_memory(name):
    tracemalloc.start()
    scan_bytes(BOMBS[name], "x", SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "a + " * 50_000 + "a }}",
        "{{ " + "(" * 5_000 + ")" * 5_000 + " }}",
        "{{ " + "a.b" * 60_000 + " }}",
        "{% if a %}" * 3_000,
        "{% for a in b %}" * 400 + "{% endfor %}" * 400,
        "{% set x = " + "x ~ " * 50_000 + "x %}",
        "{{ " + "-" * 50_000 + "1 }}",
        "{{ " + "'a' * 9999 ~ " * 5_000 + "'b' }}",
        "{{ x" + "|lower" * 10_000 + " }}",
        "{{ x" + "[0]" * 50_000 + " }}",
        "{{ " + "9" * 100_000 + " }}",
        "{{ '" + "\\x5f" * 50_000 + "' }}",
        "{" * 200_000,
        "{#" * 100_000,
        "{% raw %}" * 20_000,
    ],
    ids=lambda text: text[:24],
)
def test_templates_are_judged_within_bounds(text):
    with within(8):
        assert isinstance(judge_template(text), list)

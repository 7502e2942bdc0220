"""Admission: each condition by itself, and every way round it that was thought of."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from bartizan.core import envelope, predicates
from bartizan.core.digest import Digest, ManifestEntry, digest_bytes
from bartizan.core.errors import ArtefactError
from bartizan.core.evidence import gather
from bartizan.core.gate import evaluate, verdict
from bartizan.core.statement import make
from bartizan.core.system import Artefact, Gate, Rule, System
from bartizan.lifecycle.deploy.gateway.admission import Case, admit, covers, refusal
from bartizan.lifecycle.develop.sign import signature_statement

GATE = Gate(
    valid_for="30d",
    rule=(
        Rule(id="scan", about="model", type="test-result", check="scan"),
        Rule(id="approved", about="model", type="decision", kind="approval", role="risk-owner"),
    ),
)
PROMPT = Artefact(kind="document", name="prompt", digest=digest_bytes(b"prompt bytes"))
ITSELF = Artefact(kind="system", name="s", digest=digest_bytes(b"declaration bytes"))


class Scene:
    """A system for which everything is as it should be, until a test changes that."""

    def __init__(self, world):
        self.world = world
        self.artefacts = {item.id: item for item in (world.model, world.data, PROMPT, ITSELF)}
        self.sign(world.model)
        self.sign(PROMPT)
        self.scanned = world.scan()
        world.decide()
        self.judged = self.say_verdict()

    @property
    def evidence(self):
        current = {name: item.digest for name, item in self.artefacts.items()}
        return tuple(gather(self.world.view(), list(current.values()), current, self.world.now))

    def sign(self, artefact, by="service"):
        said = signature_statement(artefact.name, [ManifestEntry(".", artefact.digest)])
        self.world.append(envelope.seal_statement(said, [self.world.signers[by]]))

    def say_verdict(self, gate=GATE, by="service", name="release", **changes):
        self.world.now += timedelta(minutes=1)
        artefacts = tuple(self.artefacts.values())
        result = evaluate(name, gate, artefacts, self.evidence, self.world.now)
        said = verdict(result, gate, artefacts, verifier="urn:test", version="0", now=self.world.now)
        said = make(
            predicates.VERDICT,
            {item.id: item.digest for item in artefacts},
            msgspec.structs.replace(said.read(), **changes),
        )
        body = envelope.seal_statement(said, [self.world.signers[by]])
        self.world.append(body)
        return digest_bytes(body)

    def alter(self, name):
        changed = msgspec.structs.replace(self.artefacts[name], digest=digest_bytes(f"other {name}".encode()))
        self.artefacts[name] = changed

    def admit(self, gate=GATE):
        system = System(
            declaration=None, folder="", declaration_digest=ITSELF.digest, artefacts=tuple(self.artefacts.values())
        )
        return admit(
            Case(
                system=system,
                model=self.artefacts["model:m"],
                gate="release",
                policy=gate,
                evidence=self.evidence,
                now=self.world.now,
            )
        )

    def failed(self, gate=GATE):
        return {(item.condition, item.artefact) for item in self.admit(gate).failed}


@pytest.fixture
def scene(world):
    return Scene(world)


VERDICT = {("verdict", "model:m")}


def test_what_was_signed_scanned_and_judged_is_admitted(scene):
    admission = scene.admit()
    assert admission.failed == ()
    assert admission.admitted
    assert admission.verdict == scene.judged
    assert admission.digest == scene.world.model.digest
    assert {item.condition for item in admission.findings} == {"signature", "scan", "configuration", "verdict"}


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("model:m", {"signature", "scan", "verdict"}),
        ("document:prompt", {"signature", "configuration", "verdict"}),
        ("system:s", {"configuration", "verdict"}),
        ("dataset:d", {"verdict"}),
    ],
)
def test_an_altered_part_is_named(scene, name, conditions):
    before = scene.artefacts[name]
    scene.alter(name)
    admission = scene.admit()
    assert {item.condition for item in admission.failed} == conditions
    assert f"{name} was {before.digest[:12]}" in admission.reason
    assert all(item.remedy for item in admission.failed)
    scene.artefacts[name] = before
    assert scene.admit().admitted


def test_a_new_part_was_not_judged(scene):
    scene.artefacts["document:late"] = Artefact(kind="document", name="late", digest=digest_bytes(b"late"))
    assert scene.failed() == {("signature", "document:late"), ("configuration", "document:late"), *VERDICT}


def test_a_signature_by_nobody_who_is_trusted_counts_for_nothing(world):
    scene = Scene(world)
    scene.alter("document:prompt")
    scene.sign(scene.artefacts["document:prompt"], by="mallory")
    scene.say_verdict()
    assert scene.failed() == {("signature", "document:prompt")}
    assert "untrusted" in scene.admit().reason
    scene.sign(scene.artefacts["document:prompt"])
    assert scene.admit().admitted


def test_a_signature_covers_what_its_own_manifest_adds_up_to():
    model = Artefact(kind="model", name="m", digest=digest_bytes(b"m"))
    good = signature_statement("m", [ManifestEntry(".", model.digest)])
    assert covers(good, model)
    listed = {"resources": [{"name": ".", "digest": digest_bytes(b"other"), "algorithm": "sha256"}]}
    assert not covers(msgspec.structs.replace(good, predicate=good.predicate | listed), model)
    for resources in ([], None, 7, [3], [{"name": "."}], [{"name": ".", "digest": 3}], [{"name": ".", "digest": "x"}]):
        said = msgspec.structs.replace(good, predicate=good.predicate | {"resources": resources})
        assert not covers(msgspec.structs.replace(said, subject=(*said.subject, *said.subject)), model)
        if resources and isinstance(resources, list) and len(resources) == 1:
            continue
        assert not covers(said, model)
    assert not covers(msgspec.structs.replace(good, predicate_type=predicates.CARD), model)


def test_a_refusal_overrules_an_earlier_pass(scene):
    scene.say_verdict(verification_result="FAILED")
    assert scene.failed() == VERDICT
    assert "refused" in scene.admit().reason


def test_a_withdrawn_verdict_does_not_bring_back_an_older_one(scene):
    newer = scene.say_verdict()
    assert scene.admit().verdict == newer
    scene.world.revoke("envelope", newer)
    assert scene.failed() == VERDICT
    assert "found bad" in scene.admit().reason


def test_a_verdict_that_ran_out_does_not_admit(scene):
    scene.world.now += timedelta(days=31)
    assert ("verdict", "model:m") in scene.failed()


def test_a_verdict_by_nobody_who_may_is_not_heard(scene):
    scene.say_verdict(verification_result="FAILED", by="mallory")
    assert scene.admit().admitted
    scene.alter("system:s")
    scene.say_verdict(by="mallory")
    assert scene.failed() == {("configuration", "system:s"), *VERDICT}


def test_verdicts_of_other_gates_and_other_rules_do_not_admit(scene):
    scene.alter("system:s")
    scene.say_verdict(name="other")
    assert ("verdict", "model:m") in scene.failed()
    scene.say_verdict()
    assert scene.admit().admitted
    stricter = msgspec.structs.replace(GATE, valid_for="1d")
    assert scene.failed(stricter) == VERDICT
    assert "other rules" in scene.admit(stricter).reason


def test_a_no_that_was_said_after_the_verdict_counts(scene):
    scene.world.decide(outcome="no", kind="rejection")
    assert scene.failed() == VERDICT
    assert "would refuse by now: approved" in scene.admit().reason


def test_a_scan_that_is_not_clean_or_was_withdrawn_does_not_admit(scene):
    scene.world.revoke("envelope", scene.scanned)
    assert scene.failed() == {("scan", "model:m"), *VERDICT}
    scene.world.scan("WARNED")
    scene.say_verdict()
    assert scene.failed() == {("scan", "model:m")}
    assert "not clean" in scene.admit().reason
    scene.world.scan()
    assert scene.admit().admitted


def test_a_withdrawn_model_is_refused_altogether(scene):
    scene.world.revoke("artefact", scene.world.model.digest)
    assert scene.failed() == {("signature", "model:m"), ("scan", "model:m"), *VERDICT}


def test_what_cannot_be_verified_is_not_admitted(world):
    error = ArtefactError("model.joblib cannot be read\nand more", remedy="mend it.")
    admission = refusal("model:m", {"model:m": Digest("a" * 64)}, error, world.now)
    assert not admission.admitted
    assert admission.reason == "verification (model:m): model.joblib cannot be read"
    assert refusal("model:m", {}, RuntimeError("secret path"), world.now).reason.endswith("RuntimeError")

"""Ways around intake: approvals and exceptions used for something else, records, cases and copies that were changed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError, BartizanError, InputError
from bartizan.core.system import Gate, Rule
from bartizan.lifecycle.develop.intake import policy, sources
from bartizan.lifecycle.develop.intake.questions import Allowed, Answers, Supplier
from bartizan.wiring import intake as wiring
from bartizan.wiring import samples
from bartizan.wiring.intake import Asked, Intake, audit
from bartizan.wiring.workspace import Workspace, utc_now
from fixtures.effort import within
from fixtures.project import declare

ANSWERS = Answers(
    host="Acme", contributors="Acme's own", independent_sources=2, collected="in 2024", licence="Apache-2.0"
)
ROWS = b"a,b,label\n1,2,x\n2,1,y\n"
DIGEST = digest_bytes(ROWS)
LETTERS = list(zip("abcdefgh", "bcdefghi", strict=True))


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("declared") / "tumour"
    declare(folder)
    return folder


@pytest.fixture
def space(tmp_path, declared):
    return Workspace(shutil.copytree(declared, tmp_path / "project", symlinks=True))


@pytest.fixture
def door(space):
    return Intake(space)


def record(door, name="acme", *, digests=(DIGEST,), role="security", expires="90d"):
    said = Supplier(
        service="dataset",
        contact="security@acme.example",
        expectations="answers reports within 14 days",
        posture="audited in 2026",
        allow=Allowed(digests=tuple(digests)),
    )
    return door.suppliers.record(name, said, role=role, expires=expires, key="")


def asked(supplier="acme", **changes):
    return Asked(**({"kind": "dataset", "name": "rows", "supplier": supplier, "answers": ANSWERS} | changes))


def take(door, tmp_path, data=ROWS, name="rows.csv", **changes):
    path = tmp_path / name
    path.write_bytes(data)
    return door.resume(door.open(path, asked(**changes)))


def decide(door, case, *rules, role="security", refuse=False):
    return door.decide(case, role=role, reason="seen", rules=rules, refuse=refuse, expires="90d", key="")


def tarred(**members):
    """A tar archive; ``__`` in a name is a slash."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def states(progress):
    return {each.rule.id: each.state for each in progress.result.results}


def admitted(door, tmp_path):
    record(door)
    case = take(door, tmp_path).case
    decide(door, case)
    done = door.resume(door.case("rows"))
    assert done.case.state == "admitted"
    return done.case


# ---- decisions


@pytest.mark.parametrize("change", ["supplier", "answers", "samples"])
def test_an_approval_is_of_what_was_seen(door, tmp_path, change):
    record(door)
    record(door, "shadow")
    case = take(door, tmp_path).case
    decide(door, case)
    wanted = samples.Wanted(path=str(tmp_path / "rows.csv"), target="label", minimum={"accuracy": 0.5})
    other = {
        "supplier": asked("shadow"),
        "answers": asked(answers=replace(ANSWERS, licence="unknown to us")),
        "samples": asked(samples=wanted),
    }
    changed = door.resume(door.open(tmp_path / "rows.csv", other[change]))
    assert (changed.case.state, states(changed)["approval"]) == ("quarantined", "unmet")
    again = door.resume(door.open(tmp_path / "rows.csv", asked()))
    expected = "quarantined" if change == "samples" else "admitted"
    assert again.case.state == expected


def test_an_exception_from_an_unknown_origin_is_none_from_a_wrong_one(door, tmp_path):
    record(door, digests=())
    case = take(door, tmp_path).case
    decide(door, case, "origin")
    assert states(door.look(door.case("rows")))["origin"] == "warned"
    announced = door.resume(door.open(tmp_path / "rows.csv", asked(expected="0" * 64)))
    assert states(announced)["origin"] == "unmet"
    door._write(replace(door.case("rows"), expected=""))  # as somebody with an editor would
    assert states(door.resume(door.case("rows")))["origin"] == "warned"
    record(door, digests=("0" * 64,))
    assert states(door.resume(door.case("rows")))["origin"] == "unmet"


def test_an_exception_from_missing_answers_is_of_those_answers(door, tmp_path):
    record(door)
    some = replace(ANSWERS, collected="")
    case = take(door, tmp_path, answers=some).case
    decide(door, case, "provenance")
    assert states(door.look(door.case("rows")))["provenance"] == "warned"
    less = door.answer(door.case("rows"), replace(some, licence="", host=""))
    assert states(door.resume(less))["provenance"] == "unmet"


def test_a_rejection_stays_whatever_is_said_next(door, tmp_path):
    record(door)
    case = take(door, tmp_path).case
    decide(door, case, refuse=True)
    changed = door.open(tmp_path / "rows.csv", asked(answers=replace(ANSWERS, licence="MIT")))
    decide(door, changed, role="risk-owner")
    assert states(door.resume(door.case("rows")))["approval"] == "unmet"


def test_the_newest_record_of_a_supplier_ends_all_older_ones(door, tmp_path, space):
    record(door, expires="300d")
    record(door, role="risk-owner", digests=("0" * 64,), expires="2d")
    assert door.suppliers.current("acme").allow.digests == ("0" * 64,)
    later = Intake(Workspace(space.folder, clock=lambda: utc_now() + timedelta(days=3)))
    assert later.suppliers.current("acme") is None, "the older one of somebody else does not come back"
    case = later.open(_file(tmp_path), asked())
    assert states(later.look(case))["supplier"] == "unmet"
    later.workspace.close()


def _file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(ROWS)
    return path


def test_a_declared_gate_adds_and_never_weakens():
    lax = Rule(id="approval", about="dataset", type="card")
    warned = Rule(id="approval", about="dataset", type="decision", kind="approval", severity="warn")
    strict = Rule(id="approval", about="dataset", type="decision", kind="approval", signers=2)
    for rule, kept in ((lax, True), (warned, True), (strict, False)):
        gate = policy.intake_gate("dataset", "rows", "acme", Gate(rule=(rule,)))
        ours = [each for each in gate.rule if each.id == "approval" and each.why.startswith("somebody answers")]
        assert bool(ours) is kept


# ---- cases and copies


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../outside"},
        {"name": "other"},
        {"digest": "0" * 64},
        {"kind": "model"},
        {"supplier": "a/../b"},
        {"signature": "../../../etc/passwd"},
        {"origin": {"layout": "file", "facts": {}}},
        {"origin": {"layout": "file", "facts": {"name": "../case.json"}}},
        {"origin": {"layout": "file", "facts": {"name": ".."}}},
    ],
)
def test_a_case_that_intake_did_not_write_is_refused(door, tmp_path, change):
    path = door.folder / take(door, tmp_path).case.id / wiring.CASE_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(InputError, match="not written by intake"):
        door.cases()


def test_a_state_that_was_written_by_hand_admits_nothing(door, tmp_path):
    record(door)
    case = take(door, tmp_path).case
    door._write(replace(case, state="admitted", admitted_to="admitted/rows"))
    (row,) = audit(door)
    assert row["lacking"] == ["approval", "what was let in at admitted/rows"]
    decide(door, case)
    done = door.resume(door.case("rows"))
    assert (done.case.admitted_to, door.is_in_place(done.case)) == ("admitted/rows/rows.csv", True)


def test_what_was_let_in_and_altered_is_told_and_not_admitted_again(door, tmp_path, space):
    case = admitted(door, tmp_path)
    place = space.folder / case.admitted_to
    place.chmod(0o600)
    place.write_bytes(ROWS + b"3,3,x\n")
    (row,) = audit(door)
    assert row["lacking"] == [f"what was let in at {case.admitted_to}"]
    with pytest.raises(ArtefactError, match="holds something else"):
        door.resume(door.case("rows"))


def test_what_was_let_in_and_then_rejected_stays_in_the_audit(door, tmp_path):
    decide(door, admitted(door, tmp_path), refuse=True)
    (row,) = audit(door)
    assert row["lacking"] == ["approval"]


def test_a_copy_that_looks_like_an_image_is_let_in_as_it_was_scanned(door, tmp_path, space):
    """Its layers must not be unpacked on the way in: nothing has scanned them like that."""
    layer = tarred(unseen=b"1,2\n")
    digest = hashlib.sha256(layer).hexdigest()
    manifest = json.dumps(
        {"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{digest}"}]}
    ).encode()
    inner = hashlib.sha256(manifest).hexdigest()
    members = {
        "oci-layout": b"{}",
        "index.json": json.dumps({"manifests": [{"digest": f"sha256:{inner}"}]}).encode(),
        f"blobs__sha256__{digest}": layer,
        f"blobs__sha256__{inner}": manifest,
    }
    outer = tarred(**members)
    root = tmp_path / "image"
    (root / "blobs/sha256").mkdir(parents=True)
    outside = json.dumps(
        {"layers": [{"mediaType": "application/x.tar+gzip", "digest": f"sha256:{digest_bytes(outer)}"}]}
    ).encode()
    (root / "blobs/sha256" / digest_bytes(outer)).write_bytes(outer)
    (root / "blobs/sha256" / digest_bytes(outside)).write_bytes(outside)
    (root / "oci-layout").write_text("{}")
    (root / "index.json").write_text(json.dumps({"manifests": [{"digest": f"sha256:{digest_bytes(outside)}"}]}))
    case = door.open(root, asked())
    target = space.folder / "admitted" / "rows"
    door._put(case, door.content(case), target)
    assert space.files.digest(target) == case.digest
    assert not (target / "unseen").exists()


def test_nothing_unjudged_is_left_where_admitted_things_lie(door, tmp_path, space):
    case = take(door, tmp_path).case
    target = space.folder / "admitted" / "rows"
    copy = door.content(case)
    copy.chmod(0o600)
    copy.write_bytes(b"other")
    with pytest.raises(ArtefactError, match="was altered"):
        door._put(case, copy, target)
    assert not list(target.parent.iterdir()) if target.parent.exists() else True


def test_another_file_under_the_same_name_does_not_join_the_first(door, tmp_path, space):
    first = admitted(door, tmp_path)
    other = ROWS + b"9,9,x\n"
    record(door, digests=(digest_bytes(other),))
    case = take(door, tmp_path, other, "more.csv").case
    decide(door, case)
    with pytest.raises(ArtefactError, match="holds something else"):
        door.resume(door.case(case.id))
    assert [path.name for path in (space.folder / first.admitted_to).parent.iterdir()] == ["rows.csv"]


def test_samples_that_demand_nothing_prove_nothing(door, space, tmp_path):
    with pytest.raises(InputError, match="no minimum"):
        samples.parse_minimum(("accuracy=0",))
    case = take(door, tmp_path).case
    for minimum in ({}, {"accuracy": 0.0}, {"recall": 0.9}):
        wanted = samples.Wanted(path=str(tmp_path / "rows.csv"), target="label", minimum=minimum)
        with pytest.raises(InputError, match="nothing is demanded"):
            samples.measure(space, door.artefact(case), wanted)


# ---- hostile sources

BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in LETTERS)
    + "run_id: *i\n",
    "merges": "a: &a {x: 1}\n"
    + "".join(f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n" for old, new in LETTERS),
    "deep": "[" * 1_000_000,
    "deep blocks": "- " * 1_000_000,
    "huge number": f"run_id: 0x{'f' * 10_000}\n",
    "date": "run_id: 2024-99-99\n",
    "tag": "run_id: !!python/object/apply:os.system [id]\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_hostile_description_of_a_run_costs_nothing(tmp_path, text):
    (tmp_path / "MLmodel").write_text(text)
    with within(1.5):
        try:
            facts = sources.identify(tmp_path).facts
        except ArtefactError:
            facts = {}
    assert all(len(value) <= 200 for value in facts.values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["manifests", "layers", "digest", "mediaType", "annotations", "schemaVersion"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
    place=st.sampled_from(["index.json", "manifest", "MLmodel"]),
)
def test_no_layout_makes_a_traceback(tmp_path, data, place):
    root = tmp_path / "image"
    shutil.rmtree(root, ignore_errors=True)
    (root / "blobs/sha256").mkdir(parents=True)
    if place == "MLmodel":
        (root / place).write_bytes(data)
    else:
        (root / "oci-layout").write_text("{}")
        index = json.dumps({"manifests": [{"digest": f"sha256:{digest_bytes(data)}"}]}).encode()
        (root / "blobs/sha256" / digest_bytes(data)).write_bytes(data)
        (root / "index.json").write_bytes(data if place == "index.json" else index)
    target = tmp_path / "copy"
    shutil.rmtree(target, ignore_errors=True)
    with contextlib.suppress(BartizanError):
        sources.copy(root, sources.identify(root), target)


@pytest.mark.parametrize("titles", [("a", "a"), ("a", "a/b"), (".", "b"), ("a\0b", "c"), ("x" * 300, "c")])
def test_layers_that_collide_are_refused_in_words(tmp_path, titles):
    root = tmp_path / "image"
    (root / "blobs/sha256").mkdir(parents=True)
    (root / "blobs/sha256" / digest_bytes(b"x")).write_bytes(b"x")
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": f"sha256:{digest_bytes(b'x')}",
            "annotations": {"org.opencontainers.image.title": title},
        }
        for title in titles
    ]
    manifest = json.dumps({"layers": layers}).encode()
    (root / "blobs/sha256" / digest_bytes(manifest)).write_bytes(manifest)
    (root / "oci-layout").write_text("{}")
    (root / "index.json").write_text(json.dumps({"manifests": [{"digest": f"sha256:{digest_bytes(manifest)}"}]}))
    with pytest.raises(ArtefactError):
        sources.copy(root, sources.identify(root), Path(tmp_path / "copy"))

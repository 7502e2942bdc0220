"""Networks in files of torch, opened in processes of their own."""

from __future__ import annotations

import io
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from bartizan.adapters.torch_host import Host, Question
from bartizan.core.errors import ArtefactError, SandboxError, WorkError
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.play import play
from bartizan.targets.hosting import Refusal
from bartizan.targets.isolated import Limits
from bartizan.targets.protocol import NEEDS_TARGETS, Access, Loss
from fixtures.declared import opened
from fixtures.digits_nets import CLASSES, SHAPE, attacked, digits, net, target

IMAGES = {"training": {"shape": SHAPE, "value_range": (0.0, 1.0)}}
FLOWERS, KINDS = load_iris(return_X_y=True)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def traced(module, rows):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, rows), file)
    return file.getvalue()


def scripted(module):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


def saved(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


class Noisy(nn.Module):
    def forward(self, rows):
        return rows[:, :3] + torch.rand(3)


class Endless(nn.Module):
    def forward(self, rows):
        while bool(rows.sum() < math.inf):
            rows = torch.sin(rows)
        return rows


class Pair(nn.Module):
    def forward(self, rows):
        return rows[:, :3], rows[:, 1:]


class Named(nn.Module):
    def forward(self, rows):
        return {"logits": rows[:, :3]}


class Rounded(nn.Module):
    def forward(self, rows):
        return torch.round(rows * 4)[:, :3]


class Nothing(nn.Module):
    def forward(self, rows):
        return rows[:, :3] * math.nan


class Reading(nn.Module):
    def forward(self, rows):
        return rows[:, :3] + torch.from_file("/etc/hostname", shared=False, size=1)


def asked(file, *, classes=3, features=4, shape=()):
    """The host in this process, and what it says."""
    host = Host()
    host.keep(Question(do="keep", bytes=len(file), data=bytearray(file)))
    load = Question(do="load", bytes=0, classes=classes, features=features, shape=shape)
    return host, host.load(load)["facts"]


def about(rows, **more):
    return Question(do="", bytes=0, data=bytearray(rows.astype("<f4").tobytes()), rows=len(rows), **more)


@pytest.fixture(scope="module", params=["script", "export"])
def network(request, tmp_path_factory):
    rows, labels = digits()
    if request.param == "script":
        file = scripted(net())
    else:
        some = torch.zeros(2, *SHAPE)
        program = torch.export.export(net(), (some,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        kept = io.BytesIO()
        torch.export.save(program, kept)
        file = kept.getvalue()
    with opened(tmp_path_factory.mktemp("network"), file, "torch", (rows[:200], labels[:200]), **IMAGES) as found:
        yield found, request.param


def test_a_network_answers_as_in_this_process(network):
    (found, kind), rows, here = network, digits()[0][:700], target()
    assert (found.classes, found.features, found.shape, found.dtype) == (CLASSES, 64, SHAPE, np.float32)
    offers = {Access.LABELS, Access.SCORES, Access.LOGITS, Access.GRADIENTS}
    assert found.offers == offers | ({Access.WEIGHTS} if kind == "export" else set())
    assert np.array_equal(found.labels(rows), here.labels(rows))
    assert np.allclose(found.scores(rows), here.scores(rows), atol=1e-6)
    assert np.allclose(found.logits(rows), here.logits(rows), atol=1e-5)
    assert found.logits(rows[:0]).shape == (0, CLASSES)
    if kind == "export":
        assert np.allclose(found.activations(rows), here.activations(rows), atol=1e-5)


def test_gradients_and_attacks_are_those_of_this_process(network):
    rows, labels = (array[:100] for array in digits())
    for loss in Loss:
        targets = (labels + 1) % CLASSES if loss in NEEDS_TARGETS else None
        ours, theirs = (where.gradients(rows, loss, labels, targets) for where in (network[0], target()))
        assert np.allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))
    ours, theirs = (play(where, PGD(), attacked(10), seed=1) for where in (network[0], target()))
    assert np.array_equal(ours.rows, theirs.rows)
    assert network[0].disagreement() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads of a process are counted by /proc")
def test_gradients_start_no_thread_for_a_device_that_is_not_there(network):
    network[0].gradients(digits()[0][:5], Loss.MARGIN, digits()[1][:5])
    process = network[0]._models.process._process
    names = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/comm")]
    assert names
    assert not [name for name in names if "autograd" in name]


def test_a_network_is_not_trained_again(network):
    with pytest.raises(WorkError, match="does not say how it was trained"):
        network[0].retrain(*(array[:5] for array in digits()), seed=0)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Identity()])
def test_probabilities_are_told_from_logits(last):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), last)
    host, facts = asked(traced(module, torch.zeros(2, 4)))
    expected = torch.softmax(module[0](torch.from_numpy(FLOWERS).float()), 1).detach().numpy()
    assert np.allclose(np.frombuffer(host.scores(about(FLOWERS))).reshape(-1, 3), expected, atol=1e-6)
    assert facts["gradients"]


def test_a_network_in_double_precision_is_given_that():
    module = nn.Linear(4, 3).double()
    host, _ = asked(traced(module, torch.zeros(2, 4).double()))
    expected = module(torch.from_numpy(FLOWERS)).detach().numpy()
    assert np.allclose(np.frombuffer(host.logits(about(FLOWERS)), "<f4").reshape(-1, 3), expected, atol=1e-5)


def test_images_may_be_given_flat_where_the_network_takes_them_so():
    host, facts = asked(traced(nn.Linear(8, 3), torch.zeros(2, 8)), features=8, shape=(2, 2, 2))
    assert facts["shape"] == (2, 2, 2)
    assert len(host.logits(about(np.ones((5, 8))))) == 5 * 3 * 4


def test_steps_without_slopes_are_named():
    host, facts = asked(traced(Rounded(), torch.zeros(2, 4)))
    assert (facts["gradients"], facts["lacks"]["gradients"]) == (False, "The step round stops gradients")
    assert asked(scripted(Named()))[1]["logits"]
    assert len(host.labels(about(FLOWERS))) == 150 * 8


def test_answers_that_are_no_numbers_are_refused():
    host, _ = asked(traced(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), torch.zeros(2, 4)))
    host.target.module.module = Nothing()
    for what in (host.labels, host.scores, host.logits):
        with pytest.raises(Refusal, match="something that is no number"):
            what(about(FLOWERS))


@pytest.mark.parametrize(
    ("file", "more", "fault"),
    [
        (b"", {}, "no archive of torch"),
        (b"PK\x03\x04" + bytes(100), {}, "no archive of torch"),
        (scripted(nn.Linear(4, 3))[:-200], {}, "no archive of torch"),
        (saved({"weight": torch.zeros(3, 4)}), {}, "weights without their network"),
        (scripted(nn.Linear(4, 3)), {"features": 5}, "does not take rows of 5 numbers"),
        (scripted(nn.Linear(4, 3)), {"classes": 2}, "answers 3 numbers for each row, and 2 classes"),
        (scripted(nn.Linear(4, 1)), {"classes": 2}, "answer two logits instead of one"),
        (scripted(Pair()), {}, "answers 2 things"),
        (scripted(nn.Flatten(0)), {}, r"answers a tensor \(64,\)"),
        (traced(Noisy(), torch.zeros(2, 4)), {}, "differently each time"),
    ],
)
def test_what_is_no_classifier_is_refused_with_the_reason(file, more, fault):
    with pytest.raises(Refusal, match=fault):
        asked(file, **more)


@pytest.mark.parametrize(
    ("module", "error", "fault"),
    [
        (Endless(), SandboxError, "gave no answer within"),
        (Reading(), ArtefactError, "unable to open file"),
    ],
    ids=["endless", "reading"],
)
def test_hostile_networks_end_in_time_and_say_why(tmp_path, module, error, fault):
    limits = Limits(start_seconds=9) if error is SandboxError else Limits()
    with (
        pytest.raises(error, match=fault),
        opened(tmp_path, scripted(module), "torch", (FLOWERS, KINDS), limits=limits) as found,
    ):
        found.labels(FLOWERS)

"""What the sequence guard costs, and how many natural queries it takes for parts of an attack.

``python benchmarks/sequence.py [--data MNIST] [--fashion FASHION] [--part cost] [--part alarms]``

Cost is processor time with a full memory, beside the bare product of a query with a table of as many rows, which is
what any exact search for the nearest costs. Alarms are counted on different natural queries, on repeats, on sorted
batches, and on streams as cameras send them, with and without an expectation learnt from other streams. Nothing that is
counted was learnt from.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from msgspec.structs import replace
from scipy import ndimage

import networks
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import SequenceGuard
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import learn
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import SequenceSettings
from bartizan.lifecycle.deploy.gateway.guards.sequence.streams import learn_stream
from bartizan.redteam.statistics import proportion
from common import promise, tell
from sequence_fronts import served

CALLER = Caller(id="key:one", role="user", method="key")
SURE = np.array([[0.9, *[0.1 / 9] * 9]])
FRAMES = 60
"""Frames that a camera looks at one thing."""


def microseconds(work, repeats):
    """Processor time of one of so many calls."""
    began = time.process_time()
    for place in range(repeats):
        work(place)
    return (time.process_time() - began) / repeats * 1e6


def asked(rows, number):
    return Asked(request=f"r{number}", caller=CALLER, model="m", digest="d", rows=rows, now=1e9 + number)


def filled(features, shape, rng):
    """A guard whose memory is full, and rows that it has not seen."""
    rows = rng.uniform(0, 1, (26_000, features)).astype(np.float32)
    guard = SequenceGuard(SequenceSettings(), learn(rows[:1000], shape=shape, value_range=(0, 1)))
    for begin in range(1000, 21_000, 500):
        guard.on_request(asked(rows[begin : begin + 500], -begin))
    return guard, rows[21_000:]


def cost():
    """Microseconds for one row, for each row of a batch, and for a photograph."""
    rng = np.random.default_rng(0)
    guard, rows = filled(64, (1, 8, 8), rng)
    answer, table = Answer(np.zeros(1, np.int64), SURE), rng.uniform(0, 1, (64, 20_000)).astype(np.float32)
    queries = [asked(rows[place : place + 1], place) for place in range(2000)]

    def one(place):
        guard.on_request(queries[place])
        guard.on_response(queries[place], answer)

    single = microseconds(one, 2000)
    bare = microseconds(lambda place: (rows[place] @ table).argmax(), 2000)
    many = [asked(rows[2000 + 32 * place : 2032 + 32 * place], 10_000 + place) for place in range(80)]
    answers = Answer(np.zeros(32, np.int64), np.repeat(SURE, 32, axis=0))

    def batch(place):
        guard.on_request(many[place])
        guard.on_response(many[place], answers)

    each = microseconds(batch, 80) / 32
    photographs = rng.uniform(0, 1, (140, 3 * 224 * 224)).astype(np.float32)
    large = SequenceGuard(SequenceSettings(), learn(photographs[:80], shape=(3, 224, 224), value_range=(0, 1)))
    pictures = microseconds(lambda place: large.on_request(asked(photographs[80 + place : 81 + place], place)), 60)
    tell("bare product with 20,000 rows of 64, nearest of them", bare, "us")
    tell("sequence: one row of 64, 20,000 remembered", single, "us")
    tell("sequence: each row of a batch of 32", each, "us")
    tell("sequence: 3 x 224 x 224", pictures, "us")
    kept = promise("sequence: one row, over the bare product", single / bare, 0.7)
    kept &= promise("sequence: each row of a batch, over the bare product", each / bare, 0.5)
    return kept & promise("sequence: 3 x 224 x 224, over the bare product", pictures / bare, 5.0)


class World:
    """Natural images, a network that answers to them, and a reference."""

    def __init__(self, name, path):
        train, _, rows, _ = networks.images(path)
        self.name, self.net = name, getattr(networks, f"{name}_std")(path)
        self.rng = np.random.default_rng(0)
        self.reference = learn(rows[:3000], shape=(1, 28, 28), value_range=(0, 1), scores=self.scores(rows[:3000]))
        self.rows = np.concatenate([train, rows[3000:]])
        self.limit = self.reference.limit(SequenceSettings().near)

    def scores(self, rows):
        """What the network answers, ``(batch, 10)``."""
        with torch.no_grad():
            images = torch.from_numpy(np.array(rows, np.float32)).view(-1, 1, 28, 28)
            return np.concatenate([torch.softmax(self.net(part), 1).numpy() for part in images.split(512)])

    def sent(self, guard, rows, *, account, role="user"):
        """How many of some rows are not just answered."""
        found = 0
        for place, (row, score) in enumerate(zip(rows, self.scores(rows), strict=True)):
            found += served(guard, row, score, account(place), number=place, role=role)
        return found

    def guard(self, settings, **more):
        """A guard with nothing in its memory."""
        return SequenceGuard(settings, replace(self.reference, **more) if more else self.reference)

    def stream(self, count, *, moving, rng):
        """A camera: noise of its sensor, light that changes slowly, and things that move or stand still."""
        frames = np.empty((count, 784), np.float32)
        for begin in range(0, count, FRAMES):
            image, light = self.rows[rng.integers(len(self.rows))].reshape(28, 28), 1.0
            velocity = rng.uniform(-0.15, 0.15, 2) * moving
            for place in range(begin, min(count, begin + FRAMES)):
                light = np.clip(light + 0.01 * rng.standard_normal(), 0.7, 1.2)
                seen = ndimage.shift(image, velocity * (place - begin), order=1) if moving else image
                frames[place] = np.clip(light * seen.ravel() + 0.02 * rng.standard_normal(784), 0, 1)
        return frames


def told(label, found, count):
    share = proportion(found, count)
    tell(label, 100 * share.value, "%", f"[{100 * share.interval.low:.3f}, {100 * share.interval.high:.3f}] of {count}")
    return share.value


def alarms(world):
    """Shares of natural queries that are not just answered, by kind and by setting."""
    rng, kept, usual = np.random.default_rng(1), True, SequenceSettings()
    distinct = world.rows[rng.permutation(len(world.rows))]
    for near in (0.002, 0.006, 0.02, 0.05):
        guard = world.guard(SequenceSettings(near=near))
        found = world.sent(guard, distinct[:40_000], account=lambda place: f"key:{place % 300}")
        told(f"{world.name}: near {near:g}, different images", found, 40_000)
    guard = world.guard(usual)
    found = world.sent(guard, distinct, account=lambda place: f"key:{place % 300}")
    share = told(f"{world.name}: different images, all of them", found, len(distinct))
    kept &= promise(f"{world.name}: different natural queries", 100 * share, 0.1, "%")
    repeats = distinct[rng.integers(0, 2000, 10_000)]
    told(f"{world.name}: retries", world.sent(world.guard(usual), repeats, account=lambda _: "key:one"), len(repeats))
    some = distinct[:5000]
    ordered = some[np.argsort(some @ rng.standard_normal(784))]
    told(
        f"{world.name}: a job of sorted rows",
        world.sent(world.guard(usual), ordered, account=lambda _: "key:one"),
        5000,
    )
    return kept & streams(world, usual)


def streams(world, usual):
    """The same on streams, of a role that is not known to send any and of one whose streams were recorded."""
    kept, rng = True, np.random.default_rng(2)
    for kind, moving in (("standing", 0.0), ("moving", 1.0)):
        recorded = [world.stream(6000, moving=moving, rng=rng) for _ in range(2)]
        expected = learn_stream(
            world.reference, world.limit, usual.memory, [(rows, world.scores(rows).argmax(axis=1)) for rows in recorded]
        )
        new = world.stream(12_000, moving=moving, rng=rng)
        without, learnt = world.guard(usual), world.guard(usual, expected={"camera": expected})
        found = world.sent(without, new[:2000], account=lambda _: "key:camera", role="camera")
        told(f"{world.name}: camera, {kind}, nothing learnt", found, 2000)
        found = world.sent(learnt, new, account=lambda _: "key:camera", role="camera")
        share = told(f"{world.name}: camera, {kind}, learnt", found, len(new))
        kept &= promise(f"{world.name}: camera, {kind}, learnt", 100 * share, 1.0, "%")
    return kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--fashion")
    parser.add_argument("--part", action="append", choices=["cost", "alarms"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts, kept = given.part or ["cost", "alarms"], True
    if "cost" in parts:
        kept &= cost()
    for name, path in (("mnist", given.data), ("fashion", given.fashion)):
        if path and "alarms" in parts:
            kept &= alarms(World(name, path))
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())

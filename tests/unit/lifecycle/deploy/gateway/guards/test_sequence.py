"""The sequence guard by itself: what is close, what counts, whom it meets, and what is forgotten."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError, InputError, StoreError
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS, Caller
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Column, Material
from bartizan.lifecycle.deploy.gateway.guards.sequence.encoder import Encoder, Pooling
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import MAKER, OPEN, SequenceGuard
from bartizan.lifecycle.deploy.gateway.guards.sequence.memory import Memory
from bartizan.lifecycle.deploy.gateway.guards.sequence.news import News, Sharing
from bartizan.lifecycle.deploy.gateway.guards.sequence.places import Account, Place
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import dimensions_of, learn, read_reference
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import SequenceSettings
from bartizan.lifecycle.deploy.gateway.guards.sequence.streams import learn_stream
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.play import play
from fixtures.digits_nets import attacked, digits, target

SETTINGS = SequenceSettings(memory=1000)
NOW = 1_700_000_000.0
SURE = np.array([[0.9, *[0.1 / 9] * 9]])


@pytest.fixture(scope="module")
def reference():
    rows, _ = digits()
    return learn(rows[1000:1400], shape=(1, 8, 8), value_range=(0, 1), scores=target().scores(rows[1000:1400]))


@pytest.fixture(scope="module")
def natural():
    """Rows that the reference is not made from."""
    return digits()[0][:1000]


class Asking:
    """Sends rows to a guard and says what came of it."""

    def __init__(self, guard):
        self.guard, self.now, self.number = guard, NOW, 0

    def __call__(self, rows, who="key:one", *, role="user", label=0, scores=SURE, seconds=1.0):
        rows = np.atleast_2d(np.float32(rows))
        self.now += seconds
        self.number += 1
        caller = who if isinstance(who, Caller) else Caller(id=who, role=role, method="key")
        asked = Asked(
            request=str(self.number), caller=caller, model="m", digest=digest_bytes(b""), rows=rows, now=self.now
        )
        said = self.guard.on_request(asked)
        scores = None if scores is None else np.repeat(scores, len(rows), axis=0)
        after = self.guard.on_response(asked, Answer(np.full(len(rows), label), scores))
        return max(each.action if each else Action.ALLOW for each in (said, after))


@pytest.fixture
def ask(reference):
    return Asking(SequenceGuard(SETTINGS, reference))


def around(row, count, size=0.01, seed=0):
    """Rows a little off one."""
    return np.float32(row + size * np.random.default_rng(seed).standard_normal((count, len(row))))


def test_a_search_around_one_row_is_led_down_step_by_step(ask, natural):
    said = [ask(row) for row in around(natural[0], 14)]

    assert said[:5] == [Action.ALLOW] * 5
    assert said[5] == Action.COARSEN
    assert Action.HOLD in said
    assert said[-1] == Action.REFUSE
    assert ask(natural[500]) == Action.REFUSE
    assert ask(natural[500], "key:other") == Action.ALLOW


def test_natural_rows_are_answered(ask, natural):
    said = [ask(row, f"key:{place % 10}") for place, row in enumerate(natural)]

    assert sum(action > Action.ALLOW for action in said) <= 1


def test_an_exact_repeat_counts_nothing(ask, natural):
    assert {ask(natural[0]) for _ in range(50)} == {Action.ALLOW}


def test_what_was_refused_is_not_answered_when_it_is_asked_again(ask, natural):
    rows = around(natural[0], 20)
    for row in rows[:19]:
        ask(row, "key:one")
    guard, last = ask.guard, rows[19]
    asked = Asked(
        request="refused",
        caller=Caller(id="key:two", role="user", method="key"),
        model="m",
        digest=digest_bytes(b""),
        rows=last[None],
        now=ask.now,
    )
    assert guard.on_request(asked).action == Action.REFUSE

    assert guard.on_request(asked).action == Action.REFUSE
    assert ask(rows[0], "key:three") == Action.COARSEN


def test_a_new_account_for_every_query_does_not_help(ask, natural):
    said = [ask(row, f"key:{place}") for place, row in enumerate(around(natural[0], 20))]

    assert said[6] >= Action.COARSEN
    assert said[-1] == Action.REFUSE
    assert ask(natural[500], "key:19") == Action.ALLOW


def test_nobody_in_particular_is_met_at_the_place_alone(ask, natural):
    said = [ask(row, ANONYMOUS) for row in around(natural[0], 20)]

    assert said[-1] == Action.REFUSE
    assert ask(natural[500], ANONYMOUS) == Action.ALLOW


def test_a_place_leads_no_further_than_it_may(reference, natural):
    guard = SequenceGuard(msgspec.structs.replace(SETTINGS, place_limit="coarsen"), reference)
    ask = Asking(guard)

    said = [ask(row, f"key:{place}") for place, row in enumerate(around(natural[0], 30))]

    assert max(said) == Action.COARSEN


def test_another_answer_nearby_counts_twice(reference, natural):
    same, other = (Asking(SequenceGuard(SETTINGS, reference)) for _ in range(2))
    rows = around(natural[0], 12)

    alike = [same(row, label=0) for row in rows]
    turned = [other(row, label=place % 2) for place, row in enumerate(rows)]

    assert next(i for i, a in enumerate(turned) if a) < next(i for i, a in enumerate(alike) if a)


def test_one_query_an_hour_among_others_still_counts(reference, natural):
    guard = SequenceGuard(SETTINGS, reference)
    ask, said = Asking(guard), []
    for place, row in enumerate(around(natural[0], 20)):
        for one in range(20):
            ask(natural[1 + (20 * place + one) % 900], f"key:other{one}")
        said.append(ask(row, f"key:patient{place}", seconds=3600))

    assert said[-1] == Action.REFUSE


def test_points_fade_with_time(ask, natural):
    for row in around(natural[0], 30):
        ask(row)
    assert ask(natural[500]) == Action.REFUSE

    assert ask(natural[501], seconds=14 * 86_400) == Action.ALLOW


def test_a_clock_that_goes_backwards_forgives_nothing(ask, natural):
    for row in around(natural[0], 30):
        ask(row)

    assert ask(natural[500], seconds=-86_400) == Action.REFUSE


def test_who_is_throttled_is_answered_by_the_label_when_the_time_has_come(reference, natural):
    guard = SequenceGuard(msgspec.structs.replace(SETTINGS, hold=100, refuse=100), reference)
    ask = Asking(guard)
    for row in around(natural[0], 12):
        said = ask(row)
    assert said == Action.THROTTLE

    assert ask(natural[500], seconds=86_400 / 8) == Action.COARSEN
    assert ask(natural[501]) == Action.THROTTLE


def test_rows_of_one_request_count_against_one_another(ask, natural):
    assert ask(around(natural[0], 40)) == Action.REFUSE
    assert ask(natural[300:340], "key:other") == Action.ALLOW


def test_a_batch_counts_as_its_rows_would(reference, natural):
    rows = np.concatenate([natural[:20], around(natural[3], 5), natural[40:60]])
    one, many = (SequenceGuard(SETTINGS, reference) for _ in range(2))
    ask = Asking(one)
    for row in rows:
        ask(row)
    Asking(many)(rows)

    places = [sorted(place.hits for place in set(filter(None, guard.memory.homes))) for guard in (one, many)]
    assert places[0] == places[1]
    assert sum(places[0]) >= 5


def asked_of(rows, number, *, who="key:one", role="user"):
    caller = Caller(id=who, role=role, method="key")
    rows = np.atleast_2d(np.float32(rows))
    return Asked(
        request=str(number), caller=caller, model="m", digest=digest_bytes(b""), rows=rows, now=NOW + number / 10
    )


def crowd(natural, seed, count=160):
    """Requests of several callers: usual rows, searches around two of them, repeats, and rows beyond all measure."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        match rng.integers(6):
            case 0 | 1:
                row = around(natural[rng.integers(2)], 1, seed=1000 * seed + number)[0]
            case 2 if made:
                row = made[rng.integers(len(made))][0]
            case 3 if number % 5 == 0:
                row = np.full(64, 1e30, np.float32)
            case _:
                row = natural[rng.integers(len(natural))]
        made.append((np.float32(row), f"key:{rng.integers(3)}", int(rng.integers(2))))
    return made


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("memory", [1000, 100])
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("seed", range(3))
def test_a_company_counts_as_its_requests_would_one_after_the_other(reference, natural, memory, turn, seed):
    one, many = (SequenceGuard(msgspec.structs.replace(SETTINGS, memory=memory), reference) for _ in range(2))
    made, rng, said = crowd(natural, seed), np.random.default_rng(seed), ([], [])

    def word(guard, asked, label, into):
        before = guard.on_request(asked)
        after = None
        if before is None or before.action < Action.THROTTLE:
            after = guard.on_response(asked, Answer(np.array([label]), SURE))
        into.append([each and (each.action, round(each.measures.get("points", 0), 3)) for each in (before, after)])

    for number, (row, who, label) in enumerate(made):
        word(one, asked_of(row, number, who=who), label, said[0])
    number = 0
    while number < len(made):
        company = [
            asked_of(row, number + place, who=who)
            for place, (row, who, _) in enumerate(made[number : number + 1 + rng.integers(20)])
        ]
        # those that look first need not have come first
        ahead = many.foresee(np.concatenate([each.rows for each in company])[::turn])[::turn]
        for place, each in enumerate(company):
            if rng.integers(8):  # the others come between, by themselves
                each.foreseen = {"sequence": ahead[place]}
            word(many, each, made[number + place][2], said[1])
        number += len(company)

    assert said[1] == said[0]
    hits = [sorted(place.hits for place in set(filter(None, guard.memory.homes))) for guard in (one, many)]
    assert hits[0] == hits[1]
    assert one.memory.version == many.memory.version


def test_what_was_worked_out_of_another_row_is_not_used(reference, natural):
    guard = SequenceGuard(SETTINGS, reference)
    asked = asked_of(natural[0], 1)
    asked.foreseen = {"sequence": guard.foresee(np.float32(natural[:2]))[1]}
    asked.rows = np.float32(natural[5:6])  # a guard before this one has changed it
    guard.on_request(asked)
    guard.on_request(asked_of(natural[5], 2))
    assert guard.memory.version == 1


def test_answers_near_the_boundary_are_told_together_as_one_by_one(reference, natural):
    one, many = (SequenceGuard(SETTINGS, reference) for _ in range(2))
    rng = np.random.default_rng(3)
    highest = rng.uniform(0.5, 0.5 + 2 * reference.edge, 40)
    scores = np.column_stack([highest, 1 - highest])
    scores[::7] = np.nan
    told = many.foretell(scores.argmax(axis=1), scores)
    assert told == [None] * 40
    whole = np.where(np.isnan(scores), 0.5, scores)
    told = many.foretell(whole.argmax(axis=1), whole)
    for number, score in enumerate(whole):
        for guard in (one, many):
            asked, answer = asked_of(natural[number], number), Answer(np.array([0]), score[None])
            guard.on_request(asked)
            if guard is many:
                answer.tell_ahead({"sequence": told}, number)
            guard.on_response(asked, answer)
    edges = [next(iter(guard._accounts.values())).edge.points for guard in (one, many)]
    assert edges[0] == edges[1] > 0


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("count", [1, 3])
def test_what_cannot_be_compared_is_refused_and_not_remembered(ask, natural, odd, count):
    rows = natural[:count].copy()
    rows[-1, 5] = odd

    with np.errstate(all="ignore"):
        assert ask(rows) == Action.REFUSE

    assert np.isfinite(ask.guard.memory.table).all()
    assert [ask(row) for row in around(natural[100], 20)][-1] == Action.REFUSE


def test_many_rows_at_once_need_little_memory(ask, natural):
    rows = np.concatenate([natural, natural * 0.9])

    ask(rows)

    assert len(ask.guard.memory.slots) <= ask.guard.memory.size


def test_unnatural_rows_step_down_their_account(ask, natural):
    noise = np.random.default_rng(0).uniform(0, 1, (40, 64))

    said = [ask(row) for row in noise]

    assert max(said) in {Action.COARSEN, Action.THROTTLE}
    assert said[-1] >= Action.COARSEN
    assert ask(natural[0], "key:other") == Action.ALLOW


def test_rows_along_the_boundary_step_down_their_account(ask, natural):
    close = np.array([[0.5, 0.499, *[0.001 / 8] * 8]])

    said = [ask(row, scores=close) for row in natural[:30]]

    assert said[-1] >= Action.COARSEN


def test_rows_that_the_model_was_trained_on_step_down_whoever_asks_about_many(natural):
    rows, _ = digits()
    reference = learn(rows[1000:1400], shape=(1, 8, 8), value_range=(0, 1), trained_on=rows[:1000])
    ask = Asking(SequenceGuard(SETTINGS, reference))

    assert [ask(row, "key:guest") for row in rows[1400:1440]] == [Action.ALLOW] * 40
    assert [ask(row) for row in natural[:40]][-1] >= Action.COARSEN
    assert reference.known_usual == 0


def test_a_real_attack_is_noticed_long_before_it_succeeds(reference):
    guard = SequenceGuard(SETTINGS, reference)
    for row in digits()[0][1400:]:
        Asking(guard)(row, "key:user")
    task = attacked(1, norm=2, eps=0.5, owned=100, budget=400)
    seen = []

    class Watched:
        name, features, classes, class_values = "model:watched", 64, 10, ()

        def __init__(self):
            self.target, self.ask = target(), Asking(guard)
            self.offers = self.target.offers

        def labels(self, rows):
            answers = self.target.labels(rows)
            seen.extend(self.ask(row, label=int(label)) for row, label in zip(rows, answers, strict=True))
            return answers

    play(Watched(), HopSkipJump(), task)

    assert len(seen) > 200
    assert next(place for place, action in enumerate(seen) if action) < 40
    assert np.mean(np.array(seen[60:]) == Action.REFUSE) > 0.95


# --- streams


def frames(base, count, seed, noise=0.02):
    """A camera that looks at one thing after another for a while: noise of the sensor, and slow drift."""
    rng = np.random.default_rng(seed)
    for begin in range(0, count, 50):
        scene, light = base[rng.integers(len(base))], 1.0
        for _ in range(min(50, count - begin)):
            light = np.clip(light + 0.01 * rng.standard_normal(), 0.8, 1.2)
            yield np.clip(light * scene + noise * rng.standard_normal(64), 0, 1).astype(np.float32)


def test_a_learnt_stream_is_answered_and_an_attack_in_its_role_is_not(reference, natural):
    recorded = np.array(list(frames(natural[:300], 3000, seed=1)))
    answers = target().labels(recorded)
    limit = reference.limit(SETTINGS.near)
    expected = learn_stream(reference, limit, SETTINGS.memory, [(recorded, answers)])
    guard = SequenceGuard(SETTINGS, msgspec.structs.replace(reference, expected={"camera": expected}))
    ask = Asking(guard)

    new = np.array(list(frames(natural[300:], 2000, seed=2)))
    labels = target().labels(new)
    said = [ask(row, role="camera", label=label, scores=None) for row, label in zip(new, labels, strict=True)]
    assert np.mean(np.array(said) > Action.ALLOW) <= 0.01

    plain = Asking(SequenceGuard(SETTINGS, reference))
    assert np.mean([plain(row, scores=None) > Action.ALLOW for row in new[:300]]) > 0.5

    walk = [
        ask(row, "key:attacker", role="camera", label=place % 2) for place, row in enumerate(around(natural[0], 60))
    ]
    assert walk[-1] == Action.REFUSE


def test_too_short_a_recording_teaches_nothing(reference, natural):
    with pytest.raises(InputError, match="too few to learn"):
        learn_stream(reference, 0.3, 1000, [(natural[:100], np.zeros(100, np.int64))])


def test_frames_of_another_model_are_refused(reference):
    with pytest.raises(ArtefactError, match="do not fit"):
        learn_stream(reference, 0.3, 1000, [(np.zeros((300, 7), np.float32), np.zeros(300, np.int64))])


# --- memory


def test_memory_is_bounded_and_finds_what_is_still_there(reference, natural):
    ask = Asking(SequenceGuard(msgspec.structs.replace(SETTINGS, memory=500, accounts=100), reference))
    rng = np.random.default_rng(0)
    for place in range(3000):
        ask(np.clip(natural[rng.integers(1000)] + 0.3 * rng.standard_normal(64), 0, 1), f"key:{place}")
    memory, guard = ask.guard.memory, ask.guard

    assert len(memory.slots) <= memory.size == 500
    assert len(guard._accounts) <= 100
    for key, slot in memory.slots.items():
        assert memory.keys[slot] == key


def test_requests_that_are_never_answered_are_forgotten(ask, natural):
    for number in range(OPEN + 50):
        row = natural[number % 1000][None]
        caller = Caller(id="key:x", role="user", method="key")
        ask.guard.on_request(
            Asked(request=f"r{number}", caller=caller, model="m", digest=digest_bytes(b""), rows=row, now=NOW)
        )

    assert len(ask.guard._open) <= OPEN


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_memory_gives_the_nearest(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    count = data.draw(st.integers(1, 60))
    memory, rows = Memory(100, 4), rng.standard_normal((count, 4)).astype(np.float32)
    for key, row in enumerate(rows, start=1):
        memory.add(key, np.append(row, np.float32(1)), float(row @ row), None)
    query = rng.standard_normal(4).astype(np.float32)

    slot, product = memory.nearest(np.append(query, np.float32(1)))

    squared = ((rows - query) ** 2).sum(axis=1)
    assert squared[memory.keys[slot] - 1] == pytest.approx(squared.min(), abs=1e-4)
    assert query @ query - 2 * product == pytest.approx(squared.min(), abs=1e-4)


def test_places_give_way_to_stronger_ones():
    memory = Memory(500, 4)
    hot = Place(0, 1e9, 0.0)
    hot.add(50, 0.0)
    memory.settle(hot, np.ones(5, np.float32), 4.0, 0, 0.0)
    for number in range(1, 2000):
        weak = Place(number, 1e9, 0.0)
        weak.add(1, 0.0)
        memory.settle(weak, np.full(5, number, np.float32), 1.0, 0, 0.0)

    assert hot.slot >= 0
    assert memory.homes[hot.slot] is hot


# --- the short form


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_the_short_form_lengthens_no_difference(reference_of_digits, seed):
    rng = np.random.default_rng(seed)
    one, two = rng.uniform(0, 1, (2, 64)).astype(np.float32)
    encoder = Encoder(reference_of_digits.encoding)

    short = encoder.many(np.stack([one, two]))

    assert np.linalg.norm(short[0] - short[1]) <= np.linalg.norm(one - two) + 1e-5


@pytest.fixture(scope="module")
def reference_of_digits(reference):
    return reference


def test_large_images_are_averaged_without_lengthening_a_difference():
    rng = np.random.default_rng(0)
    pool = Pooling((3, 70, 101))
    one, two = rng.uniform(0, 1, (2, 3 * 70 * 101)).astype(np.float32)

    assert pool(one).shape == (pool.features,)
    assert np.linalg.norm(pool(one) - pool(two)) <= np.linalg.norm(one - two)
    assert pool(np.ones_like(one)).max() == pytest.approx(pool(np.ones_like(one)).mean(), rel=0.3)


def test_large_images_are_compared_too():
    rng = np.random.default_rng(0)
    smooth = rng.uniform(0, 1, (80, 3, 8, 8)).repeat(10, 2).repeat(10, 3).reshape(80, -1).astype(np.float32)
    ask = Asking(SequenceGuard(SETTINGS, learn(smooth[:70], shape=(3, 80, 80))))

    assert [ask(row) for row in around(smooth[75], 14)][-1] == Action.REFUSE
    assert ask(smooth[76], "key:other") == Action.ALLOW


# --- what it is made from


def report_of(reference):
    return msgspec.json.encode({"reference": reference})


def test_a_reference_survives_its_report(reference):
    assert read_reference(report_of(reference)) == reference


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"{}",
        lambda reference: report_of(msgspec.structs.replace(reference, spacing=b"")),
        lambda reference: report_of(msgspec.structs.replace(reference, dimension=b"")),
        lambda reference: report_of(msgspec.structs.replace(reference, rows=reference.rows[:-4])),
    ],
)
def test_a_broken_report_is_refused(reference, change):
    with pytest.raises(ArtefactError):
        read_reference(change(reference))


def test_the_guard_is_made_from_the_report_of_its_check(reference):
    material = Material(
        model="m",
        digest=digest_bytes(b""),
        classes=tuple("0123456789"),
        columns=tuple(Column(name=str(place)) for place in range(64)),
        fitted=lambda check: {"gateway.sequence": report_of(reference)}[check],
        state=Everybody(),
    )

    assert isinstance(MAKER(SETTINGS, material), SequenceGuard)
    with pytest.raises(ArtefactError, match="64 features"):
        MAKER(SETTINGS, msgspec.structs.replace(material, columns=material.columns[:3]))


@pytest.mark.parametrize("rows", [np.zeros((10, 4)), np.full((100, 4), np.nan), np.ones((100, 4)), np.zeros(100)])
def test_too_little_to_learn_from_is_said(rows):
    with pytest.raises(InputError):
        learn(rows)


def test_steps_have_to_rise():
    with pytest.raises(InputError, match="do not rise"):
        SequenceSettings(coarsen=9, throttle=5)


def test_the_dimension_of_a_plane_is_two():
    rng = np.random.default_rng(0)
    rows = rng.uniform(size=(1500, 2))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(apart, np.inf)

    assert np.median(dimensions_of(apart)) == pytest.approx(2, abs=0.3)


# --- replicas


class Everybody:
    """What replicas share, in one process."""

    def __init__(self, *, broken=False):
        self.heard, self.broken = [], broken

    async def publish(self, topic, news):
        if self.broken:
            raise StoreError("gone")
        for name, heard in self.heard:
            if name == topic:
                heard(news)

    def subscribe(self, topic, heard):
        self.heard.append((topic, heard))


def test_replicas_count_together(reference, natural):
    first, second = Everybody(), Everybody()
    one = SequenceGuard(SETTINGS, reference, sharing=Sharing(first, "t"))
    two = SequenceGuard(SETTINGS, reference, sharing=Sharing(second, "t"))
    first.heard, second.heard = second.heard, first.heard  # each hears the other, not itself
    asks = [Asking(one), Asking(two)]

    async def attack():
        said = []
        for place, row in enumerate(around(natural[0], 20)):
            said.append(asks[place % 2](row, f"key:{place}"))
            await asyncio.sleep(0)
        return said

    said = asyncio.run(attack())
    assert said[-1] == Action.REFUSE
    assert next(place for place, action in enumerate(said) if action) <= 10


def test_news_that_makes_no_sense_is_passed_over(reference):
    state = Everybody()
    guard = SequenceGuard(SETTINGS, reference, sharing=Sharing(state, "t"))
    width = guard.encoder.width
    hostile = [
        b"",
        b"\xff" * 100,
        msgspec.msgpack.encode(News(b"short", "a", NOW)),
        msgspec.msgpack.encode(News(np.full(width, np.nan, "<f4").tobytes(), "a", NOW)),
        msgspec.msgpack.encode(News(np.zeros(width, "<f4").tobytes(), "a" * 10_000, NOW)),
        msgspec.msgpack.encode(News(np.zeros(width, "<f4").tobytes(), "a", float("inf"))),
    ]
    for news in hostile:
        asyncio.run(state.publish("t", news))

    assert guard.places == 0


def test_a_store_that_is_gone_stops_nothing(reference, natural):
    ask = Asking(SequenceGuard(SETTINGS, reference, sharing=Sharing(Everybody(broken=True), "t")))

    async def attack():
        for row in around(natural[0], 20):
            said = ask(row)
            await asyncio.sleep(0)
        return said

    assert asyncio.run(attack()) == Action.REFUSE


def test_an_account_fades():
    account = Account(3600.0, 0.0)
    account.near.points = 8.0
    account.fade(3600.0)

    assert account.near.points == pytest.approx(4.0)

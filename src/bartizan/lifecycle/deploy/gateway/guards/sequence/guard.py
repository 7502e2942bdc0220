"""The guard: every query is compared with what is remembered, counted by account and place, and answered accordingly.

Two kinds of evidence lead to the ladder of steps. A query close to an earlier one that is not the same counts a point
against its account and against the place where it lies, whoever asked the earlier one; another answer than the earlier
one counts one more, for that is what a search along the boundary is after. Points of places fade over weeks, so that
neither many accounts nor patience wash them out. Slower signs count against the account alone: unnatural rows,
rows near the boundary, rows that the model was trained on. Exact repeats tell nothing new and count nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Material, Numbers, Verdict
from bartizan.lifecycle.deploy.gateway.guards.sequence.encoder import Encoder, Floats
from bartizan.lifecycle.deploy.gateway.guards.sequence.ladder import LABELS_ONLY, ORDER, Ladder
from bartizan.lifecycle.deploy.gateway.guards.sequence.memory import Memory
from bartizan.lifecycle.deploy.gateway.guards.sequence.news import News, Sharing
from bartizan.lifecycle.deploy.gateway.guards.sequence.places import Account, Place
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import (
    EDGE,
    STRANGE,
    Expectation,
    Reference,
    Spacing,
    crc_of,
    read_reference,
    spacing_of,
)
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import SequenceSettings
from bartizan.lifecycle.deploy.gateway.guards.sequence.streams import FALL

CHECK = "gateway.sequence"
"""Whose report the guard is made from."""
OPEN = 4_096
"""Requests that may be on their way at the same time; what came before is no longer compared with its answer."""
TOGETHER = 256
"""Rows of one request that are compared with one another at a time."""
LARGEST = 1e20
"""Squared length in short above which a row is none: beside it, no other could be told from another."""
DAY, HOUR = 86_400.0, 3_600.0
KNOWN_LEAST = 0.005
"""Share of honest queries about rows that the model was trained on, at least: people do ask about themselves."""


class Seen:
    """One row of a request that is on its way."""

    __slots__ = ("answered", "close", "expected", "near", "place", "slot")

    def __init__(
        self, slot: int, near: int, place: Place | None, *, answered: bool = False, expected: bool = False
    ) -> None:
        self.expected = expected
        """It is part of a stream of a role that sends streams."""
        self.slot, self.near, self.place = slot, near, place
        """Position in the memory, that of the earlier query it is close to (or -1), and the place of both."""
        self.answered = answered
        """It repeats a row that was answered."""
        self.close = near >= 0


class SequenceGuard:
    """See the module, and ``Guard``."""

    name = "sequence"
    cost = 35.0

    def __init__(self, settings: SequenceSettings, reference: Reference, *, sharing: Sharing | None = None) -> None:
        """``sharing`` tells other replicas and hears from them; None: this one is alone."""
        self.settings, self.reference = settings, reference
        self.encoder = Encoder(reference.encoding)
        self.spacing = spacing_of(reference, settings.memory)
        self.wants_scores = self.foretells = reference.edge > 0
        self.memory = Memory(settings.memory, self.encoder.width)
        self.ladder = Ladder(settings)
        self.limit = reference.limit(settings.near)
        """Distance, in units of the local spacing, below which two queries are close."""
        self.places = 0
        self._known = frozenset(np.frombuffer(reference.known, "<u4").tolist())
        self._falls = (
            FALL * settings.near,
            FALL * (1 - STRANGE),
            FALL * EDGE,
            FALL * max(reference.known_usual, KNOWN_LEAST),
        )
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._open: OrderedDict[str, list[Seen]] = OrderedDict()
        self._sharing = sharing
        if sharing is not None:
            sharing.listen(self._hear)

    def on_request(self, asked: Asked) -> Verdict | None:
        """See ``Guard.on_request``."""
        account = self._account(asked.caller, asked.now)
        ahead: _Ahead | None = asked.ahead(self.name)
        rows = asked.rows if ahead is not None else self.encoder.left(asked.rows)
        if ahead is not None:
            found = self._foreseen(asked, account, ahead)
            seen = [] if found is None else [found]
        elif len(rows) == 1:
            found = self._one(asked, account, rows[0])
            seen = [] if found is None else [found]
        else:
            seen = [
                one
                for begin in range(0, len(rows), TOGETHER)
                for one in self._many(asked, account, rows[begin : begin + TOGETHER])
            ]
        if len(seen) < len(rows):
            return Verdict(action=Action.REFUSE, reason="a row is not finite, or beyond all measure")
        if len(self._open) >= OPEN:
            self._open.popitem(last=False)
        self._open[asked.id] = seen
        return self._word(asked, account, seen, answering=False)

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """See ``Guard.on_response``."""
        seen = self._open.pop(asked.id, None)
        if seen is None or len(seen) != len(answer.labels):
            return None
        account = self._account(asked.caller, asked.now)
        turned = False
        for one, label in zip(seen, answer.labels.tolist(), strict=True):
            turned |= self._labelled(one, label, account, asked)
        scores = answer.scores
        edged = scores is not None and self.wants_scores and self._edges(account, seen, answer)
        return self._word(asked, account, seen, answering=True) if turned or edged else None

    # --- one request

    def foresee(self, rows: Numbers) -> list[_Ahead]:
        """Products of all rows at once, with the memory and with one another. See ``Guard.on_request``."""
        company = _Company(rows, self.encoder, self.spacing, self.memory)
        return [_Ahead(company, place, *self._digest(row)) for place, row in enumerate(company.rows)]

    def foretell(self, labels: NDArray[np.int64], scores: NDArray[np.float64]) -> list[bool | None]:
        """Which answers could nearly have been others. See ``Guard.on_response``."""
        del labels
        if scores.shape[1] < 2 or not np.isfinite(scores).all():  # noqa: PLR2004 - the two highest
            return [None] * len(scores)
        highest = np.partition(scores, scores.shape[1] - 2, axis=1)
        return (highest[:, -1] - highest[:, -2] < self.reference.edge).tolist()  # type: ignore[no-any-return]

    def _one(self, asked: Asked, account: Account, row: Floats, digest: tuple[int, bool] | None = None) -> Seen | None:
        """A row by itself: one product with the memory. None where it cannot be compared."""
        key, known = digest or self._digest(row)
        if (slot := self.memory.slots.get(key)) is not None:
            return self._again(slot)
        query = self.encoder.one(row)
        norm = float(np.dot(query, query)) - 1.0
        if not norm < LARGEST:
            return None
        best = self.memory.nearest(query)
        return self._new(asked, account, _Query(key, query, norm, self.spacing.one(query, norm), best, known=known))

    def _foreseen(self, asked: Asked, account: Account, ahead: _Ahead) -> Seen | None:
        """The same for a row whose products are there; rows of the company that came since are among them."""
        company, place, key, known = ahead
        memory = self.memory
        if (slot := memory.slots.get(key)) is not None:
            return self._again(slot)
        if company.version != memory.version:
            return self._one(asked, account, company.rows[place], (key, known))
        norm = company.norms[place]
        if not norm < LARGEST:
            return None
        slot = company.slots[place]
        best = (slot, company.products[place])
        if memory.keys[slot] != company.keys[place]:  # it has made room meanwhile
            best = memory.nearest(company.queries[place])
        best = company.fresh.nearer(place, best, memory.keys)
        query = _Query(key, company.queries[place], norm, company.local[place], best, known=known)
        one = self._new(asked, account, query)
        company.fresh.add(place, one.slot, key)
        company.version = memory.version
        return one

    def _many(self, asked: Asked, account: Account, rows: Floats) -> list[Seen]:
        """Rows that came together: products of all of them at once, and with one another.

        Nothing where one of them cannot be compared.
        """
        queries = self.encoder.many(rows)
        norms = ((queries * queries).sum(axis=1) - 1.0).tolist()
        if not all(norm < LARGEST for norm in norms):
            return []
        local = self.spacing.many(queries, norms)
        slots, products = self.memory.nearest_many(queries)
        seen: list[Seen] = []
        fresh = _Fresh(queries, norms)
        for place, row in enumerate(rows):
            key, known = self._digest(row)
            if (slot := self.memory.slots.get(key)) is not None:
                seen.append(self._again(slot))
                continue
            best = fresh.nearer(place, (slots[place], products[place]), self.memory.keys)
            query = _Query(key, queries[place], norms[place], local[place], best, known=known)
            one = self._new(asked, account, query)
            fresh.add(place, one.slot, key)
            seen.append(one)
        return seen

    def _digest(self, row: Floats) -> tuple[int, bool]:
        """What tells a row from all others, and whether the model was trained on it.

        The former is keyed by the process: nobody outside can make two rows alike.
        """
        content = row.tobytes()
        return hash(content) or 1, bool(self._known) and crc_of(row) in self._known

    def _again(self, slot: int) -> Seen:
        return Seen(slot, -1, self.memory.homes[slot], answered=self.memory.labels[slot] >= 0)

    def _new(self, asked: Asked, account: Account, query: _Query) -> Seen:
        """Compare a row that was never seen with the nearest one that was, count, and remember it."""
        close = query.squared < (self.limit * query.spacing) ** 2
        expected = self.reference.expected.get(asked.caller.role) if close else None
        place: Place | None = None
        if expected is not None:
            place = self._place(query.near, asked, counts=_unusual(expected, query), fall=FALL * expected.unusual)
        else:
            place = self._place(query.near, asked, counts=True, fall=0.0) if close else None
            account.near.see(close, self._falls[0])
            account.strange.see(query.odd > self.reference.strange, self._falls[1])
            account.known.see(query.known, self._falls[3])
        slot = self.memory.add(query.key, query.row, query.norm, place)
        return Seen(slot, query.near if close else -1, place, expected=expected is not None)

    def _place(self, near: int, asked: Asked, *, counts: bool, fall: float) -> Place:
        """The place of an earlier query, which is one from now on if it was none.

        ``fall`` is what a frame that is as expected takes away.
        """
        memory, now = self.memory, asked.now
        place = memory.homes[near]
        if place is None:
            self.places += 1
            place = memory.homes[near] = Place(self.places, self.settings.place_half_life * DAY, now)
        place.hits += 1
        if counts:
            place.add(1.0, now)
        elif fall:
            place.points = max(0.0, place.points - fall)
        if asked.caller.id != place.last:
            place.last, place.accounts = asked.caller.id, place.accounts + 1
        if place.hits > 1:
            column = memory.table[:, near]
            memory.settle(place, column, -2.0 * float(column[-1]), memory.labels[near], now)
            if self._sharing is not None and counts:
                self._sharing.tell(column, asked.caller.id, now)
        return place

    def _labelled(self, one: Seen, label: int, account: Account, asked: Asked) -> bool:
        """Note what a row is answered; whether that speaks for a search."""
        memory = self.memory
        memory.labels[one.slot] = label
        if not one.close or one.place is None:
            return False
        earlier = memory.labels[one.near]
        if earlier in {-1, label}:
            return False
        one.place.flips += 1
        one.place.add(1.0, asked.now)
        if not one.expected:
            account.near.points += 1.0
        return True

    def _edges(self, account: Account, seen: list[Seen], answer: Answer) -> bool:
        """Count answers that could nearly have been others; whether there was one."""
        found, ahead = False, answer.ahead(self.name)
        near = self._near_edge(answer) if ahead is None else (ahead,)
        for one, is_near in zip(seen, near, strict=True):
            if one.expected or one.answered:
                continue
            account.edge.see(is_near, self._falls[2])
            found |= is_near
        return found

    def _near_edge(self, answer: Answer) -> list[bool]:
        if answer.scores is None:
            return [False] * len(answer.labels)
        return [first - second < self.reference.edge for first, second in map(_first_two, answer.scores.tolist())]

    def _word(self, asked: Asked, account: Account, seen: list[Seen], *, answering: bool) -> Verdict | None:
        """What follows from the points of the account and of every place that was touched."""
        ladder, now = self.ladder, asked.now
        expected = self.reference.expected.get(asked.caller.role)
        slack = expected.slack if expected is not None else 0.0
        worst, points, who = ladder.of_account(account)
        holder: Account | Place = account
        for one in seen:
            if one.place is None:
                continue
            height = one.place.points_at(now) - slack
            rung = ladder.of_place(height)
            if one.answered and rung > LABELS_ONLY:
                rung = LABELS_ONLY
            if (rung, height) > (worst, points):
                worst, points, who, holder = rung, height, "place", one.place
        if not worst:
            return None
        action, reason = ORDER[worst], _reason(who, points, holder)
        if action is Action.THROTTLE:
            if not answering:
                return ladder.throttled(holder, points, now, reason)
            action = Action.COARSEN
        return Verdict(action=action, reason=reason, measures={"points": points})

    # --- accounts, other replicas

    def _account(self, caller: Caller, now: float) -> Account:
        """What is held against a caller. Nobody in particular has no account: those are told apart by place alone."""
        if caller.method == "anonymous":
            return Account(1.0, now)
        account = self._accounts.get(caller.id)
        if account is None:
            if len(self._accounts) >= self.settings.accounts:
                self._accounts.popitem(last=False)
            account = self._accounts[caller.id] = Account(self.settings.account_half_life * HOUR, now)
        account.fade(now)
        return account

    def _hear(self, news: News) -> None:
        """Another replica counted: keep its place, so that queries sent here meet it."""
        if len(news.row) != 4 * self.encoder.width:
            return
        query = np.ones(self.encoder.width + 1, np.float32)
        query[:-1] = np.frombuffer(news.row, "<f4")
        norm = float(np.dot(query, query)) - 1.0
        if not norm < LARGEST:
            return
        spacing, _ = self.spacing.one(query, norm)
        near, product = self.memory.nearest(query)
        close = norm - 2.0 * product < (self.limit * spacing) ** 2
        place = self.memory.homes[near] if close else None
        if place is None:
            self.places += 1
            place = Place(self.places, self.settings.place_half_life * DAY, news.at)
            if close:
                self.memory.homes[near] = place
        place.hits += 1
        place.add(1.0, news.at)
        self.memory.settle(place, query, norm, -1, news.at)
        self.memory.version += 1
        account = self._accounts.get(news.account)
        if account is not None:
            account.near.points += 1.0


def _unusual(expected: Expectation, query: _Query) -> bool:
    """Whether a frame lies closer to an earlier one, or further off, than frames of such streams do."""
    distance = max(query.squared, 0.0) ** 0.5 / query.spacing
    return not expected.low <= distance <= expected.high


class _Query:
    """A row that was never seen, and what was found out about it."""

    __slots__ = ("key", "known", "near", "norm", "odd", "row", "spacing", "squared")

    def __init__(
        self, key: int, row: Floats, norm: float, local: tuple[float, float], best: tuple[int, float], *, known: bool
    ) -> None:
        self.key, self.row, self.norm, self.known = key, row, norm, known
        self.spacing, self.odd = local
        self.near = best[0]
        self.squared = norm - 2.0 * best[1]
        """Squared distance from the nearest row that was seen; may be a little less than 0."""


class _Company:
    """Rows of requests that came together, and what is known of all of them at once."""

    __slots__ = ("fresh", "keys", "local", "norms", "products", "queries", "rows", "slots", "version")

    def __init__(self, rows: Numbers, encoder: Encoder, spacing: Spacing, memory: Memory) -> None:
        self.rows = encoder.left(rows)
        with np.errstate(all="ignore"):  # a row beyond all measure is refused where it is looked at
            queries = self.queries = encoder.many(self.rows)
            self.norms: list[float] = ((queries * queries).sum(axis=1) - 1.0).tolist()
            self.local = spacing.many(queries, self.norms)
            self.slots, self.products = memory.nearest_many(queries)
            self.fresh = _Fresh(queries, self.norms)
        self.keys = [memory.keys[slot] for slot in self.slots]
        """Digests of the nearest that were remembered."""
        self.version = memory.version
        """With rows of the company that came in since; when the memory has another, others came in too."""


class _Ahead(NamedTuple):
    """One of them."""

    company: _Company
    place: int
    key: int
    """Its digest."""
    known: bool
    """Whether the model was trained on it."""


class _Fresh:
    """Rows that came together and were remembered while they were looked at: they may be each other's nearest."""

    def __init__(self, queries: Floats, norms: list[float]) -> None:
        self._products = queries[:, :-1] @ queries[:, :-1].T - 0.5 * np.asarray(norms, np.float32)
        np.nan_to_num(self._products, copy=False, nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
        """``(batch, batch)``: what the memory would give for the row and every other; beyond all measure, nothing."""
        self._here = np.full(len(queries), -np.inf, np.float32)
        """``(batch,)``: 0 for rows that were remembered; what was stopped elsewhere, or is a repeat, was not."""
        np.fill_diagonal(self._products, -np.inf)
        self._most: list[float] = self._products.max(axis=1).tolist()
        """What any of the others can give for a row, remembered or not."""
        self._slots: dict[int, tuple[int, int]] = {}

    def add(self, place: int, slot: int, key: int) -> None:
        """The row at ``place`` was remembered at ``slot``."""
        self._slots[place] = (slot, key)
        self._here[place] = 0.0

    def nearer(self, place: int, best: tuple[int, float], keys: list[int]) -> tuple[int, float]:
        """The better of what the memory gave and the rows before this one."""
        if not self._slots or self._most[place] <= best[1]:
            return best
        earlier = int((self._products[place] + self._here).argmax())
        product = float(self._products[place, earlier])
        slot, key = self._slots.get(earlier, (-1, 0))
        return (slot, product) if slot >= 0 and product > best[1] and keys[slot] == key else best


def _first_two(row: Sequence[float]) -> tuple[float, float]:
    """The two highest of some scores."""
    first = second = -np.inf
    for score in row:
        if score > first:
            first, second = score, first
        elif score > second:
            second = score
    return first, second


def _reason(who: str, points: float, holder: Account | Place) -> str:
    """For the audit record: which count, and whose."""
    if isinstance(holder, Place):
        return (
            f"{points:.1f} points at place {holder.number}: {holder.hits} close queries, {holder.flips} with another "
            f"answer, from account to account {holder.accounts} times"
        )
    return f"{points:.1f} points against the account by {who}"


class SequenceMaker:
    """See ``GuardMaker``."""

    Settings = SequenceSettings

    def __call__(self, settings: Any, material: Material) -> SequenceGuard:
        """See ``GuardMaker.__call__``."""
        reference = read_reference(material.fitted(CHECK))
        if reference.encoding.features != len(material.columns):
            raise ArtefactError(
                f"the reference of the guard sequence is of {reference.encoding.features} features, and the model "
                f"takes {len(material.columns)}",
                remedy="run the check gateway.sequence again.",
            )
        sharing = Sharing(material.state, f"sequence:{material.digest}") if settings.share else None
        return SequenceGuard(settings, reference, sharing=sharing)


MAKER = SequenceMaker()
"""What is registered."""

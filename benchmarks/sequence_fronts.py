"""A model behind the sequence guard as an attacker meets it, and what of an attack got through."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.targets.protocol import Access

BEGIN = 1_700_000_000.0
SHOWN = {Action.ALLOW, Action.FLAG, Action.COARSEN}
BEFORE = BEGIN - 200_000.0
"""When natural queries begin that come before an attack."""
PATIENCE = 3
"""Times that a throttled query is asked again after the wait."""


@dataclass(frozen=True)
class Manner:
    """How an attacker asks."""

    name: str = "plain"
    noise: float = 0.0
    """Standard deviation of what is added to every query."""
    jitter: bool = False
    """Whether every image is turned and shifted a little."""
    accounts: int = 1
    """Queries go round so many accounts; 0: a new one for each."""
    dummies: int = 0
    """Natural queries of the same account between two of the attack."""
    traffic: int = 0
    """Queries of others between two of the attack."""
    seconds: float = 1.0
    """Between two queries of the attack."""


MANNERS = {
    manner.name: manner
    for manner in (
        Manner(),
        Manner("noise", noise=0.02),
        Manner("accounts", accounts=0),
        Manner("dummies", dummies=9),
        Manner("drip", seconds=3600.0, traffic=100),
        Manner("jitter", jitter=True),
    )
}


@dataclass
class Log:
    """What was asked of a front."""

    rows: list = field(default_factory=list)
    """What the attacker meant; what was sent may be changed."""
    shown: list = field(default_factory=list)
    """Whether the label came back."""
    actions: list = field(default_factory=list)

    def flagged_at(self):
        """Number of the first query that was not just answered; 0 when there is none."""
        return next((place + 1 for place, action in enumerate(self.actions) if action > Action.ALLOW), 0)

    def succeeded_at(self, predict, row, label, norm, bound):
        """Number of the first shown query that is answered otherwise and near enough; 0 when there is none."""
        if not self.rows:
            return 0
        rows = np.array(self.rows)
        change = np.abs(rows - row).max(axis=1) if norm == np.inf else np.linalg.norm(rows - row, axis=1)
        places = np.flatnonzero((change <= bound * (1 + 1e-6)) & np.array(self.shown))
        hits = places[predict(rows[places]).argmax(axis=1) != label] if len(places) else places
        return int(hits[0]) + 1 if len(hits) else 0


class Front:
    """Answers rows one by one: scores where the guard has nothing against it, else labels, else nothing."""

    def __init__(self, predict, guard=None, manner=None, *, benign=None, shape=(), seed=0, most=100_000):
        self.predict, self.manner, self.shape, self.most = predict, manner or Manner(), shape, most
        self.guard = copy.deepcopy(guard)
        self.rng = np.random.default_rng(seed)
        self.benign = itertools.cycle(benign) if benign is not None else None
        self.log, self.now, self.number = Log(), BEGIN, 0

    def ask(self, rows):
        """Scores of each row; one-hot where only the label is given, None where nothing is."""
        rows = np.asarray(rows, np.float32)
        if self.guard is not None or self.manner.noise or self.manner.jitter:
            return [self.one(row) for row in rows]
        left = self.most - len(self.log.rows)
        self.log.rows.extend(rows[:left])
        self.log.actions += [Action.ALLOW] * min(left, len(rows))
        self.log.shown += [True] * min(left, len(rows))
        if left < len(rows):
            raise SpentError
        return list(self.predict(rows))

    def one(self, row):
        """The same for one row ``(features,)``."""
        manner = self.manner
        if len(self.log.rows) >= self.most:
            raise SpentError
        for _ in range(manner.traffic if self.guard else 0):
            self._send(next(self.benign), f"key:other{self.rng.integers(1000)}")
        account = f"key:attacker{len(self.log.rows) % manner.accounts if manner.accounts else len(self.log.rows)}"
        for _ in range(manner.dummies if self.guard else 0):
            self._send(next(self.benign), account)
        sent = self._changed(row)
        action, scores = self._send(sent, account)
        for _ in range(PATIENCE):
            if action is not Action.THROTTLE:
                break
            self.now += self.wait + 1
            action, scores = self._send(sent, account)
        self.now += manner.seconds
        self.log.rows.append(np.array(row))
        self.log.actions.append(action)
        self.log.shown.append(action in SHOWN)
        if action not in SHOWN:
            return None
        if action is Action.COARSEN:
            return np.eye(len(scores))[scores.argmax()]
        return scores

    def _changed(self, row):
        """What is sent in the place of a row."""
        if self.manner.jitter:
            image = row.reshape(self.shape)
            turned = ndimage.rotate(image, self.rng.uniform(-8, 8), axes=(1, 2), reshape=False, order=1)
            row = np.roll(turned, self.rng.integers(-1, 2, 2), axis=(1, 2)).ravel()
        if self.manner.noise:
            row = row + self.manner.noise * self.rng.standard_normal(row.shape)
        return np.clip(row, 0, 1).astype(np.float32) if self.shape else row.astype(np.float32)

    def _send(self, row, account):
        rows = row[None]
        scores = self.predict(rows)
        if self.guard is None:
            return Action.ALLOW, scores[0]
        self.number += 1
        caller = Caller(id=account, role="user", method="key")
        asked = Asked(request=str(self.number), caller=caller, model="m", digest="d", rows=rows, now=self.now)
        said = self.guard.on_request(asked)
        action = said.action if said else Action.ALLOW
        if action is Action.THROTTLE:
            self.wait = said.wait
        if action in SHOWN:
            said = self.guard.on_response(asked, Answer(scores.argmax(axis=1), scores))
            action = max(action, said.action if said else Action.ALLOW)
        return action, scores[0]


class SpentError(Exception):
    """The attacker gives up."""


class FrontTarget:
    """A front as a target of the red team: what is not answered is taken for the original answer."""

    name = "model:front"
    class_values = ()

    def __init__(self, front, row, *, scores):
        self.front = front
        self.first = front.predict(np.float32(row)[None])[0]
        self.classes, self.features = len(self.first), len(row)
        self.offers = frozenset({Access.LABELS, Access.SCORES} if scores else {Access.LABELS})

    def labels(self, rows):
        """See ``Target.labels``."""
        return self.scores(rows).argmax(axis=1)

    def scores(self, rows):
        """See ``Target.scores``."""
        answers = self.front.ask(rows)
        return np.array([self.first if answer is None else answer for answer in answers], np.float64)

    def retrain(self, rows, labels, *, seed):
        """See ``Target.retrain``."""
        raise NotImplementedError


def served(guard, row, scores, account, *, number, role="user"):
    """Send one natural query; whether anything but a plain answer came of it."""
    caller = Caller(id=account, role=role, method="key")
    asked = Asked(
        request=f"{account}-{number}", caller=caller, model="m", digest="d", rows=row[None], now=BEFORE + number
    )
    said = guard.on_request(asked)
    after = guard.on_response(asked, Answer(np.array([int(scores.argmax())]), scores[None]))
    return any(each is not None and each.action > Action.ALLOW for each in (said, after))

"""Lesson: one short text costs as much as dozens of others."""

from __future__ import annotations

import time
from dataclasses import replace

from bartizan.core.predicates import Assessment, Threat
from bartizan.lifecycle.design.guidance.document import Section, Table
from bartizan.lifecycle.design.guidance.labs.shape import Tell, TextGround, assessment, number
from bartizan.redteam.attacks.availability.slow_texts import SlowTexts
from bartizan.redteam.availability import Clock, CostTask, Slowdown, play_cost
from bartizan.redteam.cost_check import ORDINARY, measured_cost
from bartizan.targets.protocol import Access, Clocked

LONGEST = 2_000
"""Characters of the longest text that is tried."""
SHORT = 24
"""Characters of the longest text where length is bounded, for comparison."""
ITEMS = 400
MOST_SECONDS = 0.1
"""Longest time for one text that is looked for: a lesson is short."""


class AvailabilityLab:
    """See ``TextLab`` of ``shape``."""

    name = "availability"
    title = "Find a short text that costs many times as much as others"
    family = "availability"
    needs = frozenset({Access.LABELS})

    def run(self, ground: TextGround, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attack = SlowTexts()
        rule = " Before the model is asked, a rule of a common kind looks at the text." if ground.guard else ""
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        f"The adversary sends texts of up to {LONGEST} characters: long, nested, repeated ones, "
                        f"which grow until one takes {MOST_SECONDS:g} seconds.{rule} It needs a clock and no "
                        "answer. The costliest text is then timed by turns with ordinary ones, so that whatever "
                        "else the machine does falls on both."
                    ),
                ),
            )
        )
        task = CostTask(ground.material.evaluation.texts[:ORDINARY], LONGEST, ITEMS, most_seconds=MOST_SECONDS)
        guarded = _times(ground, task, guarded=True)
        name = ground.material.model.name
        measured = measured_cost(guarded, task, attack, name)
        rows = [_row("with its rule" if ground.guard else "as it is", guarded)]
        if ground.guard:
            # Whoever bounds the length takes the search's longer texts away.
            short = replace(task, max_size=SHORT)
            rows += [
                _row(f"texts of {SHORT} characters at most", _times(ground, short, guarded=True)),
                _row("without the rule", _times(ground, task, guarded=False)),
            ]
        tell(
            Section(
                title="2. What is seen",
                text=(measured.summary,),
                points=(
                    f"Time of the costliest text over that of ordinary ones: {number(measured.metrics['slowdown'])}.",
                ),
                table=Table(("Service", "Slowdown", "Characters", "Seconds", "Seconds of ordinary texts"), tuple(rows)),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Bound the time of an answer, not only the number of requests, and what one caller may use of it.",
                    (
                        "Bound the length of what is taken before anything looks at it: it helps where time grows with "
                        "length, and little where a rule takes exponential time."
                    ),
                    (
                        "Replace patterns that can match the same text in many ways, or match them with an engine that "
                        "does not backtrack."
                    ),
                    "Know what happens to the process when the service is switched off.",
                ),
            )
        )
        threat = Threat(position=attack.position, access=tuple(sorted(attack.needs)), knowledge="owns ordinary texts")
        return assessment(self, ground, measured.summary, measured.metrics, threat)


def _times(ground: TextGround, task: CostTask, *, guarded: bool) -> Slowdown:
    def answer(text: str) -> None:
        if guarded and ground.guard is not None:
            ground.guard(text)
        ground.target.scores([text])

    clock: Clock = ground.target.clock if isinstance(ground.target, Clocked) else time.process_time
    return play_cost(answer, SlowTexts(), task, seed=ground.seed % 2**31, clock=clock)


def _row(name: str, found: Slowdown) -> tuple[str, ...]:
    low, high = found.ratio.interval.low, found.ratio.interval.high
    return (
        name,
        f"{found.ratio.value:.3g} times ({low:.3g} to {high:.3g})",
        str(len(found.item)),
        f"{found.seconds:.2g}",
        f"{found.ordinary_seconds:.2g}",
    )

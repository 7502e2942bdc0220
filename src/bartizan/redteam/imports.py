"""Results of other tools, read as what they are: claims.

Four forms are read: the neutral one below, reports of SACRO-ML (privacy of tables), report logs of garak and lists
of attack results of PyRIT (language models). What anything else finds (ART, Counterfit, CleverHans, AI Verify ...)
is written into the neutral form by a few lines of the script that ran it::

    {"format": "bartizan-external-result/1",
     "tool": {"name": "art", "version": "1.20.1"},
     "attack": "ProjectedGradientDescent",
     "techniques": ["T06"],
     "model_sha256": "...",
     "metrics": {"robust_accuracy": {"successes": 31, "n": 60}},
     "budget": {"queries_allowed": 60000},
     "seed": 7, "summary": "...", "position": "user", "access": ["gradients"]}

A metric is ``successes`` of ``n``, for which the interval is computed here, or ``value``, ``low``, ``high`` and
``n`` as the tool has them. A number without either is kept as it was claimed and is no metric: nothing can be
decided by it. What cannot be is refused: a share beyond 0 to 1, a value outside its interval, a confidence that is
none. The file is somebody else's: its size, its depth and every list in it are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import msgspec

from bartizan.core.digest import HEX
from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.redteam.statistics import proportion

FORMAT = "bartizan-external-result/1"
MAX_RESULTS = 200
MAX_METRICS = 100
MAX_LINES = 200_000
MAX_TEXT = 300
MAX_NAME = 80
MAX_NUMBER = 1e300
SHARES = frozenset(
    {"accuracy", "recall", "precision", "share", "rate", "success", "f1", "auc", "tpr", "fpr", "tnr", "fnr"}
)
"""First or last words of names of metrics that lie between 0 and 1 where no unit says otherwise."""


class External(msgspec.Struct, frozen=True, kw_only=True):
    """What another tool says that it found out with one attack."""

    tool: str
    version: str
    attack: str
    summary: str = ""
    techniques: tuple[str, ...] = ()
    metrics: dict[str, Metric] = {}
    claimed: dict[str, float] = {}
    """Numbers without an interval and without what it takes to compute one."""
    budget: dict[str, float] = {}
    seed: int | None = None
    position: str = ""
    access: tuple[str, ...] = ()
    model_sha256: str = ""
    """Digest of the model that was attacked, where the tool says it; empty otherwise."""


def read_results(data: bytes) -> tuple[External, ...]:
    """Every result in a file of one of the known forms.

    Raises:
        InputError: it has none of them, or says impossible things.
    """
    found = tuple(_results(data))
    if not found:
        raise InputError("there is no result in this file", remedy="give the report of a run that was finished.")
    if len(found) > MAX_RESULTS:
        raise InputError(f"{len(found)} results in one file", remedy=f"give files of at most {MAX_RESULTS}.")
    return found


def _results(data: bytes) -> Iterator[External]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        yield from _garak(_lines(data))
        return
    listed = document if isinstance(document, list) else [document]
    if not all(isinstance(each, dict) for each in listed):
        raise _unknown()
    if listed and all(each.get("format") == FORMAT for each in listed):
        yield from (_neutral(each) for each in listed)
    elif listed and all("achieved_objective" in each or "outcome" in each for each in listed):
        yield _pyrit(listed)
    elif listed and "entry_type" in listed[0]:
        yield from _garak(listed)
    elif len(listed) == 1 and any(_is_sacro(each) for each in listed[0].values()):
        yield from (_sacro(each) for each in listed[0].values() if _is_sacro(each))
    else:
        raise _unknown()


def _unknown() -> InputError:
    return InputError(
        "this is no result in a known form",
        remedy=f"write it as {FORMAT}; `bartizan attack import --help` and the red-team page say how.",
    )


# ---- the neutral form


def _neutral(said: Mapping[str, Any]) -> External:
    tool = said.get("tool")
    if not isinstance(tool, dict):
        raise InputError("a result names no tool", remedy='add "tool": {"name": ..., "version": ...}.')
    metrics, claimed = _metrics(said.get("metrics", {}))
    seed, digest = said.get("seed"), said.get("model_sha256", "")
    if digest and (not isinstance(digest, str) or not HEX.match(digest)):
        raise InputError("model_sha256 is no SHA-256 digest", remedy="give 64 hexadecimal digits, or leave it out.")
    return External(
        tool=_name(tool.get("name"), "tool.name"),
        version=_short(tool.get("version", "")),
        attack=_name(said.get("attack"), "attack"),
        summary=_short(said.get("summary", "")),
        techniques=_names(said.get("techniques", []), "techniques"),
        metrics=metrics,
        claimed=claimed,
        budget=_numbers(said.get("budget", {})),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        position=_short(said.get("position", "")),
        access=_names(said.get("access", []), "access"),
        model_sha256=digest,
    )


def _metrics(said: Any) -> tuple[dict[str, Metric], dict[str, float]]:
    """Metrics with intervals, and the numbers that have none."""
    metrics: dict[str, Metric] = {}
    claimed: dict[str, float] = {}
    for name, entry in _bounded(said, "metrics"):
        found = _metric(name, entry)
        if isinstance(found, Metric):
            metrics[name] = found
        else:
            claimed[name] = found
    return metrics, claimed


def _metric(name: str, entry: Any) -> Metric | float:
    if not isinstance(entry, dict):
        return _possible(_number(entry, name), name)
    if "successes" in entry:
        successes, n = entry["successes"], entry.get("n")
        if not _is_count(successes) or not _is_count(n) or not n > 0 or successes > n:
            raise InputError(f"metric {name}: {successes} of {n} is no share", remedy="give whole numbers.")
        return proportion(successes, n).metric(_short(entry.get("unit", "")))
    unit, n = _short(entry.get("unit", "")), entry.get("n")
    value = _possible(_number(entry.get("value"), name), name, unit)
    if "low" not in entry or "high" not in entry or not _is_count(n) or n < 1:
        return value
    low, high = (_possible(_number(entry[end], name), name, unit) for end in ("low", "high"))
    if not low <= value <= high:
        raise InputError(
            f"metric {name}: {value} is outside its interval, {low} to {high}", remedy="give the numbers of one run."
        )
    confidence = _number(entry.get("confidence", 0.95), name)
    if not 0 < confidence < 1:
        raise InputError(f"metric {name}: a confidence of {confidence:g}", remedy="give a share, such as 0.95.")
    method = f"as claimed: {_short(entry.get('method', '')) or 'not said'}"
    return Metric(value=value, low=low, high=high, n=n, unit=unit, confidence=confidence, method=method)


def _possible(value: float, name: str, unit: str = "") -> float:
    """The number, when a metric of that name can have it. Raises InputError when it is a share beyond 0 to 1."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    most = {"": 1.0, "%": 100.0, "percent": 100.0}.get(unit)
    if most is not None and SHARES & {*words[:1], *words[-1:]} and not 0 <= value <= most:
        raise InputError(
            f"metric {name}: {value:g} is no share", remedy=f"give 0 to {most:g}, or the unit that it is measured in."
        )
    return value


# ---- SACRO-ML


def _is_sacro(said: Any) -> bool:
    return isinstance(said, dict) and isinstance(said.get("metadata"), dict) and "attack_experiment_logger" in said


_SACRO_SHARES = {"TPR": "n_pos_test_examples", "FPR": "n_neg_test_examples"}
"""Rate to the number of records that it is a share of."""


def _sacro(said: Mapping[str, Any]) -> External:
    """The worst of the repeats of one attack, by AUC: an adversary would keep that one."""
    metadata = said["metadata"]
    logger = said["attack_experiment_logger"]
    instances = logger.get("attack_instance_logger") if isinstance(logger, dict) else None
    runs = [run for _, run in _bounded(instances, "attack_instance_logger") if isinstance(run, dict)]
    if not runs:
        raise InputError("this SACRO-ML report has no run of the attack", remedy="give the report of a finished run.")
    worst = max(runs, key=lambda run: _number(run.get("AUC", 0.0), "AUC"))
    numbers = {name: value for name, value in list(worst.items())[:MAX_METRICS] if _is_finite(value)}
    metrics = {}
    for name, count in _SACRO_SHARES.items():
        n = worst.get(count)
        if _is_finite(worst.get(name)) and _is_finite(n) and float(n or 0).is_integer() and n and n > 0:
            share = min(max(float(worst[name]), 0.0), 1.0)
            metrics[name] = proportion(round(share * int(n)), int(n)).metric()
    return External(
        tool="sacro-ml",
        version=_short(metadata.get("sacroml_version", "")),
        attack=_name(metadata.get("attack_name"), "attack_name"),
        summary=f"AUC {_number(worst.get('AUC', 0.0), 'AUC'):.3f} in the worst of {len(runs)} repeats",
        techniques=("T35",) if "attribute" not in str(metadata.get("attack_name", "")).lower() else ("T37",),
        metrics=metrics,
        claimed={_name(name, "a metric"): float(value) for name, value in numbers.items() if name not in metrics},
        position="user",
        access=("scores",),
    )


# ---- language models


def _lines(data: bytes) -> list[dict[str, Any]]:
    """A file of one JSON object on each line."""
    lines = data.split(b"\n", MAX_LINES + 1)
    if len(lines) > MAX_LINES:
        raise InputError(f"more than {MAX_LINES} lines", remedy="give the report of one run.")
    found = []
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            raise _unknown() from None
        if not isinstance(entry, dict) or "entry_type" not in entry:
            raise _unknown()
        found.append(entry)
    return found


def _garak(entries: list[dict[str, Any]]) -> Iterator[External]:
    """One result for each probe: what each detector let pass."""
    version = next((_short(entry["garak_version"]) for entry in entries if "garak_version" in entry), "")
    probes: dict[str, dict[str, Metric]] = {}
    for entry in entries:
        if entry.get("entry_type") != "eval":
            continue
        probe = _name(entry.get("probe"), "probe")
        detector = _name(entry.get("detector"), "detector").removeprefix("detector.")
        passed, total = entry.get("passed"), entry.get("total", entry.get("total_evaluated"))
        if not _is_count(passed) or not _is_count(total) or passed > total:
            raise InputError(f"probe {probe}: {passed} of {total} passed", remedy="give an unaltered report.")
        if total:
            name = f"withstood {detector}"[:MAX_NAME].replace(".", " ")
            probes.setdefault(probe, {})[name] = proportion(passed, total).metric()
    for probe, metrics in probes.items():
        least = min(metrics.values(), key=lambda metric: metric.value)
        yield External(
            tool="garak",
            version=version,
            attack=probe,
            summary=f"{least.value:.0%} of {least.n} attempts were withstood, by the strictest detector",
            metrics=metrics,
            position="user",
            access=("text",),
        )


def _pyrit(entries: list[dict[str, Any]]) -> External:
    """How many objectives were reached; what could not be judged counts as tried and not reached."""
    reached = sum(
        bool(entry.get("achieved_objective") is True or str(entry.get("outcome", "")).lower() == "success")
        for entry in entries
    )
    return External(
        tool="pyrit",
        version="",
        attack="objectives",
        summary=f"{reached} of {len(entries)} objectives were reached",
        metrics={"attack_success": proportion(reached, len(entries)).metric()},
        position="user",
        access=("text",),
    )


# ---- what is somebody else's


def _bounded(said: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(said, dict) or len(said) > MAX_METRICS:
        raise InputError(f"{what} is no table of at most {MAX_METRICS} entries", remedy="see the red-team page.")
    return [(_name(name, what).replace(".", "_"), value) for name, value in said.items()]


def _name(text: Any, what: str) -> str:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_NAME or not text.isprintable():
        raise InputError(
            f"{what} is no name: {str(text)[:40]!r}", remedy=f"give 1 to {MAX_NAME} letters that can be printed."
        )
    return text.strip()


def _names(listed: Any, what: str) -> tuple[str, ...]:
    if not isinstance(listed, list) or len(listed) > MAX_METRICS:
        raise InputError(f"{what} is no list of names", remedy="see the red-team page.")
    return tuple(dict.fromkeys(_name(text, what) for text in listed))


def _short(text: Any) -> str:
    """A text of somebody else's: shortened, and safe to show."""
    plain = str(text)[:MAX_TEXT] if isinstance(text, str | int | float) else ""
    return "".join(letter if letter.isprintable() else " " for letter in plain).strip()


def _numbers(said: Any) -> dict[str, float]:
    found = {name: _number(value, name) for name, value in _bounded(said, "budget")}
    if odd := [name for name, value in found.items() if value < 0]:
        raise InputError(f"a budget of {found[odd[0]]:g} {odd[0]}", remedy="give what was allowed, or leave it out.")
    return found


def _number(value: Any, name: str) -> float:
    if not _is_finite(value):
        raise InputError(f"{name[:MAX_NAME]!r} is no number: {str(value)[:40]!r}", remedy="give a finite number.")
    return float(value)


def _is_finite(value: Any) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < MAX_NUMBER and math.isfinite(value)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53

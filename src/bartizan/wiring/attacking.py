"""The red team at work: what applies to a system, its plan, campaigns that are recorded, trials that are not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import msgspec

from bartizan.core import predicates
from bartizan.core.check import Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError, WorkError
from bartizan.core.system import Artefact, Declaration, RedTeam, System
from bartizan.lifecycle.plan import Job, answer
from bartizan.lifecycle.runner import Done, Ending, Failure, Listener
from bartizan.redteam import registry
from bartizan.redteam.attack import Attack
from bartizan.redteam.check import CHECK_PREFIX, AttackCheck
from bartizan.redteam.plan import PLAN
from bartizan.targets.protocol import Access, Target, Targets
from bartizan.targets.table import read_columns, read_table
from bartizan.wiring.assure import Situation, run_jobs, situation
from bartizan.wiring.coverage import Standing, look
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import Workspace, load

T = TypeVar("T")
MAX_BUDGET = 10_000_000
BUDGETS = frozenset({"query_budget", "gradient_budget", "extraction_budget"})
"""Settings that another number of queries stands in for."""
TRAINED = frozenset({"shadow_models", "poison_rates", "repeats"})
"""Settings that limit attacks which train models instead of asking one."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One installed attack, as it stands to a system."""

    name: str
    title: str
    family: str
    technique: str
    atlas: tuple[str, ...]
    needs: tuple[str, ...]
    position: str
    references: tuple[str, ...]
    cost: str
    """What it may spend, as declared."""
    applies: bool
    selected: bool = False
    """It is run by ``assure``."""
    upper_bound: bool = False
    """It is given more than the interface gives away."""
    why_not: str = ""
    """Why it does not apply, in one sentence."""


def listing(system: System | None) -> list[Line]:
    """Every installed attack; without a system, what each needs is all that can be said."""
    return [_line(attack, system) for attack in registry.attacks()]


def _line(attack: Attack, system: System | None) -> Line:
    check = registry.check(attack.name) if registry.has_family(attack.name) else None
    reason = _why_not(attack, check, system)
    settings = system.declaration.redteam if system else RedTeam()
    return Line(
        name=attack.name,
        title=attack.title,
        family=attack.family,
        technique=attack.technique,
        atlas=attack.atlas,
        needs=tuple(sorted(attack.needs)),
        position=attack.position,
        references=attack.references,
        cost=cost(attack, settings),
        applies=not reason,
        selected=not reason and bool(check and system and check.selected(system)),
        upper_bound=not reason and bool(check and system and check.is_upper_bound(system.declaration)),
        why_not=reason,
    )


def _why_not(attack: Attack, check: AttackCheck | None, system: System | None) -> str:
    if check is None:
        return f"{attack.name} attacks what cannot be declared yet ({attack.family}); play it from Python."
    if system is None:
        return ""
    return check.why_not(system) or type(check)(check.family, attack).why_not(system)


def cost(attack: Attack, settings: RedTeam) -> str:
    """What an attack may spend under these settings, in words."""
    own = getattr(attack, "cost", None)
    if isinstance(own, str):
        return own
    asked = f" x {settings.query_budget} queries"
    if Access.GRADIENTS in attack.needs:
        asked = f" x {settings.gradient_budget} gradients"
    elif Access.WEIGHTS in attack.needs:
        asked = ", no queries"
    rates = f"{len(settings.poison_rates)} shares x {settings.repeats} training runs a strategy"
    items = f"up to {min(settings.samples * settings.query_budget, 5_000)} items"
    usual = {
        "text": f"{settings.samples} texts x {settings.query_budget} queries",
        "availability": items,
        "evasion": f"{settings.samples} rows{asked}",
        "extraction": f"{settings.extraction_budget} queries",
        "privacy": f"{settings.shadow_models} training runs",
        "poisoning": rates,
        "backdoor": rates,
    }
    return usual.get(attack.family, "see its page")


# ---- the plan


def planned(workspace: Workspace, listener: Listener) -> tuple[Standing, dict[str, Ending]]:
    """The plan, made or made anew where it is stale, and what has become of each item.

    Raises:
        WorkError: the plan cannot be made.
    """
    system = workspace.system()
    before = situation(workspace, system, only=(PLAN,))
    endings = run_jobs(workspace, before, [job for job, _ in before.due()], listener)
    after = situation(workspace, system) if endings else before
    found = look(workspace, after.system, after.evidence)
    if found is None:
        said = [ending.message for ending in endings.values() if hasattr(ending, "message")]
        raise WorkError(f"there is no plan: {'; '.join(said) or 'it does not stand'}", remedy="see evidence list.")
    return found, endings


# ---- campaigns


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run of attacks."""

    due: tuple[tuple[Job, str], ...]
    endings: dict[str, Ending]
    answered: dict[str, Digest]
    """Jobs that the ledger already answers, with the statement."""

    @property
    def failed(self) -> bool:
        """Whether some attack could not be run."""
        return any(isinstance(ending, Failure) for ending in self.endings.values())

    @property
    def findings(self) -> int:
        """Number of findings of the attacks that were run now."""
        return sum(len(ending.outcome.findings) for ending in self.endings.values() if isinstance(ending, Done))


def campaign(
    workspace: Workspace, listener: Listener, names: Sequence[str] = (), *, fresh: bool = False, anew: bool = False
) -> Campaign:
    """Run attacks on the declared models and record what comes of each.

    Args:
        names: attacks to run; empty takes those that the declaration selects.
        fresh: run also what the ledger answers.
        anew: forget what a killed run had already asked, instead of going on from there.

    Raises:
        InputError: an attack does not exist or does not apply.
    """
    system = workspace.system()
    checks = chosen(system, names)
    before = situation(workspace, system, only=tuple(check.name for check in checks))
    wanted = {check.name for check in checks}
    due = [(job, "asked for") for job in before.jobs] if fresh else before.due()
    due = [(job, why) for job, why in due if job.check.name in wanted or not _scanned(before, job)]
    if anew:
        _forget(workspace, before, [job for job, _ in due])
    endings = run_jobs(workspace, before, [job for job, _ in due], listener)
    keys = {job.key for job, _ in due}
    answered = {
        job.key: found.digest
        for job in before.jobs
        if job.check.name in wanted and job.key not in keys and (found := answer(job, before.evidence))
    }
    return Campaign(due=tuple(due), endings=endings, answered=answered)


def chosen(system: System, names: Sequence[str]) -> list[AttackCheck]:
    """Checks of the named attacks, or of those that the declaration selects.

    Raises:
        InputError: a named attack does not exist or does not apply, or nothing is selected that applies.
    """
    if not names:
        found = [check for check in registry.checks() if check.selected(system) and not check.why_not(system)]
        if not found:
            raise InputError("no selected attack applies to this system", remedy="see `bartizan attack --list`.")
        return found
    checks = [registry.check(name.removeprefix(CHECK_PREFIX)) for name in dict.fromkeys(names)]
    for check in checks:
        if reason := check.why_not(system):
            raise InputError(reason, remedy="see `bartizan attack --list` for what applies.")
    return checks


def _scanned(before: Situation, job: Job) -> bool:
    return answer(job, before.evidence) is not None


def _forget(workspace: Workspace, before: Situation, jobs: Sequence[Job]) -> None:
    """Drop what unfinished runs of these jobs have asked."""
    folder = workspace.settings.path("journals")
    for job in jobs:
        if isinstance(job.check, AttackCheck):
            (folder / f"{job.check.key(before.system, job.subject)}.journal").unlink(missing_ok=True)


# ---- trials


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """An attack that was tried, and recorded nowhere."""

    attack: str
    model: str
    assessment: predicates.Assessment
    findings: tuple[Any, ...] = ()
    sent: int = 0
    """Rows sent to a server, those sent again included."""
    resent: int = 0


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A served model, as it is to be asked instead of the file."""

    url: str
    speaks: str = "oip"
    headers: tuple[str, ...] = ()
    inputs: str = ""
    outputs: str = ""
    allow_remote: bool = False
    seconds: float = 30.0
    patience: float = 60.0


def trial(
    workspace: Workspace,
    listener: Listener,
    names: Sequence[str] = (),
    *,
    budget: int | None = None,
    seconds: float | None = None,
    served: Served | None = None,
    checks: Sequence[AttackCheck] = (),
) -> Iterator[Trial]:
    """Try attacks with another budget or time, or on a served model. Nothing is recorded: it is not what was declared.

    ``checks`` are tried instead of installed attacks.

    Raises:
        InputError: an attack does not exist or does not apply, or the budget or the time changes nothing about it.
        WorkError: the model has no clean scan, or cannot be asked.
    """
    system = with_budget(workspace.system(), budget, seconds)
    checks = checks or chosen(system, names)
    if served and not names:
        checks = [check for check in checks if not any(Access.TRAINING in each.needs for each in check.variants)]
    if budget is not None:
        _refuse_idle("--budget", checks, _why_no_budget)
    if seconds is not None:
        _refuse_idle("--seconds", checks, _why_no_seconds)
    for check in checks:
        for subject in check.subjects(system):
            yield _tried(workspace, listener, system, check=check, subject=subject, served=served)


def _refuse_idle(option: str, checks: Sequence[AttackCheck], why_not: Callable[[AttackCheck], str]) -> None:
    """Refuse an option that would change nothing about an attack."""
    reasons = [reason for check in checks if (reason := why_not(check))]
    fit = [check.name.removeprefix(CHECK_PREFIX) for check in checks if not why_not(check)]
    if reasons:
        named = " ".join(f"--only {name}" for name in fit)
        raise InputError(
            f"{option} changes nothing about {'; '.join(reasons)}",
            remedy=f"name those that it changes: {named}." if fit else f"leave {option} out.",
        )


def _why_no_budget(check: AttackCheck) -> str:
    """Why a number of queries and gradients means nothing to an attack; empty when it does."""
    attack, name = check.variants[0], check.name.removeprefix(CHECK_PREFIX)
    if Access.WEIGHTS in attack.needs and Access.GRADIENTS not in attack.needs:
        return f"{name}, which reads the model and asks no queries"
    if Access.TRAINING not in attack.needs and BUDGETS & {*check.family.settings}:
        return ""
    limits = [field for field in check.family.settings if field in TRAINED]
    return f"{name}" + (f", which is limited by {' and '.join(limits)} in [redteam]" if limits else "")


def _why_no_seconds(check: AttackCheck) -> str:
    if check.family.name != "availability":
        return ""
    return f"{check.name.removeprefix(CHECK_PREFIX)}, which times answers and ends by its number of items"


def with_budget(system: System, budget: int | None, seconds: float | None = None) -> System:
    """The same system with other numbers of queries and gradients, and another time; None leaves what is declared.

    Raises:
        InputError: it is no number of queries, or no time.
    """
    if budget is not None and not 1 <= budget <= MAX_BUDGET:
        raise InputError(f"a budget of {budget} queries", remedy=f"give 1 to {MAX_BUDGET}.")
    if seconds is not None and not 0 < seconds < math.inf:
        raise InputError(f"{seconds:g} seconds", remedy="give more than none.")
    other: dict[str, Any] = {} if budget is None else dict.fromkeys(BUDGETS, budget)
    if seconds is not None:
        other["seconds"] = seconds
    settings = msgspec.structs.replace(system.declaration.redteam, **other)
    declaration: Declaration = msgspec.structs.replace(system.declaration, redteam=settings)
    return msgspec.structs.replace(system, declaration=declaration)


def _tried(
    workspace: Workspace,
    listener: Listener,
    system: System,
    *,
    check: AttackCheck,
    subject: Artefact,
    served: Served | None,
) -> Trial:
    job = Job(check=check, subject=subject, inputs={})
    services = CheckServices(
        workspace.settings.path("journals"), clean_models(workspace, system), workspace.settings.values["confinement"]
    )
    targets = ServedTargets(served) if served else None
    listener.started(job)
    outcome = check.run(system, subject, Desk(job, services, listener, targets))
    return trial_of(check, subject, outcome, targets)


def trial_of(check: AttackCheck, subject: Artefact, outcome: Outcome, targets: ServedTargets | None = None) -> Trial:
    """What is told of a check that was run outside the ledger."""
    return Trial(
        attack=check.name.removeprefix(CHECK_PREFIX),
        model=subject.id,
        assessment=outcome.predicate,
        findings=outcome.findings,
        sent=targets.sent if targets else 0,
        resent=targets.resent if targets else 0,
    )


def clean_models(workspace: Workspace, system: System) -> frozenset[Digest]:
    """Digests of models with a clean scan that stands."""
    clean: set[Digest] = set()
    for item in situation(workspace, system).evidence:
        said = item.statement.read() if item.holds and item.check == "scan" and item.statement else None
        if isinstance(said, predicates.TestResult) and said.result == "PASSED" and item.statement:
            clean.update(item.statement.about())
    return frozenset(clean)


class Desk:
    """What a check is offered while it is tried here. See ``core.check.Context``."""

    def __init__(
        self, job: Job, services: CheckServices, listener: Listener, targets: ServedTargets | None = None
    ) -> None:
        self._job, self._services, self._listener, self._targets = job, services, listener, targets

    def progress(self, done: int, total: int, note: str = "") -> None:
        """See ``Context.progress``."""
        self._listener.progress(self._job.key, done, total, note)

    def service(self, port: type[T]) -> T:
        """See ``Context.service``. Answers of a server are not kept: it may be another one next time."""
        if self._targets is not None:
            if port is Targets:
                return self._targets  # type: ignore[return-value]  # the port that was asked for
            raise WorkError(
                f"this attack needs {port.__name__}, which is not offered for served models",
                remedy="attack the declared file: leave --url out.",
            )
        found: T = self._services(port)
        return found

    def report_of(self, check: str, artefact_id: str) -> bytes:
        """See ``Context.report_of``."""
        raise KeyError((check, artefact_id))


class ServedTargets:
    """Opens a served model where the declared file would be opened. See ``Targets``."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.sent = self.resent = 0

    def open(self, system: System, model: Artefact) -> AbstractContextManager[Target]:
        """See ``Targets.open``. The server calls classes by their names or by the values of the labels."""
        return self._open(system, model)

    @contextlib.contextmanager
    def _open(self, system: System, model: Artefact) -> Iterator[Target]:
        part = system.model_part(model.name)
        data = system.dataset_part(part.evaluated_on)
        artefact = system.artefact(f"dataset:{data.name}")
        table = read_table(artefact.path, data, digest=artefact.digest)
        made = load("bartizan.adapters.http_target.target:HttpTarget")(
            self._endpoint(part.classes, tuple(read_columns(artefact.path, data))), name=model.id, probe=table.rows
        )
        made.class_values = ()
        try:
            yield made
        finally:
            self.sent, self.resent = self.sent + made.sent, self.resent + made.resent
            made.close()

    def _endpoint(self, classes: tuple[str, ...], columns: tuple[str, ...]) -> Any:
        served = self._served
        return load("bartizan.adapters.http_target.endpoint:Endpoint")(
            url=served.url,
            classes=classes,
            columns=columns,
            speaks=served.speaks,
            inputs=served.inputs,
            outputs=served.outputs,
            headers=load("bartizan.adapters.http_target.endpoint:endpoint_headers")(served.headers),
            seconds=served.seconds,
            patience=served.patience,
            allow_remote=served.allow_remote,
        )

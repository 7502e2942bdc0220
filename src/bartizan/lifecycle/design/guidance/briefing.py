"""Briefings: what one role must know, do and look out for in one declared system.

A briefing names only the techniques that reach the system (its attack map says which) and concern the
role, the declared components where they pass, and the lessons learnt about them. It holds no date and
nothing that was measured: its digest changes exactly when what has to be known changes, and then those
who read the older one are to be briefed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bartizan.catalogue.attackmap import AttackMap, TechniqueOnMap
from bartizan.catalogue.entries import Audience, Family
from bartizan.catalogue.load import Catalogue
from bartizan.core.digest import Digest, digest_bytes, short
from bartizan.core.errors import InputError
from bartizan.core.system import Declaration, Lesson, System
from bartizan.lifecycle.design.guidance.document import Document, Section, Table, to_markdown
from bartizan.lifecycle.design.mapping import attack_map

PREFIX = "briefing:"
"""How briefings are named as subjects and inputs: ``briefing:ROLE``."""
EVERYBODY = "staff"
"""The audience of a role that the catalogue does not know."""
OUTSIDE = frozenset({"communications", "labeller", "user"})
"""Audiences that need no inside view of how failure is handled."""
HELPING = 4
"""Controls named beside a technique."""


def roles_of(declaration: Declaration) -> tuple[str, ...]:
    """Every role that the declaration names, in its order: people, owner, further audiences."""
    return tuple(dict.fromkeys((*declaration.people, declaration.owner.role, *declaration.guidance.audiences)))


def audience_of(catalogue: Catalogue, role: str) -> Audience:
    """Whom the catalogue means by a declared role; everybody, where it knows no better."""
    name = "-".join(role.casefold().replace("_", " ").split())
    for audience in catalogue.audiences.values():
        if name == audience.id or name in audience.aliases:
            return audience
    return catalogue.audiences[EVERYBODY]


def concerning(audience: Audience, document: AttackMap) -> tuple[TechniqueOnMap, ...]:
    """Techniques within reach of the system's adversaries that concern an audience."""
    stages = {point.id: point.stage for point in document.points}
    return tuple(
        technique
        for technique in document.techniques
        if technique.reachable
        and (
            technique.family in audience.families
            or any(stages.get(point) in audience.stages for point in technique.points)
        )
    )


def briefing(system: System, catalogue: Catalogue, role: str, document: AttackMap | None = None) -> Document:
    """The briefing of one role; ``document`` is the system's attack map, when it is there already.

    Raises:
        InputError: the declaration names no such role.
    """
    declaration = system.declaration
    roles = roles_of(declaration)
    if role not in roles:
        raise InputError(
            f"the declaration names no role {role[:80]!r}",
            remedy=f"declared are {', '.join(roles)}; others are named in [people], or under audiences in [guidance].",
        )
    audience = audience_of(catalogue, role)
    document = document or attack_map(system, catalogue)
    techniques = concerning(audience, document)
    learnt = lessons_about(system.lessons, techniques)
    return Document(
        title=f"Briefing for {role}: {declaration.name}",
        lead=f"{declaration.purpose} This is what {audience.title.lower()} must know to keep it secure.",
        sections=(
            Section(title="What you must know", points=audience.know),
            Section(title="What you must do", points=audience.do),
            Section(title="What to look out for", points=audience.watch),
            _personal_data(declaration, audience),
            _labels(system, audience),
            Section(
                title="Attacks that reach this system and concern you",
                text=(f"{len(techniques)} techniques are within reach of {', '.join(document.holding())}.",),
            ),
            *_families(techniques, document, catalogue.families),
            _lessons(learnt),
            _failure(declaration, audience),
            _labs(techniques, catalogue.families),
            _confirm(declaration, role),
        ),
    )


def lessons_about(lessons: Iterable[Lesson], techniques: Iterable[TechniqueOnMap]) -> tuple[Lesson, ...]:
    """Lessons linked to one of the techniques."""
    ids = {technique.id for technique in techniques}
    return tuple(lesson for lesson in lessons if ids.intersection(lesson.techniques))


def digests(system: System, catalogue: Catalogue, roles: Iterable[str]) -> dict[str, Digest]:
    """``briefing:ROLE`` to the digest of the Markdown that the role has to read now."""
    document = attack_map(system, catalogue)
    declared = roles_of(system.declaration)
    return {
        f"{PREFIX}{role}": digest_bytes(to_markdown(briefing(system, catalogue, role, document)).encode())
        for role in roles
        if role in declared
    }


def _personal_data(declaration: Declaration, audience: Audience) -> Section:
    """What holding data about people means for the role; nothing where there are none."""
    held = [part for part in declaration.dataset if part.personal_data]
    if not held:
        return Section(title="Personal data")
    rows = tuple((part.name, part.sensitivity, part.lawful_basis, part.retention, part.destruction) for part in held)
    return Section(
        title="Personal data",
        text=(f"This system holds data about people{_law(declaration)}.",),
        points=audience.personal_data,
        table=Table(("Dataset", "Sensitivity", "Lawful basis", "Kept", "Destroyed"), rows),
    )


def _law(declaration: Declaration) -> str:
    return f", under the law of: {declaration.jurisdiction}" if declaration.jurisdiction else ""


def _labels(system: System, audience: Audience) -> Section:
    """The instructions by which labels are made, in the version that is in force."""
    if audience.id not in {"labeller", "domain", "ml-engineer"}:
        return Section(title="Labelling")
    rows = []
    for part in system.declaration.dataset:
        if part.labelling_instructions:
            digest = _document(system, part.labelling_instructions)
            rows.append((part.name, part.target, part.labelling_instructions, short(digest) if digest else ""))
    return Section(title="Labelling", table=Table(("Dataset", "Label", "Instructions", "Version"), tuple(rows)))


def _document(system: System, name: str) -> Digest | None:
    return next((item.digest for item in system.of_kind("document") if item.name == name), None)


def _families(
    techniques: Iterable[TechniqueOnMap], document: AttackMap, families: Mapping[str, Family]
) -> Iterable[Section]:
    grouped: dict[str, list[TechniqueOnMap]] = {}
    for technique in techniques:
        grouped.setdefault(technique.family, []).append(technique)
    for family in families.values():
        if family.id in grouped:
            rows = tuple(_row(technique, document) for technique in grouped[family.id])
            yield Section(
                title=family.title,
                text=(family.plain,),
                points=(
                    *(f"A sign: {sign}." for sign in family.signs),
                    *(f"A habit: {habit}." for habit in family.habits),
                ),
                table=Table(("Id", "Attack", "By whom", "Where", "What helps"), rows),
            )


def _row(technique: TechniqueOnMap, document: AttackMap) -> tuple[str, ...]:
    points = {point.id: point for point in document.points}
    components = dict.fromkeys(part for point in technique.points for part in points[point].components)
    helping = dict.fromkeys((*technique.preventing, *technique.weakening, *technique.detecting))
    names = [document.mitigation(entry).name for entry in list(helping)[:HELPING]]
    return (
        technique.id,
        technique.name,
        ", ".join(technique.positions) or "several together",
        ", ".join(components) or ", ".join(technique.points),
        "; ".join(names) or "nothing that prevents it",
    )


def _lessons(lessons: Iterable[Lesson]) -> Section:
    return Section(
        title="Lessons learnt",
        points=tuple(f"{item.id} ({', '.join(item.techniques)}) {item.title}: {item.text}" for item in lessons),
    )


def _failure(declaration: Declaration, audience: Audience) -> Section:
    if audience.id in OUTSIDE:
        return Section(title="When something is wrong", text=(_report(declaration),))
    plan = declaration.expected
    return Section(
        title="When something is wrong",
        text=(_report(declaration), f"The plan: {plan.failure_plan}", f"What counts as suspicious: {plan.monitoring}"),
    )


def _report(declaration: Declaration) -> str:
    contact = declaration.people.get("security", declaration.owner.contact)
    return f"Tell {contact} at once; nobody is blamed for a false alarm."


def _labs(techniques: Iterable[TechniqueOnMap], families: Mapping[str, Family]) -> Section:
    names = dict.fromkeys(
        lab for technique in techniques if technique.family in families for lab in families[technique.family].labs
    )
    return Section(
        title="See it for yourself",
        text=("Each lesson runs a real attack in less than a minute, on an example or on this system.",)
        if names
        else (),
        points=tuple(f"`bartizan lab {name}`" for name in names),
    )


def _confirm(declaration: Declaration, role: str) -> Section:
    must = " Until then you cannot approve, review or accept." if declaration.guidance.briefings_required else ""
    word = f"'{role}'" if " " in role else role
    return Section(
        title="Confirm that you have read this",
        text=(
            f'`bartizan decide briefing --about {PREFIX}{word} --role {word} --reason "read and understood"`',
            f"It holds until it expires or until this text changes.{must}",
        ),
    )


__all__ = ["PREFIX", "audience_of", "briefing", "concerning", "digests", "lessons_about", "roles_of"]

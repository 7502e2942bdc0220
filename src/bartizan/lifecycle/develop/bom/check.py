"""The ``bom`` check: the bill of materials of the declared system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.predicates import BOM, Bom
from bartizan.core.system import Artefact, System, settings_digest
from bartizan.lifecycle.develop.bom.difference import undocumented
from bartizan.lifecycle.develop.bom.installed import environment_digest, here
from bartizan.lifecycle.develop.bom.reading import read_bill
from bartizan.lifecycle.develop.bom.writing import Material, encode, write_bill


class BomCheck:
    """See ``core.check.Check``."""

    name = "bom"
    version = "1"
    title = "ML bill of materials"
    controls: tuple[str, ...] = ("2.1-d", "2.1-G1", "GL-2.3")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The system: one bill lists all its models and datasets."""
        return system.of_kind("system")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """Everything that a bill lists."""
        listed = {artefact.id: artefact.digest for artefact in system.artefacts if artefact.kind != "document"}
        environment = {"environment:python": environment_digest()}
        return {**listed, **environment, f"settings:bom:{subject.name}": settings_digest(self.version)}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:  # noqa: ARG002 -- the protocol's signature
        """Write the bill."""
        context.progress(0, 1, "bill of materials")
        return outcome_of(Material(system=system, packages=here()))


def outcome_of(material: Material) -> Outcome:
    """The bill as a statement, with what it leaves undocumented as findings."""
    whole = write_bill(material)
    written = encode(whole)
    bill = read_bill(written)
    findings = undocumented(bill)
    kinds = Counter(component.type for component in bill.components)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return Outcome(
        predicate_type=BOM,
        predicate=Bom(
            bom_format="CycloneDX",
            spec_version=bill.version,
            serial_number=bill.serial,
            metadata=whole["metadata"],
            components=tuple(whole["components"]),
            services=tuple(whole.get("services", ())),
            dependencies=tuple(whole["dependencies"]),
            summary=f"{counted}; {len(findings)} of them not fully documented.",
        ),
        findings=findings,
        report=Blob(written),
    )

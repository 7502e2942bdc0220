"""Judges what a pickle imports, calls, constructs and changes, against the allow-lists.

The machine asks; the judge answers with the symbol to push and notes what is wrong. It never
stops a walk: everything after the first bad call is judged as well.
"""

from __future__ import annotations

from typing import NamedTuple

from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.pickle.arguments import ARGUMENT_RULES
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.policy import Policy, is_torch_script, translate
from bartizan.lifecycle.develop.scan.pickle.reading import Reader
from bartizan.lifecycle.develop.scan.pickle.states import STATE_RULES, RefusedError
from bartizan.lifecycle.develop.scan.pickle.values import Call, DictSymbol, Entry, ListSymbol, Name, Symbol, Use
from bartizan.lifecycle.develop.scan.rules.pickle import RULES
from bartizan.lifecycle.develop.scan.verdict import Verdict

FETCHING = frozenset({"getattr", "ufunc"})
"""Rules of callables that return something importable rather than an instance."""


NEVER_HANDED_ON = frozenset({"getattr", "ufunc", "torch-bytes", "torch-type", "stored-model"})
"""Rules of callables that nobody stores for later: whoever calls them then passes arguments that are not judged."""
SMALL = 64
SCRIPT_CLASS = Entry(Use.CALL | Use.NEW | Use.BUILD | Use.ITEMS)
"""Classes of TorchScript, of which torch archives hold the source."""

LONGEST_NAME = 4096

DANGEROUS = frozenset(rule.id for rule in RULES if rule.verdict is Verdict.DANGEROUS)
UNFORESEEN = (AttributeError, IndexError, KeyError, TypeError)
"""What a rule raises over symbols of a kind that it did not think of: then it refuses."""


class Issue(NamedTuple):
    """One rule that fired, before it becomes a finding."""

    rule: str
    detail: str
    offset: int
    """In the stream."""


class Persistent(NamedTuple):
    """A persistent id as the container's loader expects it."""

    symbol: Symbol
    offset: int


class Judge:
    """Judges one stream."""

    def __init__(
        self, data: Buffer, policy: Policy, limits: Limits, *, torch: bool = False, misread: bool = False
    ) -> None:
        self.reader = Reader(data, limits.reading)
        self.policy = policy
        self.torch = torch
        """Whether a torch loader stands ready to resolve persistent ids."""
        self.misread = misread
        """Whether opcodes are read that were written as array bytes or as a pickle of their own."""
        self.most_issues = limits.findings
        self.issues: list[Issue] = []
        self._mild = 0
        """How many of them are not dangerous."""
        self.dropped = 0
        """Issues beyond ``most_issues``."""
        self.allocated = 0
        """Bytes that calls allocate from mere numbers."""
        self.loaded: set[Symbol] = set()
        """Offsets of constants that are among ``nested`` already."""
        self.nested: list[tuple[Buffer, int]] = []
        """Bytes inside the pickle that loading it would parse again, and where it would."""
        self.persistent_ids: list[Persistent] = []
        self.names: dict[tuple[str, str], Name] = {}
        self._seen: set[tuple[str, str]] = set()
        self._looked_through: dict[int, Symbol] = {}
        """Large containers that were looked through, by identity."""

    def report(self, rule: str, detail: str, offset: int) -> None:
        """Note that a rule fired; the same rule with the same detail is noted once.

        Where no more are kept, what is dangerous takes the place of something that is not.
        """
        if (rule, detail) in self._seen:
            return
        if len(self.issues) >= self.most_issues:
            self.dropped += 1
            if rule not in DANGEROUS or not self._mild:
                return
            self.issues.pop(next(at for at, issue in enumerate(self.issues) if issue.rule not in DANGEROUS))
            self._mild -= 1
        self._mild += rule not in DANGEROUS
        self._seen.add((rule, detail))
        self.issues.append(Issue(rule, detail, offset))

    def find(self, module: str, name: str, protocol: int, offset: int) -> Name:
        """Judge an import and return its symbol.

        An object array inside a joblib file is a pickle with a memo of its own; read in sequence its
        ``numpy.dtype`` becomes the ``dtype`` of whatever text has that place in the outer memo.
        """
        key = translate(module, name, protocol)
        found = self.names.get(key)
        if found is None:
            if self.misread and name == "dtype" and module != "numpy":
                raise BrokenPickleError(f"{module} has no dtype")
            entry = SCRIPT_CLASS if self.torch and is_torch_script(key[0]) else self.policy.entry(*key)
            found = self.names[key] = Name(*key, offset, entry)
            if not found.listed:
                self._judge_import(found)
        return found

    def _judge_import(self, name: Name) -> None:
        danger = self.policy.danger(name.module, name.name)
        if "." in name.name:
            self.report("pickle/dotted-walk", f"walks from {name.module} to {name.name}", name.offset)
            name.used = True
        elif danger:
            self.report("pickle/dangerous-callable", f"imports {name}, which {danger}", name.offset)
            name.used = True

    def find_on_stack(self, module: Symbol, name: Symbol, protocol: int, offset: int) -> Name:
        """Judge a STACK_GLOBAL, whose names come from the stack.

        Raises:
            BrokenPickleError: a name is no text.
        """
        texts = [self.reader.text(part, LONGEST_NAME) for part in (module, name)]
        if texts[0] is not None and texts[1] is not None:
            return self.find(texts[0], texts[1], protocol, offset)
        shown = f"{self._expression(module)}, {self._expression(name)}"
        if all(self.reader.is_text(part) for part in (module, name)):
            self.report("pickle/dotted-walk", f"imports a name of more than {LONGEST_NAME} bytes: {shown}", offset)
        elif all(self.reader.is_text(part) or _may_be_text(part) for part in (module, name)):
            self.report("pickle/computed-name", f"imports a name that is only computed while loading: {shown}", offset)
        else:
            raise BrokenPickleError("STACK_GLOBAL takes a name that is no text")
        computed = Name("<computed>", "<computed>", offset, None)
        computed.used = True
        return computed

    def extension(self, code: int, offset: int) -> Name:
        """Judge an EXT opcode: a number that stands for whatever the loading program registered."""
        if code <= 0:
            raise BrokenPickleError(f"extension code {code} does not exist")
        if self.misread:
            raise BrokenPickleError(f"extension code {code} is not registered by any loader of arrays")
        self.report("pickle/extension-code", f"imports whatever is registered under extension code {code}", offset)
        name = Name("copyreg", f"<extension {code}>", offset, None)
        name.used = True
        return name

    def call(self, callee: Symbol, args: Symbol, offset: int) -> Call | Name:
        """Judge ``callee(*args)``."""
        if callee.__class__ is not Name:
            return self._judge_odd_callee(callee, args, offset)
        callee.used = True
        if not callee.listed:
            self._judge_unlisted_call(callee, args, offset)
            return Call(callee, args, callee)
        if not callee.uses & Use.CALL:
            self._refuse_use(callee, "called", args, offset)
            return Call(callee, args, None)
        result = self._subject(callee, args, offset)
        if callee.args_rule in FETCHING and result is not None:
            return result
        return Call(callee, args, result)

    def new(self, callee: Symbol, args: Symbol, offset: int) -> Call:
        """Judge ``callee.__new__(callee, *args)``."""
        if callee.__class__ is not Name:
            return self._judge_odd_callee(callee, args, offset)
        callee.used = True
        if not callee.listed:
            rule = "pickle/unlisted-class"
            if self.policy.danger(callee.module, callee.name) or callee.module in {"builtins", "types"}:
                rule = "pickle/dangerous-callable"
            self.report(rule, f"constructs {callee}", offset)
        elif not callee.uses & Use.NEW or (callee.state_rule == "ndarray" and args != ()):
            self._refuse_use(callee, "constructed", args, offset)
        return Call(callee, args, callee)

    def _subject(self, callee: Name, args: Symbol, offset: int) -> Name | None:
        """Put the arguments to the callee's rule; returns the class whose instance results."""
        if not callee.args_rule:
            return callee
        if args.__class__ is not tuple:
            self._refuse_arguments(callee, args, "its arguments are not a plain tuple", offset)
            return None
        try:
            return ARGUMENT_RULES[callee.args_rule](self, callee, args, offset)
        except RefusedError as refused:
            self._refuse_arguments(callee, args, str(refused), offset)
            return None
        except UNFORESEEN:
            self._refuse_arguments(callee, args, "they have a shape that nobody foresaw", offset)
            return None

    def _refuse_arguments(self, callee: Name, args: Symbol, why: str, offset: int) -> None:
        self.report("pickle/refused-argument", f"{self._shown(callee, args)}: {why}", offset)

    def _refuse_use(self, callee: Name, how: str, args: Symbol, offset: int) -> None:
        self.report(
            "pickle/refused-use", f"{callee} is {how} as no framework does it: {self._shown(callee, args)}", offset
        )

    def _judge_unlisted_call(self, callee: Name, args: Symbol, offset: int) -> None:
        danger = self.policy.danger(callee.module, callee.name)
        known = danger or callee.module.partition(".")[0] == "<computed>"
        rule = "pickle/dangerous-callable" if known else "pickle/unlisted-callable"
        why = f", which {danger}" if danger else ""
        self.report(rule, f"calls {self._shown(callee, args)}{why}", offset)

    def _judge_odd_callee(self, callee: Symbol, args: Symbol, offset: int) -> Call:
        if callee.__class__ is not Call:
            raise BrokenPickleError("something that is no callable is called")
        cls = _constructed_by_partial(callee)
        if cls is not None and args == ():
            return Call(callee, args, cls)
        self.report("pickle/computed-callable", f"calls the result of a call: {self._shown(callee, args)}", offset)
        return Call(callee, args, None)

    def _shown(self, callee: Symbol, args: Symbol) -> str:
        return self._expression(Call(callee, args, None))

    def _expression(self, symbol: Symbol) -> str:
        """The symbol for people; not worked out once no more issues are kept."""
        return self.reader.expression(symbol) if len(self.issues) < self.most_issues else "..."

    def items(self, target: Symbol, offset: int) -> None:
        """Judge that list items, dict items or set members are handed to an object."""
        if target.__class__ is Name:
            target.used = True
            self.report("pickle/refused-use", f"items are handed to {target} itself", offset)
            return
        subject = target.subject
        if subject is not None and not subject.listed:
            return
        if subject is None or not subject.uses & Use.ITEMS or target.built:
            shown = self._expression(target)
            self.report("pickle/refused-use", f"items are handed to {shown} as no framework does it", offset)

    def build(self, target: Symbol, state: Symbol, offset: int) -> None:
        """Judge that a state is handed to an object."""
        if target.__class__ is Name:
            target.used = True
            self.report("pickle/refused-state", f"attributes of {target} itself are changed", offset)
            return
        if target.__class__ is not Call:
            if self.misread and state.__class__ is not tuple and not self.reader.is_none(state):
                raise BrokenPickleError("something that takes no state is given one")
            self.report("pickle/refused-state", f"{self._expression(target)} takes no state", offset)
            return
        subject = target.subject
        if subject is not None and not subject.listed:
            return
        if subject is None or not subject.uses & Use.BUILD:
            self.report(
                "pickle/refused-state",
                f"{self._expression(target)} is given a state as no framework does it",
                offset,
            )
        elif target.built:
            self.report("pickle/refused-state", f"{subject} is given a state twice", offset)
        elif handed := self.handed_on(state):
            self.report("pickle/refused-state", f"state of {subject}: {handed} is kept for a later call", offset)
        elif subject.state_rule:
            self._judge_state(subject, target, state, offset)

    def _judge_state(self, subject: Name, target: Call, state: Symbol, offset: int) -> None:
        try:
            STATE_RULES[subject.state_rule](self.reader, target, state)
        except RefusedError as refused:
            self.report("pickle/refused-state", f"state of {subject}: {refused}", offset)
        except UNFORESEEN:
            self.report("pickle/refused-state", f"state of {subject} has a shape that nobody foresaw", offset)

    def handed_on(self, state: Symbol) -> Name | None:
        """A callable in a state, or in a container of it, whose arguments could not be judged when it is called."""
        for holder in (state, *(state if state.__class__ in {tuple, DictSymbol} else ())):
            if holder.__class__ not in {tuple, ListSymbol, DictSymbol} or id(holder) in self._looked_through:
                continue
            if len(holder) > SMALL:
                self._looked_through[id(holder)] = holder
            for item in holder:
                if item.__class__ is Name and item.args_rule in NEVER_HANDED_ON:
                    return item
        return None

    def persistent(self, pid: Symbol, offset: int) -> Call | Name:
        """Judge a persistent id: a reference that the loading program resolves.

        To torch ``("module", class, file, source)`` stands for the class; anything else for a storage.
        """
        is_tuple = self.torch and pid.__class__ is tuple and len(pid) > 1
        if is_tuple and self.reader.text(pid[0]) == "module" and pid[1].__class__ is Name:
            return pid[1]
        if self.misread and not self.torch:
            raise BrokenPickleError("loaders of arrays resolve no persistent ids")
        if self.torch:
            self.persistent_ids.append(Persistent(pid, offset))
        else:
            self.report("pickle/persistent-id", f"refers to {self._expression(pid)} outside the pickle", offset)
        return Call(Name("<persistent>", "<object>", offset, None), (pid,), None)

    def finish(self) -> None:
        """Note the names that are imported, not listed and never used."""
        for name in self.names.values():
            if not name.listed and not name.used:
                self.report("pickle/unlisted-name", f"imports {name}", name.offset)


def _constructed_by_partial(callee: Call) -> Name | None:
    """The class of ``partial(Class.__new__, Class, ...)``, the way protocols 2 and 3 write ``NEWOBJ_EX``."""
    if str(callee.callee) != "functools.partial" or callee.state.__class__ is not tuple or len(callee.state) < 2:  # noqa: PLR2004
        return None
    maker, args = callee.state[:2]
    cls = args[0] if args.__class__ is tuple and args else None
    if maker.__class__ is not Name or cls.__class__ is not Name or not maker.name.endswith(".__new__"):
        return None
    return cls if maker.listed and cls.listed and cls.uses & Use.NEW else None


def _may_be_text(symbol: Symbol) -> bool:
    """Whether it is the result of a call that might be a text; instances of listed classes are none."""
    return symbol.__class__ is Call and (symbol.subject is None or not symbol.subject.listed)

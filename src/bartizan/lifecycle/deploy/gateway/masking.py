"""Masking: what reviewers and logs are not to see of persons.

Texts are searched for what identifies a person by its form: addresses of mail and machines, telephone numbers (by the
numbering plans in ``phonenumbers``), bank accounts, payment cards and national numbers (by their check digits, in
``python-stdnum``). Names and free descriptions have no form, and are not found: columns that hold them are declared,
and dropped or digested whole. Time and memory are linear in the length of a text, whatever it holds (CWE-1333).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Literal

import msgspec

from bartizan.core.errors import InputError

Treatment = Literal["keep", "mask", "digest", "drop"]
Sensitivity = Literal["public", "internal", "confidential", "restricted"]
SENSITIVITIES: tuple[Sensitivity, ...] = ("public", "internal", "confidential", "restricted")

MOST_CHARACTERS = 100_000
"""Of one text; the rest is cut off, and said to be."""
MOST_TRIALS = 2_000
"""Numbers of one text that are looked up; from then on everything that looks like one is masked."""
CHUNK = 256
"""Characters that are normalised at once: normalising takes quadratic time on marks that are heaped up."""
CUT, DROPPED = "[cut]", "[dropped]"
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
IDENTIFIERS = (
    "us.ssn", "us.itin", "gb.nhs", "de.idnr", "fr.nir", "es.dni", "es.nie", "it.codicefiscale", "nl.bsn", "pl.pesel",
    "se.personnummer", "ch.ssn", "be.nn", "ca.sin", "br.cpf",
)  # fmt: skip

_LOCAL = re.compile(r"[\w.%+'-]{1,64}+\Z")
_DOMAIN = re.compile(r"[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8}+|\[[0-9A-Fa-f.:]{3,45}+\]")
_ACCOUNT = re.compile(r"[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]){11,30}+")
_MACHINE = re.compile(r"[0-9A-Fa-f:.]{3,45}+")
_TOKEN = re.compile(r"(?=[0-9A-Za-z]{0,16}[0-9])[0-9A-Za-z]{8,17}+(?![0-9A-Za-z])")
_RUN = re.compile(r"[+(]{0,2}[0-9](?:[ ./()-]{0,2}[0-9]){5,39}+")
_DECIMAL = re.compile(r"[0-9]{1,3}\.[0-9]{4,}")
_GROUP = re.compile(r"[0-9]+")
MOST_GROUPS = 8
"""Groups of digits that one number is written in."""
LEAST_DIGITS, MOST_DIGITS = 6, 19
LEAST_IDENTIFIER = 9
"""Digits of a national number without letters."""


class MaskingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[masking]``: what is done with personal data of each class of sensitivity before anybody sees it.

    ``mask`` replaces what identifies a person and shows numbers as a quarter of their range, ``digest`` puts a keyed
    digest in its place (equal values stay recognisable, and nothing else), ``drop`` shows nothing.
    """

    public: Treatment = "mask"
    internal: Treatment = "mask"
    confidential: Treatment = "digest"
    restricted: Treatment = "drop"
    columns: Annotated[tuple[str, ...], msgspec.Meta(max_length=1_000)] = ()
    """Columns that say something of a person; none named: every column of data that is declared as personal."""
    regions: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ("US", "GB")
    """Countries (ISO 3166) whose telephone numbers are found without the country's prefix."""
    identifiers: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = IDENTIFIERS
    """National numbers that are looked for, by their names in ``python-stdnum``."""

    def treatment(self, sensitivity: Sensitivity) -> Treatment:
        """What is done with data of a class."""
        chosen: Treatment = getattr(self, sensitivity)
        return chosen


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    """A text as it may be seen."""

    text: str
    found: dict[str, int] = {}
    """What was masked, and how often."""
    cut: bool = False
    """Whether the text was too long to be shown whole."""


class Masker:
    """Masks texts and values. Made once; 1,000 characters take some milliseconds, and no text a second."""

    def __init__(self, settings: MaskingSettings, key: bytes) -> None:
        """Load what numbers are looked up in.

        Raises:
            InputError: it is not installed, or no such number is known.
        """
        self.settings, self._key = settings, key
        try:
            self._phones = import_module("phonenumbers")
            self._iban, self._luhn = import_module("stdnum.iban"), import_module("stdnum.luhn")
        except ImportError as error:
            raise InputError("masking is not installed", remedy="pip install 'bartizan[serve]'.") from error
        self._identifiers = tuple(_identifier(name) for name in settings.identifiers)
        known = self._phones.SUPPORTED_REGIONS
        if strange := [region for region in settings.regions if region not in known]:
            raise InputError(f"masking.regions: {strange[0]!r} is no country", remedy="write US, GB, DE and so on.")

    def text(self, text: str, treatment: Treatment = "mask") -> Masked:
        """A text as it may be seen under a treatment."""
        if treatment == "drop":
            return Masked(text=DROPPED if text else "", found={"text": 1} if text else {})
        plain = _plain(text[:MOST_CHARACTERS])
        is_cut = len(text) > MOST_CHARACTERS or len(plain) > MOST_CHARACTERS
        plain = plain[:MOST_CHARACTERS]
        if treatment == "keep":
            return Masked(text=plain + CUT * is_cut, cut=is_cut)
        found: Counter[str] = Counter()
        pieces, at = [], 0
        for start, end, kind in self._spans(plain):
            found[kind] += 1
            mark = f"{kind}:{self.digest(plain[start:end])}" if treatment == "digest" else kind
            pieces += [plain[at:start], f"[{mark}]"]
            at = end
        return Masked(text="".join([*pieces, plain[at:], CUT * is_cut]), found=dict(found), cut=is_cut)

    def value(self, value: float, treatment: Treatment, low: float | None = None, high: float | None = None) -> str:
        """A number of a personal column as it may be seen under a treatment."""
        match treatment:
            case "keep":
                return f"{value:.6g}"
            case "digest":
                return f"[{self.digest(repr(value))}]"
            case "drop":
                return DROPPED
        if low is None or high is None or not low < high:
            return "[masked]"
        place = int(4 * (value - low) / (high - low)) if low <= value <= high else -1
        return f"[{QUARTERS[min(place, 3)]}]" if place >= 0 else "[out of range]"

    def digest(self, value: str) -> str:
        """A keyed digest of 40 bits: equal values are recognised, and cannot be guessed without the key."""
        return hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:10]

    def content(self, content: bytes) -> bytes:
        """The bytes of a request or an answer as they may be kept: what reads as text, masked."""
        return self.text(content.decode("utf-8", "replace")).text.encode()

    def _spans(self, text: str) -> list[tuple[int, int, str]]:
        """What is to be masked, in order, without overlaps: what was found first counts."""
        taken = bytearray(len(text))
        spans = []
        for search in (_mails, self._accounts, _machines, self._tokens, self._numbers):
            for start, end, kind in search(text):
                if taken.find(1, start, end) < 0:
                    taken[start:end] = b"\1" * (end - start)
                    spans.append((start, end, kind))
        return sorted(spans)

    def _accounts(self, text: str) -> Iterator[tuple[int, int, str]]:
        """International bank account numbers, by ISO 13616 (modulo 97)."""
        for match in _ACCOUNT.finditer(text):
            words = match[0]
            while len(words) >= 15:  # noqa: PLR2004 - the shortest, of Norway
                if self._iban.is_valid(words):
                    yield match.start(), match.start() + len(words), "account"
                    break
                words = words.rpartition(" ")[0]

    def _tokens(self, text: str) -> Iterator[tuple[int, int, str]]:
        """National numbers of letters and digits."""
        for trial, match in enumerate(_TOKEN.finditer(text)):
            word = match[0]
            if trial >= MOST_TRIALS or (not word.isdigit() and self._is_identifier(word)):
                yield *match.span(), "identifier"

    def _numbers(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Cards, national numbers and telephones among runs of digits that may be grouped."""
        trials = 0
        for match in _RUN.finditer(text):
            groups = [group.span() for group in _GROUP.finditer(match[0])]
            at = 0
            while at < len(groups):
                taken = 1
                for many in range(min(MOST_GROUPS, len(groups) - at), 0, -1):
                    start, end = groups[at][0], groups[at + many - 1][1]
                    start = _lead(match[0], start, end)
                    if _is_fraction(match[0], start):
                        break
                    if not LEAST_DIGITS <= sum(group[1] - group[0] for group in groups[at : at + many]) <= MOST_DIGITS:
                        continue
                    trials += 1
                    kind = self._number(match[0][start:end]) if trials <= MOST_TRIALS else "number"
                    if kind:
                        yield match.start() + start, match.start() + end, kind
                        taken = many
                        break
                at += taken

    def _number(self, written: str) -> str:
        """What a number is; empty for none that identifies anybody, such as a measured one."""
        signs = {letter for letter in written if letter in " ./-"}
        if _DECIMAL.fullmatch(written) or ("." in signs and len(signs) > 1 and not written.startswith("+")):
            return ""
        digits = "".join(letter for letter in written if letter.isdigit())
        if len(digits) >= 13 and digits[0] in "23456" and "." not in signs and self._luhn.is_valid(digits):  # noqa: PLR2004
            return "card"  # they have 13 to 19 digits (ISO/IEC 7812)
        if len(digits) >= LEAST_IDENTIFIER and not written.startswith("+") and self._is_identifier(written):
            return "identifier"
        return "phone" if self._is_phone(written) else ""

    def _is_identifier(self, written: str) -> bool:
        return any(is_valid(written) for is_valid in self._identifiers)

    def _is_phone(self, written: str) -> bool:
        regions: Sequence[str | None] = (None,) if written.startswith("+") else self.settings.regions
        for region in regions:
            try:
                number = self._phones.parse(written, region)
            except self._phones.NumberParseException:
                continue
            if self._phones.is_valid_number(number):
                return True
        return False


def _is_fraction(run: str, start: int) -> bool:
    """Whether what begins here stands behind the point of a number: ``0.4111...``."""
    return start > 1 and run[start - 1] == "." and run[start - 2].isdigit()


def _lead(run: str, start: int, end: int) -> int:
    """Where a number begins whose first digit is at ``start``: a plus belongs to it, and a bracket that it closes."""
    if start and run[start - 1] == "(" and ")" in run[start:end]:
        start -= 1
    return start - 1 if start and run[start - 1] == "+" else start


def _mails(text: str) -> Iterator[tuple[int, int, str]]:
    """Mail addresses, around each at-sign."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.search(text[max(0, at - 64) : at])
        domain = _DOMAIN.match(text, at + 1, at + 600)
        if local and domain:
            yield at - len(local[0]), domain.end(), "mail"
        at = text.find("@", at + 1)


def _machines(text: str) -> Iterator[tuple[int, int, str]]:
    """Addresses of machines: IPv4 and IPv6."""
    for match in _MACHINE.finditer(text):
        word = match[0].rstrip(".:") if not match[0].endswith("::") else match[0]
        if word.count(".") != 3 and word.count(":") < 2:  # noqa: PLR2004 - as the two kinds are written
            continue
        try:
            ipaddress.ip_address(word)
        except ValueError:
            continue
        yield match.start(), match.start() + len(word), "machine"


def _plain(text: str) -> str:
    """The text in its compatibility form with plain digits, without what nobody sees: all are ways around a search."""
    chunks = (text[start : start + CHUNK] for start in range(0, len(text), CHUNK))
    return "".join(
        str(unicodedata.decimal(letter)) if letter.isdecimal() else letter
        for chunk in chunks
        for letter in (chunk if chunk.isascii() else unicodedata.normalize("NFKC", chunk))
        if letter.isprintable() or letter in "\n\t"
    )


def _identifier(name: str) -> Callable[[str], bool]:
    """What says whether a number of a country is valid."""
    try:
        module: Any = import_module(f"stdnum.{name}") if re.fullmatch(r"[a-z]{2}\.[a-z_]{2,32}", name) else None
        is_valid: Callable[[str], bool] = module.is_valid
    except (ImportError, AttributeError) as error:
        remedy = f"write such as {', '.join(IDENTIFIERS[:4])}; see python-stdnum."
        raise InputError(f"masking.identifiers: {name[:40]!r} is not known", remedy=remedy) from error
    return is_valid


def sensitivity_of(declared: Sequence[tuple[Sensitivity, bool]]) -> tuple[Sensitivity, bool]:
    """Class of several datasets together, the worst, and whether any holds personal data."""
    worst = max((SENSITIVITIES.index(sensitivity) for sensitivity, _ in declared), default=len(SENSITIVITIES) - 1)
    return SENSITIVITIES[worst], any(personal for _, personal in declared) or not declared


def view(
    masker: Masker,
    columns: Sequence[str],
    row: Sequence[float],
    ranges: Mapping[str, tuple[float, float]],
    *,
    treatment: Treatment,
    personal: bool,
) -> dict[str, str]:
    """One row as a reviewer sees it: personal columns under the treatment, others as they are."""
    named = set(masker.settings.columns)
    shown = {}
    for place, (name, value) in enumerate(zip(columns or [f"#{at}" for at in range(len(row))], row, strict=True)):
        is_personal = name in named or (personal and not named)
        low, high = ranges.get(name, (None, None))
        shown[name or str(place)] = masker.value(value, treatment if is_personal else "keep", low, high)
    return shown


__all__ = [
    "SENSITIVITIES",
    "Masked",
    "Masker",
    "MaskingSettings",
    "Sensitivity",
    "Treatment",
    "sensitivity_of",
    "view",
]

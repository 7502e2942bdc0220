"""Programs, libraries and compiled code among weights, told by their headers.

Nothing in them is judged: weights need no program, so each one is a finding. Formats: ELF (System V
ABI), PE/COFF and its forerunners, Mach-O (``mach-o/loader.h``, ``mach-o/fat.h``), WebAssembly 1.0
section 5.5, Java class files (JVMS 4.1), Dalvik executables, LLVM bitcode, CPython's ``.pyc``
(PEP 3147, PEP 552), Unix archives of object files, Cosmopolitan's portable programs (llamafile), and
Windows shortcuts (MS-SHLLINK 2.1).
"""

from __future__ import annotations

import re
import struct

from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

PROCESSORS = {3: "x86", 8: "MIPS", 21: "PowerPC", 40: "ARM", 62: "x86-64", 183: "AArch64", 190: "CUDA", 243: "RISC-V"}
"""ELF machine numbers; others are shown as such."""
ELF_TYPES = {1: "object file", 2: "program", 3: "library or program", 4: "core dump"}
PE_MACHINES = {0x14C: "x86", 0x8664: "x86-64", 0xAA64: "AArch64", 0x1C4: "ARM"}
PE_LIBRARY = 0x2000
DOS_HEADER = 64
DOS_PAGE = 512
LATER_PROGRAMS = (b"PE\0\0", b"NE", b"LE", b"LX")
FIRST_JAVA = 45
"""Major version of the first class files; a fat Mach-O has fewer parts than that."""
JAVA_NEWEST = 200
PYC_HEADERS = (8, 12, 16)
"""Bytes before the code object: up to Python 3.2, 3.6, and since."""
PYC_CODE = frozenset({0x63, 0xE3})
PYC_NUMBERS = (range(3000, 4000), range(20121, 62300))
"""Magic numbers of Python 3 and of Python 1.5 to 2.7 (``importlib/_bootstrap_external.py``)."""
SHEBANG = re.compile(rb"#![ \t]*(/[\x21-\x7e]{1,120})(?:[ \t]+([\x20-\x7e]{0,200}))?\r?\n")
LONGEST_FIRST_LINE = 400
PYTHON = re.compile(rb"(?:^|[/ ])(?:python|pypy)[\w.]*(?:\s|$)")


def _report(source: Source, kind: str, rule: str, detail: str, meter: Meter) -> Report:
    draft = Draft(source, kind, meter.limits.findings)
    draft.fire(rule, detail)
    return draft.close()


def examine_elf(source: Source, meter: Meter, _: Examine) -> Report:
    """A program or library for Linux and other systems, or for a graphics processor."""
    head = bytes(source.data[:20])
    detail = "an ELF file that ends in its header"
    if len(head) == 20:  # noqa: PLR2004 -- type and machine end there
        kind, machine = struct.unpack_from(">2H" if head[5] == 2 else "<2H", head, 16)  # noqa: PLR2004 -- big-endian
        what = ELF_TYPES.get(kind, f"file of type {kind}")
        detail = f"an ELF {what} for {PROCESSORS.get(machine, f'processor {machine}')}"
    return _report(source, "elf", "executable/native-code", detail, meter)


def is_windows_program(source: Source) -> bool:
    """Whether this is a program for Windows or DOS and not some text that begins with ``MZ``."""
    head = bytes(source.data[:DOS_HEADER])
    if head[:2] not in {b"MZ", b"ZM"} or len(head) < 28:  # noqa: PLR2004 -- the shortest header
        return False
    if _later_program(source):
        return True
    in_last_page, pages, _, paragraphs = struct.unpack_from("<4H", head, 2)
    size = pages * DOS_PAGE - (DOS_PAGE - in_last_page if in_last_page else 0)
    return bool(in_last_page < DOS_PAGE and paragraphs > 1 and 16 * paragraphs <= size <= len(source.data))


def _later_program(source: Source) -> bytes:
    head = bytes(source.data[:DOS_HEADER])
    if len(head) < DOS_HEADER:
        return b""
    at = struct.unpack_from("<L", head, 60)[0]
    found = bytes(source.data[at : at + 4])
    return next((magic for magic in LATER_PROGRAMS if found.startswith(magic)), b"")


def examine_windows_program(source: Source, meter: Meter, _: Examine) -> Report:
    """A program or library for Windows or DOS."""
    detail = "a DOS or early Windows program"
    if _later_program(source) == b"PE\0\0":
        at = struct.unpack_from("<L", bytes(source.data[60:64]))[0]
        header = bytes(source.data[at + 4 : at + 24]).ljust(20, b"\0")
        machine, flags = struct.unpack_from("<H", header)[0], struct.unpack_from("<H", header, 18)[0]
        what = "library" if flags & PE_LIBRARY else "program"
        detail = f"a Windows {what} for {PE_MACHINES.get(machine, f'machine {machine:#x}')}"
    return _report(source, "windows-program", "executable/native-code", detail, meter)


def examine_mach_o(source: Source, meter: Meter, _: Examine) -> Report:
    """A program or library for macOS or iOS."""
    return _report(source, "mach-o", "executable/native-code", "a Mach-O program or library", meter)


def examine_cafebabe(source: Source, meter: Meter, _: Examine) -> Report:
    """A Java class or a Mach-O file for several processors: both begin with the same four bytes."""
    number = int.from_bytes(bytes(source.data[4:8]), "big")
    if number < FIRST_JAVA:
        detail = f"Mach-O programs or libraries for {number} processors"
        return _report(source, "mach-o", "executable/native-code", detail, meter)
    if not FIRST_JAVA <= number & 0xFFFF <= JAVA_NEWEST:
        detail = "the beginning of a Java class or Mach-O file"
        return _report(source, "mach-o", "executable/native-code", detail, meter)
    return _report(source, "java-class", "executable/bytecode", f"a Java class of version {number & 0xFFFF}", meter)


def examine_wasm(source: Source, meter: Meter, _: Examine) -> Report:
    """A WebAssembly module."""
    return _report(source, "wasm", "executable/bytecode", "a WebAssembly module", meter)


def examine_dex(source: Source, meter: Meter, _: Examine) -> Report:
    """Code for Android's virtual machine."""
    return _report(source, "dex", "executable/bytecode", "a Dalvik executable", meter)


def examine_bitcode(source: Source, meter: Meter, _: Examine) -> Report:
    """Code that LLVM translates for any processor."""
    return _report(source, "llvm-bitcode", "executable/bytecode", "LLVM bitcode", meter)


def examine_object_archive(source: Source, meter: Meter, _: Examine) -> Report:
    """A Unix archive: object files of a static library, or a Debian package."""
    return _report(source, "ar", "executable/native-code", "a Unix archive of object files, or a package", meter)


def examine_portable_program(source: Source, meter: Meter, _: Examine) -> Report:
    """A program for several systems at once; llamafiles are such programs with weights behind them."""
    return _report(source, "portable-program", "executable/native-code", "a portable program (llamafile)", meter)


def examine_gpu_program(source: Source, meter: Meter, _: Examine) -> Report:
    """Code for several graphics processors."""
    return _report(source, "cuda-fatbin", "executable/native-code", "a CUDA fat binary", meter)


def examine_shortcut(source: Source, meter: Meter, _: Examine) -> Report:
    """A Windows shortcut."""
    return _report(source, "windows-shortcut", "executable/shortcut", "a Windows shortcut", meter)


def is_python_bytecode(source: Source) -> bool:
    """Whether this is a ``.pyc`` file: its number, a line break, and a code object behind the header."""
    head = bytes(source.data[:17])
    if head[2:4] != b"\r\n" or not any(int.from_bytes(head[:2], "little") in numbers for numbers in PYC_NUMBERS):
        return False
    return any(at < len(head) and head[at] in PYC_CODE for at in PYC_HEADERS)


def examine_python_bytecode(source: Source, meter: Meter, _: Examine) -> Report:
    """Compiled Python."""
    number = int.from_bytes(bytes(source.data[:2]), "little")
    return _report(source, "pyc", "executable/bytecode", f"compiled Python (number {number})", meter)


def is_started_script(source: Source) -> bool:
    """Whether the first line names the program that runs the rest. Python's own scripts are read as Python."""
    line = SHEBANG.match(bytes(source.data[:LONGEST_FIRST_LINE]))
    return line is not None and not PYTHON.search(line[1] + b" " + (line[2] or b""))


def examine_started_script(source: Source, meter: Meter, _: Examine) -> Report:
    """A script that the system starts."""
    line = bytes(source.data[2:82]).split(b"\n")[0].strip().decode("latin-1")
    return _report(source, "script", "executable/script", f"a script for {line!r}", meter)

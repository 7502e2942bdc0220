"""What each of the rarer opcodes does to the machine. Every function returns the offset that follows.

Names follow CPython's ``load_*`` methods; a step raises where the unpickler would.
"""

from __future__ import annotations

import struct

from bartizan.lifecycle.develop.scan.pickle import constants
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.bulk import Run
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError
from bartizan.lifecycle.develop.scan.pickle.machine import Machine, Step, StopError
from bartizan.lifecycle.develop.scan.pickle.values import (
    Call,
    DictSymbol,
    ListSymbol,
    Name,
    SetSymbol,
    Symbol,
    is_container,
)

KEPT_ITEMS = 512
"""Dicts and tuples with more items than this keep only those that are no constants."""
ABSURD = 1 << 36
"""More bytes than any constant has; CPython 3.8 to 3.13 make room for all of them before they read the first."""


def _count(items: list[Symbol]) -> int:
    """Number of items that stand here; a run is as many as it pushes."""
    return len(items) + sum(item.count() - 1 for item in items if item.__class__ is Run)


def _each(items: list[Symbol]) -> list[Symbol]:
    """The items themselves, runs worked out."""
    if any(item.__class__ is Run for item in items):
        return [each for item in items for each in (item.ready() if item.__class__ is Run else (item,))]
    return items


def _not_constant(items: list[Symbol]) -> list[Symbol]:
    return [item for item in items if item.__class__ is not int]


def _load_proto(machine: Machine, pos: int) -> int:
    protocol = machine.data[pos + 1]
    if protocol > op.HIGHEST_PROTOCOL:
        raise BrokenPickleError(f"protocol {protocol} does not exist")
    machine.protocol = protocol
    return pos + 2


def _load_frame(machine: Machine, pos: int) -> int:
    size = struct.unpack_from("<Q", machine.data, pos + 1)[0]
    if machine.frame_end > pos:
        machine.judge.report("pickle/lying-frame", "a frame begins inside another", pos)
    machine.frame_end = pos + 9 + size
    if machine.frame_end > len(machine.data):
        machine.judge.report("pickle/lying-frame", f"a frame of {size} bytes leads past the end", pos)
    return pos + 9


def _load_counted(machine: Machine, pos: int) -> int:
    width = op.COUNTED[machine.data[pos]][0]
    if width == 8:  # noqa: PLR2004 -- only these can announce that much
        size = struct.unpack_from("<Q", machine.data, pos + 1)[0]
        if size > ABSURD and size > len(machine.data):
            machine.judge.report("pickle/allocation", f"{size} bytes are announced and not there", pos)
    end = constants.counted_span(machine.data, pos)[1]
    machine.stack.append(pos)
    return end


def _load_line(machine: Machine, pos: int) -> int:
    """Text that is no value of its opcode is noted and passed over: unpicklers differ in what they accept."""
    end = constants.line_end(machine.data, pos + 1)
    try:
        constants.check_line(machine.data, pos, end)
    except BrokenPickleError as broken:
        machine.judge.report("pickle/malformed", str(broken), pos)
    machine.stack.append(pos)
    return end + 1


def _load_bytearray8(machine: Machine, pos: int) -> int:
    size = struct.unpack_from("<Q", machine.data, pos + 1)[0]
    if size > 2 * len(machine.data):
        machine.judge.report("pickle/allocation", f"a bytearray of {size} bytes is announced and not there", pos)
    return _load_counted(machine, pos)


def _load_next_buffer(machine: Machine, pos: int) -> int:
    machine.judge.report("pickle/out-of-band", "it needs buffers that are not in the file", pos)
    machine.stack.append(pos)
    return pos + 1


def _load_readonly_buffer(machine: Machine, pos: int) -> int:
    machine.reach(1)
    if not machine.stack:
        raise IndexError
    return pos + 1


def _load_empty_tuple(machine: Machine, pos: int) -> int:
    machine.stack.append(())
    return pos + 1


def _load_tuple(machine: Machine, pos: int) -> int:
    items = machine.pop_items()
    machine.nodes += 1
    if _count(items) > KEPT_ITEMS:
        machine.stack.append(SetSymbol(_not_constant(items)))
    else:
        machine.stack.append(tuple(_each(items)))
    return pos + 1


def _load_tuple1(machine: Machine, pos: int) -> int:
    machine.reach(1)
    machine.nodes += 1
    machine.wraps += 1
    machine.stack[-1] = (machine.stack[-1],)
    return pos + 1


def _load_tuple3(machine: Machine, pos: int) -> int:
    machine.reach(3)
    stack = machine.stack
    machine.nodes += 1
    machine.wraps += 1
    if len(stack) < 3:  # noqa: PLR2004 -- TUPLE3 takes three
        raise IndexError
    stack[-3:] = [tuple(stack[-3:])]
    return pos + 1


def _load_empty_dict(machine: Machine, pos: int) -> int:
    machine.nodes += 1
    machine.stack.append(DictSymbol())
    return pos + 1


def _load_empty_set(machine: Machine, pos: int) -> int:
    machine.nodes += 1
    machine.stack.append(SetSymbol())
    return pos + 1


def _load_frozenset(machine: Machine, pos: int) -> int:
    items = machine.pop_items()
    machine.nodes += 1
    machine.stack.append(SetSymbol(_not_constant(items)))
    return pos + 1


def _load_list(machine: Machine, pos: int) -> int:
    items = machine.pop_mark()
    machine.nodes += 1
    target = ListSymbol()
    target.add(items)
    machine.stack.append(target)
    return pos + 1


def _load_dict(machine: Machine, pos: int) -> int:
    items = machine.pop_mark()
    machine.nodes += 1
    target = DictSymbol()
    _add_pairs(machine, target, items)
    machine.stack.append(target)
    return pos + 1


def _load_append(machine: Machine, pos: int) -> int:
    machine.reach(2)
    value = machine.stack.pop()
    _extend(machine, machine.stack[-1], [value], pos)
    return pos + 1


def _load_appends(machine: Machine, pos: int) -> int:
    target, items = machine.pop_filling()
    _extend(machine, target, items, pos)
    return pos + 1


def _extend(machine: Machine, target: Symbol, items: list[Symbol], pos: int) -> None:
    if target.__class__ is ListSymbol:
        target.add(items)
        for item in items:
            if item.__class__ is DictSymbol or item.__class__ is Run:
                item.drop_constants()
    else:
        _grow(machine, target, items, pos)


def _grow(machine: Machine, target: Symbol, items: list[Symbol], pos: int) -> None:
    """Items for something that is no plain container of their kind: an instance, or what cannot take any."""
    if not items:
        return
    if target.__class__ is Call or target.__class__ is Name:
        machine.judge.items(target, pos)
        if target.__class__ is Call:
            target.grown = (target.grown or []) + _not_constant(items)
    elif target.__class__ is ListSymbol:
        target.extend(_not_constant(_each(items)))  # list[0] = value
    elif target.__class__ is not int or machine.data[target] != op.BYTEARRAY8:
        raise BrokenPickleError("items are added to something that takes none")


def _load_setitem(machine: Machine, pos: int) -> int:
    machine.reach(3)
    value = machine.stack.pop()
    key = machine.stack.pop()
    target = machine.stack[-1]
    if target.__class__ is DictSymbol:
        _add_pairs(machine, target, [key, value])
    else:
        _grow(machine, target, [key, value], pos)
    return pos + 1


def _load_setitems(machine: Machine, pos: int) -> int:
    target, items = machine.pop_filling()
    if target.__class__ is DictSymbol:
        _add_pairs(machine, target, items)
    else:
        _grow(machine, target, items, pos)
    return pos + 1


def _add_pairs(machine: Machine, target: DictSymbol, items: list[Symbol]) -> None:
    count = _count(items)
    if count % 2:
        raise BrokenPickleError("a dict is given a key without a value")
    if target.whole:
        target += items
        machine.nodes += len(items) >> 2
        if _count(target) > 2 * KEPT_ITEMS:
            target.drop_constants()
    else:
        target.extend(_not_constant(items))


def _load_additems(machine: Machine, pos: int) -> int:
    target, items = machine.pop_filling()
    if target.__class__ is SetSymbol:
        target.extend(_not_constant(items))
    else:
        _grow(machine, target, items, pos)
    return pos + 1


def _load_pop(machine: Machine, pos: int) -> int:
    machine.reach(1)
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_items()
    return pos + 1


def _load_pop_mark(machine: Machine, pos: int) -> int:
    machine.pop_items()
    return pos + 1


def _load_dup(machine: Machine, pos: int) -> int:
    machine.reach(1)
    value = machine.stack[-1]
    machine.stack.append(value)
    if is_container(value):
        machine.shares += 1
    return pos + 1


def _index(machine: Machine, pos: int) -> tuple[int, int]:
    """Memo index of the opcode at ``pos``, and the offset behind it."""
    opcode = machine.data[pos]
    if opcode in {op.BINGET, op.BINPUT}:
        return machine.data[pos + 1], pos + 2
    if opcode in {op.LONG_BINGET, op.LONG_BINPUT}:
        return struct.unpack_from("<I", machine.data, pos + 1)[0], pos + 5
    text = constants.line(machine.data, pos + 1)
    try:
        return int(text.partition(b"\x00")[0]), pos + 2 + len(text)
    except ValueError as error:
        raise BrokenPickleError(f"memo index {text[:40]!r} is no number") from error


def _load_get(machine: Machine, pos: int) -> int:
    index, after = _index(machine, pos)
    machine.stack.append(machine.get(index))
    return after


def _load_put(machine: Machine, pos: int) -> int:
    machine.reach(1)
    index, after = _index(machine, pos)
    machine.put(index)
    return after


def _two_lines(machine: Machine, pos: int) -> tuple[str, str, int]:
    try:
        module = constants.line(machine.data, pos + 1)
        second = pos + 2 + len(module)
        name = constants.line(machine.data, second) if second < len(machine.data) else b""
        return module.decode(), name.decode(), pos + 3 + len(module) + len(name)
    except UnicodeDecodeError as error:
        raise BrokenPickleError("an imported name is not UTF-8") from error


def _load_global(machine: Machine, pos: int) -> int:
    module, name, after = _two_lines(machine, pos)
    machine.nodes += 1
    machine.stack.append(machine.judge.find(module, name, machine.protocol, pos))
    return after


def _load_stack_global(machine: Machine, pos: int) -> int:
    machine.reach(2)
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.nodes += 1
    machine.stack.append(machine.judge.find_on_stack(module, name, machine.protocol, pos))
    return pos + 1


def _load_inst(machine: Machine, pos: int) -> int:
    module, name, after = _two_lines(machine, pos)
    callee = machine.judge.find(module, name, machine.protocol, pos)
    args = machine.pop_mark()
    _push_call(machine, machine.judge.call(callee, tuple(args), pos))
    return after


def _load_obj(machine: Machine, pos: int) -> int:
    args = machine.pop_mark()
    callee = args.pop(0)
    _push_call(machine, machine.judge.call(callee, tuple(args), pos))
    return pos + 1


def _load_reduce(machine: Machine, pos: int) -> int:
    machine.reach(2)
    args = machine.stack.pop()
    callee = machine.stack.pop()
    _push_call(machine, machine.judge.call(callee, args, pos))
    return pos + 1


def _load_newobj(machine: Machine, pos: int) -> int:
    machine.reach(2)
    args = machine.stack.pop()
    callee = machine.stack.pop()
    _push_call(machine, machine.judge.new(callee, args, pos))
    return pos + 1


def _load_newobj_ex(machine: Machine, pos: int) -> int:
    machine.reach(3)
    keywords = machine.stack.pop()
    args = machine.stack.pop()
    callee = machine.stack.pop()
    _push_call(machine, machine.judge.new(callee, (args, keywords), pos))
    return pos + 1


def _push_call(machine: Machine, call: Symbol) -> None:
    machine.nodes += 1
    machine.calls += 1
    machine.stack.append(call)


def _load_build(machine: Machine, pos: int) -> int:
    machine.reach(2)
    state = machine.stack.pop()
    target = machine.stack[-1]
    machine.judge.build(target, state, pos)
    if target.__class__ is Call:
        target.state = state if target.state is None else (target.state, state)
        target.built = True
    machine.pos = pos
    return pos + 1 if machine.after_build is None else machine.after_build(machine, pos + 1)


def _load_ext(machine: Machine, pos: int) -> int:
    width = {op.EXT1: 1, op.EXT2: 2, op.EXT4: 4}[machine.data[pos]]
    code = int.from_bytes(bytes(machine.data[pos + 1 : pos + 1 + width]), "little", signed=width == 4)  # noqa: PLR2004
    machine.stack.append(machine.judge.extension(code, pos))
    return pos + 1 + width


def _load_persid(machine: Machine, pos: int) -> int:
    end = constants.line_end(machine.data, pos + 1)
    machine.nodes += 1
    machine.stack.append(machine.judge.persistent(pos, pos))
    return end + 1


def _load_binpersid(machine: Machine, pos: int) -> int:
    machine.reach(1)
    machine.nodes += 1
    machine.stack.append(machine.judge.persistent(machine.stack.pop(), pos))
    return pos + 1


def _load_stop(machine: Machine, pos: int) -> int:
    machine.reach(1)
    if not machine.stack:
        raise IndexError
    if machine.frame_end > pos + 1:
        machine.judge.report("pickle/lying-frame", "the pickle ends before its last frame does", pos)
    raise StopError


_BY_OPCODE: dict[int, Step] = {
    **dict.fromkeys(op.COUNTED, _load_counted),
    **dict.fromkeys(op.LINES, _load_line),
    **dict.fromkeys((op.GET, op.BINGET, op.LONG_BINGET), _load_get),
    **dict.fromkeys((op.PUT, op.BINPUT, op.LONG_BINPUT), _load_put),
    **dict.fromkeys((op.EXT1, op.EXT2, op.EXT4), _load_ext),
    op.PROTO: _load_proto,
    op.FRAME: _load_frame,
    op.BYTEARRAY8: _load_bytearray8,
    op.NEXT_BUFFER: _load_next_buffer,
    op.READONLY_BUFFER: _load_readonly_buffer,
    op.EMPTY_TUPLE: _load_empty_tuple,
    op.TUPLE: _load_tuple,
    op.TUPLE1: _load_tuple1,
    op.TUPLE3: _load_tuple3,
    op.EMPTY_DICT: _load_empty_dict,
    op.EMPTY_SET: _load_empty_set,
    op.FROZENSET: _load_frozenset,
    op.LIST: _load_list,
    op.DICT: _load_dict,
    op.APPEND: _load_append,
    op.APPENDS: _load_appends,
    op.SETITEM: _load_setitem,
    op.SETITEMS: _load_setitems,
    op.ADDITEMS: _load_additems,
    op.POP: _load_pop,
    op.POP_MARK: _load_pop_mark,
    op.DUP: _load_dup,
    op.GLOBAL: _load_global,
    op.STACK_GLOBAL: _load_stack_global,
    op.INST: _load_inst,
    op.OBJ: _load_obj,
    op.REDUCE: _load_reduce,
    op.NEWOBJ: _load_newobj,
    op.NEWOBJ_EX: _load_newobj_ex,
    op.BUILD: _load_build,
    op.PERSID: _load_persid,
    op.BINPERSID: _load_binpersid,
    op.STOP: _load_stop,
}
STEPS: tuple[Step | None, ...] = tuple(_BY_OPCODE.get(opcode) for opcode in range(256))
"""Step by opcode; None for the opcodes that the machine's loop handles itself and for bytes that are no opcode."""

"""Rules for arguments: listed callables that are harmless with some arguments and not with others.

A rule returns the class whose instance the call yields (None when that is not known) and raises
``RefusedError`` with the reason otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bartizan.lifecycle.develop.scan.pickle.arrays import DtypeError, base_layout, layout_of, parse_type, product
from bartizan.lifecycle.develop.scan.pickle.states import RefusedError, is_plain_callable
from bartizan.lifecycle.develop.scan.pickle.values import Call, ListSymbol, Name, Symbol, Use

if TYPE_CHECKING:
    from bartizan.lifecycle.develop.scan.pickle.judge import Judge

ArgumentRule = Callable[["Judge", Name, tuple[Symbol, ...], int], Name | None]

MOST_ALLOCATED = 1 << 26
"""Bytes or items that one call may allocate from a mere number."""
LONGEST_PATTERN = 10_000
_BASES = frozenset({"object", "dict", "list", "set", "frozenset", "tuple", "int", "float", "str", "bytes", "complex"})
_BIT_GENERATORS = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})


def _listed_class(judge: Judge, symbol: Symbol, offset: int) -> Name:
    """The class of which a callable makes an instance; noted when it is not listed."""
    if symbol.__class__ is not Name:
        raise RefusedError("its first argument is no imported class")
    symbol.used = True
    if not symbol.listed:
        judge.report("pickle/unlisted-class", f"constructs {symbol}", offset)
    elif not symbol.uses & Use.NEW:
        raise RefusedError(f"{symbol} is not to be constructed")
    return symbol


def _class_first(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``copyreg.__newobj__(cls, ...)`` and its kind: an instance of the first argument."""
    if not args:
        raise RefusedError("it has no arguments")
    return _listed_class(judge, args[0], offset)


def _reconstructor(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``copyreg._reconstructor(cls, base, state)``."""
    if len(args) != 3:  # noqa: PLR2004 -- its signature
        raise RefusedError("it takes a class, a base and a state")
    cls = _listed_class(judge, args[0], offset)
    base = args[1]
    if base.__class__ is not Name or (base.module, base.name) not in {("builtins", name) for name in _BASES}:
        raise RefusedError("its base is not a built-in class")
    return cls


def _getattr(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``getattr(Class, "inner")``, the way protocols below 4 name nested classes, and bound methods are written."""
    inner = judge.reader.text(args[1]) if len(args) == 2 else None  # noqa: PLR2004
    outer = args[0].subject if inner and args[0].__class__ is Call else args[0]
    if inner is None or outer.__class__ is not Name:
        raise RefusedError("only a nested class or method that is listed may be fetched")
    if judge.policy.entry(outer.module, f"{outer.name}.{inner}") is None:
        raise RefusedError(f"{outer}.{inner} is not listed")
    return judge.find(outer.module, f"{outer.name}.{inner}", 4, offset)


def _partial(_judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    if not args or not is_plain_callable(args[0]):
        raise RefusedError("its function is not a listed one")
    return callee


def _factory(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``defaultdict(factory)``."""
    if args and not judge.reader.is_none(args[0]) and not is_plain_callable(args[0]):
        raise RefusedError("its factory is not a listed class")
    return callee


def _attribute_names(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``operator.attrgetter("name")`` and its kind."""
    for item in args:
        text = judge.reader.text(item)
        if item.__class__ is not int or (text is not None and "__" in text):
            raise RefusedError("only plain attribute names, keys and numbers are expected")
    return callee


def _allocate(judge: Judge, count: int) -> None:
    """Charge what a call allocates from a mere number; all calls of a pickle share one budget."""
    judge.allocated += count
    if judge.allocated > MOST_ALLOCATED:
        raise RefusedError("it allocates more than the file holds")


def _count(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``bytearray(n)`` and its kind: a number alone makes them allocate."""
    for item in args:
        number = judge.reader.number(item)
        if (item.__class__ is Call and str(item.callee) != "_codecs.encode") or (
            number is not None and number > MOST_ALLOCATED
        ):
            raise RefusedError(
                "it allocates more than the file holds" if number else "what it allocates is only computed"
            )
        if callee.name != "range":
            _allocate(judge, max(number or 0, 0))
    return callee


def _items(_judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``list(items)`` and its kind: only from containers that the pickle itself spells out."""
    if any(item.__class__ is Call for item in args):
        raise RefusedError("it unrolls what is only computed")
    return callee


def _type_of(judge: Judge, _callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``type(None)``, the way pickle names NoneType."""
    if len(args) != 1 or not (judge.reader.is_none(args[0]) or str(args[0]) == "builtins.Ellipsis"):
        raise RefusedError("only the type of None or Ellipsis is asked for")
    return None


def _latin1(judge: Judge, _callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``_codecs.encode(text, "latin1")``, the way protocols below 3 write bytes."""
    codec = judge.reader.text(args[1]) if len(args) == 2 else None  # noqa: PLR2004
    if codec not in {"latin1", "latin-1"}:
        raise RefusedError("only latin1 is expected")
    return None


def _pattern(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``re._compile(pattern, flags)``."""
    span = judge.reader.text(args[0]) if args else None
    if span is None or len(span) > LONGEST_PATTERN:
        raise RefusedError("its pattern is no text of sensible length")
    return callee


def _constants(_judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    if any(item.__class__ is not int for item in args):
        raise RefusedError("only constants are expected")
    return callee


def _array(judge: Judge, _callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``array._array_reconstructor(array, typecode, format, bytes)`` and ``array.array(typecode, items)``."""
    if args and str(args[0]) == "array.array":
        args = args[1:]
    if len(args) < 2 or judge.reader.text(args[0]) is None:  # noqa: PLR2004
        raise RefusedError("it takes a type and items")
    if args[-1].__class__ is not ListSymbol and judge.reader.bytes_of(args[-1]) is None:
        raise RefusedError("its items are neither a list nor bytes")
    return judge.find("array", "array", 4, _offset)


def _fraction(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``Fraction("1/3")``; an exponent in the text would be multiplied out."""
    if any("e" in (judge.reader.text(item) or "").lower() for item in args):
        raise RefusedError("an exponent is multiplied out")
    return _constants(judge, callee, args, _offset)


def _masked_array(judge: Judge, callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``numpy.ma.core._mareconstruct(subtype, baseclass, baseshape, basetype)``."""
    if len(args) != 4:  # noqa: PLR2004 -- its signature
        raise RefusedError("it takes two classes, a shape and a type")
    _reconstruct_array(judge, callee, args[1:], offset)
    return _listed_class(judge, args[0], offset)


def _torch_tensor(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`` makes the storage grow as needed."""
    if len(args) < 4:  # noqa: PLR2004 -- its signature
        raise RefusedError("it takes a storage, an offset, a size and a stride")
    first = judge.reader.number(args[1])
    size, stride = judge.reader.numbers(args[2]), judge.reader.numbers(args[3])
    if first is None or size is None or stride is None or len(size) != len(stride) or min((first, *size, *stride)) < 0:
        raise RefusedError("its offset, size and stride are not plain")
    end = first + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) + 1
    held = _storage_length(judge, args[0])
    if 0 not in size and end > (MOST_ALLOCATED if held is None else held):
        raise RefusedError(
            f"it reaches {end} numbers into a storage of {held if held is not None else 'unknown length'}"
        )
    return callee


def _storage_length(judge: Judge, storage: Symbol) -> int | None:
    """Numbers in a storage that a persistent id describes: ``("storage", type, key, location, length)``."""
    if storage.__class__ is not Call or not storage.args or storage.args[0].__class__ is not tuple:
        return None
    pid = storage.args[0]
    return judge.reader.number(pid[4]) if len(pid) >= 5 else None  # noqa: PLR2004


def _torch_type(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``torch._tensor._rebuild_from_type_v2(function, type, arguments, state)`` calls its first argument."""
    if len(args) != 4 or args[0].__class__ is not Name or args[2].__class__ is not tuple:  # noqa: PLR2004
        raise RefusedError("it takes a function, a class, arguments and a state")
    if args[0].args_rule == "torch-type":
        raise RefusedError("it calls itself")
    result = judge.call(args[0], args[2], offset)
    cls = args[1]
    if cls.__class__ is not Name or not cls.listed:
        raise RefusedError("its class is not a listed one")
    if result.__class__ is Call and result.subject is None:
        return None
    if kept := judge.handed_on(args[3]):
        raise RefusedError(f"{kept} is kept for a later call")
    return cls


def _stored_model(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``keras.Model._unpickle_model(BytesIO)`` loads a ``.keras`` file, code included: it is examined as one."""
    stream = args[0] if len(args) == 1 and args[0].__class__ is Call else None
    if stream is None or str(stream.callee) != "_io.BytesIO":
        raise RefusedError("what it loads cannot be read")
    held = next((first[0] for first in (stream.args, stream.state) if first.__class__ is tuple and first), None)
    content = None if held is None else judge.reader.bytes_of(held)
    if content is None:
        raise RefusedError("what it loads cannot be read")
    key = held if held.__class__ is int else id(held)
    if key not in judge.loaded:
        judge.loaded.add(key)
        judge.nested.append((content, offset))
    return None


def _arrow_buffer(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``pyarrow.py_buffer(bytes)``."""
    if len(args) != 1 or _held(judge, args[0]) is None:
        raise RefusedError("it takes the bytes of an array")
    return callee


def _held(judge: Judge, symbol: Symbol) -> int | None:
    """Number of bytes in a constant, or in the way older protocols write bytes; None when it is neither."""
    if symbol.__class__ is Call and str(symbol.callee) == "builtins.bytearray" and symbol.args.__class__ is tuple:
        return _held(judge, symbol.args[0]) if symbol.args else 0
    if symbol.__class__ is Call and str(symbol.callee) == "builtins.bytes" and symbol.args == ():
        return 0
    content = judge.reader.bytes_of(symbol)
    return None if content is None else len(content)


def _arrow_array(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``pyarrow.lib._restore_array((type, length, nulls, offset, buffers, children, dictionary))``.

    Arrow trusts the length: neither of the first two buffers (which items are there; the items, or where each
    begins) may hold less than one bit for every item.
    """
    waiting: list[Symbol] = list(args)
    if len(args) != 1:
        raise RefusedError("it takes one description")
    while waiting:
        part = waiting.pop()
        if part.__class__ is not tuple or len(part) < 7 or part[4].__class__ is not ListSymbol:  # noqa: PLR2004
            raise RefusedError("it is not described as pyarrow does it")
        length, first = judge.reader.number(part[1]), judge.reader.number(part[3])
        if length is None or first is None or min(length, first) < 0:
            raise RefusedError("its length is none")
        sizes = [_buffer_size(judge, buffer) for buffer in part[4]]
        for size in sizes[:2]:
            if size is not None and size * 8 < length:
                raise RefusedError(f"{length} items in a buffer of {size} bytes")
        if part[5].__class__ is ListSymbol:
            waiting += part[5]
    return callee


def _buffer_size(judge: Judge, buffer: Symbol) -> int | None:
    """Bytes in a buffer of an arrow array."""
    if buffer.__class__ is not Call or str(buffer.callee) != "pyarrow.lib.py_buffer":
        raise RefusedError("its buffers are not its own")
    return _held(judge, buffer.args[0]) if buffer.args.__class__ is tuple and buffer.args else None


def _torch_bytes(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``torch.storage._load_from_bytes(bytes)`` is ``torch.load``: the bytes are examined like a file."""
    held = None
    if len(args) == 1:
        key = args[0] if args[0].__class__ is int else id(args[0])
        if key in judge.loaded:
            return None
        judge.loaded.add(key)
        held = judge.reader.bytes_of(args[0])
    if held is None:
        raise RefusedError("what it loads cannot be read")
    judge.nested.append((held, offset))
    return None


def _dtype(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    try:
        base_layout(judge.reader, args)
    except DtypeError as error:
        raise RefusedError(str(error)) from error
    return callee


def _reconstruct_array(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``numpy.core.multiarray._reconstruct(subtype, shape, typecode)``."""
    if len(args) != 3:  # noqa: PLR2004 -- its signature
        raise RefusedError("it takes a class, a shape and a type")
    cls = _listed_class(judge, args[0], offset)
    shape = judge.reader.numbers(args[1])
    if shape is None or product(shape) > MOST_ALLOCATED or any(side < 0 for side in shape):
        raise RefusedError("its shape is not that of an empty array")
    if product(shape):
        _allocate(judge, product(shape) * _item_size(judge, args[2]))
    return cls


def _item_size(judge: Judge, kind: Symbol) -> int:
    """Bytes of one item of a type that is given as text or as bytes."""
    held = judge.reader.bytes_of(kind)
    text = judge.reader.text(kind) if held is None else bytes(held[:16]).decode("latin-1")
    try:
        return max(parse_type(text or "").itemsize, 1)
    except DtypeError as error:
        raise RefusedError(str(error)) from error


def _scalar(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``numpy.core.multiarray.scalar(dtype, bytes)``.

    For a structure with objects in it the second is an array; for an object numpy takes whatever is there.
    """
    try:
        layout = layout_of(judge.reader, args[0] if args else None)
    except DtypeError as error:
        raise RefusedError(f"its dtype: {error}") from error
    if layout.has_object and base_layout(judge.reader, args[0].args).has_object:
        raise RefusedError("a scalar is no object")
    if layout.has_object:
        subject = args[1].subject if len(args) == 2 and args[1].__class__ is Call else None  # noqa: PLR2004
        if subject is None or not subject.listed or subject.name not in {"ndarray", "NumpyArrayWrapper"}:
            raise RefusedError("its item is no array")
        return callee
    if len(args) != 2 or _held(judge, args[1]) != layout.itemsize:  # noqa: PLR2004 -- its signature
        raise RefusedError("it has not as many bytes as its dtype says")
    return callee


def _buffer_array(judge: Judge, _callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``numpy.core.numeric._frombuffer(buffer, dtype, shape, order)``."""
    if len(args) < 3:  # noqa: PLR2004 -- its signature
        raise RefusedError("it takes a buffer, a dtype and a shape")
    try:
        layout = layout_of(judge.reader, args[1])
    except DtypeError as error:
        raise RefusedError(f"its dtype: {error}") from error
    if layout.has_object:
        raise RefusedError("objects cannot come from a buffer")
    return judge.find("numpy", "ndarray", 4, _offset)


def _ufunc(judge: Judge, _callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``numpy.core._ufunc_reconstruct(module, name)`` imports any module and fetches any attribute."""
    texts = [judge.reader.text(item) for item in args]
    if len(texts) != 2 or texts[0] is None or texts[1] is None:  # noqa: PLR2004
        raise RefusedError("it takes a module and a name")
    name = judge.find(texts[0], texts[1], 4, offset)
    name.used = True
    if not name.listed:
        raise RefusedError(f"{name} is not listed")
    return name


def _bit_generator(judge: Judge, callee: Name, args: tuple[Symbol, ...], _offset: int) -> Name | None:
    """``numpy.random._pickle.__bit_generator_ctor(name or class)``."""
    if args and args[0].__class__ is Name:
        if not args[0].listed or not args[0].module.startswith("numpy.random."):
            raise RefusedError("it is no bit generator of numpy")
    elif args and judge.reader.text(args[0]) not in _BIT_GENERATORS:
        raise RefusedError("it is no bit generator of numpy")
    return callee


def _generator(judge: Judge, callee: Name, args: tuple[Symbol, ...], offset: int) -> Name | None:
    """``numpy.random._pickle.__generator_ctor(bit_generator, constructor)`` calls its second argument."""
    for constructor in args[1:]:
        if str(constructor) != "numpy.random._pickle.__bit_generator_ctor":
            raise RefusedError("it calls something that makes no bit generator")
    if args and args[0].__class__ is not Call:
        _bit_generator(judge, callee, args[:1], offset)
    return callee


ARGUMENT_RULES: dict[str, ArgumentRule] = {
    "class-first": _class_first,
    "reconstructor": _reconstructor,
    "getattr": _getattr,
    "partial": _partial,
    "factory": _factory,
    "attribute-names": _attribute_names,
    "count": _count,
    "items": _items,
    "type-of": _type_of,
    "latin1": _latin1,
    "pattern": _pattern,
    "dtype": _dtype,
    "reconstruct-array": _reconstruct_array,
    "scalar": _scalar,
    "buffer-array": _buffer_array,
    "ufunc": _ufunc,
    "array": _array,
    "constants": _constants,
    "fraction": _fraction,
    "masked-array": _masked_array,
    "torch-tensor": _torch_tensor,
    "torch-bytes": _torch_bytes,
    "torch-type": _torch_type,
    "stored-model": _stored_model,
    "arrow-buffer": _arrow_buffer,
    "arrow-array": _arrow_array,
    "bit-generator": _bit_generator,
    "generator": _generator,
}

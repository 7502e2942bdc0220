"""Examines HDF5 files: every object, attribute and dataset that its root leads to.

HDF5 itself runs no code, but a file may send its reader to other files (external storage, external
links, virtual datasets), have it load plug-ins (filters) and reserve any amount of memory. What
attributes hold is judged by its content: Keras rebuilds a model from them, PyTables unpickles them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.formats.hdf5 import datasets as ds
from bartizan.lifecycle.develop.scan.formats.hdf5 import groups
from bartizan.lifecycle.develop.scan.formats.hdf5 import messages as ms
from bartizan.lifecycle.develop.scan.formats.hdf5.file import (
    BrokenHdf5Error,
    Cursor,
    File,
    UnknownHdf5Error,
    find_superblock,
    open_file,
)
from bartizan.lifecycle.develop.scan.formats.hdf5.heaps import COLLECTION, read_collection
from bartizan.lifecycle.develop.scan.formats.keras import PICKLES, examine_config
from bartizan.lifecycle.develop.scan.limits import MIB, LimitError, Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGS = frozenset({"model_config", "training_config"})
"""Attributes of the root that Keras rebuilds a model from."""
CONTAINERS = frozenset({"pickle", "zip", "gzip", "bzip2", "xz", "zfile", "elf", "7z", "rar", "hdf5", "tar"})
"""Kinds that are examined wherever they stand as a value."""
BYTES_LIKE = frozenset({ms.FIXED, ms.STRING, ms.BITS, ms.OPAQUE, ms.SEQUENCE})
MARKS = (b"\x80\x04\x95", b"\x80\x05\x95", b"PK\x03\x04", b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x01\x01")
"""Beginnings of content that loads, distinct enough to be looked for anywhere in unused space."""
BUILT_IN_FILTERS = frozenset({0, 1, 2, 3, 4, 5, 6})
COMMON_FILTERS = frozenset({305, 307, 32000, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32019, 32026, 32030})
"""LZO and bzip2 of PyTables, LZF of h5py, and what hdf5plugin brings: Blosc, LZ4, bitshuffle, ZFP, Zstandard ...

Numbers: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md.
"""
DEFLATE = 1
MOST_VALUES = 100_000
"""Texts of variable length read from one attribute."""
MOST_HITS = 100
"""Places in unused space that are examined."""
MOST_HEAPS = 100_000
UNUSED = 16 * MIB
"""Bytes looked at in one piece of unused space."""
MOST_UNUSED = 512 * MIB
"""Bytes looked at in all of them."""


class Place(NamedTuple):
    """An object that a link leads to."""

    at: int
    path: str


class _Dataset(NamedTuple):
    """The messages of one dataset, read."""

    path: str
    datatype: ms.Datatype
    size: int
    """Bytes of all elements."""
    layout: ds.Layout
    message: ms.Message
    filters: list[ms.Filter]


class Hdf5Examiner:
    """Examines one file."""

    def __init__(self, source: Source, meter: Meter, examine: Examine, file: File) -> None:
        self.source = source
        self.meter = meter
        self.examine = examine
        self.file = file
        self.draft = Draft(source, "hdf5", meter.limits.findings)
        self.counts = dict.fromkeys(("groups", "datasets", "attributes"), 0)
        self.declared = 0
        """Bytes that all datasets together claim to have."""
        self.collections: dict[int, dict[int, tuple[int, int]]] = {}

    def run(self) -> Report:
        """Walk the objects, then look at what no object claims."""
        self._judge_frame()
        try:
            self._walk()
        except LimitError as limit:
            self.draft.miss(str(limit), rule="file/limit")
        self._judge_size()
        try:
            self._judge_unused()
        except LimitError as limit:
            self.draft.miss(str(limit), rule="file/limit")
        for what, at in self.file.faults:
            self.draft.fire("hdf5/malformed", f"the checksum of {what} is wrong", at)
        self.draft.facts |= {key: count for key, count in self.counts.items() if count}
        return self.draft.close()

    def _judge_frame(self) -> None:
        """What lies before the superblock and behind the end that it names."""
        file, size = self.file, len(self.source.data)
        if file.end > size:
            self.draft.fire("hdf5/size", f"{file.end - size} bytes are missing", size)
        elif file.end < size and any(bytes(file.data[file.end : file.end + MIB])):
            self.draft.gap(file.end, size, "follow the end of the file")
            self._member("<bytes at the end>", file.end, size)
        if file.base not in {0, file.start}:
            self.draft.fire("hdf5/malformed", f"addresses begin at {file.base}, the file at {file.start}", file.start)
        if file.driver is not None:
            self.draft.miss("it is part of a file that is spread over several")
        if file.start:
            self._judge_user_block(window(file.data, 0, file.start))

    def _judge_user_block(self, block: memoryview) -> None:
        """The bytes before the superblock belong to whoever wrote the file: nothing, text, or anything."""
        raw = bytes(block[: 4 * MIB])
        if not raw.strip(b"\0") or (_is_text(raw.rstrip(b"\0")) and detect(block) in {"unknown", "maybe-pickle"}):
            report = self.examine(self.source.child("<user block>", block)) if raw[:1] != b"\0" else None
            if report is not None and report.format in PICKLES:
                self.draft.members.append(report)
            return
        self.draft.members.append(self.examine(self.source.child("<user block>", block)))

    def _walk(self) -> None:
        todo = [Place(self.file.root, "/")]
        if self.file.extension is not None:
            todo.append(Place(self.file.extension, "<superblock extension>"))
        seen = {place.at for place in todo}
        while todo:
            place = todo.pop()
            for link in self._object(place):
                if link.at not in seen:
                    if len(seen) >= self.meter.limits.members:
                        raise LimitError(f"more than {self.meter.limits.members} objects")
                    seen.add(link.at)
                    todo.append(link)

    def _object(self, place: Place) -> list[Place]:
        """Judge one object; returns the objects that it links to."""
        found: list[Place] = []
        try:
            messages = ms.read_header(self.file, place.at)
        except (BrokenHdf5Error, UnknownHdf5Error) as error:
            self._note(error, place.path)
            return found
        kinds = {message.kind for message in messages}
        self.counts["datasets" if ms.LAYOUT in kinds else "groups"] += ms.DATATYPE not in kinds or ms.LAYOUT in kinds
        for message in messages:
            try:
                self._message(message, place, found)
            except (BrokenHdf5Error, UnknownHdf5Error) as error:
                self._note(error, place.path)
        if ms.LAYOUT in kinds:
            try:
                self._dataset(messages, place)
            except (BrokenHdf5Error, UnknownHdf5Error) as error:
                self._note(error, place.path)
        return found

    def _note(self, error: Exception, path: str) -> None:
        """An object could not be read: damaged, or kept in a way that this reader does not know."""
        if isinstance(error, BrokenHdf5Error):
            self.draft.fire("hdf5/malformed", f"{path[:120]}: {error}")
        self.draft.miss(f"{path[:120]} was not read whole: {error}")

    def _message(self, message: ms.Message, place: Place, found: list[Place]) -> None:
        file = self.file
        if message.kind == ms.SYMBOL_TABLE:
            self._links(groups.symbol_table(file, message), place, found)
        elif message.kind == ms.LINK:
            self._links(iter([groups.read_link(message.open(file))]), place, found)
        elif message.kind == ms.LINK_INFO:
            self._links(map(groups.read_link, groups.dense(file, message, groups.NAME_TREES, 8)), place, found)
        elif message.kind == ms.ATTRIBUTE:
            self._attribute(ms.resolve(file, message).open(file), place)
        elif message.kind == ms.ATTRIBUTE_INFO:
            for cursor in groups.dense(file, message, groups.ATTRIBUTE_TREES, 2):
                self._attribute(cursor, place)
        elif message.kind in {ms.SHARED_TABLE, ms.DRIVER}:
            raise UnknownHdf5Error("messages shared through a heap, or a file spread over several")
        elif message.kind > ms.LAST_KIND and message.flags & ms.MUST_UNDERSTAND:
            raise UnknownHdf5Error(f"a message of kind {message.kind:#x}")

    def _links(self, links: Iterator[groups.Link], place: Place, found: list[Place]) -> None:
        for link in links:
            name = link.name.decode("utf-8", "backslashreplace")
            path = f"{place.path.rstrip('/')}/{name}" if len(place.path) < 1000 else place.path  # noqa: PLR2004
            if link.kind == groups.HARD and link.target is not None:
                found.append(Place(link.target, path))
            elif link.kind == groups.EXTERNAL:
                self.draft.fire("hdf5/external-link", f"{path[:120]} leads to {_shown(link.value[1:])}")
            elif link.kind != groups.SOFT:
                self.draft.fire("hdf5/link-class", f"{path[:120]} is a link of class {link.kind}")

    # Attributes

    def _attribute(self, cursor: Cursor, place: Place) -> None:
        """An attribute message (0x0C)."""
        self.counts["attributes"] += 1
        version = cursor.uint(1)
        if version not in {1, 2, 3}:
            raise UnknownHdf5Error(f"an attribute of version {version}")
        flags = cursor.uint(1)
        sizes = [cursor.uint(2) for _ in range(3)]
        cursor.skip(1 if version == 3 else 0)  # noqa: PLR2004 -- character set
        parts = []
        for size in sizes:
            parts.append(Cursor(self.file, cursor.at, min(cursor.at + size, cursor.end), "attribute"))
            cursor.skip(size + (-size % 8 if version == 1 else 0))
        name = parts[0].take(sizes[0]).rstrip(b"\0").decode("utf-8", "backslashreplace")
        datatype = ms.read_type(self._shared(parts[1], ms.DATATYPE, is_shared=bool(flags & 1 and version > 1)))
        shape = ms.read_shape(self._shared(parts[2], ms.DATASPACE, is_shared=bool(flags & 2 and version > 1)))
        size = datatype.size * ms.count(shape)
        if size > cursor.left:
            raise BrokenHdf5Error(f"attribute {name[:80]!r} has {size} bytes and there are {cursor.left}")
        for value in self._values(cursor.at, size, datatype):
            self._value(value, name, place)

    def _shared(self, cursor: Cursor, kind: int, *, is_shared: bool) -> Cursor:
        return ms.shared(self.file, cursor, kind).open(self.file) if is_shared else cursor

    def _values(self, at: int, size: int, datatype: ms.Datatype) -> Iterator[tuple[int, int]]:
        """Start and end of each value that consists of bytes."""
        if datatype.kind == ms.SEQUENCE:
            yield from self._variable(at, size, datatype)
        elif datatype.kind == ms.STRING and datatype.size:
            for start in range(at, min(at + size, at + MOST_VALUES * datatype.size), datatype.size):
                yield start, start + datatype.size
        elif datatype.kind in BYTES_LIKE:
            yield at, at + size

    def _variable(self, at: int, size: int, datatype: ms.Datatype) -> Iterator[tuple[int, int]]:
        """Values of variable length, kept in the global heap."""
        cursor = Cursor(self.file, at, at + size, "attribute")
        width = datatype.base.size if datatype.base else 1
        if size // max(1, datatype.size) > MOST_VALUES:
            raise LimitError(f"an attribute of more than {MOST_VALUES} values")
        while cursor.left >= 8 + self.file.offset_size:
            length, place, index = cursor.uint(4), cursor.address(), cursor.uint(4)
            if place is None or not index:
                continue
            if place not in self.collections:
                self.collections[place] = read_collection(self.file, place)
            if index not in self.collections[place]:
                if length:
                    raise BrokenHdf5Error(f"object {index} is not in the global heap at {place}")
                continue
            start, end = self.collections[place][index]
            if length * width > end - start:
                raise BrokenHdf5Error(f"a value at {start} has {length * width} bytes and there are {end - start}")
            yield start, start + length * width

    def _value(self, span: tuple[int, int], name: str, place: Place) -> None:
        """Judge one value of an attribute: a configuration of Keras, or content that loads."""
        part = window(self.file.data, *span)
        shown = f"{place.path[:200]}@{name[:80]}"
        raw = bytes(part[: self.meter.limits.header])
        if (name in CONFIGS and place.path == "/") or b'"class_name"' in raw:
            self.draft.facts["keras"] = "model"
            self.draft.members.append(examine_config(self.source.child(shown, raw.rstrip(b"\0")), self.meter))
            if len(raw) < len(part):
                self.draft.miss(f"{shown} is longer than {self.meter.limits.header} bytes", rule="file/limit")
            return
        self._content(shown, part, is_text=raw.rstrip(b"\0").endswith(b"."))

    def _content(self, name: str, part: memoryview, *, is_text: bool = False) -> None:
        """Examine a value when it is something that loads. ``is_text``: it may be a pickle without signature."""
        kind = detect(part)
        if kind not in CONTAINERS and not (is_text and kind == "maybe-pickle"):
            return
        report = self.examine(self.source.child(name, part))
        if report.format in {"unknown", "tensor"} or (kind == "maybe-pickle" and report.format not in PICKLES):
            return
        if report.format in PICKLES and report.verdict in {Verdict.MALFORMED, Verdict.UNKNOWN}:
            return  # numbers that begin like a pickle
        self.draft.members.append(report)

    def _member(self, name: str, start: int, end: int) -> None:
        self._content(name, window(self.file.data, start, end), is_text=True)

    # Datasets

    def _dataset(self, messages: list[ms.Message], place: Place) -> None:
        dataset = self._read_dataset(messages, place)
        if dataset is None:
            return
        self.declared += dataset.size
        for each in dataset.filters:
            if each.number not in BUILT_IN_FILTERS | COMMON_FILTERS:
                self.draft.fire("hdf5/filter", f"{place.path[:120]} needs filter {each.number} {_shown(each.name)}")
        kinds = {ds.VIRTUAL: self._virtual, ds.CHUNKED: self._chunked}
        kinds.get(dataset.layout.kind, self._plain)(dataset)

    def _read_dataset(self, messages: list[ms.Message], place: Place) -> _Dataset | None:
        """The dataset that the messages describe; None when it keeps its elements in other files."""
        file = self.file
        by_kind = {message.kind: ms.resolve(file, message) for message in messages if message.kind in _OF_A_DATASET}
        if external := by_kind.get(ms.EXTERNAL):
            self.draft.fire("hdf5/external-file", f"{place.path[:120]} reads {self._external(external)}")
            return None
        if not {ms.DATATYPE, ms.DATASPACE} <= by_kind.keys():
            raise BrokenHdf5Error("a dataset without type or shape")
        datatype = ms.read_type(by_kind[ms.DATATYPE].open(file))
        size = datatype.size * ms.count(ms.read_shape(by_kind[ms.DATASPACE].open(file)))
        filters = ms.read_filters(by_kind[ms.FILTERS].open(file)) if ms.FILTERS in by_kind else []
        message = by_kind[ms.LAYOUT]
        return _Dataset(place.path, datatype, size, ds.read_layout(message.open(file)), message, filters)

    def _external(self, message: ms.Message) -> str:
        try:
            return ", ".join(_shown(name) for name in ds.external_names(self.file, message.open(self.file))[:10])
        except (BrokenHdf5Error, UnknownHdf5Error) as error:
            return f"files whose names cannot be read: {error}"

    def _plain(self, dataset: _Dataset) -> None:
        """Elements one after the other, in the header or elsewhere."""
        start, size = dataset.layout.start, dataset.layout.size
        size = dataset.size if size is None else size
        if start is None or not size:
            return
        if size < dataset.size:
            self.draft.fire(
                "hdf5/size", f"{dataset.path[:120]} takes {dataset.size} bytes and has {size}", dataset.message.start
            )
        if start + size > len(self.file.data):
            self.draft.fire("hdf5/size", f"{dataset.path[:120]} leads past the end", dataset.message.start)
            return
        self.file.cursor(start, size, "dataset")
        self._content(dataset.path[:200], window(self.file.data, start, start + size))

    def _chunked(self, dataset: _Dataset) -> None:
        """Elements in pieces, which may be compressed."""
        layout = dataset.layout
        if layout.start is None:
            return
        if layout.finder == 0:
            chunks = ds.read_chunks(self.file, layout)
        elif layout.finder == ds.SINGLE_CHUNK:
            size = dataset.size if layout.size is None else layout.size
            self.file.cursor(layout.start, size, "chunk")
            chunks = [(layout.start, size)]
        else:
            return  # an index over many chunks of numbers: what it claims is looked at as unused space
        if chunks and dataset.datatype.kind in BYTES_LIKE:
            self._first_chunk(dataset, *chunks[0])

    def _first_chunk(self, dataset: _Dataset, start: int, size: int) -> None:
        """Look at how the elements begin."""
        part = window(self.file.data, start, start + size)
        filters = [each.number for each in dataset.filters]
        if filters == [DEFLATE]:
            try:
                part = memoryview(zlib.decompressobj().decompress(part, 16 * MIB))
            except zlib.error:
                return
        elif filters:
            return
        self._content(dataset.path[:200], part)

    def _virtual(self, dataset: _Dataset) -> None:
        """Elements of other datasets, in this file or in others."""
        try:
            names = ds.virtual_sources(self.file, dataset.message, dataset.layout)
        except (BrokenHdf5Error, UnknownHdf5Error) as error:
            self.draft.fire("hdf5/virtual-dataset", f"{dataset.path[:120]} reads files that cannot be told: {error}")
            return
        others = sorted({name for name in names if name != b"."})
        if others:
            shown = ", ".join(_shown(name) for name in others[:10])
            self.draft.fire("hdf5/virtual-dataset", f"{dataset.path[:120]} reads {shown}")

    # The whole

    def _judge_size(self) -> None:
        """Elements that a reader reserves memory for, against what the file holds."""
        limits = self.meter.limits
        if self.declared > limits.ratio_from and self.declared > limits.ratio * len(self.source.data):
            self.draft.fire(
                "hdf5/bomb", f"datasets of {self.declared} bytes in a file of {len(self.source.data)}", self.file.start
            )

    def _judge_unused(self) -> None:
        """Space that no structure claims is legal; content in it that loads is not there by accident."""
        at, hits, budget = self.file.start, 0, MOST_UNUSED
        end = min(self.file.end, len(self.source.data))
        for start, after in [*sorted(self.file.claimed), (end, end)]:
            if start > at and hits < MOST_HITS and budget > 0:
                raw = bytes(self.file.data[at : min(start, at + UNUSED)])
                budget -= len(raw)
                if any(raw):
                    hits += self._unused(at, start, raw)
            at = max(at, after)

    def _unused(self, start: int, end: int, raw: bytes) -> int:
        """Look at one piece of unused space; returns how many places were examined."""
        heaps = self._values_of_datasets(start, raw)
        begin = start + len(raw) - len(raw.lstrip(b"\0"))
        places = {begin} if detect(window(self.file.data, begin, end)) in CONTAINERS else set()
        places |= {start + at for mark in MARKS for at in _finds(raw, mark)}
        found = [at for at in sorted(places) if not any(first <= at < last for first, last in heaps)][:MOST_HITS]
        for at in found:
            members = len(self.draft.members)
            self._member(f"<unused bytes at {at}>", at, end)
            if len(self.draft.members) > members:
                self.draft.gap(at, end, "of unused space hold content that loads")
        return len(found)

    def _values_of_datasets(self, start: int, raw: bytes) -> list[tuple[int, int]]:
        """Examine the global heaps in a piece: values of variable length, which datasets refer to."""
        heaps = []
        for at in _finds(raw, COLLECTION + b"\x01\0\0\0", MOST_HEAPS):
            try:
                values = read_collection(self.file, start + at)
            except (BrokenHdf5Error, UnknownHdf5Error):
                continue  # what is left of a heap that was given up
            heaps.append((start + at, self.file.claimed[-1][1]))
            for first, last in values.values():
                is_text = bytes(self.file.data[max(first, last - 1) : last]) == b"."
                self._content(f"<value at {first}>", window(self.file.data, first, last), is_text=is_text)
        return heaps


_OF_A_DATASET = frozenset({ms.DATASPACE, ms.DATATYPE, ms.EXTERNAL, ms.LAYOUT, ms.FILTERS})


def _finds(raw: bytes, mark: bytes, most: int = MOST_HITS) -> Iterator[int]:
    """The first places of a mark."""
    at = raw.find(mark)
    found = 0
    while at >= 0 and found < most:
        yield at
        found += 1
        at = raw.find(mark, at + 1)


def _is_text(raw: bytes) -> bool:
    try:
        return raw.decode().isprintable() or not any(byte < 9 or 13 < byte < 32 for byte in raw)  # noqa: PLR2004
    except UnicodeDecodeError:
        return False


def _shown(raw: bytes) -> str:
    return repr(raw.replace(b"\0", b" ").strip().decode("utf-8", "backslashreplace")[:120])


def examine_hdf5(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a file whose superblock stands at its beginning or behind a user block."""
    start = find_superblock(source.data)
    if start is None:
        return _unread(source, meter, BrokenHdf5Error("there is no superblock"))
    try:
        file = open_file(source.data, start)
    except (BrokenHdf5Error, UnknownHdf5Error) as error:
        return _unread(source, meter, error)
    return Hdf5Examiner(source, meter, examine, file).run()


def _unread(source: Source, meter: Meter, error: Exception) -> Report:
    """Report on a file whose first structure cannot be read."""
    draft = Draft(source, "hdf5", meter.limits.findings)
    if isinstance(error, BrokenHdf5Error):
        draft.fire("hdf5/malformed", str(error), 0)
    draft.miss(f"the superblock cannot be read: {error}", Coverage.NOT_EXAMINED)
    return draft.close()

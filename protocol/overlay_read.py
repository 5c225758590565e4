"""Reads Cap'n Proto structs straight from the bytes that travelled, by the layouts of the compiled schema.

One reader per message type is built at first use from its layout: all numbers and pointers of a struct, or of a whole
list of them, are unpacked in one call. Shorter structs (an older writer) read as zero, longer ones (a newer writer) as
far as they are known. Readers raise PeerViolation and return values within the bounds of ``fields``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import isfinite
from operator import itemgetter
from typing import Any

from librt.strings import read_i64_le

from protocol.compiled import compiled
from protocol.errors import PeerViolation
from protocol.fields import Field, Kind
from protocol.layout import ELEMENT_SIZE, FORMAT, WORD, Layout, layout_of
from protocol.messages import Message
from protocol.rows import NO_WINDOWS, Intents, Windows
from protocol.segment import BYTES, COMPOSITE, LIST_KIND, Segment

Cells = tuple[Any, ...]
"""What one ``layout.row`` unpacks to: numbers, then the halves of each pointer."""
StructReader = Callable[[Segment, int, int, int], Message]
"""(segment, position, data words, pointer count) to a message."""
PointerReader = Callable[[Segment, int, int, int], Any]
"""(segment, position after the pointer, its lower and upper half) to a field's value. 0 and 0 is null."""
RowsReader = Callable[[Segment, int, int, int], list[Message]]
"""Like a ``PointerReader``, for a list of structs."""


def read_root(message_type: type[Message], data: bytes, bytes_max: int) -> Message:
    """The message whose struct is the root of ``data``. Raises PeerViolation."""
    segment = Segment(data, bytes_max)
    return struct_reader(message_type)(segment, *segment.root())


# --- structs ---------------------------------------------------------------------------------------------------------


@cache
def struct_reader(message_type: type[Message]) -> StructReader:
    """Reader of one struct of this type at a claimed position."""
    layout, assemble = layout_of(message_type), _assembler(message_type)
    unpack_from, data_words_known, pointer_count_known = layout.row.unpack_from, layout.data_words, layout.pointer_count

    def read(segment: Segment, position: int, data_words: int, pointer_count: int) -> Message:
        data, start, pointers = segment.data, position, position + data_words * WORD
        if data_words != data_words_known or pointer_count != pointer_count_known:
            end = pointers + pointer_count * WORD
            data, start = _as_known(layout, data[position:pointers], data[pointers:end]), 0
        return assemble(segment, data, start, pointers, unpack_from(data, start))

    return read


def _as_known(layout: Layout, data: bytes, pointers: bytes) -> bytes:
    """A struct of another release in the shape that we know: cut, or filled up with zeros."""
    data_bytes, pointer_bytes = layout.data_words * WORD, layout.pointer_count * WORD
    return data[:data_bytes].ljust(data_bytes, b"\0") + pointers[:pointer_bytes].ljust(pointer_bytes, b"\0")


@cache
def _assembler(message_type: type[Message]) -> Callable[[Segment, bytes, int, int, Cells], Message]:
    """From unpacked cells to the message: (segment, bytes of the struct and their start, position of its pointers,
    cells)."""
    layout = layout_of(message_type)
    names: dict[str, Any] = {"build": constructor(message_type)}
    values = {name: f"cells[{cell}]" for cell, name in enumerate(layout.scalar_names)}
    values |= {name: f"data[start + {byte}] & {mask} != 0" for name, byte, mask in layout.bools}
    cell = len(layout.scalar_names)
    lines = []
    for index, field in enumerate(layout.pointers):
        names[f"read_{index}"] = field_reader(field)
        place = f"segment, end + {(index + 1) * WORD}, cells[{cell + 2 * index}], cells[{cell + 2 * index + 1}]"
        lines.append(f"pointer_{index} = read_{index}({place})")
        values[field.name] = f"pointer_{index}"
    arguments = ", ".join(values[name] for name in message_type.__struct_fields__)
    lines.append(f"return build({arguments})")
    return compiled("assemble", "segment, data, start, end, cells", lines, names)


def constructor(message_type: type[Message]) -> Callable[..., Message]:
    return message_type


def arrangement(message_type: type[Message], layout: Layout) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Puts values from wire order (numbers, Bools, pointers) into the constructor's order."""
    wire = [*layout.scalar_names, *(name for name, _, _ in layout.bools), *(field.name for field in layout.pointers)]
    order = [wire.index(name) for name in message_type.__struct_fields__]
    if order == list(range(len(wire))):
        return lambda values: values
    return itemgetter(*order)


# --- lists of structs ------------------------------------------------------------------------------------------------


def read_cells(segment: Segment, end: int, low: int, high: int, layout: Layout, length_max: int) -> list[Cells]:
    """Rows of a list of ``plain`` structs, unpacked in the order of ``layout.scalar_names``."""
    first, count, data_words, pointer_count = segment.struct_list(end, low, high, length_max)
    stride, data = (data_words + pointer_count) * WORD, segment.data
    if (data_words, pointer_count) == (layout.data_words, 0):
        return list(layout.row.iter_unpack(data[first : first + count * stride]))
    rows = [data[start : start + data_words * WORD] for start in (first + row * stride for row in range(count))]
    return [layout.row.unpack(_as_known(layout, row, b"")) for row in rows]


@cache
def rows_reader(message_type: type[Message], length_max: int) -> RowsReader:
    """Reader of a list of structs of this type, by the halves of its pointer."""
    layout, read, assemble = layout_of(message_type), struct_reader(message_type), _assembler(message_type)
    build, arrange, iter_unpack = constructor(message_type), arrangement(message_type, layout), layout.row.iter_unpack
    known, pointers = (layout.data_words, layout.pointer_count), layout.data_words * WORD

    def read_plain_rows(segment: Segment, end: int, low: int, high: int) -> list[Message]:
        return [build(*arrange(cells)) for cells in read_cells(segment, end, low, high, layout, length_max)]

    def read_rows(segment: Segment, end: int, low: int, high: int) -> list[Message]:
        first, count, data_words, pointer_count = segment.struct_list(end, low, high, length_max)
        stride, data = (data_words + pointer_count) * WORD, segment.data
        if (data_words, pointer_count) != known:
            return [read(segment, first + row * stride, data_words, pointer_count) for row in range(count)]
        starts, rows = range(first, first + count * stride, stride), data[first : first + count * stride]
        return [
            assemble(segment, data, start, start + pointers, cells)
            for start, cells in zip(starts, iter_unpack(rows), strict=True)
        ]

    return read_plain_rows if layout.plain else read_rows


# --- pointer fields --------------------------------------------------------------------------------------------------


def pointer_reader(message_type: type[Message], name: str) -> PointerReader:
    """The reader of one pointer field: the very one that a struct of this type uses."""
    return field_reader(next(field for field in layout_of(message_type).pointers if field.name == name))


@cache
def field_reader(field: Field) -> PointerReader:
    """Reader of one kind of pointer field, made once."""
    if field.kind is Kind.TEXT:
        return _text_reader(field)
    if field.kind is Kind.DATA:
        return _data_reader(field)
    if field.array is not None:
        return intents_reader(field) if field.array is Intents else windows_reader(field)
    if field.kind is Kind.LIST:
        return _number_list_reader(field) if field.struct is None else _struct_list_reader(field, field.struct)
    assert field.struct is not None
    read_struct = struct_reader(field.struct)

    def read(segment: Segment, end: int, low: int, high: int) -> Message:
        target, data_words, pointer_count = segment.struct_target(end, low, high)
        return read_struct(segment, target, data_words, pointer_count)

    return read


def _data_reader(field: Field) -> PointerReader:
    minimum, maximum, name = field.length_min, field.length_max, field.name

    def read(segment: Segment, end: int, low: int, high: int) -> bytes:
        # The usual case in one test; when it fails, the slow way finds out and says what is wrong.
        target, count = end + (low >> 2) * WORD, high >> 3
        left, stop = segment.words_left - (count + 7 >> 3), target + count
        if low & 3 == LIST_KIND and high & 7 == BYTES and target >= WORD and stop <= segment.size and left >= 0:
            segment.words_left = left
        else:
            target, count = segment.flat_list(end, low, high, BYTES, 1)
        if minimum <= count <= maximum:
            return segment.data[target : target + count]
        raise PeerViolation("field_length", f"{name} has {count} bytes")

    return read


def _text_reader(field: Field) -> PointerReader:
    # What Cap'n Proto calls the text's size includes the NUL at its end.
    bounds = replace(field, length_min=0, length_max=field.length_max + 1)
    read_bytes, minimum, name = _data_reader(bounds), field.length_min, field.name

    def read(segment: Segment, end: int, low: int, high: int) -> str:
        raw: bytes = read_bytes(segment, end, low, high)
        if raw[-1:] != b"\0" and (low or high):
            raise PeerViolation("text_terminator", name)
        if len(raw) <= minimum and minimum:
            raise PeerViolation("field_length", f"{name} has {len(raw) - 1} bytes")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError as error:
            raise PeerViolation("text_encoding", f"{name}: {error.reason}") from None

    return read


def _number_list_reader(field: Field) -> PointerReader:
    assert field.item is not None
    code, element_size = FORMAT[field.item], ELEMENT_SIZE[field.item]
    element_bytes, is_float = struct.calcsize(code), field.item is Kind.FLOAT
    minimum, maximum, name = field.length_min, field.length_max, field.name
    unpackers = [struct.Struct(f"<{count}{code}").unpack_from for count in range(maximum + 1)]

    def read(segment: Segment, end: int, low: int, high: int) -> tuple[Any, ...]:
        # As in ``_data_reader``: the usual case in one test.
        target, count = end + (low >> 2) * WORD, high >> 3
        size = count * element_bytes + 7 & ~7
        left = segment.words_left - (size >> 3)
        usual = low & 3 == LIST_KIND and high & 7 == element_size and target >= WORD and left >= 0
        if usual and target + size <= segment.size:
            segment.words_left = left
        else:
            target, count = segment.flat_list(end, low, high, element_size, element_bytes)
        if not minimum <= count <= maximum:
            raise PeerViolation("list_length", f"{name} has {count} elements")
        values = unpackers[count](segment.data, target)
        # A finite sum has finite parts; the sum of finite parts may still leave the range.
        if is_float and not isfinite(sum(values)) and not all(map(isfinite, values)):
            raise PeerViolation("float_not_finite", name)
        return values

    return read


def intents_reader(field: Field) -> PointerReader:
    """Reader of intents as an array over the message's own bytes."""
    assert field.struct is not None
    layout, maximum = layout_of(field.struct), field.length_max
    shape, row_words = layout.shape, layout.words

    def read_slowly(segment: Segment, end: int, low: int, high: int) -> Intents:
        first, count, data_words, pointer_count = segment.struct_list(end, low, high, maximum)
        if (data_words, pointer_count) == (row_words, 0) or not count:
            return Intents(segment.data, first, count)
        stride = (data_words + pointer_count) * WORD
        starts = [first + row * stride for row in range(count)]  # the stride of empty rows is 0
        rows = [_as_known(layout, segment.data[start : start + data_words * WORD], b"") for start in starts]
        return Intents(b"".join(rows), 0, count)

    def read(segment: Segment, end: int, low: int, high: int) -> Intents:
        """The usual case in one test of the pointer and one of the tag; else the slow way finds out what it is."""
        tag, words = end + (low >> 2) * WORD, high >> 3
        left = segment.words_left - words - 1
        usual = low & 3 == LIST_KIND and high & 7 == COMPOSITE and tag >= WORD and left >= 0
        if usual and tag + (words + 1) * WORD <= segment.size:
            read_tag = read_i64_le(segment.data, tag)
            count = (read_tag & 0xFFFF_FFFF) >> 2  # one that is negative is too large here
            if read_tag >> 32 == shape and not read_tag & 3 and 0 < count <= maximum and count * row_words == words:
                segment.words_left = left
                return Intents(segment.data, tag + WORD, count)
        return read_slowly(segment, end, low, high)

    return read


def windows_reader(field: Field) -> PointerReader:
    """Reader of float32 windows as an array over the message's own bytes."""
    minimum, maximum, name = field.length_min, field.length_max, field.name
    element_size = ELEMENT_SIZE[Kind.FLOAT32]

    def read(segment: Segment, end: int, low: int, high: int) -> Windows:
        """As for the intents: the usual case in one test."""
        target, count = end + (low >> 2) * WORD, high >> 3
        words = count + 1 >> 1
        left = segment.words_left - words
        usual = low & 3 == LIST_KIND and high & 7 == element_size and target >= WORD and left >= 0
        if usual and target + words * WORD <= segment.size:
            segment.words_left = left
        else:
            target, count = segment.flat_list(end, low, high, element_size, 4)
        if not minimum <= count <= maximum:
            raise PeerViolation("list_length", f"{name} has {count} elements")
        return Windows(segment.data, target, count) if count else NO_WINDOWS

    return read


def _struct_list_reader(field: Field, message_type: type[Message]) -> PointerReader:
    read_rows, minimum = rows_reader(message_type, field.length_max), field.length_min

    def read(segment: Segment, end: int, low: int, high: int) -> tuple[Message, ...]:
        rows = tuple(read_rows(segment, end, low, high)) if high or low else ()
        if len(rows) < minimum:
            raise PeerViolation("list_length", f"{field.name} has {len(rows)} elements")
        return rows

    return read

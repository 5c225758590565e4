"""Writes Cap'n Proto structs straight into the bytes that will travel, by the layouts of the compiled schema.

Each object is appended after its parent, in field order, and empty fields stay null: the same message always gives the
same bytes, and they are the bytes that the library itself would write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence, Sized
from functools import cache
from math import isfinite
from operator import attrgetter
from typing import Any

from protocol.compiled import compiled
from protocol.errors import LocalMisuse
from protocol.fields import Field, Kind
from protocol.layout import ELEMENT_SIZE, FORMAT, WORD, Layout, layout_of
from protocol.messages import Message
from protocol.rows import INTENT_ROW, NO_WINDOWS, Intents, Windows
from protocol.segment import BYTES, COMPOSITE, LIST_KIND, NULL, POINTER, new_message, sealed

Halves = tuple[int, int]
"""Lower and upper half of a pointer."""
StructWriter = Callable[[bytearray, int, Any], None]
"""(buffer, position, message); the struct's own words are already there, zeroed."""
PointerWriter = Callable[[bytearray, int, Any], Halves]
"""(buffer, position after the pointer, value) to the pointer's halves; the value goes to the buffer's end."""


def write_root(message: Message) -> bytes:
    """One segment with its segment table. Raises LocalMisuse when a field is out of range."""
    layout = layout_of(type(message))
    buffer = new_message(layout.data_words, layout.pointer_count)
    try:  # whatever a writer stumbles over was built by us
        struct_writer(type(message))(buffer, 2 * WORD, message)
    except (struct.error, TypeError, AttributeError) as error:
        raise LocalMisuse(f"{type(message).__name__}: {error}") from error
    return sealed(buffer)


def write_pointer(buffer: bytearray, place: int, write: PointerWriter, value: Any) -> None:
    """A value at the buffer's end and its pointer at ``place``."""
    low, high = write(buffer, place + WORD, value)
    POINTER.pack_into(buffer, place, low, high)


# --- structs ---------------------------------------------------------------------------------------------------------


@cache
def struct_writer(message_type: type[Message]) -> StructWriter:
    """Writer of one struct of this type into its reserved place; what it points to goes to the buffer's end."""
    layout = layout_of(message_type)
    names: dict[str, Any] = {"pack_into": layout.row.pack_into}
    cells = [f"message.{name}" for name in layout.scalar_names]
    lines = []
    for index, field in enumerate(layout.pointers):
        names[f"write_{index}"] = field_writer(field)
        end = (layout.data_words + index + 1) * WORD
        lines.append(f"low_{index}, high_{index} = write_{index}(buffer, position + {end}, message.{field.name})")
        cells += [f"low_{index}", f"high_{index}"]
    lines.append(f"pack_into({', '.join(['buffer', 'position', *cells])})")
    lines += [f"if message.{name}: buffer[position + {byte}] |= {mask}" for name, byte, mask in layout.bools]
    return compiled("write", "buffer, position, message", lines, names)


def values_of(layout: Layout) -> Callable[[Any], Sequence[Any]]:
    """The numbers of a message, in the order in which ``layout.row`` packs them."""
    names = layout.scalar_names
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: [getattr(message, name) for name in names]


# --- lists of structs ------------------------------------------------------------------------------------------------


def write_cells(buffer: bytearray, end: int, packed: bytes, layout: Layout) -> Halves:
    """A list of ``plain`` structs, packed already; an empty one stays null."""
    tag, count = len(buffer), len(packed) // layout.row.size
    if not count:
        return NULL
    buffer += POINTER.pack(count << 2, layout.shape)
    buffer += packed
    return (tag - end) // 2 | LIST_KIND, COMPOSITE | count * layout.words << 3


@cache
def rows_writer(message_type: type[Message]) -> PointerWriter:
    """Writer of a list of structs of this type; an empty list stays null.

    The last tuple of rows is remembered with its bytes, and copied when it is written again: a leader sends the same
    entries to all of its followers. Pointers are relative, so that what was written means the same anywhere.
    """
    layout, write, values = layout_of(message_type), struct_writer(message_type), values_of(layout_of(message_type))
    pack, row_bytes, row_words, shape = layout.row.pack, layout.row.size, layout.words, layout.shape

    def write_plain_rows(buffer: bytearray, end: int, rows: Any) -> Halves:
        return write_cells(buffer, end, b"".join([pack(*values(row)) for row in rows]), layout)

    last_rows: tuple[Sequence[Any], bytes] = (), b""

    def write_rows(buffer: bytearray, end: int, rows: Sequence[Any]) -> Halves:
        """Rows with what they point to, all of it at the buffer's end."""
        nonlocal last_rows
        count, tag = len(rows), len(buffer)
        if not count:
            return NULL
        written, copy = last_rows
        if rows is written:
            buffer += copy
        else:
            buffer += POINTER.pack(count << 2, shape)
            buffer += bytes(count * row_bytes)
            for position, row in enumerate(rows):
                write(buffer, tag + WORD + position * row_bytes, row)
            if type(rows) is tuple:  # a list may change
                last_rows = rows, bytes(buffer[tag:])
        return (tag - end) // 2 | LIST_KIND, COMPOSITE | count * row_words << 3

    return write_plain_rows if layout.plain else write_rows


# --- pointer fields --------------------------------------------------------------------------------------------------


def pointer_writer(message_type: type[Message], name: str) -> PointerWriter:
    """The writer of one pointer field: the very one that a struct of this type uses."""
    return field_writer(next(field for field in layout_of(message_type).pointers if field.name == name))


@cache
def field_writer(field: Field) -> PointerWriter:
    """Writer of one kind of pointer field, made once."""
    if field.kind is Kind.TEXT:
        return _text_writer(field)
    if field.kind is Kind.DATA:
        return _data_writer(field)
    if field.array is not None:
        return intents_writer(field) if field.array is Intents else windows_writer(field)
    if field.kind is Kind.LIST:
        return _number_list_writer(field) if field.struct is None else _struct_list_writer(field, field.struct)
    assert field.struct is not None
    return _nested_writer(field.struct)


def _nested_writer(message_type: type[Message]) -> PointerWriter:
    layout, write_struct = layout_of(message_type), struct_writer(message_type)
    words, shape = bytes(layout.words * WORD), layout.shape

    def write(buffer: bytearray, end: int, value: Message) -> Halves:
        target = len(buffer)
        buffer += words
        write_struct(buffer, target, value)
        return (target - end) // 2, shape

    return write


def _data_writer(field: Field) -> PointerWriter:
    minimum, maximum, name = field.length_min, field.length_max, field.name

    def write(buffer: bytearray, end: int, value: bytes) -> Halves:
        count = len(value)
        if type(value) is not bytes or not minimum <= count <= maximum:
            raise LocalMisuse(f"{name}: {type(value).__name__} of length {count}, not {minimum} to {maximum} bytes")
        if not count:
            return NULL
        target = len(buffer)
        buffer += value
        if count & 7:
            buffer += bytes(WORD - (count & 7))
        return (target - end) // 2 | LIST_KIND, BYTES | count << 3

    return write


def _text_writer(field: Field) -> PointerWriter:
    minimum, maximum, name = field.length_min, field.length_max, field.name

    def write(buffer: bytearray, end: int, value: str) -> Halves:
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise LocalMisuse(f"{name}: {error}") from error
        count, target = len(raw), len(buffer)
        if not minimum <= count <= maximum:
            raise LocalMisuse(f"{name}: {count} bytes, outside {minimum} to {maximum}")
        if not count:
            return NULL
        buffer += raw
        buffer += bytes(WORD - (count & 7))  # the padding is the NUL too, so there is always some
        return (target - end) // 2 | LIST_KIND, BYTES | count + 1 << 3

    return write


def _number_list_writer(field: Field) -> PointerWriter:
    assert field.item is not None
    code, element_size, is_float = FORMAT[field.item], ELEMENT_SIZE[field.item], field.item is Kind.FLOAT
    element_bytes = struct.calcsize(code)
    packers = [
        struct.Struct(f"<{count}{code}{-count * element_bytes % WORD}x").pack for count in range(field.length_max + 1)
    ]

    def write(buffer: bytearray, end: int, values: Sequence[Any]) -> Halves:
        count = _checked_count(field, values)
        # A finite sum has finite parts; the sum of finite parts may still leave the range.
        if is_float and not isfinite(sum(values)) and not all(map(isfinite, values)):
            raise LocalMisuse(f"{field.name}: a number that is not finite does not travel")
        if not count:
            return NULL
        target = len(buffer)
        buffer += packers[count](*values)
        return (target - end) // 2 | LIST_KIND, element_size | count << 3

    return write


def intents_writer(field: Field) -> PointerWriter:
    """Writer of intents: tag and rows are copied as they are."""
    wire_bytes_max, name = WORD + field.length_max * INTENT_ROW.itemsize, field.name

    def write(buffer: bytearray, end: int, intents: Intents) -> Halves:
        wire, tag = intents.wire(), len(buffer)
        if not wire:
            return NULL
        if len(wire) > wire_bytes_max:
            raise LocalMisuse(f"{name}: {len(intents)} elements, at most {field.length_max}")
        buffer += wire
        return (tag - end) // 2 | LIST_KIND, COMPOSITE | len(wire) - WORD  # words, in bits 3 and up

    return write


def windows_writer(field: Field) -> PointerWriter:
    """Writer of float32 windows: their array is copied as it is."""
    element_size, empty, maximum = ELEMENT_SIZE[Kind.FLOAT32], NO_WINDOWS, field.length_max

    def write(buffer: bytearray, end: int, windows: Windows) -> Halves:
        """An odd number of samples is padded to a word."""
        if windows is empty:
            return NULL
        raw, target = windows.packed(), len(buffer)
        count = len(raw) >> 2
        if count > maximum:
            raise LocalMisuse(f"{field.name}: {count} elements, at most {maximum}")
        if not count:
            return NULL
        buffer += raw
        if count & 1:
            buffer += bytes(4)
        return (target - end) // 2 | LIST_KIND, element_size | count << 3

    return write


def _struct_list_writer(field: Field, message_type: type[Message]) -> PointerWriter:
    write_rows = rows_writer(message_type)

    def write(buffer: bytearray, end: int, rows: Sequence[Any]) -> Halves:
        return write_rows(buffer, end, rows) if _checked_count(field, rows) else NULL

    return write


def _checked_count(field: Field, values: Sized) -> int:
    count = len(values)
    if not field.length_min <= count <= field.length_max:
        raise LocalMisuse(f"{field.name}: {count} elements, outside {field.length_min} to {field.length_max}")
    return count

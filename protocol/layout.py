"""Where each field of each message lies in its Cap'n Proto struct, taken from the compiled schema at import.

``schema/swarm.capnp`` is the contract, ``messages`` holds the types that the machines know. This module pairs the two,
field by field, and refuses to start when a name, a width or a default differs. ``overlay`` reads and writes by it.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import capnp
import numpy as np

from protocol.envelope import BatchHeader, MsgHdr
from protocol.fields import ALL_TYPES, Field, Kind, fields_of
from protocol.messages import WIRE_TYPES, Intent, Message
from protocol.rows import INTENT_ROW

# Cap'n Proto is little-endian and so is every format below; the numpy row types rely on the host agreeing.
assert sys.byteorder == "little", "the overlay needs a little-endian host"

capnp.remove_import_hook()
SCHEMA_PATH: Final = Path(__file__).parent / "schema" / "swarm.capnp"
SCHEMA: Final[Any] = capnp.load(str(SCHEMA_PATH))

WORD: Final = 8
POINTER_FORMAT: Final = "iI"
"""Lower half signed: kind in two bits and a word offset. Upper half: the sizes of what it points to."""
FORMAT: Final[dict[Kind, str]] = {
    Kind.U8: "B",
    Kind.U16: "H",
    Kind.U32: "I",
    Kind.U64: "Q",
    Kind.I64: "q",
    Kind.FLOAT: "d",
    Kind.FLOAT32: "f",
}
"""``struct`` codes of the scalars, which have the widths of their Cap'n Proto namesakes."""
ELEMENT_SIZE: Final[dict[Kind, int]] = {
    Kind.U8: 2,
    Kind.U16: 3,
    Kind.U32: 4,
    Kind.U64: 5,
    Kind.I64: 5,
    Kind.FLOAT: 5,
    Kind.FLOAT32: 4,
    Kind.DATA: 2,
    Kind.TEXT: 2,
    Kind.STRUCT: 7,
}
"""The size code that a list pointer carries."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One struct on the wire. ``row`` packs all of it: the numbers in the order of ``scalar_names``, then two halves
    for each of ``pointers``, which are all its pointers in order. Bools are single bits: (name, byte, mask)."""

    data_words: int
    pointer_count: int
    row: struct.Struct
    scalar_names: tuple[str, ...]
    scalar_codes: tuple[str, ...]
    scalar_offsets: tuple[int, ...]
    bools: tuple[tuple[str, int, int], ...]
    pointers: tuple[Field, ...]

    @property
    def words(self) -> int:
        return self.data_words + self.pointer_count

    @property
    def shape(self) -> int:
        """Upper half of a struct pointer or of a list's tag."""
        return self.data_words | self.pointer_count << 16

    @property
    def plain(self) -> bool:
        """Pointer-free and without Bools: a list of such rows is one flat array."""
        return not self.pointers and not self.bools


@cache
def layout_of(message_type: type[Message]) -> Layout:
    """Layout of a message type. Asserts that schema and struct agree one to one; ``BatchHeader`` is what ``Batch``
    holds besides its lists."""
    node = _node("Batch" if message_type is BatchHeader else message_type.__name__)
    columns = {field.name for field in _lists(node)} if message_type is BatchHeader else set()
    slots = {slot.name: slot for slot in node.fields if slot.name not in columns}
    fields = fields_of(message_type)
    names = {camel(field.name) for field in fields}
    assert names == set(slots), f"{message_type.__name__}: schema and struct name other fields"
    return _layout(node, [(field, _checked_slot(message_type, field, slots[camel(field.name)])) for field in fields])


def row_type(message_type: type[Message]) -> np.dtype[np.void]:
    """The schema's rows of a ``plain`` type as a structured dtype, padding included."""
    layout = layout_of(message_type)
    assert layout.plain, f"{message_type.__name__} is not a flat row"
    return np.dtype(
        {
            "names": list(layout.scalar_names),
            "formats": [f"<{code}" for code in layout.scalar_codes],
            "offsets": list(layout.scalar_offsets),
            "itemsize": layout.row.size,
        }
    )


def batch_columns() -> dict[type[Message], int]:
    """Pointer position of each message type's column in ``Batch``; MsgHdr's list is not among them."""
    names = {_type_id(t.__name__): t for t in WIRE_TYPES}
    lists = {field.slot.type.list.elementType.struct.typeId: field.slot.offset for field in _lists(_node("Batch"))}
    columns = {names[type_id]: int(offset) for type_id, offset in lists.items() if type_id in names}
    assert set(columns) == set(WIRE_TYPES), "Batch needs one column for every type in WIRE_TYPES"
    assert len(lists) == len(columns) + 1, "Batch has a column that no message type fills"
    return columns


def headers_position() -> int:
    """Pointer position of ``hdrs`` in ``Batch``."""
    return next(int(field.slot.offset) for field in _lists(_node("Batch")) if field.name == "hdrs")


def camel(name: str) -> str:
    """``cl_ord_id`` to ``clOrdId``."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _node(name: str) -> Any:
    return getattr(SCHEMA, name).schema.node.struct


def _type_id(name: str) -> int:
    return int(getattr(SCHEMA, name).schema.node.id)


def _lists(node: Any) -> list[Any]:
    return [field for field in node.fields if field.slot.type.which() == "list"]


def _checked_slot(message_type: type[Message], field: Field, slot: Any) -> Any:
    where = f"{message_type.__name__}.{field.name}"
    wire = slot.slot.type
    assert slot.which() == "slot" and slot.discriminantValue == 0xFFFF, f"{where}: groups and unions are not read"
    assert not slot.slot.hadExplicitDefault, f"{where}: a default would be XORed into the raw words"
    assert wire.which() == field.kind.value, f"{where}: {wire.which()} on the wire, {field.kind.value} in the struct"
    if field.kind is Kind.LIST:
        wire = wire.list.elementType
        assert field.item is not None and wire.which() == field.item.value, f"{where}: element types differ"
    if field.struct is not None:
        assert wire.struct.typeId == _type_id(field.struct.__name__), f"{where}: another struct in the schema"
    return slot.slot


def _layout(node: Any, slots: list[tuple[Field, Any]]) -> Layout:
    cells = sorted(
        (int(slot.offset) * struct.calcsize(FORMAT[field.kind]), FORMAT[field.kind], field.name)
        for field, slot in slots
        if field.kind in FORMAT
    )
    pointers = {int(s.offset): f for f, s in slots if f.kind not in FORMAT and f.kind is not Kind.BOOL}
    assert sorted(pointers) == list(range(len(pointers))), "a pointer that no field reads"
    data_words = int(node.dataWordCount)
    return Layout(
        data_words=data_words,
        pointer_count=len(pointers),
        row=struct.Struct(_padded_format(cells, data_words * WORD) + POINTER_FORMAT * len(pointers)),
        scalar_names=tuple(name for _, _, name in cells),
        scalar_codes=tuple(code for _, code, _ in cells),
        scalar_offsets=tuple(offset for offset, _, _ in cells),
        bools=tuple((f.name, s.offset // 8, 1 << s.offset % 8) for f, s in slots if f.kind is Kind.BOOL),
        pointers=tuple(pointers[position] for position in sorted(pointers)),
    )


def _padded_format(cells: list[tuple[int, str, str]], size: int) -> str:
    parts, position = ["<"], 0
    for offset, code, _ in cells:
        parts.append(f"{offset - position}x{code}")
        position = offset + struct.calcsize(code)
    return "".join(parts) + f"{size - position}x"


for _message_type in (BatchHeader, MsgHdr, *ALL_TYPES):
    layout_of(_message_type)
assert row_type(Intent) == INTENT_ROW and INTENT_ROW.names == Intent.__struct_fields__, "rows.INTENT_ROW: other schema"

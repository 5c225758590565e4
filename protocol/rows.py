"""Pointer-free rows as numpy arrays over the very bytes on the wire.

Cap'n Proto stores a list of pointer-free structs as an array of equal rows, so one structured dtype describes it. An
array of that dtype is written with one copy and read with none.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import LocalMisuse
from protocol.layout import layout_of
from protocol.messages import Message

Rows = NDArray[np.void]
"""Shape (rows,), dtype ``row_type``."""


@cache
def row_type(message_type: type[Message]) -> np.dtype[np.void]:
    """Structured dtype of one row, padding included. Only for types without pointers and Bools; raises LocalMisuse."""
    layout = layout_of(message_type)
    if not layout.plain:
        raise LocalMisuse(f"{message_type.__name__} is not a flat row")
    return np.dtype(
        {
            "names": list(layout.scalar_names),
            "formats": [f"<{code}" for code in layout.scalar_codes],
            "offsets": list(layout.scalar_offsets),
            "itemsize": layout.row.size,
        }
    )


def as_rows(message_type: type[Message], messages: Sequence[Message]) -> Rows:
    """The messages as an array of ``row_type``, padding zero."""
    rows = np.zeros(len(messages), dtype=row_type(message_type))
    for name in row_type(message_type).names or ():
        rows[name] = [getattr(message, name) for message in messages]
    return rows


def as_messages(message_type: type[Message], rows: Rows) -> tuple[Message, ...]:
    """Inverse of ``as_rows``; plain Python numbers."""
    columns: list[list[Any]] = [rows[name].tolist() for name in message_type.__struct_fields__]
    return tuple([message_type(*values) for values in zip(*columns, strict=True)])


def packed_rows(message_type: type[Message], rows: NDArray[Any]) -> bytes:
    """The array's bytes as they travel. Raises LocalMisuse for another dtype or more than one dimension."""
    if rows.dtype != row_type(message_type) or rows.ndim != 1:
        raise LocalMisuse(f"{message_type.__name__} rows: {rows.dtype} of {rows.ndim} dimensions")
    # Padding of an array that nobody zeroed holds whatever this process had in memory: it must not leave.
    mask = _field_mask(message_type)
    words = np.ascontiguousarray(rows).view("<u8").reshape(len(rows), len(mask))
    return (words & mask).tobytes()


@cache
def _field_mask(message_type: type[Message]) -> NDArray[np.uint64]:
    """All ones where the row has a field, zero where it is padding. Shape (words,)."""
    layout = layout_of(message_type)
    mask = np.zeros(layout.row.size, dtype=np.uint8)
    for code, offset in zip(layout.scalar_codes, layout.scalar_offsets, strict=True):
        mask[offset : offset + struct.calcsize(code)] = 0xFF
    return mask.view("<u8")

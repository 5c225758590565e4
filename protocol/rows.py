"""Hot lists as the running code holds them: read-only numpy arrays whose bytes are the bytes on the wire.

Cap'n Proto stores a list of pointer-free structs as an array of equal rows and a list of numbers as an array of
numbers. So a trader builds the array once, the codec copies it into a batch whole, and a replica's array lies over the
very bytes that arrived. Every judge reads columns, ``intents.array["quantity"]``; whoever handles one order takes one
row, ``intents[position]``.

The two classes only add what an array lacks to be part of an immutable message: equality, a hash and a length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.errors import LocalMisuse
from protocol.intent import Intent

INTENT_ROW: Final = np.dtype(
    {
        "names": ["sequence", "symbol", "side", "time_in_force", "quantity", "limit_price", "reference_price"],
        "formats": ["<u8", "<u4", "u1", "u1", "<i8", "<i8", "<i8"],
        "offsets": [0, 8, 12, 13, 16, 24, 32],
        "itemsize": 40,
    }
)
"""One row, two bytes of padding included. ``layout`` compares it with the schema at import."""

_TAG: Final = struct.Struct("<iI")
"""The word before the rows of a list: how many they are, and how many words each has."""
_WORDS: Final = INTENT_ROW.itemsize // 8
_FIELD_MASK: Final = np.frombuffer(struct.pack("<QIBBHqqq", 2**64 - 1, 2**32 - 1, 255, 255, 0, -1, -1, -1), np.uint64)
"""All ones where a row has a field, zero in its padding."""


_ndarray: Final = np.ndarray


class Intents:
    """The intents of a frame. ``array``: read-only, shape (intents,), dtype ``INTENT_ROW``."""

    # Invariant: _wire is None or the rows as they travel: behind their tag, with zero padding; empty without rows.

    __slots__ = ("_wire", "array")

    def __init__(self, data: bytes, first: int, count: int, wire: bytes | None = None) -> None:
        """``count`` rows over ``data``, which the array keeps alive, from its byte ``first`` on."""
        self.array: NDArray[np.void] = _ndarray((count,), INTENT_ROW, data, first)
        self._wire = wire

    @staticmethod
    def of_packed(packed: bytes) -> Intents:
        """Rows over bytes that are written as they are: their padding is zero. The tag is put before them once."""
        count = len(packed) // INTENT_ROW.itemsize
        wire = _TAG.pack(count << 2, _WORDS) + packed if count else b""
        return Intents(wire, _TAG.size if count else 0, count, wire)

    @staticmethod
    def of_columns(columns: Mapping[str, Sequence[int] | NDArray[Any]], count: int) -> Intents:
        """Rows from their columns; one that is not named is zero. LocalMisuse for a number that does not fit."""
        rows = np.zeros(count, INTENT_ROW)
        try:
            for name, values in columns.items():
                rows[name] = values
        except (OverflowError, TypeError, ValueError) as error:
            raise LocalMisuse(f"intents: {error}") from error
        # Over bytes, not over the array's own memory: what owns its memory can be made writeable again.
        return Intents.of_packed(rows.tobytes())

    @staticmethod
    def of(*intents: Intent) -> Intents:
        """Rows from structs: for tests, for tools, and for the codec that travels as maps."""
        columns = {name: [getattr(each, name) for each in intents] for name in Intent.__struct_fields__}
        return Intents.of_columns(columns, len(intents))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, position: int) -> Intent:
        """One row in plain Python numbers, whose arithmetic never overflows. Raises IndexError."""
        return Intent(*self.array.item(position))

    def __iter__(self) -> Iterator[Intent]:
        for row in self.array.tolist():
            yield Intent(*row)

    def take(self, positions: Sequence[int]) -> Intents:
        """A copy of some rows, in the order of ``positions``."""
        words = np.frombuffer(self.packed(), np.uint64).reshape(-1, _WORDS)[np.asarray(positions, np.intp)]
        return Intents.of_packed(words.tobytes())

    def packed(self) -> bytes:
        """The rows as they travel. Padding that another process wrote does not pass through here."""
        if self._wire is not None:
            return self._wire[_TAG.size :]
        words = np.frombuffer(self.array.tobytes(), np.uint64).reshape(-1, _WORDS)
        return (words & _FIELD_MASK).tobytes()

    def wire(self) -> bytes:
        """The rows behind the tag of their list: what a batch contains. Empty without rows."""
        return self._wire if self._wire is not None else Intents.of_packed(self.packed()).wire()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intents) and self.packed() == other.packed()

    def __hash__(self) -> int:
        return hash(self.packed())

    def __repr__(self) -> str:
        return f"Intents({self.array.tolist()})"


class Windows:
    """Numbers of equally long windows, one after the other. ``array``: read-only float32, one dimension.

    They are evidence, to be compared bit for bit and nothing else: a peer may have put anything there, also what is no
    finite number.
    """

    # Invariant: _packed is None or the bytes of the array.

    __slots__ = ("_packed", "array")

    def __init__(self, data: bytes, first: int, count: int, packed: bytes | None = None) -> None:
        """``count`` numbers over ``data``, which the array keeps alive, from its byte ``first`` on."""
        self.array: NDArray[np.float32] = _ndarray((count,), np.float32, data, first)
        self._packed = packed

    @staticmethod
    def of(values: NDArray[Any] | Sequence[float]) -> Windows:
        """A copy of any array of numbers, flattened row by row."""
        packed = np.asarray(values, np.float32).tobytes()
        return Windows(packed, 0, len(packed) // 4, packed)

    def packed(self) -> bytes:
        """The numbers as they travel."""
        return self.array.tobytes() if self._packed is None else self._packed

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, position: int) -> float:
        return float(self.array[position])

    def __iter__(self) -> Iterator[float]:
        yield from self.array.tolist()

    def __eq__(self, other: object) -> bool:
        """Bit for bit."""
        return isinstance(other, Windows) and self.array.tobytes() == other.array.tobytes()

    def __hash__(self) -> int:
        return hash(self.array.tobytes())

    def __repr__(self) -> str:
        return f"Windows({len(self.array)} numbers)"


NO_WINDOWS: Final = Windows.of(())

"""One Cap'n Proto message in memory: its segment table, its pointers, and the limits on following them.

A reader checks bounds before it touches a byte and charges what it reads against the message's own length, so that
pointers that alias or loop cannot make a small message into a large one. Legal Cap'n Proto that is refused: several
segments, far pointers, capabilities, lists in another encoding than the declared one, packed bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NoReturn

from librt.strings import read_i64_le

from protocol.errors import PeerViolation
from protocol.layout import POINTER_FORMAT, WORD

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine word, where this is compiled

POINTER: Final = struct.Struct("<" + POINTER_FORMAT)
STRUCT_KIND, LIST_KIND = 0, 1
"""Lowest two bits of a pointer. The word offset stands above them: half of the distance in bytes."""
BYTES, COMPOSITE = 2, 7
"""Element sizes of a list: bytes, and structs behind a tag."""
NULL: Final = (0, 0)
_SEGMENT_TABLE: Final = struct.Struct("<II")


class Segment:
    """The bytes of one message, with what may still be read of them. Positions count from the start of ``data``."""

    __slots__ = ("data", "size", "words_left")

    def __init__(self, data: bytes, bytes_max: int) -> None:
        size: i64 = len(data)
        if not 2 * WORD <= size <= bytes_max or size & 7:
            large = size > bytes_max
            raise PeerViolation("message_too_large" if large else "message_truncated", f"{size} bytes")
        self.data = data if type(data) is bytes else bytes(data)
        words = (size >> 3) - 1
        if read_i64_le(self.data, 0) != words << 32:  # the table: no segments after the first, and its words
            segments_after_first, claimed = _SEGMENT_TABLE.unpack_from(self.data)
            raise PeerViolation("segment_table", f"{segments_after_first + 1} segments, {claimed} words first")
        self.size: int = size
        self.words_left: int = words

    def pointer(self, position: int) -> tuple[int, int]:
        """Lower (signed) and upper half of the pointer at ``position``, which is inside a struct that was claimed."""
        pointer = read_i64_le(self.data, position)
        low, high = pointer & 0xFFFF_FFFF, pointer >> 32 & 0xFFFF_FFFF
        return (low if low < 1 << 31 else low - (1 << 32)), high

    def claim(self, position: int, words: int, charge: int) -> None:
        """Check that ``words`` words at ``position`` lie inside the segment, and charge for reading them."""
        self.words_left -= charge
        if position < WORD or position + words * WORD > self.size or self.words_left < 0:
            self.refuse(position, words)

    def refuse(self, position: int, words: int) -> NoReturn:
        if position < WORD or position + words * WORD > self.size:
            raise PeerViolation("pointer_bounds", f"{words} words at byte {position} of {self.size}")
        raise PeerViolation("traversal_limit", "the message refers to more words than it has")

    def root(self) -> tuple[int, int, int]:
        """(target, data words, pointer count) of the root struct."""
        pointer = read_i64_le(self.data, WORD)
        data_words, pointer_count = pointer >> 32 & 0xFFFF, pointer >> 48 & 0xFFFF
        words = data_words + pointer_count
        if not pointer & 0xFFFF_FFFF and words and (words + 2) * WORD <= self.size:
            # Right behind its pointer, as every writer puts it.
            self.words_left -= words
            return 2 * WORD, data_words, pointer_count
        return self.struct_target(2 * WORD, *self.pointer(WORD))

    def struct_target(self, end: int, low: int, high: int) -> tuple[int, int, int]:
        """(target, data words, pointer count) of the struct pointer that ends at ``end``."""
        if not low and not high:
            raise PeerViolation("struct_missing", f"null before byte {end}")
        if low & 3 != STRUCT_KIND:
            raise PeerViolation("pointer_kind", f"kind {low & 3} where a struct belongs")
        target, data_words, pointer_count = end + (low >> 2) * WORD, high & 0xFFFF, high >> 16
        self.claim(target, data_words + pointer_count, max(1, data_words + pointer_count))
        return target, data_words, pointer_count

    def flat_list(self, end: int, low: int, high: int, element_size: int, element_bytes: int) -> tuple[int, int]:
        """(target, element count) of a list of numbers or bytes; (0, 0) for a null one."""
        if not low and not high:
            return NULL
        if low & 3 != LIST_KIND or high & 7 != element_size:
            raise PeerViolation("pointer_kind", f"kind {low & 3}, element size {high & 7} where {element_size} belongs")
        target, count = end + (low >> 2) * WORD, high >> 3
        words = (count * element_bytes + WORD - 1) // WORD
        self.claim(target, words, words)
        return target, count

    def struct_list(self, end: int, low: int, high: int, length_max: int) -> tuple[int, int, int, int]:
        """(first row, row count, data words, pointer count) of a list of structs; no rows for a null one."""
        if not low and not high:
            return 0, 0, 0, 0
        if low & 3 != LIST_KIND or high & 7 != COMPOSITE:
            raise PeerViolation("pointer_kind", f"kind {low & 3}, element size {high & 7} where structs belong")
        tag, words = end + (low >> 2) * WORD, high >> 3
        self.claim(tag, 1 + words, 1 + words)
        tag_low, tag_high = self.pointer(tag)
        count, data_words, pointer_count = tag_low >> 2, tag_high & 0xFFFF, tag_high >> 16
        if tag_low & 3 != STRUCT_KIND or count < 0 or count * (data_words + pointer_count) > words:
            raise PeerViolation("list_tag", f"{count} rows of {data_words} and {pointer_count} in {words} words")
        if count > length_max:
            raise PeerViolation("list_length", f"{count} rows, at most {length_max}")
        # An empty row costs a word too: else a short list of nothing could be named again and again for free.
        self.claim(tag, 1 + words, max(0, count - words))
        return tag + WORD, count, data_words, pointer_count


def new_message(data_words: int, pointer_count: int) -> bytearray:
    """A segment table to be sealed, the root pointer, and the root struct's zeroed words at byte 16."""
    shape = data_words | pointer_count << 16
    empty = _EMPTY.get(shape)
    if empty is None:
        empty = _EMPTY[shape] = bytes(WORD) + POINTER.pack(0, shape) + bytes((data_words + pointer_count) * WORD)
    return bytearray(empty)


_EMPTY: Final[dict[int, bytes]] = {}
"""By the shape of the root: our own schema has few."""


def sealed(buffer: bytearray) -> bytes:
    """The finished message: the segment table's word count is set last."""
    _SEGMENT_TABLE.pack_into(buffer, 0, 0, len(buffer) // WORD - 1)
    return bytes(buffer)

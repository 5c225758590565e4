"""What the store's rows hold, as bytes, and how it shows that they are what was written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.messages import Commit, CommittedSlot, Entry, Message, SignedCommand
from protocol.signing import digest

CHAIN_START: Final = bytes(32)

# Rows hold plain tuples in MessagePack: msgspec does not decode the messages' own types, whose bounds pass 2**63.
_CommandRow = tuple[int, int, bytes, bytes]
_CommitRow = tuple[int, int, bytes, int, bytes]
_PHASE_DECODER: Final = msgspec.msgpack.Decoder(tuple[list[_CommandRow], bytes])
_SLOT_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, list[_CommandRow], list[_CommitRow]])
_ENTRIES_DECODER: Final = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])


class Damage(Exception):
    """A row is not what was written. The text names it."""


def expect(intact: bool, what: str) -> None:
    """Raise ``Damage`` unless ``intact``."""
    if not intact:
        raise Damage(f"{what} is not what was written")


def checksum(*parts: bytes) -> int:
    """Over the parts, each preceded by its length."""
    value = 0
    for part in parts:
        value = zlib.crc32(struct.pack("<Q", len(part)), value)
        value = zlib.crc32(part, value)
    return value


def link(chain: bytes, first: int, last: int, body: bytes) -> bytes:
    """The chain after an append of the entries ``first`` to ``last`` to a log whose chain is ``chain``."""
    return digest(chain, struct.pack("<QQ", first, last), body)


def chain_after(index: int, term: int, snapshot_digest: bytes) -> bytes:
    """The chain of a log that starts again after a snapshot."""
    return digest(b"swarm/log/1", struct.pack("<QQ", index, term), snapshot_digest)


def entries_body(entries: Sequence[Entry]) -> bytes:
    """Entries that follow each other; their indices stand beside them."""
    return msgspec.msgpack.encode([(entry.term, entry.kind, entry.payload) for entry in entries])


def entries_of(body: bytes, first: int) -> list[Entry]:
    """Inverse of ``entries_body``."""
    rows = enumerate(_ENTRIES_DECODER.decode(body), start=first)
    return [Entry(term, index, kind, payload) for index, (term, kind, payload) in rows]


def base_row(index: int, term: int, chain: bytes) -> bytes:
    """Where the log begins: after ``index``, with this chain before the first append that is kept."""
    return struct.pack("<QQ32s", index, term, chain)


def base_of(row: bytes) -> tuple[int, int, bytes]:
    """Inverse of ``base_row``."""
    index, term, chain = struct.unpack("<QQ32s", row)
    return index, term, chain


def phase_body(commands: Sequence[SignedCommand], signature: bytes) -> bytes:
    """What a signed phase's row holds beside its key and digest."""
    return msgspec.msgpack.encode((_rows(commands), signature))


def phase_of(body: bytes) -> tuple[tuple[SignedCommand, ...], bytes]:
    """Inverse of ``phase_body``."""
    commands, signature = _PHASE_DECODER.decode(body)
    return _commands(commands), signature


def slot_body(slot: CommittedSlot) -> bytes:
    """What a slot's row holds beside its sequence and digest."""
    return msgspec.msgpack.encode((slot.view, _rows(slot.commands), _rows(slot.commits)))


def slot_of(sequence: int, slot_digest: bytes, body: bytes) -> CommittedSlot:
    """Inverse of ``slot_body``."""
    view, commands, commits = _SLOT_DECODER.decode(body)
    return CommittedSlot(view, sequence, slot_digest, _commands(commands), tuple(Commit(*row) for row in commits))


def _rows(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    return [msgspec.structs.astuple(message) for message in messages]


def _commands(rows: list[_CommandRow]) -> tuple[SignedCommand, ...]:
    return tuple(SignedCommand(*row) for row in rows)

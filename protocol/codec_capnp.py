"""The swarm's own codec: batches and bodies as Cap'n Proto messages of ``schema/swarm.capnp``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeVar, cast

from protocol.envelope import BatchHeader, Envelope, MsgHdr, envelope, kind_of, type_of_kind
from protocol.errors import LocalMisuse, PeerViolation
from protocol.fields import BATCH_BYTES_MAX, MESSAGES_PER_BATCH_MAX
from protocol.layout import WORD, batch_columns, headers_position, layout_of
from protocol.messages import WIRE_TYPES, Message
from protocol.overlay_read import read_cells, read_root, rows_reader, struct_reader
from protocol.overlay_write import rows_writer, struct_writer, write_cells, write_pointer, write_root
from protocol.segment import NULL, POINTER, Segment, new_message, sealed

M = TypeVar("M", bound=Message)

_HEADER: Final = layout_of(BatchHeader)
_READ_HEADER: Final = struct_reader(BatchHeader)
_WRITE_HEADER: Final = struct_writer(BatchHeader)
_ROOT: Final = 2 * WORD
"""Where the Batch struct begins in every batch that we write; its pointers follow its data."""
_POINTERS: Final = _ROOT + _HEADER.data_words * WORD

_INDEX: Final = layout_of(MsgHdr)
assert _INDEX.plain and _INDEX.scalar_names == ("kind", "row", "trace"), "the index is packed and unpacked by position"
_PACK_INDEX_ROW: Final = _INDEX.row.pack
_INDEX_POSITION: Final = headers_position()

_COLUMN_POSITIONS: Final = batch_columns()
_COLUMN_AT: Final = tuple({p: t for t, p in _COLUMN_POSITIONS.items()}.get(p) for p in range(len(WIRE_TYPES) + 1))
_COLUMN_READERS: Final = {t: rows_reader(t, MESSAGES_PER_BATCH_MAX) for t in WIRE_TYPES}
_COLUMN_WRITERS: Final = {t: rows_writer(t) for t in WIRE_TYPES}
_NOTHING: Final[list[Message]] = []


class CapnpCodec:
    """Stateless and safe to share between threads: it works on bytes and never holds a reader of the library."""

    name: str = "capnp"

    def encode_batch(self, header: BatchHeader, messages: Sequence[Envelope]) -> bytes:
        """One message per index row, in order. Raises LocalMisuse when a field is out of range."""
        if len(messages) > MESSAGES_PER_BATCH_MAX:
            raise LocalMisuse(f"{len(messages)} messages in one batch, at most {MESSAGES_PER_BATCH_MAX}")
        try:
            return _batch(header, messages)
        except (struct.error, TypeError, AttributeError) as error:
            raise LocalMisuse(f"a batch that cannot be written: {error}") from error

    def decode_batch(self, data: bytes) -> tuple[BatchHeader, list[Envelope]]:
        """Messages in the order of the index. Raises PeerViolation unless every row is named exactly once, in order."""
        segment = Segment(data, BATCH_BYTES_MAX)
        root, data_words, pointer_count = segment.root()
        header = _READ_HEADER(segment, root, data_words, 0)
        end = root + (data_words + 1) * WORD
        columns: dict[type[Message], list[Message]] = {}
        for position in range(min(pointer_count, len(_COLUMN_AT))):
            low, high = segment.pointer(end + (position - 1) * WORD)
            if not low and not high:
                continue
            message_type = _COLUMN_AT[position]
            if message_type is not None:
                read_column = _COLUMN_READERS[message_type]
                columns[message_type] = read_column(segment, end + position * WORD, low, high)
        low, high = segment.pointer(end + (_INDEX_POSITION - 1) * WORD) if pointer_count > _INDEX_POSITION else NULL
        index = read_cells(segment, end + _INDEX_POSITION * WORD, low, high, _INDEX, MESSAGES_PER_BATCH_MAX)
        return cast(BatchHeader, header), _joined(cast(list[tuple[int, int, int]], index), columns)

    def encode_body(self, message: Message) -> bytes:
        """A struct on its own, to be signed, hashed or stored. Raises LocalMisuse when a field is out of range."""
        return write_root(message)

    def decode_body(self, kind: type[M], data: bytes) -> M:
        """Raises PeerViolation."""
        return cast(M, read_root(kind, data, BATCH_BYTES_MAX))


def _batch(header: BatchHeader, messages: Sequence[Envelope]) -> bytes:
    columns: dict[type[Message], list[Message]] = {}
    rows: list[bytes] = []
    last, kind, current = _INDEX_POSITION, 0, None
    column: list[Message] = []
    for trace, message in messages:
        message_type = type(message)
        if message_type is not current:  # most neighbours are of one type
            current, kind = message_type, kind_of(message)
            column = columns.setdefault(message_type, [])
            last = max(last, _COLUMN_POSITIONS[message_type])
        rows.append(_PACK_INDEX_ROW(kind, len(column), trace))
        column.append(message)
    # Empty columns at the end are left out: readers take a missing pointer for a null one.
    buffer = new_message(_HEADER.data_words, 1 + last)
    _WRITE_HEADER(buffer, _ROOT, header)
    place = _POINTERS + _INDEX_POSITION * WORD
    low, high = write_cells(buffer, place + WORD, b"".join(rows), _INDEX)
    POINTER.pack_into(buffer, place, low, high)
    for message_type, column in columns.items():
        place = _POINTERS + _COLUMN_POSITIONS[message_type] * WORD
        write_pointer(buffer, place, _COLUMN_WRITERS[message_type], column)
    return sealed(buffer)


def _joined(index: list[tuple[int, int, int]], columns: dict[type[Message], list[Message]]) -> list[Envelope]:
    """Puts the columns back into one sequence."""
    messages = 0
    for column in columns.values():
        messages += len(column)
    if len(index) != messages:
        raise PeerViolation("batch_index", f"{len(index)} rows for {messages} messages")
    taken: dict[int, int] = {}
    envelopes: list[Envelope] = []
    column, current, due = _NOTHING, -1, 0
    for kind, row, trace in index:
        if kind != current:  # most neighbours are of one kind
            taken[current] = due
            column, current, due = columns.get(type_of_kind(kind), _NOTHING), kind, taken.get(kind, 0)
        if row != due or row >= len(column):
            raise PeerViolation("batch_index", f"{WIRE_TYPES[kind].__name__} row {row}")
        due = row + 1
        envelopes.append(envelope((trace, column[row])))
    return envelopes

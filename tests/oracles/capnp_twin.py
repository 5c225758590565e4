"""The slow twin of the overlay: the same structs, read and written field by field through pycapnp."""

from __future__ import annotations

from typing import Any

from protocol.envelope import BatchHeader, Envelope, MsgHdr, kind_of
from protocol.fields import Field, Kind, fields_of
from protocol.layout import SCHEMA, camel
from protocol.messages import WIRE_TYPES, Message
from tests.oracles.codec_examples import held

_WORDS_UNLIMITED = 2**40


def write(message: Message) -> bytes:
    """One segment with its table, like ``overlay.write_root``."""
    builder = getattr(SCHEMA, type(message).__name__).new_message(num_first_segment_words=2**16)
    _fill(builder, message)
    return bytes(builder.to_bytes())


def read(message_type: type[Message], data: bytes) -> Message:
    with getattr(SCHEMA, message_type.__name__).from_bytes(data, traversal_limit_in_words=_WORDS_UNLIMITED) as reader:
        return _value(message_type, reader)


def write_batch(header: BatchHeader, messages: list[Envelope]) -> bytes:
    batch = SCHEMA.Batch.new_message(num_first_segment_words=2**16)
    _fill(batch, header)
    columns: dict[type[Message], list[Message]] = {}
    rows = []
    for trace, message in messages:
        column = columns.setdefault(type(message), [])
        rows.append(MsgHdr(kind_of(message), len(column), trace))
        column.append(message)
    _fill_rows(batch, "hdrs", rows)
    for message_type, column in columns.items():
        _fill_rows(batch, column_name(message_type), column)
    return bytes(batch.to_bytes())


def read_batch(data: bytes) -> tuple[BatchHeader, list[Envelope]]:
    with SCHEMA.Batch.from_bytes(data, traversal_limit_in_words=_WORDS_UNLIMITED) as batch:
        header = BatchHeader(*[getattr(batch, camel(field.name)) for field in fields_of(BatchHeader)])
        envelopes = []
        for row in batch.hdrs:
            message_type = WIRE_TYPES[row.kind]
            column = getattr(batch, column_name(message_type))
            envelopes.append(Envelope(row.trace, _value(message_type, column[row.row])))
        return header, envelopes


def column_name(message_type: type[Message]) -> str:
    wanted = getattr(SCHEMA, message_type.__name__).schema.node.id
    for field in SCHEMA.Batch.schema.node.struct.fields:
        kind = field.slot.type
        if kind.which() == "list" and kind.list.elementType.struct.typeId == wanted:
            return str(field.name)
    raise AssertionError(message_type)


def _fill(builder: Any, message: Message) -> None:
    for field in fields_of(type(message)):
        value, name = getattr(message, field.name), camel(field.name)
        if field.kind is Kind.STRUCT:
            _fill(builder.init(name), value)
        elif field.struct is not None:
            _fill_rows(builder, name, [value[position] for position in range(len(value))])
        elif field.kind is Kind.LIST:
            _fill_numbers(builder, name, value)
        elif value or field.kind not in (Kind.TEXT, Kind.DATA):
            setattr(builder, name, value)


def _fill_rows(builder: Any, name: str, rows: Any) -> None:
    if rows:
        built = builder.init(name, len(rows))
        for position, row in enumerate(rows):
            _fill(built[position], row)


def _fill_numbers(builder: Any, name: str, values: Any) -> None:
    if len(values):
        setattr(builder, name, [values[position] for position in range(len(values))])


def _value(message_type: type[Message], reader: Any) -> Message:
    return message_type(*[_field_value(field, getattr(reader, camel(field.name))) for field in fields_of(message_type)])


def _field_value(field: Field, value: Any) -> Any:
    if field.kind is Kind.STRUCT:
        assert field.struct is not None
        return _value(field.struct, value)
    if field.kind is not Kind.LIST:
        return value
    if field.struct is not None:
        return held(field, [_value(field.struct, row) for row in value])
    return held(field, list(value))

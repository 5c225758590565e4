"""The codec of ``baseline`` mode: MessagePack maps with field names, as a usual system would write them.

Decoding keeps exactly the bounds of the other codec. Encoding checks no more than MessagePack itself does, as is usual;
checking every field in Python would make a straw man of the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import inf, isfinite
from typing import Any, Final, TypeVar, cast

import msgpack
from msgspec import to_builtins

from protocol.envelope import BatchHeader, Envelope, kind_of, type_of_kind
from protocol.errors import LocalMisuse, PeerViolation
from protocol.fields import (
    ALL_TYPES,
    BATCH_BYTES_MAX,
    BODY_BYTES_MAX,
    ENTRIES_PER_APPEND_MAX,
    INTEGER_RANGE,
    MESSAGES_PER_BATCH_MAX,
    ORDER_ID_BYTES_MAX,
    REASON_BYTES_MAX,
    WINDOW_SAMPLES_PER_FRAME_MAX,
    Field,
    Kind,
    fields_of,
)
from protocol.intent import Intent
from protocol.messages import Message
from protocol.rows import Intents, Windows

M = TypeVar("M", bound=Message)
_Converter = Callable[[Any], Any]

_LIST_LENGTH_MAX: Final = max(MESSAGES_PER_BATCH_MAX, ENTRIES_PER_APPEND_MAX)
_MAP_LENGTH_MAX: Final = 32
_FLOAT32_MAX: Final = (2 - 2**-23) * 2.0**127
_TEXT_BYTES_MAX: Final = max(REASON_BYTES_MAX, ORDER_ID_BYTES_MAX)


class MsgpackCodec:
    """Stateless and safe to share between threads."""

    name: str = "msgpack"

    def encode_batch(self, header: BatchHeader, messages: Sequence[Envelope]) -> bytes:
        """One map per message, in order. Raises LocalMisuse for what MessagePack cannot write."""
        if len(messages) > MESSAGES_PER_BATCH_MAX:
            raise LocalMisuse(f"{len(messages)} messages in one batch, at most {MESSAGES_PER_BATCH_MAX}")
        return _packed(
            {"header": _builtins(header), "messages": [_envelope_map(trace, message) for trace, message in messages]}
        )

    def decode_batch(self, data: bytes) -> tuple[BatchHeader, list[Envelope]]:
        """Messages in the order of sending. Raises PeerViolation."""
        batch = _map(_unpacked(data))
        header = cast(BatchHeader, _struct_converter(BatchHeader)(_member(batch, "header")))
        messages = _member(batch, "messages")
        if type(messages) is not list or len(messages) > MESSAGES_PER_BATCH_MAX:
            raise PeerViolation("list_length", "messages")
        return header, [_envelope(_map(value)) for value in messages]

    def encode_body(self, message: Message) -> bytes:
        """A struct on its own, to be signed, hashed or stored. Raises LocalMisuse for what MessagePack cannot write."""
        return _packed(_builtins(message))

    def decode_body(self, kind: type[M], data: bytes) -> M:
        """Raises PeerViolation."""
        return cast(M, _struct_converter(kind)(_unpacked(data, WINDOW_SAMPLES_PER_FRAME_MAX)))


# --- writing ---------------------------------------------------------------------------------------------------------


def _packed(value: Any) -> bytes:
    try:
        return cast(bytes, msgpack.packb(value, use_bin_type=True))
    except (OverflowError, TypeError, ValueError) as error:
        raise LocalMisuse(str(error)) from error


def _builtins(message: Message) -> Any:
    return to_builtins(message, builtin_types=(bytes,), enc_hook=_array_builtins)


def _array_builtins(value: Any) -> Any:
    """Arrays of ``rows`` travel as a usual system would send them: a list of maps, a list of numbers."""
    if isinstance(value, Intents):
        return [dict(zip(Intent.__struct_fields__, row, strict=True)) for row in value.array.tolist()]
    if isinstance(value, Windows):
        return value.array.tolist()
    raise TypeError(f"{type(value).__name__} does not travel")


def _envelope_map(trace: int, message: Message) -> dict[str, Any]:
    return {"kind": kind_of(message), "trace": trace, "body": _builtins(message)}


# --- reading ---------------------------------------------------------------------------------------------------------


def _unpacked(data: bytes, list_length_max: int = _LIST_LENGTH_MAX) -> Any:
    if len(data) > BATCH_BYTES_MAX:
        raise PeerViolation("message_too_large", f"{len(data)} bytes, at most {BATCH_BYTES_MAX}")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=list_length_max,
            max_map_len=_MAP_LENGTH_MAX,
            max_str_len=_TEXT_BYTES_MAX,
            max_bin_len=BODY_BYTES_MAX,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise PeerViolation("msgpack_malformed", f"{type(error).__name__}: {error}") from None


def _envelope(value: dict[Any, Any]) -> Envelope:
    message_type = type_of_kind(_KIND(_member(value, "kind")))
    return Envelope(_TRACE(_member(value, "trace")), _struct_converter(message_type)(_member(value, "body")))


def _map(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise PeerViolation("field_type", f"{type(value).__name__} where a map belongs")
    return value


def _member(value: dict[Any, Any], name: str) -> Any:
    try:
        return value[name]
    except KeyError:
        raise PeerViolation("field_missing", name) from None


@cache
def _struct_converter(message_type: type[Message]) -> _Converter:
    """From a map to the message. Names that are not known are passed over, so that a newer writer is understood;
    fields with a default were appended after the first release and may be missing."""
    build: Callable[..., Message] = message_type
    required = len(message_type.__struct_fields__) - len(message_type.__struct_defaults__)
    converters = [(field.name, _field_converter(field)) for field in fields_of(message_type)]
    kept, appended = converters[:required], converters[required:]

    def convert(value: Any) -> Message:
        if type(value) is not dict:
            raise PeerViolation("field_type", f"{type(value).__name__} where {message_type.__name__} belongs")
        try:
            known = [convert_field(value[name]) for name, convert_field in kept]
            return build(
                *known, **{name: convert_field(value[name]) for name, convert_field in appended if name in value}
            )
        except KeyError as error:
            raise PeerViolation("field_missing", f"{message_type.__name__}.{error.args[0]}") from None

    return convert


def _field_converter(field: Field) -> _Converter:
    if field.kind is Kind.LIST:
        return _list_converter(field)
    if field.kind is Kind.STRUCT:
        assert field.struct is not None
        return _struct_converter(field.struct)
    return _scalar_converter(field, field.kind)


def _scalar_converter(field: Field, kind: Kind) -> _Converter:
    if kind in INTEGER_RANGE:
        return _integer_converter(field.name, *INTEGER_RANGE[kind])
    if kind is Kind.TEXT:
        return _text_converter(field.name, field.length_min, field.length_max)
    if kind is Kind.DATA:
        return _data_converter(field.name, field.length_min, field.length_max)
    if kind is Kind.FLOAT32:
        return _float_converter(field.name, finite=False)
    return _float_converter(field.name) if kind is Kind.FLOAT else _bool_converter(field.name)


def _integer_converter(name: str, minimum: int, maximum: int) -> _Converter:
    def convert(value: Any) -> Any:
        if type(value) is not int:
            raise PeerViolation("field_type", f"{name} is {type(value).__name__}")
        if not minimum <= value <= maximum:
            raise PeerViolation("field_range", f"{name} is {value}")
        return value

    return convert


def _float_converter(name: str, finite: bool = True) -> _Converter:
    def convert(value: Any) -> Any:
        if type(value) is not float:
            raise PeerViolation("field_type", f"{name} is {type(value).__name__}")
        if finite and not isfinite(value):
            raise PeerViolation("float_not_finite", name)
        return value

    return convert


def _bool_converter(name: str) -> _Converter:
    def convert(value: Any) -> Any:
        if type(value) is not bool:
            raise PeerViolation("field_type", f"{name} is {type(value).__name__}")
        return value

    return convert


def _text_converter(name: str, minimum: int, maximum: int) -> _Converter:
    def convert(value: Any) -> Any:
        if type(value) is not str:
            raise PeerViolation("field_type", f"{name} is {type(value).__name__}")
        if not minimum <= len(value.encode()) <= maximum:
            raise PeerViolation("field_length", f"{name} has {len(value)} characters")
        return value

    return convert


def _data_converter(name: str, minimum: int, maximum: int) -> _Converter:
    def convert(value: Any) -> Any:
        if type(value) is not bytes:
            raise PeerViolation("field_type", f"{name} is {type(value).__name__}")
        if not minimum <= len(value) <= maximum:
            raise PeerViolation("field_length", f"{name} has {len(value)} bytes")
        return value

    return convert


def _list_converter(field: Field) -> _Converter:
    assert field.item is not None
    item = _struct_converter(field.struct) if field.struct is not None else _scalar_converter(field, field.item)
    minimum, maximum, name = field.length_min, field.length_max, field.name

    def convert(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise PeerViolation("field_type", f"{name} is {type(value).__name__}")
        if not minimum <= len(value) <= maximum:
            raise PeerViolation("list_length", f"{name} has {len(value)} elements")
        return tuple([item(element) for element in value])

    if field.array is Intents:
        return lambda value: Intents.of(*convert(value))
    return (lambda value: _windows(name, convert(value))) if field.array is Windows else convert


def _windows(name: str, values: tuple[float, ...]) -> Windows:
    if any(_FLOAT32_MAX < abs(value) < inf for value in values):
        raise PeerViolation("field_range", f"{name} in 32 bits")
    return Windows.of(values)


_KIND: Final = _integer_converter("kind", *INTEGER_RANGE[Kind.U16])
_TRACE: Final = _integer_converter("trace", *INTEGER_RANGE[Kind.U64])
for _message_type in (BatchHeader, *ALL_TYPES):
    _struct_converter(_message_type)

"""What may come out of the readers: a refusal by a known name, or values that the schema allows. Nothing else.

The walk over accepted values is written for this purpose alone; of production code it takes the table of bounds, which
is the specification.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from protocol.codec import Codec, codec_for
from protocol.errors import PeerViolation
from protocol.fields import (
    ALL_TYPES,
    INTEGER_RANGE,
    MESSAGES_PER_BATCH_MAX,
    Field,
    Kind,
    fields_of,
)
from protocol.framing import FrameReader, frame
from protocol.messages import WIRE_TYPES, Message
from protocol.rows import INTENT_ROW, Intents, Windows

BATCH = "Batch"
TYPES = {each.__name__: each for each in ALL_TYPES}
DECODE_S_MAX = 1.0
"""One frame; the largest are decoded in milliseconds."""
REASONS = frozenset({
    "batch_index", "field_length", "field_missing", "field_range", "field_type", "float_not_finite", "kind_unknown",
    "list_length", "list_tag", "message_too_large", "message_truncated", "msgpack_malformed", "pointer_bounds",
    "pointer_kind", "segment_table", "struct_missing", "text_encoding", "text_terminator", "traversal_limit",
    "windows_shape",
})  # fmt: skip


class Wrong(AssertionError):
    """The readers did what they must never do."""


def judge(codec_name: str, target: str, data: bytes) -> str:
    """``"accepted"`` or the reason of the refusal. Raises ``Wrong``."""
    codec = codec_for(codec_name)
    began = time.perf_counter()
    try:
        found = _decode(codec, target, data)
    except PeerViolation as violation:
        if violation.reason not in REASONS:
            raise Wrong(f"refused for '{violation.reason}', which is no known reason") from None
        return violation.reason
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
    finally:
        took = time.perf_counter() - began
        if took > DECODE_S_MAX:
            raise Wrong(f"took {took:.1f} s")
    for message in found[1] if target == BATCH else [found]:
        check_ranges(message)
    _check_again(codec, target, found)
    return "accepted"


def _decode(codec: Codec, target: str, data: bytes) -> Any:
    if target != BATCH:
        return codec.decode_body(TYPES[target], data)
    header, envelopes = codec.decode_batch(data)
    if len(envelopes) > MESSAGES_PER_BATCH_MAX:
        raise Wrong(f"{len(envelopes)} messages in a batch")
    if any(type(envelope.message) not in WIRE_TYPES for envelope in envelopes):
        raise Wrong("a type that never travels alone")
    check_ranges(header)
    return header, [envelope.message for envelope in envelopes], envelopes


def _check_again(codec: Codec, target: str, found: Any) -> None:
    """What was accepted can be written, and reads the same."""
    if target == BATCH:
        header, _, envelopes = found
        again = codec.decode_batch(codec.encode_batch(header, envelopes))
        same = again == (header, envelopes)
    else:
        same = codec.decode_body(type(found), codec.encode_body(found)) == found
    if not same:
        raise Wrong("what was accepted reads otherwise when it is written again")


def check_ranges(message: Message) -> None:
    """Every field within what the schema allows. Raises ``Wrong``."""
    for field in fields_of(type(message)):
        _check_value(field, field.kind, getattr(message, field.name))


def _check_value(field: Field, kind: Kind, value: Any) -> None:
    if kind in INTEGER_RANGE:
        low, high = INTEGER_RANGE[kind]
        _demand(type(value) is int and low <= value <= high, field, value)
    elif kind is Kind.BOOL:
        _demand(type(value) is bool, field, value)
    elif kind is Kind.FLOAT:
        _demand(type(value) is float and value - value == 0, field, value)
    elif kind is Kind.DATA:
        _demand(type(value) is bytes and field.length_min <= len(value) <= field.length_max, field, value)
    elif kind is Kind.TEXT:
        fits = type(value) is str and field.length_min <= len(value.encode()) <= field.length_max
        _demand(fits, field, value)
    elif kind is Kind.STRUCT:
        _demand(type(value) is field.struct, field, value)
        check_ranges(value)
    else:
        _check_list(field, value)


def _check_list(field: Field, value: Any) -> None:
    _demand(field.length_min <= len(value) <= field.length_max, field, len(value))
    if isinstance(value, Intents):
        _demand(value.array.dtype == INTENT_ROW and not value.array.flags.writeable, field, value.array.dtype)
    elif isinstance(value, Windows):
        # Evidence that is compared bit for bit: any bits may stand there.
        _demand(value.array.dtype == np.float32 and not value.array.flags.writeable, field, "windows")
    else:
        _demand(type(value) is tuple, field, type(value))
        assert field.item is not None
        for item in value:
            if field.struct is not None:
                _demand(type(item) is field.struct, field, item)
                check_ranges(item)
            else:
                _check_value(field, field.item, item)


def _demand(holds: bool, field: Field, value: Any) -> None:
    if not holds:
        raise Wrong(f"{field.name} = {value!r:.80} was accepted")


def judge_stream(pieces: list[bytes], limit_bytes: int) -> str:
    """A byte stream in pieces through the framing; how it ended. Raises ``Wrong``."""
    reader, total = FrameReader(limit_bytes), 0
    for piece in pieces:
        total += len(piece)
        try:
            payloads = reader.receive(piece)
        except PeerViolation as violation:
            return violation.reason
        except Exception as error:
            raise Wrong(f"{type(error).__name__}: {error}") from error
        if reader.buffered_bytes > limit_bytes + 8 or any(not 0 < len(each) <= limit_bytes for each in payloads):
            raise Wrong(f"{reader.buffered_bytes} bytes buffered, frames of {[len(each) for each in payloads]}")
    return "accepted"


def framed(data: bytes) -> bytes:
    """A frame of whatever bytes."""
    return frame(data or b"\0")

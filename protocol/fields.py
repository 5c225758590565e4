"""What every codec must know about message fields: their kinds, their bounds and their sizes.

Both codecs are built from this one table, so that they accept exactly the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from msgspec import Meta

from protocol.messages import BODY_TYPES, WIRE_TYPES, Intent, Intents, Message
from protocol.rows import Windows

MESSAGES_PER_BATCH_MAX: Final = 4096
BATCH_BYTES_MAX: Final = 16 * 2**20
BODY_BYTES_MAX: Final = 2**20
"""One command body, one log payload, one status reply."""

INTENTS_PER_FRAME_MAX: Final = 1024
CLAIMS_PER_FRAME_MAX: Final = 1024
NEIGHBOURS_PER_CLAIM_MAX: Final = 256
WINDOW_SAMPLES_PER_FRAME_MAX: Final = 2**17
"""Half a MiB of evidence: the most claims with windows of 128 samples."""
VOTES_PER_OUTCOME_MAX: Final = 64
ENTRIES_PER_APPEND_MAX: Final = 4096
COMMANDS_PER_SLOT_MAX: Final = 1024
COMMITS_PER_SLOT_MAX: Final = 64
SLOTS_PER_REPLY_MAX: Final = 256

DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
CHAIN_BYTES_MAX: Final = 3072
"""Three or four certificates; the whole greeting has to stay below ``peer.GREETING_BYTES_MAX``."""
POSSESSION_BYTES_MAX: Final = 160
"""An ECDSA signature on any curve in use."""
CLUSTER_ID_BYTES_MAX: Final = 64
MEMBERSHIP_BYTES_MAX: Final = 64 * 1024
REASON_BYTES_MAX: Final = 1024
ORDER_ID_BYTES_MAX: Final = 64

LENGTH_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    # bytes, and text in UTF-8
    "cluster_id": (1, CLUSTER_ID_BYTES_MAX),
    "digest": (DIGEST_BYTES, DIGEST_BYTES),
    "roster_digest": (DIGEST_BYTES, DIGEST_BYTES),
    "signature": (SIGNATURE_BYTES, SIGNATURE_BYTES),
    "certificates": (0, CHAIN_BYTES_MAX),
    "possession": (0, POSSESSION_BYTES_MAX),
    "body": (0, BODY_BYTES_MAX),
    "payload": (0, BODY_BYTES_MAX),
    "chunk": (0, BODY_BYTES_MAX),
    "membership": (0, MEMBERSHIP_BYTES_MAX),
    "reason": (0, REASON_BYTES_MAX),
    "cl_ord_id": (1, ORDER_ID_BYTES_MAX),
    # elements
    "intents": (0, INTENTS_PER_FRAME_MAX),
    "denials": (0, INTENTS_PER_FRAME_MAX),
    "codes": (0, INTENTS_PER_FRAME_MAX),
    "claims": (0, CLAIMS_PER_FRAME_MAX),
    "starts": (0, NEIGHBOURS_PER_CLAIM_MAX),
    "distances": (0, NEIGHBOURS_PER_CLAIM_MAX),
    "windows": (0, WINDOW_SAMPLES_PER_FRAME_MAX),
    "votes": (0, VOTES_PER_OUTCOME_MAX),
    "entries": (0, ENTRIES_PER_APPEND_MAX),
    "commands": (0, COMMANDS_PER_SLOT_MAX),
    "commits": (0, COMMITS_PER_SLOT_MAX),
    "slots": (0, SLOTS_PER_REPLY_MAX),
}
"""Smallest and largest length of every variable field, by its name, which means the same in every message."""


class Kind(Enum):
    """Type of a field, or of a list's elements. Values are the names that Cap'n Proto's own schema reflection uses."""

    U8 = "uint8"
    U16 = "uint16"
    U32 = "uint32"
    U64 = "uint64"
    I64 = "int64"
    FLOAT = "float64"
    FLOAT32 = "float32"
    BOOL = "bool"
    TEXT = "text"
    DATA = "data"
    STRUCT = "struct"
    LIST = "list"


INTEGER_RANGE: Final[dict[Kind, tuple[int, int]]] = {
    Kind.U8: (0, 2**8 - 1),
    Kind.U16: (0, 2**16 - 1),
    Kind.U32: (0, 2**32 - 1),
    Kind.U64: (0, 2**64 - 1),
    Kind.I64: (-(2**63), 2**63 - 1),
}
_KIND_OF_RANGE: Final[dict[tuple[Any, Any], Kind]] = {
    **{bounds: kind for kind, bounds in INTEGER_RANGE.items()},
    (0, None): Kind.U64,  # msgspec's own decoders cannot state a bound beyond 64 signed bits
}
_KIND_OF_TYPE: Final[dict[Any, Kind]] = {bool: Kind.BOOL, float: Kind.FLOAT, str: Kind.TEXT, bytes: Kind.DATA}


ARRAYS: Final[dict[Any, tuple[Kind, type[Message] | None]]] = {
    Intents: (Kind.STRUCT, Intent),
    Windows: (Kind.FLOAT32, None),
}
"""Lists that the running code holds as arrays: their elements."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message. ``item`` is the element kind of a list; ``struct`` the type of a struct or element;
    ``array`` the class that holds a list of ``ARRAYS``."""

    name: str
    kind: Kind
    item: Kind | None = None
    struct: type[Message] | None = None
    length_min: int = 0
    length_max: int = 0
    array: type[Intents] | type[Windows] | None = None


@cache
def fields_of(message_type: type[Message]) -> tuple[Field, ...]:
    """Fields in declaration order, which is the order of the constructor's positional arguments."""
    hints = get_type_hints(message_type, include_extras=True)
    return tuple(_field(name, hints[name]) for name in message_type.__struct_fields__)


def nested_types(message_type: type[Message]) -> tuple[type[Message], ...]:
    """The type itself and every struct it contains, outermost first."""
    inner = [nested for field in fields_of(message_type) if field.struct for nested in nested_types(field.struct)]
    return (message_type, *dict.fromkeys(inner))


def estimated_bytes(message: Message) -> int:
    """About the size of the message in a batch, either codec. Never encodes; about a microsecond."""
    sizer = _SIZERS.get(type(message))
    if sizer is None:
        sizer = _SIZERS[type(message)] = _sizer(type(message))
    return sizer(message)


_SIZERS: Final[dict[type[Message], Callable[[Message], int]]] = {}
"""Those in use; a cached function would cost as much as the sizer."""


def _field(name: str, hint: Any) -> Field:
    if hint in ARRAYS:
        return Field(name, Kind.LIST, *ARRAYS[hint], *LENGTH_BOUNDS[name], array=hint)
    kind, struct_type = _kind_of(hint)
    if kind in (Kind.TEXT, Kind.DATA):
        return Field(name, kind, None, None, *LENGTH_BOUNDS[name])
    if kind is Kind.LIST:
        item, struct_type = _kind_of(get_args(hint)[0])
        return Field(name, kind, item, struct_type, *LENGTH_BOUNDS[name])
    return Field(name, kind, None, struct_type)


def _kind_of(hint: Any) -> tuple[Kind, type[Message] | None]:
    origin = get_origin(hint)
    if origin is Annotated:
        meta = next(extra for extra in hint.__metadata__ if isinstance(extra, Meta))
        return _KIND_OF_RANGE[(meta.ge, meta.le)], None
    if origin is tuple:
        assert get_args(hint)[1] is Ellipsis, f"{hint}: only homogeneous tuples travel"
        return Kind.LIST, None
    if hint in _KIND_OF_TYPE:
        return _KIND_OF_TYPE[hint], None
    assert isinstance(hint, type) and issubclass(hint, Message), f"{hint}: not a type that travels"
    return Kind.STRUCT, hint


_POINTER_BYTES: Final = 8
_ENVELOPE_BYTES: Final = 24


@cache
def _sizer(message_type: type[Message]) -> Callable[[Message], int]:
    """One expression per type, compiled once: every message that is sent passes here."""
    nested: dict[str, Callable[[Message], int]] = {}
    fixed, parts = _terms(message_type, "m", nested)
    function: Callable[[Message], int] = eval(f"lambda m: {' + '.join([str(fixed), *parts])}", nested)
    return function


def _terms(
    message_type: type[Message], place: str, nested: dict[str, Callable[[Message], int]]
) -> tuple[int, list[str]]:
    """(constant part, terms that depend on the message at ``place``) of its size."""
    fields = fields_of(message_type)
    fixed = _ENVELOPE_BYTES + _POINTER_BYTES * len(fields)
    parts: list[str] = []
    for field in fields:
        value = f"{place}.{field.name}"
        if field.kind is Kind.STRUCT:
            assert field.struct is not None
            inner_fixed, inner_parts = _terms(field.struct, value, nested)
            fixed, parts = fixed + inner_fixed, parts + inner_parts
        elif field.array is not None:
            parts.append(f"{value}.array.nbytes")
        elif field.struct is not None:
            name = f"size_of_{field.struct.__name__}"
            nested[name] = _sizer(field.struct)
            parts.append(f"sum([{name}(row) for row in {value}])")
        elif field.kind is Kind.LIST:
            parts.append(f"{_POINTER_BYTES} * len({value})")
        elif field.kind in (Kind.TEXT, Kind.DATA):
            parts.append(f"len({value})")
    return fixed, parts


ALL_TYPES: Final = tuple(dict.fromkeys(t for root in (*WIRE_TYPES, *BODY_TYPES) for t in nested_types(root)))
"""Every struct of the protocol."""

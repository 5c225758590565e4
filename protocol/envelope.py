"""What surrounds messages on the wire: the batch header and the envelope of one message."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from protocol.errors import LocalMisuse, PeerViolation
from protocol.messages import WIRE_TYPES, Message
from protocol.structs import U16, U32, U64


class BatchHeader(Message, frozen=True):
    """Who sent a batch, when, and what it has seen of the other side."""

    epoch: U64
    """Of the sending process; a restart has another one."""
    sender: U16
    sequence: U64
    """Numbers the batches of one channel of one connection; see ``protocol.sequence``."""
    sent_at_ns: U64
    acknowledged_sequence: U64 = 0
    """Highest batch sequence received from the addressee."""
    flags: U16 = 0


class MsgHdr(Message, frozen=True):
    """Index row of one message in a batch: which column, which row of it, and the cycle that it belongs to."""

    kind: U16
    row: U32
    trace: U64


class Envelope(NamedTuple):
    """A message with the number of the cycle that it belongs to, 0 for none."""

    trace: int
    message: Message


envelope: Final[Callable[[tuple[int, Message]], Envelope]] = partial(tuple.__new__, Envelope)
"""An ``Envelope`` of the pair, without the keyword handling of the named tuple's own constructor, which costs more than
all else that is done for a message in a batch."""

_KINDS: Final = {message_type: kind for kind, message_type in enumerate(WIRE_TYPES)}


def kind_of(message: Message) -> int:
    """The wire's discriminant. Raises LocalMisuse for a type that does not stand alone."""
    kind = _KINDS.get(type(message))
    if kind is None:
        raise LocalMisuse(f"{type(message).__name__} does not travel on its own")
    return kind


def type_of_kind(kind: int) -> type[Message]:
    """Inverse of ``kind_of``. Raises PeerViolation."""
    if not 0 <= kind < len(WIRE_TYPES):
        raise PeerViolation("kind_unknown", str(kind))
    return WIRE_TYPES[kind]

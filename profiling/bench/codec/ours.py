"""Our side of ``swarm bench codec``: the functions that trader and replicas call, on the arrays and messages they hold.

A frame's body is written and read by its pointer fields' own functions; ``write_orders`` and ``read_orders`` call just
those of the hot lists, in a message that holds nothing else, so that twenty orders can be compared with a list of
twenty maps. The whole body, and a batch, are cases of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol.codec import Codec, codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.fields import BATCH_BYTES_MAX
from protocol.layout import WORD
from protocol.messages import Frame, Intents
from protocol.overlay_read import pointer_reader
from protocol.overlay_write import pointer_writer, write_pointer
from protocol.rows import Windows
from protocol.segment import Segment, new_message, sealed

CODEC: Final[Codec] = codec_for("capnp")
WRITE_INTENTS: Final = pointer_writer(Frame, "intents")
READ_INTENTS: Final[Callable[[Segment, int, int, int], Intents]] = pointer_reader(Frame, "intents")
WRITE_WINDOWS: Final = pointer_writer(Frame, "windows")
READ_WINDOWS: Final[Callable[[Segment, int, int, int], Windows]] = pointer_reader(Frame, "windows")

_FIRST: Final = 2 * WORD
"""Where the root struct's pointers begin: it holds nothing else."""


def write_orders(intents: Intents) -> bytes:
    """Intents as the only list of a message."""
    buffer = new_message(0, 1)
    write_pointer(buffer, _FIRST, WRITE_INTENTS, intents)
    return sealed(buffer)


def read_orders(data: bytes) -> Intents:
    """Inverse of ``write_orders``, with every check that a frame's body gets."""
    segment = Segment(data, BATCH_BYTES_MAX)
    root, _, _ = segment.root()
    return READ_INTENTS(segment, root + WORD, *segment.pointer(root))


def write_orders_with_windows(held: tuple[Intents, Windows]) -> bytes:
    """Intents and their windows as the two lists of a message."""
    buffer = new_message(0, 2)
    write_pointer(buffer, _FIRST, WRITE_INTENTS, held[0])
    write_pointer(buffer, _FIRST + WORD, WRITE_WINDOWS, held[1])
    return sealed(buffer)


def read_orders_with_windows(data: bytes) -> tuple[Intents, Windows]:
    """Inverse of ``write_orders_with_windows``."""
    segment = Segment(data, BATCH_BYTES_MAX)
    root, _, _ = segment.root()
    first = root + WORD
    intents = READ_INTENTS(segment, first, *segment.pointer(root))
    return intents, READ_WINDOWS(segment, first + WORD, *segment.pointer(first))


def write_frame(frame: Frame) -> bytes:
    """What the trader signs."""
    return CODEC.encode_body(frame)


def read_frame(body: bytes) -> Frame:
    """What a replica judges."""
    return CODEC.decode_body(Frame, body)


def write_batch(batch: tuple[BatchHeader, list[Envelope]]) -> bytes:
    """What an endpoint flushes."""
    return CODEC.encode_batch(*batch)


def read_batch(data: bytes) -> tuple[BatchHeader, list[Envelope]]:
    """What an endpoint hands on."""
    return CODEC.decode_batch(data)

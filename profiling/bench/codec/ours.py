"""Our side of ``swarm bench codec``: the functions that trader and replicas call, on the arrays and messages they hold.

A frame's body is written and read by its pointer fields' own functions; ``write_lists`` and ``read_lists`` call just
those of the hot lists, in a message that holds nothing else, so that twenty orders can be compared with a list of
twenty maps. The whole body, and a batch, are cases of their own.
"""

from __future__ import annotations

from typing import Any, Final

from protocol.codec import Codec, codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.fields import BATCH_BYTES_MAX
from protocol.layout import WORD
from protocol.messages import Frame
from protocol.overlay_read import pointer_reader
from protocol.overlay_write import pointer_writer
from protocol.segment import POINTER, Segment, new_message, sealed

CODEC: Final[Codec] = codec_for("capnp")
WRITE_INTENTS: Final = pointer_writer(Frame, "intents")
READ_INTENTS: Final = pointer_reader(Frame, "intents")
WRITE_WINDOWS: Final = pointer_writer(Frame, "windows")
READ_WINDOWS: Final = pointer_reader(Frame, "windows")

_FIRST: Final = 2 * WORD
"""Where the root struct begins; of its two pointers the first is the intents'."""


def write_lists(held: tuple[Any, Any]) -> bytes:
    """Intents and windows as the only lists of a message; ``NO_WINDOWS`` for none."""
    intents, windows = held
    buffer = new_message(0, 2)
    POINTER.pack_into(buffer, _FIRST, *WRITE_INTENTS(buffer, _FIRST + WORD, intents))
    POINTER.pack_into(buffer, _FIRST + WORD, *WRITE_WINDOWS(buffer, _FIRST + 2 * WORD, windows))
    return sealed(buffer)


def read_lists(data: bytes) -> tuple[Any, Any]:
    """Inverse of ``write_lists``, with every check that a frame's body gets."""
    segment = Segment(data, BATCH_BYTES_MAX)
    root, _, _ = segment.root()
    low, high = POINTER.unpack_from(segment.data, root)
    intents = READ_INTENTS(segment, root + WORD, low, high)
    low, high = POINTER.unpack_from(segment.data, root + WORD)
    return intents, READ_WINDOWS(segment, root + 2 * WORD, low, high)


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

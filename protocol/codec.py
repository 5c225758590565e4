"""The codec that the rest of the swarm sees: messages to bytes and back, in one of two wire forms.

A codec guarantees shape: what it returns has every field, of its type and width, within the bounds of ``fields``. It
says nothing of meaning; signatures, codes and quorums are the machines' to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from protocol.codec_capnp import CapnpCodec
from protocol.codec_msgpack import MsgpackCodec
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import UsageError
from protocol.messages import Message

__all__ = ["CODEC_NAMES", "BatchHeader", "Codec", "Envelope", "codec_for"]

M = TypeVar("M", bound=Message)


class Codec(Protocol):
    """Stateless: may be shared between connections and threads. The same message always gives the same bytes."""

    name: str

    def encode_batch(self, header: BatchHeader, messages: Sequence[Envelope]) -> bytes:
        """At most ``MESSAGES_PER_BATCH_MAX`` messages of ``WIRE_TYPES``. Raises LocalMisuse."""

    def decode_batch(self, data: bytes) -> tuple[BatchHeader, list[Envelope]]:
        """Messages in the order of sending. Raises PeerViolation."""

    def encode_body(self, message: Message) -> bytes:
        """Any struct of ``messages`` on its own. Raises LocalMisuse."""

    def decode_body(self, kind: type[M], data: bytes) -> M:
        """The struct of that type. Raises PeerViolation."""


_CODECS: Final[dict[str, Codec]] = {codec.name: codec for codec in (CapnpCodec(), MsgpackCodec())}
CODEC_NAMES: Final = tuple(_CODECS)


def codec_for(name: str) -> Codec:
    """The codec of that name, ``capnp`` or ``msgpack``. Raises UsageError."""
    codec = _CODECS.get(name)
    if codec is None:
        raise UsageError(f"unknown codec {name!r}: use one of {', '.join(CODEC_NAMES)}")
    return codec

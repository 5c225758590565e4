"""Flow-control windows that open as far as bytes have been delivered, and no farther.

aioquic doubles its windows whenever half of one has been received, in whatever order: a peer that holds one byte back
and sends a byte far ahead of it makes the library hold everything between them, twice as much each time. Here a window
of constant size stands on the last byte that could be delivered. Holes in a stream are counted too, because the library
looks through all of them for every frame.
"""

from __future__ import annotations

from typing import Any, Final

from aioquic._buffer import Buffer
from aioquic.buffer import UINT_VAR_MAX_SIZE
from aioquic.quic.connection import QuicConnection, QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

HOLES_MAX: Final = 2048
"""In one stream. A burst that fills a window of the smallest datagrams, and loses every second one, leaves fewer."""
HANDSHAKE_HOLES_MAX: Final = 64
"""In the handshake's own bytes, which anybody may send: more than a handshake has packets."""


class DeliveredWindows(QuicConnection):
    """A connection whose peer can make it hold one window of bytes, over all streams."""

    def window_due(self) -> bool:
        """Whether the connection's window may have to be opened. As for a stream, never false when it has to."""
        limit, window = self._local_max_data, self._configuration.max_data
        return limit.value != limit.sent or 2 * (limit.value - limit.used) < window

    def stream_window_due(self, stream: QuicStream) -> bool:
        """The same for one stream."""
        limit, window = stream.max_stream_data_local, self._configuration.max_stream_data
        return limit != stream.max_stream_data_local_sent or 2 * (limit - stream.receiver.highest_offset) < window

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        if not self.window_due():
            return
        limit, window = self._local_max_data, self._configuration.max_data
        receivers = [stream.receiver for stream in self._streams.values()]
        delivered = limit.used - sum(each.highest_offset - each._buffer_start for each in receivers)
        if 2 * (limit.value - delivered) < window:
            limit.value = delivered + window
        if limit.value != limit.sent:
            frame = builder.start_frame(
                QuicFrameType.MAX_DATA,
                capacity=1 + UINT_VAR_MAX_SIZE,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            frame.push_uint_var(limit.value)
            limit.sent = limit.value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if not stream.max_stream_data_local or not self.stream_window_due(stream):
            return  # a stream of our own in one direction has no window
        window, delivered = self._configuration.max_stream_data, stream.receiver._buffer_start
        if 2 * (stream.max_stream_data_local - delivered) < window:
            stream.max_stream_data_local = delivered + window
        if stream.max_stream_data_local != stream.max_stream_data_local_sent:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=1 + 2 * UINT_VAR_MAX_SIZE,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            assert stream.stream_id is not None, "only the handshake's streams have no number"
            frame.push_uint_var(stream.stream_id)
            frame.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _handle_stream_frame(self, context: Any, frame_type: int, buf: Buffer) -> None:
        super()._handle_stream_frame(context, frame_type, buf)
        for stream in self._streams.values():
            _check_holes(stream, HOLES_MAX, frame_type)

    def _handle_crypto_frame(self, context: Any, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        _check_holes(self._crypto_streams[context.epoch], HANDSHAKE_HOLES_MAX, frame_type)


def _check_holes(stream: QuicStream, holes_max: int, frame_type: int) -> None:
    receiver = stream.receiver
    if receiver._buffer and len(receiver._ranges) > holes_max:  # an empty buffer is the rule, and cheaper to ask for
        raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, frame_type, "stream_in_crumbs")

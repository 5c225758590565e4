"""The long middle life of a connection: established, on one path, with nothing to say but the data of its streams.

Some forty attributes of the library have to be asked to know that. They are asked once, and remembered until anything
but the usual datagrams (``fast_send``, ``fast_receive``) touches the connection: ``SwarmConnection`` calls ``disturb``
before it lets the library do anything.
"""

from __future__ import annotations

from typing import Final

from aioquic import tls
from aioquic.quic.connection import NetworkAddress, QuicConnection, QuicConnectionState
from aioquic.quic.stream import QuicStream

ONE_RTT: Final = tls.Epoch.ONE_RTT
CONNECTED: Final = QuicConnectionState.CONNECTED


class Calm:
    """Made once a connection has its keys and packet spaces.

    Invariant: while ``holds``, ``waiting`` is the stream that has something to send (one of them, if ``several``), and
    ``credit`` how many bytes may come before a flow-control window may have to be opened.
    """

    def __init__(self, connection: QuicConnection) -> None:
        self.holds = False
        self.waiting: QuicStream | None = None
        self.several = False
        self.credit = 0
        self.peer_id = b""
        """Destination of what is sent,"""
        self.host_id = b""
        """and of what is received."""
        self.address: NetworkAddress = ("", 0)
        self.idle_timeout_s = 0.0
        """The shorter of both ends' wishes."""
        self._connection = connection
        self._crypto = connection._cryptos[ONE_RTT]
        self._early_crypto = connection._cryptos[tls.Epoch.ZERO_RTT]
        self._handshake_sender = connection._crypto_streams[ONE_RTT].sender

    def disturb(self) -> None:
        """Nothing is known any more."""
        self.holds = False
        self.waiting = None

    def look(self) -> bool:
        """Whether it holds now."""
        self.disturb()
        if self._is_established() and self._only_streams_can_speak() and self._look_at_streams():
            self.peer_id = self._connection._peer_cid.cid
            self.host_id = self._connection.host_cid
            self.address = self._connection._network_paths[0].addr
            wished = self._connection._configuration.idle_timeout
            remote = self._connection._remote_max_idle_timeout
            self.idle_timeout_s = wished if remote is None else min(wished, remote)
            self.holds = True
        return self.holds

    def wait(self, stream: QuicStream) -> None:
        """The stream has something to send."""
        self.several = self.waiting is not None and (self.several or self.waiting is not stream)
        self.waiting = stream

    def sent(self) -> None:
        """Nothing waits any more."""
        self.waiting = None
        self.several = False

    def received(self, size: int) -> None:
        """So many bytes of a stream have come."""
        self.credit -= size
        if self.credit < 0:
            self.disturb()

    def _is_established(self) -> bool:
        connection = self._connection
        if not connection._handshake_confirmed or connection._state is not CONNECTED or connection._close_pending:
            return False
        paths = connection._network_paths
        if len(paths) != 1 or not paths[0].is_validated or paths[0].remote_challenges:
            return False
        if not connection._loss.peer_completed_address_validation or connection._quic_logger is not None:
            return False
        return self._early_crypto.recv.aead is None

    def _only_streams_can_speak(self) -> bool:
        """Whether nobody has asked for a frame of another kind."""
        connection = self._connection
        if connection._handshake_done_pending or connection._probe_pending or connection._ping_pending:
            return False
        if connection._datagrams_pending or connection._retire_connection_ids or connection._streams_blocked_pending:
            return False
        if connection._remote_preferred_address is not None:
            return False
        if not self._handshake_sender.buffer_is_empty or self._crypto._update_key_requested:
            return False
        bidirectional, unidirectional = connection._local_max_streams_bidi, connection._local_max_streams_uni
        if bidirectional.value != bidirectional.sent or unidirectional.value != unidirectional.sent:
            return False
        return all([connection_id.was_sent for connection_id in connection._host_cids])  # noqa: C419 - no generator

    def _look_at_streams(self) -> bool:
        """What waits on them, and what may come; false when one has a word about itself."""
        connection = self._connection
        limit, window = connection._local_max_data, connection._configuration.max_data
        credit = limit.value - limit.used - window // 2
        window = connection._configuration.max_stream_data
        self.sent()
        for stream in connection._streams.values():
            sender, receiver = stream.sender, stream.receiver
            if receiver.stop_pending or sender.reset_pending or sender.is_finished:
                return False
            if stream.max_stream_data_local != stream.max_stream_data_local_sent:
                return False
            left = stream.max_stream_data_local - receiver.highest_offset - window // 2
            if left < credit:
                credit = left
            if not sender.buffer_is_empty:
                if stream.is_blocked:
                    return False
                self.wait(stream)
        self.credit = credit
        return credit >= 0 and limit.value == limit.sent

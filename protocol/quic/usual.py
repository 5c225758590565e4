"""A connection that sends and takes in its usual datagrams the short way, and leaves everything else to the library.

Whatever the library is asked to do ends the connection's calm first: then all is looked at anew. Its public methods are
listed by ``tests/protocol/test_aioquic_contract.py``, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.quic.connection import NetworkAddress
from aioquic.quic.events import QuicEvent
from aioquic.quic.recovery import QuicPacketSpace

from protocol.quic.calm import Calm
from protocol.quic.calm_way import CalmWay
from protocol.quic.windows import DeliveredWindows


class UsualWays(DeliveredWindows):
    """Set ``_ack_delay``, ``_acknowledge_every`` and ``_paced`` before it connects: a connection with a pacer is the
    library's alone."""

    _ack_delay: float
    _acknowledge_every: int
    _path_probe: bytes | None = None
    _paced: bool
    _calm: Calm | None = None
    _one_rtt: QuicPacketSpace | None = None
    _acknowledge_from = 0
    short_way: CalmWay | None = None

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._one_rtt = self._spaces[tls.Epoch.ONE_RTT]
        if self._paced:
            return
        self._calm = Calm(self)
        self.short_way = CalmWay(self._calm, self._ack_delay)

    # --- the short ways ---------------------------------------------------------------------------------------------

    def usual_datagrams(self, now: float) -> list[tuple[bytes, NetworkAddress]] | None:
        """See ``FastSender``."""
        return None if self.short_way is None else self.short_way.usual_datagrams(now)

    def receive_usual(self, data: bytes, address: NetworkAddress, now: float) -> bool:
        """See ``FastReceiver``."""
        return self.short_way is not None and self.short_way.receive_usual(data, address, now)

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        if self._close_event is None and not self.receive_usual(data, addr, now):
            self._disturb()
            super().receive_datagram(data, addr, now)
            self._acknowledge_much(now)

    def _acknowledge_much(self, now: float) -> None:
        """A sender whose window is full waits for us: much is acknowledged without delay (RFC 9000, 13.2.1). The
        library would let a window of any size wait as long as a single byte."""
        due = self._acknowledgement_at
        if due is not None and due > now and self._local_max_data.used >= self._acknowledge_from:
            self._acknowledge_now(now)

    @property
    def _acknowledgement_at(self) -> float | None:
        return None if self._one_rtt is None else self._one_rtt.ack_at

    def _acknowledge_now(self, now: float) -> None:
        assert self._one_rtt is not None, "something has come"
        self._one_rtt.ack_at = now

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """As in aioquic, and an acknowledgement that is due later leaves now if there is data to carry it."""
        if (usual := self.usual_datagrams(now)) is not None:
            return usual
        self._disturb()
        due = self._acknowledgement_at
        if due is not None and due > now and (self._datagrams_pending or self.has_unsent):
            self._acknowledge_now(now)
        datagrams = super().datagrams_to_send(now)
        if due is not None and self._acknowledgement_at is None:
            self._acknowledge_from = self._local_max_data.used + self._acknowledge_every
        return datagrams

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        if self.short_way is None or end_stream or not self.short_way.write(stream_id, data):
            self._disturb()
            super().send_stream_data(stream_id, data, end_stream)

    def next_event(self) -> QuicEvent | None:
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        calm = self._calm
        return calm.timer_at() if calm is not None and calm.holds else super().get_timer()

    def handle_timer(self, now: float) -> None:
        """On a calm connection only an acknowledgement may be due, as a rule: the next datagram says it."""
        calm = self._calm
        if calm is None or not calm.holds or now >= calm.close_at or now >= calm.loss_at():
            self._disturb()
            super().handle_timer(now)

    @property
    def has_unsent(self) -> bool:
        """Whether a stream has something to send."""
        if self._calm is not None and self._calm.holds:
            return self._calm.waiting is not None
        return not all([stream.sender.buffer_is_empty for stream in self._streams.values()])  # noqa: C419 - no generator

    def must_send(self, now: float) -> bool:
        """Whether what has arrived calls for a datagram now. What else there may be to say rides with the
        acknowledgement, whose timer runs; an empty ``datagrams_to_send`` costs as much as half a packet."""
        if self._calm is not None and self._calm.holds:
            return self._calm.must_send(now)
        if not self._handshake_confirmed or self._handshake_done_pending or self._close_event is not None:
            return True
        if self.has_unsent or self._probe_pending or self._datagrams_pending:
            return True
        due = self._acknowledgement_at
        return due is not None and due <= now

    # --- what ends the calm -----------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        if self._calm is not None:
            self._calm.disturb()

    def _settle(self) -> None:
        """Bring the library's books up to date, to read them."""
        if self._calm is not None:
            self._calm.settle()

    def release(self) -> None:
        """Let go of what streams hold; nothing but its end is asked of the connection any more."""
        self._disturb()
        self._calm = self.short_way = None
        self._streams.clear()
        self._events.clear()

    def send_ping(self, uid: int) -> None:
        self._disturb()
        super().send_ping(uid)

    def send_datagram_frame(self, data: bytes) -> None:
        self._disturb()
        super().send_datagram_frame(data)

    def request_key_update(self) -> None:
        self._disturb()
        super().request_key_update()

    def change_connection_id(self) -> None:
        self._disturb()
        super().change_connection_id()

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        self._disturb()
        super().reset_stream(stream_id, error_code)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        self._disturb()
        super().stop_stream(stream_id, error_code)

    def close(self, *arguments: Any, **options: Any) -> None:
        self._disturb()
        super().close(*arguments, **options)

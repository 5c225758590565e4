"""NewReno congestion control (RFC 9002, 7 and appendix B) as a plain object of numbers, for links that we trust.

The library's own gives the same windows (``tests/protocol/test_newreno.py``); this one is compiled, and the short ways
talk to it without a packet object in between. Its monitor of rising round trips, which ends the first slow start as in
HyStart, stays the library's: it is asked once a millisecond at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

from aioquic.quic.congestion.base import QuicCongestionControlFactory, QuicRttMonitor, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

NAME: Final = "swarm-newreno"
WINDOW_PACKETS_INITIAL: Final = 10
WINDOW_PACKETS_MIN: Final = 2
SAMPLE_EVERY_S: Final = 0.001


class NewReno:
    """The window of one connection. Its attributes and methods are those that the library expects."""

    def __init__(self, *, max_datagram_size: int) -> None:
        self.bytes_in_flight = 0
        self.congestion_window = WINDOW_PACKETS_INITIAL * max_datagram_size
        self.ssthresh: int | None = None
        self._datagram_bytes = max_datagram_size
        self._recovery_began_at = 0.0
        self._acked_bytes = 0
        """Since the window last grew, in congestion avoidance."""
        self._monitor = QuicRttMonitor()
        self._sampled_at = 0.0

    # --- for the short ways -----------------------------------------------------------------------------------------

    def sent(self, size: int) -> None:
        """A packet of that many bytes is in flight."""
        self.bytes_in_flight += size

    def acked(self, size: int, sent_at: float) -> None:
        """It has arrived. The window grows, but not for what was sent before the last loss was noticed."""
        self.bytes_in_flight -= size
        if sent_at <= self._recovery_began_at:
            return
        window, threshold = self.congestion_window, self.ssthresh
        if threshold is None or window < threshold:
            self.congestion_window = window + size
            return
        self._acked_bytes += size
        grown = self._acked_bytes // window
        if grown:
            self._acked_bytes -= grown * window
            self.congestion_window = window + grown * self._datagram_bytes

    def measured(self, round_trip_s: float, now: float) -> None:
        """A round trip; the first slow start ends once they keep growing."""
        if self.ssthresh is None and now > self._sampled_at + SAMPLE_EVERY_S:
            self._sampled_at = now
            if self._monitor.is_rtt_increasing(now=now, rtt=round_trip_s):
                self.ssthresh = self.congestion_window

    # --- for the library --------------------------------------------------------------------------------------------

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        self.sent(packet.sent_bytes)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        assert packet.sent_time is not None, "it was sent"
        self.acked(packet.sent_bytes, packet.sent_time)

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self.measured(rtt, now)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Half the window, once for all that was lost in one flight."""
        last_sent_at = 0.0
        for packet in packets:
            assert packet.sent_time is not None, "it was sent"
            self.bytes_in_flight -= packet.sent_bytes
            last_sent_at = packet.sent_time
        if last_sent_at > self._recovery_began_at:
            self._recovery_began_at = now
            self.ssthresh = max(self.congestion_window // 2, WINDOW_PACKETS_MIN * self._datagram_bytes)
            self.congestion_window = self.ssthresh

    def on_persistent_congestion(self) -> None:
        self.congestion_window = WINDOW_PACKETS_MIN * self._datagram_bytes
        self._recovery_began_at = 0.0

    def get_log_data(self) -> dict[str, Any]:
        return {"cwnd": self.congestion_window, "bytes_in_flight": self.bytes_in_flight, "ssthresh": self.ssthresh}


# Known by its methods, not by inheritance.
register_congestion_control(NAME, cast(QuicCongestionControlFactory, NewReno))

"""The books of loss recovery (RFC 9002) of a calm connection, kept as the library keeps them, with fewer questions."""

from __future__ import annotations

from math import inf

from protocol.quic.calm import GRANULARITY_S, Calm
from protocol.quic.calm_stream import Sent


def note_sent(calm: Calm, packet: Sent, now: float) -> None:
    """A packet has left."""
    calm.number_next = packet.packet_number + 1
    calm.bytes_sent += packet.sent_bytes
    calm.sent_packets[packet.packet_number] = packet
    if packet.stream is None:
        return
    calm.in_flight += 1
    calm.spoken_at = now
    calm.window.sent(packet.sent_bytes)
    if not calm.spoken_since:
        calm.stay_open(now)
        calm.spoken_since = True


def note_received(calm: Calm, number: int, now: float, ack_delay_s: float) -> None:
    """The packet after the last has come. ``ack_delay_s`` is infinite for one that asks for no acknowledgement."""
    if number > calm.number_expected:
        calm.number_expected = number + 1
    calm.largest = number
    calm.largest_at = now
    if calm.ack_start == calm.ack_stop:
        calm.ack_start = number
    calm.ack_stop = number + 1
    calm.note_seen(number)
    calm.stay_open(now)
    calm.spoken_since = False
    if calm.ack_at == inf:
        calm.ack_at = now + ack_delay_s


def acknowledged_by(calm: Calm, lowest: int, highest: int) -> list[Sent] | None:
    """The packets that one unbroken range acknowledges anew, oldest first; ``None`` where that is the library's: what
    was sent before it and is not in it may be lost, or a packet in it carried something unusual."""
    found: list[Sent] = []
    if highest < calm.largest_acked:
        return None
    for number, packet in calm.sent_packets.items():
        if number > highest:
            break
        if number < lowest or not isinstance(packet, Sent):
            return None
        stream = packet.stream
        if stream is not None:
            if not _is_first_of(found, stream.stream_id):
                if packet.start != stream.checked:
                    return None
            elif packet.start != stream.buffer_start:
                return None
            stream.checked = packet.stop
        found.append(packet)
    return found


def _is_first_of(found: list[Sent], stream_id: int) -> bool:
    for packet in found:  # noqa: SIM110 - no generator
        if packet.stream is not None and packet.stream.stream_id == stream_id:
            return False
    return True


def take_acknowledgement(calm: Calm, found: list[Sent], highest: int, ack_delay_s: float, now: float) -> None:
    """These packets have arrived, and all before them had."""
    if highest > calm.largest_acked:
        calm.largest_acked = highest
    elicited = False
    for packet in found:
        del calm.sent_packets[packet.packet_number]
        stream = packet.stream
        if stream is not None:
            elicited = True
            calm.in_flight -= 1
            calm.window.acked(packet.sent_bytes, packet.sent_time)
            del stream.buffer[: packet.stop - packet.start]
            stream.buffer_start = packet.stop
        if packet.acknowledged >= calm.ack_start:  # the peer knows that we have all packets up to it
            calm.ack_start = min(packet.acknowledged + 1, calm.ack_stop)
    if not found:
        return
    newest = found[-1]
    if newest.packet_number == highest and elicited:
        _take_round_trip(calm, now - newest.sent_time, ack_delay_s, now)
    calm.probes = 0


def _take_round_trip(calm: Calm, measured_s: float, ack_delay_s: float, now: float) -> None:
    """RFC 9002, 5.3, with the library's bound from below."""
    delay = ack_delay_s if ack_delay_s < calm.ack_delay_max_s else calm.ack_delay_max_s
    latest = measured_s if measured_s > GRANULARITY_S else GRANULARITY_S
    least = calm.round_trip_min_s
    if latest < least:
        calm.round_trip_min_s = least = latest
    if latest > least + delay:
        latest -= delay
    calm.round_trip_latest_s = latest
    difference = least - latest if least > latest else latest - least
    calm.variance_s = 3 / 4 * calm.variance_s + 1 / 4 * difference
    calm.round_trip_s = 7 / 8 * calm.round_trip_s + 1 / 8 * latest
    calm.window.measured(measured_s, now)

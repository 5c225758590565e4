"""The books of loss recovery (RFC 9002), kept for the usual packet as the library keeps them, with fewer questions."""

from __future__ import annotations

from typing import Any, Final

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStreamSender

GRANULARITY_S: Final = 0.001
"""No round trip is taken to be shorter, and no timer finer."""
ACKED: Final = QuicDeliveryState.ACKED
_ON_DATA: Final[Any] = QuicStreamSender.on_data_delivery
_ON_ACKNOWLEDGEMENT: Final[Any] = QuicConnection._on_ack_delivery


def idle_timeout_s(loss: QuicPacketRecovery, agreed_s: float) -> float:
    """What both ends have agreed on, and three probe timeouts at least (RFC 9000, 10.1)."""
    probe = 3 * _probe_timeout_s(loss)
    return agreed_s if agreed_s > probe else probe


def timer_at(connection: QuicConnection, loss: QuicPacketRecovery, space: QuicPacketSpace) -> float:
    """When a calm connection wants to be looked at: to close, to acknowledge, or because something may be lost."""
    at, loss_at = connection._close_at, space.loss_time
    assert at is not None, "it is connected"
    if loss_at is None and space.ack_eliciting_in_flight:
        timeout_s = _probe_timeout_s(loss) * (1 << loss._pto_count)
        loss_at = loss._time_of_last_sent_ack_eliciting_packet + timeout_s
    connection._loss_at = loss_at
    for other in (loss_at, space.ack_at, connection._pacing_at):
        if other is not None and other < at:
            at = other
    return at


def _probe_timeout_s(loss: QuicPacketRecovery) -> float:
    """RFC 9002, 6.2.1."""
    if not loss._rtt_initialized:
        return 2 * loss._rtt_initial
    variance = 4 * loss._rtt_variance
    return loss._rtt_smoothed + (variance if variance > GRANULARITY_S else GRANULARITY_S) + loss.max_ack_delay


def note_sent(loss: QuicPacketRecovery, space: QuicPacketSpace, packet: QuicSentPacket, now: float) -> None:
    """A packet that asks for an acknowledgement has left, on a connection whose handshake is confirmed."""
    space.sent_packets[packet.packet_number] = packet
    space.ack_eliciting_in_flight += 1
    loss._time_of_last_sent_ack_eliciting_packet = now
    loss._cc.on_packet_sent(packet=packet)


def was_received(space: QuicPacketSpace, number: int) -> bool:
    """Whether the packet has come before, or is so old that nobody knows."""
    window = space.received_packets
    return number < window._lower or number in window._received


def note_received(space: QuicPacketSpace, number: int, now: float, ack_delay_s: float | None) -> None:
    """What will be acknowledged. ``ack_delay_s`` is ``None`` for a packet that asks for no acknowledgement."""
    if number > space.largest_received_packet:
        space.largest_received_packet = number
        space.largest_received_time = now
    queue = space.ack_queue
    add_next(queue, number, number + 1)
    window = space.received_packets
    if len(window._received) < 2 * window._size:  # or else the library sweeps first
        window._received.add(number)
        window._lower = max(window._lower, number - window._size + 1)
    else:
        window.add(number)
    if len(queue) > MAX_ACK_RANGES:
        queue.shift()
    if ack_delay_s is not None and space.ack_at is None:
        space.ack_at = now + ack_delay_s


def take_acknowledgement(
    loss: QuicPacketRecovery, space: QuicPacketSpace, lowest: int, highest: int, ack_delay_s: float, now: float
) -> bool:
    """One unbroken range of packets was received. What was sent before it and is not in it may be lost: that is the
    library's. Whether the library has done nothing, so that no stream or limit has changed but by what has arrived."""
    sent = space.sent_packets
    acknowledged: list[QuicSentPacket] = []
    for number, packet in sent.items():
        if number > highest:
            break
        if number < lowest:
            range_set = RangeSet([range(lowest, highest + 1)])
            loss.on_ack_received(ack_rangeset=range_set, ack_delay=ack_delay_s, now=now, space=space)
            return False
        acknowledged.append(packet)
    if highest > space.largest_acked_packet:
        space.largest_acked_packet = highest
    if not acknowledged:
        return True
    elicited, usual = False, True
    for packet in acknowledged:
        elicited = packet.is_ack_eliciting or elicited
        usual = _take_packet(loss, space, packet, now) and usual
    newest = acknowledged[-1]
    if newest.packet_number == highest and elicited:
        assert newest.sent_time is not None
        _take_round_trip(loss, now - newest.sent_time, ack_delay_s, now)
    if space.largest_acked_packet == highest:
        space.loss_time = None  # nothing is outstanding that was sent before what has arrived
    else:
        loss._detect_loss(now=now, space=space)
        usual = False
    loss._pto_count = 0
    return usual


def _take_packet(loss: QuicPacketRecovery, space: QuicPacketSpace, packet: QuicSentPacket, now: float) -> bool:
    """Whether all that it carried were the next bytes of streams and acknowledgements."""
    del space.sent_packets[packet.packet_number]
    if packet.is_ack_eliciting:
        space.ack_eliciting_in_flight -= 1
    if packet.in_flight:
        loss._cc.on_packet_acked(packet=packet, now=now)
    usual = True
    handlers: list[tuple[Any, Any]] = packet.delivery_handlers
    for handler, arguments in handlers:
        function = getattr(handler, "__func__", None)
        if function is _ON_DATA and _took_next_bytes(handler.__self__, arguments[0], arguments[1], arguments[2]):
            continue
        if function is _ON_ACKNOWLEDGEMENT:
            _forget_until(arguments[0].ack_queue, arguments[1] + 1)
            continue
        handler(ACKED, *arguments)
        usual = False
    return usual


def _took_next_bytes(sender: QuicStreamSender, start: int, stop: int, fin: bool) -> bool:
    """Whether these were the oldest bytes of a stream that goes on; they are forgotten then."""
    if fin or sender._buffer_fin is not None or sender._reset_error_code is not None:
        return False
    if start != sender._buffer_start or stop <= start or _ranges(sender._acked):
        return False
    del sender._buffer[: stop - start]
    sender._buffer_start = stop
    return True


def _forget_until(queue: RangeSet, number: int) -> None:
    """The peer knows that we have all packets below this one."""
    ranges = _ranges(queue)
    if len(ranges) == 1 and ranges[0].start < number:
        if ranges[0].stop <= number:
            ranges.pop()
        else:
            ranges[0] = range(number, ranges[0].stop)
    else:
        queue.subtract(0, number)


def _take_round_trip(loss: QuicPacketRecovery, measured_s: float, ack_delay_s: float, now: float) -> None:
    """RFC 9002, 5.3, with the library's bound from below."""
    delay = ack_delay_s if ack_delay_s < loss.max_ack_delay else loss.max_ack_delay
    latest = measured_s if measured_s > GRANULARITY_S else GRANULARITY_S
    least = loss._rtt_min
    if latest < least:
        loss._rtt_min = least = latest
    if latest > least + delay:
        latest -= delay
    loss._rtt_latest = latest
    if loss._rtt_initialized:
        loss._rtt_variance = 3 / 4 * loss._rtt_variance + 1 / 4 * abs(least - latest)
        loss._rtt_smoothed = 7 / 8 * loss._rtt_smoothed + 1 / 8 * latest
    else:
        loss._rtt_first_sample_time = now
        loss._rtt_initialized = True
        loss._rtt_variance = measured_s / 2
        loss._rtt_smoothed = measured_s
    loss._cc.on_rtt_measurement(now=now, rtt=measured_s)
    loss._pacer.update_rate(congestion_window=loss._cc.congestion_window, smoothed_rtt=loss._rtt_smoothed)


def add_next(ranges: RangeSet, start: int, stop: int) -> None:
    """Add what nearly always follows all that is there."""
    found = _ranges(ranges)
    if not found:
        found.append(range(start, stop))
    elif found[-1].stop == start:
        found[-1] = range(found[-1].start, stop)
    else:
        ranges.add(start, stop)


def _ranges(ranges: RangeSet) -> list[range]:
    """The set's own list, to be looked at without a call for every item."""
    found: list[range] = getattr(ranges, "_RangeSet__ranges")  # noqa: B009 - the name is the library's, mangled
    return found

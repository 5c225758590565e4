"""Back-pressure that the application decides on: bytes that a peer may send on a channel before we have handled some.

QUIC's own windows grow with what arrives, not with what is handled, so a slow reader would only fill its memory. Here a
receiver promises room for a window of bytes, counted from the connection's beginning, and promises more (``Credit``) as
it has handled batches. A batch may begin while there is credit left, so that the last one may pass the limit. The
control channel carries the promises themselves and needs none. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from protocol.batch import Channel
from protocol.errors import LocalMisuse, PeerViolation
from protocol.messages import Credit

MIB: Final = 1024 * 1024
WINDOW_BYTES: Final = (0, 16 * MIB, 4 * MIB, 4 * MIB)
"""By channel; both ends know it, so that nothing is agreed at the start. 0: no limit."""


class CreditOut:
    """What we may still send."""

    def __init__(self) -> None:
        self._left = list(WINDOW_BYTES)

    def may_send(self, channel: int) -> bool:
        return self._left[channel] > 0 or not WINDOW_BYTES[channel]

    def sent(self, channel: int, size: int) -> None:
        """A batch of that size has left."""
        self._left[channel] -= size

    def granted(self, credit: Credit) -> bool:
        """The peer has room for more; whether that is news for a channel that was waiting. Raises ``PeerViolation``
        (``credit_malformed``) for a channel that there is not, or more than the channel's window."""
        channel = credit.channel
        if not 0 < channel < len(WINDOW_BYTES) or not 0 < credit.more_bytes <= WINDOW_BYTES[channel]:
            raise PeerViolation("credit_malformed", f"{credit.more_bytes} bytes on channel {channel}")
        waiting = self._left[channel] <= 0
        self._left[channel] += credit.more_bytes
        if self._left[channel] > WINDOW_BYTES[channel]:
            raise PeerViolation("credit_malformed", f"more than the window on channel {channel}")
        return waiting and self._left[channel] > 0


class CreditIn:
    """What the peer may still send, and what of it we have handled and not said so."""

    def __init__(self) -> None:
        self._left = list(WINDOW_BYTES)
        self._handled = [0] * len(WINDOW_BYTES)

    def received(self, channel: int, size: int) -> None:
        """A batch has arrived. Raises ``PeerViolation`` (``credit_exceeded``) for one that began without credit."""
        if WINDOW_BYTES[channel] and self._left[channel] <= 0:
            raise PeerViolation("credit_exceeded", f"{size} bytes on channel {channel}")
        self._left[channel] -= size

    def handled(self, channel: int, size: int) -> Credit | None:
        """The application is done with a batch; the promise to send, once half a window can be promised at a time."""
        window = WINDOW_BYTES[channel]
        self._handled[channel] += size
        if not window or 2 * self._handled[channel] < window:
            return None
        more = min(self._handled[channel], window)
        self._handled[channel] -= more
        self._left[channel] += more
        return Credit(channel=Channel(channel), more_bytes=more)

    def unsaid(self, credit: Credit) -> None:
        """The promise could not be sent: it is made again with the next batch that is handled."""
        self._handled[credit.channel] += credit.more_bytes
        self._left[credit.channel] -= credit.more_bytes


class Paused:
    """Channels whose batches wait until the application goes on: bounded by the credit that was given for them."""

    def __init__(self) -> None:
        self._channels: set[Channel] = set()
        self._held: deque[tuple[Channel, bytes]] = deque()

    def __contains__(self, channel: Channel) -> bool:
        return channel in self._channels

    def pause(self, channel: Channel) -> None:
        """Batches of the channel are held from now on. Not for CONTROL."""
        if channel is Channel.CONTROL:
            raise LocalMisuse("the control channel is never paused")
        self._channels.add(channel)

    def hold(self, channel: Channel, payload: bytes) -> None:
        """A batch of a paused channel, as it came."""
        self._held.append((channel, payload))

    def resume(self, channel: Channel) -> list[tuple[Channel, bytes]]:
        """What was held of the channel, to be handled now."""
        self._channels.discard(channel)
        released = [each for each in self._held if each[0] is channel]
        self._held = deque(each for each in self._held if each[0] is not channel)
        return released

    @property
    def held_bytes(self) -> int:
        """Gauge: what paused channels hold."""
        return sum(len(payload) for _, payload in self._held)

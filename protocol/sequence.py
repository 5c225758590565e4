"""Numbers of the batches on one connection, so that none is delivered twice. Pure.

Every channel counts for itself, because batches of one channel may overtake those of another; the channel stands in a
number's last two bits, so that a batch cannot be replayed on another channel either. A connection's streams lose and
repeat nothing: a number that does not rise is the peer's doing. On a new connection counting starts anew, and nothing
of the old one is sent again.
"""

from __future__ import annotations

from typing import Final

from protocol.errors import PeerViolation

CHANNELS: Final = 4


class SequenceOut:
    """Numbers for what we send: 4, 8, 12 and so on for channel 0, and so on."""

    def __init__(self) -> None:
        self._next = [CHANNELS + channel for channel in range(CHANNELS)]

    def next(self, channel: int) -> int:
        """The number of the next batch of a channel."""
        number = self._next[channel]
        self._next[channel] = number + CHANNELS
        return number


class SequenceIn:
    """What a peer may send next."""

    def __init__(self) -> None:
        self._last = [0] * CHANNELS
        self.highest = 0
        """Highest number taken, over all channels: what our batches acknowledge."""

    def take(self, channel: int, number: int) -> None:
        """Raises ``PeerViolation``: ``replayed`` for a number that is not above the channel's last, ``wrong_channel``
        for one of another channel."""
        if number % CHANNELS != channel:
            raise PeerViolation("wrong_channel", f"batch {number} on channel {channel}")
        if number <= self._last[channel]:
            raise PeerViolation("replayed", f"batch {number} after {self._last[channel]}")
        self._last[channel] = number
        self.highest = max(self.highest, number)

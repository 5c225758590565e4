"""Messages to batches, one batcher per peer. No I/O and no clock: the shell pushes during a tick and drains at its end.

Four channels in strict priority, each a bounded queue. A batch grows by what a tick brings and never waits for more
unless ``linger_ns`` says so: under load batches grow by themselves, idle adds no delay. ``batch_max`` 1 is the
baseline, one message per frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from protocol.envelope import Envelope
from protocol.errors import LocalMisuse, Unavailable
from protocol.fields import BATCH_BYTES_MAX, MESSAGES_PER_BATCH_MAX, estimated_bytes
from protocol.framing import FrameReader, frame

__all__ = ["BatchLimits", "BatchStatistics", "Batcher", "Channel", "FrameReader", "WouldBlock", "frame"]


class Channel(IntEnum):
    """Streams of a connection, most urgent first."""

    CONTROL = 0
    CONSENSUS = 1
    ORDERS = 2
    BULK = 3


class WouldBlock(Unavailable):
    """The channel's queue is full. The message was not taken; what to do with it is the caller's policy."""

    def __init__(self, channel: Channel, depth: int) -> None:
        super().__init__(f"{channel.name.lower()} queue holds {depth} messages")
        self.channel = channel
        self.depth = depth


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Sizes are estimates (``fields.estimated_bytes``). One message larger than a bound still travels, alone."""

    batch_max: int = 64
    """Messages in one batch."""
    batch_bytes_max: int = 64 * 1024
    queue_max: int = 4096
    """Messages waiting in one channel."""
    queue_bytes_max: int = 2 * BATCH_BYTES_MAX
    linger_ns: int = 0
    """How long a batch that is not full may wait on ORDERS and BULK. CONTROL and CONSENSUS never wait."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_max <= MESSAGES_PER_BATCH_MAX:
            raise LocalMisuse(f"batch_max {self.batch_max}, outside 1 to {MESSAGES_PER_BATCH_MAX}")
        if min(self.batch_bytes_max, self.queue_max, self.queue_bytes_max) < 1 or self.linger_ns < 0:
            raise LocalMisuse(f"{self}: bounds start at 1, linger at 0")


@dataclass(slots=True)
class BatchStatistics:
    """What has left, over all channels."""

    batches: int = 0
    messages: int = 0
    bytes_estimated: int = 0
    batch_messages_max: int = 0
    """Messages in the largest batch so far."""
    refused: int = 0
    """Pushes answered with WouldBlock."""


_Waiting = tuple[Envelope, int, int]
"""Envelope, estimated size, when it was pushed."""


@dataclass(slots=True)
class _Queue:
    """Invariant: ``size`` is the sum of the waiting sizes, and ``depth_peak`` the longest that ``waiting`` ever was."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    size: int = 0
    depth_peak: int = 0


_CHANNELS: Final = tuple(Channel)
_URGENT: Final = (Channel.CONTROL, Channel.CONSENSUS)


class Batcher:
    """Bounded queues to one peer. ``push`` during a tick, ``frames_to_send`` at its end or at ``get_timer``."""

    def __init__(self, limits: BatchLimits | None = None) -> None:
        self.limits = limits or BatchLimits()
        self.statistics = BatchStatistics()
        self._queues = [_Queue() for _ in Channel]

    def push(self, envelope: Envelope, channel: Channel, now_ns: int) -> None:
        """Take a message for the next batch of its channel. Raises WouldBlock when the queue is full; nothing is
        dropped and nothing changes then."""
        queue, size = self._queues[channel], estimated_bytes(envelope.message)
        depth = len(queue.waiting)
        if depth >= self.limits.queue_max or (depth and queue.size + size > self.limits.queue_bytes_max):
            self.statistics.refused += 1
            raise WouldBlock(channel, depth)
        queue.waiting.append((envelope, size, now_ns))
        queue.size += size
        if depth >= queue.depth_peak:
            queue.depth_peak = depth + 1

    def channels_waiting(self) -> list[Channel]:
        """Channels with messages waiting, most urgent first; at the end of a tick nearly always one or none, so that
        nobody else need be asked anything."""
        return [_CHANNELS[number] for number in range(len(self._queues)) if self._queues[number].waiting]

    def depth(self, channel: Channel) -> int:
        """Gauge: messages waiting."""
        return len(self._queues[channel].waiting)

    def depth_peak(self, channel: Channel) -> int:
        """Gauge: most messages that ever waited at once."""
        return self._queues[channel].depth_peak

    def get_timer(self, open_channels: Sequence[Channel] = tuple(Channel)) -> int | None:
        """When ``frames_to_send`` will next have something for these channels, or None when nothing waits. May lie in
        the past."""
        due = [self._due_at_ns(channel) for channel in open_channels if self._queues[channel].waiting]
        return min(due) if due else None

    def take(self, channel: Channel, now_ns: int) -> list[Envelope] | None:
        """The next batch of a channel, in order of arrival; None when none is due."""
        queue = self._queues[channel]
        return self._take_batch(queue) if queue.waiting and self._due_at_ns(channel) <= now_ns else None

    def frames_to_send(self, now_ns: int, frames_max: int | None = None) -> list[tuple[Channel, list[Envelope]]]:
        """Batches that are due, most urgent channel first. ``frames_max`` is the room that the caller has; what does
        not fit keeps waiting."""
        frames: list[tuple[Channel, list[Envelope]]] = []
        for channel in Channel:
            while (frames_max is None or len(frames) < frames_max) and (batch := self.take(channel, now_ns)):
                frames.append((channel, batch))
        return frames

    def check_invariants(self) -> None:
        """For tests and simulation."""
        for queue in self._queues:
            assert queue.size == sum(size for _, size, _ in queue.waiting)
            assert len(queue.waiting) <= queue.depth_peak <= self.limits.queue_max

    def _due_at_ns(self, channel: Channel) -> int:
        queue = self._queues[channel]
        oldest_ns = queue.waiting[0][2]
        full = len(queue.waiting) >= self.limits.batch_max or queue.size >= self.limits.batch_bytes_max
        return oldest_ns if full or channel in _URGENT else oldest_ns + self.limits.linger_ns

    def _take_batch(self, queue: _Queue) -> list[Envelope]:
        taken: list[Envelope] = []
        size = 0
        while queue.waiting and len(taken) < self.limits.batch_max:
            if taken and size + queue.waiting[0][1] > self.limits.batch_bytes_max:
                break
            envelope, envelope_size, _ = queue.waiting.popleft()
            taken.append(envelope)
            size += envelope_size
        queue.size -= size
        self._count(len(taken), size)
        return taken

    def _count(self, messages: int, size: int) -> None:
        self.statistics.batches += 1
        self.statistics.messages += messages
        self.statistics.bytes_estimated += size
        self.statistics.batch_messages_max = max(self.statistics.batch_messages_max, messages)

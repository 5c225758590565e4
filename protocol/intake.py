"""What arrives on a connection's streams, cut into frames: which streams there are, and what may come when. Pure.

The dialler opens each stream with one byte, its channel. Until the greeting only the control stream is read; a
listener's first batches may overtake its greeting, and wait.
"""

from __future__ import annotations

from typing import Final

from protocol.batch import Channel, FrameReader
from protocol.errors import PeerViolation

STREAM_OF: Final = {channel: 4 * channel for channel in Channel}
"""Client-initiated bidirectional stream of each channel; a lower number is served strictly first."""
CHANNEL_OF: Final = {stream_id: channel for channel, stream_id in STREAM_OF.items()}
GREETING_BYTES_MAX: Final = 4096
EARLY_BYTES_MAX: Final = 1024 * 1024
"""What a listener's first batches may overtake its greeting by, when a packet is lost."""


class Intake:
    """The reading side of one connection, at either end."""

    def __init__(self, *, dialled: bool) -> None:
        self._dialled = dialled
        self._greeted = False
        self._readers = {stream_id: FrameReader() for stream_id in CHANNEL_OF}
        if not dialled:
            self._readers[0] = FrameReader(GREETING_BYTES_MAX)
        self._unopened = set() if dialled else set(CHANNEL_OF)
        self._early: dict[int, bytearray] = {}

    def read(self, stream_id: int, data: bytes) -> list[bytes]:
        """The frames that are complete now. Raises ``PeerViolation``."""
        if stream_id not in CHANNEL_OF:
            raise PeerViolation("stream_unknown", str(stream_id))
        if stream_id in self._unopened:
            if data[:1] != bytes([CHANNEL_OF[stream_id]]):
                raise PeerViolation(
                    "greeting_malformed", f"stream {stream_id} opens with {data[:1].hex() or 'nothing'}"
                )
            self._unopened.discard(stream_id)
            data = data[1:]
        if not self._greeted and stream_id != STREAM_OF[Channel.CONTROL]:
            self._keep_early(stream_id, data)
            return []
        payloads = self._readers[stream_id].receive(data)
        if (
            not self._greeted
            and not self._dialled
            and (len(payloads) > 1 or (payloads and self._readers[0].buffered_bytes))
        ):
            raise PeerViolation("before_greeting", "more than a greeting")
        return payloads

    def greeted(self) -> None:
        """The peer has proved who it is: batches may come, as large as they like."""
        self._greeted = True
        if not self._dialled:
            self._readers[0] = FrameReader()

    def take_early(self) -> list[tuple[int, bytes]]:
        """What came before the greeting, to be read once it is there."""
        if not self._greeted or not self._early:
            return []
        early, self._early = self._early, {}
        return [(stream_id, bytes(data)) for stream_id, data in early.items()]

    @property
    def held_bytes(self) -> int:
        """Gauge: unfinished frames, and what waits for the greeting."""
        return sum(reader.buffered_bytes for reader in self._readers.values()) + sum(map(len, self._early.values()))

    def _keep_early(self, stream_id: int, data: bytes) -> None:
        if data and not self._dialled:
            raise PeerViolation("before_greeting", f"{len(data)} bytes on stream {stream_id}")
        self._early.setdefault(stream_id, bytearray()).extend(data)
        if sum(map(len, self._early.values())) > EARLY_BYTES_MAX:
            raise PeerViolation("before_greeting", f"more than {EARLY_BYTES_MAX} bytes")

"""The frames that a replica holds in memory, how many it may hold, and what it keeps of those that it let go.

A frame is *open* until its outcome stands: on the lane in a committed OUTCOME, on the spine by q votes. Open frames in
the log are as many as the log makes them; open frames that nobody has ordered are bounded per author, and forgotten
when their author no longer asks for them. Of a frame that is gone two things stay: the verdict, because a verdict is
for ever, and its place in the order, so that it is not ordered twice.
"""

from __future__ import annotations

from typing import Final

import msgspec

from consensus.effects import FrameRecord, Verdict

FRAMES_KEPT_MAX: Final = 4096
"""Closed frames kept for late votes, repeated submissions and peers that were away."""

FRAMES_UNORDERED_MAX: Final = 1024
"""Frames of one author that may wait for a place in the order; beyond it a new submission is refused, not queued."""

FRAME_PATIENCE_NS: Final = 30_000_000_000
"""A frame without a place in the order is forgotten when its author has not asked for it for so long."""


class FrameTable:
    """Plain state with the moves that keep it consistent."""

    # Invariant: a record is in _open, or in _closed, never in both; _unordered holds the open ones without a place.

    def __init__(self) -> None:
        self.records: dict[bytes, FrameRecord] = {}
        self.places: dict[bytes, int] = {}
        """Digest -> lane index or spine sequence of every frame in our log, also of those forgotten."""
        self.ripe: dict[int, bytes] = {}
        """Lane index -> digest of frames whose every intent is settled there and whose OUTCOME is not committed."""
        self._open: dict[bytes, FrameRecord] = {}
        self._closed: dict[bytes, None] = {}
        self._unordered: dict[int, dict[bytes, None]] = {}
        self._verdicts: dict[bytes, bytes] = {}

    @property
    def open_count(self) -> int:
        return len(self._open)

    def is_open(self, record: FrameRecord) -> bool:
        return self._open.get(record.digest) is record

    def has_room(self, author: int) -> bool:
        return len(self._unordered.get(author, ())) < FRAMES_UNORDERED_MAX

    def add(self, record: FrameRecord) -> None:
        assert record.digest not in self.records
        self.records[record.digest] = record
        self._open[record.digest] = record
        self._unordered.setdefault(record.command.author, {})[record.digest] = None

    def ordered(self, record: FrameRecord, place: int) -> None:
        """It has got its place: the lane index of its entry, or the sequence of its slot."""
        self.places[record.digest] = place
        self._forget_waiting(record)

    def unordered(self, record: FrameRecord) -> None:
        """Its entry is gone from our log."""
        self.places.pop(record.digest, None)
        if self.is_open(record):
            self._unordered.setdefault(record.command.author, {})[record.digest] = None

    def close(self, record: FrameRecord) -> None:
        """Nothing more happens to it; the frame that was closed longest ago makes room."""
        if not self.is_open(record):
            return
        del self._open[record.digest]
        self._forget_waiting(record)
        self._closed[record.digest] = None
        if len(self._closed) > FRAMES_KEPT_MAX:
            oldest = next(iter(self._closed))
            del self._closed[oldest]
            del self.records[oldest]

    def abandon(self, record: FrameRecord) -> None:
        """Forget an open frame that has no place."""
        assert not record.ordered and self.is_open(record)
        del self._open[record.digest]
        del self.records[record.digest]
        self._forget_waiting(record)

    # --- verdicts ----------------------------------------------------------------------------------------------------

    def remember_verdict(self, digest: bytes, body: bytes) -> None:
        """What this replica has said, or is about to say, about a frame. As long-lived as its row in the store."""
        self._verdicts[digest] = body

    def verdict(self, digest: bytes) -> Verdict | None:
        body = self._verdicts.get(digest)
        return None if body is None else msgspec.msgpack.decode(body, type=Verdict)

    def _forget_waiting(self, record: FrameRecord) -> None:
        waiting = self._unordered.get(record.command.author)
        if waiting is not None:
            waiting.pop(record.digest, None)
            if not waiting:
                del self._unordered[record.command.author]

    def check_invariants(self) -> None:
        """For tests and simulation: raises ``AssertionError`` when the table contradicts itself."""
        assert self._open.keys() | self._closed.keys() == self.records.keys()
        assert not self._open.keys() & self._closed.keys()
        assert len(self._closed) <= FRAMES_KEPT_MAX
        waiting = {digest for digests in self._unordered.values() for digest in digests}
        assert waiting == {digest for digest, record in self._open.items() if not record.ordered}
        assert all(not record.closed for record in self._open.values())
        assert all(record.closed for digest, record in self.records.items() if digest in self._closed)

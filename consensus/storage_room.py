"""Room in the write-ahead log that is written before it is needed.

A sync of bytes that lie over old ones has nothing to say to the filesystem's journal; one of a file that grows has, and
several that grow at a time wait for each other there. SQLite begins its log anew in the same file once a checkpoint has
caught up, so that the room is made a few times in an agent's life. Zeros are no frames: whoever reads the log after a
crash stops before them ("WAL-mode file format", section 4.3).

The size is remembered, because asking costs more than it seems: a file whose times were asked for gets new, exact ones
with the next write (Linux 6.13 and later, "multigrain timestamps"), and the sync has them to write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 4096
FRAME_BYTES: Final = PAGE_BYTES + 24
HEADER_BYTES: Final = 32
ROOM_BYTES: Final = 1 << 20
"""How much is made at a time."""
ROOM_BYTES_MIN: Final = 256 << 10
"""More than nearly any commit; one that is larger grows the file, as it would without us."""


class WriteAheadRoom:
    """Call ``ensure`` where nobody writes to the log: before the first commit, and after each. ``path`` is the log's.

    A disk without so much room is left as it was, and not asked again: whether it is full, a commit will say.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._possible = True
        self._frames = 0
        self._size = 0
        """As it was when last asked for or made: SQLite cuts the log only where it begins anew."""
        self.ensure(0)

    def ensure(self, frames: int) -> None:
        """Make room after the first ``frames`` frames if little is left."""
        if not self._possible:
            return
        begun_anew, self._frames = frames < self._frames, frames
        if begun_anew or self._left(frames) < ROOM_BYTES_MIN:
            self._size = os.fstat(self._descriptor).st_size
        if self._left(frames) < ROOM_BYTES_MIN:
            self._make()

    def _left(self, frames: int) -> int:
        return self._size - HEADER_BYTES - frames * FRAME_BYTES

    def _make(self) -> None:
        try:
            written = os.pwrite(self._descriptor, bytes(ROOM_BYTES), self._size)
        except OSError:
            written = 0
        if written == ROOM_BYTES:
            self._size += ROOM_BYTES
        else:
            self._possible = False
            os.truncate(self._descriptor, self._size)

    def close(self) -> None:
        """Leave the log to others."""
        os.close(self._descriptor)

"""Room in the write-ahead log that is written before it is needed.

A sync of bytes that lie over old ones has nothing to say to the filesystem's journal; one of a file that grows has, and
several that grow at a time wait for each other there. SQLite begins its log anew in the same file once a checkpoint has
caught up, so that the room is made a few times in an agent's life. Zeros are no frames: whoever reads the log after a
crash stops before them ("WAL-mode file format", section 4.3).
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
        self.ensure(0)

    def ensure(self, frames: int) -> None:
        """Make room after the first ``frames`` frames if little is left."""
        if not self._possible:
            return
        size = os.fstat(self._descriptor).st_size
        if size - HEADER_BYTES - frames * FRAME_BYTES >= ROOM_BYTES_MIN:
            return
        try:
            written = os.pwrite(self._descriptor, bytes(ROOM_BYTES), size)
        except OSError:
            written = 0
        if written < ROOM_BYTES:
            self._possible = False
            os.truncate(self._descriptor, size)

    def close(self) -> None:
        """Leave the log to others."""
        os.close(self._descriptor)

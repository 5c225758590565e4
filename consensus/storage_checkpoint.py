"""Moves what the write-ahead log holds into the file, on a thread of its own, so that commits seldom wait for it.

SQLite would do it within the commit that fills the log. Here the log is asked after each commit how much is waiting
(the header of the WAL index, see "WAL-mode file format"), and a second connection takes it from there. Where the thread
cannot keep up, SQLite's own bound still holds.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from pathlib import Path
from typing import Final

from consensus.storage_file import connect
from consensus.storage_room import WriteAheadRoom

WAITING_PAGES_MAX: Final = 1000
"""SQLite's own bound, at which the thread begins."""
_INDEX_HEADER: Final = struct.Struct("=16xI76xI")
"""Frames in the log; frames of it that are in the file."""


class Checkpointer:
    """Call ``committed`` after each commit. ``failure`` says why the disk refused; nothing is tried after that."""

    def __init__(self, path: Path) -> None:
        self.failure: str | None = None
        self._connection = connect(path)
        self._index = os.open(path.with_name(path.name + "-shm"), os.O_RDONLY | os.O_CLOEXEC)
        self._room = WriteAheadRoom(path.with_name(path.name + "-wal"))
        self._wanted = threading.Event()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="checkpoint", daemon=True)
        self._worker.start()

    def committed(self) -> None:
        """Wake the thread if enough is waiting, and see to the room for the next commit."""
        frames, moved = _INDEX_HEADER.unpack(os.pread(self._index, _INDEX_HEADER.size, 0))
        self._room.ensure(frames)
        if frames - moved >= WAITING_PAGES_MAX:
            self._wanted.set()

    def close(self) -> None:
        """Wait for the thread. May be called again."""
        if not self._closed:
            self._closed = True
            self._wanted.set()
            self._worker.join()
            self._connection.close()
            os.close(self._index)
            self._room.close()

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed or self.failure is not None:
                return
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:
                self.failure = str(error)

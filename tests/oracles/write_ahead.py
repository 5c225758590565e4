"""SQLite's write-ahead log as its documentation describes it ("Database File Format", section 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
PAGE_BYTES: Final = 4096
FRAME_BYTES: Final = FRAME_HEADER_BYTES + PAGE_BYTES
_SALTS: Final = slice(16, 24)
_FRAME_SALTS: Final = slice(8, 16)


def log_end(path: Path) -> int:
    """Where the log's last frame ends; behind it there may be room, or frames of an earlier round."""
    content = path.read_bytes()
    end = WAL_HEADER_BYTES if content[_SALTS].strip(b"\0") else 0
    while end and content[end : end + FRAME_BYTES][_FRAME_SALTS] == content[_SALTS]:
        end += FRAME_BYTES
    return end

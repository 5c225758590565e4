"""One timeline for every process of a host, and the identity of the boot that the timeline belongs to.

``perf_counter_ns`` reads CLOCK_MONOTONIC on Linux. It counts from the host's boot, in containers too, so intervals from
different processes may be compared and subtracted without correction, as long as they carry the same boot id.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")

now_ns: Final = time.perf_counter_ns
"""Nanoseconds on the host's monotonic timeline. A plain alias: a wrapping function would double its cost."""


def wall_ns() -> int:
    """Nanoseconds since 1970 in UTC. For display and for ordering the lives of an agent, never for durations."""
    return time.time_ns()


def read_boot_id(path: Path = BOOT_ID_PATH) -> str:
    """The kernel's boot id, or an empty string on a system that does not publish one."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def boot_hash(boot_id: str) -> int:
    """First 8 bytes of SHA-256 of the boot id as an unsigned integer; 0 stands for an unknown boot."""
    if not boot_id:
        return 0
    return int.from_bytes(hashlib.sha256(boot_id.encode("ascii")).digest()[:8], "big")

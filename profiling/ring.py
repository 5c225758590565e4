"""A memory-mapped ring of timing records, one file per life of a process, that survives SIGKILL.

Layout, native byte order: a header of 64 bytes, then ``capacity`` records of 48 bytes. Pages of a mapped file belong to
the kernel, so whatever was stored stays when the process is killed. Power failure is not covered: nothing is synced.

Why recording from several threads is safe. ``next`` on ``itertools.count`` is one C call under the GIL, so every record
gets a number, and thereby a slot, of its own. A thread that is suspended between taking its number and storing its
record delays only its own slot. It may also set the header's write counter back for a moment, therefore the reader
takes the larger of the counter and of the newest number found in a slot.

Why a torn record is seen. The counter announces number n before slot n % capacity is touched, and a record's own number
is its last field, stored after all others. A process killed in between leaves a slot that does not hold the announced
number: not yet written, or still carrying the number of one lap earlier. Such a slot counts as torn.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from profiling.clock import boot_hash, now_ns, read_boot_id, wall_ns

MAGIC: Final = b"SWRMRING"
VERSION: Final = 1
DEFAULT_CAPACITY: Final = 1 << 16
HEADER: Final = struct.Struct("=8sHHH2xQQI4xQQQ")
RECORD: Final = struct.Struct("=QQQQHBB4xQ")
COUNTER_WORD: Final = 3
"""Index of the write counter among the header's eight 64-bit words."""

RECORD_DTYPE: Final = np.dtype(
    {
        "names": ["t0_ns", "t1_ns", "trace", "aux", "operation", "kind", "agent", "number"],
        "formats": ["u8", "u8", "u8", "u8", "u2", "u1", "u1", "u8"],
        "offsets": [0, 8, 16, 24, 32, 34, 35, 40],
        "itemsize": 48,
    }
)

assert HEADER.size == 64 and RECORD.size == RECORD_DTYPE.itemsize == 48

Write = Callable[[int, int, int, int, int, int], None]
"""``write(operation, t0_ns, t1_ns, trace, aux, kind)``."""


class Kind(IntEnum):
    """How an interval was measured."""

    SPAN = 0
    INTERVAL = 1
    MARK = 2


class RingError(ValueError):
    """The file is not a ring that this version can read. ``reason`` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: not a readable ring: {reason}")
        self.path = path
        self.reason = reason


class RingWriter:
    """Writes one ring file. One writer per file; any number of threads of this process may call ``write``.

    ``path`` names the series and each life gets a file of its own: ``trace.ring`` becomes ``trace-0.ring`` in the first
    life, ``trace-1.ring`` after a restart, and so on. What an earlier life recorded is never touched; ``self.path`` is
    the file in use. ``capacity`` is the number of records kept, 1 or more. Disk space is reserved here, because a full
    disk met later through the mapping would kill the process.

    Raises ``ValueError`` for a capacity below 1 or an agent index outside 0..255, ``OSError`` when the file cannot be
    made.
    """

    def __init__(self, path: Path, agent_index: int, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be 1 or more, not {capacity}")
        if not 0 <= agent_index <= 255:
            raise ValueError(f"agent_index must lie in 0..255, not {agent_index}")
        self.agent_index = agent_index
        self.capacity = capacity
        self.refused = 0
        self.path, descriptor = _create_next(path)
        try:
            size = HEADER.size + RECORD.size * capacity
            _reserve(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        boot = boot_hash(read_boot_id())
        HEADER.pack_into(
            self._map, 0, MAGIC, VERSION, RECORD.size, agent_index, capacity, 0, os.getpid(), boot, now_ns(), wall_ns()
        )
        self._words = memoryview(self._map)[: HEADER.size].cast("Q")
        self.write: Write = self._make_write()

    @property
    def written(self) -> int:
        """Records announced so far, overwritten ones included."""
        return self._words[COUNTER_WORD]

    def close(self) -> None:
        """Unmap the file. Later writes, say of a worker thread still inside a span, are refused and counted."""
        self._words.release()
        self._map.close()

    def _make_write(self) -> Write:
        # A closure over locals: attribute look-ups would cost a quarter of the whole write.
        next_number = itertools.count(1).__next__
        pack_into = RECORD.pack_into
        words, mapping, capacity, agent = self._words, self._map, self.capacity, self.agent_index

        def write(operation: int, t0_ns: int, t1_ns: int, trace: int, aux: int, kind: int) -> None:
            try:
                number = next_number()
                words[COUNTER_WORD] = number
                pack_into(
                    mapping, number % capacity * 48 + 64, t0_ns, t1_ns, trace, aux, operation, kind, agent, number
                )
            except (struct.error, ValueError):
                # A number too large for its field, or a closed ring. The profiler must not bring down what it watches.
                self.refused += 1

        return write


def _create_next(path: Path) -> tuple[Path, int]:
    """Open the first file of the series that does not exist yet, exclusively."""
    for life in itertools.count(_lives(path)):
        candidate = path.with_name(f"{path.stem}-{life}{path.suffix}")
        try:
            return candidate, os.open(candidate, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
    raise AssertionError("an endless count ended")


def _lives(path: Path) -> int:
    """One more than the highest life in the series, so that a deleted file's number is not used for a later life."""
    taken = [name.stem.removeprefix(f"{path.stem}-") for name in path.parent.glob(f"{path.stem}-*{path.suffix}")]
    return 1 + max((int(life) for life in taken if life.isdecimal()), default=-1)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


@dataclass(frozen=True, slots=True)
class RingContents:
    """What one ring holds. ``written == len(records) + lost + torn``.

    ``records``: ``RECORD_DTYPE``, ordered by start, then by number. ``lost``: overwritten because the ring wrapped.
    ``torn``: announced, but never finished. Times in nanoseconds on the timeline of the boot with ``boot_hash``.
    """

    path: Path
    records: npt.NDArray[np.void]
    written: int
    lost: int
    torn: int
    agent: int
    capacity: int
    pid: int
    boot_hash: int
    start_ns: int
    start_wall_ns: int


def read_ring(path: Path) -> RingContents:
    """Read a ring, whether its writer still runs, ended or was killed.

    Raises ``RingError`` when the file is no ring, of another version or cut short; ``OSError`` when it cannot be read.
    """
    # Unbuffered: the second look at the header must see the file, not what the first left in a buffer.
    with path.open("rb", buffering=0) as file:
        data = file.readall()
        file.seek(0)
        counter_after = _check_header(path, file.read(HEADER.size), size=len(data))[3]
    return contents_of(path, data, counter_after)


def contents_of(path: Path, data: bytes, counter_after: int) -> RingContents:
    """Interpret a copy of a ring; ``counter_after`` is the write counter as it stood once the copy was complete.

    A writer may go on during the copy. Then only what was announced before the copy and not overtaken during it counts.
    """
    _, agent, capacity, counter, pid, boot, start_ns, start_wall_ns = _check_header(path, data)
    slots = np.frombuffer(data, RECORD_DTYPE, capacity, HEADER.size)
    numbers = slots["number"]
    in_place = (numbers > 0) & (numbers % np.uint64(capacity) == np.arange(capacity, dtype=np.uint64))
    in_place &= numbers <= max(counter, counter_after) + capacity
    newest = max(counter, counter_after, int(numbers[in_place].max(initial=0)))
    written = newest if counter == counter_after else counter
    lost = min(written, max(0, newest - capacity))
    intact = slots[in_place & (numbers <= written) & (numbers > lost)]
    records = intact[np.lexsort((intact["number"], intact["t0_ns"]))]
    torn = written - lost - len(records)
    return RingContents(path, records, written, lost, torn, agent, capacity, pid, boot, start_ns, start_wall_ns)


def _check_header(path: Path, data: bytes, size: int | None = None) -> tuple[int, int, int, int, int, int, int, int]:
    if len(data) < HEADER.size:
        raise RingError(path, f"{len(data)} bytes, shorter than a header of {HEADER.size}")
    magic, version, record_size, *rest = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise RingError(path, f"it begins with {magic!r}, not with {MAGIC!r}")
    if version != VERSION or record_size != RECORD.size:
        raise RingError(path, f"version {version} with records of {record_size} bytes; this is version {VERSION}")
    agent, capacity, counter, pid, boot, start_ns, start_wall_ns = rest
    size = len(data) if size is None else size
    if capacity < 1 or size < HEADER.size + RECORD.size * capacity:
        raise RingError(path, f"{size} bytes are too few for the announced {capacity} records")
    return size, agent, capacity, counter, pid, boot, start_ns, start_wall_ns

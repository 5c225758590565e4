"""The thread that waits for the disk, so that the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from consensus.machine import Record
from consensus.storage import KeyValue
from profiling.clock import now_ns
from profiling.span import record as record_span
from profiling.stages import Operation


class Commits(Protocol):
    """What the runner needs of ``consensus.storage.Storage``."""

    def commit(self, records: Sequence[Record | KeyValue]) -> None:
        """Make them durable in their order, all or none; blocks. An error is final."""


Written = Callable[[BaseException | None], None]
"""Called on the loop: the records are durable, or why they may not be."""


class DiskThread:
    """Commits in the order in which it is asked to, and tells the loop of each.

    A thread of its own with a plain queue: a pool's future and the loop's future around it cost as much as a small
    commit. It does not keep the process alive: what a commit had not finished was not acknowledged either.
    """

    def __init__(self, storage: Commits, loop: asyncio.AbstractEventLoop) -> None:
        self._storage = storage
        self._loop = loop
        self._work: SimpleQueue[tuple[Sequence[Record | KeyValue], int, Written] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="storage", daemon=True).start()

    def commit(self, records: Sequence[Record | KeyValue], trace: int, written: Written) -> None:
        """Hand in records. Never blocks."""
        self._work.put((records, trace, written))

    def close(self) -> None:
        """End the thread, behind what was handed in."""
        self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            records, trace, written = work
            error: BaseException | None = None
            started = now_ns()
            try:
                self._storage.commit(records)
                record_span(Operation.LOG_PERSIST, started, now_ns(), trace, len(records))
            except BaseException as raised:  # whatever it is, the loop has to stop the agent
                error = raised
            try:
                self._loop.call_soon_threadsafe(written, error)
            except RuntimeError:
                return  # the loop was closed while we wrote: nobody waits any more

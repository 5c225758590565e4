"""Readys whose records are on their way to the disk, in the order in which they were taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from consensus.machine import HardState, LogAppend, Ready, Record
from consensus.raft.log import Log, Write
from protocol.errors import LocalMisuse


class _OpenWrite(NamedTuple):
    ready: Ready
    write: Write
    hard_state: HardState


class OpenWrites:
    """Turns what has changed into records, and what was recorded into what is durable."""

    def __init__(self, log: Log, hard_state: HardState) -> None:
        self._log = log
        self._handed_hard_state = hard_state
        self._open: deque[_OpenWrite] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, ready: Ready, hard_state: HardState, snapshots: Sequence[Record] = ()) -> None:
        """Fill ``ready.records`` with what no earlier Ready holds: a snapshot before the entries that follow it."""
        if hard_state == self._handed_hard_state and not self._log.unsaved and not snapshots:
            return
        if hard_state != self._handed_hard_state:
            self._handed_hard_state = hard_state
            ready.records.append(hard_state)
        ready.records.extend(snapshots)
        unsaved, write = self._log.begin_write()
        if unsaved:
            ready.records.append(LogAppend(unsaved))
        self._open.append(_OpenWrite(ready, write, hard_state))

    def end(self, ready: Ready) -> HardState:
        """The records of ``ready`` are durable; returns the hard state that is on the disk since."""
        if not self._open or self._open[0].ready is not ready:
            raise LocalMisuse("Readys must be persisted once each, in the order in which they were taken")
        done = self._open.popleft()
        self._log.end_write(done.write)
        return done.hard_state

"""The replicated log in memory, and how much of it is on this agent's disk.

An entry passes three stations: appended (in ``_entries``), handed to the shell (a ``Write`` is open for it), durable
(the write was closed). A truncation pulls the later two back, also in writes that are still open: what such a write
puts on the disk is overwritten by a later one and must never count as durable, even if the same entry comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocol.errors import LocalMisuse
from protocol.messages import Entry

ENTRY_OVERHEAD_BYTES: Final = 32
"""What an entry adds to a message beside its payload."""


def size_bytes(entries: Sequence[Entry]) -> int:
    """What these entries weigh in every limit that is in bytes."""
    return sum([len(entry.payload) + ENTRY_OVERHEAD_BYTES for entry in entries])


@dataclass(slots=True, eq=False)
class Write:
    """Entries on their way to the disk."""

    last_index: int
    """Durable up to here once the write is closed. A truncation lowers it."""


class LogWatcher(Protocol):
    """Follows what enters and leaves a log."""

    def truncated(self, keep: int) -> None: ...
    def appended(self, entries: Sequence[Entry]) -> None: ...


class Log:
    """Entries ``base_index`` + 1 to ``last_index``, without gaps, terms never falling. A snapshot stands for the rest.

    Invariants: ``durable_index`` <= ``_handed_index`` <= ``last_index``, and ``base_index`` <= ``_handed_index``; every
    open write ends at or below ``_handed_index``.
    """

    def __init__(self, entries: Sequence[Entry] = (), base_index: int = 0, base_term: int = 0) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._entries = list(entries)
        self.last_index = base_index + len(self._entries)
        self.durable_index = self._handed_index = self.last_index
        self._writes: deque[Write] = deque()
        self._watchers: list[LogWatcher] = []
        self._check_sequence()

    def watch(self, watcher: LogWatcher) -> None:
        """Tell ``watcher`` of everything that the log holds, and of every change from now on."""
        self._watchers.append(watcher)
        watcher.appended(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> int | None:
        """Term of the entry at ``index``; 0 at the log's start, None beyond its end and where it was compacted."""
        if self.base_index < index <= self.last_index:
            return self._entries[index - self.base_index - 1].term
        return self.base_term if index == self.base_index else None

    def entries_from(self, first: int, last: int | None = None) -> list[Entry]:
        """Entries ``first`` to ``last``, both included; to the end when ``last`` is None. What was compacted is not
        there."""
        start = max(first - self.base_index - 1, 0)
        return self._entries[start : None if last is None else max(last - self.base_index, 0)]

    def bounded(self, first: int, count_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from ``first`` on for one message. One entry always goes, however large, or it would never go."""
        start = first - self.base_index - 1
        assert start >= 0
        taken = self._entries[start : start + count_max]
        total = 0
        for position, entry in enumerate(taken):
            total += len(entry.payload) + ENTRY_OVERHEAD_BYTES
            if total > bytes_max and position > 0:
                return tuple(taken[:position])
        return tuple(taken)

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate's log is at least as complete as this one (section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def first_conflict(self, entries: Sequence[Entry]) -> int | None:
        """Position in ``entries`` of the first one that this log does not hold. Matching entries are never replaced:
        a delayed or repeated message must not shorten the log."""
        for position, entry in enumerate(entries):
            if self.term_at(entry.index) != entry.term:
                return position
        return None

    def match_hint(self, index: int, term: int) -> int:
        """The highest index, at most ``index``, at which the other log may match if its term there is ``term``.

        The other log's terms up to that point are at most ``term``, so that entries of a later term cannot
        match and a whole term is skipped in one round trip (end of section 5.3). Followers use it on what a leader
        tried, and leaders on the hint that comes back, so that both sides skip. What was compacted is committed, so
        that every other log matches it, or will.
        """
        index = min(index, self.last_index)
        while index > self.base_index and self._entries[index - self.base_index - 1].term > term:
            index -= 1
        return index

    def append(self, entries: Sequence[Entry]) -> None:
        """Put ``entries`` at their indices; whatever stood at or after the first one is gone."""
        keep = entries[0].index - 1
        if not self.base_index <= keep <= self.last_index:
            raise LocalMisuse(f"entry {keep + 1} into a log from {self.base_index + 1} to {self.last_index}")
        if keep < self.last_index:
            self._truncate(keep)
        self._entries.extend(entries)
        self.last_index = keep + len(entries)
        for watcher in self._watchers:
            watcher.appended(entries)

    def compact(self, index: int, term: int) -> None:
        """Drop the entries up to ``index``: a snapshot stands for them, and the disk was handed all of them."""
        assert self.base_index <= index <= self._handed_index
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def restart(self, index: int, term: int) -> None:
        """Drop everything: the log goes on after a snapshot at ``index``. Writes that are open count for nothing."""
        self._truncate(0)
        self.base_index, self.base_term = index, term
        self.last_index = self._handed_index = index

    def begin_write(self) -> tuple[tuple[Entry, ...], Write]:
        """Hand out what no earlier write holds. Close the writes in the order in which they were begun."""
        unsaved = tuple(self.entries_from(self._handed_index + 1))
        self._handed_index = self.last_index
        write = Write(self.last_index)
        self._writes.append(write)
        return unsaved, write

    def end_write(self, write: Write) -> None:
        """The entries of ``write`` are on the disk."""
        if not self._writes or self._writes.popleft() is not write:
            raise LocalMisuse("writes must be closed in the order in which they were begun")
        self.durable_index = max(self.durable_index, write.last_index)

    @property
    def unsaved(self) -> bool:
        return self._handed_index < self.last_index

    def check_invariants(self) -> None:
        assert 0 <= self.durable_index <= self._handed_index <= self.last_index
        assert self.base_index <= self._handed_index and self.last_index == self.base_index + len(self._entries)
        assert all(write.last_index <= self._handed_index for write in self._writes)
        self._check_sequence()

    def _truncate(self, keep: int) -> None:
        del self._entries[max(keep - self.base_index, 0) :]
        self.last_index = self.base_index + len(self._entries)
        self._handed_index = min(self._handed_index, keep)
        self.durable_index = min(self.durable_index, keep)
        for write in self._writes:
            write.last_index = min(write.last_index, keep)
        for watcher in self._watchers:
            watcher.truncated(keep)

    def _check_sequence(self) -> None:
        term = self.base_term
        for position, entry in enumerate(self._entries, start=self.base_index + 1):
            if entry.index != position or entry.term < term:
                raise LocalMisuse(f"entry {entry.index} of term {entry.term} at position {position}, after term {term}")
            term = entry.term

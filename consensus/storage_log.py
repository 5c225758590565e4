"""The lane's log in its table: one row an append, each chained to the one before by hash.

An old row in a new log, or a missing one, is found by its chain. An append is written, checked and read as a whole,
because rows of their own would cost as much again for every entry.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from consensus.machine import Compact, Snapshot, SnapshotRecord
from consensus.storage_rows import (
    Damage,
    base_of,
    base_row,
    chain_after,
    checksum,
    entries_body,
    entries_of,
    expect,
    link,
)
from protocol.errors import LocalMisuse
from protocol.messages import Entry

LOG_TABLES: Final = """
CREATE TABLE appends(first INTEGER PRIMARY KEY, last INTEGER NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL);
CREATE TABLE log_base(id INTEGER PRIMARY KEY CHECK (id = 1), row BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE snapshot(id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL, term INTEGER NOT NULL,
    membership BLOB NOT NULL, digest BLOB NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL);
"""


class LogTable:
    """Entries ``base_index`` + 1 to ``last_index``, without gaps, and the snapshot that stands for the rest. Call it
    within a transaction; after an error what it remembers is worth nothing.

    Invariant: ``base_index`` <= ``last_index``. The first row may begin before the base, which it reaches beyond.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.base_index, self.base_term, self._base_chain = self._load_base()
        self.last_index, self._chain = self._end()
        kept = connection.execute("SELECT position FROM snapshot").fetchone()
        self._snapshot_index = 0 if kept is None else kept[0]

    # Writing ----------------------------------------------------------------------------------------------------------

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Put ``entries`` at their indices; whatever stood at or after the first one is gone."""
        first = entries[0].index
        if not self.base_index < first <= self.last_index + 1:
            raise LocalMisuse(
                f"entry {first} would leave a gap after {self.last_index}, or lies in what was compacted up to "
                f"{self.base_index}, in {self._path}"
            )
        if first <= self.last_index:
            self._cut(first - 1)
        self._insert(entries)

    def keep_snapshot(self, record: SnapshotRecord) -> None:
        """In place of the one before."""
        snapshot = record.snapshot
        if snapshot.index <= self._snapshot_index:
            raise LocalMisuse(
                f"a snapshot at {snapshot.index} must not take the place of the one at {self._snapshot_index} in "
                f"{self._path}"
            )
        self._connection.execute(
            "INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?, ?, ?, ?)",
            (snapshot.index, snapshot.term, snapshot.membership, snapshot.digest, snapshot.data, _checksum(snapshot)),
        )
        self._snapshot_index = snapshot.index
        if record.restarts_log:
            self._connection.execute("DELETE FROM appends")
            self._chain = chain_after(snapshot.index, snapshot.term, snapshot.digest)
            self.last_index = snapshot.index
            self._set_base(snapshot.index, snapshot.term, self._chain)

    def compact(self, record: Compact) -> None:
        """Drop the appends that lie wholly before the new base."""
        if not self.base_index <= record.index <= min(self._snapshot_index, self.last_index):
            raise LocalMisuse(
                f"compaction up to {record.index} of a log from {self.base_index} to {self.last_index} with a snapshot "
                f"at {self._snapshot_index}, in {self._path}"
            )
        query = "SELECT first, last, chain FROM appends WHERE first <= ? ORDER BY first DESC LIMIT 2"
        wholly_before = [row for row in self._connection.execute(query, (record.index,)) if row[1] <= record.index]
        chain = self._base_chain
        if wholly_before:
            first, _, chain = wholly_before[0]
            self._connection.execute("DELETE FROM appends WHERE first <= ?", (first,))
        self._set_base(record.index, record.term, chain)

    def _cut(self, keep: int) -> None:
        """Drop what stands after ``keep``. An append that reaches beyond it is written again without its end."""
        self._connection.execute("DELETE FROM appends WHERE first > ?", (keep,))
        self.last_index, self._chain = self._end()
        if self.last_index > keep:
            query = "SELECT first, body FROM appends ORDER BY first DESC LIMIT 1"
            first, body = self._connection.execute(query).fetchone()
            self._connection.execute("DELETE FROM appends WHERE first = ?", (first,))
            self.last_index, self._chain = self._end()
            if keep > self.base_index:
                self._insert(tuple(entries_of(body, first)[: keep - first + 1]))

    def _insert(self, entries: tuple[Entry, ...]) -> None:
        first, last = entries[0].index, entries[-1].index
        body = entries_body(entries)
        self._chain = link(self._chain, first, last, body)
        self._connection.execute("INSERT INTO appends VALUES (?, ?, ?, ?)", (first, last, body, self._chain))
        self.last_index = last

    def _set_base(self, index: int, term: int, chain: bytes) -> None:
        self.base_index, self.base_term, self._base_chain = index, term, chain
        insert_base(self._connection, index, term, chain)

    # Reading ----------------------------------------------------------------------------------------------------------

    def load_entries(self) -> list[Entry]:
        """All of them, each checked. Raises ``Damage``."""
        entries: list[Entry] = []
        following, chain = self.base_index + 1, self._base_chain
        for first, last, body, stored in self._connection.execute("SELECT * FROM appends ORDER BY first"):
            chain = link(chain, first, last, body)
            begins = first <= following <= last if not entries else first == following
            expect(begins and chain == stored, f"the log from entry {following} on")
            entries.extend(entries_of(body, first)[following - first :])
            following = last + 1
        return entries

    def load_snapshot(self) -> Snapshot | None:
        """Raises ``Damage`` if it is not what was written."""
        row = self._connection.execute("SELECT * FROM snapshot").fetchone()
        if row is None:
            expect(self.base_index == 0, "the snapshot before the log")
            return None
        _, index, term, membership, snapshot_digest, data, stored = row
        snapshot = Snapshot(index, term, membership, snapshot_digest, data)
        expect(_checksum(snapshot) == stored and self.base_index <= index, f"the snapshot at {index}")
        return snapshot

    def _load_base(self) -> tuple[int, int, bytes]:
        found = self._connection.execute("SELECT row, checksum FROM log_base").fetchone()
        if found is None:
            raise Damage("where the log begins is missing")
        row, stored = found
        expect(checksum(b"log_base", row) == stored, "where the log begins")
        return base_of(row)

    def _end(self) -> tuple[int, bytes]:
        last = self._connection.execute("SELECT last, chain FROM appends ORDER BY first DESC LIMIT 1").fetchone()
        return (self.base_index, self._base_chain) if last is None else (last[0], last[1])


def insert_base(connection: sqlite3.Connection, index: int, term: int, chain: bytes) -> None:
    """Write where the log begins."""
    row = base_row(index, term, chain)
    connection.execute("INSERT OR REPLACE INTO log_base VALUES (1, ?, ?)", (row, checksum(b"log_base", row)))


def _checksum(snapshot: Snapshot) -> int:
    position = b"%d/%d" % (snapshot.index, snapshot.term)
    return checksum(b"snapshot", position, snapshot.membership, snapshot.digest, snapshot.data)

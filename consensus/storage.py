"""What an agent must not forget, on SQLite: hard state, lane log, signed phases, committed slots, votes, key values.

One directory per agent, one file in it, one process at a time. WAL mode with ``synchronous=FULL``: ``commit`` returns
after the write-ahead log has been synced, so many Readys' records cost one sync. The first failed write is the last
one tried: after it nobody knows what the disk holds, so the agent has to stop (see "fsyncgate").

SQLite checks its write-ahead log but not its pages, so every row carries a checksum of its own. The log's rows are
chained by hash instead (``storage_log.py``): an old row in a new log, or a missing one, is found as well.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from consensus.machine import (
    Compact,
    HardState,
    LogAppend,
    Record,
    SignedPhase,
    SlotCommit,
    Snapshot,
    SnapshotRecord,
    VoteCast,
)
from consensus.storage_checkpoint import Checkpointer
from consensus.storage_file import FILE_NAME, DirectoryLock, connect, open_database
from consensus.storage_log import LogTable
from consensus.storage_rows import Damage, checksum, expect, phase_body, phase_of, slot_body, slot_of
from consensus.storage_witness import bear_witness, expect_store
from protocol.errors import LocalMisuse, RunFailure
from protocol.messages import CommittedSlot, Entry


class StorageFailed(RunFailure):
    """A write did not reach the disk, so a promise may not be kept. The agent must stop."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A small named value beside the consensus records, for instance a trader's progress. The last write stands."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class StoredState:
    """Everything that ``Storage.load`` returns, each in the order in which the machines want it."""

    hard_state: HardState
    entries: list[Entry]
    """By index, from the one after ``log_base`` on, without gaps."""
    signed_phases: list[SignedPhase]
    """By view and sequence."""
    slots: list[CommittedSlot]
    """By sequence."""
    votes: list[VoteCast]
    """In the order in which they were first cast."""
    key_values: dict[str, bytes]
    snapshot: Snapshot | None = None
    """The latest one that was kept."""
    log_base: tuple[int, int] = (0, 0)
    """Index and term before the first entry; a snapshot stands for what came before."""


class Storage:
    """The store of one agent in directory ``path``, made when it is missing.

    Raises ``UsageError`` when the directory belongs to another cluster or agent, is in use by another process, or holds
    a damaged file; nothing is written to the file in any of these cases. ``commit`` blocks on the disk: call it in a
    worker thread. All methods may be called from any thread.

    ``witness`` is a file outside the directory that remembers the store: without it, a lost disk is a new agent.
    """

    def __init__(self, path: Path, cluster_id: bytes, agent_id: str, witness: Path | None = None) -> None:
        self.path = path / FILE_NAME
        self._mutex = threading.Lock()
        self._failure: str | None = None
        self._directory_lock = DirectoryLock(path)
        with ExitStack() as undo:
            undo.callback(self._directory_lock.release)
            if witness is not None:
                expect_store(witness, self.path, cluster_id, agent_id)
            open_database(self.path, cluster_id, agent_id)
            self._connection = connect(self.path)
            undo.callback(self._connection.close)
            self._log = self._open_log()
            if witness is not None:
                bear_witness(witness, self.path, cluster_id, self._incarnation())
            self._checkpointer = Checkpointer(self.path)
            undo.pop_all()

    def commit(self, records: Sequence[Record | KeyValue]) -> None:
        """Make ``records`` durable, in their order, all or none. Raises ``StorageFailed``, then and ever after."""
        if not records:
            return
        with self._mutex:
            self._refuse_after_failure()
            try:
                if self._is_one_row(records):
                    self._write(records[0])  # a statement alone is a transaction
                else:
                    self._connection.execute("BEGIN IMMEDIATE")
                    for record in records:
                        self._write(record)
                    self._connection.execute("COMMIT")
                self._checkpointer.committed()
            except (sqlite3.Error, OSError, OverflowError) as error:
                self._failure = str(error)
                self._refuse_after_failure()
            except BaseException:
                self._failure = "a write was interrupted"
                raise

    def load(self) -> StoredState:
        """Read everything back and verify it. Raises ``RunFailure`` on the first row that is not what was written."""
        with self._mutex:
            try:
                return StoredState(
                    hard_state=self._load_hard_state(),
                    entries=self._log.load_entries(),
                    signed_phases=list(self._load_phases()),
                    slots=list(self._load_slots()),
                    votes=list(self._load_votes()),
                    key_values=dict(self._load_key_values()),
                    snapshot=self._log.load_snapshot(),
                    log_base=(self._log.base_index, self._log.base_term),
                )
            except (Damage, sqlite3.Error, msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
                raise self._damaged(str(error)) from error

    def close(self) -> None:
        """Give the directory back. Everything committed is durable already."""
        with self._mutex:
            self._failure = self._failure or "it was closed"
            self._checkpointer.close()
            self._connection.close()
            self._directory_lock.release()

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing ----------------------------------------------------------------------------------------------------------

    def _is_one_row(self, records: Sequence[Record | KeyValue]) -> bool:
        """An append to the log's end, as nearly all commits are."""
        first = records[0]
        return len(records) == 1 and isinstance(first, LogAppend) and first.entries[0].index > self._log.last_index

    def _write(self, record: Record | KeyValue) -> None:
        match record:
            case HardState(term, voted_for):
                row = struct.pack("<Qq", term, voted_for)
                self._put("INSERT OR REPLACE INTO hard_state VALUES (1, ?, ?)", row, checksum(b"hard_state", row))
            case LogAppend(entries):
                self._log.append(entries)
            case SignedPhase():
                self._write_phase(record)
            case SlotCommit(slot):
                self._put_once("slots", "sequence = ?", (slot.sequence,), slot.digest, slot_body(slot))
            case VoteCast(path, vote_digest, body):
                check = checksum(b"votes", struct.pack("<B", path), vote_digest, body)
                self._put(
                    "INSERT INTO votes(path, digest, body, checksum) VALUES (?, ?, ?, ?) ON CONFLICT(path, digest) "
                    "DO UPDATE SET body = excluded.body, checksum = excluded.checksum",
                    path, vote_digest, body, check,
                )  # fmt: skip
            case KeyValue(key, value):
                check = checksum(b"key_values", key.encode(), value)
                self._put("INSERT OR REPLACE INTO key_values VALUES (?, ?, ?)", key, value, check)
            case SnapshotRecord():
                self._log.keep_snapshot(record)
            case Compact():
                self._log.compact(record)

    def _write_phase(self, record: SignedPhase) -> None:
        body = phase_body(record.commands, record.signature)
        key = (record.view, record.sequence, record.phase)
        self._put_once("phases", "view = ? AND sequence = ? AND phase = ?", key, record.digest, body)

    def _put_once(self, table: str, where: str, key: tuple[Any, ...], row_digest: bytes, body: bytes) -> None:
        """A promise is written once. The same one again is fine; another digest would be equivocation."""
        kept = self._connection.execute(f"SELECT digest FROM {table} WHERE {where}", key).fetchone()
        if kept is not None and kept[0] != row_digest:
            raise LocalMisuse(
                f"{table} row {key} in {self.path} stands for {kept[0].hex()} and cannot stand for {row_digest.hex()}"
            )
        if kept is None:
            check = checksum(table.encode(), repr(key).encode(), row_digest, body)
            marks = ", ".join("?" * (len(key) + 3))
            self._put(f"INSERT INTO {table} VALUES ({marks})", *key, row_digest, body, check)

    def _put(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def _refuse_after_failure(self) -> None:
        self._failure = self._failure or self._checkpointer.failure
        if self._failure is not None:
            raise StorageFailed(
                f"cannot write {self.path}: {self._failure}; the agent stops, because a promise may not be on the "
                "disk. Check the disk's space and health, then start the agent again"
            )

    # Reading ----------------------------------------------------------------------------------------------------------

    def _rows(self, query: str) -> Iterator[Any]:
        return self._connection.execute(query)

    def _open_log(self) -> LogTable:
        try:
            return LogTable(self._connection, self.path)
        except (Damage, sqlite3.Error, TypeError) as error:
            raise self._damaged(str(error)) from error

    def _incarnation(self) -> bytes:
        incarnation: bytes = self._connection.execute("SELECT incarnation FROM owner").fetchone()[0]
        return incarnation

    def _load_hard_state(self) -> HardState:
        for row, stored in self._rows("SELECT row, checksum FROM hard_state"):
            expect(checksum(b"hard_state", row) == stored, "the term and vote")
            return HardState(*struct.unpack("<Qq", row))
        return HardState(0, -1)

    def _load_phases(self) -> Iterator[SignedPhase]:
        for *key, row_digest, body, stored in self._rows("SELECT * FROM phases ORDER BY view, sequence, rowid"):
            view, sequence, phase = key
            intact = checksum(b"phases", repr(tuple(key)).encode(), row_digest, body) == stored
            expect(intact, f"the signed {phase} of view {view}, sequence {sequence}")
            yield SignedPhase(view, sequence, phase, row_digest, *phase_of(body))

    def _load_slots(self) -> Iterator[CommittedSlot]:
        for sequence, row_digest, body, stored in self._rows("SELECT * FROM slots ORDER BY sequence"):
            intact = checksum(b"slots", repr((sequence,)).encode(), row_digest, body) == stored
            expect(intact, f"slot {sequence}")
            yield slot_of(sequence, row_digest, body)

    def _load_votes(self) -> Iterator[VoteCast]:
        for path, row_digest, body, stored in self._rows("SELECT path, digest, body, checksum FROM votes ORDER BY id"):
            intact = checksum(b"votes", struct.pack("<B", path), row_digest, body) == stored
            expect(intact, f"the vote on {row_digest.hex()}")
            yield VoteCast(path, row_digest, body)

    def _load_key_values(self) -> Iterator[tuple[str, bytes]]:
        for key, value, stored in self._rows("SELECT * FROM key_values ORDER BY key"):
            expect(checksum(b"key_values", key.encode(), value) == stored, f"the value of {key!r}")
            yield key, value

    def _damaged(self, what: str) -> RunFailure:
        self._failure = "it is damaged"
        return RunFailure(
            f"{self.path} is damaged: {what}. Nothing was changed. Restore the directory from a copy, or move it away "
            "and bring the agent back under a new identity; it must not vote again under this one without its memory"
        )

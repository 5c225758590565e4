"""What an agent must not forget, on SQLite: hard state, lane log, signed phases, committed slots, votes, key values.

One directory per agent, one file in it, one process at a time. WAL mode with ``synchronous=FULL``: ``commit`` returns
after the write-ahead log has been synced, so many Readys' records cost one sync. The first failed write is the last
one tried: after it nobody knows what the disk holds, so the agent has to stop (see "fsyncgate").

SQLite checks its write-ahead log but not its pages, so every row carries a checksum of its own. Log entries are chained
by hash instead: an old row in a new log, or a missing one, is found as well.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from consensus.machine import Compact, HardState, LogAppend, Record, SignedPhase, SlotCommit, SnapshotRecord, VoteCast
from consensus.storage_file import FILE_NAME, DirectoryLock, connect, open_database
from protocol.errors import LocalMisuse, RunFailure
from protocol.messages import Commit, CommittedSlot, Entry, Message, SignedCommand
from protocol.signing import digest

_CHAIN_START: Final = bytes(32)

# Rows hold plain tuples in MessagePack: msgspec does not decode the messages' own types, whose bounds pass 2**63.
_CommandRow = tuple[int, int, bytes, bytes]
_CommitRow = tuple[int, int, bytes, int, bytes]
_PHASE_DECODER: Final = msgspec.msgpack.Decoder(tuple[list[_CommandRow], bytes])
_SLOT_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, list[_CommandRow], list[_CommitRow]])


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
    """By index, from 1, without gaps."""
    signed_phases: list[SignedPhase]
    """By view and sequence."""
    slots: list[CommittedSlot]
    """By sequence."""
    votes: list[VoteCast]
    """In the order in which they were first cast."""
    key_values: dict[str, bytes]


class Storage:
    """The store of one agent in directory ``path``, made when it is missing.

    Raises ``UsageError`` when the directory belongs to another cluster or agent, is in use by another process, or holds
    a damaged file; nothing is written to the file in any of these cases. ``commit`` blocks on the disk: call it in a
    worker thread. All methods may be called from any thread.
    """

    def __init__(self, path: Path, cluster_id: bytes, agent_id: str) -> None:
        self.path = path / FILE_NAME
        self._mutex = threading.Lock()
        self._failure: str | None = None
        self._directory_lock = DirectoryLock(path)
        try:
            open_database(self.path, cluster_id, agent_id)
            self._connection = connect(self.path)
            self._last_index, self._chain = self._log_end()
        except BaseException:
            self._directory_lock.release()
            raise

    def commit(self, records: Sequence[Record | KeyValue]) -> None:
        """Make ``records`` durable, in their order, all or none. Raises ``StorageFailed``, then and ever after."""
        if not records:
            return
        with self._mutex:
            self._refuse_after_failure()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for record in records:
                    self._write(record)
                self._connection.execute("COMMIT")
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
                    entries=self._load_entries(),
                    signed_phases=list(self._load_phases()),
                    slots=list(self._load_slots()),
                    votes=list(self._load_votes()),
                    key_values=dict(self._load_key_values()),
                )
            except (sqlite3.Error, msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise self._damaged(str(error)) from error

    def close(self) -> None:
        """Give the directory back. Everything committed is durable already."""
        with self._mutex:
            self._failure = self._failure or "it was closed"
            self._connection.close()
            self._directory_lock.release()

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing ----------------------------------------------------------------------------------------------------------

    def _write(self, record: Record | KeyValue) -> None:
        match record:
            case HardState(term, voted_for):
                row = struct.pack("<Qq", term, voted_for)
                self._put("INSERT OR REPLACE INTO hard_state VALUES (1, ?, ?)", row, _checksum(b"hard_state", row))
            case LogAppend(entries):
                self._append(entries)
            case SignedPhase():
                self._write_phase(record)
            case SlotCommit(slot):
                body = msgspec.msgpack.encode((slot.view, _rows_of(slot.commands), _rows_of(slot.commits)))
                self._put_once("slots", "sequence = ?", (slot.sequence,), slot.digest, body)
            case VoteCast(path, vote_digest, body):
                checksum = _checksum(b"votes", struct.pack("<B", path), vote_digest, body)
                self._put(
                    "INSERT INTO votes(path, digest, body, checksum) VALUES (?, ?, ?, ?) ON CONFLICT(path, digest) "
                    "DO UPDATE SET body = excluded.body, checksum = excluded.checksum",
                    path, vote_digest, body, checksum,
                )  # fmt: skip
            case KeyValue(key, value):
                checksum = _checksum(b"key_values", key.encode(), value)
                self._put("INSERT OR REPLACE INTO key_values VALUES (?, ?, ?)", key, value, checksum)
            case SnapshotRecord() | Compact():
                raise LocalMisuse("this store keeps whole logs: leave RaftConfig.snapshots off and never compact")

    def _append(self, entries: tuple[Entry, ...]) -> None:
        first = entries[0].index
        if not 1 <= first <= self._last_index + 1:
            raise LocalMisuse(f"entry {first} would leave a gap after {self._last_index} in {self.path}")
        if first <= self._last_index:
            self._put("DELETE FROM entries WHERE position >= ?", first)
            self._last_index, self._chain = self._log_end()
        rows = []
        for entry in entries:
            self._chain = _link(self._chain, entry)
            rows.append((entry.index, entry.term, entry.kind, entry.payload, self._chain))
        self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        self._last_index = entries[-1].index

    def _write_phase(self, record: SignedPhase) -> None:
        body = msgspec.msgpack.encode((_rows_of(record.commands), record.signature))
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
            checksum = _checksum(table.encode(), repr(key).encode(), row_digest, body)
            marks = ", ".join("?" * (len(key) + 3))
            self._put(f"INSERT INTO {table} VALUES ({marks})", *key, row_digest, body, checksum)

    def _put(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise StorageFailed(
                f"cannot write {self.path}: {self._failure}; the agent stops, because a promise may not be on the "
                "disk. Check the disk's space and health, then start the agent again"
            )

    # Reading ----------------------------------------------------------------------------------------------------------

    def _rows(self, query: str) -> Iterator[Any]:
        return self._connection.execute(query)

    def _log_end(self) -> tuple[int, bytes]:
        last = self._connection.execute("SELECT position, chain FROM entries ORDER BY position DESC LIMIT 1").fetchone()
        return (0, _CHAIN_START) if last is None else (last[0], last[1])

    def _load_hard_state(self) -> HardState:
        for row, checksum in self._rows("SELECT row, checksum FROM hard_state"):
            self._expect(_checksum(b"hard_state", row) == checksum, "the term and vote")
            return HardState(*struct.unpack("<Qq", row))
        return HardState(0, -1)

    def _load_entries(self) -> list[Entry]:
        entries: list[Entry] = []
        chain = _CHAIN_START
        for position, term, kind, payload, link in self._rows("SELECT * FROM entries ORDER BY position"):
            entry = Entry(term, position, kind, payload)
            chain = _link(chain, entry)
            self._expect(position == len(entries) + 1 and chain == link, f"log entry {len(entries) + 1}")
            entries.append(entry)
        return entries

    def _load_phases(self) -> Iterator[SignedPhase]:
        for *key, row_digest, body, checksum in self._rows("SELECT * FROM phases ORDER BY view, sequence, rowid"):
            view, sequence, phase = key
            intact = _checksum(b"phases", repr(tuple(key)).encode(), row_digest, body) == checksum
            self._expect(intact, f"the signed {phase} of view {view}, sequence {sequence}")
            commands, signature = _PHASE_DECODER.decode(body)
            yield SignedPhase(view, sequence, phase, row_digest, _commands(commands), signature)

    def _load_slots(self) -> Iterator[CommittedSlot]:
        for sequence, row_digest, body, checksum in self._rows("SELECT * FROM slots ORDER BY sequence"):
            intact = _checksum(b"slots", repr((sequence,)).encode(), row_digest, body) == checksum
            self._expect(intact, f"slot {sequence}")
            view, commands, commits = _SLOT_DECODER.decode(body)
            votes = tuple(Commit(*row) for row in commits)
            yield CommittedSlot(view, sequence, row_digest, _commands(commands), votes)

    def _load_votes(self) -> Iterator[VoteCast]:
        for path, row_digest, body, checksum in self._rows(
            "SELECT path, digest, body, checksum FROM votes ORDER BY id"
        ):
            intact = _checksum(b"votes", struct.pack("<B", path), row_digest, body) == checksum
            self._expect(intact, f"the vote on {row_digest.hex()}")
            yield VoteCast(path, row_digest, body)

    def _load_key_values(self) -> Iterator[tuple[str, bytes]]:
        for key, value, checksum in self._rows("SELECT * FROM key_values ORDER BY key"):
            self._expect(_checksum(b"key_values", key.encode(), value) == checksum, f"the value of {key!r}")
            yield key, value

    def _expect(self, intact: bool, what: str) -> None:
        if not intact:
            raise self._damaged(f"{what} is not what was written")

    def _damaged(self, what: str) -> RunFailure:
        self._failure = "it is damaged"
        return RunFailure(
            f"{self.path} is damaged: {what}. Nothing was changed. Restore the directory from a copy, or move it away "
            "and bring the agent back under a new identity; it must not vote again under this one without its memory"
        )


def _checksum(*parts: bytes) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(struct.pack("<Q", len(part)), checksum)
        checksum = zlib.crc32(part, checksum)
    return checksum


def _link(chain: bytes, entry: Entry) -> bytes:
    return digest(chain, struct.pack("<QQB", entry.term, entry.index, entry.kind), entry.payload)


def _rows_of(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    return [msgspec.structs.astuple(message) for message in messages]


def _commands(rows: list[_CommandRow]) -> tuple[SignedCommand, ...]:
    return tuple(SignedCommand(*row) for row in rows)

"""Disks that are full, that fail, and that tear the last commit at any byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from consensus import storage as storage_module
from consensus import storage_checkpoint
from consensus.machine import Compact, HardState, LogAppend, Record, Snapshot, SnapshotRecord, VoteCast
from consensus.storage import KeyValue, Storage, StorageFailed
from consensus.storage_file import FILE_NAME, WRITE_AHEAD_PAGES_MAX, connect
from consensus.storage_room import ROOM_BYTES, ROOM_BYTES_MIN, WriteAheadRoom
from protocol.messages import Entry
from tests.oracles.failing_disk import FailingConnection, writer_on_a_full_disk, writer_with_an_error
from tests.oracles.write_ahead import FRAME_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES, WAL_HEADER_BYTES, log_end

ROOT = Path(__file__).parents[2]

CLUSTER, AGENT = b"cluster", "risk-1"
WRITE_AHEAD = FILE_NAME + "-wal"


def check_last_words(output: str) -> None:
    """It stopped at the first failure, with the reason, and what it had acknowledged is there."""
    reason, refused, acknowledged, found = output.splitlines()
    assert "the agent stops" in reason and refused == "still refused"
    assert int(found) - int(acknowledged) in (0, 1), "a commit that failed may have reached the disk, none before it"
    assert 5 < int(acknowledged) < 2000


def test_a_disk_that_is_full_stops_the_agent_and_loses_nothing(tmp_path: Path) -> None:
    """Room that comes back later changes nothing for this life."""
    check_last_words(last_words(writer_on_a_full_disk(tmp_path)))


@pytest.mark.parametrize(("call", "number"), [("fdatasync", 40), ("pwrite64", 400)])
def test_an_error_of_the_disk_stops_the_agent_and_loses_nothing(tmp_path: Path, call: str, number: int) -> None:
    """EIO, once: the next call would succeed, and must not be made (fsyncgate)."""
    output = last_words(writer_with_an_error(tmp_path, call, number))
    check_last_words(output)
    assert "disk I/O error" in output


def last_words(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout


RECORDS: list[Record | KeyValue] = [
    HardState(2, 1),
    LogAppend((Entry(2, 3, 1, b"three"), Entry(2, 4, 1, b"four"))),
    SnapshotRecord(Snapshot(3, 2, b"members", bytes(32), b"state"), restarts_log=False),
    Compact(2, 1),
    VoteCast(1, b"v" * 32, b"vote"),
    KeyValue("key", b"value"),
]


@pytest.mark.sources
def test_a_commit_that_fails_at_any_statement_leaves_nothing_and_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded bug 25, on every machine."""
    opened: list[FailingConnection] = []

    def failing(path: Path) -> FailingConnection:
        opened.append(FailingConnection(connect(path)))
        return opened[-1]

    monkeypatch.setattr(storage_module, "connect", failing)
    at, last = 0, ""
    while last != "COMMIT":
        at += 1
        with Storage(tmp_path / str(at), CLUSTER, AGENT) as storage:
            storage.commit([LogAppend(tuple(Entry(1, index, 1, b"old") for index in (1, 2, 3)))])
            before = storage.load()
            opened[-1].statements, opened[-1].at = [], at
            with pytest.raises(StorageFailed, match="disk I/O error"):
                storage.commit(RECORDS)
            last = opened[-1].statements[-1]
            with pytest.raises(StorageFailed):
                storage.commit([KeyValue("after", b"it")])
            assert opened[-1].statements[-1] == last, "after a failure nothing is tried"
        with Storage(tmp_path / str(at), CLUSTER, AGENT) as storage:
            assert storage.load() == before
    assert at > len(RECORDS)


def test_the_write_ahead_log_is_taken_into_the_file_beside_the_commits(tmp_path: Path) -> None:
    """It begins again from time to time, so that it stays far below the bound at which a commit has to help."""
    with Storage(tmp_path, CLUSTER, AGENT) as storage:
        for index in range(1, 401):
            storage.commit([LogAppend((Entry(1, index, 1, bytes(100_000)),))])
        assert (tmp_path / WRITE_AHEAD).stat().st_size < 2 * WRITE_AHEAD_PAGES_MAX * PAGE_BYTES
        assert (tmp_path / FILE_NAME).stat().st_size > 10_000_000
    with Storage(tmp_path, CLUSTER, AGENT) as storage:
        assert len(storage.load().entries) == 400


@pytest.mark.sources  # replaces the checkpointer's connection
def test_a_disk_that_fails_beside_the_commits_stops_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_checkpoint, "connect", lambda path: FailingConnection(connect(path), at=1))
    with Storage(tmp_path, CLUSTER, AGENT) as storage, pytest.raises(StorageFailed, match="disk I/O error"):
        for index in range(1, 1000):
            storage.commit([LogAppend((Entry(1, index, 1, bytes(100_000)),))])
    with Storage(tmp_path, CLUSTER, AGENT) as storage:
        assert 30 <= len(storage.load().entries) < 999


def test_commits_lie_over_room_that_was_written_before(tmp_path: Path) -> None:
    """Also when the log has begun anew, so that no commit's sync makes the file grow."""
    with Storage(tmp_path, CLUSTER, AGENT) as storage:
        for index in range(1, 801):
            room = (tmp_path / WRITE_AHEAD).stat().st_size
            storage.commit([LogAppend((Entry(1, index, 1, bytes(10_000)),))])
            assert log_end(tmp_path / WRITE_AHEAD) <= room


def test_the_size_of_the_log_is_asked_for_where_room_may_be_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask after every commit would have each sync write the file's times as well."""
    asked: list[int] = []

    def fstat(descriptor: int) -> os.stat_result:
        asked.append(descriptor)
        return os.stat(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    path = tmp_path / "log"
    path.touch()
    room = WriteAheadRoom(path)
    for frames in range(1, 1001):
        room.ensure(frames)
        assert path.stat().st_size >= WAL_HEADER_BYTES + frames * FRAME_BYTES + ROOM_BYTES_MIN
    assert len(asked) <= 1 + 1000 * FRAME_BYTES // ROOM_BYTES + 1
    os.truncate(path, 0)  # the log begins anew, and is cut, as after a large snapshot
    room.ensure(1)
    assert path.stat().st_size >= ROOM_BYTES
    room.close()


class Torn:
    """A store with two commits whose write-ahead log is then cut or spoiled anywhere in the second."""

    def __init__(self, directory: Path) -> None:
        self._place = directory / "torn"
        with Storage(directory / "live", CLUSTER, AGENT) as storage:
            storage.commit([HardState(1, 1), LogAppend((Entry(1, 1, 1, b"first"),))])
            self.start = log_end(directory / "live" / WRITE_AHEAD)
            storage.commit([HardState(2, 1), LogAppend((Entry(2, 2, 1, b"second"),))])
            self.file = (directory / "live" / FILE_NAME).read_bytes()
            path = directory / "live" / WRITE_AHEAD
            self.log = path.read_bytes()[: log_end(path)]

    def terms(self, log: bytes) -> tuple[int, list[int]]:
        """What a new start finds: its term, and those of the entries."""
        self._place.mkdir(exist_ok=True)
        (self._place / FILE_NAME).write_bytes(self.file)
        (self._place / WRITE_AHEAD).write_bytes(log)
        with Storage(self._place, CLUSTER, AGENT) as storage:
            state = storage.load()
        return state.hard_state.term, [entry.term for entry in state.entries]

    def check(self, offset: int) -> None:
        """Cut there, and flip a bit there: the second commit is there as a whole or not at all."""
        cut, flipped = self.log[:offset], bytearray(self.log)
        assert self.terms(cut) == (1, [1]), f"cut at {offset}"
        flipped[offset] ^= 1 << offset % 8
        assert self.terms(bytes(flipped)) == (1, [1]), f"a bit at {offset}"


def test_a_torn_or_spoiled_last_commit_is_none(tmp_path: Path) -> None:
    """Seeded bug 21, at every byte of every frame's header and some of its page."""
    torn = Torn(tmp_path)
    starts = range(torn.start, len(torn.log), FRAME_BYTES)
    assert (torn.start - WAL_HEADER_BYTES) % FRAME_BYTES == 0 and len(starts) >= 2
    assert torn.terms(torn.log) == (2, [1, 2])
    for start in starts:
        for offset in (*range(FRAME_HEADER_BYTES), *range(FRAME_HEADER_BYTES, FRAME_BYTES, 331), FRAME_BYTES - 1):
            torn.check(start + offset)


@pytest.mark.soak
def test_a_torn_or_spoiled_last_commit_is_none_at_every_byte(tmp_path: Path) -> None:
    torn = Torn(tmp_path)
    for offset in range(torn.start, len(torn.log)):
        torn.check(offset)

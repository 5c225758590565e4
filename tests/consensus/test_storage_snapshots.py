"""The store's log is a log that may begin anywhere: snapshots, compaction, restarts, and files of the format before."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.machine import Compact, HardState, LogAppend, Record, Snapshot, SnapshotRecord
from consensus.storage import Storage, StoredState
from consensus.storage_file import FILE_NAME, WRITE_AHEAD_BYTES_KEPT
from protocol.errors import LocalMisuse, RunFailure, UsageError
from protocol.messages import Entry
from tests.oracles.old_store import write_format_1
from tests.sim.host import Disk

CLUSTER, AGENT = bytes(range(16)), "risk-1"


def reopen(directory: Path) -> Storage:
    return Storage(directory, CLUSTER, AGENT)


def append(term: int, first: int, count: int) -> LogAppend:
    return LogAppend(tuple(Entry(term, index, 1, b"%d of %d" % (index, term)) for index in range(first, first + count)))


def snapshot(index: int, term: int, data: bytes = b"state") -> Snapshot:
    return Snapshot(index, term, b"members", bytes([index % 256]) * 32, data)


def written(directory: Path, *groups: list[Record]) -> StoredState:
    """What is there after these commits and a new start."""
    with reopen(directory) as storage:
        for group in groups:
            storage.commit(group)
    with reopen(directory) as storage:
        return storage.load()


class Machine:
    """Draws the records that a machine might hand out next, with the simulator's disk as what it believes."""

    def __init__(self, data: st.DataObject) -> None:
        self.disk = Disk()
        self.term = 1
        self._data = data

    def _number(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))

    def records(self) -> list[Record]:
        made = self._data.draw(st.sampled_from([self._append, self._append, self._compact, self._install]))()
        self.disk.write(made)
        return made

    @property
    def _last(self) -> int:
        return self.disk.base[0] + len(self.disk.entries)

    def _append(self) -> list[Record]:
        first = self._number(self.disk.base[0] + 1, self._last + 1)
        self.term += first <= self._last
        return [HardState(self.term, 1), append(self.term, first, self._number(1, 5))]

    def _compact(self) -> list[Record]:
        """A snapshot of the log, which may keep some of what it stands for."""
        (base, _), kept = self.disk.base, self.disk.snapshot
        oldest = max(base, 0 if kept is None else kept.index)
        if oldest >= self._last:
            return self._append()
        index = self._number(oldest + 1, self._last)
        terms = [self.disk.base[1], *(entry.term for entry in self.disk.entries)]
        after = self._number(base, index)
        record = SnapshotRecord(snapshot(index, terms[index - base]), restarts_log=False)
        return [record, Compact(after, terms[after - base])]

    def _install(self) -> list[Record]:
        """A leader's snapshot in place of everything, perhaps with entries behind it."""
        newest = 0 if self.disk.snapshot is None else self.disk.snapshot.index
        index = max(self._last, newest) + self._number(1, 9)
        self.term += 1
        record = SnapshotRecord(snapshot(index, self.term), restarts_log=True)
        return [record, append(self.term, index + 1, 2)] if self._number(0, 1) else [record]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_log_follows_the_model_disk(data: st.DataObject) -> None:
    """Appends, truncations, compaction, installed snapshots, group commits and reopening in any order."""
    machine = Machine(data)
    with tempfile.TemporaryDirectory() as directory:
        storage = reopen(Path(directory))
        for _ in range(data.draw(st.integers(1, 8))):
            storage.commit([record for _ in range(data.draw(st.integers(1, 3))) for record in machine.records()])
            if data.draw(st.booleans()):
                storage.close()
                storage = reopen(Path(directory))
            state, model = storage.load(), machine.disk
            assert (state.entries, state.hard_state) == (model.entries, model.hard_state)
            assert (state.snapshot, state.log_base) == (model.snapshot, model.base)
        storage.close()


def test_a_new_store_has_no_snapshot(tmp_path: Path) -> None:
    state = written(tmp_path)
    assert (state.snapshot, state.log_base) == (None, (0, 0))


def test_a_cut_within_an_append_keeps_its_beginning(tmp_path: Path) -> None:
    state = written(tmp_path, [append(1, 1, 9)], [append(2, 5, 1)], [append(3, 5, 2)])
    assert [(entry.index, entry.term) for entry in state.entries] == [*((i, 1) for i in range(1, 5)), (5, 3), (6, 3)]


def test_a_compaction_within_an_append_hides_its_beginning(tmp_path: Path) -> None:
    groups: list[list[Record]] = [[append(1, 1, 9)], [SnapshotRecord(snapshot(6, 1), False), Compact(4, 1)]]
    state = written(tmp_path, *groups)
    assert [entry.index for entry in state.entries] == [5, 6, 7, 8, 9] and state.log_base == (4, 1)
    state = written(tmp_path, [append(2, 5, 1)])
    assert [(entry.index, entry.term) for entry in state.entries] == [(5, 2)]


def test_a_large_snapshot_comes_back_and_the_next_takes_its_room(tmp_path: Path) -> None:
    for index in (1, 2, 3):
        data = bytes([index]) * (32 << 20)
        state = written(tmp_path, [SnapshotRecord(snapshot(index, 1, data), restarts_log=True)])
        assert state.snapshot is not None and state.snapshot.data == data
    assert (tmp_path / FILE_NAME).stat().st_size < 70 << 20


def test_the_write_ahead_log_of_a_large_snapshot_does_not_stay(tmp_path: Path) -> None:
    with reopen(tmp_path) as storage:
        storage.commit([SnapshotRecord(snapshot(1, 1, bytes(40 << 20)), restarts_log=True)])
        storage.commit([append(1, 2, 1)])
        storage.commit([append(1, 3, 1)])
        assert (tmp_path / (FILE_NAME + "-wal")).stat().st_size <= WRITE_AHEAD_BYTES_KEPT


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([append(1, 3, 1)], "lies in what was compacted up to 3"),
        ([append(1, 7, 1)], "would leave a gap after 5"),
        ([SnapshotRecord(snapshot(4, 1), True)], "a snapshot at 4 must not take the place of the one at 4"),
        ([Compact(5, 1)], "compaction up to 5 of a log from 3 to 5 with a snapshot at 4"),
        ([Compact(2, 1)], "compaction up to 2"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, records: list[Record], what: str) -> None:
    written(tmp_path, [append(1, 1, 5), SnapshotRecord(snapshot(4, 1), False), Compact(3, 1)])
    with reopen(tmp_path) as storage, pytest.raises(LocalMisuse, match=what):
        storage.commit(records)
    assert written(tmp_path).log_base == (3, 1)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE snapshot SET data = X'00'", "the snapshot at 4"),
        ("UPDATE snapshot SET position = 5", "the snapshot at 5"),
        ("UPDATE snapshot SET membership = X'00'", "the snapshot at 4"),
        ("DELETE FROM snapshot", "the snapshot before the log"),
        ("UPDATE log_base SET row = zeroblob(48)", "where the log begins is not what was written"),
        ("DELETE FROM log_base", "where the log begins is missing"),
        ("DELETE FROM appends WHERE first = 4", "the log from entry 4 on"),
        ("UPDATE appends SET last = 6 WHERE first = 5", "the log from entry 5 on"),
    ],
)
def test_a_row_that_is_not_what_was_written_is_a_refusal(tmp_path: Path, statement: str, what: str) -> None:
    groups: list[list[Record]] = [[append(1, index, 1)] for index in range(1, 7)]
    written(tmp_path, *groups, [SnapshotRecord(snapshot(4, 1), False), Compact(3, 1)])
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(RunFailure, match=what):
        written(tmp_path)


def test_a_row_of_the_log_before_a_restart_is_found(tmp_path: Path) -> None:
    """Seeded bug 22: the chain of a log that starts again hangs on the snapshot, not on nothing."""
    written(tmp_path / "old", [SnapshotRecord(snapshot(5, 1, b"one"), True)], [append(2, 6, 1)])
    other = Snapshot(5, 1, b"members", b"another digest, 32 bytes long ...", b"two")
    written(tmp_path / "new", [SnapshotRecord(other, True)], [append(2, 6, 1)])
    connection = sqlite3.connect(tmp_path / "new" / FILE_NAME)
    connection.execute("ATTACH ? AS old", (str(tmp_path / "old" / FILE_NAME),))
    connection.execute("DELETE FROM main.appends")
    connection.execute("INSERT INTO main.appends SELECT * FROM old.appends")
    connection.commit()
    connection.close()
    with pytest.raises(RunFailure, match="the log from entry 6 on"):
        written(tmp_path / "new")


@pytest.mark.parametrize("count", [0, 1, 600])
def test_a_file_of_format_1_is_brought_up_to_date(tmp_path: Path, count: int) -> None:
    entries = list(append(2, 1, count).entries)
    write_format_1(tmp_path / FILE_NAME, CLUSTER, AGENT, entries)
    state = written(tmp_path)
    assert (state.entries, state.hard_state) == (entries, HardState(3, 2))
    assert (state.snapshot, state.log_base) == (None, (0, 0))
    state = written(tmp_path, [append(3, count + 1, 1)])
    assert [entry.index for entry in state.entries] == list(range(1, count + 2))


def test_a_crash_after_the_upgrade_leaves_it_done(tmp_path: Path) -> None:
    """Whether the file or only its write-ahead log has the new format, the next start finds it."""
    write_format_1(tmp_path / FILE_NAME, CLUSTER, AGENT, append(2, 1, 5).entries)
    reader = sqlite3.connect(tmp_path / FILE_NAME)  # keeps the write-ahead log from being taken into the file
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM owner").fetchone()
    written(tmp_path, [append(3, 6, 1)])
    assert len(written(tmp_path).entries) == 6
    reader.close()
    assert len(written(tmp_path).entries) == 6


def test_a_damaged_file_of_format_1_is_refused_and_kept(tmp_path: Path) -> None:
    write_format_1(tmp_path / FILE_NAME, CLUSTER, AGENT, append(2, 1, 5).entries)
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("DELETE FROM entries WHERE position = 3")
    connection.commit()
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(RunFailure, match="to format 2: log entry 3 is not what was written"):
        reopen(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    with pytest.raises(UsageError, match="belongs to agent"):
        Storage(tmp_path, CLUSTER, "risk-2")

"""The store: what goes in comes out, promises are written once, and one agent's directory serves only this agent."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.machine import HardState, LogAppend, SignedPhase, SlotCommit, VoteCast
from consensus.storage import KeyValue, Storage, StorageFailed
from consensus.storage_file import FILE_NAME, LOCK_NAME
from protocol.errors import LocalMisuse, RunFailure, UsageError
from protocol.messages import Commit, CommittedSlot, Entry, SignedCommand

CLUSTER, AGENT = bytes(range(16)), "risk-1"
COMMAND = SignedCommand(1, 2, b"frame", b"s" * 64)
SLOT = CommittedSlot(0, 1, b"d" * 32, (COMMAND,), (Commit(0, 1, b"d" * 32, 3, b"t" * 64),))


def reopen(directory: Path) -> Storage:
    return Storage(directory, CLUSTER, AGENT)


def entry(term: int, index: int, payload: bytes = b"payload") -> Entry:
    return Entry(term, index, 1, payload)


def prepare(digest: bytes, sequence: int = 1, phase: str = "prepare") -> SignedPhase:
    return SignedPhase(0, sequence, phase, digest, (COMMAND,), b"u" * 64)


def test_a_new_directory_is_empty(tmp_path: Path) -> None:
    with reopen(tmp_path / "deep" / "down") as storage:
        state = storage.load()
    assert (state.hard_state, state.entries, state.key_values) == (HardState(0, -1), [], {})
    assert (state.signed_phases, state.slots, state.votes) == ([], [], [])


def test_everything_comes_back(tmp_path: Path) -> None:
    phases = [prepare(b"a" * 32), prepare(b"a" * 32, phase="commit"), prepare(b"b" * 32, sequence=2)]
    votes = [VoteCast(2, b"z" * 32, b"first"), VoteCast(1, b"a" * 32, b"second")]
    with reopen(tmp_path) as storage:
        storage.commit([HardState(3, 2), LogAppend((entry(1, 1), entry(3, 2, b""))), *phases])
        storage.commit([SlotCommit(SLOT), *votes, KeyValue("frames", b"17"), KeyValue("empty", b"")])
        storage.commit([KeyValue("frames", b"18")])
        storage.commit([])
    with reopen(tmp_path) as storage:
        state = storage.load()
    assert state.hard_state == HardState(3, 2)
    assert state.entries == [entry(1, 1), entry(3, 2, b"")]
    assert (state.signed_phases, state.slots, state.votes) == (phases, [SLOT], votes)
    assert state.key_values == {"frames": b"18", "empty": b""}


def test_a_repeated_vote_replaces_the_earlier_one(tmp_path: Path) -> None:
    with reopen(tmp_path) as storage:
        storage.commit([VoteCast(1, b"a" * 32, b"one"), VoteCast(1, b"b" * 32, b"other")])
        storage.commit([VoteCast(1, b"a" * 32, b"two")])
        assert [vote.body for vote in storage.load().votes] == [b"two", b"other"]


def test_a_gap_in_the_log_is_refused(tmp_path: Path) -> None:
    """Seeded bug 23: an index beyond the journal's end."""
    with reopen(tmp_path) as storage:
        with pytest.raises(LocalMisuse, match="entry 2 would leave a gap after 0"):
            storage.commit([LogAppend((entry(1, 2),))])
        with pytest.raises(StorageFailed):
            storage.commit([KeyValue("after", b"1")])
    with reopen(tmp_path) as storage:
        assert storage.load().key_values == {}


def test_a_promise_is_never_rewritten(tmp_path: Path) -> None:
    """Seeded bug 24, the store's part: the same phase again is fine, another digest would be equivocation."""
    with reopen(tmp_path) as storage:
        storage.commit([prepare(b"a" * 32), SlotCommit(SLOT)])
        storage.commit([prepare(b"a" * 32), SlotCommit(SLOT)])
        with pytest.raises(LocalMisuse, match="phases row"):
            storage.commit([KeyValue("with", b"it"), prepare(b"b" * 32)])
    with reopen(tmp_path) as storage:
        other = CommittedSlot(0, 1, b"e" * 32, (), ())
        with pytest.raises(LocalMisuse, match="slots row"):
            storage.commit([SlotCommit(other)])
    with reopen(tmp_path) as storage:
        state = storage.load()
        assert (state.signed_phases, state.slots, state.key_values) == ([prepare(b"a" * 32)], [SLOT], {})


@pytest.mark.parametrize(("cluster", "agent"), [(b"other", AGENT), (CLUSTER, "risk-2")])
def test_another_agents_directory_is_refused(tmp_path: Path, cluster: bytes, agent: str) -> None:
    reopen(tmp_path).close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(UsageError) as refusal:
        Storage(tmp_path, cluster, agent)
    for word in ("'risk-1'", CLUSTER.hex(), repr(agent), cluster.hex(), "a data directory of its own"):
        assert word in str(refusal.value)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    reopen(tmp_path).close()


def test_a_directory_is_used_by_one_at_a_time(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    with pytest.raises(UsageError, match=r"in use by process \d+: stop that agent first"):
        reopen(tmp_path)
    first.close()
    first.close()
    reopen(tmp_path).close()


def test_a_closed_store_takes_nothing(tmp_path: Path) -> None:
    storage = reopen(tmp_path)
    storage.close()
    with pytest.raises(StorageFailed, match="it was closed"):
        storage.commit([KeyValue("late", b"")])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "does not begin like a database"), (b"garbage" * 100, "does not begin like a database")],
)
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, content: bytes, reason: str) -> None:
    """An emptied file must not be taken for an agent that has promised nothing yet."""
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as refusal:
        reopen(tmp_path)
    assert str(path) in str(refusal.value)
    assert path.read_bytes() == content


def test_another_applications_database_is_refused_and_kept(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE notes(text)")
    connection.commit()
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(UsageError, match="belongs to another application"):
        reopen(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    reopen(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(UsageError, match="has format 9, this program knows 2"):
        reopen(tmp_path)


def test_a_write_ahead_log_without_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / (FILE_NAME + "-wal")).write_bytes(b"x")
    with pytest.raises(UsageError, match="is missing but"):
        reopen(tmp_path)


def test_a_half_made_file_is_made_again(tmp_path: Path) -> None:
    """A crash while the directory was new: nothing had been promised yet."""
    (tmp_path / (FILE_NAME + ".new")).write_bytes(b"half")
    with reopen(tmp_path) as storage:
        assert storage.load().entries == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_NAME, FILE_NAME]


def filled(directory: Path) -> Path:
    with reopen(directory) as storage:
        storage.commit([HardState(2, 1), *(LogAppend((entry(2, index, b"entry %d" % index),)) for index in (1, 2, 3))])
        storage.commit(
            [prepare(b"a" * 32), SlotCommit(SLOT), VoteCast(1, b"v" * 32, b"vote"), KeyValue("key", b"value")]
        )
    return directory / FILE_NAME


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE appends SET body = 'entry 9' WHERE first = 2", "the log from entry 2 on"),
        ("UPDATE appends SET last = 2 WHERE first = 1", "the log from entry 1 on"),
        ("DELETE FROM appends WHERE first = 2", "the log from entry 2 on"),
        ("UPDATE appends SET first = 4 WHERE first = 3", "the log from entry 3 on"),
        ("UPDATE hard_state SET row = zeroblob(16)", "the term and vote"),
        ("UPDATE phases SET digest = zeroblob(32)", "the signed prepare of view 0, sequence 1"),
        ("UPDATE phases SET view = 1", "the signed prepare of view 1"),
        ("UPDATE slots SET sequence = 7", "slot 7"),
        ("UPDATE votes SET body = 'deny'", "the vote on"),
        ("UPDATE key_values SET value = 'other'", "the value of 'key'"),
    ],
)
def test_a_row_that_is_not_what_was_written_is_a_refusal(tmp_path: Path, statement: str, what: str) -> None:
    """Seeded bug 22: rows are checked, and chained, so that neither a changed nor a replayed one passes."""
    path = filled(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.execute("UPDATE appends SET body = CAST(body AS BLOB)")
    connection.execute("UPDATE votes SET body = CAST(body AS BLOB)")
    connection.execute("UPDATE key_values SET value = CAST(value AS BLOB)")
    connection.commit()
    connection.close()
    with reopen(tmp_path) as storage:
        with pytest.raises(RunFailure, match=what) as refusal:
            storage.load()
        assert str(path) in str(refusal.value)
        assert "Restore the directory" in str(refusal.value)
        with pytest.raises(StorageFailed):
            storage.commit([HardState(9, 9)])


def test_a_flipped_bit_on_the_disk_is_found(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"entry 2")] ^= 1
    path.write_bytes(content)
    with (
        reopen(tmp_path) as storage,
        pytest.raises(RunFailure, match="the log from entry 2 on is not what was written"),
    ):
        storage.load()


def test_a_damaged_page_is_found_and_the_file_kept(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        reopen(tmp_path)
    assert path.read_bytes() == bytes(content)


OPEN_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from consensus.storage import Storage
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
Storage(Path(sys.argv[1]), bytes(range(16)), "risk-1")
"""


def test_a_full_disk_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    """After a stop in good order SQLite's shared memory file is gone, and there is no room for a new one."""
    filled(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_ROOM, str(tmp_path), "64"], capture_output=True, text=True, check=False
    )
    assert "RunFailure: cannot read" in done.stderr and "check the disk" in done.stderr
    assert "damaged" not in done.stderr
    reopen(tmp_path).close()


def test_an_append_alone_is_one_statement_and_everything_else_one_transaction(tmp_path: Path) -> None:
    with reopen(tmp_path) as storage:
        said: list[str] = []
        storage._connection.set_trace_callback(lambda statement: said.append(statement.split()[0]))
        storage.commit([LogAppend((entry(1, 1), entry(1, 2)))])
        assert said == ["INSERT"]
        for records in ([LogAppend((entry(2, 2),))], [HardState(3, 1)], [LogAppend((entry(3, 3),)), HardState(4, 1)]):
            said.clear()
            storage.commit(records)
            assert (said[0], said[-1]) == ("BEGIN", "COMMIT")
    with reopen(tmp_path) as storage:
        assert storage.load().entries == [entry(1, 1), entry(2, 2), entry(3, 3)]

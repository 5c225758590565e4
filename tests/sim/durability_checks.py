"""What must hold of the store whatever the disk does. Each check returns what was wrong, or None, and needs nothing but
an empty directory, so that it can be run with a bug switched on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from consensus import storage as storage_module
from consensus.machine import HardState, LogAppend, SignedPhase
from consensus.pbft.safety import SafetyRefusal, SafetyRules
from consensus.storage import Storage, StorageFailed, StoredState
from consensus.storage_file import FILE_NAME, connect
from protocol.errors import RunFailure, UsageError
from protocol.messages import Entry
from tests.oracles.failing_disk import FailingConnection
from tests.oracles.write_ahead import log_end
from tests.sim.power_loss import PowerLoss

CLUSTER, AGENT = bytes(range(16)), "risk-1"
WRITE_AHEAD = FILE_NAME + "-wal"
Check = Callable[[Path], str | None]


def reopen(directory: Path) -> Storage:
    return Storage(directory, CLUSTER, AGENT)


def numbered(index: int, term: int) -> list[HardState | LogAppend]:
    return [HardState(term, 1), LogAppend((Entry(term, index, 1, b"%d of %d" % (index, term)),))]


def found(directory: Path) -> StoredState:
    with reopen(directory) as storage:
        return storage.load()


def names_survive_a_power_loss(directory: Path) -> str | None:
    """Bug 20: the file, and the new directories that it lies in, are there once a commit was acknowledged."""
    root = directory / "disk"
    root.mkdir()
    with PowerLoss(root) as power, reopen(root / "runs" / "agent") as storage:
        storage.commit(numbered(1, 3))
        after = power.strike(directory / "after")
    state = found(after / "runs" / "agent")
    if state.hard_state.term == 3:
        return None
    return f"a power loss made the agent forget its vote in term 3: lost {[path.name for path in power.unsynced]}"


def torn_commits_are_none(directory: Path) -> str | None:
    """Bug 21: wherever the last commit is cut off, the one before it is what is found."""
    with reopen(directory / "live") as storage:
        storage.commit(numbered(1, 1))
        start = log_end(directory / "live" / WRITE_AHEAD)
        storage.commit(numbered(2, 2))
        files = {name: (directory / "live" / name).read_bytes() for name in (FILE_NAME, WRITE_AHEAD)}
        end = log_end(directory / "live" / WRITE_AHEAD)
    (directory / "torn").mkdir()
    for cut in range(start, end, 509):
        (directory / "torn" / FILE_NAME).write_bytes(files[FILE_NAME])
        (directory / "torn" / WRITE_AHEAD).write_bytes(files[WRITE_AHEAD][:cut])
        try:
            state = found(directory / "torn")
        except (UsageError, RunFailure) as error:
            return f"cut at byte {cut}: {error}"
        if (state.hard_state.term, len(state.entries)) != (1, 1):
            return f"cut at byte {cut}: half a commit was taken for one"
    return None


def stale_rows_are_found(directory: Path) -> str | None:
    """Bug 22: a row of the log before a truncation, whole in itself, does not pass for one of the log after it."""
    with reopen(directory) as storage:
        for index in (1, 2, 3):
            storage.commit(numbered(index, 1))
    old = _rows(directory, "SELECT * FROM appends WHERE first = 2")
    with reopen(directory) as storage:
        for index in (2, 3):
            storage.commit(numbered(index, 2))
    _rows(directory, "INSERT OR REPLACE INTO appends VALUES (?, ?, ?, ?)", *old[0])
    try:
        terms = [entry.term for entry in found(directory).entries]
    except RunFailure:
        return None
    return f"a row of an older log was read as part of the present one: terms {terms}"


def signed_phases_stand(directory: Path) -> str | None:
    """Bug 24: what was signed before a restart binds after it."""
    signed = b""
    for asked in (b"a" * 32, b"b" * 32):
        with reopen(directory) as storage:
            rules = SafetyRules(1, CLUSTER, lambda data: data, storage.load().signed_phases)
            try:
                phase: SignedPhase = rules.sign_prepare(0, 1, asked, ())
            except SafetyRefusal:
                continue
            if signed:
                return f"signed {asked[:1]!r} for a slot in which {signed[:1]!r} was signed before the restart"
            storage.commit([phase])
            signed = asked
    return None


def a_failed_sync_is_final(directory: Path) -> str | None:
    """Bug 25: a commit whose sync failed is reported, and no later one is acknowledged either."""
    original, opened = storage_module.connect, list[FailingConnection]()

    def failing(path: Path) -> FailingConnection:
        opened.append(FailingConnection(connect(path)))
        return opened[-1]

    storage_module.connect = failing  # type: ignore[assignment]
    try:
        with reopen(directory) as storage:
            storage.commit(numbered(1, 1))
            opened[-1].at = len(opened[-1].statements) + 4  # BEGIN, two rows, COMMIT
            acknowledged = [index for index in (2, 3) if _acknowledges(storage, index)]
    finally:
        storage_module.connect = original
    return f"acknowledged entries {acknowledged} after a sync had failed" if acknowledged else None


def _acknowledges(storage: Storage, index: int) -> bool:
    try:
        storage.commit(numbered(index, 1))
    except StorageFailed:
        return False
    return True


def _rows(directory: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()

"""The file under ``Storage``: whose it is, whether it is whole, and that only one process has it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from consensus.storage_log import LOG_TABLES, insert_base
from consensus.storage_rows import CHAIN_START
from consensus.storage_upgrade import new_incarnation, upgrade
from protocol.errors import RunFailure, UsageError

FILE_NAME: Final = "consensus.sqlite3"
LOCK_NAME: Final = "consensus.lock"
APPLICATION_ID: Final = 0x5357524D
SCHEMA_VERSION: Final = 2
WRITE_AHEAD_PAGES_MAX: Final = 8000
"""At which a commit takes the write-ahead log into the file after all, where ``Checkpointer`` cannot keep up."""
WRITE_AHEAD_BYTES_KEPT: Final = 16 << 20
"""A large snapshot passes through the write-ahead log, which gives the rest of that room back."""
_VERSIONS_READ: Final = (1, SCHEMA_VERSION)
PRIMARY_CODE: Final = 0xFF
NOT_THE_FILE: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}
)
"""What SQLite says when the disk does not let it look, for instance because it is full. The file may well be whole, and
restoring an older one would take back promises."""

_SCHEMA: Final = """
CREATE TABLE owner(cluster_id BLOB NOT NULL, agent_id TEXT NOT NULL, incarnation BLOB);
CREATE TABLE hard_state(id INTEGER PRIMARY KEY CHECK (id = 1), row BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE phases(view INTEGER NOT NULL, sequence INTEGER NOT NULL, phase TEXT NOT NULL, digest BLOB NOT NULL,
    body BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (view, sequence, phase));
CREATE TABLE slots(sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE votes(id INTEGER PRIMARY KEY, path INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (path, digest));
CREATE TABLE key_values(key TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
"""


class DirectoryLock:
    """Keeps a second process out of a data directory, for as long as this one lives or until ``release``."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"cannot use data directory {directory}: {error}; give one that can be written") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise UsageError(
                f"data directory {directory} is in use by process {holder}: stop that agent first, or give this one a "
                "directory of its own"
            ) from error
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others in. Calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_database(path: Path, cluster_id: bytes, agent_id: str) -> None:
    """Make the file if the directory is new; otherwise make sure that it is whole and belongs to this agent.

    Looks with a read-only connection, so that a file that is refused stays as it is; then brings an older format up to
    date. Raises ``UsageError``, and ``RunFailure`` when the disk fails.
    """
    write_ahead = path.with_name(path.name + "-wal")
    if path.exists():
        _check_header(path)
        _check_content(path, cluster_id, agent_id)
        upgrade(path, SCHEMA_VERSION)
    elif write_ahead.exists():
        raise UsageError(f"{path} is missing but {write_ahead.name} is there: restore the file from a copy")
    else:
        _create(path, cluster_id, agent_id)


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose COMMIT returns after the data is on the disk."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WRITE_AHEAD_PAGES_MAX}")
        connection.execute(f"PRAGMA journal_size_limit = {WRITE_AHEAD_BYTES_KEPT}")
    except sqlite3.Error as error:
        raise RunFailure(f"cannot open {path}: {error}; check the disk and the file's permissions") from error
    return connection


def _create(path: Path, cluster_id: bytes, agent_id: str) -> None:
    """Build the file aside and rename it, so that a half-made one is never taken for an agent without memories."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        draft.touch(0o600)
        connection = sqlite3.connect(draft, isolation_level=None)
        connection.executescript(f"BEGIN; {_SCHEMA} {LOG_TABLES}")
        connection.execute("INSERT INTO owner VALUES (?, ?, ?)", (cluster_id, agent_id, new_incarnation()))
        insert_base(connection, 0, 0, CHAIN_START)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        draft.rename(path)
        sync_directory(path.parent)
        _sync_ancestors(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise RunFailure(f"cannot make {path}: {error}; check the disk's space and permissions") from error


def sync_directory(directory: Path) -> None:
    """Make a new or renamed file's name durable; the file's own sync does not."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_ancestors(directory: Path) -> None:
    """The directory may be as new as the file, and those above it too. One that we may not read was not made by us."""
    device = directory.stat().st_dev
    for ancestor in directory.resolve().parents:
        if not os.access(ancestor, os.R_OK) or ancestor.stat().st_dev != device:
            return
        sync_directory(ancestor)


def _check_header(path: Path) -> None:
    """Magic, user version and application id stand at fixed places of the first page (SQLite file format, 1.3)."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}; check its permissions") from error
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise UsageError(f"{path} is damaged: it does not begin like a database. Restore it from a copy")
    version, application = (int.from_bytes(header[start : start + 4], "big") for start in (60, 68))
    if application != APPLICATION_ID:
        raise UsageError(f"{path} belongs to another application: give this agent a data directory of its own")
    if version not in _VERSIONS_READ:
        raise UsageError(
            f"{path} has format {version}, this program knows {SCHEMA_VERSION}: run the version that wrote it"
        )


def _check_content(path: Path, cluster_id: bytes, agent_id: str) -> None:
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            owner = connection.execute("SELECT cluster_id, agent_id FROM owner").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & PRIMARY_CODE in NOT_THE_FILE:
            raise RunFailure(f"cannot read {path}: {error}; check the disk's space and health") from error
        raise UsageError(f"{path} is damaged: {error}. Restore the directory from a copy") from error
    if verdict != "ok" or owner is None:
        raise UsageError(f"{path} is damaged: {verdict}. Restore the directory from a copy")
    if owner != (cluster_id, agent_id):
        raise UsageError(
            f"data directory {path.parent} belongs to agent {owner[1]!r} of cluster {owner[0].hex()}, not to agent "
            f"{agent_id!r} of cluster {cluster_id.hex()}: give this agent a data directory of its own"
        )

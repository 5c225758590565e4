"""Brings the store's file of an earlier version up to date, in one transaction: it is all old or all new.

Version 1 had a row for each log entry, no snapshots, a log that always began at 1, and no incarnation.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path
from typing import Final

from consensus.storage_log import LOG_TABLES, insert_base
from consensus.storage_rows import CHAIN_START, Damage, entries_body, expect, link
from protocol.errors import RunFailure
from protocol.messages import Entry
from protocol.signing import digest

ENTRIES_PER_ROW: Final = 256


def new_incarnation() -> bytes:
    """What tells a store from any other that the same agent had or will have."""
    return os.urandom(16)


def upgrade(path: Path, version: int) -> None:
    """Make the file's format ``version``; nothing happens if it is. Raises ``RunFailure``; the file is then as it was.

    What the file says of itself may stand in the write-ahead log still, so that only the database knows.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != version:
                connection.execute("PRAGMA synchronous = FULL")
                _rewrite(connection, version)
        finally:
            connection.close()
    except (Damage, sqlite3.Error) as error:
        raise RunFailure(
            f"cannot bring {path} to format {version}: {error}. Nothing was changed. Check the disk's "
            "space, or restore the directory from a copy"
        ) from error


def _rewrite(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in LOG_TABLES.strip().split(";\n"):
        connection.execute(statement)
    connection.execute("ALTER TABLE owner ADD COLUMN incarnation BLOB")
    connection.execute("UPDATE owner SET incarnation = ?", (new_incarnation(),))
    insert_base(connection, 0, 0, CHAIN_START)
    entries, chain = _entries_of_version_1(connection), CHAIN_START
    for start in range(0, len(entries), ENTRIES_PER_ROW):
        some = entries[start : start + ENTRIES_PER_ROW]
        first, last, body = some[0].index, some[-1].index, entries_body(some)
        chain = link(chain, first, last, body)
        connection.execute("INSERT INTO appends VALUES (?, ?, ?, ?)", (first, last, body, chain))
    connection.execute("DROP TABLE entries")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")


def _entries_of_version_1(connection: sqlite3.Connection) -> list[Entry]:
    """Each checked, as that version did."""
    entries: list[Entry] = []
    chain = CHAIN_START
    for position, term, kind, payload, stored in connection.execute("SELECT * FROM entries ORDER BY position"):
        chain = digest(chain, struct.pack("<QQB", term, position, kind), payload)
        expect(position == len(entries) + 1 and chain == stored, f"log entry {len(entries) + 1}")
        entries.append(Entry(term, position, kind, payload))
    return entries

"""Corrupted reads: a disk's log and snapshot go through the store's own rows, one bit of which comes back flipped."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import msgspec

from consensus.machine import SnapshotRecord
from consensus.storage_log import LOG_TABLES, LogTable, insert_base
from consensus.storage_rows import CHAIN_START, Damage
from tests.sim.host import Disk

_MEMORY = Path(":memory:")
_APPEND_ENTRIES_MAX = 4


def read_spoiled(disk: Disk, rng: random.Random) -> Disk | None:
    """What the store reads back; None when it notices, and when nothing was there to be spoiled."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _write(connection, disk, rng)
        return _read(connection, disk) if _flip_a_bit(connection, rng) else None
    except (Damage, msgspec.MsgspecError, TypeError):
        return None  # ``Storage.load`` makes a refusal of these
    finally:
        connection.close()


def _write(connection: sqlite3.Connection, disk: Disk, rng: random.Random) -> None:
    """In appends of a few entries each."""
    connection.executescript(LOG_TABLES)
    insert_base(connection, *disk.base, CHAIN_START)
    table, entries = LogTable(connection, _MEMORY), tuple(disk.entries)
    while entries:
        count = rng.randint(1, _APPEND_ENTRIES_MAX)
        table.append(entries[:count])
        entries = entries[count:]
    if disk.snapshot is not None:
        table.keep_snapshot(SnapshotRecord(disk.snapshot, False))


def _flip_a_bit(connection: sqlite3.Connection, rng: random.Random) -> bool:
    """In the body of an append, or in the snapshot's data. False when there is neither."""
    cells = [("appends", "body", *row) for row in connection.execute("SELECT rowid, body FROM appends")]
    cells += [("snapshot", "data", *row) for row in connection.execute("SELECT rowid, data FROM snapshot")]
    if not cells:
        return False
    table, column, row, content = rng.choice(cells)
    spoiled = bytearray(content)
    spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes(spoiled), row))
    return True


def _read(connection: sqlite3.Connection, disk: Disk) -> Disk:
    """As the store does when it is opened. Raises ``Damage``."""
    table, found = LogTable(connection, _MEMORY), Disk()
    found.hard_state, found.base = disk.hard_state, disk.base
    found.entries, found.snapshot = table.load_entries(), table.load_snapshot()
    return found

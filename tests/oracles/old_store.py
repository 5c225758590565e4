"""A store's file as format 1 wrote it, made without any of today's code."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

from protocol.messages import Entry

_SCHEMA = """
CREATE TABLE owner(cluster_id BLOB NOT NULL, agent_id TEXT NOT NULL);
CREATE TABLE hard_state(id INTEGER PRIMARY KEY CHECK (id = 1), row BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE entries(position INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL, payload BLOB NOT NULL,
    chain BLOB NOT NULL);
CREATE TABLE phases(view INTEGER NOT NULL, sequence INTEGER NOT NULL, phase TEXT NOT NULL, digest BLOB NOT NULL,
    body BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (view, sequence, phase));
CREATE TABLE slots(sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE votes(id INTEGER PRIMARY KEY, path INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (path, digest));
CREATE TABLE key_values(key TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO hard_state VALUES (1, X'03000000000000000200000000000000', 1520869232);
PRAGMA application_id = 1398231629;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


def write_format_1(path: Path, cluster_id: bytes, agent_id: str, entries: Sequence[Entry]) -> None:
    """Term 3, a vote for 2, and ``entries``, which begin at 1."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(_SCHEMA)
    connection.execute("INSERT INTO owner VALUES (?, ?)", (cluster_id, agent_id))
    chain = bytes(32)
    for entry in entries:
        parts = (chain, struct.pack("<QQB", entry.term, entry.index, entry.kind), entry.payload)
        chain = hashlib.sha256(b"".join(struct.pack("<Q", len(part)) + part for part in parts)).digest()
        row = (entry.index, entry.term, entry.kind, entry.payload, chain)
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
    connection.close()

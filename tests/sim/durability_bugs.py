"""Bugs of the durability catalogue, put into the store on purpose, each with the check that must notice it."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from consensus import storage as storage_module
from consensus import storage_file, storage_log
from consensus.storage import Storage
from protocol.signing import digest
from tests.oracles.write_ahead import FRAME_BYTES, WAL_HEADER_BYTES
from tests.sim.durability_checks import (
    WRITE_AHEAD,
    Check,
    a_failed_sync_is_final,
    names_survive_a_power_loss,
    signed_phases_stand,
    stale_rows_are_found,
    torn_commits_are_none,
)
from tests.sim.seeded_bug import SeededBug

WAL_BIG_ENDIAN = 0x377F0683
"""See "WAL file format" in SQLite's documentation of its file format."""

Switch = Callable[[], AbstractContextManager[Any]]


def rename_without_directory_sync() -> AbstractContextManager[Any]:
    """As cometbft did with the state of its signer: the new file is on the disk, its name is not."""
    return patch.object(storage_file, "sync_directory", lambda directory: None)


@contextmanager
def torn_tail_accepted() -> Iterator[None]:
    """The reader of the write-ahead log believes whatever stands there."""
    original = storage_module.open_database

    def believing(path: Path, *owner: Any) -> None:
        accept_torn_tail(path.with_name(WRITE_AHEAD))
        original(path, *owner)

    with patch.object(storage_module, "open_database", believing):
        yield


def accept_torn_tail(write_ahead: Path) -> None:
    """Fill the last frame up and give every frame the checksum that SQLite wants to see."""
    if not write_ahead.exists():
        return
    content = bytearray(write_ahead.read_bytes())
    content += bytes(-(len(content) - WAL_HEADER_BYTES) % FRAME_BYTES)
    order = ">" if int.from_bytes(content[:4], "big") == WAL_BIG_ENDIAN else "<"
    sums = struct.unpack(">II", content[24:32])
    for start in range(WAL_HEADER_BYTES, len(content), FRAME_BYTES):
        content[start + 8 : start + 16] = content[16:24]
        sums = _wal_sums(content[start : start + 8] + content[start + 24 : start + FRAME_BYTES], sums, order)
        content[start + 16 : start + 24] = struct.pack(">II", *sums)
    write_ahead.write_bytes(content)


def _wal_sums(data: bytes, sums: tuple[int, ...], order: str) -> tuple[int, int]:
    first, second = sums
    for even, odd in struct.iter_unpack(order + "II", data):
        first = (first + even + second) % 2**32
        second = (second + odd + first) % 2**32
    return first, second


def rows_not_chained() -> AbstractContextManager[Any]:
    """Each row has a hash of its own, and no row knows the one before."""

    def alone(chain: bytes, first: int, last: int, body: bytes) -> bytes:
        return digest(struct.pack("<QQ", first, last), body)

    return patch.object(storage_log, "link", alone)


def last_signed_rolled_back() -> AbstractContextManager[Any]:
    """A restart brings back all signed phases but the last."""
    original = Storage._load_phases

    def without_last(storage: Storage) -> Any:
        return iter(list(original(storage))[:-1])

    return patch.object(Storage, "_load_phases", without_last)


def failed_sync_ignored() -> AbstractContextManager[Any]:
    """The error is remembered, and nobody is told."""
    return patch.object(Storage, "_refuse_after_failure", lambda storage: None)


def _bug(number: int, title: str, switch: Switch, check: Check) -> SeededBug:
    def found() -> str | None:
        with tempfile.TemporaryDirectory() as directory, switch():
            return check(Path(directory))

    return SeededBug(number, title, "durability", f"tests.sim.durability_checks.{check.__name__}", found)


DURABILITY_BUGS: Final = (
    _bug(20, "rename without directory fsync", rename_without_directory_sync, names_survive_a_power_loss),
    _bug(21, "torn tail accepted", torn_tail_accepted, torn_commits_are_none),
    _bug(22, "rows not chained: a stale one is replayed", rows_not_chained, stale_rows_are_found),
    _bug(24, "the last signed phase is rolled back", last_signed_rolled_back, signed_phases_stand),
    _bug(25, "an error of fsync is ignored", failed_sync_ignored, a_failed_sync_is_final),
)

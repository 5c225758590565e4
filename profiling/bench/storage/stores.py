"""The stores that are compared. Each keeps appends of log entries, one after the other, and each commit is on the disk
when it returns.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

from consensus.machine import LogAppend
from consensus.storage import Storage
from consensus.storage_rows import CHAIN_START, entries_body, entries_of, link
from protocol.errors import UsageError
from protocol.messages import Entry

Entries = tuple[Entry, ...]
MAP_BYTES: Final = 8 << 30
"""Address space for LMDB, which has to be told beforehand."""
_FRAME: Final = struct.Struct("<QII")
"""First index, length and checksum."""


class Store(Protocol):
    """A log on the disk of this directory."""

    def commit(self, entries: Entries) -> None: ...
    def load(self) -> list[Entry]: ...
    def close(self) -> None: ...


class Ours:
    """What an agent runs on."""

    def __init__(self, directory: Path) -> None:
        self._storage = Storage(directory, b"cluster", "agent")

    def commit(self, entries: Entries) -> None:
        """Durable when it returns."""
        self._storage.commit([LogAppend(entries)])

    def load(self) -> list[Entry]:
        """All entries, each checked."""
        return self._storage.load().entries

    def close(self) -> None:
        """Give the directory back."""
        self._storage.close()


class Lmdb:
    """The same rows, chained by the same hash, in LMDB: keys in their order, and both of its syncs for each commit."""

    def __init__(self, directory: Path, writemap: bool = False) -> None:
        directory.mkdir(exist_ok=True)
        self._environment = _lmdb().open(str(directory), map_size=MAP_BYTES, writemap=writemap, max_readers=4)
        self._chain = CHAIN_START

    def commit(self, entries: Entries) -> None:
        """Durable when it returns."""
        first, body = entries[0].index, entries_body(entries)
        self._chain = link(self._chain, first, entries[-1].index, body)
        with self._environment.begin(write=True) as transaction:
            transaction.put(struct.pack(">Q", first), self._chain + body, append=True)

    def load(self) -> list[Entry]:
        """All entries, each checked."""
        entries: list[Entry] = []
        chain = CHAIN_START
        with self._environment.begin() as transaction:
            for key, value in transaction.cursor():
                first, body = struct.unpack(">Q", key)[0], value[32:]
                some = entries_of(body, first)
                chain = link(chain, first, some[-1].index, body)
                assert chain == value[:32]
                entries.extend(some)
        return entries

    def close(self) -> None:
        """Give the directory back."""
        self._environment.close()


class BareFile:
    """Appends to one file and a sync for each: what the disk asks for, without any of what a store is for."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._file = os.open(directory / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def commit(self, entries: Entries) -> None:
        """Durable when it returns."""
        body = entries_body(entries)
        frame = _FRAME.pack(entries[0].index, len(body), zlib.crc32(body)) + body
        if os.write(self._file, frame) != len(frame):
            raise OSError("the disk took a part of a commit only")
        os.fdatasync(self._file)

    def load(self) -> list[Entry]:
        """All entries, each checked."""
        data, place, entries = os.pread(self._file, os.fstat(self._file).st_size, 0), 0, list[Entry]()
        while place < len(data):
            first, length, checksum = _FRAME.unpack_from(data, place)
            place += _FRAME.size
            body = data[place : place + length]
            assert zlib.crc32(body) == checksum
            entries.extend(entries_of(body, first))
            place += length
        return entries

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def stores() -> dict[str, Callable[[Path], Store]]:
    """By name, ours first. Raises ``UsageError`` when one is not installed."""
    name = f"LMDB, lmdb {_version()}"
    return {
        "ours": Ours,
        name: Lmdb,
        f"{name}, writemap": lambda directory: Lmdb(directory, writemap=True),
        "bare file, fdatasync": BareFile,
    }


def bytes_on_disk(directory: Path) -> int:
    """What its files take, holes aside."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def _version() -> str:
    _lmdb()
    return version("lmdb")


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError:
        raise UsageError("LMDB is not installed; run `make setup`") from None
    return lmdb

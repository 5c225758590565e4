"""Disks that fail, as really as this machine lets us: the kernel's own errors where that is allowed, else ours."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

WRITER = """
import resource, sys
from pathlib import Path
from consensus import storage as storage_module
from consensus.machine import LogAppend
from consensus.storage import Storage, StorageFailed
from protocol.messages import Entry
from tests.oracles.failing_disk import FailingConnection

directory, ballast, statement = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
connect = storage_module.connect
if statement:
    storage_module.connect = lambda path: FailingConnection(connect(path), statement)
storage, acknowledged = Storage(directory, b"cluster", "risk-1"), 0
storage_module.connect = connect
try:
    while acknowledged < 2000:
        storage.commit([LogAppend((Entry(1, acknowledged + 1, 1, bytes(5000)),))])
        acknowledged += 1
except StorageFailed as error:
    print(error)
ballast.unlink(missing_ok=True)
_, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    storage.commit([LogAppend((Entry(1, acknowledged + 1, 1, b"after"),))])
except StorageFailed:
    print("still refused")
print(acknowledged, flush=True)
storage.close()
with Storage(directory, b"cluster", "risk-1") as storage:
    print(len(storage.load().entries))
"""
"""Commits until the disk refuses, makes room, tries again, starts again, and says what became of it in four lines."""


class FailingConnection:
    """A connection whose statement number ``at`` is refused by the disk, and no other."""

    def __init__(self, connection: sqlite3.Connection, at: int = 0) -> None:
        self._connection = connection
        self.at = at
        self.statements: list[str] = []

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        self.statements.append(statement)
        if len(self.statements) == self.at:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, values)

    def close(self) -> None:
        self._connection.close()


def writer_on_a_full_disk(directory: Path) -> list[str]:
    """A file system of two megabytes, or for users that may not mount one, files of 400 kB at most."""
    if _succeeds("unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(directory)):
        script = (
            f"mount -t tmpfs -o size=2m none {directory} && head -c 400000 /dev/zero > {directory}/ballast && "
            f'exec "$0" -c "$1" {directory}/data {directory}/ballast 0'
        )
        return ["unshare", "-m", "sh", "-c", script, sys.executable, WRITER]
    script = f'ulimit -S -f 800; exec "$0" -c "$1" {directory}/data {directory}/ballast 0'
    return ["sh", "-c", script, sys.executable, WRITER]


def writer_with_an_error(directory: Path, call: str, number: int) -> list[str]:
    """The system call ``call`` fails once, its ``number``-th time; where calls cannot be traced, a statement does."""
    command = [sys.executable, "-c", WRITER, str(directory), str(directory / "ballast")]
    if not can_trace():
        return [*command, str(number)]
    inject = f"inject={call}:error=EIO:when={number}"
    return ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *command, "0"]


@functools.cache
def can_trace() -> bool:
    return shutil.which("strace") is not None and _succeeds("strace", "-o", "/dev/null", "true")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False

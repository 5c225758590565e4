"""Disks that can be full: file systems of their own where the operating system lets us mount one, and files that may
not grow everywhere else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from consensus.storage_file import FILE_NAME
from tests.oracles.write_ahead import log_end

SMALL_DISK_BYTES: Final = 24 * 2**20
BLOCK_BYTES: Final = 4096
_FILLER: Final = "filler"
_MOUNT: Final = """
import subprocess, sys
size, *directories = sys.argv[1:]
for directory in directories:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
print("mounted", flush=True)
sys.stdin.read()
"""
"""The mounts last as long as a process that sees them: this one ends with its standard input."""


class Disks:
    """Where the nodes' directories are. This one has an ordinary disk for all: full means that no file may grow."""

    before: tuple[str, ...] = ()
    """What a node's command begins with."""

    def seen(self, directory: Path) -> Path:
        """The node's directory as this process sees it."""
        return directory

    def fill(self, directory: Path, pid: int) -> None:
        """The room that the log has behind its end is taken away too, or it would take long to be used up."""
        end = log_end(directory / (FILE_NAME + "-wal"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (end, resource.RLIM_INFINITY))

    def free(self, directory: Path, pid: int | None) -> None:
        """``pid`` is the node's, if it is alive."""
        if pid is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        """Nothing was mounted."""

    def __enter__(self) -> Disks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SmallDisks(Disks):
    """A memory file system for each directory, in a mount namespace that nobody else sees. Raises ``OSError`` where
    that is not allowed."""

    def __init__(self, directories: list[Path]) -> None:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
        as_user = () if os.geteuid() == 0 else ("--map-root-user",)
        command = ["unshare", "--mount", *as_user, sys.executable, "-c", _MOUNT, str(SMALL_DISK_BYTES)]
        self._holder = subprocess.Popen(
            [*command, *map(str, directories)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            self.close()
            raise PermissionError("nothing may be mounted here")
        user = ("--user", "--preserve-credentials") if as_user else ()
        self.before = ("nsenter", "--target", str(self._holder.pid), "--mount", *user)

    def seen(self, directory: Path) -> Path:
        return Path(f"/proc/{self._holder.pid}/root/{directory}")

    def fill(self, directory: Path, pid: int) -> None:
        """To the last block, although the node writes too."""
        with (directory / _FILLER).open("ab") as file:
            while free := os.statvfs(directory).f_bavail:
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free * BLOCK_BYTES)

    def free(self, directory: Path, pid: int | None) -> None:
        (directory / _FILLER).unlink()

    def close(self) -> None:
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()


def disks_for(directories: list[Path], small: bool) -> Disks:
    """Small ones if they are wanted and allowed."""
    if small:
        with suppress(OSError):
            return SmallDisks(directories)
    return Disks()

"""A crash at any byte loses nothing that was acknowledged, and a disk that fails stops the agent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.machine import HardState, LogAppend
from consensus.storage import Storage
from consensus.storage_file import FILE_NAME
from protocol.errors import UsageError
from protocol.messages import Entry
from tests.oracles.write_ahead import log_end

ROOT = Path(__file__).parents[2]
CLUSTER, AGENT = b"cluster", "risk-1"
WRITE_AHEAD = FILE_NAME + "-wal"

WRITER = """
import sys
from pathlib import Path
from consensus.machine import HardState, LogAppend
from consensus.storage import Storage
from protocol.messages import Entry
storage = Storage(Path(sys.argv[1]), b"cluster", "risk-1")
for index in range(1, 1_000_000):
    storage.commit([HardState(index, 1), LogAppend((Entry(index, index, 1, bytes(200)),))])
    print(index, flush=True)
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
from consensus.machine import HardState, LogAppend
from consensus.storage import Storage, StorageFailed
from protocol.messages import Entry
storage = Storage(Path(sys.argv[1]), b"cluster", "risk-1")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
acknowledged = 0
try:
    while acknowledged < 1000:
        storage.commit([LogAppend((Entry(1, acknowledged + 1, 1, bytes(5000)),))])
        acknowledged += 1
except StorageFailed as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    storage.commit([HardState(9, 9)])
except StorageFailed:
    print("still refused")
print(acknowledged)
"""


def numbered(index: int) -> list[HardState | LogAppend]:
    return [HardState(index, 1), LogAppend((Entry(index, index, 1, b"entry %d" % index),))]


def stored_count(directory: Path) -> int:
    """How many of the numbered commits are there; asserts that each is there wholly or not at all."""
    with Storage(directory, CLUSTER, AGENT) as storage:
        state = storage.load()
    assert [entry.index for entry in state.entries] == list(range(1, len(state.entries) + 1))
    assert state.hard_state.term == len(state.entries)
    return len(state.entries)


def snapshot(source: Path, target: Path) -> Path:
    """What a crash leaves: the files as they are, without closing anything."""
    target.mkdir()
    for name in (FILE_NAME, WRITE_AHEAD):
        shutil.copy(source / name, target / name)
    return target


def test_a_copy_taken_after_any_commit_holds_it(tmp_path: Path) -> None:
    with Storage(tmp_path / "live", CLUSTER, AGENT) as storage:
        for index in range(1, 13):
            storage.commit(numbered(index))
            assert stored_count(snapshot(tmp_path / "live", tmp_path / f"copy-{index}")) == index


def test_a_torn_write_ahead_log_keeps_whole_commits(tmp_path: Path) -> None:
    """Seeded bug 21: a torn tail must not be taken for a commit. The log is cut at many places, and bits flip in it."""
    with Storage(tmp_path / "live", CLUSTER, AGENT) as storage:
        ends = []
        for index in range(1, 9):
            storage.commit(numbered(index))
            ends.append(log_end(tmp_path / "live" / WRITE_AHEAD))
        whole = snapshot(tmp_path / "live", tmp_path / "whole")
    content = (whole / WRITE_AHEAD).read_bytes()[: ends[-1]]
    for number, cut in enumerate(range(0, len(content) + 1, 1531)):
        torn = snapshot(whole, tmp_path / f"torn-{number}")
        (torn / WRITE_AHEAD).write_bytes(content[:cut])
        assert stored_count(torn) == sum(end <= cut for end in ends)
        flipped = snapshot(whole, tmp_path / f"flipped-{number}")
        spoiled = bytearray(content)
        spoiled[min(cut, len(content) - 1)] ^= 0x40
        (flipped / WRITE_AHEAD).write_bytes(spoiled)
        assert stored_count(flipped) <= sum(end <= cut for end in ends) + (cut >= len(content))


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    for round_number in range(3):
        directory = tmp_path / str(round_number)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, cwd=ROOT
        ) as writer:
            assert writer.stdout is not None
            for _ in range(20 + 15 * round_number):
                writer.stdout.readline()
            with pytest.raises(UsageError, match=f"in use by process {writer.pid}"):
                Storage(directory, CLUSTER, AGENT)
            writer.kill()
            rest = writer.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else 20 + 15 * round_number
        assert acknowledged <= stored_count(directory) <= acknowledged + 1


def test_a_disk_that_fails_stops_all_writing(tmp_path: Path) -> None:
    """Seeded bug 25: an error of the disk is final, even when the disk recovers."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    reason, refused, acknowledged = run.stdout.splitlines()
    assert str(tmp_path / FILE_NAME) in reason
    assert "the agent stops" in reason
    assert refused == "still refused"
    assert 10 < int(acknowledged) < 1000
    with Storage(tmp_path, CLUSTER, AGENT) as storage:
        state = storage.load()
    assert (len(state.entries), state.hard_state) == (int(acknowledged), HardState(0, -1))

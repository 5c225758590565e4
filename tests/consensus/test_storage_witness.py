"""An agent that lost its disk does not start as if it had never voted."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from consensus.machine import HardState
from consensus.storage import Storage
from consensus.storage_file import FILE_NAME
from protocol.errors import RunFailure, UsageError
from tests.oracles.old_store import write_format_1

CLUSTER, AGENT = bytes(range(16)), "risk-1"


def start(directory: Path, cluster: bytes = CLUSTER) -> None:
    """One life of an agent whose key lies beside its data."""
    with Storage(directory / "data", cluster, AGENT, directory / "witness") as storage:
        storage.commit([HardState(storage.load().hard_state.term + 1, 0)])


def test_a_store_that_is_there_starts_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        start(tmp_path)
    with Storage(tmp_path / "data", CLUSTER, AGENT) as storage:
        assert storage.load().hard_state.term == 3


def test_a_lost_disk_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    start(tmp_path)
    shutil.rmtree(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(UsageError, match="risk-1 has voted in this cluster before") as refusal:
            start(tmp_path)
    for word in (str(tmp_path / "witness"), str(tmp_path / "data" / FILE_NAME), "under a new identity"):
        assert word in str(refusal.value)
    assert not (tmp_path / "data" / FILE_NAME).exists()


def test_another_store_of_the_same_agent_is_refused(tmp_path: Path) -> None:
    """For instance one that was made anew while the witness was not looked at."""
    start(tmp_path)
    shutil.rmtree(tmp_path / "data")
    Storage(tmp_path / "data", CLUSTER, AGENT).close()
    with pytest.raises(UsageError, match="is not the store that this agent voted from"):
        start(tmp_path)


def test_the_store_that_was_put_back_is_welcome(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        start(tmp_path)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    start(tmp_path)


def test_another_cluster_may_begin_with_nothing(tmp_path: Path) -> None:
    start(tmp_path)
    shutil.rmtree(tmp_path / "data")
    start(tmp_path, b"another cluster!")


def test_a_store_of_format_1_is_remembered_from_now_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_format_1(tmp_path / "data" / FILE_NAME, CLUSTER, AGENT, [])
    start(tmp_path)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UsageError, match="has voted in this cluster before"):
        start(tmp_path)


def test_a_crash_before_the_witness_is_written_leaves_the_store_usable(tmp_path: Path) -> None:
    """Nothing was promised yet: the store comes first, then the witness, then the first vote."""
    Storage(tmp_path / "data", CLUSTER, AGENT).close()
    (tmp_path / "witness.new").write_text("half")
    start(tmp_path)


def test_a_damaged_witness_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "witness").write_text("neither this nor that")
    with pytest.raises(UsageError, match=r"cannot read .*witness"):
        start(tmp_path)


def test_a_witness_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=r"cannot write .*witness"):
        Storage(tmp_path / "data", CLUSTER, AGENT, tmp_path / "nowhere" / "witness")
    with Storage(tmp_path / "data", CLUSTER, AGENT):
        pass


def test_every_store_has_an_incarnation_of_its_own(tmp_path: Path) -> None:
    found = set()
    for name in ("one", "two"):
        Storage(tmp_path / name, CLUSTER, AGENT).close()
        connection = sqlite3.connect(tmp_path / name / FILE_NAME)
        found.add(connection.execute("SELECT incarnation FROM owner").fetchone()[0])
        connection.close()
    assert len(found) == 2 and all(len(incarnation) == 16 for incarnation in found)

"""The ring: what is stored is found again, and what is missing is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.clock import BOOT_ID_PATH, boot_hash, now_ns, read_boot_id
from profiling.ring import HEADER, RECORD, RingError, RingWriter, contents_of, read_ring
from profiling.stages import Operation

ROOT = Path(__file__).parents[2]


def write_numbers(writer: RingWriter, numbers: range) -> None:
    for number in numbers:
        writer.write(Operation.DTW_SEARCH, 1000 + number, 2000 + number, number, 3 * number, 0)


def test_records_come_back_with_every_field(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", agent_index=5, capacity=8)
    writer.write(Operation.VOTE_SIGN, 20, 30, 2**64 - 1, 2**63, 2)
    writer.write(Operation.FEED_NEXT, 10, 15, 1, 0, 0)
    ring = read_ring(writer.path)
    assert (ring.agent, ring.pid, ring.written, ring.lost, ring.torn) == (5, os.getpid(), 2, 0, 0)
    assert ring.records["t0_ns"].tolist() == [10, 20]
    assert ring.records[1].tolist() == (20, 30, 2**64 - 1, 2**63, Operation.VOTE_SIGN, 2, 5, 1)
    assert ring.boot_hash == boot_hash(read_boot_id(BOOT_ID_PATH))
    assert 0 < ring.start_ns <= now_ns()


@settings(max_examples=40, deadline=None)
@given(capacity=st.integers(1, 5), count=st.integers(0, 17))
def test_a_wrap_keeps_the_newest_and_counts_the_rest(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, count: int
) -> None:
    writer = RingWriter(tmp_path_factory.mktemp("ring") / "trace.ring", 0, capacity)
    write_numbers(writer, range(count))
    ring = read_ring(writer.path)
    assert ring.records["trace"].tolist() == list(range(max(0, count - capacity), count))
    assert (ring.written, ring.lost, ring.torn) == (count, max(0, count - capacity), 0)


def test_each_life_gets_a_file_and_none_is_touched_again(tmp_path: Path) -> None:
    first = RingWriter(tmp_path / "trace.ring", 1, 4)
    write_numbers(first, range(3))
    first.close()
    second = RingWriter(tmp_path / "trace.ring", 1, 4)
    write_numbers(second, range(10, 12))
    assert [first.path.name, second.path.name] == ["trace-0.ring", "trace-1.ring"]
    assert read_ring(first.path).records["trace"].tolist() == [0, 1, 2]
    first.path.unlink()
    assert RingWriter(tmp_path / "trace.ring", 1, 4).path.name == "trace-2.ring"


def test_a_record_torn_by_a_kill_is_counted_and_left_out(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 4)
    write_numbers(writer, range(2))
    writer.close()
    data = bytearray(writer.path.read_bytes())
    HEADER.pack_into(data, 0, *HEADER.unpack_from(data)[:5], 3, *HEADER.unpack_from(data)[6:])
    half = RECORD.pack(9, 9, 9, 9, 101, 0, 0, 3)[:24]
    data[64 + 3 * 48 : 64 + 3 * 48 + len(half)] = half
    writer.path.write_bytes(data)
    ring = read_ring(writer.path)
    assert ring.records["trace"].tolist() == [0, 1]
    assert (ring.written, ring.lost, ring.torn) == (3, 0, 1)


def test_a_record_torn_over_an_older_one_is_not_taken_for_either(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 2)
    write_numbers(writer, range(4))
    writer.close()
    data = bytearray(writer.path.read_bytes())
    HEADER.pack_into(data, 0, *HEADER.unpack_from(data)[:5], 5, *HEADER.unpack_from(data)[6:])
    data[64 + 48 : 64 + 48 + 24] = RECORD.pack(9, 9, 9, 9, 101, 0, 0, 5)[:24]
    writer.path.write_bytes(data)
    ring = read_ring(writer.path)
    assert ring.records["trace"].tolist() == [3]
    assert (ring.written, ring.lost, ring.torn) == (5, 3, 1)


def test_a_counter_set_back_by_a_slower_thread_loses_nothing(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 8)
    write_numbers(writer, range(5))
    writer.close()
    data = bytearray(writer.path.read_bytes())
    HEADER.pack_into(data, 0, *HEADER.unpack_from(data)[:5], 2, *HEADER.unpack_from(data)[6:])
    writer.path.write_bytes(data)
    ring = read_ring(writer.path)
    assert (len(ring.records), ring.written, ring.torn) == (5, 5, 0)


def test_threads_share_a_ring_without_losing_a_record(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 1 << 14)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=write_numbers, args=(writer, range(i * 2000, i * 2000 + 2000))) for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    ring = read_ring(writer.path)
    assert sorted(ring.records["trace"].tolist()) == list(range(8000))
    assert (ring.written, ring.lost, ring.torn) == (8000, 0, 0)


def test_a_reader_beside_a_running_writer_sees_only_whole_records(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 64)
    done = threading.Event()

    def run() -> None:
        number = 1
        while not done.is_set():
            writer.write(Operation.RAFT_STEP, number, number, number, number, 0)
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(200):
            ring = read_ring(writer.path)
            records = ring.records
            assert ring.written == len(records) + ring.lost + ring.torn
            for name in ("t0_ns", "t1_ns", "trace", "aux"):
                assert np.array_equal(records[name], records["number"])
    finally:
        done.set()
        thread.join()


def test_what_is_overtaken_while_it_is_copied_counts_as_lost_not_as_torn(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 4)
    write_numbers(writer, range(6))
    copy = writer.path.read_bytes()
    ring = contents_of(writer.path, copy, counter_after=8)
    assert ring.records["number"].tolist() == [5, 6]
    assert (ring.written, ring.lost, ring.torn) == (6, 4, 0)
    overtaken = contents_of(writer.path, copy, counter_after=20)
    assert (len(overtaken.records), overtaken.written, overtaken.lost, overtaken.torn) == (0, 6, 6, 0)


KILLED_WRITER = """
import sys
from pathlib import Path
from profiling.ring import RingWriter
writer = RingWriter(Path(sys.argv[1]), 3, 1 << 18)
number = 0
while True:
    for _ in range(500):
        number += 1
        writer.write(202, number, number + 1, number, 2 * number, 0)
    print(number, flush=True)
"""


def test_sigkill_loses_nothing_that_was_written(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(tmp_path / "trace.ring")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        last = [int(line) for line in process.stdout.read().splitlines() if line]
    assert process.wait() == -signal.SIGKILL
    known = last[-1] if last else 20 * 500
    ring = read_ring(tmp_path / "trace-0.ring")
    whole = ring.lost + len(ring.records)  # on a crowded machine the writer may wrap before the signal reaches it
    assert ring.records["trace"].tolist() == list(range(ring.lost + 1, whole + 1))
    assert whole >= known
    assert ring.torn <= 1 and ring.written == whole + ring.torn


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes, shorter than a header"),
        (b"x" * 500, "it begins with b'xxxxxxxx'"),
        (HEADER.pack(b"SWRMRING", 9, 48, 0, 4, 0, 1, 0, 1, 1), "version 9"),
        (HEADER.pack(b"SWRMRING", 1, 48, 0, 4, 0, 1, 0, 1, 1) + bytes(100), "164 bytes are too few"),
        (HEADER.pack(b"SWRMRING", 1, 48, 0, 0, 0, 1, 0, 1, 1), "announced 0 records"),
    ],
)
def test_a_file_that_is_no_ring_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "trace-0.ring"
    path.write_bytes(content)
    with pytest.raises(RingError, match=reason) as caught:
        read_ring(path)
    assert caught.value.path == path


def test_what_does_not_fit_is_refused_and_counted(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "trace.ring", 0, 4)
    writer.write(Operation.FEED_NEXT, 1, 2, -1, 0, 0)
    writer.write(Operation.FEED_NEXT, 1, 2, 3, 0, 0)
    assert writer.refused == 1
    ring = read_ring(writer.path)
    assert (len(ring.records), ring.torn) == (1, 1)
    writer.close()
    writer.write(Operation.FEED_NEXT, 1, 2, 3, 0, 0)
    assert writer.refused == 2


@pytest.mark.parametrize(("agent_index", "capacity"), [(-1, 4), (256, 4), (0, 0)])
def test_a_ring_that_cannot_be_is_refused(tmp_path: Path, agent_index: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="must"):
        RingWriter(tmp_path / "trace.ring", agent_index, capacity)
    assert not list(tmp_path.iterdir())


def test_an_unknown_boot_is_zero(tmp_path: Path) -> None:
    assert read_boot_id(tmp_path / "absent") == ""
    assert boot_hash("") == 0 and boot_hash("a") != boot_hash("b")

"""Many rings become one trace; whatever is missing has a number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from profiling.collect import AgentLoss, collect
from profiling.ring import HEADER, RingWriter
from profiling.stages import Operation

ROOT = Path(__file__).parents[2]

TWO_PROCESSES = """
import sys
from pathlib import Path
from profiling.ring import RingWriter
from profiling.span import install, span
from profiling.stages import Operation
path, index = Path(sys.argv[1]), int(sys.argv[2])
path.parent.mkdir()
install(RingWriter(path, index, 64))
for line in sys.stdin:
    with span(Operation.RAFT_STEP, trace=int(line)):
        pass
    print("done", flush=True)
"""


def agent_ring(run_dir: Path, agent: str, capacity: int = 8) -> RingWriter:
    (run_dir / agent).mkdir(exist_ok=True)
    return RingWriter(run_dir / agent / "trace.ring", 0, capacity)


def test_two_processes_merge_in_the_order_in_which_things_happened(tmp_path: Path) -> None:
    processes = []
    for index, agent in enumerate(("risk-2", "risk-1")):
        command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path / agent / "trace.ring"), str(index)]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        )
    for cycle in range(1, 11):
        process = processes[cycle % 2]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{cycle}\n")
        assert process.stdout.readline() == "done\n"
    for process in processes:
        process.communicate()
    trace = collect(tmp_path)
    assert trace.records["trace"].tolist() == list(range(1, 11))
    assert trace.agents == ("risk-1", "risk-2")
    assert trace.records["agent"].tolist() == [0, 1] * 5


def test_loss_is_accounted_by_agent(tmp_path: Path) -> None:
    full, small = agent_ring(tmp_path, "a"), agent_ring(tmp_path, "b", capacity=2)
    for number in range(5):
        full.write(Operation.FEED_NEXT, number, number, 1, 0, 0)
        small.write(Operation.FEED_NEXT, number, number, 1, 0, 0)
    trace = collect(tmp_path)
    assert trace.loss == {"a": AgentLoss(5, 5, 0, 0, 0), "b": AgentLoss(5, 2, 3, 0, 0)}
    report = trace.loss_report()
    assert (report["written"], report["kept"], report["overwritten"]) == (10, 7, 3)
    assert report["agents"]["b"]["overwritten"] == 3


def test_lives_of_an_agent_are_numbered_by_their_start(tmp_path: Path) -> None:
    first = agent_ring(tmp_path, "a")
    first.write(Operation.FEED_NEXT, 50, 60, 1, 0, 0)
    first.close()
    second = agent_ring(tmp_path, "a")
    second.write(Operation.FEED_NEXT, 70, 80, 2, 0, 0)
    trace = collect(tmp_path)
    assert trace.records[["trace", "life"]].tolist() == [(1, 0), (2, 1)]
    assert trace.loss["a"] == AgentLoss(2, 2, 0, 0, 0)


def test_another_boot_is_another_timeline(tmp_path: Path) -> None:
    before = agent_ring(tmp_path, "a")
    before.write(Operation.FEED_NEXT, 50, 60, 1, 0, 0)
    before.close()
    data = bytearray(before.path.read_bytes())
    fields = list(HEADER.unpack_from(data))
    HEADER.pack_into(data, 0, *fields[:7], fields[7] ^ 1, *fields[8:])
    before.path.write_bytes(data)
    agent_ring(tmp_path, "a").write(Operation.FEED_NEXT, 10, 20, 2, 0, 0)
    trace = collect(tmp_path)
    assert trace.records["trace"].tolist() == [2]
    assert trace.loss["a"] == AgentLoss(2, 1, 0, 0, 1)


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    agent_ring(tmp_path, "a").write(Operation.FEED_NEXT, 50, 60, 1, 0, 0)
    (tmp_path / "a" / "trace-1.ring").write_bytes(b"")
    trace = collect(tmp_path)
    assert len(trace.records) == 1
    (unreadable,) = trace.loss_report()["unreadable"]
    assert unreadable["path"].endswith("a/trace-1.ring") and "shorter than a header" in unreadable["reason"]


def test_an_empty_run_is_an_empty_trace_and_no_run_is_an_error(tmp_path: Path) -> None:
    assert len(collect(tmp_path).records) == 0
    with pytest.raises(FileNotFoundError, match="no run directory"):
        collect(tmp_path / "absent")

"""Stage, cycle and operation rows; the profile of a run directory; the shape of a report."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiling.collect import Trace, collect
from profiling.cycles import Rules, cut_cycles
from profiling.report import build_profile, profile_run, read_samples, write_samples
from profiling.ring import RingWriter
from profiling.stage_table import cycle_row, operation_rows, stage_rows
from profiling.stages import Operation, Stage
from profiling.validate import validate_report
from tests.oracles.profiling_traces import AGENTS, EPOCH_NS, MS, HandTrace, example_report

ROLES: dict[str, Any] = {"trader_ids": ["trader-1"], "executor_ids": ["executor-1"], "quorum": 3}


def three_cycles() -> Trace:
    """Cycle 1 of 30 ms from 0, cycle 2 without orders from 100 to 107, cycle 3 never confirmed."""
    hand = HandTrace()
    hand.decide(1, 0)
    hand.carry_out(1, 0)
    hand.decide(2, 100)
    hand.decide(3, 200)
    hand.carry_out(3, 200)
    hand.rows = [row for row in hand.rows if (row[2], row[4]) != (3, Operation.CONFIRMED)]
    return hand.trace()


def test_stage_rows_by_hand() -> None:
    rows = stage_rows(cut_cycles(three_cycles(), Rules(**ROLES)))
    assert [row["stage"] for row in rows] == [stage.label for stage in Stage]
    assert [row["count"] for row in rows] == [2, 2, 2, 2, 1, 1, 1, 1]
    assert [row["total_ms"] for row in rows] == [4, 6, 2, 3, 4, 8, 3, 7]
    signal = rows[3]  # 2 ms and 1 ms
    assert (signal["mean_ms"], signal["p50_ms"]) == (1.5, 1.5)
    assert signal["p99_ms"] == pytest.approx(1.99)
    assert signal["share_percent"] == pytest.approx(100 * 3 / 37)
    assert sum(row["share_percent"] for row in rows) == pytest.approx(100)


def test_cycle_row_by_hand() -> None:
    row = cycle_row(cut_cycles(three_cycles(), Rules(**ROLES)))
    assert (row["count"], row["mean_ms"], row["p50_ms"]) == (2, 18.5, 18.5)
    assert row["per_s"] == pytest.approx(2 / 0.107)


def test_no_cycles_make_rows_of_zeros() -> None:
    profile = build_profile(HandTrace().trace(), **ROLES)
    assert len(profile["stages"]) == 8
    assert all(row["count"] == row["share_percent"] == row["mean_ms"] == 0 for row in profile["stages"])
    assert profile["cycle"] == {"count": 0, "mean_ms": 0.0, "p50_ms": 0.0, "p99_ms": 0.0, "per_s": 0.0}
    assert profile["operations"] == []


def test_operation_rows_by_agent_largest_first() -> None:
    hand = HandTrace()
    hand.add("risk-1", Operation.RISK_CHECK, 0, 2)
    hand.add("risk-1", Operation.RISK_CHECK, 5, 8, cycle=0)
    hand.add("risk-2", Operation.RISK_CHECK, 0, 9)
    hand.add("risk-2", Operation.LOG_PERSIST, 8, 3)  # ends before it starts: counts, takes no time
    assert operation_rows(hand.trace()) == [
        {"operation": "risk_check", "stage": "coordination", "agent": "risk-2", "count": 1, "total_ms": 9.0},
        {"operation": "risk_check", "stage": "coordination", "agent": "risk-1", "count": 2, "total_ms": 5.0},
        {"operation": "log_persist", "stage": "consensus", "agent": "risk-2", "count": 1, "total_ms": 0.0},
    ]


def test_operations_of_a_newer_vocabulary_are_counted_apart() -> None:
    hand = HandTrace()
    hand.rows.append((EPOCH_NS, EPOCH_NS + MS, 0, 0, 999, 0, AGENTS.index("risk-1"), 0))
    profile = build_profile(hand.trace(), **ROLES)
    assert profile["operations"] == [] and profile["loss"]["unknown_operations"] == 1


def test_profile_of_a_trace() -> None:
    profile = build_profile(three_cycles(), **ROLES)
    assert set(profile) == {"stages", "operations", "cycle", "loss", "incomplete_cycles", "incomplete_reasons"}
    assert (profile["incomplete_cycles"], profile["incomplete_reasons"]) == (1, {"order_confirmation": 1})
    assert json.loads(json.dumps(profile)) == profile


def test_profile_of_a_run_directory_keeps_the_samples(tmp_path: Path) -> None:
    trace = three_cycles()
    for index, agent in enumerate(AGENTS):
        (tmp_path / agent).mkdir()
        writer = RingWriter(tmp_path / agent / "trace.ring", index, 64)
        for t0_ns, t1_ns, number, aux, operation, kind, owner, _ in trace.records.tolist():
            if owner == index:
                writer.write(operation, t0_ns, t1_ns, number, aux, kind)
        writer.close()
    profile = profile_run(tmp_path, **ROLES)
    expected = build_profile(trace, **ROLES)
    assert {key: profile[key] for key in ("stages", "cycle", "operations")} == {
        key: expected[key] for key in ("stages", "cycle", "operations")
    }
    samples, direct = read_samples(tmp_path), cut_cycles(collect(tmp_path), Rules(**ROLES))
    for name in ("trace", "start_ns", "stage_ns", "passed"):
        assert np.array_equal(getattr(samples, name), getattr(direct, name))
    assert samples.incomplete == {"order_confirmation": 1}
    assert [path.name for path in tmp_path.glob("cycles*")] == ["cycles.npz"]


def test_samples_without_incomplete_cycles_come_back(tmp_path: Path) -> None:
    samples = cut_cycles(HandTrace().trace(), Rules(**ROLES))
    assert read_samples(write_samples(tmp_path, samples).parent).incomplete == {}


def test_broken_samples_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_samples(tmp_path)
    for content in (b"", b"PK\x03\x04 broken", b"nothing like it"):
        (tmp_path / "cycles.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"cycles\.npz: not the cycle samples"):
            read_samples(tmp_path)


def test_a_valid_report_passes_with_a_profile_inside() -> None:
    validate_report(example_report())
    validate_report(example_report() | build_profile(three_cycles(), **ROLES))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("run", "mode"), None, "run.mode: expected a text, found null"),
        (("run", "cycles"), -1, "run.cycles: expected a count, found int -1"),
        (("run", "cycles"), True, "run.cycles: expected a count, found bool True"),
        (("run", "data", "synthetic"), "no", "run.data.synthetic: expected true or false, found str 'no'"),
        (("run", "agents"), [3], "run.agents[0]: expected an agent's id or description, found int 3"),
        (("run", "seed"), 1.5, "run.seed: expected a whole number, found float 1.5"),
        (("stages", 2, "mean_ms"), "1", "stages[2].mean_ms: expected a finite number, found str '1'"),
        (("stages", 2, "mean_ms"), float("nan"), "stages[2].mean_ms: expected a finite number, found float nan"),
        (("stages", 0), [], "stages[0]: expected an object, found list []"),
        (("operations",), {}, "operations: expected a list, found dict {}"),
        (("operations", 1, "agent"), 1, "operations[1].agent: expected a text, found int 1"),
        (("decisions", "by_code", "STALE"), "x", "decisions.by_code.STALE: expected a count, found str 'x'"),
        (("portfolio", "positions"), [], "portfolio.positions: expected an object, found list []"),
        (("portfolio", "positions", "AAPL"), "1", "portfolio.positions.AAPL: expected a finite number, found str '1'"),
    ],
)
def test_an_ill_typed_key_is_named(path: tuple[str | int, ...], value: object, message: str) -> None:
    report = copy.deepcopy(example_report())
    target: Any = report
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ValueError) as caught:
        validate_report(report)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("cycle",), "cycle: missing"),
        (("cycle", "per_s"), "cycle.per_s: missing"),
        (("stages", 3, "share_percent"), "stages[3].share_percent: missing"),
        (("orders", "lost"), "orders.lost: missing"),
        (("run", "data", "sha256"), "run.data.sha256: missing"),
    ],
)
def test_a_missing_key_is_named(path: tuple[str | int, ...], message: str) -> None:
    report = copy.deepcopy(example_report())
    target: Any = report
    for key in path[:-1]:
        target = target[key]
    del target[path[-1]]
    with pytest.raises(ValueError) as caught:
        validate_report(report)
    assert str(caught.value) == message


def test_what_is_no_report_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="report: expected an object, found list"):
        validate_report([])
    report = example_report()
    report["stages"][1]["stage"] = "thinking"
    with pytest.raises(ValueError, match=r"stages\[1\]\.stage: expected one of market_data, .* found str 'thinking'"):
        validate_report(report)

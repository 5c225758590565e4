"""Traces written by hand, in whole milliseconds, so that a reader can check the expected stage times by eye."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profiling.collect import TRACE_DTYPE, AgentLoss, Trace
from profiling.stages import Operation, Stage

AGENTS = ("executor-1", "risk-1", "risk-2", "risk-3", "risk-4", "trader-1", "trader-2")
MS = 1_000_000
EPOCH_NS = 1_000_000_000_000
"""Times of the host begin well above 0; the tables must not depend on it."""


@dataclass
class HandTrace:
    """Collects records; ``trace`` turns them into what ``collect`` would return."""

    rows: list[tuple[int, int, int, int, int, int, int, int]] = field(default_factory=list)

    def add(
        self,
        agent: str,
        operation: Operation,
        start_ms: float,
        end_ms: float,
        *,
        cycle: int = 1,
        frame: int = 0,
        life: int = 0,
    ) -> None:
        t0_ns, t1_ns = EPOCH_NS + round(start_ms * MS), EPOCH_NS + round(end_ms * MS)
        self.rows.append((t0_ns, t1_ns, cycle, frame, operation, 0, AGENTS.index(agent), life))

    def decide(self, cycle: int = 1, at_ms: float = 0, *, agent: str = "trader-1", life: int = 0) -> None:
        """A trader's first four stages: market data 2 ms, patterns 3, risk 1, signal 1; ends at 7."""
        for operation, start_ms, end_ms in (
            (Operation.FEED_NEXT, 0, 2),
            (Operation.DTW_SEARCH, 2, 5),
            (Operation.SIZING, 5, 6),
            (Operation.SIGNAL_DECIDE, 6, 7),
        ):
            self.add(agent, operation, at_ms + start_ms, at_ms + end_ms, cycle=cycle, life=life)

    def carry_out(self, cycle: int = 1, at_ms: float = 0, *, frame: int = 77) -> None:
        """A frame signed by 8, verified by q = 3 at 12, certified at 20, released at 23, confirmed at 30."""
        self.add("trader-1", Operation.FRAME_SIGN, at_ms + 7, at_ms + 8, cycle=cycle, frame=frame)
        for agent, end_ms in (("risk-1", 10), ("risk-2", 12), ("risk-3", 11), ("risk-4", 19)):
            self.add(agent, Operation.FRAME_VERIFIED, at_ms + 8, at_ms + end_ms, cycle=cycle, frame=frame)
        self.add("executor-1", Operation.CERTIFIED, at_ms + 8, at_ms + 20, cycle=cycle, frame=frame)
        self.add("executor-1", Operation.RELEASED, at_ms + 20, at_ms + 23, cycle=cycle, frame=frame)
        self.add("trader-1", Operation.CONFIRMED, at_ms + 23, at_ms + 30, cycle=cycle)

    def trace(self) -> Trace:
        records = np.array(self.rows, TRACE_DTYPE)
        loss = {agent: AgentLoss(len(self.rows), len(self.rows), 0, 0, 0) for agent in ("trader-1",)}
        return Trace(records[np.argsort(records["t0_ns"], kind="stable")], AGENTS, loss, ())


def example_report() -> dict[str, Any]:
    """A valid report with round figures, for the tests of what reads reports."""
    labels = [stage.label for stage in Stage]
    means = (0.5, 2.0, 0.25, 0.25, 3.0, 6.0, 1.0, 7.0)
    stages = [
        {
            "stage": label,
            "count": 100,
            "total_ms": 100 * mean,
            "mean_ms": mean,
            "p50_ms": mean * 0.875,
            "p99_ms": mean * 2,
            "share_percent": 5 * mean,
        }
        for label, mean in zip(labels, means, strict=True)
    ]
    return {
        "run": {
            "id": "run-7",
            "mode": "optimized",
            "cycles": 100,
            "agents": ["trader-1", "risk-1", "risk-2", "executor-1"],
            "data": {"name": "us-large-caps", "synthetic": False, "sha256": "0123456789abcdef" * 4},
            "seed": 7,
        },
        "stages": stages,
        "operations": [
            {
                "operation": "dtw_search",
                "stage": "pattern_matching",
                "agent": "trader-1",
                "count": 100,
                "total_ms": 180.0,
            },
            {
                "operation": "log_persist",
                "stage": "consensus",
                "agent": "risk-1",
                "count": 200,
                "total_ms": 90.5,
            },
        ],
        "cycle": {"mean_ms": 20.0, "p50_ms": 19.5, "p99_ms": 41.25, "per_s": 48.75},
        "decisions": {
            "proposed": 120,
            "committed": 110,
            "routine": 100,
            "critical": 10,
            "denied": 10,
            "by_code": {"MAX_POSITION": 7, "CLAIM_MISMATCH": 3},
        },
        "orders": {"sent": 110, "filled": 108, "rejected": 2, "unknown": 0, "duplicate": 0, "lost": 0},
        "portfolio": {"realized_pnl": 1234.5, "unrealized_pnl": -20.25, "positions": {"MSFT": -50, "AAPL": 1200}},
    }

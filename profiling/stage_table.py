"""The tables of a profile: time by stage, by cycle and by operation. Plain dictionaries, ready for JSON."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiling.collect import Trace
from profiling.cycles import CycleSamples
from profiling.stages import Operation, Stage

NS_PER_MS: Final = 1e6
NS_PER_S: Final = 1e9
KNOWN_OPERATIONS: Final = frozenset(int(operation) for operation in Operation)


def stage_rows(samples: CycleSamples) -> list[dict[str, Any]]:
    """One row per stage in cycle order: ``stage, count, total_ms, mean_ms, p50_ms, p99_ms, share_percent``.

    ``count`` is the number of cycles that passed the stage, mean and percentiles are over these. Shares are of the
    summed cycle time and add to 100, unless there is no cycle at all.
    """
    cycles_ns = int(samples.stage_ns.sum())
    rows = []
    for column, stage in enumerate(Stage):
        stage_ns = samples.stage_ns[samples.passed[:, column], column]
        total_ns = int(stage_ns.sum())
        rows.append(
            {
                "stage": stage.label,
                "count": len(stage_ns),
                "total_ms": total_ns / NS_PER_MS,
                **_spread_ms(stage_ns),
                "share_percent": 100.0 * total_ns / cycles_ns if cycles_ns else 0.0,
            }
        )
    return rows


def cycle_row(samples: CycleSamples) -> dict[str, Any]:
    """``count, mean_ms, p50_ms, p99_ms, per_s``; the rate is over the time from the first start to the last end."""
    count = len(samples.start_ns)
    duration_ns = samples.duration_ns
    elapsed_ns = int((samples.start_ns + duration_ns).max() - samples.start_ns.min()) if count else 0
    per_s = count * NS_PER_S / elapsed_ns if elapsed_ns else 0.0
    return {"count": count, **_spread_ms(duration_ns), "per_s": per_s}


def operation_rows(trace: Trace) -> list[dict[str, Any]]:
    """``operation, stage, agent, count, total_ms`` for every pair of operation and agent, the largest total first.

    Operations nest and run side by side, so these totals overlap; only the stage table partitions time. An interval
    that ends before it starts counts as 0. Operations of a vocabulary newer than ours are left out.
    """
    records = trace.records[np.isin(trace.records["operation"], list(KNOWN_OPERATIONS))]
    keys = records["operation"].astype(np.int64) * len(trace.agents) + records["agent"]
    distinct, inverse = np.unique(keys, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(distinct))
    totals_ns = np.zeros(len(distinct), np.int64)
    np.add.at(totals_ns, inverse, np.maximum(records["t1_ns"] - records["t0_ns"], 0))
    rows = []
    for key, count, total_ns in zip(distinct.tolist(), counts.tolist(), totals_ns.tolist(), strict=True):
        operation = Operation(key // len(trace.agents))
        rows.append(
            {
                "operation": operation.label,
                "stage": operation.stage.label,
                "agent": trace.agents[key % len(trace.agents)],
                "count": count,
                "total_ms": total_ns / NS_PER_MS,
            }
        )
    return sorted(rows, key=lambda row: (-row["total_ms"], row["operation"], row["agent"]))


def unknown_operation_count(trace: Trace) -> int:
    """Records whose operation is not in our vocabulary."""
    return int((~np.isin(trace.records["operation"], list(KNOWN_OPERATIONS))).sum())


def _spread_ms(durations_ns: npt.NDArray[np.int64]) -> dict[str, float]:
    if not len(durations_ns):
        return {"mean_ms": 0.0, "p50_ms": 0.0, "p99_ms": 0.0}
    p50, p99 = np.percentile(durations_ns, (50, 99)) / NS_PER_MS
    return {"mean_ms": float(durations_ns.mean()) / NS_PER_MS, "p50_ms": float(p50), "p99_ms": float(p99)}

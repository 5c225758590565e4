"""The comparison of two runs: ratios, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from profiling.compare import compare_reports, ratio_intervals
from profiling.cycles import CycleSamples
from profiling.stages import Stage
from tests.oracles.profiling_traces import example_report


def samples_of(stage_ms: np.ndarray, passed: np.ndarray | None = None) -> CycleSamples:
    stage_ns = (stage_ms * 1e6).astype(np.int64)
    count = len(stage_ns)
    passed = np.ones_like(stage_ns, dtype=np.bool_) if passed is None else passed
    return CycleSamples(
        np.arange(1, count + 1, dtype=np.uint64), np.arange(count, dtype=np.int64), stage_ns * passed, passed, {}
    )


def noisy(mean_ms: float, count: int, seed: int) -> CycleSamples:
    rng = np.random.default_rng(seed)
    return samples_of(rng.gamma(4.0, mean_ms / 4.0, size=(count, 8)))


def test_ratios_without_samples() -> None:
    a, b = example_report(), example_report()
    b["run"] |= {"id": "run-8", "mode": "baseline"}
    for row in b["stages"]:
        row["mean_ms"] /= 4
    b["stages"][3]["mean_ms"] = 0.0
    b["cycle"] = {"mean_ms": 5.0, "p50_ms": 6.5, "p99_ms": 8.25, "per_s": 195.0}
    comparison = compare_reports(a, b)
    assert comparison["a"] == {"id": "run-7", "mode": "optimized"}
    assert comparison["differences"] == []
    assert [row["ratio"] for row in comparison["stages"]] == [4, 4, 4, None, 4, 4, 4, 4]
    assert all(row["ratio_low"] is row["ratio_high"] is None for row in comparison["stages"])
    cycle = comparison["cycle"]
    ratios = (cycle["ratio"], cycle["p50_ms_ratio"], cycle["p99_ms_ratio"], cycle["per_s_ratio"])
    assert ratios == (4.0, 3.0, 5.0, 4.0)


def test_what_else_differs_is_named() -> None:
    a, b = example_report(), example_report()
    b["run"]["seed"] = 8
    b["run"]["data"] = {"name": "generated", "synthetic": True, "sha256": None}
    assert compare_reports(a, b)["differences"] == [
        "run.data.name",
        "run.data.sha256",
        "run.data.synthetic",
        "run.seed",
    ]


def test_intervals_of_constant_times_are_points() -> None:
    a, b = samples_of(np.full((50, 8), 6.0)), samples_of(np.full((30, 8), 2.0))
    intervals = ratio_intervals(a, b)
    assert len(intervals) == len(Stage) + 1
    assert intervals == [pytest.approx((3.0, 3.0))] * 9


def test_the_same_seed_gives_the_same_intervals() -> None:
    a, b = noisy(3.0, 100, 1), noisy(1.0, 100, 2)
    assert ratio_intervals(a, b, seed=5) == ratio_intervals(a, b, seed=5)
    assert ratio_intervals(a, b, seed=5) != ratio_intervals(a, b, seed=6)


def test_the_true_ratio_lies_in_most_intervals() -> None:
    """95 % nominal over 40 runs of 8 independent stages; 88 % is far below what chance allows for a right method."""
    inside = 0
    for run in range(40):
        intervals = ratio_intervals(noisy(3.0, 200, 2 * run), noisy(1.0, 200, 2 * run + 1), seed=run)
        inside += sum(low <= 3.0 <= high for low, high in filter(None, intervals[:8]))
    assert 0.88 * 320 <= inside < 320


def test_neighbouring_cycles_that_share_their_noise_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    slow_drift = np.repeat(rng.gamma(4.0, 1.0, size=(25, 1)), 8, axis=0) * np.ones((1, 8))
    b = samples_of(np.full((200, 8), 1.0))
    drifting = ratio_intervals(samples_of(slow_drift), b)[0]
    shuffled = ratio_intervals(samples_of(rng.permutation(slow_drift)), b)[0]
    assert drifting is not None and shuffled is not None
    assert drifting[1] - drifting[0] > 1.3 * (shuffled[1] - shuffled[0])


def test_cycles_that_skip_a_stage_do_not_dilute_it() -> None:
    passed = np.ones((40, 8), np.bool_)
    passed[::2, 4:] = False
    a = samples_of(np.full((40, 8), 6.0), passed)
    b = samples_of(np.full((40, 8), 3.0))
    intervals = ratio_intervals(a, b)
    assert intervals[5] == pytest.approx((2.0, 2.0))
    low, high = intervals[8] or (0.0, 0.0)
    assert low < 1.5 < high  # the whole cycle: 48 or 24 ms against 24 ms


def test_too_few_cycles_give_no_interval() -> None:
    passed = np.ones((40, 8), np.bool_)
    passed[7:, 7] = False
    a, b = samples_of(np.full((40, 8), 6.0), passed), samples_of(np.full((40, 8), 3.0))
    assert [interval is None for interval in ratio_intervals(a, b)] == [False] * 7 + [True, False]
    assert ratio_intervals(samples_of(np.full((7, 8), 6.0)), b) == [None] * 9
    assert None not in ratio_intervals(samples_of(np.full((8, 8), 6.0)), b)
    empty = samples_of(np.empty((0, 8)))
    assert ratio_intervals(empty, b) == [None] * 9


def test_samples_put_intervals_into_the_comparison() -> None:
    comparison = compare_reports(
        example_report(), example_report(), a_samples=noisy(3.0, 100, 1), b_samples=noisy(3.0, 100, 2)
    )
    row = comparison["stages"][0]
    assert row["ratio"] == 1.0 and 0.7 < row["ratio_low"] < 1 < row["ratio_high"] < 1.4
    assert comparison["cycle"]["ratio_low"] < comparison["cycle"]["ratio_high"]
